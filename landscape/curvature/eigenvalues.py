"""Extreme eigenvalues of the Hessian or the Gauss-Newton matrix, with bounds on their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.lanczos import Krylov, Ritz
from landscape.curvature.matrix import CurvatureMatrix, Kind
from landscape.risk import EmpiricalRisk

__all__ = ["Eigenvalues", "End", "extreme_ritz", "hessian_eigenpairs", "hessian_eigenvalues"]

End = Literal["largest", "smallest", "both"]

_CAPACITY = 60  # vectors of the Krylov space in memory, at least
_HELD = 2  # steps in a row within the tolerance: one can be chance, before the space has met the largest eigenvalues
_ENTIRELY = 20  # rows of a matrix that is small enough to be found whole, with eigenvalues that occur several times


class Eigenvalues(NamedTuple):
    """Eigenvalues, largest first.

    Attributes:
        eigenvalues: ``(count,)``, of the Ritz values that were found, also where the iteration did not converge.
        residuals: ``(count,)``, ``‖Hv − λv‖`` for unit v: some eigenvalue lies within this distance of each.
        errors: ``(count,)``, estimates of how far each is from its eigenvalue: the residual, or if that is less, its
            square over the gap to the next Ritz value (Parlett, "The Symmetric Eigenvalue Problem", 1980, ch. 11).
        converged: whether all errors are within the tolerance.
        products: matrix-vector products that were spent.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray
    converged: bool
    products: int


def hessian_eigenvalues(
    risk: EmpiricalRisk,
    count: int = 1,
    which: End = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
    matrix: Kind = "hessian",
    parameters: Sequence[str] | None = None,
) -> Eigenvalues:
    r"""The algebraically largest or smallest eigenvalues, by a Lanczos iteration that stops as soon as it may.

    Convergence is looked at after every product, and an eigenvalue is much closer than its residual says: its error is
    of the order of the residual squared. So it needs fewer products than ARPACK (SciPy's ``eigsh``), which looks only
    when its space of twenty vectors is full, and fewer than power iteration, which forgets all but the last vector. An
    eigenvalue that occurs several times is found once, unless the matrix has at most twenty rows.

    Args:
        risk: the function; its curvature is taken at the model's weights.
        count: how many.
        which: ``"largest"``, ``"smallest"``, or ``"both"``: half of them from either end, from the same products.
        tolerance: accuracy of a largest eigenvalue relative to itself, and of a smallest one as a share of the spread
            of the spectrum: relative to itself, one that is nearly zero would take very many products. Never better
            than the rounding errors of the parameters' precision.
        max_products: give up (``converged`` false) after so many.
        seed: of the starting vector.
        matrix: ``"hessian"``, or ``"gauss-newton"``, which leaves out the curvature of the network itself.
        parameters: names or patterns of the parameters whose diagonal block is wanted; None: all.

    Raises:
        ValueError: an unknown end or matrix, a count below 1, above the number of parameters, or odd with ``"both"``,
            or a pattern that matches no parameter.
    """
    return hessian_eigenpairs(risk, count, which, tolerance, max_products, seed, matrix, parameters)[0]


def hessian_eigenpairs(
    risk: EmpiricalRisk,
    count: int = 1,
    which: End = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
    matrix: Kind = "hessian",
    parameters: Sequence[str] | None = None,
) -> tuple[Eigenvalues, list[dict[str, Tensor]]]:
    """Eigenvalues as from :func:`hessian_eigenvalues`, and for each its unit eigenvector, by parameter name."""
    products = CurvatureMatrix(risk, matrix, parameters)
    if not 1 <= count <= products.size:
        raise ValueError(f"count: expected 1 to {products.size}, the number of parameters, got {count}")
    if which not in ("largest", "smallest", "both"):
        raise ValueError(f"which: expected 'largest', 'smallest' or 'both', got {which!r}")
    if which == "both" and count % 2:
        raise ValueError(f"count: expected an even number, half of it from each end of the spectrum, got {count}")
    largest = {"largest": count, "smallest": 0, "both": count // 2}[which]
    space, ritz, errors, converged = extreme_ritz(products, largest, count - largest, tolerance, max_products, seed)
    wanted = _ends(len(ritz.values), largest, count - largest)
    found = Eigenvalues(ritz.values[wanted], ritz.residuals[wanted], errors, converged, products.spent)
    return found, [products.by_name(vector) for vector in space.vectors_of(ritz.coordinates[:, wanted])]


def extreme_ritz(
    matrix: CurvatureMatrix, largest: int, smallest: int, tolerance: float, max_products: int, seed: int
) -> tuple[Krylov, Ritz, np.ndarray, bool]:
    """Grow a Krylov space until so many eigenvalues at either end are known to the tolerance.

    Args:
        matrix: whose.
        largest: how many at the upper end.
        smallest: how many at the lower end.
        tolerance: as for :func:`hessian_eigenvalues`.
        max_products: that are spent at most, if they are enough for as many Ritz values as are wanted.
        seed: of the starting vector.

    Returns:
        The space, its Ritz pairs, the estimated errors of those that were wanted (largest first), and whether all are
        within the tolerance.
    """
    wanted = largest + smallest
    draws = np.random.default_rng(seed)
    space = Krylov(matrix, matrix.gaussian(draws), max(_CAPACITY, 2 * wanted + 20), draws)
    fewest = matrix.size if matrix.size <= max(_ENTIRELY, 2 * wanted) else wanted + 4
    held = 0
    for spent in range(1, max(max_products, wanted) + 1):
        if space.is_full:
            space.restart(_to_keep(space.steps, largest, smallest))
        space.step()
        if space.steps < wanted:
            continue
        ritz = space.ritz()
        ends = _ends(space.steps, largest, smallest)
        errors = _errors(ritz)[ends]
        scales = np.where(np.arange(wanted) < largest, np.abs(ritz.values[ends]), np.ptp(ritz.values))
        rounding = 10 * torch.finfo(matrix.dtype).eps * np.abs(ritz.values).max()
        held = held + 1 if (errors <= np.maximum(tolerance * scales, rounding)).all() else 0
        if space.steps == matrix.size or (spent >= fewest and held >= _HELD):
            return space, ritz, errors, True
    return space, ritz, errors, False


def _ends(steps: int, largest: int, smallest: int) -> np.ndarray:
    """Indices of the wanted ones among ascending values, the largest first."""
    return np.r_[steps - 1 : steps - 1 - largest : -1, np.arange(smallest)[::-1]].astype(int)


def _errors(ritz: Ritz) -> np.ndarray:
    """Estimates of the distance of each Ritz value from its eigenvalue."""
    apart = np.abs(ritz.values[:, None] - ritz.values[None, :]) - ritz.residuals[None, :]
    np.fill_diagonal(apart, np.inf)
    gaps = np.maximum(apart.min(axis=1, initial=np.inf), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.minimum(ritz.residuals, np.where(ritz.residuals == 0, 0, ritz.residuals**2 / gaps))


def _to_keep(steps: int, largest: int, smallest: int) -> np.ndarray:
    """Ritz vectors that survive a restart: those that are wanted, and as many of their neighbors as leave room."""
    room = steps // 2 - largest - smallest
    top = largest + (room if smallest == 0 else room // 2) if largest else 0
    bottom = smallest + (room if largest == 0 else room // 2) if smallest else 0
    return np.r_[np.arange(bottom), np.arange(steps - top, steps)].astype(int)
