"""Weighted sums of points in weight space.

A position is given by one weight for each point. So a point itself (weight 1, the others 0) is met bit for bit, which a
step along a rounded difference would miss.
"""

from __future__ import annotations

import concurrent.futures
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from landscape.directions import check_same_parameters
from landscape.evaluation.batch_norm import batch_norm_layers
from landscape.evaluation.values import Values
from landscape.evaluation.walk import Risks, Walk, evaluate, named

__all__ = ["at_combinations", "combined", "walk_of_combinations", "warn_of_running_statistics"]


def combined(points: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """The sum of the points, each times its weight, in the types of the first."""
    sums = {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in points[0].items()}
    for point, weight in zip(points, weights, strict=True):
        for name, total in sums.items():
            total += weight * point[name].detach().to(total.device)
    return sums


def at_combinations(
    risk: Risks,
    points: Sequence[Mapping[str, Tensor]],
    weights: np.ndarray,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
    description: str = "points",
) -> list[Values]:
    """The risk at weighted sums of points.

    Args:
        risk: one, or several of one model by split.
        points: with the same parameters.
        weights: ``(positions, points)``.
        executor: where; None: in this process.
        progress: show a progress bar on standard error.
        description: of the bar.

    Returns:
        The values at each position.

    Raises:
        ValueError: points with other parameters than the first.
    """
    nodes = [tuple(map(float, row)) for row in weights]
    found = evaluate(walk_of_combinations(risk, points), nodes, executor, progress, description)
    return [found[node] for node in nodes]


def walk_of_combinations(risk: Risks, points: Sequence[Mapping[str, Tensor]]) -> Walk:
    """A walk whose coordinates are the weights of the points.

    Raises:
        ValueError: points with other parameters than the first.
    """
    for index, point in enumerate(points):
        check_same_parameters(f"point {index}", point, points[0])
    nowhere = {name: torch.zeros_like(tensor) for name, tensor in points[0].items()}
    return Walk(named(risk), points, nowhere)


def warn_of_running_statistics(risk: Risks) -> None:
    """Warn the caller's caller that BatchNorm's statistics belong to one point, and not to others far away."""
    for one in named(risk).values():
        if batch_norm_layers(one.model) and "batch_norm" not in one.options:
            warnings.warn(
                "the model's BatchNorm statistics are used at every point, but belong to one of them at most: the loss "
                "elsewhere says little; pass EmpiricalRisk(..., statistics=batches) to estimate them at each point",
                stacklevel=3,
            )
            return
