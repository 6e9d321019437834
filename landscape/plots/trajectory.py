"""The way of a training run over the plane of the principal components of its checkpoints."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from landscape.plots.captions import axis_labels, lowest_point, made_how, principal, put_caption
from landscape.plots.contour import contour, loss_colorbar
from landscape.plots.scale import COLORS, Scale, common_scale, logarithmic_axis, only

__all__ = ["trajectory", "trajectory_panels"]

_NARROW = 3.0  # sides beyond this ratio are not drawn to one scale: a strip shows nothing


def trajectory(
    surface: xr.Dataset, path: xr.Dataset, ax: Axes, scale: Scale | None = None, title: str | None = None
) -> Axes:
    """Draw the surface, and over it the checkpoints of a run, projected on its plane.

    A square marks the first checkpoint, a star the last. Markers have the color of the checkpoint's own loss, which
    differs from that below them as far as the checkpoint is away from the plane.

    Args:
        surface: from :func:`landscape.loss_surface`, one split.
        path: from :func:`landscape.trajectory_path`, one split: dimension ``checkpoint``; variables ``alpha``,
            ``beta``, ``loss``, ``distance`` (from the plane); as a variable or in ``attrs``, ``explained_variance``:
            the share of each of the two axes.
        ax: where to draw.
        scale: levels and colors; None: those that hold the surface and the path.
        title: None for none.

    Returns:
        ``ax``.

    Raises:
        ValueError: a path without these variables.
    """
    _check(path)
    scale = scale or common_scale([surface, path])
    contour(surface, ax, scale, title)
    alpha, beta, loss = (path[name].values for name in ("alpha", "beta", "loss"))
    above = 5  # the labels of the contours
    halo = [withStroke(linewidth=2.6, foreground="white")]
    ax.plot(alpha, beta, color="black", linewidth=1.2, path_effects=halo, zorder=above)
    outline = [withStroke(linewidth=2.4, foreground="black")]
    last = len(alpha) - 1
    looks = ((slice(1, last), "o", 22), (slice(0, 1), "s", 60), (slice(last, last + 1), "*", 170))
    for some, marker, size in looks:
        finite = np.isfinite(loss[some])
        ax.scatter(
            alpha[some][finite], beta[some][finite], c=loss[some][finite], cmap=COLORS, norm=scale.norm, marker=marker,
            s=size, edgecolors="white", linewidths=1.0, path_effects=outline, zorder=above,
        )  # fmt: skip
        ax.scatter(
            alpha[some][~finite], beta[some][~finite], color="0.85", marker=marker, s=size, edgecolors="black",
            linewidths=1.0, hatch="//////", zorder=above,
        )  # fmt: skip
    xlabel, ylabel = _labels(surface, path)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    ratio = (right - left) / (top - bottom)
    if not 1 / _NARROW <= ratio <= _NARROW:
        ax.set_aspect("auto")
    return ax


def trajectory_panels(surface: xr.Dataset, path: xr.Dataset, heading: str | None = None) -> Figure:
    """The run on its plane; beside it, each checkpoint's loss and how far it is from the plane.

    A ``projected_loss``, if the path has one, is drawn beside the loss: that of the plane below the checkpoint.

    Args:
        surface: as for :func:`trajectory`.
        path: as for :func:`trajectory`.
        heading: of the figure.
    """
    _check(path)
    scale = common_scale([surface, path])
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        figure = Figure(figsize=(10.0, 5.2), layout="constrained", dpi=150)
        grid = figure.add_gridspec(2, 2, width_ratios=(1.9, 1))
        plane = trajectory(surface, path, figure.add_subplot(grid[:, 0]), scale)
    loss_colorbar(figure, [plane], scale)
    over = path["checkpoint"].values
    upper = figure.add_subplot(grid[0, 1])
    lower = figure.add_subplot(grid[1, 1], sharex=upper)
    for ax, variable, label in ((upper, "loss", "loss (nats)"), (lower, "distance", "distance from the plane")):
        ax.plot(
            over, _finite(path[variable]), "o-", color="black", markersize=3, linewidth=1, label="checkpoint",
            clip_on=False,
        )  # fmt: skip
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
    if "projected_loss" in path:
        values = _finite(path["projected_loss"])
        upper.plot(over, values, "o--", color="0.45", markersize=3, markerfacecolor="white", label="its projection")
        upper.legend(fontsize=8, frameon=False)
    if scale.logarithmic:
        logarithmic_axis(upper)
    upper.tick_params(labelbottom=False)
    lower.set_ylim(bottom=0)
    lower.set_xlabel("checkpoint")
    lower.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    marks = f"□ first checkpoint   ★ last   + center   {lowest_point([surface])}   markers: the checkpoint's own loss"
    if not _inside(surface, path) or not np.isfinite([*path["loss"].values, *surface["loss"].values.flat]).all():
        marks += "   hatched: not evaluated or not finite"
    put_caption(figure, marks, made_how({"": surface}))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _check(path: xr.Dataset) -> None:
    missing = [name for name in ("alpha", "beta", "loss", "distance") if name not in path.variables]
    if missing:
        raise ValueError(
            f"path: expected alpha, beta, loss and distance over checkpoint, but {', '.join(missing)} is missing; "
            f"it has {', '.join(map(str, path.variables)) or 'nothing'}"
        )
    only(path, "loss", ("checkpoint",), "path")


def _finite(values: xr.DataArray) -> np.ndarray:
    return np.where(np.isfinite(values.values), values.values, np.nan)


def _inside(surface: xr.Dataset, path: xr.Dataset) -> bool:
    """Whether no checkpoint lies beyond the sides of the surface."""
    return all(
        surface[axis].min() <= path[axis].min() and path[axis].max() <= surface[axis].max()
        for axis in ("alpha", "beta")
    )


def _labels(surface: xr.Dataset, path: xr.Dataset) -> tuple[str, ...]:
    shares = path["explained_variance"].values if "explained_variance" in path else path.attrs.get("explained_variance")
    if shares is None:
        return axis_labels(surface)
    return tuple(
        f"{axis} ({principal(index, float(share))})".replace(", ", ",\n")
        for index, (axis, share) in enumerate(zip(("alpha", "beta"), shares, strict=False))
    )
