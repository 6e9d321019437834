"""Means over examples, summed in float64 where the losses are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RiskValue", "Totals"]


class RiskValue(NamedTuple):
    """Exact means over the examples.

    Attributes:
        loss: mean loss, in the loss's unit (nats for cross-entropy).
        standard_error: of that mean, from the spread of the per-example losses; NaN for one example.
        count: number of examples.
        metrics: mean of each metric.
    """

    loss: float
    standard_error: float
    count: int  # type: ignore[assignment]  # a tuple's own `count` is not needed here
    metrics: dict[str, float]

    def columns(self) -> dict[str, float]:
        """The mean loss, its standard error, and each metric, by the names they have in a surface."""
        return {"loss": self.loss, "loss_standard_error": self.standard_error, **self.metrics}


class Totals:
    """Running sums of losses and metrics. They stay on the losses' device until :meth:`value` asks for them."""

    def __init__(self) -> None:
        self._count = 0
        self._guess: Tensor | None = None
        self._sums: Tensor | None = None
        self._metrics: dict[str, Tensor] = {}

    def add(self, losses: Tensor, metrics: Mapping[str, Tensor]) -> None:
        """Add the losses ``(n,)`` and each metric ``(n,)`` of a batch."""
        if not len(losses):
            return
        losses = losses.detach().double()
        if self._guess is None:
            # Deviations from a first guess of the mean, so that the variance does not cancel.
            mean = losses.mean()
            self._guess = torch.where(mean.isfinite(), mean, 0.0)
        deviations = losses - self._guess
        sums = torch.stack([deviations.sum(), deviations.square().sum()])
        self._sums = sums if self._sums is None else self._sums + sums
        for name, values in metrics.items():
            total = values.detach().double().sum()
            self._metrics[name] = self._metrics[name] + total if name in self._metrics else total
        self._count += len(losses)

    def value(self) -> RiskValue:
        """The means so far.

        Raises:
            ValueError: no example was added.
        """
        if self._guess is None or self._sums is None or not self._count:
            raise ValueError("batches: expected at least one example, got none")
        guess, total, squares, *metrics = torch.stack([self._guess, *self._sums, *self._metrics.values()]).tolist()
        mean = total / self._count
        variance = (squares - self._count * mean * mean) / (self._count - 1) if self._count > 1 else math.nan
        return RiskValue(
            loss=guess + mean,
            standard_error=math.nan if math.isnan(variance) else math.sqrt(max(variance, 0.0) / self._count),
            count=self._count,
            metrics={name: sum_ / self._count for name, sum_ in zip(self._metrics, metrics, strict=True)},
        )
