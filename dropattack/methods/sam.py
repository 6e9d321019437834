"""SAM: sharpness-aware minimization (Foret, Kleiner, Mobahi and Neyshabur 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dropattack.methods.weight_ascent import GlobalAscent

__all__ = ["SAM"]


class SAM(GlobalAscent):
    r"""The gradient at :math:`\theta + \rho\, g / \lVert g \rVert_2`; the clean gradient itself is thrown away.

    Foret et al., "Sharpness-aware minimization for efficiently improving generalization", ICLR 2021, equation 3 and
    Algorithm 1. The norm is taken over all weights together, biases and normalization layers included, as in the
    authors' code; that code keeps L2 in the loss, so that it takes part in the ascent, and popular PyTorch ports do
    not: add it to the closure's loss or to the optimizer accordingly.

    Cost: 2 forward and backward passes, a copy of the weights.

    Args:
        model: the network.
        rho: norm of the ascent step; at least 0.
        weights: names or ``fnmatch`` patterns of the perturbed parameters.
        relative_rho: read rho as a share of the norm of all perturbed weights together.
        sync_perturbation: as for :class:`~dropattack.methods.weight_ascent.WeightAscent`.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho.
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float = 0.05,
        weights: Sequence[str] = ("*",),
        *,
        relative_rho: bool = False,
        sync_perturbation: bool = False,
    ) -> None:
        super().__init__(model, rho, weights, relative_rho=relative_rho, sync_perturbation=sync_perturbation)
