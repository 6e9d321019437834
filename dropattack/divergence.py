"""How far two predictions are apart: Kullback-Leibler divergences between the softmax of logits, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kl_divergence", "symmetric_kl"]


def kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    r""":math:`\sum_c p_c (\log p_c - \log q_c)` for the softmax p of ``logits`` and q of ``other``, mean over the rest.

    Computed in at least float32: the divergence of nearby predictions is a small difference of large numbers.

    Args:
        logits: shape ``(…, classes)``, with two or more classes.
        other: the same shape.

    Raises:
        ValueError: a single class, whose probability is always 1.

    Example:
        >>> kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        tensor(0.)
    """
    p, q = _log_probabilities(logits), _log_probabilities(other)
    return (p.exp() * (p - q)).sum(-1).mean()


def symmetric_kl(logits: Tensor, other: Tensor) -> Tensor:
    """The sum of the divergences in both directions; arguments as for :func:`kl_divergence`."""
    p, q = _log_probabilities(logits), _log_probabilities(other)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


def _log_probabilities(logits: Tensor) -> Tensor:
    if logits.ndim == 0 or logits.shape[-1] < 2:
        raise ValueError(
            f"logits: expected shape (…, classes) with two or more classes, got {tuple(logits.shape)}; for one logit a "
            "binary example, give the model a second one"
        )
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
