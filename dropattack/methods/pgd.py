"""PGD: several projected gradient steps on the input (Madry et al. 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.arguments import check_choice, check_count, check_nonnegative
from dropattack.ascent import NormScope, norms, projected, units
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, watched_gradient
from dropattack.sites import Offset, ParameterSite, find_site

__all__ = ["PGD"]


class PGD(Method):
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
        batch_dim: the dimension of the input that counts examples.
        generator: draws the random start, on the device of the input. None: a new one with PyTorch's fixed default
            seed.

    Raises:
        ValueError: an unknown site, a negative epsilon, step size or weight, fewer than one step, an unknown norm.
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
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model)
        check_choice("norm", norm, ("l2", "linf"))
        self._site = find_site(self.model, inputs)
        self._scope: NormScope = "tensor" if isinstance(self._site, ParameterSite) else "example"
        self.epsilon = check_nonnegative("epsilon", epsilon)
        self.ascent_steps = check_count("ascent_steps", ascent_steps)
        self.step_size = check_nonnegative(
            "step_size", 1.5 * epsilon / ascent_steps if step_size is None else step_size
        )
        self.norm = norm
        self.random_start = random_start
        self.clean_weight = check_nonnegative("clean_weight", clean_weight)
        self.batch_dim = batch_dim
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """The K ascent steps and the pass at the last point; a clean pass where none of these is one."""
        passes = self.ascent_steps + 1 + (self.random_start and self.clean_weight > 0)
        return Cost(forwards=passes, backwards=passes)

    def _step(self, step: Step) -> StepRecord:
        site, weight = self._site, self.clean_weight
        clean_loss: Tensor | None = None
        if self.random_start and weight > 0:
            clean_loss, weight = step.run(weight, clean=True), 0.0
        point: list[Tensor] = []  # one tensor, once the first pass has shown the shape of the input

        def start(value: Tensor) -> Tensor:
            if not point:  # activation checkpointing asks again
                point.append(self._random_point(value) if self.random_start else torch.zeros_like(value))
            return point[0]

        losses = []
        for t in range(self.ascent_steps):
            first = t == 0
            offset: Offset = start if first else point[0]
            clean = first and clean_loss is None
            losses.append(step.run(weight if first else 0.0, {site: offset}, watch=[site], clean=clean))
            point[0] = self._projected(point[0] + self.step_size * self._uphill(watched_gradient(site)))
        losses.append(step.run(1.0, {site: point[0]}))
        return StepRecord(losses[0] if clean_loss is None else clean_loss, {"inputs": losses}, {site.name: point[0]})

    def _uphill(self, gradient: Tensor) -> Tensor:
        if self.norm == "linf":
            return gradient.sign().nan_to_num(0.0)
        return units([gradient], self._scope, self.batch_dim)[0]

    def _projected(self, perturbation: Tensor) -> Tensor:
        if self.norm == "linf":
            return perturbation.clamp(-self.epsilon, self.epsilon)
        return projected(perturbation, self.epsilon, self._scope, self.batch_dim)

    def _random_point(self, value: Tensor) -> Tensor:
        generator = self._generator = self._generator or torch.Generator(value.device)
        if self.norm == "linf":
            return torch.empty_like(value).uniform_(-self.epsilon, self.epsilon, generator=generator)
        (direction,) = units([torch.empty_like(value).normal_(generator=generator)], self._scope, self.batch_dim)
        (length,) = norms([value], self._scope, self.batch_dim)  # for its shape
        radius = torch.empty_like(length).uniform_(0, self.epsilon, generator=generator)
        return (direction * radius).to(value.dtype)
