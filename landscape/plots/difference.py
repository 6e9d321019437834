"""Two models on one plane, and where the loss of one is above that of the other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from landscape.plots.captions import (
    as_text,
    axis_labels,
    center_title,
    is_adaptive,
    lowest_point,
    made_how,
    put_caption,
)
from landscape.plots.contour import contour, label_lines, loss_colorbar
from landscape.plots.scale import common_scale, only_plane

__all__ = ["SignedScale", "difference", "difference_panels", "signed_scale"]

COLORS = "RdBu_r"  # diverging, color-blind safe; in grey the dashed lines tell minus from plus

_RATIO = 150.0  # of the largest level of a logarithmic scale to the smallest beside zero, at most


@dataclasses.dataclass(frozen=True)
class SignedScale:
    """Levels on both sides of zero.

    Attributes:
        largest: magnitude that the levels must reach.
        logarithmic: whether levels are spaced by ratio, outwards from about a hundredth of the largest.
    """

    largest: float
    logarithmic: bool

    @property
    def levels(self) -> np.ndarray:
        """Round numbers, symmetric about zero, up to the largest or just above it; zero itself is in the middle."""
        if not self.logarithmic:
            ticks = np.asarray(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(0.0, self.largest))
            above = ticks[ticks > 0]
        else:
            decade = math.ceil(math.log10(self.largest) - 1e-9)
            round_numbers = np.array([step * 10.0 ** (decade - k) for k in (3, 2, 1, 0) for step in (1.0, 3.0)])
            first = np.searchsorted(round_numbers, self.largest / _RATIO)
            last = np.searchsorted(round_numbers, self.largest * (1 - 1e-9))
            above = round_numbers[first : last + 1]
        return np.concatenate([-above[::-1], [0.0], above])

    @property
    def norm(self) -> Normalize:
        """Zero is the middle of the colors."""
        levels = self.levels
        low, high = float(levels[0]), float(levels[-1])
        if not self.logarithmic:
            return Normalize(low, high)
        smallest = float(levels[levels > 0][0])
        return SymLogNorm(linthresh=smallest, linscale=0.5, vmin=low, vmax=high)


def signed_scale(surface_a: xr.Dataset, surface_b: xr.Dataset) -> SignedScale:
    """The scale of the difference; logarithmic where that of the losses is.

    Raises:
        ValueError: surfaces on other axes, or no point where both are finite.
    """
    gap = _gap(surface_a, surface_b).values
    finite = np.abs(gap[np.isfinite(gap)])
    if not finite.size:
        raise ValueError("no point where both losses are finite: no difference to draw")
    largest = float(finite.max())
    return SignedScale(largest or 1e-12, largest > 0 and common_scale([surface_a, surface_b]).logarithmic)


def difference(
    surface_a: xr.Dataset,
    surface_b: xr.Dataset,
    ax: Axes,
    scale: SignedScale | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the loss of a minus the loss of b: red and solid lines above zero, blue and dashed below, bold at zero.

    Points where either is not finite are hatched. Between adaptive surfaces, differences within the sum of their
    estimated errors are dotted.

    Args:
        surface_a: from :func:`landscape.loss_surface`, one split.
        surface_b: on the same axes.
        ax: where to draw.
        scale: levels and colors; None: from these two.
        title: None for none.

    Returns:
        ``ax``.

    Raises:
        ValueError: surfaces on other axes.
    """
    gap = _gap(surface_a, surface_b)
    scale = scale or signed_scale(surface_a, surface_b)
    alpha, beta, values = gap["alpha"].values, gap["beta"].values, np.ma.masked_invalid(gap.values)
    ax.patch.set(facecolor="0.85", hatch="///", edgecolor="0.6")
    ax.contourf(alpha, beta, values, levels=scale.levels, norm=scale.norm, cmap=COLORS)
    lines = ax.contour(
        alpha, beta, values, levels=scale.levels, colors="black",
        linewidths=[1.4 if level == 0 else 0.5 for level in scale.levels],
        linestyles=["--" if level < 0 else "-" for level in scale.levels],
    )  # fmt: skip
    drawn = np.asarray(lines.levels)
    named = drawn[(drawn == 0) | (np.abs(drawn) >= scale.largest / 20)]  # the others crowd
    label_lines(ax, lines, named, _signed)
    error = _error(surface_a, surface_b)
    if error > 0:
        ax.contourf(alpha, beta, np.ma.abs(values), levels=[-error, error], colors="none", hatches=["...."])
    ax.plot(0, 0, marker="+", color="black", markersize=10, markeredgewidth=2)
    xlabel, ylabel = axis_labels(surface_a)
    ax.set(aspect="equal", xlabel=xlabel, ylabel=ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def difference_panels(surfaces: Mapping[str, xr.Dataset], heading: str | None = None) -> Figure:
    """Two models on common axes and levels, and their difference (first minus second) beside them.

    Args:
        surfaces: model name to surface: two of them, one split each, on the same axes.
        heading: of the figure.

    Raises:
        ValueError: not two surfaces, or on other axes.
    """
    if len(surfaces) != 2:
        raise ValueError(f"a difference is between two models, got {len(surfaces)}: {', '.join(surfaces) or 'none'}")
    (name_a, a), (name_b, b) = surfaces.items()
    signed, scale = signed_scale(a, b), common_scale([a, b])
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        figure = Figure(figsize=(13.5, 5.0), layout="constrained", dpi=150)
        axes = figure.subplots(1, 3, sharex=True, sharey=True)
        contour(a, axes[0], scale, center_title(name_a, a))
        contour(b, axes[1], scale, center_title(name_b, b))
        rise = float(a["center_loss"]) - float(b["center_loss"])
        difference(a, b, axes[2], signed, f"{as_text(name_a)} − {as_text(name_b)}\ncenter: {_signed(rise, 4)}")
        for ax in axes:
            ax.label_outer()
    loss_colorbar(figure, list(axes[:2]), scale)
    bar = figure.colorbar(
        ScalarMappable(signed.norm, COLORS), ax=axes[2], label="difference in loss (nats)", ticks=signed.levels,
        format=lambda level, _: _signed(level), shrink=0.85, pad=0.02,
    )  # fmt: skip
    bar.minorticks_off()
    marks = f"+ center   {lowest_point(surfaces.values())}   bold line: no difference   dashed lines: below zero"
    if _error(a, b) > 0:
        marks += "   dotted: within the estimated errors of the interpolation"
    put_caption(figure, marks, made_how(surfaces))
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure


def _signed(level: float, digits: int = 6) -> str:
    return f"{level:+.{digits}g}".replace("-", "\N{MINUS SIGN}") if level else "0"


def _gap(surface_a: xr.Dataset, surface_b: xr.Dataset) -> xr.DataArray:
    a, b = only_plane(surface_a, "loss"), only_plane(surface_b, "loss")
    for axis in ("alpha", "beta"):
        if not np.array_equal(a[axis].values, b[axis].values):
            raise ValueError(
                f"difference: expected both surfaces on the same {axis}, got {_axis(a, axis)} and {_axis(b, axis)}; "
                "evaluate both with the same span and points"
            )
    units = [one.attrs.get("normalization") for one in (surface_a, surface_b)]
    if units[0] != units[1]:
        raise ValueError(
            f"difference: expected directions of one normalization for both, got {units[0]} and {units[1]}"
        )
    with np.errstate(invalid="ignore"):  # infinite minus infinite is not a number, and shown as such
        return a - b


def _axis(plane: xr.DataArray, axis: str) -> str:
    values = plane[axis].values
    return f"{len(values)} points from {values[0]:g} to {values[-1]:g}"


def _error(surface_a: xr.Dataset, surface_b: xr.Dataset) -> float:
    """Below this, a difference may be one of the interpolations alone (nats); 0 for surfaces evaluated everywhere."""
    errors = [float(one.get("loss_error_estimate", 0.0)) for one in (surface_a, surface_b) if is_adaptive(one)]
    return float(np.nansum(errors))
