"""Standard training: the plain gradient, as the baseline of every comparison."""

from __future__ import annotations

from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step

__all__ = ["Standard"]


class Standard(Method):
    """The gradient of the loss, in one forward and one backward pass."""

    @property
    def cost(self) -> Cost:
        """One pass."""
        return Cost(forwards=1, backwards=1)

    def _step(self, step: Step) -> StepRecord:
        return StepRecord(clean_loss=step.run(clean=True))
