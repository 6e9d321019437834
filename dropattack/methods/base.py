"""The page to read before adding a method.

A method replaces ``loss.backward()`` in any training loop and nothing else. To add one, subclass :class:`Method`, say
in ``cost`` how many passes a step makes, and write the paper's algorithm box in ``_step`` with the :class:`Step` it is
given: ``step.run(...)`` is one forward and one backward pass, and does for every method what is easy to get wrong
(see its docstring). Then add one line to ``METHODS`` in ``methods/__init__.py``.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.sites import Site, unwrap

__all__ = ["Closure", "Cost", "Method", "Step", "StepRecord"]

Closure = Callable[[], Tensor]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Forward and backward passes of one step."""

    forwards: int
    backwards: int


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
    """

    clean_loss: Tensor
    adversarial_losses: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)
    perturbations: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    masks: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    gradient_norms: dict[str, Tensor] = dataclasses.field(default_factory=dict)


class Method(abc.ABC):
    """Changes the training gradient; the optimizer, clipping, scaler and schedule stay the user's.

    Args:
        model: the network, or its ``torch.compile`` or ``DistributedDataParallel`` wrapper.
    """

    last: StepRecord | None = None

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrap(model)

    @property
    @abc.abstractmethod
    def cost(self) -> Cost:
        """The passes of one step."""

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
            self.last = self._step(step)
        return self.last.clean_loss

    def steps(self, closure: Closure, **options: Any) -> Iterator[Tensor]:
        """Yield the clean loss each time ``.grad`` is ready for one optimizer step.

        Args:
            closure: as for :meth:`backward`.
            **options: as for :meth:`backward`.
        """
        yield self.backward(closure, **options)


class Step:
    """The passes of one optimizer step over one batch."""

    def __init__(
        self,
        model: nn.Module,
        closure: Closure,
        cost: Cost,
        backward: Callable[[Tensor], Any],
        no_sync: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._closure = closure
        self._backward = backward
        self._no_sync = no_sync
        self._passes_left = cost.forwards
        self._random = _RandomStreams(model)
        self._buffers_at_start = _Buffers(model)
        self._buffers = self._buffers_at_start
        self._watched: set[Site] = set()

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for site in self._watched:
            site.forget()
        if kind is not None:
            self._buffers_at_start.restore()
            self._random.rewind()
        elif self._passes_left:
            raise RuntimeError(f"the method announced {self._passes_left} more passes in `cost` than it ran")

    def run(
        self,
        weight: float = 1.0,
        offsets: Mapping[Site, Tensor] | None = None,
        watch: Sequence[Site] = (),
        *,
        clean: bool = False,
    ) -> Tensor:
        """One forward and one backward pass, perturbed or not.

        - Offsets are constants: no derivative flows through them.
        - ``.grad`` gains ``weight`` times this pass's gradient. With weight 0 it is left alone, and only the watched
          sites learn the gradient.
        - A watched site is left with ``site.gradient``: this pass's gradient times ``weight`` (times 1 if it is 0),
          whatever ``.grad`` held before.
        - Every pass draws the same dropout masks; batch statistics are computed afresh in each, but running
          statistics (and all other buffers) keep what the *clean* pass made of them.
        - Gradients are synchronized across processes in the last pass only, the forward pass included.

        Args:
            weight: factor on the loss.
            offsets: perturbation by site.
            watch: sites whose gradient is wanted.
            clean: whether buffers may change.

        Returns:
            The unweighted loss, detached.

        Raises:
            TypeError: the closure returned something else than a scalar tensor with a graph.
            RuntimeError: a site was not reached exactly once.
        """
        if not self._passes_left:
            raise RuntimeError("the method ran more passes than it announced in `cost`")
        self._passes_left -= 1
        offsets = offsets or {}
        self._watched.update(watch)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._no_sync() if self._passes_left else contextlib.nullcontext())
            if weight == 0:
                stack.enter_context(_gradients_set_aside(self._model))
            for site, offset in offsets.items():
                stack.enter_context(site.perturbed(offset.detach()))
            for site in watch:
                stack.enter_context(site.watched())
            self._random.replay()
            loss = _checked(self._closure())
            for site in {*offsets, *watch}:
                site.check_reached_once()
            self._backward(loss if weight in (0, 1) else loss * weight)
        if clean:
            self._buffers = _Buffers(self._model)
        else:
            self._buffers.restore()
        return loss.detach()


def _checked(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(f"closure: expected the loss as a tensor, got {type(loss).__name__}; return the loss itself")
    if loss.numel() != 1:
        raise TypeError(f"closure: expected a scalar loss, got shape {tuple(loss.shape)}; return its mean or sum")
    if not loss.requires_grad:
        raise TypeError("closure: the loss has no graph; run the forward pass inside the closure, without no_grad")
    return loss


@contextlib.contextmanager
def _gradients_set_aside(model: nn.Module) -> Iterator[None]:
    """Throw away what the block adds to ``.grad``."""
    earlier = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in earlier:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in earlier:
            parameter.grad = gradient


class _Buffers:
    """The state that a forward pass in training mode changes beside the weights, such as running statistics.

    Saved and restored whole, rather than by setting ``momentum = 0``, because that would miss
    ``num_batches_tracked`` and every buffer that is not BatchNorm's.
    """

    def __init__(self, model: nn.Module) -> None:
        self._saved = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            if module.training
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def restore(self) -> None:
        """Put the saved values back in place, and the saved tensors where a forward pass bound others."""
        with torch.no_grad():
            for module, name, buffer, saved in self._saved:
                buffer.copy_(saved)
                module._buffers[name] = buffer


class _RandomStreams:
    """The global random streams of the CPU and of the model's devices: each pass draws the same numbers."""

    def __init__(self, model: nn.Module) -> None:
        devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]} - {torch.device("cpu")}
        self._devices = [(torch.get_device_module(device), device) for device in devices]
        self._start = self._state()
        self._passes = 0

    def _state(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(module.get_rng_state(device) for module, device in self._devices)]

    def rewind(self) -> None:
        """Go back to where the streams were when the step began."""
        torch.set_rng_state(self._start[0])
        for (module, device), state in zip(self._devices, self._start[1:], strict=True):
            module.set_rng_state(state, device)

    def replay(self) -> None:
        """Before each pass but the first: rewind. The last pass leaves the streams as a single pass would."""
        if self._passes:
            self.rewind()
        self._passes += 1
