"""Flatness metrics, and the table that compares models by them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from landscape.curvature import hessian_eigenvalues, hessian_trace
from landscape.directions import random_directions
from landscape.parameters import norm
from landscape.risk import EmpiricalRisk

__all__ = ["METRICS", "Measurement", "ascent_sharpness", "flatness_table", "gaussian_rise"]


class Measurement(NamedTuple):
    """One number about one minimum.

    Attributes:
        value: the metric; larger means sharper for every metric of ``METRICS``.
        standard_error: of the value, over the metric's own random draws; NaN where nothing is drawn.
        converged: false where an iteration stopped before its tolerance.
        setting: radius and the like, for the table.
    """

    value: float
    standard_error: float
    converged: bool
    setting: dict[str, Any]


def gaussian_rise(risk: EmpiricalRisk, seed: int = 0, radius: float = 0.5, draws: int = 20) -> Measurement:
    r"""Mean rise of the risk under filter-normalized Gaussian perturbation.

    :math:`\mathbb{E}_d \, L(\theta + \rho d) - L(\theta)`, where each filter of :math:`d` has the norm of the weights'
    filter (Li et al. 2018), so that rescaling two consecutive ReLU layers by c and 1/c does not change it. Biases and
    normalization layers stay put. Two models with one seed see the same draws.

    Cost: ``draws + 1`` forward passes over the data.

    Args:
        risk: the function.
        seed: of the draws.
        radius: :math:`\rho`, in units of each filter's norm.
        draws: number of directions; at least 2.

    Raises:
        ValueError: fewer than two draws, which have no standard error.
    """
    if draws < 2:
        raise ValueError(f"draws: expected at least 2, got {draws}: one has no standard error")
    base, rises = risk().loss, []
    for index in range(draws):
        (direction,) = random_directions(risk.parameters(), count=1, seed=_draw_seed(seed, index))
        with risk.along([direction]) as move:
            move([radius])
            rises.append(risk().loss - base)
    error = float(np.std(rises, ddof=1) / math.sqrt(draws))
    return Measurement(float(np.mean(rises)), error, True, {"radius": radius, "draws": draws})


def ascent_sharpness(risk: EmpiricalRisk, seed: int = 0, rho: float = 0.05) -> Measurement:
    r"""Rise of the risk after one ascent step of norm :math:`\rho` over all parameters (Foret et al., SAM, 2021).

    :math:`L(\theta + \rho \, g / \lVert g \rVert_2) - L(\theta)` with the gradient :math:`g` of the whole data set. It
    is an absolute radius: rescaling weights that leaves the function alone changes it.

    Cost: one forward-and-backward pass and two forward passes over the data.

    Args:
        risk: the function.
        seed: not used, as nothing is drawn.
        rho: norm of the step.
    """
    del seed
    gradient = risk.gradient()
    length = norm(gradient)
    if length == 0:
        return Measurement(0.0, math.nan, True, {"rho": rho})
    base = risk().loss
    with risk.along([gradient]) as move:
        move([rho / length])
        rise = risk().loss - base
    return Measurement(rise, math.nan, True, {"rho": rho})


def hessian_top_eigenvalue(risk: EmpiricalRisk, seed: int = 0, tolerance: float = 1e-3) -> Measurement:
    """The largest eigenvalue of the Hessian; see :func:`landscape.hessian_eigenvalues`. Not invariant to rescaling."""
    found = hessian_eigenvalues(risk, count=1, tolerance=tolerance, seed=seed)
    value, residual = (float(one[0]) if len(one) else math.nan for one in (found.eigenvalues, found.residuals))
    return Measurement(value, math.nan, found.converged, {"tolerance": tolerance, "residual": residual})


def hessian_trace_estimate(
    risk: EmpiricalRisk, seed: int = 0, tolerance: float = 0.05, max_products: int = 200
) -> Measurement:
    """The trace of the Hessian; see :func:`landscape.hessian_trace`. Not invariant to rescaling."""
    found = hessian_trace(risk, tolerance=tolerance, max_products=max_products, seed=seed)
    return Measurement(found.value, found.standard_error, found.converged, {"probes": found.products})


Metric = Callable[[EmpiricalRisk, int], Measurement]

METRICS: dict[str, Metric] = {
    "gaussian_rise": gaussian_rise,
    "ascent_sharpness": ascent_sharpness,
    "hessian_top_eigenvalue": hessian_top_eigenvalue,
    "hessian_trace": hessian_trace_estimate,
}


def flatness_table(
    models: Mapping[str, EmpiricalRisk],
    metrics: Sequence[str] | Mapping[str, Metric] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every model by every metric, with the same random draws.

    Args:
        models: name to risk.
        metrics: keys of ``METRICS``, or name to function for others and for other settings
            (``functools.partial(gaussian_rise, radius=1.0)``). None: all of ``METRICS``.
        seed: of all draws.
        progress: show a progress bar on standard error.

    Returns:
        One number a row: ``model``, ``metric``, ``value``, ``standard_error``, ``converged``, ``setting`` (JSON),
        ``loss`` and ``examples`` (the risk at the center), ``seed``.

    Raises:
        ValueError: an unknown metric.
    """
    chosen = _metrics(metrics)
    rows = []
    with tqdm(total=len(models) * len(chosen), desc="flatness", unit="metric", disable=not progress) as bar:
        for model, risk in models.items():
            loss = risk().loss
            for name, metric in chosen.items():
                bar.set_postfix_str(f"{model}: {name}")
                found = metric(risk, seed)
                rows.append(
                    {
                        "model": model,
                        "metric": name,
                        "value": found.value,
                        "standard_error": found.standard_error,
                        "converged": found.converged,
                        "setting": json.dumps(found.setting),
                        "loss": loss,
                        "examples": risk.count,
                        "seed": seed,
                    }
                )
                bar.update()
    return pd.DataFrame(rows)


def _metrics(metrics: Sequence[str] | Mapping[str, Metric] | None) -> Mapping[str, Metric]:
    if isinstance(metrics, Mapping):
        return metrics
    if isinstance(metrics, str):
        raise TypeError(f"metrics: expected a sequence, got the string {metrics!r}; write [{metrics!r}]")
    for name in metrics or ():
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return {name: METRICS[name] for name in (METRICS if metrics is None else metrics)}


def _draw_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
