"""RWP: gradients at randomly perturbed weights (Li et al. 2022, 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropattack.arguments import check_nonnegative, check_probability
from dropattack.ascent import generator_on, norms
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step
from dropattack.sites import Site, find_parameters

__all__ = ["RWP"]


class RWP(Method):
    r"""The gradient :math:`\alpha \nabla L(\theta + e) + (1 - \alpha)\, g` at Gaussian noise :math:`e`.

    Li et al., "Efficient generalization improvement guided by random weight perturbation", 2022, and "Revisiting random
    weight perturbation for efficiently improving generalization", TMLR 2024. Each entry of a filter (a slice along the
    first dimension) has standard deviation :math:`\gamma \lVert w_\text{filter} \rVert`, so that the noise of a filter
    with n entries has norm :math:`\gamma \sqrt n` times the filter's; a vector (a bias) counts as one filter. The
    authors take the two gradients of the mixed method on different halves of the batch, in parallel; here both see the
    whole batch. It is the control for every method that chooses where to go in weight space.

    Cost: 1 forward and backward pass with ``alpha=1`` (running statistics of BatchNorm then come from the perturbed
    weights), 2 otherwise; a copy of the perturbed weights, and the noise.

    Args:
        model: the network.
        gamma: :math:`\gamma`; at least 0.
        alpha: weight of the noisy gradient, in [0, 1]; 1 is RWP, less is mixed RWP.
        weights: names or ``fnmatch`` patterns of the perturbed parameters.
        generator: draws the noise, on the device of the weights. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative gamma, alpha outside [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        gamma: float = 0.01,
        alpha: float = 1.0,
        weights: Sequence[str] = ("*",),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model)
        self._sites = find_parameters(self.model, weights)
        self.gamma = check_nonnegative("gamma", gamma)
        self.alpha = check_probability("alpha", alpha)
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """A pass at the noisy weights; for mixed RWP, one at the weights too."""
        passes = 1 if self.alpha == 1 else 2
        return Cost(forwards=passes, backwards=passes)

    def _step(self, step: Step) -> StepRecord:
        mixed = self.alpha < 1
        offsets: dict[Site, Tensor] = {site: self._noise(site.value) for site in self._sites}
        clean_loss = step.run(1 - self.alpha, clean=True) if mixed else None
        noisy_loss = step.run(self.alpha, offsets, clean=not mixed)
        perturbations = {site.name: offset for site, offset in offsets.items()}
        return StepRecord(noisy_loss if clean_loss is None else clean_loss, {"weights": [noisy_loss]}, perturbations)

    def _noise(self, weight: Tensor) -> Tensor:
        self._generator = generator_on(weight.device, self._generator)
        noise = torch.empty_like(weight).normal_(generator=self._generator)
        (size,) = norms([weight], "example" if weight.ndim > 1 else "tensor")
        return (self.gamma * size * noise).to(weight.dtype)
