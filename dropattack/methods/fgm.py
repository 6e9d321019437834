"""FGM: one gradient step of fixed norm on the input (Miyato, Dai and Goodfellow 2017)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from dropattack.arguments import check_choice
from dropattack.methods.one_step import OneStep

__all__ = ["FGM"]


class FGM(OneStep):
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
        relative_epsilon: read epsilon as a share of the norm of the input.
        batch_dim: the dimension of the input that counts examples.

    Raises:
        ValueError: an unknown or frozen site, a negative epsilon or weight, an unknown norm.
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
        relative_epsilon: bool = False,
        batch_dim: int = 0,
    ) -> None:
        check_choice("input_norm", input_norm, ("example", "tensor"))
        super().__init__(
            model,
            inputs,
            epsilon,
            clean_weight=clean_weight,
            adversarial_weight=adversarial_weight,
            scope=input_norm,
            relative_epsilon=relative_epsilon,
            batch_dim=batch_dim,
        )
