"""VAT: predictions that stay put under the perturbation that would change them most (Miyato et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_nonnegative
from dropattack.ascent import generator_on
from dropattack.divergence import kl_divergence
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.input_ascent import InputMethod
from dropattack.passes import Step, watched_gradient
from dropattack.sites import MovingOffset, find_output

__all__ = ["VAT"]


class VAT(InputMethod):
    r"""The gradient of :math:`L + \lambda\, \mathrm{KL}(p(x) \,\|\, p(x + r))`; the second term needs no labels.

    Miyato, Maeda, Koyama and Ishii, "Virtual adversarial training: a regularization method for supervised and
    semi-supervised learning", TPAMI 2018, Algorithm 1: :math:`r = \epsilon\, d / \lVert d \rVert_2` per example, where
    d is found by power iteration from Gaussian noise,
    :math:`d \leftarrow \nabla_r \mathrm{KL}(p(x) \,\|\, p(x + r))` at :math:`r = \xi\, d / \lVert d \rVert_2`.
    The prediction :math:`p(x)` is a constant in both. The authors' :math:`\xi = 10^{-6}` is below what float32
    resolves (the direction is then a few percent off); under autocast to 16 bits take :math:`\xi \approx 1`, or leave
    autocast out of the closure.

    Cost: 2 passes and one more for each power iteration, which computes no weight gradient.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: norm of the perturbation; at least 0.
        coefficient: :math:`\lambda`; at least 0.
        power_iterations: at least 1.
        xi: :math:`\xi`, the length at which the divergence is differentiated; above 0.
        logits: the module whose output are the logits ``(…, classes)``; None: the model's own output.
        relative_epsilon: read epsilon and xi as shares of the norm of each input.
        batch_dim: the dimension of the input that counts examples.
        generator: draws the noise, on the device of the input. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: an unknown or frozen site, an unknown module, a number out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float = 1.0,
        coefficient: float = 1.0,
        *,
        power_iterations: int = 1,
        xi: float = 1e-3,
        logits: str | None = None,
        relative_epsilon: bool = False,
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, inputs, epsilon, relative_epsilon=relative_epsilon, batch_dim=batch_dim)
        self._logits = find_output(self.model, logits)
        self.coefficient = check_nonnegative("coefficient", coefficient)
        self.power_iterations = check_count("power_iterations", power_iterations)
        self.xi = check_nonnegative("xi", xi)
        if not xi:
            raise ValueError("xi: expected a positive number, got 0: at the clean input the divergence has no slope")
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """The clean pass, the power iterations, and the pass at the perturbed input."""
        passes = 2 + self.power_iterations
        return Cost(forwards=passes, backwards=passes)

    def _step(self, step: Step) -> StepRecord:
        site, logits = self.site, self._logits
        clean_loss = step.run(clean=True, keep=[logits])
        clean_logits = logits.activation.detach()
        unit: float | Tensor = 1.0

        def divergence(_loss: Tensor) -> Tensor:
            return kl_divergence(clean_logits, logits.activation)

        def start(value: Tensor) -> Tensor:
            nonlocal unit
            unit = self._unit(value)
            return self._along(self._noise(value), self.xi * unit)

        offset = MovingOffset(start)
        for _ in range(self.power_iterations):
            step.run(0.0, {site: offset}, watch=[site], keep=[logits], objective=divergence)
            offset.tensor = self._along(watched_gradient(site), self.xi * unit)
        perturbation = self._along(offset.tensor, self.epsilon * unit)
        loss = step.run(self.coefficient, {site: perturbation}, keep=[logits], objective=divergence)
        return StepRecord(clean_loss, {"inputs": [loss]}, {site.name: perturbation})

    def _along(self, direction: Tensor, length: float | Tensor) -> Tensor:
        return (length * self._ball.uphill(direction)).to(direction.dtype)

    def _noise(self, value: Tensor) -> Tensor:
        self._generator = generator_on(value.device, self._generator)
        return torch.empty_like(value).normal_(generator=self._generator)
