"""PGD: several projected gradient steps on the input (Madry et al. 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_nonnegative
from dropattack.ascent import generator_on
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.input_ascent import InputAttack
from dropattack.passes import Step, watched_gradient
from dropattack.sites import MovingOffset

__all__ = ["PGD"]


class PGD(InputAttack):
    r"""The gradient at the last of K projected ascent steps on the input, with or without the clean gradient.

    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018; equation 3 of the
    DropAttack paper (which credits another paper): :math:`r \leftarrow \Pi_\epsilon (r + \alpha\, u(g_x))`, where
    :math:`u(g)` is :math:`g / \lVert g \rVert_2` per example on the L2 ball and :math:`\operatorname{sgn} g` on the
    :math:`L_\infty` ball. Only the last point trains the weights; the gradients on the way are taken with respect to
    the input alone. Widely copied code for text perturbs the embedding *weight* instead: name that parameter as
    ``inputs``.

    Cost: K + 1 passes, of which the first K compute no weight gradient (the first does where it is the clean pass);
    one more for a random start beside a clean gradient.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: radius of the ball; at least 0.
        step_size: :math:`\alpha`; None: ``1.5 * epsilon / ascent_steps``.
        ascent_steps: K; at least 1.
        norm: ``"l2"`` or ``"linf"``.
        random_start: begin inside the ball instead of at the clean input: uniform entries for ``"linf"``; for
            ``"l2"`` a uniform direction with a radius uniform in [0, epsilon]. The running statistics of BatchNorm then
            come from the start, unless there is a clean pass.
        clean_weight: weight of the clean gradient; 0 trains on the adversarial loss alone, as the paper of PGD does.
        relative_epsilon: read epsilon and step size as shares of the norm of each input.
        batch_dim: the dimension of the input that counts examples.
        generator: draws the random start, on the device of the input. None: a new one with PyTorch's fixed default
            seed.

    Raises:
        ValueError: an unknown or frozen site, a negative epsilon, step size or weight, fewer than one step, an unknown
            norm.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float = 1.0,
        step_size: float | None = None,
        ascent_steps: int = 3,
        *,
        norm: Literal["l2", "linf"] = "l2",
        random_start: bool = False,
        clean_weight: float = 0.0,
        relative_epsilon: bool = False,
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            model,
            inputs,
            epsilon,
            clean_weight=clean_weight,
            norm=norm,
            relative_epsilon=relative_epsilon,
            batch_dim=batch_dim,
        )
        self.ascent_steps = check_count("ascent_steps", ascent_steps)
        self.step_size = check_nonnegative(
            "step_size", 1.5 * epsilon / ascent_steps if step_size is None else step_size
        )
        self.random_start = random_start
        self._generator = generator

    @property
    def ascent_cost(self) -> Cost:
        """The K ascent steps; a clean pass where none of these is one."""
        passes = self.ascent_steps + (self.random_start and self.clean_weight > 0)
        return Cost(forwards=passes, backwards=passes)

    def ascend(self, step: Step) -> StepRecord:
        """K steps, each projected back into the ball."""
        site, weight = self.site, self.clean_weight
        clean_loss: Tensor | None = None
        if self.random_start and weight > 0:
            clean_loss, weight = step.run(weight, clean=True), 0.0
        unit: float | Tensor = 1.0

        def start(value: Tensor) -> Tensor:
            nonlocal unit
            unit = self._unit(value)
            return self._random_point(value, self.epsilon * unit) if self.random_start else torch.zeros_like(value)

        offset = MovingOffset(start)
        losses = []
        for t in range(self.ascent_steps):
            clean = t == 0 and clean_loss is None
            losses.append(step.run(0.0 if t else weight, {site: offset}, watch=[site], clean=clean))
            uphill = self._ball.uphill(watched_gradient(site))
            offset.tensor = self._stepped(offset.tensor, uphill, self.step_size * unit, self.epsilon * unit)
        clean_loss = losses[0] if clean_loss is None else clean_loss
        return StepRecord(clean_loss, {"inputs": losses}, {site.name: offset.tensor})

    def _random_point(self, value: Tensor, radius: float | Tensor) -> Tensor:
        self._generator = generator_on(value.device, self._generator)
        return self._ball.random_point(value, radius, self._generator)
