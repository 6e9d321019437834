"""FreeAT: adversarial training at the price of standard training, by replaying each batch (Shafahi et al. 2019)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count, check_nonnegative
from dropattack.methods.base import Cost, StepRecord
from dropattack.methods.input_ascent import InputMethod
from dropattack.passes import Step, watched_gradient

__all__ = ["FreeAT"]


class FreeAT(InputMethod):
    r"""Every batch m times: each pass trains the weights at the present perturbation and moves the perturbation.

    Shafahi et al., "Adversarial training for free!", NeurIPS 2019, Algorithm 1:
    :math:`\delta \leftarrow \Pi_\epsilon(\delta + \alpha\, u(g_x))`, with :math:`u = \operatorname{sgn}` on the
    :math:`L_\infty` ball (the paper) or the gradient per example over its norm on the L2 ball (as FreeLB's authors
    compare with it). ``steps`` yields m times a batch, so train for a number of epochs divided by m; ``backward`` makes
    one replay. ``last.clean_loss`` is the loss at the perturbation, as there is no clean pass.

    Cost: 1 forward and backward pass for each optimizer step.

    Args:
        model: the network.
        inputs: ``"input"``, a module's name (its output), or a parameter's name.
        epsilon: radius of the ball; at least 0.
        replays: m; at least 1.
        step_size: :math:`\alpha`; None: ``epsilon``, as the paper does.
        norm: ``"linf"`` or ``"l2"``.
        carry: start a batch from the perturbation that the batch before left, example by example, as the paper does
            for images. A batch of another shape, such as text of another length, starts from zero; one that is only
            smaller uses the first rows.
        relative_epsilon: read epsilon and step size as shares of the norm of each input.
        batch_dim: the dimension of the input that counts examples; carrying needs 0.

    Raises:
        ValueError: an unknown or frozen site, an unknown norm, a negative number, fewer than one replay.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str,
        epsilon: float = 0.1,
        replays: int = 3,
        step_size: float | None = None,
        *,
        norm: Literal["linf", "l2"] = "linf",
        carry: bool = True,
        relative_epsilon: bool = False,
        batch_dim: int = 0,
    ) -> None:
        super().__init__(model, inputs, epsilon, norm=norm, relative_epsilon=relative_epsilon, batch_dim=batch_dim)
        self.replays = check_count("replays", replays)
        self.step_size = self.epsilon if step_size is None else check_nonnegative("step_size", step_size)
        self.carry = carry
        self._perturbation: Tensor | None = None

    @property
    def cost(self) -> Cost:
        """One pass an optimizer step."""
        return Cost(forwards=1, backwards=1)

    @property
    def optimizer_steps(self) -> int:
        """The replays."""
        return self.replays

    def _begin_batch(self) -> None:
        if not self.carry:
            self._perturbation = None

    def _carried(self) -> dict[str, Tensor]:
        """The carried perturbation."""
        return {} if self._perturbation is None else {"perturbation": self._perturbation}

    def _take_up(self, state: dict[str, Tensor]) -> None:
        self._perturbation = state.get("perturbation")

    def _step(self, step: Step) -> StepRecord:
        site, used = self.site, torch.zeros(())
        unit: float | Tensor = 1.0

        def carried(value: Tensor) -> Tensor:
            nonlocal used, unit
            used, unit = self._fitting(value), self._unit(value)
            return used

        loss = step.run(1.0, {site: carried}, watch=[site], clean=True)
        uphill = self._ball.uphill(watched_gradient(site))
        moved = self._stepped(used, uphill, self.step_size * unit, self.epsilon * unit)
        if self._perturbation is not None and self._perturbation.shape[1:] == moved.shape[1:]:
            self._perturbation = torch.cat([moved, self._perturbation[len(moved) :].to(moved)])
        else:
            self._perturbation = moved
        return StepRecord(loss, {"inputs": [loss]}, {site.name: used})

    def _fitting(self, value: Tensor) -> Tensor:
        """The perturbation for this batch: the first rows of the carried one, or zero where the shape is another."""
        carried = self._perturbation
        if carried is None or carried.shape[1:] != value.shape[1:] or len(carried) < len(value):
            return torch.zeros_like(value)
        return carried[: len(value)].to(value)
