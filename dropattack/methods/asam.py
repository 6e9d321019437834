"""ASAM: sharpness-aware minimization in a ball that scales with the weights (Kwon et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropattack.arguments import check_nonnegative
from dropattack.ascent import units
from dropattack.methods.weight_ascent import WeightAscent
from dropattack.sites import ParameterSite

__all__ = ["ASAM"]


class ASAM(WeightAscent):
    r"""The gradient at :math:`\theta + \rho\, T^2 g / \lVert T g \rVert_2`, with :math:`T = \lvert w \rvert + \eta`.

    Kwon, Kim, Park and Choi, "ASAM: adaptive sharpness-aware minimization for scale-invariant learning of deep neural
    networks", ICML 2021, equation 8 and Algorithm 1. As in the authors' code, T is 1 for parameters that are not called
    "weight" (biases). A popular port takes :math:`T = \lvert w \rvert` for every parameter and no :math:`\eta`, which
    is another method.

    Cost: 2 forward and backward passes, a copy of the weights.

    Args:
        model: the network.
        rho: radius of the scaled ball; at least 0. The authors use 0.5 to 1.
        eta: :math:`\eta`; at least 0.
        weights: names or ``fnmatch`` patterns of the perturbed parameters.
        sync_perturbation: as for :class:`~dropattack.methods.weight_ascent.WeightAscent`.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho or eta.
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float = 0.5,
        eta: float = 0.01,
        weights: Sequence[str] = ("*",),
        *,
        sync_perturbation: bool = False,
    ) -> None:
        super().__init__(model, weights, sync_perturbation=sync_perturbation)
        self.rho = check_nonnegative("rho", rho)
        self.eta = check_nonnegative("eta", eta)

    def _perturbations(self, gradients: list[Tensor]) -> list[Tensor]:
        scales = [self._scale(site) for site in self._sites]
        scaled = units([scale * g for scale, g in zip(scales, gradients, strict=True)], "global")
        return [self.rho * scale * unit for scale, unit in zip(scales, scaled, strict=True)]

    def _scale(self, site: ParameterSite) -> Tensor:
        if "weight" in site.name.rpartition(".")[2]:
            return site.value.abs() + self.eta
        return torch.ones_like(site.value)
