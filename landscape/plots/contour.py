"""Filled contours of a loss surface, as Figures 3 and 6 of the DropAttack paper (but on common planes and levels)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.plots.captions import axis_labels, center_title, lowest_point, made_how, put_caption
from landscape.plots.scale import COLORS, Scale, common_scale, only_plane

__all__ = ["contour", "contour_panels", "fill_plane", "label_lines", "loss_colorbar"]


def contour(surface: xr.Dataset, ax: Axes, scale: Scale | None = None, title: str | None = None) -> Axes:
    """Draw one surface.

    The cross marks the center, the circle the lowest point that is drawn. Points whose loss is not finite are hatched.

    Args:
        surface: from :func:`landscape.loss_surface`, one split.
        ax: where to draw.
        scale: levels and colors; None: chosen from this surface alone.
        title: None for none.

    Returns:
        ``ax``.
    """
    scale = scale or common_scale([surface])
    fill_plane(only_plane(surface, "loss"), ax, scale)
    xlabel, ylabel = axis_labels(surface)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def fill_plane(plane: xr.DataArray, ax: Axes, scale: Scale) -> None:
    """Filled contours with labelled lines, the center, and the lowest point.

    Args:
        plane: losses; the first dimension is drawn upwards, the second to the right.
        ax: where to draw.
        scale: levels and colors.
    """
    down, across = plane.dims
    y, x, values = plane[down].values, plane[across].values, np.ma.masked_invalid(plane.values)
    ax.patch.set(facecolor="0.85", hatch="///", edgecolor="0.6")
    ax.contourf(x, y, values, levels=scale.levels, norm=scale.norm, cmap=COLORS)
    lines = ax.contour(x, y, values, levels=scale.levels, colors="black", linewidths=0.5, alpha=0.6)
    label_lines(ax, lines, np.asarray(lines.levels)[::2], lambda level: f"{level:g}")
    row, column = np.unravel_index(np.ma.argmin(values), values.shape)
    ax.plot(0, 0, marker="+", color="white", markersize=10, markeredgewidth=2)
    ax.plot(x[column], y[row], marker="o", color="white", markersize=7, fillstyle="none", markeredgewidth=1.5)
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))


def label_lines(ax: Axes, lines: QuadContourSet, levels: np.ndarray, shown: Callable[[float], str]) -> None:
    """Write these levels on their lines, readable on any color and not cut off at the frame."""
    for label in ax.clabel(lines, levels, fontsize=7, fmt=shown):
        label.set(bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.65, "pad": 0.5}, clip_on=False)


def contour_panels(
    surfaces: Mapping[str, xr.Dataset], heading: str | None = None, columns: int | None = None
) -> Figure:
    """Several models side by side on common axes, levels and colors.

    Args:
        surfaces: model name to surface, one split each.
        heading: of the figure.
        columns: panels in a row; None: all in one.
    """
    scale = common_scale(surfaces.values())
    columns = columns or len(surfaces)
    rows = -(-len(surfaces) // columns)
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        figure = Figure(figsize=(4.0 * columns + 1.0, 4.2 * rows + 0.8), layout="constrained", dpi=150)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        axes, unused = grid.flat[: len(surfaces)], grid.flat[len(surfaces) :]
        for ax in unused:
            ax.set_axis_off()
        for ax, (name, surface) in zip(axes, surfaces.items(), strict=True):
            contour(surface, ax, scale, center_title(name, surface))
            ax.label_outer()
    loss_colorbar(figure, list(axes), scale)
    put_caption(figure, f"+ center   {lowest_point(surfaces.values())}", made_how(surfaces))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def loss_colorbar(figure: Figure, axes: Sequence[Axes], scale: Scale) -> None:
    """One color bar of losses for all the axes."""
    colors = figure.colorbar(
        ScalarMappable(scale.norm, COLORS),
        ax=list(axes),
        label="loss (nats)",
        ticks=scale.levels,
        format="{x:g}",
        shrink=0.85,
        pad=0.02,
    )
    colors.minorticks_off()
