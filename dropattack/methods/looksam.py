"""LookSAM: SAM at every k-th step, and what it learned there in between (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_nonnegative
from dropattack.ascent import norms, orthogonal_part, units
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.weight_ascent import CombinedAscent
from dropattack.passes import Step

__all__ = ["LookSAM"]


class LookSAM(CombinedAscent):
    r"""SAM at every k-th step, :math:`g + \alpha \lVert g \rVert\, g_v / \lVert g_v \rVert` at the others.

    Liu et al., "Towards efficient and scalable sharpness-aware minimization", CVPR 2022, Algorithm 1: :math:`g_v` is
    the part of :math:`g_s` that is orthogonal to the clean gradient :math:`g` of the same step, which changes slowly
    and is used again until the next SAM step. Norms and projections are taken over all weights together; widely copied
    code takes them tensor by tensor. Some implementations compute both passes at every step, and so save nothing.

    Two gradients are combined, so both are those of the whole batch: across processes each pass is reduced, and all
    perturb alike. A step is one call of ``backward``, also where several accumulate into one optimizer step.

    Cost: 2 forward and backward passes at every k-th step, 1 at the others; two copies of the weights.

    Args:
        model: the network.
        rho: norm of the ascent step; at least 0.
        alpha: share of the clean gradient's norm that is added along :math:`g_v`; at least 0.
        every: k; at least 1. With 1 it is SAM.
        weights: names or ``fnmatch`` patterns of the perturbed parameters; the gradients of all are combined.
        relative_rho: read rho as a share of the norm of all perturbed weights together.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho or alpha, ``every`` less than 1.
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float = 0.05,
        alpha: float = 0.7,
        every: int = 5,
        weights: Sequence[str] = ("*",),
        *,
        relative_rho: bool = False,
    ) -> None:
        super().__init__(model, rho, weights, relative_rho=relative_rho)
        self.alpha = check_nonnegative("alpha", alpha)
        self.every = check_count("every", every)
        self._count = 0
        self._learned: list[Tensor] = []  # g_v

    @property
    def cost(self) -> Cost:
        """Two passes if the next step is SAM's, one otherwise."""
        passes = 2 if self._is_sam_step() else 1
        return Cost(forwards=passes, backwards=passes)

    def _carried(self) -> dict[str, Tensor]:
        """The number of steps made, and :math:`g_v`."""
        learned = zip(self._trained, self._learned, strict=False)  # nothing before the first step
        return {"count": torch.tensor(self._count)} | {f"learned.{site.name}": part for site, part in learned}

    def _take_up(self, state: dict[str, Tensor]) -> None:
        self._count = int(state["count"])
        self._learned = [state[f"learned.{site.name}"].to(site.value) for site in self._trained] if self._count else []

    def _is_sam_step(self) -> bool:
        return self._count % self.every == 0

    def _step(self, step: Step) -> StepRecord:
        if self._is_sam_step():
            record, clean, adversarial = self._both(step)
            self._learned = orthogonal_part(adversarial, clean)
        else:
            record = StepRecord(step.run(1.0, watch=self._trained, clean=True))
            sizes = norms(self._watched(), "global")
            for site, size, unit in zip(self._trained, sizes, units(self._learned, "global"), strict=True):
                step.add(site, self.alpha * size * unit)
        self._count += 1
        return record
