"""The gradient penalty that DropAttack is said to amount to, added explicitly (equations 8 to 13 of its paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.arguments import check_choice, check_nonnegative, check_probability
from dropattack.ascent import bernoulli_mask, generator_on
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, differentiable_kernels
from dropattack.sites import ParameterSite, Site, find_parameters, find_site, touched_rows

__all__ = ["ExplicitPenalty"]


class ExplicitPenalty(Method):
    r"""The gradient of :math:`c L + \epsilon_x P(g_x) + \sum_w \epsilon_w P(g_w)`, by differentiating twice.

    Equation 13 of the DropAttack paper (with c = 2) expands its losses to first order and arrives at
    :math:`P(g) = \lVert M \odot g \rVert_2`, ``form="masked-norm"``. That belongs to a gradient that is masked and then
    normalized: for small epsilon, DropAttack with ``mask_then_normalize`` *is* this method (with c the clean weight
    plus the number of attacks). Algorithm 1 normalizes and then masks. The rise of its loss is, to first order,
    :math:`P(g) = \lVert M \odot g \rVert_2^2 / \lVert g \rVert_2`, ``form="first-order"``, as equation 11 drops an
    inner product; but its update takes the perturbation as a constant,
    :math:`\epsilon H (M \odot g) / \lVert g \rVert`, which is not the gradient of that term at any one mask. Only
    their means over masks agree: :math:`p\, \epsilon\, \nabla \lVert g \rVert_2`. With p = 1 all of these are one,
    and are what Drucker and LeCun ("Improving generalization performance using double backpropagation", 1992)
    penalized, without the square.

    Each example of the input has its own norm (of its share of the mean loss's gradient) and each weight has one, as in
    :class:`~dropattack.methods.dropattack.DropAttack`. Under a loss scale the penalty is of the unscaled gradient.

    Cost: 1 forward and 2 backward passes, of which the second goes through the graph of the first (about twice the
    price); several times the memory. Kernels without a
    second derivative (cuDNN's recurrent layers, fused attention, compiled graphs) are left aside.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name; None: no penalty on the input.
        weights: names or ``fnmatch`` patterns of the penalized parameters.
        epsilon: factor of the input's penalty; at least 0.
        epsilon_weights: the same for each weight; None: as ``epsilon``.
        attack_probability: P(an entry counts), in [0, 1].
        form: ``"first-order"`` or ``"masked-norm"``.
        loss_weight: c; at least 0.
        batch_dim: the dimension of the input that counts examples.
        generator: draws the masks, on the device of the model. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: an unknown site, nothing to penalize, a number out of range, an unknown form.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str | None = None,
        weights: Sequence[str] = (),
        epsilon: float = 1.0,
        epsilon_weights: float | None = None,
        attack_probability: float = 1.0,
        *,
        form: Literal["first-order", "masked-norm"] = "first-order",
        loss_weight: float = 1.0,
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model)
        check_choice("form", form, ("first-order", "masked-norm"))
        self.epsilon = check_nonnegative("epsilon", epsilon)
        self.epsilon_weights = (
            self.epsilon if epsilon_weights is None else check_nonnegative("epsilon_weights", epsilon_weights)
        )
        self.attack_probability = check_probability("attack_probability", attack_probability)
        self.form = form
        self.loss_weight = check_nonnegative("loss_weight", loss_weight)
        self.batch_dim = batch_dim
        self._input = None if inputs is None else find_site(self.model, inputs)
        self._weights = find_parameters(self.model, weights)
        if self._input is None and not self._weights:
            raise ValueError("nothing to penalize: name `inputs`, `weights` or both")
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """The gradient, and the gradient of its norm."""
        return Cost(forwards=1, backwards=2)

    def _step(self, step: Step) -> StepRecord:
        sites: list[Site] = [*([] if self._input is None else [self._input]), *self._weights]
        record = StepRecord(clean_loss=torch.zeros(()))

        def penalized(loss: Tensor) -> Tensor:
            gradients = step.differentiate(loss, [site.activation for site in sites])
            total = self.loss_weight * loss
            for site, gradient in zip(sites, gradients, strict=True):
                self._generator = generator_on(gradient.device, self._generator)
                record.masks[site.name] = bernoulli_mask(
                    gradient, self.attack_probability, self._generator, touched_rows(site, gradient.detach())
                )
                factor = self.epsilon if site is self._input else self.epsilon_weights
                total = total + factor * self._penalty(gradient, record.masks[site.name], site)
            return total

        with differentiable_kernels():
            record.clean_loss = step.run(clean=True, keep=sites, objective=penalized)
        return record

    def _penalty(self, gradient: Tensor, mask: Tensor, site: Site) -> Tensor:
        whole = isinstance(site, ParameterSite) or gradient.ndim == 0
        rows = gradient.reshape(1, -1) if whole else gradient.movedim(self.batch_dim, 0).flatten(1)
        kept = mask.reshape(1, -1) if whole else mask.movedim(self.batch_dim, 0).flatten(1)
        masked = _row_norms(rows * kept)
        return (masked if self.form == "masked-norm" else masked * _ratio(masked, _row_norms(rows))).sum()


def _row_norms(rows: Tensor) -> Tensor:
    """L2 norms whose derivative at zero is zero, and whose squares do not vanish in float32."""
    largest = rows.detach().abs().amax(1, keepdim=True)
    usable = torch.isfinite(largest) & (largest > 0)
    scale = torch.where(usable, largest, torch.ones_like(largest))
    scaled = torch.where(usable, rows / scale, torch.ones_like(rows))  # the root of zero has no derivative
    return torch.where(usable, scale * scaled.square().sum(1, keepdim=True).sqrt(), torch.zeros_like(scale))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, torch.ones_like(whole)), torch.zeros_like(whole))
