"""Words of a figure as plotly shows them: it reads a subset of HTML, and a name is text."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping

import xarray as xr

from landscape.interactive.planes import Choice, Planes
from landscape.plots.captions import center_title, made_how, percent

__all__ = ["axis_title", "caption", "hover_format", "panel_title", "shown"]

_LINE = 120  # characters of the caption, in a window of common width


def shown(text: object) -> str:
    """Text that plotly shows literally, on as many lines: no tags, and no formulas where a page has loaded MathJax."""
    return html.escape(str(text), quote=False).replace("$", "&#36;").replace("\n", "<br>")


def panel_title(planes: Planes, model: str, choice: Choice) -> str:
    """The model's name, what it has at the center, and what is missing."""
    words = _without_backslashes(center_title(model, planes.each[model, choice.split]))
    return "<br>".join(filter(None, [shown(words), shown(_gaps(planes, model, choice))]))


def axis_title(choice: Choice) -> str:
    """What the heights are, with their unit."""
    return shown(f"{choice.subject} (nats)" if choice.quantity == "loss" else choice.subject)


def hover_format(quantity: str) -> str:
    """How plotly writes a value."""
    return ".2%" if quantity == "accuracy" else ".4g"


def caption(models: Mapping[str, xr.Dataset], planes: Planes, drawn_as: str) -> str:
    """How the surfaces were made, and at how many points they are drawn."""
    made = _without_backslashes(made_how(models, drawn_as=drawn_as))
    drawn = f"drawn at {len(planes.alpha)}×{len(planes.beta)} points"
    return shown("\n".join(textwrap.wrap("; ".join(filter(None, [made, drawn])), _LINE)))


def _gaps(planes: Planes, model: str, choice: Choice) -> str:
    missing = planes.missing(model, choice)
    if missing == 0:
        return ""
    share = "no point" if missing == 1 else f"{percent(missing, 2)} of the points not"
    return f"{share} finite: {'nothing to draw' if missing == 1 else 'gaps'}" + _at_center(planes, model, choice)


def _at_center(planes: Planes, model: str, choice: Choice) -> str:
    value = float(planes.each[model, choice.split][f"center_{choice.quantity}"])
    return "" if math.isfinite(value) else ", the center among them"


def _without_backslashes(text: str) -> str:
    """Undo what Matplotlib needs before a dollar sign."""
    return text.replace(r"\$", "$")
