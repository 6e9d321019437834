"""GNP: penalizing the gradient norm by a second gradient uphill (Zhao, Zhang and Hu 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dropattack.methods.weight_ascent import GlobalAscent

__all__ = ["GradientNormPenalty"]


class GradientNormPenalty(GlobalAscent):
    r"""The gradient :math:`(1-\alpha)\, g + \alpha\, \nabla L(\theta + \rho\, g / \lVert g \rVert_2)`.

    Zhao, Zhang and Hu, "Penalizing gradient norm for efficiently improving generalization in deep learning", ICML 2022,
    equation 12: to first order the gradient of :math:`L + \alpha\rho \lVert g \rVert_2`. The norm is taken over all the
    chosen weights together. The authors' default configuration mixes in the *unit* gradient instead of g, which is not
    their formula and is not done here. With ``alpha=1`` it is SAM.

    Cost: 2 forward and backward passes, a copy of the chosen weights.

    Args:
        model: the network.
        rho: norm of the ascent step; at least 0.
        alpha: weight of the gradient uphill, in [0, 1].
        weights: names or ``fnmatch`` patterns of the perturbed parameters.
        relative_rho: read rho as a share of the norm of all perturbed weights together.
        sync_perturbation: as for :class:`~dropattack.methods.weight_ascent.WeightAscent`.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho, alpha outside [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float = 0.05,
        alpha: float = 0.8,
        weights: Sequence[str] = ("*",),
        *,
        relative_rho: bool = False,
        sync_perturbation: bool = False,
    ) -> None:
        super().__init__(model, rho, weights, alpha, relative_rho=relative_rho, sync_perturbation=sync_perturbation)
