"""AWP: adversarial weight perturbation in proportion to each weight's norm (Wu, Xia and Wang 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dropattack.arguments import check_nonnegative
from dropattack.ascent import norms, units
from dropattack.methods.weight_ascent import WeightAscent
from dropattack.sites import matrix_names

__all__ = ["AWP"]


class AWP(WeightAscent):
    r"""The gradient at :math:`\theta + v`, for each tensor :math:`v = \gamma \lVert w \rVert\, g / \lVert g \rVert`.

    Wu, Xia and Wang, "Adversarial weight perturbation helps robust generalization", NeurIPS 2020, equations 7 to 9,
    with one ascent step as in their experiments, on clean inputs (their closure holds adversarial ones). Their code
    makes the ascent on a copy of the model, steps the optimizer *at* the perturbed weights, so that weight decay and
    momentum see them, and takes only names with "weight" and more than one dimension; here every parameter with two or
    more dimensions moves, and the optimizer sees the restored weights. Other copies of the method add the clean
    gradient and clamp each entry.

    Cost: 2 forward and backward passes, a copy of the weights.

    Args:
        model: the network.
        gamma: size of the perturbation as a share of each weight's norm; at least 0. The authors use 0.005 to 0.01.
        weights: names or ``fnmatch`` patterns; None: every trainable parameter with two or more dimensions.
        sync_perturbation: as for :class:`~dropattack.methods.weight_ascent.WeightAscent`.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative gamma.
    """

    def __init__(
        self,
        model: nn.Module,
        gamma: float = 0.01,
        weights: Sequence[str] | None = None,
        *,
        sync_perturbation: bool = False,
    ) -> None:
        chosen = matrix_names(model) if weights is None else weights
        super().__init__(model, chosen, sync_perturbation=sync_perturbation)
        self.gamma = check_nonnegative("gamma", gamma)

    def _perturbations(self, gradients: list[Tensor]) -> list[Tensor]:
        lengths = norms([site.value for site in self._sites], "tensor")
        directions = units(gradients, "tensor")
        return [self.gamma * length * unit for length, unit in zip(lengths, directions, strict=True)]
