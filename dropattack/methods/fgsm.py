"""FGSM: one signed gradient step on the input (Goodfellow, Shlens and Szegedy 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from dropattack.methods.one_step import OneStep

__all__ = ["FGSM"]


class FGSM(OneStep):
    r"""The clean gradient plus the gradient at :math:`x + \epsilon \operatorname{sgn}(g_x)`.

    Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015; equation 1 of the
    DropAttack paper. The original objective weighs both losses by one half; popular code trains on the adversarial loss
    alone (``clean_weight=0``). "Fast" FGSM (Wong, Rice and Kolter 2020) is :class:`~dropattack.methods.pgd.PGD` with
    one step of 1.25 epsilon from a random start.

    Cost: 2 forward and backward passes.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: largest change of an entry; at least 0.
        clean_weight: weight of the clean gradient.
        adversarial_weight: weight of the gradient at the perturbed input.
        clip_range: lowest and highest value that a perturbed entry may take, in the units of the input (after
            normalization); None: any.
        relative_epsilon: read epsilon as a share of the largest entry of each input.
        batch_dim: the dimension of the input that counts examples.

    Raises:
        ValueError: an unknown or frozen site, a negative epsilon or weight, an empty range.
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
        relative_epsilon: bool = False,
        batch_dim: int = 0,
    ) -> None:
        super().__init__(
            model,
            inputs,
            epsilon,
            clean_weight=clean_weight,
            adversarial_weight=adversarial_weight,
            norm="linf",
            relative_epsilon=relative_epsilon,
            batch_dim=batch_dim,
        )
        if clip_range is not None and not clip_range[0] < clip_range[1]:
            raise ValueError(f"clip_range: expected the lowest value first, got {tuple(clip_range)}")
        self.site.keep_value = self.site.keep_value or clip_range is not None
        self.clip_range = clip_range

    def _perturbation(self, gradient: Tensor) -> Tensor:
        perturbation = super()._perturbation(gradient)
        if self.clip_range is None:
            return perturbation
        return (self.site.value + perturbation).clamp(*self.clip_range) - self.site.value
