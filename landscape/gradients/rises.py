"""How much the loss rises when the weights or an activation move, to the last digit that rounding leaves."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.evaluation.batches import moved
from landscape.evaluation.kernels import FastPooling
from landscape.risk import EmpiricalRisk

__all__ = ["batches_of", "forward_passes", "rises", "rises_along", "rounding_noise"]

_DRAWS = 4  # for the size of rounding errors


@contextlib.contextmanager
def forward_passes(risk: EmpiricalRisk) -> Iterator[None]:
    """Evaluation mode without gradients, with BatchNorm's statistics for the weights at the beginning of the block."""
    with risk.evaluation():
        risk.reestimate()
        with torch.no_grad(), FastPooling(), torch.compiler.set_stance("force_eager"):
            yield


def batches_of(risk: EmpiricalRisk) -> Iterator[Any]:
    """The batches of a risk, on its device."""
    device = next(risk.eager.parameters()).device
    return (moved(batch, device) for batch in risk.used_batches())


def rises(
    losses: Callable[[], Tensor], base: Tensor, move: Callable[[float], None], epsilons: Sequence[float]
) -> Tensor:
    """Sums over a batch of the differences of per-example losses, in float64.

    Args:
        losses: computes them, ``(n,)``.
        base: the losses before any move.
        move: goes to an epsilon.
        epsilons: where to.

    Returns:
        One sum for each epsilon.
    """
    found = []
    for epsilon in epsilons:
        move(epsilon)
        found.append((losses().double() - base.double()).sum())
    return torch.stack(found)


def rises_along(
    risk: EmpiricalRisk, direction: Mapping[str, Tensor], epsilons: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch its :func:`rises` along a direction of the weights, and its losses at the center.

    The latter are computed anew for each direction, as a loader may shuffle.
    """
    with forward_passes(risk), risk.along([direction]) as move:

        def move_to(epsilon: float) -> None:
            move([epsilon])

        for batch in batches_of(risk):
            move_to(0.0)
            losses = functools.partial(risk.losses, risk.eager, batch)
            base = losses()
            yield rises(losses, base, move_to, epsilons), base


def rounding_noise(risk: EmpiricalRisk, seed: int = 0) -> float:
    """What rounding alone makes of a rise of the mean loss.

    The root mean square, over a few draws, of the rise when every weight moves by one unit in the last place, up or
    down at random: that rounds all that is computed from them anew. At least the rounding of the losses themselves.
    """
    center = risk.parameters()
    draws = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    found, squares, resolution = [], 0.0, 0.0
    for draw in range(_DRAWS):
        offsets = {name: _last_places(tensor, draws) for name, tensor in center.items()}
        total = 0.0
        for rise, base in rises_along(risk, offsets, (1.0,)):
            total += float(rise)
            if draw == 0:
                squares += float(base.double().square().sum())
                resolution = torch.finfo(base.dtype).eps
        found.append(total)
    return max(float(np.sqrt(np.mean(np.square(found)))), resolution * math.sqrt(squares)) / risk.count


def _last_places(tensor: Tensor, draws: np.random.Generator) -> Tensor:
    signs = torch.from_numpy(2.0 * draws.integers(2, size=tuple(tensor.shape)) - 1).to(tensor)
    return tensor * signs * torch.finfo(tensor.dtype).eps
