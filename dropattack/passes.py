"""The passes of one optimizer step, and everything about them that is easy to get wrong.

:class:`Step` runs one forward and one backward pass at a time. It sees to it that all passes of a step draw the same
dropout masks, that running statistics and other buffers change in the clean pass alone, that earlier gradients are not
mistaken for this pass's, and that processes synchronize once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.sites import Offset, OutputSite, Site

__all__ = ["Closure", "Step", "watched_gradient"]

Closure = Callable[[], Tensor]


class Step:
    """The passes of one optimizer step over one batch."""

    def __init__(
        self,
        model: nn.Module,
        closure: Closure,
        passes: int,
        backward: Callable[[Tensor], Any],
        no_sync: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._closure = closure
        self._backward = backward
        self._no_sync = no_sync
        self._passes_left = passes
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
        offsets: Mapping[Site, Offset] | None = None,
        watch: Sequence[Site] = (),
        *,
        clean: bool = False,
        penalty: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """One forward and one backward pass, perturbed or not.

        - Offsets are constants: no derivative flows through them.
        - ``.grad`` gains ``weight`` times this pass's gradient. With weight 0 it is left alone, and only the watched
          sites learn the gradient; where these are all activations, no weight gradient is even computed.
        - A watched site is left with ``site.gradient``: this pass's gradient times ``weight`` (times 1 if it is 0),
          whatever ``.grad`` held before.
        - Every pass draws the same dropout masks; batch statistics are computed afresh in each, but running
          statistics (and all other buffers) keep what the *clean* pass made of them.
        - Gradients are synchronized across processes in the last pass only, the forward pass included.

        Args:
            weight: factor on the loss.
            offsets: perturbation by site, or a function of the value there that makes it.
            watch: sites whose gradient is wanted.
            clean: whether buffers may change.
            penalty: a function of the parameters that is added to the weighted loss.

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
                activations_alone = watch and all(isinstance(site, OutputSite) for site in watch)
                unwanted = _parameters_frozen if activations_alone else _gradients_set_aside
                stack.enter_context(unwanted(self._model))
            for site, offset in offsets.items():
                stack.enter_context(site.perturbed(offset if callable(offset) else offset.detach()))
            for site in watch:
                stack.enter_context(site.watched())
            self._random.replay()
            loss = _checked(self._closure())
            for site in {*offsets, *watch}:
                site.check_reached_once()
            objective = loss if weight in (0, 1) else loss * weight
            self._backward(objective if penalty is None else objective + penalty())
        if clean:
            self._buffers = _Buffers(self._model)
        else:
            self._buffers.restore()
        return loss.detach()


def watched_gradient(site: Site) -> Tensor:
    """The gradient of the last watched pass; zero where the loss does not depend on the site."""
    return torch.zeros_like(site.value) if site.gradient is None else site.gradient


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


@contextlib.contextmanager
def _parameters_frozen(model: nn.Module) -> Iterator[None]:
    """Build no graph for the parameters inside the block."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


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
