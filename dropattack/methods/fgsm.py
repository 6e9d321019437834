"""FGSM: one signed gradient step on the input (Goodfellow, Shlens and Szegedy 2015)."""

from __future__ import annotations

from torch import nn

from dropattack.ascent import check_nonnegative
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, watched_gradient
from dropattack.sites import find_site

__all__ = ["FGSM"]


class FGSM(Method):
    r"""The clean gradient plus the gradient at :math:`x + \epsilon \operatorname{sgn}(g_x)`.

    Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015; equation 1 of the
    DropAttack paper. The original objective weighs both losses by one half; popular code trains on the adversarial loss
    alone (``clean_weight=0``).

    Cost: 2 forward and backward passes.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: largest change of an entry; at least 0.
        clean_weight: weight of the clean gradient.
        adversarial_weight: weight of the gradient at the perturbed input.
        clip_range: lowest and highest value that a perturbed entry may take, in the units of the input (after
            normalization); None: any.

    Raises:
        ValueError: an unknown site, a negative epsilon or weight, an empty range.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float = 0.1,
        *,
        clean_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        clip_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(model)
        if clip_range is not None and not clip_range[0] < clip_range[1]:
            raise ValueError(f"clip_range: expected the lowest value first, got {tuple(clip_range)}")
        self._site = find_site(self.model, inputs)
        self._site.keep_value = clip_range is not None
        self.epsilon = check_nonnegative("epsilon", epsilon)
        self.clean_weight = check_nonnegative("clean_weight", clean_weight)
        self.adversarial_weight = check_nonnegative("adversarial_weight", adversarial_weight)
        self.clip_range = clip_range

    @property
    def cost(self) -> Cost:
        """A clean and an adversarial pass."""
        return Cost(forwards=2, backwards=2)

    def _step(self, step: Step) -> StepRecord:
        site = self._site
        clean_loss = step.run(self.clean_weight, watch=[site], clean=True)
        perturbation = self.epsilon * watched_gradient(site).sign().nan_to_num(0.0)
        if self.clip_range is not None:
            perturbation = (site.value + perturbation).clamp(*self.clip_range) - site.value
        adversarial_loss = step.run(self.adversarial_weight, {site: perturbation})
        return StepRecord(clean_loss, {"inputs": [adversarial_loss]}, {site.name: perturbation})
