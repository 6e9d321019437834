"""What FGM and FGSM have in common: the perturbation is one step uphill from the clean input."""

from __future__ import annotations

from torch import Tensor

from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.input_ascent import InputAttack
from dropattack.passes import Step, watched_gradient

__all__ = ["OneStep"]


class OneStep(InputAttack):
    """The perturbation is the step of length epsilon that raises the linearized loss most."""

    @property
    def ascent_cost(self) -> Cost:
        """The clean pass."""
        return Cost(forwards=1, backwards=1)

    def ascend(self, step: Step) -> StepRecord:
        """One clean pass, and the step uphill from it."""
        clean_loss = step.run(self.clean_weight, watch=[self.site], clean=True)
        perturbation = self._perturbation(watched_gradient(self.site))
        return StepRecord(clean_loss, {"inputs": []}, {self.site.name: perturbation})

    def _perturbation(self, gradient: Tensor) -> Tensor:
        length = self.epsilon * self._unit(self.site.value)
        return (length * self._ball.uphill(gradient)).to(gradient.dtype)
