"""What FGM and FGSM have in common: one step uphill from the input, and the gradient there beside the clean one."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from dropattack.arguments import check_nonnegative
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, watched_gradient
from dropattack.sites import find_site

__all__ = ["InputAscent"]


class InputAscent(Method):
    """Clean gradient and gradient at the perturbed input, weighted; a method says what the perturbation is.

    Cost: 2 forward and backward passes.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: size of the perturbation; at least 0.
        clean_weight: weight of the clean gradient.
        adversarial_weight: weight of the gradient at the perturbed input.

    Raises:
        ValueError: an unknown site, a negative epsilon or weight.
    """

    def __init__(
        self, model: nn.Module, inputs: str, epsilon: float, clean_weight: float, adversarial_weight: float
    ) -> None:
        super().__init__(model)
        self._site = find_site(self.model, inputs)
        self.epsilon = check_nonnegative("epsilon", epsilon)
        self.clean_weight = check_nonnegative("clean_weight", clean_weight)
        self.adversarial_weight = check_nonnegative("adversarial_weight", adversarial_weight)

    @property
    def cost(self) -> Cost:
        """A clean and an adversarial pass."""
        return Cost(forwards=2, backwards=2)

    @abc.abstractmethod
    def _perturbation(self, gradient: Tensor) -> Tensor:
        """The step uphill, from the gradient with respect to the input."""

    def _step(self, step: Step) -> StepRecord:
        site = self._site
        clean_loss = step.run(self.clean_weight, watch=[site], clean=True)
        perturbation = self._perturbation(watched_gradient(site))
        adversarial_loss = step.run(self.adversarial_weight, {site: perturbation})
        return StepRecord(clean_loss, {"inputs": [adversarial_loss]}, {site.name: perturbation})
