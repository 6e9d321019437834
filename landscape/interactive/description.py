"""What a figure shows, in words, for those who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from landscape.interactive.planes import Planes, rendered
from landscape.plots.captions import percent

__all__ = ["describe", "described"]


def describe(models: Mapping[str, xr.Dataset], *, resolution: int = 65) -> str:
    """Ranges, values at the center, and where the lowest point is, of each model and split.

    Args:
        models: as for :func:`landscape.interactive.surfaces`.
        resolution: points a side, among which the lowest is looked for.

    Returns:
        Plain text, as an alternative for a picture.

    Raises:
        ValueError: as for :func:`landscape.interactive.surfaces`.
    """
    return described(rendered(models, resolution))


def described(planes: Planes) -> str:
    """The words for planes that have been rendered already."""
    count = len(planes.models)
    what = "Loss surface of 1 model" if count == 1 else f"Loss surfaces of {count} models, on common scales"
    ends = ", ".join(
        f"{name} from {axis[0]:g} to {axis[-1]:g}" for name, axis in (("alpha", planes.alpha), ("beta", planes.beta))
    )
    return " ".join([f"{what}: {ends}.", *(_one(planes, model, split) for model, split in planes.each)])


def _one(planes: Planes, model: str, split: str) -> str:
    plane = planes.each[model, split]
    told = [_range(plane, quantity) for quantity in planes.quantities]
    lowest = _lowest(plane)
    words = "; ".join([*told, lowest] if lowest else told)
    return f"{model}{f', {split}' if split else ''}: {words}."


def _range(plane: xr.Dataset, quantity: str) -> str:
    values = plane[quantity].values
    finite = values[np.isfinite(values)]
    at_center = f"{float(plane[f'center_{quantity}']):.4g} at the center"
    if not finite.size:
        return f"{quantity} nowhere finite, {at_center}"
    missing = f", not finite at {percent(1 - finite.size / values.size, 2)} of the points" * (finite.size < values.size)
    return f"{quantity} from {finite.min():.4g} to {finite.max():.4g}, {at_center}{missing}"


def _lowest(plane: xr.Dataset) -> str:
    """Of the points drawn; not the refined minimum, which the figure does not show."""
    values = plane["loss"].values
    if not np.isfinite(values).any():
        return ""
    row, column = np.unravel_index(np.nanargmin(values), values.shape)
    alpha, beta = float(plane["alpha"][column]), float(plane["beta"][row])
    return f"lowest loss drawn {values[row, column]:.4g} at alpha {alpha:.3g}, beta {beta:.3g}"
