"""What a figure draws: each model, split and quantity on one common plane, and the scales that hold all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from landscape.interpolation import Form, Interpolant, bounds_of, interpolant, lattice_dimension
from landscape.plots.scale import Scale, common_scale, only_plane

__all__ = ["Choice", "Planes", "holds", "rendered"]

_LARGEST = float(np.finfo(np.float32).max)  # what a graphics card can hold


class Choice(NamedTuple):
    """One entry of a figure's menu: everything that is drawn at one time.

    Attributes:
        split: ``""`` if the surfaces have no splits.
        quantity: the variable that is drawn as height.
        logarithmic: whether heights are common logarithms.
    """

    split: str
    quantity: str
    logarithmic: bool

    @property
    def subject(self) -> str:
        """What is drawn, in words."""
        return f"{self.split} {self.quantity}".strip()

    @property
    def label(self) -> str:
        """The entry of the menu."""
        return f"{self.subject}, {'logarithmic' if self.logarithmic else 'linear'}"


@dataclasses.dataclass(frozen=True)
class Planes:
    """Surfaces of several models, rendered at the same coordinates.

    Attributes:
        alpha: coordinates, evenly spaced.
        beta: likewise.
        models: their names.
        splits: the splits of all of them; ``[""]`` if they have none.
        quantities: the variables that all of them have, the loss first.
        each: (model, split) to the quantities on (beta, alpha), NaN where they cannot be drawn, and ``center_<name>``.
    """

    alpha: np.ndarray
    beta: np.ndarray
    models: list[str]
    splits: list[str]
    quantities: list[str]
    each: Mapping[tuple[str, str], xr.Dataset]

    def scale(self, quantity: str, logarithmic: bool | None) -> Scale:
        """The scale of all models and all splits, so that a look at another split keeps the axis."""
        if logarithmic is None and self._is_share(quantity):
            logarithmic = False
        return common_scale(self.each.values(), quantity, logarithmic)

    def choices(self) -> list[Choice]:
        """Every combination that can be drawn; logarithms not of shares, nor of what is not positive on all splits."""
        return [
            Choice(split, quantity, logarithmic)
            for split in self.splits
            for quantity in self.quantities
            if self._finite(quantity, [split]).size
            for logarithmic in (False, True)
            if not logarithmic or (self._finite(quantity, self.splits).min() > 0 and not self._is_share(quantity))
        ]

    def choice(self, quantity: str, split: str | None, logarithmic: bool | None) -> Choice:
        """The combination that a caller asks to see first.

        Raises:
            ValueError: an unknown quantity or split, nothing finite, or a logarithm of a share or of what is not
                positive.
        """
        if quantity not in self.quantities:
            raise ValueError(f"quantity: expected one of {', '.join(self.quantities)}, got {quantity!r}")
        if split is not None and split not in self.splits:
            known = f"one of {', '.join(self.splits)}" if any(self.splits) else "None, as the surfaces have none"
            raise ValueError(f"split: expected {known}, got {split!r}")
        if logarithmic and self._is_share(quantity):
            raise ValueError(f"logarithmic: {quantity} is a share, from 0 to 1; expected None or False")
        scale = self.scale(quantity, logarithmic)
        split = self.splits[0] if split is None else split
        if not self._finite(quantity, [split]).size:
            raise ValueError(f"no finite {quantity} of split {split!r} on any surface: choose another split")
        return Choice(split, quantity, scale.logarithmic)

    def missing(self, model: str, choice: Choice) -> float:
        """The share of the plane that has no height."""
        return float(np.isnan(self.each[model, choice.split][choice.quantity].values).mean())

    def _is_share(self, quantity: str) -> bool:
        return bounds_of(quantity, self._finite(quantity, self.splits)) == (0.0, 1.0)

    def _finite(self, quantity: str, splits: list[str]) -> np.ndarray:
        planes = [plane for (_, split), plane in self.each.items() if split in splits]
        values = np.concatenate([plane[quantity].values.ravel() for plane in planes])
        return values[np.isfinite(values)]


def holds(values: np.ndarray) -> np.ndarray:
    """Where values can be drawn: neither infinite, nor not a number, nor beyond float32."""
    return np.abs(values) <= _LARGEST


def rendered(models: Mapping[str, xr.Dataset], resolution: int) -> Planes:
    """Render the surfaces of all models at the same points, from their interpolants.

    Args:
        models: name to surface from :func:`landscape.loss_surface`, with or without splits.
        resolution: points a side.

    Raises:
        ValueError: no models, no surface over alpha and beta, other splits or other ends of the axes than those of the
            first model, or a resolution below 2.
    """
    if not models:
        raise ValueError("models: expected a dictionary of surfaces, got an empty one")
    if resolution != int(resolution) or resolution < 2:
        raise ValueError(f"resolution: expected a whole number of at least 2, got {resolution}")
    for name, surface in models.items():
        _check_surface(name, surface)
    first_name, first = next(iter(models.items()))
    for name, surface in models.items():
        _check_comparable(name, surface, first_name, first)
    quantities = [name for name in _quantities(first) if all(name in _quantities(one) for one in models.values())]
    alpha, beta = (_axis(first, axis, resolution) for axis in ("alpha", "beta"))
    each = {
        (name, split): _on_common_points(surface.sel(split=split) if split else surface, quantities, alpha, beta)
        for name, surface in models.items()
        for split in _splits(first)
    }
    return Planes(alpha, beta, list(models), _splits(first), quantities, each)


def _check_surface(name: str, surface: xr.Dataset) -> None:
    missing = [needed for needed in ("loss", "center_loss") if needed not in surface]
    if missing:
        raise ValueError(
            f"model {name!r}: expected a surface with {' and '.join(missing)}, as landscape.loss_surface returns it, "
            f"got {', '.join(map(str, surface.data_vars)) or 'no variables'}"
        )
    try:
        only_plane(surface.isel(split=0) if "split" in surface.dims else surface, "loss")
    except ValueError as error:
        raise ValueError(f"model {name!r}: {error}") from None


def _check_comparable(name: str, surface: xr.Dataset, first_name: str, first: xr.Dataset) -> None:
    if _splits(surface) != _splits(first):
        raise ValueError(
            f"model {name!r}: expected the splits of {first_name!r}, {_splits(first)}, got {_splits(surface)}; "
            "choose one with surface.sel(split=…)"
        )
    for axis in ("alpha", "beta"):
        (low, high), ends = (one[axis].values[[0, -1]] for one in (first, surface))
        if not np.allclose(ends, (low, high), rtol=0, atol=1e-6 * abs(high - low)):
            raise ValueError(
                f"model {name!r}: expected common alpha and beta, but {axis} goes from {ends[0]:g} to {ends[1]:g}, "
                f"and from {low:g} to {high:g} for {first_name!r}; use loss_surface with the same span"
            )


def _splits(surface: xr.Dataset) -> list[str]:
    return [str(split) for split in surface["split"].values] if "split" in surface.dims else [""]


def _quantities(surface: xr.Dataset) -> list[str]:
    """The loss and the metrics: what has a value at the center too. Standard errors, bands and lattices have none."""
    names = [str(name) for name, values in surface.data_vars.items() if {"alpha", "beta"} <= set(values.dims)]
    return ["loss", *(name for name in names if name != "loss" and f"center_{name}" in surface)]


def _axis(surface: xr.Dataset, axis: str, resolution: int) -> np.ndarray:
    low, high = surface[axis].values[[0, -1]]
    return np.linspace(low, high, resolution)


def _on_common_points(surface: xr.Dataset, quantities: list[str], alpha: np.ndarray, beta: np.ndarray) -> xr.Dataset:
    # Ends may differ from the first model's by rounding, and an interpolant never extrapolates.
    own = [_axis(surface, axis, len(points)) for axis, points in (("alpha", alpha), ("beta", beta))]
    values = {name: (("beta", "alpha"), _drawable(surface, name, own)) for name in quantities}
    centers = {f"center_{name}": float(surface[f"center_{name}"]) for name in quantities}
    return xr.Dataset(values | centers, coords={"alpha": alpha, "beta": beta})


def _drawable(surface: xr.Dataset, quantity: str, axes: list[np.ndarray]) -> np.ndarray:
    """Values on (beta, alpha), NaN where they cannot be drawn."""
    known = surface[f"node_{quantity}" if _has_lattice(surface) else quantity].values
    if not holds(known).any():
        return np.full((len(axes[1]), len(axes[0])), np.nan)
    values = _smooth(surface, quantity).on_grid(*axes).T
    return np.where(holds(values), values, np.nan)


def _smooth(surface: xr.Dataset, quantity: str) -> Interpolant:
    """An adaptive surface's own function; a grid's cubic spline, of logarithms where losses are drawn as these.

    A spline through values rings beside a cliff, where it may even be negative, which a loss is not.
    """
    if _has_lattice(surface):
        return interpolant(surface, quantity)
    plane = surface[quantity].transpose("alpha", "beta")
    plane = plane.where(holds(plane.values))
    bounds = bounds_of(quantity, plane.values)
    is_wide = bounds is None and common_scale([plane.to_dataset(name=quantity)], quantity).logarithmic
    form = Form("logarithm") if is_wide else Form()
    return Interpolant([plane["alpha"].values, plane["beta"].values], plane.values, form, bounds)


def _has_lattice(surface: xr.Dataset) -> bool:
    return lattice_dimension("alpha") in surface.dims
