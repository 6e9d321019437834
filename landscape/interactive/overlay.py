"""Loss surfaces of several models laid over one another in one scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from matplotlib.colors import to_hex, to_rgb

from landscape.interactive.description import described
from landscape.interactive.drawing import center, menu, relief, scene, z_axis
from landscape.interactive.layout import BOTTOM, TOP, note, plain_layout
from landscape.interactive.planes import Choice, Planes, rendered
from landscape.interactive.text import caption, panel_title, shown
from landscape.plots.captions import axis_labels
from landscape.plots.looks import looks
from landscape.plots.scale import Scale

__all__ = ["overlay"]

_OPACITIES = tuple(tenth / 10 for tenth in range(11))
_HEIGHT = 620  # pixels
_SLIDER = 70


def overlay(
    models: Mapping[str, xr.Dataset],
    *,
    quantity: str = "loss",
    split: str | None = None,
    logarithmic: bool | None = None,
    resolution: int = 65,
    opacity: float = 0.6,
    heading: str | None = None,
) -> go.Figure:
    """Draw the surfaces of all models in one scene, each in a color of its own, the lighter the higher.

    The menu is that of :func:`landscape.interactive.surfaces`. A slider sets the opacity of all surfaces but the first,
    which they lie over; a click on a name in the legend hides that model.

    Args:
        models: as for :func:`landscape.interactive.surfaces`.
        quantity: likewise.
        split: likewise.
        logarithmic: likewise.
        resolution: likewise.
        opacity: of all but the first at the beginning, in tenths from 0 to 1.
        heading: of the figure.

    Raises:
        ValueError: as for :func:`landscape.interactive.surfaces`, or another opacity.
    """
    if opacity not in _OPACITIES:
        raise ValueError(f"opacity: expected tenths from 0 to 1, the steps of the slider, got {opacity}")
    planes = rendered(models, resolution)
    first = planes.choice(quantity, split, logarithmic)
    choices = planes.choices()
    scales = {one: planes.scale(one.quantity, one.logarithmic) for one in choices}
    over = planes.models[1:] or planes.models
    traces: list[go.Surface | go.Scatter3d] = []
    drawn: list[Choice] = []
    above: list[int] = []
    for one in choices:
        for model in planes.models:
            if model in over:
                above.append(len(traces))
            traces += _traces(planes, model, one, scales[one], opacity if model in over else 1.0, one == first)
            drawn += [one, one]
    made = caption(models, planes, "surfaces")
    layouts = {one: _layout(planes, one, scales[one], made) for one in choices}
    labels = axis_labels(next(iter(models.values())))
    figure = go.Figure(traces)
    figure.update_layout(
        plain_layout(heading, described(planes)),
        scene=scene(planes, labels, first, scales[first]),
        annotations=layouts[first]["annotations"],
        updatemenus=[menu(choices, first, {one: [one == of for of in drawn] for one in choices}, layouts)],
        sliders=[_slider(over, above, opacity)],
        height=_HEIGHT + TOP + BOTTOM + _SLIDER,
    )
    return figure


def _traces(
    planes: Planes, model: str, choice: Choice, scale: Scale, opacity: float, visible: bool
) -> list[go.Surface | go.Scatter3d]:
    color = looks(planes.models)[model].color
    group = {"legendgroup": f"model {planes.models.index(model)}", "visible": visible}
    return [
        relief(
            planes, model, choice, scale, colorscale=[[0.0, color], [1.0, _lightened(color)]], showscale=False,
            showlegend=True, opacity=opacity, **group,
        ),
        center(planes, model, choice, scale, **group),
    ]  # fmt: skip


def _lightened(color: str) -> str:
    red, green, blue = to_rgb(color)
    return to_hex((0.5 + 0.5 * red, 0.5 + 0.5 * green, 0.5 + 0.5 * blue))


def _layout(planes: Planes, choice: Choice, scale: Scale, made: str) -> dict[str, Any]:
    """All of the layout that depends on the choice."""
    axis = {f"scene.zaxis.{key}": value for key, value in z_axis(choice, scale).items()}
    words = "<br>".join(panel_title(planes, model, choice).replace("<br>", ", ") for model in planes.models)
    return axis | {"annotations": [note(words, x=0.5, y=1.0, size=13, above=True),
                                   note(made, x=0.0, y=0.0, size=11)]}  # fmt: skip


def _slider(over: list[str], traces: list[int], opacity: float) -> dict[str, Any]:
    return {
        "active": _OPACITIES.index(opacity),
        "currentvalue": {"prefix": f"opacity of {shown(', '.join(over))}: "},
        "steps": [
            {"label": f"{share:g}", "method": "restyle", "args": [{"opacity": share}, traces]} for share in _OPACITIES
        ],
        "len": 0.5,
        "x": 0.25,
        "y": 0.0,
        "pad": {"t": 55},
    }
