"""Numbers read off a surface through its interpolant: no further evaluation of the model.

Everything here speaks of the plane (line, volume) alone, in its coordinates: along filter-normalized directions, 1 is a
move as long as the weights themselves. Nothing says what the loss does in the other dimensions of weight space. All of
it is as exact as the interpolant, whose own error an adaptive surface reports as ``loss_error_estimate``; second
derivatives converge more slowly than values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import xarray as xr
from scipy.optimize import minimize

from landscape.interpolation import DIMENSIONS, Interpolant, interpolant
from landscape.level_sets import area_below, rendering

__all__ = [
    "READOUTS",
    "Curvature",
    "Minimum",
    "Radius",
    "convex_share",
    "curvature_at",
    "gradient_at",
    "minimum",
    "radius_of_rise",
]

# Cells a side, by the number of dimensions.
_SAMPLED = {1: 2001, 2: 201, 3: 41}
_SAMPLES_A_CELL = 16  # of the lattice, on a ray
_AT_ONCE = 20_000  # Hessians in memory


class Curvature(NamedTuple):
    """Second derivatives of the loss in the plane, in loss per squared coordinate.

    Attributes:
        hessian: ``(n, n)``, in the order alpha, beta, gamma.
        eigenvalues: ``(n,)``, the smallest first: curvatures along the Hessian's own axes, if directions are orthogonal
            and equally long. (Random directions nearly are.)
        trace: sum of the eigenvalues.
        mean: trace over n, the mean curvature over all headings in the plane.
        error: spectral norm of the change of the Hessian when every other point of the lattice is left out. That is
            more than the error of each eigenvalue, once the lattice is fine enough. NaN where points cannot be left out
            (an even number, or fewer than 5).
    """

    hessian: np.ndarray
    eigenvalues: np.ndarray
    trace: float
    mean: float
    error: float


class Minimum(NamedTuple):
    """The lowest point of a surface.

    Attributes:
        at: coordinates.
        loss: there.
        offset: distance from the center, in coordinates.
        depth: how far the loss is below that of the center, 0 or more.
        on_border: true where the lowest point lies on the border: the loss may go on falling beyond it.
    """

    at: tuple[float, ...]
    loss: float
    offset: float
    depth: float
    on_border: bool


class Radius(NamedTuple):
    """How far from the center the loss has risen by an amount, over rays in all directions of the plane.

    A ray on which it has not, where it meets the border or a loss that is not a number, is *censored*: it counts with
    its length up to there, which is less than its radius.

    Attributes:
        smallest: over rays, in coordinates.
        mean: over rays.
        rays: their number.
        censored: how many of them are.
        mean_is_lower_bound: some ray is censored, so that the true mean is larger.
        smallest_is_lower_bound: the shortest ray is censored.
    """

    smallest: float
    mean: float
    rays: int
    censored: int
    mean_is_lower_bound: bool
    smallest_is_lower_bound: bool


def gradient_at(surface: xr.Dataset, at: Sequence[float] | None = None) -> np.ndarray:
    """First derivatives ``(n,)`` of the loss in the plane, in loss per coordinate.

    Args:
        surface: one split.
        at: coordinates; None: the center.

    Raises:
        ValueError: a point outside the surface, or several splits.
    """
    smooth = interpolant(surface)
    return smooth.gradient(_point(smooth, at))


def curvature_at(surface: xr.Dataset, at: Sequence[float] | None = None) -> Curvature:
    """The Hessian of the plane at a point; NaN in a cell with a corner that is not finite.

    Look at ``error``: values that are good to 1 % of their range can leave curvatures that are off by 10 % or more. An
    adaptive surface with a smaller ``tolerance`` has better ones.

    It is no part of the network's spectrum: its eigenvalues lie between the Hessian's extreme ones, times the squared
    lengths of the directions.

    Args:
        surface: one split.
        at: coordinates; None: the center.

    Raises:
        ValueError: a point outside the surface, several splits, or fewer than three points along an axis.
    """
    smooth = _curved(surface)
    point = _point(smooth, at)
    hessian = smooth.hessian(point)
    eigenvalues = np.linalg.eigvalsh(hessian) if np.isfinite(hessian).all() else np.full(len(hessian), np.nan)
    trace = float(np.trace(hessian))
    return Curvature(hessian, eigenvalues, trace, trace / len(hessian), _change_of_hessian(smooth, point, hessian))


def convex_share(surface: xr.Dataset, points: int | None = None, tolerance: float = 0.0) -> float:
    """The share of the plane on which its Hessian is positive semidefinite.

    Counted over the middles of equal cells. The whole plane is 1: where the loss is not finite, it is not convex. A
    plane that is convex throughout can be part of a function that is not (Li et al., 2018, draw eigenvalue ratios for
    this).

    Args:
        surface: one split.
        points: cells along each axis; None: 2001 on a line, 201 on a plane, 41 in a volume.
        tolerance: eigenvalues from minus this (loss per squared coordinate) count as zero, in addition to rounding
            errors of float64, which are always forgiven. Where a loss in float32 is flat, its noise decides unless this
            is larger.

    Raises:
        ValueError: fewer than three points along an axis of the surface, several splits, or a negative tolerance.
    """
    smooth = _curved(surface)
    points = _SAMPLED[len(smooth.axes)] if points is None else points
    if points < 1 or not tolerance >= 0:
        raise ValueError(f"expected at least one point and a tolerance of 0 or more, got {points} and {tolerance}")
    finite = np.abs(smooth.values[np.isfinite(smooth.values)])
    spacing = min(float(np.diff(axis).min()) for axis in smooth.axes)
    rounding = 1e4 * np.finfo(np.float64).eps * float(finite.max()) / spacing**2
    first, *others = (_middles(np.linspace(axis[0], axis[-1], points + 1)) for axis in smooth.axes)
    convex = 0
    for rows in np.array_split(first, -(-(points ** len(smooth.axes)) // _AT_ONCE)):
        places = np.stack(np.meshgrid(rows, *others, indexing="ij"), axis=-1)
        hessians = smooth.hessian(places)
        hessians = hessians[np.isfinite(hessians).all((-2, -1))]
        convex += int((np.linalg.eigvalsh(hessians)[..., 0] >= -tolerance - rounding).sum())
    return convex / points ** len(smooth.axes)


def minimum(surface: xr.Dataset) -> Minimum:
    """The lowest point of the surface: the best of a fine rendering, refined within its neighbors on that rendering.

    It is the center where nothing is lower than that by more than rounding errors of float64, as on a valley's floor.
    Losses that are not finite are passed over. A dip narrower than a step of the rendering (about 1/512 of a plane's
    side) can be missed; a spline has none that is much narrower than the cells of its lattice.

    Args:
        surface: one split.

    Raises:
        ValueError: the center lies outside the surface, or several splits.
    """
    smooth = interpolant(surface)
    center = float(smooth(_point(smooth, None)))
    axes = rendering(smooth)
    values = smooth.on_grid(*axes)
    place = np.unravel_index(np.where(np.isfinite(values), values, np.inf).argmin(), values.shape)
    best = np.array([axis[i] for axis, i in zip(axes, place, strict=True)])
    low, high = (
        np.array([axis[np.clip(i + side, 0, len(axis) - 1)] for axis, i in zip(axes, place, strict=True)])
        for side in (-1, 1)
    )
    around = values[tuple(slice(max(i - 1, 0), i + 2) for i in place)]
    around = around[np.isfinite(around)]
    at_best, step = float(values[place]), high - low
    scale = float(np.ptp(around)) or 1.0

    def function(shift: np.ndarray) -> tuple[float, np.ndarray]:
        """In units of the neighborhood, so that the optimizer's tolerances mean the same on every surface."""
        point = np.clip(best + shift * step, low, high)
        value, gradient = (float(smooth(point)) - at_best) / scale, smooth.gradient(point) * step / scale
        return (value, gradient) if np.isfinite([value, *gradient]).all() else (1.0, np.zeros_like(shift))

    found = minimize(
        function,
        np.zeros(len(best)),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip((low - best) / step, (high - best) / step, strict=True)),
        options={"ftol": 0.0, "gtol": 1e-10},
    )
    refined = np.clip(best + found.x * step, low, high)
    if smooth(refined) < at_best:
        best, at_best = refined, float(smooth(refined))
    if center - at_best <= 1e3 * np.finfo(np.float64).eps * max(abs(center), scale):
        best, at_best = np.zeros_like(best), center
    on_border = any(
        min(x - axis[0], axis[-1] - x) <= 1e-9 * (axis[-1] - axis[0]) for x, axis in zip(best, smooth.axes, strict=True)
    )
    return Minimum(tuple(map(float, best)), at_best, float(np.linalg.norm(best)), center - at_best, on_border)


def radius_of_rise(surface: xr.Dataset, rise: float, rays: int = 360) -> Radius:
    """The first distance from the center at which the loss exceeds the center's by ``rise``, along rays.

    Rays are sampled several times in each cell of the lattice, and the place of the first sample that is too high is
    found by bisection. The smallest radius is that of the rays, with equal angles between them; the true one is a
    little smaller.

    Args:
        surface: one split. On a line there are two rays; in a volume they are spread evenly on a sphere.
        rise: in the unit of the loss.
        rays: their number.

    Returns:
        All NaN (and no ray censored) if the loss at the center is not finite.

    Raises:
        ValueError: a rise that is not positive, the center outside the surface, or several splits.
    """
    if not (np.isfinite(rise) and rise > 0):
        raise ValueError(f"rise: expected a positive number, got {rise}")
    if rays < 1:
        raise ValueError(f"rays: expected at least 1, got {rays}")
    smooth = interpolant(surface)
    headings = _headings(len(smooth.axes), rays)
    level = float(smooth(_point(smooth, None))) + rise
    if not np.isfinite(level):
        return Radius(np.nan, np.nan, len(headings), 0, False, False)
    low, high = (np.array([axis[end] for axis in smooth.axes]) for end in (0, -1))

    def values(distances: np.ndarray) -> np.ndarray:
        return smooth(np.clip(distances[..., np.newaxis] * headings, low, high))

    with np.errstate(divide="ignore", invalid="ignore"):
        to_border = np.where(headings == 0, np.inf, np.where(headings > 0, high, low) / headings).min(-1)
    steps = _SAMPLES_A_CELL * max(len(axis) - 1 for axis in smooth.axes)
    distances = np.linspace(0.0, 1.0, steps + 1)[:, np.newaxis] * to_border
    sampled = values(distances)
    ends = ~(sampled <= level)  # too high, or not a number
    ends[-1] = True
    first, ray = ends.argmax(0), np.arange(len(headings))
    inner, outer = distances[np.maximum(first - 1, 0), ray], distances[first, ray]
    censored = ~(sampled[first, ray] > level)
    for _ in range(50):
        middle = (inner + outer) / 2
        passed = ~(values(middle) <= level)
        inner, outer = np.where(passed, inner, middle), np.where(passed, middle, outer)
    radii = np.where(censored & ~np.isnan(sampled[first, ray]), to_border, inner)
    return Radius(
        smallest=float(radii.min()),
        mean=float(radii.mean()),
        rays=len(radii),
        censored=int(censored.sum()),
        mean_is_lower_bound=bool(censored.any()),
        smallest_is_lower_bound=bool(censored[radii.argmin()]),
    )


class Readout(Protocol):
    """One number about a surface of one split."""

    def __call__(self, surface: xr.Dataset, *, rise: float, level: float) -> float:
        """Read it off.

        Args:
            surface: one split.
            rise: of the loss above the center's, in its unit.
            level: of the loss, one for all surfaces that are compared.
        """


# What a smaller number means:
#   center_loss               a better fit
#   curvature_trace           flatter at the center
#   largest_curvature         flatter at the center, in the plane's steepest heading
#   smallest_radius_of_rise   SHARPER: the loss rises sooner in some heading. A lower bound if rays are censored.
#   mean_radius_of_rise       SHARPER: the loss rises sooner. A lower bound if rays are censored.
#   censored_rays             share of rays that leave the plane before the loss has risen; 0 is what one hopes for
#   area_below_own_level      SHARPER: less of the plane is below the model's own center loss + rise
#   area_below_common_level   less of the plane is below a level that is the same for all models: sharper, or higher
#   minimum_offset            the center is nearer to the plane's lowest point
#   minimum_depth             the center is nearly as low as the plane's lowest point
#   convex_share              less of the plane is convex
READOUTS: dict[str, Readout] = {
    "center_loss": lambda surface, **_: float(surface["center_loss"]),
    "curvature_trace": lambda surface, **_: curvature_at(surface).trace,
    "largest_curvature": lambda surface, **_: float(curvature_at(surface).eigenvalues[-1]),
    "smallest_radius_of_rise": lambda surface, *, rise, **_: radius_of_rise(surface, rise).smallest,
    "mean_radius_of_rise": lambda surface, *, rise, **_: radius_of_rise(surface, rise).mean,
    "censored_rays": lambda surface, *, rise, **_: _censored_share(radius_of_rise(surface, rise)),
    "area_below_own_level": lambda surface, *, rise, **_: area_below(surface, _center(surface) + rise).area,
    "area_below_common_level": lambda surface, *, level, **_: area_below(surface, level).area,
    "minimum_offset": lambda surface, **_: minimum(surface).offset,
    "minimum_depth": lambda surface, **_: minimum(surface).depth,
    "convex_share": lambda surface, **_: convex_share(surface),
}


def _center(surface: xr.Dataset) -> float:
    smooth = interpolant(surface)
    return float(smooth(_point(smooth, None)))


def _censored_share(radius: Radius) -> float:
    return float("nan") if np.isnan(radius.mean) else radius.censored / radius.rays


def _curved(surface: xr.Dataset) -> Interpolant:
    smooth = interpolant(surface)
    for name, axis in zip(DIMENSIONS, smooth.axes, strict=False):
        if min(len(axis) - 1, smooth.form.degree) < 2:
            raise ValueError(
                f"curvature: expected at least 3 points along {name}, got {len(axis)}; straight lines have none"
            )
    return smooth


def _change_of_hessian(smooth: Interpolant, point: np.ndarray, hessian: np.ndarray) -> float:
    values = smooth.values[(slice(None, None, 2),) * len(smooth.axes)]
    if any(len(axis) % 2 == 0 or len(axis) < 5 for axis in smooth.axes) or not np.isfinite(values).any():
        return float("nan")
    change = Interpolant([axis[::2] for axis in smooth.axes], values, smooth.form).hessian(point) - hessian
    return float(np.linalg.norm(change, 2)) if np.isfinite(change).all() else float("nan")


def _point(smooth: Interpolant, at: Sequence[float] | None) -> np.ndarray:
    return np.zeros(len(smooth.axes)) if at is None else np.asarray(at, dtype=np.float64)


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[:-1] + edges[1:]) / 2


def _headings(dimensions: int, count: int) -> np.ndarray:
    """Unit vectors ``(count, n)``, evenly spread; two of them on a line."""
    if dimensions == 1:
        return np.array([[-1.0], [1.0]])
    if dimensions == 2:
        angles = 2 * np.pi * np.arange(count) / count
        return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    heights = 1 - (2 * np.arange(count) + 1) / count  # equal areas of the sphere
    angles = np.pi * (3 - np.sqrt(5)) * np.arange(count)  # the golden angle
    flat = np.sqrt(1 - heights**2)
    return np.stack([flat * np.cos(angles), flat * np.sin(angles), heights], axis=-1)
