"""Where a surface is below a level, and how much of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import label

from landscape.interpolation import Interpolant, interpolant

__all__ = ["Area", "area_below", "divided", "rendering"]

_RENDERED = {1: 4096, 2: 512, 3: 64}  # points a side, about; by the number of dimensions


class Area(NamedTuple):
    """Where the loss is below a level: areas of planes, lengths of lines, volumes.

    Attributes:
        area: of all that is below, in squared coordinates.
        share: of the whole plane.
        basin: area of the connected part that holds the center; 0 if the center is not below the level, NaN if it is
            not on the plane or not a number there.
        reaches_border: whether that part goes to the border of the plane, so that it may be larger than what is seen.
        undefined: area where the loss is not a number. It does not count as below. (Infinite is above any level.)
        error: by how much area or basin change, the larger of the two, when rendered half as finely: more than the
            error of the rendering, unless parts merge.
    """

    area: float
    share: float
    basin: float
    reaches_border: bool
    undefined: float
    error: float


def area_below(surface: xr.Dataset, level: float) -> Area:
    """The area in which the loss is less than a level.

    The plane is rendered at about 512 points a side (a line at 4096, a volume at 64) and divided into triangles; on
    each, the loss counts as linear. The error falls with the square of the resolution, and is reported. For the part
    that is due to the interpolation of an adaptive surface, compare levels ``loss_error_estimate`` above and below.

    In volumes, tetrahedra: Blöchl, Jepsen and Andersen, "Improved tetrahedron method for Brillouin-zone integrations",
    1994, appendix A.

    Args:
        surface: one split.
        level: of the loss; NaN gives NaN.

    Raises:
        ValueError: several splits.
    """
    if np.isnan(level):
        return Area(np.nan, np.nan, np.nan, False, np.nan, np.nan)
    smooth = interpolant(surface)
    fine, coarse = (_areas(smooth, level, finer) for finer in (1, 2))
    whole = float(np.prod([axis[-1] - axis[0] for axis in smooth.axes]))
    error = max(abs(fine.area - coarse.area), 0.0 if np.isnan(fine.basin) else abs(fine.basin - coarse.basin))
    return fine._replace(share=fine.area / whole, error=error)


def rendering(smooth: Interpolant, coarser: int = 1) -> list[np.ndarray]:
    """Axes that divide each cell of the lattice evenly, with the center on them."""
    cells = max(len(axis) - 1 for axis in smooth.axes)
    steps = 2 * max(1, round(_RENDERED[len(smooth.axes)] / (2 * cells))) // coarser
    return [divided(axis, steps) for axis in smooth.axes]


def divided(axis: np.ndarray, steps: int) -> np.ndarray:
    """The axis with each cell divided evenly, and the center on it."""
    inner = axis[:-1, np.newaxis] + np.diff(axis)[:, np.newaxis] * (np.arange(steps) / steps)
    fine = np.append(inner.ravel(), axis[-1])
    if not fine[0] <= 0 <= fine[-1]:
        return fine
    nearest = int(np.abs(fine).argmin())
    if abs(fine[nearest]) < 1e-6 * np.diff(axis).min():  # the center, but for rounding
        fine[nearest] = 0.0
        return fine
    return np.union1d(fine, [0.0])


def _areas(smooth: Interpolant, level: float, coarser: int) -> Area:
    axes = rendering(smooth, coarser)
    values = smooth.on_grid(*axes)
    parts, _ = label(values < level, structure=_neighbors(values.ndim))
    center = tuple(int(np.searchsorted(axis, 0.0)) for axis in axes)
    on_plane = all(axis[0] <= 0 <= axis[-1] for axis in axes)
    basin = parts[center] if on_plane else 0
    sizes = np.ones(())
    for axis in axes:
        sizes = np.multiply.outer(sizes, np.diff(axis))
    unknown = np.isnan(values)
    area = in_basin = undefined = 0.0
    simplices = list(_simplices(values.ndim))
    for corners in simplices:
        shares = _share_below([values[corner] for corner in corners], level)
        weights = sizes / len(simplices) * shares
        area += float(weights.sum())
        if basin:  # corners below the level are all in one part
            in_basin += float(weights[np.maximum.reduce([parts[corner] for corner in corners]) == basin].sum())
        undefined += float(sizes[np.any([unknown[corner] for corner in corners], axis=0)].sum()) / len(simplices)
    faces = [np.moveaxis(parts, dimension, 0)[[0, -1]] for dimension in range(values.ndim)]
    reaches_border = bool(basin) and any((face == basin).any() for face in faces)
    known = on_plane and not np.isnan(values[center])
    return Area(area, np.nan, in_basin if known else np.nan, reaches_border, undefined, np.nan)


def _simplices(dimensions: int) -> Iterator[list[tuple[slice, ...]]]:
    """The triangles of each cell (Kuhn's division): corners on the ways from the lowest to the highest along edges."""
    ends = (slice(None, -1), slice(1, None))
    for order in itertools.permutations(range(dimensions)):
        yield [tuple(ends[order.index(d) < moved] for d in range(dimensions)) for moved in range(dimensions + 1)]


def _neighbors(dimensions: int) -> np.ndarray:
    """Points that share an edge of those triangles: then parts are those of the function that is linear on each."""
    offsets = np.indices((3,) * dimensions) - 1
    return np.all(offsets >= 0, axis=0) | np.all(offsets <= 0, axis=0)


def _share_below(at_corners: Sequence[np.ndarray], level: float) -> np.ndarray:
    """Shares of triangles where a linear function is below the level; 0 where it is infinite or not a number."""
    low, high = np.minimum.reduce(at_corners), np.maximum.reduce(at_corners)
    shares = (high < level).astype(np.float64)
    cut = (low < level) & (high >= level) & np.isfinite(low) & np.isfinite(high)
    shares[cut] = _share_cut(np.sort([values[cut] for values in at_corners], axis=0), level)
    return shares


def _share_cut(corners: np.ndarray, t: float) -> np.ndarray:
    """The same where the level lies between the lowest and the highest corner; corners in ascending order."""
    with np.errstate(divide="ignore", invalid="ignore"):  # in the branches that are not taken
        if len(corners) == 2:
            a, b = corners
            return (t - a) / (b - a)
        if len(corners) == 3:
            a, b, c = corners
            return np.where(t <= b, (t - a) ** 2 / ((b - a) * (c - a)), 1 - (c - t) ** 2 / ((c - a) * (c - b)))
        a, b, c, d = corners
        first = (t - a) ** 3 / ((b - a) * (c - a) * (d - a))
        last = 1 - (d - t) ** 3 / ((d - a) * (d - b) * (d - c))
        curve = (c - a + d - b) / ((c - b) * (d - b)) * (t - b) ** 3
        between = ((b - a) ** 2 + 3 * (b - a) * (t - b) + 3 * (t - b) ** 2 - curve) / ((c - a) * (d - a))
        return np.where(t <= b, first, np.where(t > c, last, between))
