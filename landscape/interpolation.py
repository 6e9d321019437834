"""Smooth functions through values on a lattice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy import sparse
from scipy.interpolate import BSpline, NdBSpline, make_interp_spline
from scipy.ndimage import distance_transform_edt
from scipy.sparse.linalg import spsolve

from landscape.evaluation.values import SEPARATOR

__all__ = ["DIMENSIONS", "Form", "Interpolant", "bounds_of", "interpolant", "lattice_dimension", "range_of"]

DIMENSIONS = ("alpha", "beta", "gamma")


class Form(NamedTuple):
    """How a variable is interpolated.

    Attributes:
        transform: what the spline goes through: the values, their square roots or their logarithms.
        degree: 3 for a cubic spline; 1 for straight lines between neighbors, which never overshoot.
    """

    transform: Literal["none", "root", "logarithm"] = "none"
    degree: int = 3

    def fits(self, values: np.ndarray) -> bool:
        """Whether the transform is defined for these values."""
        finite = values[np.isfinite(values)]
        return self.transform == "none" or bool(np.all(finite > 0))


class Interpolant:
    """A tensor-product spline through values on a lattice, in one to three dimensions. It never extrapolates.

    Where a corner of the lattice cell around a point is infinite or not a number, the interpolant is too: a smooth
    function through such a corner means nothing.

    Args:
        axes: increasing coordinates of the lattice, one array for each dimension.
        values: on their tensor grid.
        form: what is interpolated, and by which degree (at most one less than the number of points on an axis).
        bounds: values are clipped to these; None for no limits.

    Attributes:
        axes: as given.
        values: as given.
        form: as given.
    """

    def __init__(
        self,
        axes: Sequence[np.ndarray],
        values: np.ndarray,
        form: Form = Form(),  # noqa: B008 - it is immutable
        bounds: tuple[float, float] | None = None,
    ) -> None:
        self.axes = tuple(np.asarray(axis, dtype=np.float64) for axis in axes)
        self.values = np.asarray(values, dtype=np.float64)
        self.form = form
        self._bounds = bounds
        if self.values.shape != tuple(map(len, self.axes)):
            raise ValueError(f"values: expected shape {tuple(map(len, self.axes))}, got {self.values.shape}")
        finite = np.isfinite(self.values)
        if not finite.any():
            raise ValueError("values: none of them is finite, nothing to interpolate")
        self._broken = None if finite.all() else _broken_cells(self.values)
        coefficients: np.ndarray = np.full(self.values.shape, np.nan)
        coefficients[finite] = _FORWARD[self.form.transform](self.values[finite])
        if self._broken is not None:
            coefficients = _filled(coefficients, finite)
        self._knots: list[np.ndarray] = []
        self._degrees: list[int] = []
        for dimension, axis in enumerate(self.axes):
            degree = min(form.degree, len(axis) - 1)
            spline = make_interp_spline(axis, np.moveaxis(coefficients, dimension, 0), k=degree)
            coefficients = np.moveaxis(spline.c, 0, dimension)
            self._knots.append(spline.t)
            self._degrees.append(degree)
        self._coefficients = coefficients

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values ``(...)`` at points ``(..., n)``.

        Raises:
            ValueError: a point outside the lattice.
        """
        points = self._checked(points)
        return self._finished(self._derivative(points), points)

    def on_grid(self, *axes: np.ndarray) -> np.ndarray:
        """Values on the tensor grid of coordinates along each dimension.

        Raises:
            ValueError: not one array for each dimension, or a point outside the lattice.
        """
        if len(axes) != len(self.axes):
            raise ValueError(f"axes: expected {len(self.axes)}, one for each dimension, got {len(axes)}")
        values = self._coefficients
        for dimension, axis in enumerate(axes):
            self._check_inside(dimension, np.asarray(axis))
            spline = BSpline(self._knots[dimension], np.moveaxis(values, dimension, 0), self._degrees[dimension])
            values = np.moveaxis(spline(axis), 0, dimension)
        if self._broken is None:
            return self._bounded(_BACKWARD[self.form.transform](values))
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return self._finished(values, points)

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """First derivatives ``(..., n)`` at points ``(..., n)``."""
        points = self._checked(points)
        first = np.stack([self._derivative(points, (i,)) for i in range(len(self.axes))], axis=-1)
        by_inner, _ = _chain(self.form.transform, self._derivative(points))
        return self._where_smooth(first * by_inner[..., np.newaxis], points)

    def hessian(self, points: np.ndarray) -> np.ndarray:
        """Second derivatives ``(..., n, n)`` at points ``(..., n)``."""
        points = self._checked(points)
        dimensions = range(len(self.axes))
        first = np.stack([self._derivative(points, (i,)) for i in dimensions], axis=-1)
        second = np.stack(
            [np.stack([self._derivative(points, (i, j)) for j in dimensions], axis=-1) for i in dimensions], axis=-2
        )
        by_inner, by_inner_twice = _chain(self.form.transform, self._derivative(points))
        outer = first[..., :, np.newaxis] * first[..., np.newaxis, :]
        hessian = second * by_inner[..., np.newaxis, np.newaxis] + outer * by_inner_twice[..., np.newaxis, np.newaxis]
        return self._where_smooth(hessian, points)

    def _derivative(self, points: np.ndarray, by: tuple[int, ...] = ()) -> np.ndarray:
        orders = [by.count(dimension) for dimension in range(len(self.axes))]
        if any(order > degree for order, degree in zip(orders, self._degrees, strict=True)):
            return np.zeros(points.shape[:-1])
        spline = NdBSpline(tuple(self._knots), self._coefficients, tuple(self._degrees))
        return np.asarray(spline(points, nu=orders))

    def _finished(self, values: np.ndarray, points: np.ndarray) -> np.ndarray:
        values = self._bounded(_BACKWARD[self.form.transform](values))
        if self._broken is None:
            return values
        broken = self._broken_at(points)
        values = np.where(np.isfinite(broken), values, broken)
        nearest = tuple(np.abs(axis - points[..., d, np.newaxis]).argmin(-1) for d, axis in enumerate(self.axes))
        on_lattice = np.all([axis[nearest[d]] == points[..., d] for d, axis in enumerate(self.axes)], axis=0)
        return np.where(on_lattice, self.values[nearest], values)

    def _where_smooth(self, derivative: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The derivative: 0 where the value is clipped, not a number in a broken cell."""
        more = (1,) * (derivative.ndim - points.ndim + 1)
        if self._bounds is not None:
            free = _BACKWARD[self.form.transform](self._derivative(points))
            clipped = (free < self._bounds[0]) | (free > self._bounds[1])
            derivative = np.where(clipped.reshape(clipped.shape + more), 0.0, derivative)
        if self._broken is not None:
            whole = np.isfinite(self._broken_at(points))
            derivative = np.where(whole.reshape(whole.shape + more), derivative, np.nan)
        return derivative

    def _broken_at(self, points: np.ndarray) -> np.ndarray:
        """0 where one of the cells that a point belongs to is whole (on an edge it belongs to several)."""
        assert self._broken is not None
        sides = []
        for d, axis in enumerate(self.axes):
            above = np.searchsorted(axis, points[..., d], side="right") - 1
            below = np.searchsorted(axis, points[..., d], side="left") - 1
            sides.append([np.clip(cell, 0, len(axis) - 2) for cell in (above, below)])
        found = np.stack([self._broken[cells] for cells in itertools.product(*sides)])
        return np.where(np.any(found == 0, axis=0), 0.0, found[0])

    def _bounded(self, values: np.ndarray) -> np.ndarray:
        return values if self._bounds is None else np.clip(values, *self._bounds)

    def _checked(self, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != len(self.axes):
            raise ValueError(f"points: expected shape (..., {len(self.axes)}), got {points.shape}")
        for dimension in range(len(self.axes)):
            self._check_inside(dimension, points[..., dimension])
        return points

    def _check_inside(self, dimension: int, coordinates: np.ndarray) -> None:
        low, high = self.axes[dimension][[0, -1]]
        if coordinates.size and not (coordinates.min() >= low and coordinates.max() <= high):
            raise ValueError(
                f"{DIMENSIONS[dimension]}: expected points from {low:g} to {high:g}, got {coordinates.min():g} to "
                f"{coordinates.max():g}; an interpolant never extrapolates"
            )


def lattice_dimension(dimension: str) -> str:
    """The name of an axis of the lattice under a surface: ``alpha_node`` for ``alpha``."""
    return f"{dimension}_node"


def interpolant(surface: xr.Dataset, variable: str = "loss") -> Interpolant:
    """The smooth function under a surface, a line or a volume.

    Args:
        surface: from :func:`landscape.loss_surface` and its relatives, one split. An adaptive surface gives the
            function that it was drawn from; a grid is interpolated by cubic splines.
        variable: ``"loss"`` or a metric.

    Raises:
        ValueError: several splits, or no such variable.
    """
    if variable not in surface:
        raise ValueError(f"no variable {variable!r} on the surface; it has {', '.join(map(str, surface.data_vars))}")
    on_lattice = f"node_{variable}" in surface
    values = surface[f"node_{variable}" if on_lattice else variable]
    dimensions = [name for name in DIMENSIONS if name in surface.dims]
    names = [lattice_dimension(name) if on_lattice else name for name in dimensions]
    extra = [str(dim) for dim in values.dims if dim not in names]
    if extra:
        choices = ", ".join(f"surface.sel({dim}={str(surface[dim].values[0])!r})" for dim in extra)
        raise ValueError(f"an interpolant belongs to one surface; choose along {', '.join(extra)} first: {choices}")
    form = Form()
    if on_lattice:
        form = Form(str(surface[f"{variable}_transform"].item()), int(surface[f"{variable}_degree"]))  # type: ignore[arg-type]
    bounds = bounds_of(variable, values.values)
    return Interpolant([surface[name].values for name in names], values.transpose(*names).values, form, bounds)


def range_of(values: np.ndarray) -> float:
    """Largest minus smallest finite value, the unit of relative errors.

    A function that varies by less than 1/10,000 of its size counts as that much: not far below, float32 is rounding.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float(np.finfo(float).tiny)
    return float(max(np.ptp(finite), 1e-4 * np.abs(finite).max(), np.finfo(float).tiny))


def bounds_of(variable: str, values: np.ndarray) -> tuple[float, float] | None:
    """What a curve through the values must not overshoot.

    ``(0, 1)`` for a metric whose values are shares, such as accuracy; no negative standard errors; nothing for the
    loss. The variable may have the name of a split before it.
    """
    finite = values[np.isfinite(values)]
    column = variable.rpartition(SEPARATOR)[2]
    if column == "loss_standard_error":
        return (0.0, math.inf)
    shares = column != "loss" and finite.size and finite.min() >= 0 and finite.max() <= 1
    return (0.0, 1.0) if shares else None


_FORWARD: dict[str, Callable[[np.ndarray], np.ndarray]] = {"none": np.asarray, "root": np.sqrt, "logarithm": np.log}
_BACKWARD: dict[str, Callable[[np.ndarray], np.ndarray]] = {"none": np.asarray, "root": np.square, "logarithm": np.exp}


def _chain(transform: str, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative of the transform's inverse, at the inner values."""
    if transform == "root":
        return 2 * inner, np.full_like(inner, 2.0)
    if transform == "logarithm":
        return np.exp(inner), np.exp(inner)
    return np.ones_like(inner), np.zeros_like(inner)


def _broken_cells(values: np.ndarray) -> np.ndarray:
    """For each cell 0, or what its corners are that are not finite (not a number, if there is one of those)."""
    shape = tuple(size - 1 for size in values.shape)
    broken = np.zeros(shape)
    for corner in itertools.product((0, 1), repeat=values.ndim):
        at_corner = values[tuple(slice(c, c + size) for c, size in zip(corner, shape, strict=True))]
        with np.errstate(invalid="ignore"):  # minus and plus infinity: neither is right
            broken = broken + np.where(np.isfinite(at_corner), 0.0, at_corner)
    return broken


def _filled(values: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Something for a spline to go through where there is no value, without a kink that it would ring around.

    In the sense of least squares fourth differences vanish across the holes; and, less so, second differences and the
    distance to the nearest value.
    """
    holes = ~finite.ravel()
    nearest = values[tuple(distance_transform_edt(~finite, return_distances=False, return_indices=True))].ravel()
    indices = np.arange(values.size).reshape(values.shape)
    equations = [1e-6 * sparse.eye_array(values.size, format="csr")[holes]]
    targets = [1e-6 * nearest[holes]]
    for order, weight in ((2, 1e-3), (4, 1.0)):
        stencil = weight * np.diff(np.eye(order + 1), order, axis=0)[0]
        for dimension, size in enumerate(values.shape):
            if size <= order:
                continue
            along = np.moveaxis(indices, dimension, 0)
            windows = np.stack([along[k : size - order + k] for k in range(order + 1)], axis=-1).reshape(-1, order + 1)
            windows = windows[holes[windows].any(axis=1)]
            rows = np.repeat(np.arange(len(windows)), order + 1)
            entries = (np.tile(stencil, len(windows)), (rows, windows.ravel()))
            equations.append(sparse.csr_array(entries, shape=(len(windows), values.size)))
            targets.append(np.zeros(len(windows)))
    matrix = sparse.vstack(equations).tocsc()
    unknown = matrix[:, holes]
    right = np.concatenate(targets) - matrix[:, ~holes] @ values.ravel()[~holes]
    found = values.copy().ravel()
    found[holes] = spsolve((unknown.T @ unknown).tocsc(), unknown.T @ right)
    return found.reshape(values.shape)
