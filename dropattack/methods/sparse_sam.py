"""Sparse SAM: only some weights are perturbed (Mi et al. 2022), and its control with a random mask."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.arguments import check_choice, check_count, check_probability
from dropattack.ascent import bernoulli_mask, generator_on
from dropattack.methods.base import StepRecord
from dropattack.methods.weight_ascent import GlobalAscent
from dropattack.passes import Closure, Step, differentiable_kernels
from dropattack.sites import touched_rows

__all__ = ["SparseSAM"]


class SparseSAM(GlobalAscent):
    r"""The gradient at :math:`\theta + \rho\, M \odot g / \lVert g \rVert_2`, for a mask that spares many weights.

    Mi et al., "Make sharpness-aware minimization stronger: a sparsified perturbation approach", NeurIPS 2022. The mask
    comes after the normalization, as in DropAttack, so that the perturbation is shorter than rho. Three masks:

    - ``"fisher"`` (SSAM-F, Algorithm 2): the weights with the largest empirical Fisher information, the mean of
      squared gradients over single examples, chosen anew every ``refresh_every`` steps. A closure knows its batch
      alone: give ``examples`` for the paper's Fisher; without it, the squared gradient of the present batch is used,
      a cruder estimate. The authors' code perturbs nothing before the first choice; here the first step makes one.
    - ``"dynamic"`` (SSAM-D, Algorithm 3): begins at random; at each refresh the masked weights with the smallest
      gradients are dropped, and as many others grow at random, at a rate that falls along a cosine.
    - ``"random"``: a fresh Bernoulli mask each step. This is DropAttack on all weights with one global norm and
      without the clean gradient; it is the control that the two others must beat.

    Cost: 2 forward and backward passes, a copy of the weights and a mask; at a refresh of the Fisher also one forward
    and backward pass for each of ``fisher_examples``, which ``cost`` does not count.

    Args:
        model: the network.
        rho: norm of the ascent step before masking; at least 0.
        sparsity: share of the weights that is spared, in [0, 1].
        mask: ``"fisher"``, ``"dynamic"`` or ``"random"``.
        weights: names or ``fnmatch`` patterns of the parameters that may be perturbed.
        refresh_every: steps between two choices of the mask; at least 1.
        fisher_examples: how many examples the Fisher is averaged over.
        drop_rate: share of the mask that the first refresh of ``"dynamic"`` replaces, in [0, 1].
        refreshes: number of refreshes after which the drop rate of ``"dynamic"`` is 0.
        relative_rho: read rho as a share of the norm of all perturbed weights together.
        examples: called at each refresh; yields closures that each return the loss of one training example. They run
            in evaluation mode, as one example has no batch statistics.
        generator: draws masks, on the device of the weights. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative rho, a share outside [0, 1], an unknown mask.
    """

    def __init__(
        self,
        model: nn.Module,
        rho: float = 0.05,
        sparsity: float = 0.5,
        mask: Literal["fisher", "dynamic", "random"] = "fisher",
        weights: Sequence[str] = ("*",),
        *,
        refresh_every: int = 500,
        fisher_examples: int = 128,
        drop_rate: float = 0.5,
        refreshes: int = 20,
        relative_rho: bool = False,
        examples: Callable[[], Iterable[Closure]] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, rho, weights, relative_rho=relative_rho)
        check_choice("mask", mask, ("fisher", "dynamic", "random"))
        self.mask = mask
        self.sparsity = check_probability("sparsity", sparsity)
        self.refresh_every = check_count("refresh_every", refresh_every)
        self.fisher_examples = check_count("fisher_examples", fisher_examples)
        self.drop_rate = check_probability("drop_rate", drop_rate)
        self.refreshes = check_count("refreshes", refreshes)
        self._examples = examples
        self._generator = generator
        self._count = 0
        self._masks: list[Tensor] = []
        self._next_masks: list[Tensor] = []

    def _carried(self) -> dict[str, Tensor]:
        """The number of steps made, and the present mask."""
        masks = zip(self._sites, self._masks, strict=False)  # none before the first step
        return {"count": torch.tensor(self._count)} | {f"mask.{site.name}": mask for site, mask in masks}

    def _take_up(self, state: dict[str, Tensor]) -> None:
        self._count = int(state["count"])
        masks = [state[f"mask.{site.name}"].to(site.value.device) for site in self._sites] if self._count else []
        self._masks = masks

    def _step(self, step: Step) -> StepRecord:
        record = super()._step(step)
        self._masks = self._next_masks  # only now: a step that failed changes nothing
        self._count += 1
        record.masks = {site.name: mask for site, mask in zip(self._sites, self._masks, strict=True)}
        return record

    def _perturbations(self, gradients: list[Tensor]) -> list[Tensor]:
        self._next_masks = self._chosen(gradients)
        steps = super()._perturbations(gradients)
        return [step * mask for step, mask in zip(steps, self._next_masks, strict=True)]

    def _chosen(self, gradients: list[Tensor]) -> list[Tensor]:
        if self.mask == "random":
            return [
                bernoulli_mask(g, 1 - self.sparsity, self._generator_on(g.device), touched_rows(site, g))
                for site, g in zip(self._sites, gradients, strict=True)
            ]
        if self._masks and self._count % self.refresh_every:
            return self._masks
        if self.mask == "fisher":
            scores = [g.square() for g in gradients] if self._examples is None else self._fisher()
            return _largest(scores, self._kept())
        if not self._masks:
            return _largest(self._noise(gradients), self._kept())
        return self._regrown(gradients)

    def _kept(self) -> int:
        total = sum(site.parameter.numel() for site in self._sites)
        return math.floor((1 - self.sparsity) * total + 1e-6)  # 0.2 * 55 is 11, and 10.999… in floating point

    def _noise(self, like: list[Tensor]) -> list[Tensor]:
        return [torch.rand(g.shape, device=g.device, generator=self._generator_on(g.device)) for g in like]

    def _regrown(self, gradients: list[Tensor]) -> list[Tensor]:
        """Drop the masked weights with the smallest gradients, and let as many of the others grow."""
        refresh = min(self._count // self.refresh_every, self.refreshes)
        rate = self.drop_rate * (1 + math.cos(math.pi * refresh / self.refreshes)) / 2
        kept = self._kept()
        free = sum(site.parameter.numel() for site in self._sites) - kept
        dropped = min(int(rate * kept), free)
        inside = [torch.where(mask, g.abs(), -1.0) for g, mask in zip(gradients, self._masks, strict=True)]
        outside = [
            torch.where(mask, -1.0, noise) for noise, mask in zip(self._noise(gradients), self._masks, strict=True)
        ]
        staying, growing = _largest(inside, kept - dropped), _largest(outside, dropped)
        return [stays | grows for stays, grows in zip(staying, growing, strict=True)]

    def _fisher(self) -> list[Tensor]:
        """Sums of squared gradients over single examples; ``.grad``, buffers and training flags stay as they are."""
        assert self._examples is not None
        parameters = [site.parameter for site in self._sites]
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        training = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            for closure in itertools.islice(self._examples(), self.fisher_examples):
                with differentiable_kernels():  # a gradient in evaluation mode
                    found = torch.autograd.grad(closure(), parameters, allow_unused=True)
                for total, gradient in zip(totals, found, strict=True):
                    if gradient is not None:
                        total.add_(gradient.square())
        finally:
            for module, flag in training.items():
                module.training = flag
        return totals

    def _generator_on(self, device: torch.device) -> torch.Generator:
        self._generator = generator_on(device, self._generator)
        return self._generator


def _largest(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Masks of the ``count`` largest entries over all tensors together."""
    flat = torch.cat([score.flatten() for score in scores])
    chosen = torch.zeros(flat.shape, dtype=torch.bool, device=flat.device)
    chosen[flat.topk(count).indices] = True
    parts = chosen.split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]
