"""FGSM: one signed gradient step on the input (Goodfellow, Shlens and Szegedy 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from dropattack.methods.input_ascent import InputAscent

__all__ = ["FGSM"]


class FGSM(InputAscent):
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
        super().__init__(model, inputs, epsilon, clean_weight, adversarial_weight)
        if clip_range is not None and not clip_range[0] < clip_range[1]:
            raise ValueError(f"clip_range: expected the lowest value first, got {tuple(clip_range)}")
        self._site.keep_value = clip_range is not None
        self.clip_range = clip_range

    def _perturbation(self, gradient: Tensor) -> Tensor:
        perturbation = self.epsilon * gradient.sign().nan_to_num(0.0)
        if self.clip_range is None:
            return perturbation
        return (self._site.value + perturbation).clamp(*self.clip_range) - self._site.value
