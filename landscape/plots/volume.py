"""A loss volume as three slices through its center, each square to one direction."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.plots.captions import axis_labels, lowest_point, made_how, put_caption
from landscape.plots.contour import fill_plane, loss_colorbar
from landscape.plots.scale import Scale, common_scale, only

__all__ = ["volume", "volume_panels"]

_AXES = ("alpha", "beta", "gamma")


def volume(
    surface: xr.Dataset, ax: Axes, across: str = "gamma", scale: Scale | None = None, title: str | None = None
) -> Axes:
    """Draw the slice through the center on which one of the coordinates is zero.

    Marks are those of :func:`landscape.plots.contour`; the lowest point is that of the slice.

    Args:
        surface: from :func:`landscape.loss_volume`, one split.
        ax: where to draw.
        across: the coordinate that stays at zero.
        scale: levels and colors; None: those of the whole volume.
        title: None: the slice's coordinate; without a point at zero, that of the nearest one.

    Returns:
        ``ax``.

    Raises:
        ValueError: no such coordinate, or other dimensions than alpha, beta and gamma.
    """
    if across not in _AXES:
        raise ValueError(f"across: expected one of {', '.join(_AXES)}, got {across!r}")
    values = only(surface, "loss", _AXES)
    x, y = (axis for axis in _AXES if axis != across)
    nearest = int(np.abs(values[across].values).argmin())
    plane = values.isel({across: nearest})
    fill_plane(plane.transpose(y, x), ax, scale or common_scale([surface]))
    xlabel, ylabel = axis_labels(surface, [x, y])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(
        f"{across} = {float(plane[across]):g}".replace("-", "\N{MINUS SIGN}") if title is None else title, fontsize=10
    )
    return ax


def volume_panels(surface: xr.Dataset, heading: str | None = None) -> Figure:
    """The three slices side by side on common levels and colors.

    Args:
        surface: as for :func:`volume`.
        heading: of the figure.
    """
    only(surface, "loss", _AXES)
    scale = common_scale([surface])
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        figure = Figure(figsize=(13.0, 4.6), layout="constrained", dpi=150)
        axes = figure.subplots(1, 3)
        for ax, across in zip(axes, reversed(_AXES), strict=True):
            volume(surface, ax, across, scale)
    loss_colorbar(figure, list(axes), scale)
    put_caption(figure, f"+ center   {lowest_point([surface], 'of the slice')}", made_how({"": surface}))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure
