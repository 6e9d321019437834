"""Curvature of the empirical risk: eigenvalues and trace of its Hessian, through Hessian-vector products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from threadpoolctl import threadpool_limits
from torch import Tensor

from landscape.parameters import inner_product
from landscape.risk import EmpiricalRisk

__all__ = ["Eigenvalues", "Trace", "hessian_eigenpairs", "hessian_eigenvalues", "hessian_trace", "plane_hessian"]


class Eigenvalues(NamedTuple):
    """Eigenvalues of the Hessian, largest first.

    Attributes:
        eigenvalues: ``(count,)``; fewer if the iteration did not converge.
        residuals: ``(count,)``, ``‖Hv − λv‖`` for unit v: some eigenvalue lies within this distance of each.
        converged: whether all that were asked for were found to the tolerance.
        products: Hessian-vector products that were spent.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray
    converged: bool
    products: int


class Trace(NamedTuple):
    """An estimate of the Hessian's trace.

    Attributes:
        value: the mean over probes.
        standard_error: of that mean.
        converged: whether the standard error fell below the tolerance.
        products: Hessian-vector products that were spent, one a probe.
    """

    value: float
    standard_error: float
    converged: bool
    products: int


def hessian_eigenvalues(
    risk: EmpiricalRisk,
    count: int = 1,
    which: Literal["largest", "smallest"] = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
) -> Eigenvalues:
    """The algebraically largest (or smallest) eigenvalues, by ARPACK's implicitly restarted Lanczos iteration.

    Args:
        risk: the function; its Hessian is taken at the model's weights.
        count: how many.
        which: ``"largest"`` or ``"smallest"``.
        tolerance: relative accuracy of the eigenvalues.
        max_products: give up (``converged`` false) after about so many Hessian-vector products.
        seed: of the starting vector.

    Raises:
        ValueError: count below 1 or above the number of parameters.
    """
    return hessian_eigenpairs(risk, count, which, tolerance, max_products, seed)[0]


def hessian_eigenpairs(
    risk: EmpiricalRisk,
    count: int = 1,
    which: Literal["largest", "smallest"] = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
    shift: float = 0.0,
) -> tuple[Eigenvalues, list[dict[str, Tensor]]]:
    r"""Eigenvalues as from :func:`hessian_eigenvalues`, and for each its unit eigenvector, by parameter name.

    Args:
        risk: the function; its Hessian is taken at the model's weights.
        count: how many.
        which: ``"largest"`` or ``"smallest"``.
        tolerance: accuracy relative to :math:`|\lambda - \mathrm{shift}|`.
        max_products: give up after about so many Hessian-vector products.
        seed: of the starting vector.
        shift: what the tolerance counts from. With the largest eigenvalue here, the smallest is found to a share of the
            spread of the spectrum; to a share of itself, one that is nearly zero takes very many products.
    """
    products = _Products(risk)
    if not 1 <= count <= products.size:
        raise ValueError(f"count: expected 1 to {products.size}, the number of parameters, got {count}")
    if which not in ("largest", "smallest"):
        raise ValueError(f"which: expected 'largest' or 'smallest', got {which!r}")
    converged = True

    def shifted(vector: np.ndarray) -> np.ndarray:
        return products(vector) - shift * np.ravel(vector)

    # One BLAS thread: ARPACK's small dense steps otherwise wake a second thread pool that fights with torch's.
    with threadpool_limits(limits=1, user_api="blas"):
        start = np.random.default_rng(seed).standard_normal(products.size)
        if products.size <= max(20, 2 * count):  # ARPACK needs room for its Krylov space; build so small a matrix
            columns = np.stack([products(unit) for unit in np.eye(products.size)])
            values, vectors = np.linalg.eigh((columns + columns.T) / 2)
        elif not shifted(start).any():  # not even in a random direction: the matrix is zero; ARPACK would fail
            values, vectors = np.full(count, shift), np.eye(products.size, count)
        else:
            krylov = min(products.size, max(2 * count + 1, 20))
            try:
                values, vectors = eigsh(
                    LinearOperator((products.size, products.size), matvec=shifted, dtype=np.float64),
                    k=count,
                    which="LA" if which == "largest" else "SA",
                    tol=tolerance,
                    ncv=krylov,
                    maxiter=max(1, max_products // max(1, krylov - count)),
                    v0=start,
                )
            except ArpackNoConvergence as stopped:
                values, vectors, converged = stopped.eigenvalues, stopped.eigenvectors, False
            values = values + shift
        order = np.argsort(values)[::-1]
        order = order[:count] if which == "largest" else order[-count:]
        values, vectors = values[order], vectors[:, order]
        residuals = np.array(
            [np.linalg.norm(products(vector) - value * vector) for value, vector in zip(values, vectors.T, strict=True)]
        )
    found = Eigenvalues(values, residuals, converged, products.spent)
    return found, [products.by_name(vector) for vector in vectors.T]


def plane_hessian(risk: EmpiricalRisk, directions: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
    r"""The Hessian of the risk restricted to a plane, at the model's weights: :math:`d_i^\top H d_j`.

    It is exact, where the second derivatives of an interpolated surface are not: those magnify its errors.
    Cost: one Hessian-vector product for each direction.

    Args:
        risk: the function.
        directions: along which; what they do not name does not move.

    Returns:
        ``(n, n)``, in units of the loss for coordinates along the directions.
    """
    still = {name: torch.zeros_like(tensor) for name, tensor in risk.parameters().items()}
    products = [risk.hessian_product(still | dict(direction)) for direction in directions]
    hessian = np.array([[inner_product(direction, product) for product in products] for direction in directions])
    return (hessian + hessian.T) / 2


def hessian_trace(
    risk: EmpiricalRisk, tolerance: float = 0.05, max_products: int = 1000, min_products: int = 10, seed: int = 0
) -> Trace:
    """The trace, by Hutchinson's estimator with Rademacher probes.

    It stops when the standard error of the mean is below ``tolerance`` of its absolute value. (A rule that watches how
    much the mean still moves, as other tools have, stops at errors several times its tolerance.)

    Args:
        risk: the function; its Hessian is taken at the model's weights.
        tolerance: relative standard error to reach.
        max_products: give up (``converged`` false) after so many probes.
        min_products: probes before the rule is first asked; at least 2.
        seed: of the probes.
    """
    products = _Products(risk)
    draws = np.random.default_rng(seed)
    found: list[float] = []
    while True:
        probe = draws.integers(0, 2, products.size) * 2.0 - 1.0
        found.append(float(probe @ products(probe)))
        if len(found) < max(2, min_products):
            continue
        mean, error = float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(len(found)))
        converged = error <= tolerance * abs(mean)
        if converged or len(found) >= max_products:
            return Trace(mean, error, converged, len(found))


class _Products:
    """Hessian-vector products on flat float64 vectors; counts them."""

    def __init__(self, risk: EmpiricalRisk) -> None:
        self._risk = risk
        self._shapes = risk.parameters()
        self.size = sum(tensor.numel() for tensor in self._shapes.values())
        self.spent = 0

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        self.spent += 1
        product = self._risk.hessian_product(self.by_name(vector))
        flat_product = torch.cat([tensor.double().flatten().cpu() for tensor in product.values()]).numpy()
        if not np.isfinite(flat_product).all():
            raise ValueError("a Hessian-vector product is not finite: the loss has no curvature at these weights")
        return flat_product

    def by_name(self, vector: np.ndarray) -> dict[str, Tensor]:
        """A flat vector as tensors of the parameters' shapes and types."""
        flat = torch.from_numpy(np.ascontiguousarray(vector).ravel())
        parts = flat.split([tensor.numel() for tensor in self._shapes.values()])
        return {
            name: part.reshape(like.shape).to(like.device, like.dtype)
            for (name, like), part in zip(self._shapes.items(), parts, strict=True)
        }
