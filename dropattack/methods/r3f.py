"""R3F: predictions that stay put under random noise on the embeddings (Aghajanyan et al. 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.arguments import check_choice, check_nonnegative
from dropattack.ascent import generator_on
from dropattack.divergence import symmetric_kl
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.input_ascent import InputMethod
from dropattack.passes import Step
from dropattack.sites import MovingOffset, find_output

__all__ = ["R3F"]


class R3F(InputMethod):
    r"""The gradient of :math:`L + \lambda\, [\mathrm{KL}(p \| q) + \mathrm{KL}(q \| p)]`, p at x and q at x + noise.

    Aghajanyan et al., "Better fine-tuning by reducing representational collapse", ICLR 2021, equation 5 (without the
    spectral normalization of R4F). The gradient flows through both predictions. In the authors' code the noisy
    embeddings are detached, so that the noisy side sends no gradient to the embedding table; here it does.

    Both graphs are kept for one backward pass, so an attacked module must not lie inside activation checkpointing.

    Cost: 2 forward passes and one backward pass through both, with both graphs in memory.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output).
        epsilon: half width of the uniform noise, or standard deviation of the normal one; at least 0.
        coefficient: :math:`\lambda`; at least 0.
        noise: ``"uniform"`` or ``"normal"``.
        logits: the module whose output are the logits ``(…, classes)``; None: the model's own output.
        relative_epsilon: read epsilon as a share of the largest entry of each input.
        batch_dim: the dimension of the input that counts examples.
        generator: draws the noise, on the device of the input. None: a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: an unknown site or module, a parameter as the site, a negative number, an unknown kind of noise.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float = 1e-5,
        coefficient: float = 1.0,
        *,
        noise: Literal["uniform", "normal"] = "uniform",
        logits: str | None = None,
        relative_epsilon: bool = False,
        batch_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, inputs, epsilon, norm="linf", relative_epsilon=relative_epsilon, batch_dim=batch_dim)
        self._refuse_parameter()
        check_choice("noise", noise, ("uniform", "normal"))
        self._logits = find_output(self.model, logits)
        self.coefficient = check_nonnegative("coefficient", coefficient)
        self.noise = noise
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """Two forward passes and their common backward pass."""
        return Cost(forwards=2, backwards=2)

    def _step(self, step: Step) -> StepRecord:
        logits, offset = self._logits, MovingOffset(self._noise)
        loss = step.forward(clean=True, keep=[logits])
        clean_logits = logits.activation
        noisy_loss = step.forward({self.site: offset}, keep=[logits])
        step.backward(loss + self.coefficient * symmetric_kl(clean_logits, logits.activation))
        return StepRecord(loss.detach(), {"inputs": [noisy_loss.detach()]}, {self.site.name: offset.tensor})

    def _noise(self, value: Tensor) -> Tensor:
        self._generator = generator_on(value.device, self._generator)
        draw = torch.empty_like(value)
        if self.noise == "uniform":
            draw.uniform_(-1, 1, generator=self._generator)
        else:
            draw.normal_(generator=self._generator)
        return (self.epsilon * self._unit(value) * draw).to(value.dtype)
