"""FreeLB: gradients averaged along an ascent on the input (Zhu et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_nonnegative
from dropattack.ascent import NormScope, projected, units
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, watched_gradient
from dropattack.sites import Offset, ParameterSite, find_site

__all__ = ["FreeLB"]


class FreeLB(Method):
    r"""The mean of the gradients at the K points of a projected ascent that starts at random.

    Zhu et al., "FreeLB: enhanced adversarial training for natural language understanding", ICLR 2020, Algorithm 1:
    :math:`\delta_0` uniform, :math:`g \leftarrow g + \tfrac1K \nabla_\theta L(x + \delta_t)`,
    :math:`\delta_{t+1} = \Pi_\epsilon(\delta_t + \alpha\, g_x / \lVert g_x \rVert_2)` per example, with the same
    dropout mask for all t. The ascent ends before the last point would move. There is no clean pass; the authors' other
    (fairseq) code adds one and divides by 1 + K.

    Cost: K forward and backward passes.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: radius of the L2 ball; None: no projection.
        step_size: :math:`\alpha`; at least 0.
        ascent_steps: K; at least 1.
        start: the start is uniform in ``[-start, start]`` divided by the root of the number of entries of an example,
            so that its norm is about ``start / √3``. Padded positions are among the entries, as nothing tells them.
        batch_dim: the dimension of the input that counts examples.
        generator: draws the start, on the device of the input. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: an unknown site, a negative number, fewer than one step.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float | None = 0.6,
        step_size: float = 0.1,
        ascent_steps: int = 3,
        *,
        start: float = 0.1,
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model)
        self._site = find_site(self.model, inputs)
        self._scope: NormScope = "tensor" if isinstance(self._site, ParameterSite) else "example"
        self.epsilon = None if epsilon is None else check_nonnegative("epsilon", epsilon)
        self.step_size = check_nonnegative("step_size", step_size)
        self.ascent_steps = check_count("ascent_steps", ascent_steps)
        self.start = check_nonnegative("start", start)
        self.batch_dim = batch_dim
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """One pass a point."""
        return Cost(forwards=self.ascent_steps, backwards=self.ascent_steps)

    def _step(self, step: Step) -> StepRecord:
        site = self._site
        point: list[Tensor] = []  # one tensor, once the first pass has shown the shape of the input

        def start(value: Tensor) -> Tensor:
            if not point:  # activation checkpointing asks again
                point.append(self._random_point(value))
            return point[0]

        losses = []
        for t in range(self.ascent_steps):
            last = t + 1 == self.ascent_steps
            offset: Offset = point[0] if point else start
            losses.append(step.run(1 / self.ascent_steps, {site: offset}, watch=() if last else [site], clean=t == 0))
            if not last:
                (uphill,) = units([watched_gradient(site)], self._scope, self.batch_dim)
                moved = point[0] + self.step_size * uphill
                point[0] = (
                    moved if self.epsilon is None else projected(moved, self.epsilon, self._scope, self.batch_dim)
                )
        return StepRecord(losses[0], {"inputs": losses}, {site.name: point[0]})

    def _random_point(self, value: Tensor) -> Tensor:
        self._generator = self._generator or torch.Generator(value.device)
        entries = value.numel() / (value.shape[self.batch_dim] if self._scope == "example" else 1)
        half_width = self.start / math.sqrt(entries)
        return torch.empty_like(value).uniform_(-half_width, half_width, generator=self._generator)
