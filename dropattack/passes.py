"""The passes of one optimizer step, and everything about them that is easy to get wrong.

:class:`Step` runs one forward and one backward pass at a time. It sees to it that all passes of a step draw the same
dropout masks, that running statistics and other buffers change in the clean pass alone, that earlier gradients are not
mistaken for this pass's, and that processes synchronize once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dropattack.sites import Offset, OutputSite, ParameterSite, Site

__all__ = ["Closure", "Cost", "RandomStreams", "Step", "differentiable_kernels", "watched_gradient"]

Closure = Callable[[], Tensor]
Context = contextlib.AbstractContextManager[Any]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Forward and backward passes of one step.

    A backward pass through the graphs of two forward passes counts as two.
    """

    forwards: int
    backwards: int


class Step:
    """The passes of one optimizer step over one batch.

    Args:
        model: the network.
        closure: runs the forward pass and returns the loss.
        cost: the passes that will be made.
        backward: takes the loss in place of ``Tensor.backward``.
        no_sync: opened around every pass whose gradients are not to be reduced across processes.

    Attributes:
        objective: the scalar whose gradient ``.grad`` has gained so far, perturbations taken as constants.
    """

    objective: Tensor | None = None

    def __init__(
        self,
        model: nn.Module,
        closure: Closure,
        cost: Cost,
        backward: Callable[[Tensor], Any],
        no_sync: Callable[[], Context],
    ) -> None:
        self._model = model
        self._closure = closure
        self._backward = backward
        self._no_sync = no_sync
        self._forwards_left = cost.forwards
        self._backwards_left = cost.backwards
        self._graphs = 0  # forward passes whose graphs wait for a common backward pass
        self._around: dict[Site, Offset] = {}
        self._random = RandomStreams(model)
        self._modules = list(model.modules())  # walking through a model is slow, once is enough
        self._buffers_at_start = _Buffers(self._modules)
        self._buffers = self._buffers_at_start
        self._used: set[Site] = set()

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for site in self._used:
            site.forget()
        if kind is not None:
            self._buffers_at_start.restore()
            self._random.rewind()
        elif self._forwards_left or self._backwards_left:
            raise RuntimeError(
                f"the method announced {self._forwards_left} more forward and {self._backwards_left} more backward "
                "passes in `cost` than it ran"
            )

    def run(
        self,
        weight: float = 1.0,
        offsets: Mapping[Site, Offset] | None = None,
        watch: Sequence[Site] = (),
        *,
        clean: bool = False,
        keep: Sequence[Site] = (),
        objective: Callable[[Tensor], Tensor] | None = None,
        synchronize: bool = False,
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
            weight: factor on the objective.
            offsets: perturbation by site, or a function of the value there that makes it.
            watch: sites whose gradient is wanted.
            clean: whether buffers may change.
            keep: sites left with ``site.activation``, the tensor there with its graph, for the objective to use.
            objective: makes the scalar to be differentiated from the loss; None: the loss itself.
            synchronize: reduce this pass's gradients across processes too.

        Returns:
            The unweighted loss, detached.

        Raises:
            TypeError: the closure returned something else than a scalar tensor with a graph.
            RuntimeError: a site was not reached exactly once.
        """
        self._count(forwards=1)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._synchronization(synchronize or not self._forwards_left))
            if weight == 0:
                activations_alone = watch and all(isinstance(site, OutputSite) for site in watch)
                unwanted = _parameters_frozen if activations_alone else _gradients_set_aside
                stack.enter_context(unwanted(self._model))
            loss = self._forward(stack, offsets, watch, keep)
            scalar = loss if objective is None else objective(loss)
            self._count(backwards=1)
            self._backward(scalar if weight in (0, 1) else scalar * weight)
        self._settle_buffers(clean)
        self._gain(weight, scalar)
        return loss.detach()

    def forward(
        self,
        offsets: Mapping[Site, Offset] | None = None,
        *,
        clean: bool = False,
        keep: Sequence[Site] = (),
        graph: bool = True,
    ) -> Tensor:
        """One forward pass alone; with ``graph``, :meth:`backward` must follow.

        Until then buffers are not put back, as the graph may have saved them: of several such passes the clean one must
        be the first.

        Args:
            offsets: perturbation by site; of activations only, unless ``graph`` is false.
            clean: whether buffers may change.
            keep: sites left with ``site.activation``.
            graph: build a graph.

        Returns:
            The loss, with its graph.

        Raises:
            ValueError: a weight is to be perturbed under a graph that outlives the perturbation.
        """
        if graph and any(isinstance(site, ParameterSite) for site in {*self._around, *(offsets or {})}):
            raise ValueError("a perturbed weight is restored before its graph is used: call `run` instead")
        self._count(forwards=1)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._synchronization(not self._forwards_left))
            stack.enter_context(torch.set_grad_enabled(graph and torch.is_grad_enabled()))
            loss = self._forward(stack, offsets, (), keep, graph=graph)
        self._graphs += graph
        self._settle_buffers(clean)
        return loss

    def backward(self, objective: Tensor) -> None:
        """The backward pass of a scalar made from the results of :meth:`forward`; ``.grad`` gains its gradient.

        Raises:
            RuntimeError: activation checkpointing ran an attacked module again, without its perturbation.
        """
        self._count(backwards=self._graphs)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._synchronization(not self._backwards_left))
            perturbed = [site for site in self._used if isinstance(site, OutputSite)]
            for site in perturbed:
                stack.enter_context(site.kept())  # counts the calls
            self._backward(objective)
            for site in perturbed:
                site.check_not_reached()
        self._graphs = 0
        self._buffers.restore()
        self._gain(1.0, objective)

    def differentiate(self, loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of a loss that :meth:`run` hands to ``objective``, itself differentiable; a backward pass."""
        self._count(backwards=1)
        found = torch.autograd.grad(loss, list(tensors), create_graph=True, allow_unused=True)
        return [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, found, strict=True)
        ]

    def add(self, site: ParameterSite, gradient: Tensor) -> None:
        """Add to ``.grad`` what no pass gives: a combination of gradients that were watched.

        A weight that no pass has reached stays without a gradient, so that optimizers still skip it.
        """
        held = site.parameter.grad
        if held is not None:
            site.parameter.grad = held.to_dense().add_(gradient) if held.is_sparse else held.add_(gradient)

    @contextlib.contextmanager
    def around(self, offsets: Mapping[Site, Offset]) -> Iterator[None]:
        """Perturb every pass inside the block by these as well; none of them is clean then."""
        outer = self._around
        self._around = {**outer, **offsets}
        try:
            yield
        finally:
            self._around = outer

    def _forward(
        self,
        stack: contextlib.ExitStack,
        offsets: Mapping[Site, Offset] | None,
        watch: Sequence[Site],
        keep: Sequence[Site],
        *,
        graph: bool = True,
    ) -> Tensor:
        """Call the closure inside whatever must last until the backward pass is over."""
        offsets = {**self._around, **(offsets or {})}
        self._used.update(offsets, watch, keep)
        for site, offset in offsets.items():
            stack.enter_context(site.perturbed(offset if callable(offset) else offset.detach()))
        for site in watch:
            stack.enter_context(site.watched())
        self._random.replay()
        with contextlib.ExitStack() as keeping:
            for site in keep:
                keeping.enter_context(site.kept())
            loss = _checked(self._closure(), graph)
            for site in {*offsets, *watch, *keep}:
                site.check_reached_once()
        return loss

    def _synchronization(self, wanted: bool) -> Context:
        return contextlib.nullcontext() if wanted else self._no_sync()

    def _count(self, forwards: int = 0, backwards: int = 0) -> None:
        self._forwards_left -= forwards
        self._backwards_left -= backwards
        if self._forwards_left < 0 or self._backwards_left < 0:
            raise RuntimeError("the method ran more passes than it announced in `cost`")

    def _settle_buffers(self, clean: bool) -> None:
        if clean and not self._around:
            # What later passes come back to; after the last one there is nothing to put back.
            self._buffers = _Buffers(self._modules if self._forwards_left else ())
        elif not self._graphs:
            self._buffers.restore()

    def _gain(self, weight: float, scalar: Tensor) -> None:
        if weight:
            gained = weight * scalar.detach()
            self.objective = gained if self.objective is None else self.objective + gained


@contextlib.contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Inside the block, use kernels that have a second derivative, and a first one in evaluation mode.

    cuDNN's recurrent layers have neither, fused attention and compiled graphs have no second derivative.
    """
    with (
        torch.backends.cudnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        torch.compiler.set_stance("force_eager"),
    ):
        yield


def watched_gradient(site: Site) -> Tensor:
    """The gradient of the last watched pass; zero where the loss does not depend on the site."""
    return torch.zeros_like(site.value) if site.gradient is None else site.gradient


def _checked(loss: Any, graph: bool) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(f"closure: expected the loss as a tensor, got {type(loss).__name__}; return the loss itself")
    if loss.numel() != 1:
        raise TypeError(f"closure: expected a scalar loss, got shape {tuple(loss.shape)}; return its mean or sum")
    if graph and not loss.requires_grad:
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

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._saved = [
            (module, name, buffer, buffer.detach().clone())
            for module in modules
            if module.training and module._buffers
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def restore(self) -> None:
        """Put the saved values back in place, and the saved tensors where a forward pass bound others."""
        with torch.no_grad():
            for module, name, buffer, saved in self._saved:
                buffer.copy_(saved)
                module._buffers[name] = buffer


class RandomStreams:
    """The global random streams of the CPU and of the model's devices: each pass draws the same numbers.

    Args:
        model: tells the devices.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = (t for m in model.modules() for held in (m._parameters, m._buffers) for t in held.values())
        devices = {tensor.device for tensor in tensors if tensor is not None} - {torch.device("cpu")}
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
