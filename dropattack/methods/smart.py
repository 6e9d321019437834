"""SMART: smoothness-inducing regularization and proximal steps for fine-tuning (Jiang et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_nonnegative, check_probability
from dropattack.ascent import generator_on
from dropattack.divergence import symmetric_kl
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.input_ascent import InputMethod
from dropattack.passes import Step, watched_gradient
from dropattack.sites import MovingOffset, Offset, Site, find_output, find_parameters

__all__ = ["SMART"]


class SMART(InputMethod):
    r"""The gradient of :math:`L + \lambda \max_r \mathrm{SKL}(p(x), p(x + r)) + \mu\, \mathrm{SKL}(p(x), \bar p(x))`.

    Jiang et al., "SMART: robust and efficient fine-tuning for pre-trained natural language models through principled
    regularized optimization", ACL 2020, Algorithm 1, with SKL the sum of both Kullback-Leibler divergences. The
    maximum over :math:`\lVert r \rVert_\infty \le \epsilon` is sought by K projected steps from Gaussian noise,
    :math:`r \leftarrow \Pi_\epsilon(r + \eta\, h / \lVert h \rVert_\infty)` with h the gradient of SKL, per example;
    :math:`\bar p` is the prediction of the weights' exponential moving average (the Bregman proximal term). The
    gradient flows through both predictions of the first SKL, and through p alone in the second. The authors' code
    normalizes h per token, never multiplies or projects by epsilon, treats the second argument of each divergence as
    a constant, and leaves the proximal term out.

    Two graphs are kept for one backward pass, so an attacked module must not lie inside activation checkpointing.

    Cost: 2 forward passes and one backward pass through both, K passes that compute no weight gradient, and with the
    proximal term one forward pass without a graph; a copy of the weights for their average.

    Args:
        model: the network.
        inputs: ``"input"``, or a module's name (its output).
        epsilon: largest change of an entry; at least 0.
        step_size: :math:`\eta`; at least 0.
        ascent_steps: K; at least 1.
        coefficient: :math:`\lambda`; at least 0.
        start: standard deviation of the noise that the ascent starts from; at least 0.
        proximal_weight: :math:`\mu`; at least 0. With 0 no average is kept.
        decay: of the moving average, in [0, 1]; the authors use 0.99, and 0.999 after the first tenth of training.
        logits: the module whose output are the logits ``(…, classes)``; None: the model's own output.
        relative_epsilon: read epsilon, step size and start as shares of the largest entry of each input.
        batch_dim: the dimension of the input that counts examples.
        generator: draws the noise, on the device of the input. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: an unknown site or module, a parameter as the site, a number out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float = 1e-5,
        step_size: float = 1e-3,
        ascent_steps: int = 1,
        coefficient: float = 1.0,
        *,
        start: float = 1e-5,
        proximal_weight: float = 1.0,
        decay: float = 0.99,
        logits: str | None = None,
        relative_epsilon: bool = False,
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, inputs, epsilon, norm="linf", relative_epsilon=relative_epsilon, batch_dim=batch_dim)
        self._refuse_parameter()
        self._logits = find_output(self.model, logits)
        self.step_size = check_nonnegative("step_size", step_size)
        self.ascent_steps = check_count("ascent_steps", ascent_steps)
        self.coefficient = check_nonnegative("coefficient", coefficient)
        self.start = check_nonnegative("start", start)
        self.proximal_weight = check_nonnegative("proximal_weight", proximal_weight)
        self.decay = check_probability("decay", decay)
        self._trained = find_parameters(self.model, ("*",))
        self._average: list[Tensor] = []
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """The average's forward pass, two passes with a common backward pass, and the ascent."""
        passes = 2 + self.ascent_steps
        return Cost(forwards=passes + (self.proximal_weight > 0), backwards=passes)

    def _carried(self) -> dict[str, Tensor]:
        """The moving average of the weights."""
        averages = zip(self._trained, self._average, strict=False)  # nothing before the first step
        return {f"average.{site.name}": average for site, average in averages}

    def _take_up(self, state: dict[str, Tensor]) -> None:
        self._average = [state[f"average.{site.name}"].to(site.value) for site in self._trained] if state else []

    def _step(self, step: Step) -> StepRecord:
        site, logits = self.site, self._logits
        average = self._moved_average() if self.proximal_weight else []
        steady = self._predictions_at(average, step) if self.proximal_weight else None
        loss = step.forward(clean=True, keep=[logits])
        clean_logits = logits.activation
        unit: float | Tensor = 1.0

        def start(value: Tensor) -> Tensor:
            nonlocal unit
            unit = self._unit(value)
            return (self.start * unit * self._noise(value)).to(value.dtype)

        def divergence(_loss: Tensor) -> Tensor:
            return symmetric_kl(clean_logits.detach(), logits.activation)

        offset = MovingOffset(start)
        for _ in range(self.ascent_steps):
            step.run(0.0, {site: offset}, watch=[site], keep=[logits], objective=divergence)
            gradient = watched_gradient(site)
            largest = self._ball.sizes(gradient)
            uphill = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
            offset.tensor = self._stepped(offset.tensor, uphill, self.step_size * unit, self.epsilon * unit)
        adversarial_loss = step.forward({site: offset}, keep=[logits])
        objective = loss + self.coefficient * symmetric_kl(clean_logits, logits.activation)
        if steady is not None:
            objective = objective + self.proximal_weight * symmetric_kl(clean_logits, steady)
        step.backward(objective)
        self._average = average
        return StepRecord(loss.detach(), {"inputs": [adversarial_loss.detach()]}, {site.name: offset.tensor})

    def _moved_average(self) -> list[Tensor]:
        """The moving average after a move towards the present weights."""
        weights = [site.value for site in self._trained]
        if not self._average:
            return [weight.clone() for weight in weights]
        return list(torch._foreach_lerp(self._average, weights, 1 - self.decay))

    def _predictions_at(self, weights: list[Tensor], step: Step) -> Tensor:
        offsets: dict[Site, Offset] = {
            site: weight - site.value for site, weight in zip(self._trained, weights, strict=True)
        }
        step.forward(offsets, keep=[self._logits], graph=False)
        return self._logits.activation

    def _noise(self, value: Tensor) -> Tensor:
        self._generator = generator_on(value.device, self._generator)
        return torch.empty_like(value).normal_(generator=self._generator)
