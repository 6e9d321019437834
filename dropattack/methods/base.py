"""The page to read before adding a method.

A method replaces ``loss.backward()`` in any training loop and nothing else. To add one, subclass :class:`Method`, say
in ``cost`` how many passes a step makes, and write the paper's algorithm box in ``_step`` with the
:class:`~dropattack.passes.Step` it is given: ``step.run(...)`` is one forward and one backward pass, and does for every
method what is easy to get wrong (see its docstring). Then add one line to ``METHODS`` in ``methods/__init__.py``.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.passes import Closure, Cost, Step
from dropattack.sites import unwrap

__all__ = ["Cost", "Method", "StepRecord"]


@dataclasses.dataclass
class StepRecord:
    """What the last step did. Tensors are detached and stay on their device.

    Losses and gradient norms are in the units of the loss that was handed to ``backward``; a loss scale multiplies the
    norms but never the perturbations.

    Attributes:
        clean_loss: scalar, at the unperturbed weights and input.
        adversarial_losses: for each attack (``"inputs"``, ``"weights"``) the scalar losses of its K ascent steps.
        perturbations: site name to the perturbation of the last ascent step, after masking.
        masks: site name to the Boolean mask of the step (true: attacked).
        gradient_norms: site name to the L2 norm of the clean gradient; for an input site one norm an example.
        objective: the scalar whose gradient, perturbations taken as constants, ``.grad`` gained: for most methods a
            weighted sum of the losses. Corrections that are no gradient of a scalar (GSAM, LookSAM) are not in it.
    """

    clean_loss: Tensor
    adversarial_losses: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)
    perturbations: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    masks: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    gradient_norms: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    objective: Tensor | None = None


class Method(abc.ABC):
    """Changes the training gradient; the optimizer, clipping, scaler and schedule stay the user's.

    Args:
        model: the network, or its ``torch.compile`` or ``DistributedDataParallel`` wrapper.

    Attributes:
        last: what the last step did.
    """

    last: StepRecord | None = None

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrap(model)

    @property
    @abc.abstractmethod
    def cost(self) -> Cost:
        """The passes of the next step."""

    @property
    def optimizer_steps(self) -> int:
        """How many optimizer steps :meth:`steps` makes of a batch; more than one where batches are replayed."""
        return 1

    @abc.abstractmethod
    def _step(self, step: Step) -> StepRecord:
        """Run the passes of one step, adding to ``.grad``."""

    def backward(
        self,
        closure: Closure,
        *,
        backward: Callable[[Tensor], Any] = torch.Tensor.backward,
        no_sync: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> Tensor:
        """Add the method's gradient to ``.grad``, as ``closure().backward()`` would add the plain one.

        Weights, storage, ``forward`` and training flags are unchanged afterwards, also when a pass raises. The buffers
        and the global random stream are left as one plain forward pass leaves them, and untouched when a pass raises
        (``.grad`` may then hold the passes that had finished: zero it before going on).

        Args:
            closure: runs the forward pass on one batch and returns the scalar loss, graph attached. Called
                ``cost.forwards`` times; weight decay added to the loss in here takes part in the attack, so add it
                outside.
            backward: takes the loss in place of ``Tensor.backward``: ``accelerator.backward``,
                ``lambda loss: scaler.scale(loss).backward()``.
            no_sync: opened around every pass but the last, so that gradients are reduced across processes once:
                ``ddp_model.no_sync``.

        Returns:
            The clean loss, detached.
        """
        self.last = None  # frees the perturbations of the step before
        with Step(self.model, closure, self.cost, backward, no_sync) as step:
            record = self._step(step)
        record.objective = step.objective
        self.last = record
        return record.clean_loss

    def state_dict(self) -> dict[str, Tensor]:
        """What the method carries from step to step, to be saved with the optimizer's state.

        The state of the generator that it draws from is part of it; an empty one means that it has not drawn yet.
        """
        state = self._carried()
        if hasattr(self, "_generator"):
            made: torch.Generator | None = self._generator
            state["generator"] = torch.empty(0, dtype=torch.uint8) if made is None else made.get_state()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state_dict`.

        Raises:
            ValueError: the state is another method's.
        """
        state = dict(state)
        if hasattr(self, "_generator") and "generator" in state:
            self._set_generator(state.pop("generator"))
        self._take_up(state)

    def _carried(self) -> dict[str, Tensor]:
        """What is carried beside the generator; most methods carry nothing."""
        return {}

    def _take_up(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`_carried`."""
        if state:
            raise ValueError(f"{type(self).__name__} carries nothing, got {', '.join(state)}")

    def _set_generator(self, state: Tensor) -> None:
        if not state.numel():
            self._generator = None
            return
        if self._generator is None:
            self._generator = torch.Generator(next(self.model.parameters()).device)
        self._generator.set_state(state.cpu())

    def steps(self, closure: Closure, **options: Any) -> Iterator[Tensor]:
        """Yield the clean loss each time ``.grad`` is ready for one optimizer step.

        Args:
            closure: as for :meth:`backward`.
            **options: as for :meth:`backward`.
        """
        self._begin_batch()
        for _ in range(self.optimizer_steps):
            yield self.backward(closure, **options)

    def _begin_batch(self) -> None:  # noqa: B027 - most methods know nothing of batches
        """Called by :meth:`steps` before the first step on a batch."""
