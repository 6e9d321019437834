"""The density of the spectrum, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.special import ndtr

from landscape.curvature.lanczos import Krylov
from landscape.curvature.matrix import CurvatureMatrix, Kind
from landscape.risk import EmpiricalRisk
from landscape.statistics import mean_band

__all__ = ["spectral_density"]

_GRID = 1001  # eigenvalues at which the density is given
_BANDWIDTH = 0.01  # default, as a share of the spectrum's range
_MARGIN = 4  # bandwidths beyond the extreme nodes


def spectral_density(
    risk: EmpiricalRisk,
    steps: int = 40,
    tolerance: float = 0.02,
    max_products: int = 1000,
    min_probes: int = 2,
    bandwidth: float | None = None,
    seed: int = 0,
    matrix: Kind = "hessian",
    parameters: Sequence[str] | None = None,
) -> xr.Dataset:
    r"""How the eigenvalues are distributed, by stochastic Lanczos quadrature.

    Golub and Welsch, 1969; Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017;
    for Hessians of networks, Ghorbani, Krishnan and Xiao, 2019. For each random unit vector, ``steps`` of the Lanczos
    iteration (with full re-orthogonalization, so that there are no ghosts) give nodes, the Ritz values, and weights,
    the squared first entries of the Ritz vectors, which sum to one. Means over probes are broadened by a Gaussian.

    A single eigenvalue is worth 1 / n of the density, which no probe resolves: look at the extreme nodes, or at
    :func:`landscape.hessian_eigenvalues`, for the largest ones.

    Args:
        risk: the function; its curvature is taken at the model's weights.
        steps: of each probe's iteration, whose basis is in memory.
        tolerance: see ``converged``.
        max_products: give up after about so many matrix-vector products; whole probes are finished.
        min_probes: at least 2.
        bandwidth: standard deviation of the Gaussian, in units of the eigenvalues; None: 1 % of the spectrum's range.
        seed: of the probes.
        matrix: ``"hessian"`` or ``"gauss-newton"``.
        parameters: names or patterns of the parameters whose diagonal block is wanted; None: all.

    Returns:
        A dataset with ``density`` over ``eigenvalue`` (it integrates to one), ``density_low`` and ``density_high`` (the
        pointwise 95 % t interval over probes), and ``node`` and ``weight`` over ``probe`` and ``step`` (NaN and 0 where
        an iteration ended early because its space was invariant, and the rule exact). Attributes: ``matrix``, ``size``
        (rows), ``steps``, ``probes``, ``bandwidth``, ``standard_error`` (the largest of the broadened cumulative
        distribution, over probes), ``step_error`` (how far that distribution moves, at most, when only three quarters
        of the steps are made), ``converged`` (1 if both are within the tolerance), ``products``, ``seed``,
        ``examples``.

    Raises:
        ValueError: fewer than two steps or probes, a bandwidth that is not positive, an unknown matrix, or a pattern
            that matches no parameter.
    """
    for name, value in {"steps": steps, "min_probes": min_probes}.items():
        if value < 2:
            raise ValueError(f"{name}: expected at least 2, got {value}")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth: expected a positive number, got {bandwidth}")
    products = CurvatureMatrix(risk, matrix, parameters)
    rules: list[tuple[np.ndarray, np.ndarray]] = []
    shorter: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        draws = np.random.default_rng(np.random.SeedSequence([seed, len(rules)]))
        space = Krylov(products, products.gaussian(draws), steps, draws)
        rules.append(_rule(space, steps))
        shorter.append(_of_projected(space.projected[: max(1, 3 * space.steps // 4), : max(1, 3 * space.steps // 4)]))
        if len(rules) < min_probes:
            continue
        low, high = min(nodes.min() for nodes, _ in rules), max(nodes.max() for nodes, _ in rules)
        width = bandwidth or _BANDWIDTH * (high - low) or 1e-12 * max(abs(high), 1.0)
        grid = np.linspace(low - _MARGIN * width, high + _MARGIN * width, _GRID)
        cumulative = np.stack([_cumulative(grid, rule, width) for rule in rules])
        error = float((cumulative.std(axis=0, ddof=1) / np.sqrt(len(rules))).max())
        moved = np.mean([_cumulative(grid, rule, width) for rule in shorter], axis=0) - cumulative.mean(axis=0)
        step_error = float(np.abs(moved).max())
        if error <= tolerance or products.spent >= max_products:
            break
    density, below, above = mean_band(np.stack([_density(grid, rule, width) for rule in rules]))
    found = xr.Dataset(
        {
            "density": ("eigenvalue", density),
            "density_low": ("eigenvalue", np.maximum(below, 0)),
            "density_high": ("eigenvalue", above),
            "node": (("probe", "step"), _padded([nodes for nodes, _ in rules], steps, np.nan)),
            "weight": (("probe", "step"), _padded([weights for _, weights in rules], steps, 0.0)),
        },
        coords={"eigenvalue": grid},
    )
    found.attrs = {
        "matrix": {"hessian": "Hessian", "gauss-newton": "Gauss-Newton"}[matrix],
        "size": products.size,
        "steps": steps,
        "probes": len(rules),
        "bandwidth": width,
        "standard_error": error,
        "step_error": step_error,
        "tolerance": tolerance,
        "converged": int(error <= tolerance and step_error <= tolerance),
        "products": products.spent,
        "seed": seed,
        "examples": risk.count,
    }
    return found


def _rule(space: Krylov, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of one probe; the space is grown for it."""
    while not space.is_full and space.steps < steps:
        space.step()
        if space.coupling == 0:  # invariant: the rule is exact, and further steps belong to another start
            break
    return _of_projected(space.projected)


def _of_projected(projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nodes, coordinates = np.linalg.eigh(projected)
    return nodes, coordinates[0] ** 2


def _cumulative(grid: np.ndarray, rule: tuple[np.ndarray, np.ndarray], width: float) -> np.ndarray:
    nodes, weights = rule
    cumulative: np.ndarray = ndtr((grid[:, None] - nodes) / width) @ weights
    return cumulative


def _density(grid: np.ndarray, rule: tuple[np.ndarray, np.ndarray], width: float) -> np.ndarray:
    nodes, weights = rule
    bells = np.exp(-(((grid[:, None] - nodes) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    density: np.ndarray = bells @ weights
    return density


def _padded(rows: Sequence[np.ndarray], length: int, filler: float) -> np.ndarray:
    return np.stack([np.pad(row, (0, length - len(row)), constant_values=filler) for row in rows])
