"""FreeLB: gradients averaged along an ascent on the input (Zhu et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_nonnegative
from dropattack.ascent import generator_on
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.input_ascent import InputMethod
from dropattack.passes import Step, watched_gradient
from dropattack.sites import MovingOffset

__all__ = ["FreeLB"]


class FreeLB(InputMethod):
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
        relative_epsilon: read epsilon, step size and start as shares of the norm of each input.
        batch_dim: the dimension of the input that counts examples.
        generator: draws the start, on the device of the input. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: an unknown or frozen site, a negative number, fewer than one step.
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
        relative_epsilon: bool = False,
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, inputs, epsilon or 0.0, relative_epsilon=relative_epsilon, batch_dim=batch_dim)
        if epsilon is None:
            self.epsilon = math.inf
        self.step_size = check_nonnegative("step_size", step_size)
        self.ascent_steps = check_count("ascent_steps", ascent_steps)
        self.start = check_nonnegative("start", start)
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """One pass a point."""
        return Cost(forwards=self.ascent_steps, backwards=self.ascent_steps)

    def _step(self, step: Step) -> StepRecord:
        site = self.site
        unit: float | Tensor = 1.0

        def start(value: Tensor) -> Tensor:
            nonlocal unit
            unit = self._unit(value)
            return (self._random_point(value) * unit).to(value.dtype)

        offset = MovingOffset(start)
        losses = []
        for t in range(self.ascent_steps):
            last = t + 1 == self.ascent_steps
            losses.append(step.run(1 / self.ascent_steps, {site: offset}, watch=() if last else [site], clean=t == 0))
            if not last:
                uphill = self._ball.uphill(watched_gradient(site))
                offset.tensor = self._stepped(offset.tensor, uphill, self.step_size * unit, self.epsilon * unit)
        return StepRecord(losses[0], {"inputs": losses}, {site.name: offset.tensor})

    def _random_point(self, value: Tensor) -> Tensor:
        self._generator = generator_on(value.device, self._generator)
        examples = value.shape[self._ball.batch_dim] if self._ball.scope == "example" else 1
        half_width = self.start / math.sqrt(value.numel() / examples)
        return torch.empty_like(value).uniform_(-half_width, half_width, generator=self._generator)
