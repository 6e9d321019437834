"""Where on a plane the loss is far from convex: the ratio of extreme Hessian eigenvalues (Li et al. 2018, Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.plots.captions import as_text, axis_labels, made_how, put_caption
from landscape.plots.scale import COLORS, only_plane

__all__ = ["eigenvalue_ratio", "eigenvalue_ratio_panels"]


def eigenvalue_ratio(surface: xr.Dataset, ax: Axes, highest: float | None = None, title: str | None = None) -> Axes:
    r"""Draw :math:`|\lambda_{min} / \lambda_{max}|` as one cell a point: dark where the loss is nearly convex.

    On the dashed line the smallest eigenvalue is zero; on its positive side the loss is convex whatever the ratio.
    Cells whose eigenvalues have not converged are crossed; those that are not finite are hatched grey.

    Args:
        surface: variables ``ratio``, ``smallest_eigenvalue`` and ``converged`` on (alpha, beta).
        ax: where to draw.
        highest: ratio of the brightest color; None: the largest finite one of this surface.
        title: None for none.

    Returns:
        ``ax``.

    Raises:
        ValueError: no ratio is finite.
    """
    ratio, converged = only_plane(surface, "ratio"), only_plane(surface, "converged")
    norm = Normalize(0, _highest([surface]) if highest is None else highest)
    alpha, beta, values = ratio["alpha"].values, ratio["beta"].values, np.ma.masked_invalid(ratio.values)
    ax.patch.set(facecolor="0.85", hatch="///", edgecolor="0.6")
    ax.pcolormesh(alpha, beta, values, norm=norm, cmap=COLORS, shading="nearest")
    missed = np.ma.masked_array(np.ones(values.shape), converged.values.astype(bool) | np.ma.getmaskarray(values))
    if missed.count():
        # Two colors of crosses, one over the other: seen on dark and on bright cells.
        for color, width in (("black", 2.2), ("white", 1.0)):
            rows, columns = np.nonzero(~np.ma.getmaskarray(missed))
            ax.plot(
                alpha[columns], beta[rows], "x", color=color, markersize=_cross(values.shape), markeredgewidth=width
            )
    smallest = np.ma.masked_invalid(only_plane(surface, "smallest_eigenvalue").values)
    if smallest.count() and smallest.min() < 0 <= smallest.max() and min(smallest.shape) > 1:
        ax.contour(alpha, beta, smallest, levels=[0.0], colors="black", linewidths=2.4, linestyles="-")
        ax.contour(alpha, beta, smallest, levels=[0.0], colors="white", linewidths=1.2, linestyles="--")
    xlabel, ylabel = axis_labels(surface)
    ax.set(aspect="equal", xlabel=xlabel, ylabel=ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def eigenvalue_ratio_panels(surfaces: Mapping[str, xr.Dataset], heading: str | None = None) -> Figure:
    """Several models side by side on common axes and colors.

    Args:
        surfaces: model name to what :func:`eigenvalue_ratio` draws.
        heading: of the figure.
    """
    highest = _highest(surfaces.values())
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        figure = Figure(figsize=(4.0 * len(surfaces) + 1.0, 5.0), layout="constrained", dpi=150)
        axes = figure.subplots(1, len(surfaces), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (name, surface) in zip(axes, surfaces.items(), strict=True):
            eigenvalue_ratio(surface, ax, highest, _title(name, surface))
            ax.label_outer()
    figure.colorbar(
        ScalarMappable(Normalize(0, highest), COLORS),
        ax=list(axes),
        label="|smallest / largest eigenvalue| of the Hessian",
        shrink=0.85,
        pad=0.02,
    )
    marks = "dashed line: smallest eigenvalue is zero   × eigenvalues not converged   hatched: not finite"
    put_caption(figure, marks, made_how(surfaces, "ratio"))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _title(name: str, surface: xr.Dataset) -> str:
    converged = surface["converged"].values.astype(bool)
    return f"{as_text(name)}\n{converged.sum()} of {converged.size} points converged"


def _highest(surfaces: Iterable[xr.Dataset]) -> float:
    values = [one["ratio"].values for one in surfaces]
    finite = np.concatenate([one[np.isfinite(one)] for one in values])
    if not finite.size:
        raise ValueError("no finite ratio on any surface: nothing to draw")
    return float(finite.max()) or 1.0


def _cross(shape: tuple[int, ...]) -> float:
    """Size of a cross (points) that stays within its cell of a panel four inches wide."""
    return max(2.0, min(8.0, 4 * 72 * 0.4 / math.ceil(max(shape))))
