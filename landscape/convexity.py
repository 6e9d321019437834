"""Where on a plane the risk is convex: the extreme eigenvalues of the Hessian at each point."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from torch import Tensor

from landscape.curvature import hessian_eigenvalues
from landscape.datasets import assembled, grid_axes
from landscape.evaluation.points import Points
from landscape.evaluation.walk import Risks, Walk, named
from landscape.interpolation import DIMENSIONS
from landscape.layout import points_of
from landscape.risk import EmpiricalRisk

__all__ = ["ExtremeEigenvalues", "eigenvalue_ratio"]

_FOUND = ("largest_eigenvalue", "smallest_eigenvalue", "largest_residual", "smallest_residual")


@dataclasses.dataclass(frozen=True)
class ExtremeEigenvalues:
    """Measures the largest and the algebraically smallest eigenvalue of the Hessian at the model's weights.

    Attributes:
        tolerance: of the largest relative to itself; of the smallest as a share of the spread between the two.
        max_products: give up after so many Hessian-vector products.
        seed: of the iteration's starting vector.
    """

    tolerance: float = 0.01
    max_products: int = 1000
    seed: int = 0

    def __call__(self, risk: EmpiricalRisk) -> dict[str, float]:
        """The loss and what was found, by the names that they have in a map; NaN for what was not."""
        loss = risk().loss
        if not math.isfinite(loss):
            return {"loss": loss} | dict.fromkeys(_FOUND, math.nan) | {"converged": 0.0, "products": 0.0}
        found = hessian_eigenvalues(risk, 2, "both", self.tolerance, self.max_products, self.seed)
        return {
            "loss": loss,
            **dict(zip(_FOUND, map(float, [*found.eigenvalues, *found.residuals]), strict=True)),
            "converged": float(found.converged),
            "products": float(found.products),
        }


def eigenvalue_ratio(
    risk: Risks,
    directions: Sequence[Mapping[str, Tensor]],
    span: float | tuple[float, ...] = 1.0,
    points: int | tuple[int, ...] = 11,
    center: Mapping[str, Tensor] | None = None,
    tolerance: float = 0.01,
    max_products: int = 1000,
    seed: int = 0,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
    path: str | Path | None = None,
) -> xr.Dataset:
    r"""The map of :math:`\lvert \lambda_{min} / \lambda_{max} \rvert` over a plane (Li et al. 2018, section 6).

    The smallest eigenvalue is the algebraically smallest, and the ratio has no sign:

    - near 0: what is not convex is small, and a convex look of the surface can be trusted;
    - near 1: negative curvature is as strong as positive curvature; above 1: stronger;
    - if ``smallest_eigenvalue`` is positive, the risk is strictly convex there, and a large ratio is no defect.

    The plane only says *where* the Hessian is taken: its eigenvalues are those over *all* parameters of the risk, also
    of those that the directions do not move.

    Cost: some forty to a few hundred Hessian-vector products a point, each of about four forward passes over the data.

    Args:
        risk: the function, or several of one model by split.
        directions: one to three.
        span: coordinates run from ``-span`` to ``span``; or one span for each direction.
        points: along each axis, or one number for each; odd numbers have the center on the grid.
        center: the point with coordinates 0; None: the model's weights.
        tolerance: of the largest eigenvalue relative to itself; of the smallest as a share of the spread between them,
            so that it is about the error of a small ratio.
        max_products: give up after so many Hessian-vector products.
        seed: of the iteration's starting vector.
        executor: evaluate there; None: in this process.
        progress: show a progress bar on standard error.
        path: write the result there as netCDF, atomically; points are kept beside it as they come, and a second start
            evaluates only what is missing.

    Returns:
        A dataset with dimensions ``alpha``, ``beta``, ``gamma``, as many as directions (before them ``split``, if risks
        were named): ``ratio``, ``largest_eigenvalue``, ``smallest_eigenvalue``, ``largest_residual`` and
        ``smallest_residual`` (‖Hv − λv‖ for unit v: some eigenvalue lies within this distance), ``converged``,
        ``products``, and ``loss``. An eigenvalue that was not found, as where the loss is not finite, is NaN.

    Raises:
        ValueError: no directions or too many, a span that is not positive, or too few points.
    """
    if not 1 <= len(directions) <= len(DIMENSIONS):
        raise ValueError(f"directions: expected 1 to {len(DIMENSIONS)}, got {len(directions)}")
    spans = span if isinstance(span, tuple) else (span,) * len(directions)
    counts = points if isinstance(points, tuple) else (points,) * len(directions)
    for name, values in {"span": spans, "points": counts}.items():
        if len(values) != len(directions):
            raise ValueError(f"{name}: expected {len(directions)}, one for each direction, got {len(values)}")
    axes = grid_axes(spans, counts)
    measure = ExtremeEigenvalues(tolerance, max_products, seed)
    walk = Walk(named(risk), directions, center, measure)
    nodes = list(itertools.product(*(axis.tolist() for axis in axes.values())))
    settings = {"method": "eigenvalue ratio", **dataclasses.asdict(measure)}
    # Second derivatives need switches that belong to the whole process. Set out here they stay as they are while the
    # threads of a pool enter and leave, and are put back once.
    with (
        Points(walk, path, settings, executor, progress, "eigenvalues") as known,
        walk.first.differentiable(),
    ):
        if known.finished is not None:
            known.know(points_of(known.finished))
        found = known.at(nodes)
        result = assembled([found[node] for node in nodes], axes)
        with np.errstate(divide="ignore", invalid="ignore"):  # no curvature at all: NaN
            ratio = np.abs(result["smallest_eigenvalue"] / result["largest_eigenvalue"])
        result = result.assign(
            ratio=ratio, converged=result["converged"].astype(bool), products=result["products"].astype(int)
        )
        result.attrs = {
            "method": "grid",
            "converged": int(result["converged"].all()),
            "evaluations": len(nodes),
            "eigenvalue_tolerance": tolerance,
        }
        return known.finish(result)
