"""Updates as vectors: a tensor for each parameter; sums in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Update", "agreement", "combined", "inner", "mean"]

Update = dict[str, Tensor]


def combined(one: Update, other: Update | None = None, factor: float = 1.0) -> Update:
    """``one + factor * other``; ``factor * one`` where there is no other."""
    if other is None:
        return {name: factor * tensor for name, tensor in one.items()}
    return {name: torch.add(tensor, other[name], alpha=factor) for name, tensor in one.items()}


def mean(updates: Sequence[Update]) -> Update:
    """The mean of at least one."""
    return {
        name: torch.stack([update[name].double() for update in updates]).mean(0).to(tensor.dtype)
        for name, tensor in updates[0].items()
    }


def inner(one: Update, other: Update) -> float:
    """The inner product."""
    return math.fsum(float((tensor.double() * other[name].double()).sum()) for name, tensor in one.items())


def agreement(one: Update, other: Update) -> dict[str, float]:
    """How an update compares with another.

    Args:
        one: the update.
        other: what it is compared with.

    Returns:
        ``norm`` of the one; ``norm_ratio``, to the norm of the other; ``cosine``; ``distance``, the norm of their
        difference as a share of the norm of the other. NaN where a norm is zero.

    Example:
        >>> agreement({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([5.0, 0.0])})
        {'norm': 5.0, 'norm_ratio': 1.0, 'cosine': 0.6, 'distance': 0.894427190999916}
    """
    norm, other_norm = math.sqrt(inner(one, one)), math.sqrt(inner(other, other))
    difference = combined({name: tensor.double() for name, tensor in one.items()}, other, -1.0)
    return {
        "norm": norm,
        "norm_ratio": norm / other_norm if other_norm else math.nan,
        "cosine": inner(one, other) / (norm * other_norm) if norm and other_norm else math.nan,
        "distance": math.sqrt(inner(difference, difference)) / other_norm if other_norm else math.nan,
    }
