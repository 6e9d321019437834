"""One range, one set of levels and one color scale for all the surfaces of a figure, chosen from the data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

__all__ = ["COLORS", "Scale", "common_scale", "logarithmic_axis", "only", "only_plane"]

COLORS = "viridis"  # perceptually uniform, color-blind safe, monotone in grey

# Beyond this ratio of largest to smallest loss, evenly spaced levels show one wall and no basin.
_LOGARITHMIC_FROM = 8.0


@dataclasses.dataclass(frozen=True)
class Scale:
    """A range of values and how to divide it.

    Attributes:
        low: smallest finite value of all surfaces.
        high: largest.
        logarithmic: whether levels are spaced by ratio.
    """

    low: float
    high: float
    logarithmic: bool

    @property
    def levels(self) -> np.ndarray:
        """About a dozen round numbers; the first is at or below ``low``, the last at or above ``high``."""
        if not self.logarithmic:
            return np.asarray(MaxNLocator(nbins=12, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high))
        decades = math.log10(self.high / self.low)
        steps = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0] if decades < 2 else [1.0, 2.0, 5.0] if decades < 5 else [1.0]
        stride = max(1, math.ceil(decades / 12))  # whole decades, or every so many of them
        exponents = range(
            math.floor(math.log10(self.low)) - stride, math.ceil(math.log10(self.high)) + 2 * stride, stride
        )
        round_numbers = np.array(sorted(step * 10.0**exponent for exponent in exponents for step in steps))
        first = np.searchsorted(round_numbers, self.low * (1 + 1e-9)) - 1
        last = np.searchsorted(round_numbers, self.high * (1 - 1e-9))
        return round_numbers[first : last + 1]

    @property
    def norm(self) -> Normalize:
        """Maps the levels' range to colors."""
        kind = LogNorm if self.logarithmic else Normalize
        return kind(vmin=float(self.levels[0]), vmax=float(self.levels[-1]))

    def height(self, values: np.ndarray) -> np.ndarray:
        """Heights for a relief: the values, or their common logarithms; not finite becomes NaN."""
        finite = np.where(np.isfinite(values), values, np.nan)
        return np.log10(finite) if self.logarithmic else finite


def common_scale(surfaces: Iterable[xr.Dataset], variable: str = "loss", logarithmic: bool | None = None) -> Scale:
    """The scale that holds every finite value of all surfaces.

    Args:
        surfaces: what shares the scale.
        variable: which of their variables.
        logarithmic: None: where the largest value is at least 8 times the smallest, and that is positive.

    Raises:
        ValueError: no finite value, or a logarithm asked for of values that are not positive.
    """
    finite = np.concatenate([values[np.isfinite(values)] for values in (one[variable].values for one in surfaces)])
    if not finite.size:
        raise ValueError(f"no finite {variable} on any surface: nothing to draw")
    low, high = float(finite.min()), float(finite.max())
    if logarithmic and low <= 0:
        raise ValueError(f"logarithmic scale: expected positive values, but the smallest {variable} is {low:g}")
    if low == high:  # a constant surface still needs a range
        low, high = low - max(abs(low), 1e-12) * 0.01, high + max(abs(high), 1e-12) * 0.01
    if logarithmic is None:
        logarithmic = low > 0 and high / low >= _LOGARITHMIC_FROM
    return Scale(low, high, logarithmic)


def logarithmic_axis(ax: Axes) -> None:
    """Make the vertical axis logarithmic, with ticks that say losses rather than powers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def only(surface: xr.Dataset, variable: str, dims: Sequence[str], called: str = "surface") -> xr.DataArray:
    """The variable with these dimensions alone, in this order.

    Raises:
        ValueError: a dimension is missing, or there are others to choose from first.
    """
    array = surface[variable]
    missing = [dim for dim in dims if dim not in array.dims]
    if missing:
        raise ValueError(
            f"{variable}: expected the dimensions {', '.join(dims)}, got {', '.join(map(str, array.dims))}"
        )
    extra = [str(dim) for dim in array.dims if dim not in dims]
    if extra:
        choices = ", ".join(f"{called}.sel({dim}={surface[dim].values.tolist()[0]!r})" for dim in extra)
        raise ValueError(
            f"expected {' and '.join(sorted(dims))} alone; choose along {', '.join(extra)} first: {choices}"
        )
    return array.transpose(*dims)


def only_plane(surface: xr.Dataset, variable: str) -> xr.DataArray:
    """The variable on (beta, alpha): rows are beta, as images and contours want them.

    Raises:
        ValueError: there are other dimensions to choose from first.
    """
    return only(surface, variable, ("beta", "alpha"))
