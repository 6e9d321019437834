"""Loss surfaces of several models side by side, each in a scene that can be turned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from landscape.interactive.description import described
from landscape.interactive.drawing import center, color_bar, menu, relief, scene, z_axis
from landscape.interactive.layout import BOTTOM, TOP, note, plain_layout
from landscape.interactive.planes import Choice, Planes, rendered
from landscape.interactive.text import caption, panel_title
from landscape.plots.captions import axis_labels
from landscape.plots.scale import COLORS, Scale

__all__ = ["surfaces"]

_COLUMNS = 3
_MOST = 16  # drawing contexts that a browser gives to one page; of more, the oldest go blank without a word
_HEIGHT = 520  # pixels a row


def surfaces(
    models: Mapping[str, xr.Dataset],
    *,
    quantity: str = "loss",
    split: str | None = None,
    logarithmic: bool | None = None,
    resolution: int = 65,
    heading: str | None = None,
) -> go.Figure:
    """Draw one scene for each model, on common axes, heights and colors.

    A menu offers every combination of split, quantity and linear or logarithmic heights, of which all scenes show the
    same; shares such as accuracy are linear alone. A quantity has one range for all models and splits. Contour lines
    are drawn on the floor, the center is marked with a cross, and the pointer shows coordinates and values. Points that
    are not finite are gaps, and the model's title says how many there are.

    Args:
        models: name to surface from :func:`landscape.loss_surface`; with or without a dimension ``split``.
        quantity: what is seen first: ``"loss"`` or a metric.
        split: the split that is seen first; None: the first of the surfaces.
        logarithmic: whether common logarithms are seen first, with axes labelled by values. None: where the largest
            value is at least 8 times the smallest, and that is positive.
        resolution: points a side, rendered from the surfaces' interpolants.
        heading: of the figure.

    Returns:
        A figure; ``layout.meta["description"]`` is what :func:`landscape.interactive.describe` says of it. Show or
        write it with :data:`landscape.interactive.LINKED_CAMERAS` as ``post_script`` to turn all scenes together.

    Raises:
        ValueError: no models or more than 16, surfaces on different planes or splits, an unknown quantity or split,
            nothing finite, or logarithms asked for of a share or of what is not positive.
    """
    if len(models) > _MOST:
        raise ValueError(f"models: expected at most {_MOST} scenes in a figure, got {len(models)}; use overlay")
    planes = rendered(models, resolution)
    first = planes.choice(quantity, split, logarithmic)
    choices = planes.choices()
    scales = {one: planes.scale(one.quantity, one.logarithmic) for one in choices}
    columns = min(_COLUMNS, len(models))
    rows = -(-len(models) // columns)
    cells = [[{"type": "scene"} if row * columns + k < len(models) else None for k in range(columns)]
             for row in range(rows)]  # fmt: skip
    figure = make_subplots(rows, columns, specs=cells, horizontal_spacing=0.01, vertical_spacing=0.18 / rows)
    scenes = _scenes(planes)
    drawn: list[Choice] = []
    for one in choices:
        for trace in _traces(planes, one, scales[one], visible=one == first):
            figure.add_trace(trace)
            drawn.append(one)
    for name, surface in zip(scenes, models.values(), strict=True):
        figure.layout[name].update(scene(planes, axis_labels(surface), first, scales[first]))
    domains = [figure.layout[name].domain for name in scenes]
    made = caption(models, planes, "panels")
    layouts = {one: _layout(planes, one, scales[one], domains, made) for one in choices}
    figure.update_layout(
        plain_layout(heading, described(planes)),
        annotations=layouts[first]["annotations"],
        updatemenus=[menu(choices, first, {one: [one == of for of in drawn] for one in choices}, layouts)],
        height=_HEIGHT * rows + TOP + BOTTOM,
    )
    return figure


def _scenes(planes: Planes) -> list[str]:
    return ["scene" if index == 0 else f"scene{index + 1}" for index in range(len(planes.models))]


def _traces(planes: Planes, choice: Choice, scale: Scale, visible: bool) -> list[go.Surface | go.Scatter3d]:
    traces: list[go.Surface | go.Scatter3d] = []
    # One color bar for all, as colors are common: with the first surface that has any.
    with_bar = next(model for model in planes.models if planes.missing(model, choice) < 1)
    for model, name in zip(planes.models, _scenes(planes), strict=True):
        place = {"scene": name, "visible": visible}
        bar = {"showscale": True, "colorbar": color_bar(choice, scale)} if model == with_bar else {"showscale": False}
        traces += [
            relief(planes, model, choice, scale, colorscale=COLORS, **bar, **place),
            center(planes, model, choice, scale, **place),
        ]
    return traces


def _layout(planes: Planes, choice: Choice, scale: Scale, domains: list[Any], made: str) -> dict[str, Any]:
    """All of the layout that depends on the choice."""
    axes = {f"{name}.zaxis.{key}": value for name in _scenes(planes) for key, value in z_axis(choice, scale).items()}
    titles = [
        note(panel_title(planes, model, choice), x=sum(domain.x) / 2, y=domain.y[1], size=14, above=True)
        for model, domain in zip(planes.models, domains, strict=True)
    ]
    return axes | {"annotations": [*titles, note(made, x=0.0, y=0.0, size=11)]}
