"""A loss surface in three dimensions, as Figures 4 and 7 of the DropAttack paper (but on common planes and heights)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LightSource, Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from landscape.plots.captions import axis_labels, center_title, made_how, put_caption
from landscape.plots.scale import COLORS, Scale, common_scale, only_plane

__all__ = ["relief", "relief_panels"]


def relief(surface: xr.Dataset, ax: Axes3D, scale: Scale | None = None, title: str | None = None) -> Axes3D:
    """Draw one surface with its contours on the floor; points whose loss is not finite are left out.

    Args:
        surface: from :func:`landscape.loss_surface`, one split.
        ax: axes with ``projection="3d"``.
        scale: heights, levels and colors; None: chosen from this surface alone. A logarithmic scale draws common
            logarithms and labels them with losses.
        title: None for none.

    Returns:
        ``ax``.
    """
    scale = scale or common_scale([surface])
    plane = only_plane(surface, "loss")
    alpha, beta = np.meshgrid(plane["alpha"].values, plane["beta"].values)
    heights = scale.height(plane.values)
    levels = scale.height(scale.levels)
    bottom, top = float(levels[0]), float(levels[-1])
    floor = bottom - 0.35 * (top - bottom)
    norm = Normalize(bottom, top)
    filled = np.where(np.isnan(heights), top, heights)
    light = LightSource(azdeg=315, altdeg=50).hillshade(filled, vert_exag=0.3 * len(beta) / (top - bottom))
    colors = ScalarMappable(norm, COLORS).to_rgba(filled)
    colors[..., :3] *= (0.75 + 0.25 * light)[..., np.newaxis]
    colors[..., 3] = ~np.isnan(heights)
    ax.plot_surface(alpha, beta, heights, facecolors=colors, rcount=200, ccount=200, linewidth=0, shade=False)
    ax.contour(
        alpha, beta, np.ma.masked_invalid(heights), levels=levels, norm=norm, cmap=COLORS, zdir="z", offset=floor,
        linewidths=0.8,
    )  # fmt: skip
    ax.set_zlim(floor, top)
    shown = slice(None, None, max(1, len(levels) // 6))
    ax.set_zticks(levels[shown], [f"{level:g}" for level in scale.levels[shown]])
    ax.tick_params(labelsize=7, pad=0)
    ax.set(xlabel=axis_labels(surface)[0], ylabel=axis_labels(surface)[1], zlabel="loss (nats)")
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.label.set_size(8)
        axis.set_pane_color((1, 1, 1, 0))
    ax.view_init(elev=28, azim=-55)
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def relief_panels(surfaces: Mapping[str, xr.Dataset], heading: str | None = None, columns: int | None = None) -> Figure:
    """Several models side by side on common axes, heights, colors and one camera.

    Args:
        surfaces: model name to surface, one split each.
        heading: of the figure.
        columns: panels in a row; None: all in one.
    """
    scale = common_scale(surfaces.values())
    columns = columns or len(surfaces)
    rows = -(-len(surfaces) // columns)
    height = 4.6 * rows + 0.85
    figure = Figure(figsize=(5.2 * columns, height), dpi=150)
    for number, (name, surface) in enumerate(surfaces.items(), 1):
        ax = figure.add_subplot(rows, columns, number, projection="3d")
        relief(surface, ax, scale, center_title(name, surface))
    figure.subplots_adjust(left=0.02, right=0.94, bottom=0.55 / height, top=1 - 0.75 / height, wspace=0.12, hspace=0.18)
    put_caption(figure, made_how(surfaces))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure
