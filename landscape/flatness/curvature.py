"""Second-order metrics: eigenvalues, trace and norm of the Hessian and of the Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscape.curvature.eigenvalues import extreme_ritz, hessian_eigenvalues
from landscape.curvature.matrix import CurvatureMatrix
from landscape.curvature.trace import Estimate, Moments, hessian_trace
from landscape.flatness.measurement import Measurement
from landscape.risk import EmpiricalRisk

__all__ = ["gauss_newton_metrics", "hessian_metrics"]

_DEFLATE = 30  # vectors of the Krylov space beside which the trace is estimated


def hessian_metrics(
    risk: EmpiricalRisk,
    seed: int = 0,
    count: int = 3,
    tolerance: float = 1e-3,
    trace_tolerance: float = 0.05,
    max_products: int = 400,
    parameters: Sequence[str] | None = None,
) -> dict[str, list[Measurement]]:
    """The Hessian's largest and smallest eigenvalues, trace and Frobenius norm, from one Krylov space.

    See :func:`landscape.hessian_eigenvalues` and :func:`landscape.hessian_trace`. A rescaling of the weights that
    leaves the function alone changes all of them (Dinh et al., "Sharp Minima Can Generalize For Deep Nets", 2017).

    Cost: 20 to 60 Hessian-vector products for a small network, each of about six forward passes over the data.

    Args:
        risk: the function.
        seed: of the iteration's start and the probes.
        count: largest eigenvalues, each a measurement of its rank; no more than there are parameters.
        tolerance: of the largest eigenvalues relative to themselves, of the smallest as a share of the spread of all.
        trace_tolerance: relative standard error of trace and norm.
        max_products: give up (not converged) after so many Hessian-vector products.
        parameters: names or patterns of the parameters whose diagonal block is measured; None: all.

    Returns:
        ``"largest_eigenvalue"`` (``count`` of them), ``"smallest_eigenvalue"``, ``"hessian_trace"`` and
        ``"hessian_frobenius_norm"``. Eigenvalues have their ``residual`` and ``error`` as details.
    """
    matrix = CurvatureMatrix(risk, "hessian", parameters)
    count = min(count, matrix.size)
    space, ritz, errors, converged = extreme_ritz(matrix, count, 1, tolerance, max_products, seed)
    where: dict[str, Any] = {} if parameters is None else {"parameters": list(parameters)}
    spent = matrix.spent
    places = [-1 - rank for rank in range(count)]
    found = {
        "largest_eigenvalue": [
            Measurement(
                value=float(ritz.values[place]),
                converged=converged,
                setting={"rank": rank + 1} | where,
                detail={"residual": float(ritz.residuals[place]), "error": float(errors[rank]), "products": spent},
            )
            for rank, place in enumerate(places)
        ],
        "smallest_eigenvalue": [
            Measurement(
                value=float(ritz.values[0]),
                converged=converged,
                setting=where,
                detail={"residual": float(ritz.residuals[0]), "error": float(errors[-1]), "products": spent},
            )
        ],
    }
    moments = Moments(matrix, seed, space=space)
    for part, which in (("hessian_trace", "trace"), ("hessian_frobenius_norm", "frobenius norm")):
        estimate = moments.until(which, trace_tolerance, spent + max_products, _DEFLATE)  # type: ignore[arg-type]
        found[part] = [_measured(estimate, where)]
    return found


def gauss_newton_metrics(
    risk: EmpiricalRisk,
    seed: int = 0,
    tolerance: float = 1e-3,
    trace_tolerance: float = 0.05,
    max_products: int = 400,
    parameters: Sequence[str] | None = None,
) -> dict[str, Measurement]:
    """Largest eigenvalue and trace of the Gauss-Newton matrix: the Hessian without the curvature of the network itself.

    For cross-entropy it is the Fisher information matrix, and never negative (Schraudolph, "Fast Curvature
    Matrix-Vector Products for Second-Order Gradient Descent", 2002). A rescaling that leaves the function alone changes
    both numbers.

    Cost: some 20 to 40 products, each of about six forward passes over the data.

    Args:
        risk: the function; its model returns one tensor.
        seed: of the iteration's start and the probes.
        tolerance: of the eigenvalue, relative to itself.
        trace_tolerance: relative standard error of the trace.
        max_products: give up (not converged) on either after so many.
        parameters: names or patterns of the parameters whose diagonal block is measured; None: all.

    Returns:
        ``"gauss_newton_eigenvalue"`` and ``"gauss_newton_trace"``.
    """
    where: dict[str, Any] = {} if parameters is None else {"parameters": list(parameters)}
    top = hessian_eigenvalues(risk, 1, "largest", tolerance, max_products, seed, "gauss-newton", parameters)
    trace = hessian_trace(
        risk, trace_tolerance, max_products, seed=seed, matrix="gauss-newton", parameters=parameters, deflate=_DEFLATE
    )
    detail = {"residual": float(top.residuals[0]), "error": float(top.errors[0]), "products": top.products}
    return {
        "gauss_newton_eigenvalue": Measurement(
            float(top.eigenvalues[0]), converged=top.converged, setting=where, detail=detail
        ),
        "gauss_newton_trace": _measured(trace, where),
    }


def _measured(estimate: Estimate, setting: dict[str, Any]) -> Measurement:
    detail = {"products": estimate.products}
    return Measurement(estimate.value, estimate.standard_error, estimate.converged, setting, detail)
