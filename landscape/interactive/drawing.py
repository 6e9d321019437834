"""Traces, scenes and the menu, as both figures use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from landscape.interactive.planes import Choice, Planes, holds
from landscape.interactive.text import axis_title, hover_format, shown
from landscape.plots.scale import Scale

__all__ = ["center", "color_bar", "menu", "relief", "scene", "z_axis"]

_FLOOR = 0.35  # depth of the floor below the surfaces, as a share of their height
_TICKS = 7
# Little gloss: a highlight would pass for another value.
_LIGHTING = {"ambient": 0.7, "diffuse": 0.7, "specular": 0.1, "roughness": 0.7, "fresnel": 0.1}
_EYE = {"x": 1.15, "y": -1.6, "z": 1.05}  # much as the relief is seen in the plots for paper


def relief(planes: Planes, model: str, choice: Choice, scale: Scale, **looks: Any) -> go.Surface:
    """One surface with its contour lines on the floor.

    Args:
        planes: what is drawn.
        model: which of them.
        choice: what of it.
        scale: of all surfaces that are seen with it.
        **looks: further properties of the trace: scene, colors.
    """
    plane = planes.each[model, choice.split]
    values = plane[choice.quantity].values
    bottom, top, step = _lines(scale)
    lines = {"show": True, "usecolormap": True, "start": bottom, "end": top, "size": step, "project": {"z": True}}
    return go.Surface(
        x=_small(planes.alpha),
        y=_small(planes.beta),
        z=_small(scale.height(values)) if np.isfinite(values).any() else None,  # plotly.js fails where nothing is
        cmin=float(scale.height(scale.levels)[0]),
        cmax=float(scale.height(scale.levels)[-1]),
        name=shown(model),
        contours={"z": lines},
        lighting=_LIGHTING,
        **_hover(planes, model, choice),
        **looks,
    )


def center(planes: Planes, model: str, choice: Choice, scale: Scale, **looks: Any) -> go.Scatter3d:
    """Crosses where the trained weights are, on the floor and, if the value there can be drawn, on the surface.

    The one on the floor is in every scene: plotly.js fails to turn a scene without anything in it.
    """
    value = float(planes.each[model, choice.split][f"center_{choice.quantity}"])
    floor, top = z_axis(choice, scale)["range"]
    heights = [floor]
    if holds(np.array(value)) and (value > 0 or not scale.logarithmic):
        # A little above the surface, which would cover one half of it.
        heights.append(float(scale.height(np.array(value))) + 0.01 * (top - floor))
    return go.Scatter3d(
        x=[0.0] * len(heights),
        y=[0.0] * len(heights),
        z=heights,
        mode="markers",
        marker={"symbol": "cross", "size": 5, "color": ["black", "white"], "line": {"color": "black", "width": 1}},
        name=shown(f"center of {model}"),
        hovertemplate=f"center<br>{shown(choice.quantity)} {shown(format(value, hover_format(choice.quantity)))}",
        showlegend=False,
        **looks,
    )


def color_bar(choice: Choice, scale: Scale) -> dict[str, Any]:
    """Values, also where colors go by their logarithms."""
    values, words = _ticks(scale)
    return {"title": {"text": axis_title(choice)}, "tickvals": values, "ticktext": words, "len": 0.7, "thickness": 16}


def z_axis(choice: Choice, scale: Scale) -> dict[str, Any]:
    """The vertical axis: all surfaces of the scale, and the floor below them."""
    levels = scale.height(scale.levels)
    bottom, top = float(levels[0]), float(levels[-1])
    values, words = _ticks(scale)
    return {
        "range": [bottom - _FLOOR * (top - bottom), top],
        "tickvals": values,
        "ticktext": words,
        "title": {"text": axis_title(choice)},
    }


def scene(planes: Planes, labels: Sequence[str], choice: Choice, scale: Scale) -> dict[str, Any]:
    """Axes, proportions and camera of one scene.

    Args:
        planes: what is drawn.
        labels: of alpha and beta.
        choice: what is seen.
        scale: of the heights.
    """
    horizontal = [
        {"range": [float(points[0]), float(points[-1])], "nticks": 5, "title": {"text": shown(label)}}
        for points, label in zip((planes.alpha, planes.beta), labels, strict=True)
    ]
    return {
        "xaxis": horizontal[0],
        "yaxis": horizontal[1],
        "zaxis": z_axis(choice, scale),
        "aspectmode": "manual",
        "aspectratio": {"x": 1, "y": 1, "z": 0.75},
        "camera": {"eye": _EYE},
    }


def menu(
    choices: Sequence[Choice], first: Choice, visible: Mapping[Choice, list[bool]], layouts: Mapping[Choice, Any]
) -> dict[str, Any]:
    """One list of all combinations: two lists, of quantities and of splits, would not know of each other.

    Args:
        choices: the entries.
        first: the one that is seen at first.
        visible: which traces each shows.
        layouts: what else each changes.
    """
    return {
        "buttons": [
            {"label": shown(one.label), "method": "update", "args": [{"visible": visible[one]}, layouts[one]]}
            for one in choices
        ],
        "active": choices.index(first),
        "x": 0.0,
        "xanchor": "left",
        "y": 1.0,
        "yanchor": "bottom",
        "pad": {"b": 62},
        "showactive": True,
    }


def _lines(scale: Scale) -> tuple[float, float, float]:
    """First and last contour line and the step between them: even steps of height, as plotly wants them."""
    levels = scale.height(scale.levels)
    if scale.logarithmic:
        levels = dataclasses.replace(scale, low=float(levels[0]), high=float(levels[-1]), logarithmic=False).levels
    return float(levels[0]), float(levels[-1]), float(levels[1] - levels[0])


def _ticks(scale: Scale) -> tuple[list[float], list[str]]:
    shown_levels = scale.levels[:: max(1, -(-len(scale.levels) // _TICKS))]
    return scale.height(shown_levels).tolist(), [f"{level:g}" for level in shown_levels]


def _hover(planes: Planes, model: str, choice: Choice) -> dict[str, Any]:
    """Coordinates, and the values of loss, accuracy and what is drawn; of these only those that are not the heights."""
    plane = planes.each[model, choice.split]
    told = [name for name in planes.quantities if name in ("loss", "accuracy", choice.quantity)]
    kept = [name for name in told if name != choice.quantity or choice.logarithmic]
    places = {name: f"customdata[{index}]" for index, name in enumerate(kept)} | (
        {} if choice.logarithmic else {choice.quantity: "z"}
    )
    rows = [f"{shown(name)} %{{{places[name]}:{hover_format(name)}}}" for name in told]
    template = "<br>".join(["alpha %{x:.3f}", "beta %{y:.3f}", *rows])
    # For surfaces plotly.js looks custom data up by the index of alpha first, though heights by that of beta first.
    data = _small(np.stack([plane[name].values.T for name in kept], axis=-1)) if kept else None
    return {"customdata": data, "hovertemplate": template}


def _small(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)  # half the file; nobody reads an eighth digit off a surface
