"""FGM: one gradient step of fixed norm on the input (Miyato, Dai and Goodfellow 2017)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dropattack.arguments import check_choice
from dropattack.ascent import NormScope, units
from dropattack.methods.input_ascent import InputAscent
from dropattack.sites import ParameterSite

__all__ = ["FGM"]


class FGM(InputAscent):
    r"""The clean gradient plus the gradient at :math:`x + \epsilon\, g_x / \lVert g_x \rVert_2`.

    Miyato, Dai and Goodfellow, "Adversarial training methods for semi-supervised text classification", ICLR 2017;
    equation 2 of the DropAttack paper. There embeddings are first normalized by word frequency, which is not done here.
    Widely copied code perturbs the embedding *weight* by one norm for the whole batch instead: name that parameter as
    ``inputs`` to get it. DropAttack on the input alone with attack probability 1 is the same method.

    Cost: 2 forward and backward passes.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: norm of the perturbation; at least 0.
        clean_weight: weight of the clean gradient.
        adversarial_weight: weight of the gradient at the perturbed input.
        input_norm: ``"example"`` or ``"tensor"`` (one norm for the batch; always so for a parameter).
        batch_dim: the dimension of the input that counts examples.

    Raises:
        ValueError: an unknown site, a negative epsilon or weight, an unknown norm.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float = 5.0,
        *,
        clean_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        input_norm: Literal["example", "tensor"] = "example",
        batch_dim: int = 0,
    ) -> None:
        super().__init__(model, inputs, epsilon, clean_weight, adversarial_weight)
        check_choice("input_norm", input_norm, ("example", "tensor"))
        self._scope: NormScope = "tensor" if isinstance(self._site, ParameterSite) else input_norm
        self.batch_dim = batch_dim

    def _perturbation(self, gradient: Tensor) -> Tensor:
        return self.epsilon * units([gradient], self._scope, self.batch_dim)[0]
