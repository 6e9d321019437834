"""GSAM: SAM that also narrows the gap between the loss uphill and the loss here (Zhuang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dropattack.arguments import check_nonnegative
from dropattack.ascent import orthogonal_part
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.weight_ascent import CombinedAscent
from dropattack.passes import Step

__all__ = ["GSAM"]


class GSAM(CombinedAscent):
    r"""The gradient :math:`g_p - \alpha\, g_\perp`.

    Zhuang et al., "Surrogate gap minimization improves sharpness-aware training", ICLR 2022, Algorithm 1:
    :math:`g_p` is the gradient at :math:`\theta + \rho\, g / \lVert g \rVert_2`, and :math:`g_\perp` the part of
    the clean gradient :math:`g` that is orthogonal to :math:`g_p`. Descending along it raises the clean loss, and so
    closes the gap :math:`L(\theta + e) - L(\theta)`, without changing the loss uphill to first order. The authors let
    rho follow the learning rate: use :class:`~dropattack.methods.scheduled.Scheduled`, or set ``rho``.

    Two gradients are combined, so both are those of the whole batch: across processes each of the two passes is
    reduced (one reduction more than SAM), and all perturb alike.

    Cost: 2 forward and backward passes, two copies of the weights.

    Args:
        model: the network.
        rho: norm of the ascent step; at least 0.
        alpha: :math:`\alpha`; at least 0. 0 is SAM.
        weights: names or ``fnmatch`` patterns of the perturbed parameters; the gradients of all are combined.
        relative_rho: read rho as a share of the norm of all perturbed weights together.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho or alpha.
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float = 0.05,
        alpha: float = 0.4,
        weights: Sequence[str] = ("*",),
        *,
        relative_rho: bool = False,
    ) -> None:
        super().__init__(model, rho, weights, relative_rho=relative_rho)
        self.alpha = check_nonnegative("alpha", alpha)

    @property
    def cost(self) -> Cost:
        """A pass at the weights and a pass uphill."""
        return Cost(forwards=2, backwards=2)

    def _step(self, step: Step) -> StepRecord:
        record, clean, adversarial = self._both(step)
        for site, part in zip(self._trained, orthogonal_part(clean, adversarial), strict=True):
            step.add(site, -self.alpha * part)
        return record
