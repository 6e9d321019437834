"""Filled contours of a loss surface, as Figures 3 and 6 of the DropAttack paper (but on common planes and levels)."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.plots.scale import COLORS, Scale, axis_labels, center_title, common_scale, made_how, only_plane

__all__ = ["contour", "contour_panels"]


def contour(surface: xr.Dataset, ax: Axes, scale: Scale | None = None, title: str | None = None) -> Axes:
    """Draw one surface.

    The cross marks the center, the circle the lowest point of the grid. Points whose loss is not finite are hatched.

    Args:
        surface: from :func:`landscape.loss_surface`, one split.
        ax: where to draw.
        scale: levels and colors; None: chosen from this surface alone.
        title: None for none.

    Returns:
        ``ax``.
    """
    scale = scale or common_scale([surface])
    plane = only_plane(surface, "loss")
    alpha, beta = plane["alpha"].values, plane["beta"].values
    values = np.ma.masked_invalid(plane.values)
    ax.patch.set(facecolor="0.85", hatch="///", edgecolor="0.6")
    ax.contourf(alpha, beta, values, levels=scale.levels, norm=scale.norm, cmap=COLORS)
    lines = ax.contour(alpha, beta, values, levels=scale.levels, colors="black", linewidths=0.5, alpha=0.6)
    labels = ax.clabel(lines, np.asarray(lines.levels)[::2], fontsize=7, fmt=lambda level: f"{level:g}")
    for label in labels:
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.65, "pad": 0.5})
    row, column = np.unravel_index(np.ma.argmin(values), values.shape)
    ax.plot(0, 0, marker="+", color="white", markersize=10, markeredgewidth=2)
    ax.plot(alpha[column], beta[row], marker="o", color="white", markersize=7, fillstyle="none", markeredgewidth=1.5)
    ax.set(aspect="equal", xlabel=axis_labels(surface)[0], ylabel=axis_labels(surface)[1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def contour_panels(surfaces: Mapping[str, xr.Dataset], heading: str | None = None) -> Figure:
    """Several models side by side on common axes, levels and colors.

    Args:
        surfaces: model name to surface, one split each.
        heading: of the figure.
    """
    scale = common_scale(surfaces.values())
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        figure = Figure(figsize=(4.0 * len(surfaces) + 1.0, 5.0), layout="constrained", dpi=150)
        axes = figure.subplots(1, len(surfaces), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (name, surface) in zip(axes, surfaces.items(), strict=True):
            contour(surface, ax, scale, center_title(name, surface))
            ax.label_outer()
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
    figure.supxlabel(f"+ center   ○ lowest point of the grid\n{made_how(surfaces)}", fontsize=7, color="0.35")
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure
