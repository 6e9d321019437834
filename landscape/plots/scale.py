"""One range, one set of levels and one color scale for all the surfaces of a figure, chosen from the data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

__all__ = ["COLORS", "Scale", "axis_labels", "center_title", "common_scale", "made_how", "only_plane"]

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


def only_plane(surface: xr.Dataset, variable: str) -> xr.DataArray:
    """The variable on (beta, alpha): rows are beta, as images and contours want them.

    Raises:
        ValueError: there are other dimensions to choose from first.
    """
    extra = [str(dim) for dim in surface[variable].dims if dim not in ("alpha", "beta")]
    if extra:
        choices = ", ".join(f"surface.sel({dim}={str(surface[dim].values[0])!r})" for dim in extra)
        raise ValueError(f"a plane has alpha and beta alone; choose along {', '.join(extra)} first: {choices}")
    return surface[variable].transpose("beta", "alpha")


def center_title(name: str, surface: xr.Dataset) -> str:
    """The model's name, and loss and accuracy at the center."""
    only_plane(surface, "loss")
    parts = [f"loss {float(surface['center_loss']):.4g}"]
    if "center_accuracy" in surface:
        parts.append(f"accuracy {float(surface['center_accuracy']):.2%}")
    plain = name.replace("$", r"\$")  # a name is text, not a formula
    return f"{plain}\ncenter: {', '.join(parts)}"


def axis_labels(surface: xr.Dataset) -> tuple[str, str]:
    """What alpha and beta are, with their unit."""
    unit = {"filter": "filter norms", "layer": "layer norms"}.get(surface.attrs.get("normalization", ""), "")
    return tuple(f"{name} ({unit})" if unit else name for name in ("alpha", "beta"))  # type: ignore[return-value]


def made_how(surfaces: Mapping[str, xr.Dataset]) -> str:
    """A caption: what the figure's surfaces have in common, and where they differ."""
    first = next(iter(surfaces.values())).attrs
    alike = {
        key for key in first if all(np.array_equal(one.attrs.get(key, np.nan), first[key]) for one in surfaces.values())
    }
    parts = []
    if "normalization" in first:
        parts.append(f"{first['normalization']}-normalized random directions")
    if "seed" in first:
        same = "the same draws for all panels" if "seed" in alike else "DIFFERENT draws in the panels"
        parts.append(f"seed {first['seed']}, {same}" if "seed" in alike else same)
    sizes = "×".join(str(size) for size in next(iter(surfaces.values()))["loss"].sizes.values())
    parts.append(f"{sizes} points, each evaluated")
    if "ignored" in first:
        parts.append("biases and normalization layers not moved" if first["ignored"] else "all parameters moved")
    return "; ".join(parts)
