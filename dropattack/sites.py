"""Where a perturbation is added, and how it is taken back.

A *site* is named by a string:

- a **parameter name** (``"lstm.weight_ih_l0"``): the parameter itself;
- a **module name** (``"embedding"``): the output of that module;
- ``"input"``: the first floating-point tensor among the arguments of the model.

Parameters are moved in place under ``no_grad`` and restored with ``copy_`` from a saved clone, so that a stale graph
raises instead of computing with the wrong weights, storage stays where it was, and no rounding error remains.
Outputs and inputs are reached by standing in for the module's ``forward`` (a :class:`Tap`). Module hooks would do the
same, but ``torch.compile`` skips hooks that are registered after compilation and guards on ``forward``.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dropattack.names import unknown

__all__ = [
    "INPUT",
    "Offset",
    "OutputSite",
    "ParameterSite",
    "Site",
    "find_parameters",
    "find_site",
    "matrix_names",
    "perturbed",
    "unwrap",
]

INPUT = "input"

# What is added at a site: a tensor of its shape, or a function that makes one when the value is known.
Offset = Tensor | Callable[[Tensor], Tensor]


class Site(Protocol):
    """A place in a model that can be perturbed and whose gradient can be watched."""

    name: str
    gradient: Tensor | None

    keep_value: bool

    @property
    def value(self) -> Tensor:
        """The tensor at the site in the last watched pass; safe from later in-place changes with ``keep_value``."""
        ...

    def perturbed(self, offset: Offset) -> contextlib.AbstractContextManager[None]:
        """Add ``offset`` inside the block."""
        ...

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Leave in ``gradient`` what the one backward pass inside the block sends to the site."""
        ...

    def check_reached_once(self) -> None:
        """Raise a RuntimeError unless the last pass went through the site exactly once."""
        ...

    def forget(self) -> None:
        """Free what was watched."""
        ...


class ParameterSite:
    """A parameter of the model, perturbed in place."""

    keep_value = False

    def __init__(self, name: str, parameter: nn.Parameter) -> None:
        self.name = name
        self.parameter = parameter
        self.gradient: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The parameter, detached."""
        return self.parameter.detach()

    def check_reached_once(self) -> None:
        """A parameter may be used any number of times (tied weights, recurrent steps)."""

    def forget(self) -> None:
        """Free the watched gradient."""
        self.gradient = None

    @contextlib.contextmanager
    def perturbed(self, offset: Offset) -> Iterator[None]:
        """Add ``offset`` to the parameter inside the block; bit-identical afterwards."""
        if callable(offset):
            offset = offset(self.value)
        _check_shape(self.name, offset, self.parameter)
        saved = self.parameter.detach().clone()
        try:
            with torch.no_grad():
                self.parameter.add_(offset)
            # Autocast keeps its copies of weights until its outermost block ends and does not see in-place changes.
            torch.clear_autocast_cache()
            yield
        finally:
            with torch.no_grad():
                self.parameter.copy_(saved)
            torch.clear_autocast_cache()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Tell this pass's gradient from what ``.grad`` held before (earlier micro-batches, other losses)."""
        earlier, self.parameter.grad = self.parameter.grad, None
        self.gradient = None
        try:
            yield
        finally:
            fresh = self.parameter.grad
            if earlier is None:
                # Later passes accumulate into .grad in place, so what was watched needs memory of its own.
                self.gradient = None if fresh is None else _dense(fresh).clone()
            else:
                self.gradient = None if fresh is None else _dense(fresh)
                self.parameter.grad = earlier if fresh is None else earlier.add_(fresh)


class OutputSite:
    """The output of a module, or (``name="input"``) the first floating-point argument of the model."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self.keep_value = False
        self.gradient: Tensor | None = None
        self._value: Tensor | None = None
        self._tap = Tap(self)

    @property
    def value(self) -> Tensor:
        """The activation of the last watched pass, detached.

        Raises:
            RuntimeError: the pass computed it without a graph.
        """
        if self._value is None:
            raise RuntimeError(f"site {self.name!r} was computed under no_grad, so that it has no gradient")
        return self._value

    @contextlib.contextmanager
    def perturbed(self, offset: Offset) -> Iterator[None]:
        """Add ``offset`` to the activation inside the block."""
        with self._tap.installed():
            self._tap.offset = offset
            try:
                yield
            finally:
                self._tap.offset = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Catch the gradient with respect to the (perturbed) activation."""
        self.gradient = self._value = None
        with self._tap.installed():
            self._tap.watching = True
            try:
                yield
            finally:
                self._tap.watching = False

    def check_reached_once(self) -> None:
        """Refuse a closure that never called the module, or called it twice.

        Raises:
            RuntimeError: in either case; one perturbation belongs to one activation.
        """
        if self._tap.calls == 0:
            raise RuntimeError(
                f"site {self.name!r} was not reached by the closure: call the same model (or its torch.compile or DDP "
                "wrapper) that the method was built with"
            )
        if self._tap.calls > 1:
            raise RuntimeError(
                f"site {self.name!r} was reached {self._tap.calls} times by one closure, so that one perturbation "
                "would be added at several places; name a module that is called once"
            )

    def forget(self) -> None:
        """Free the watched activation and gradient."""
        self.gradient = self._value = None

    @torch.compiler.disable
    def receive(self, activation: Tensor) -> Tensor:
        """Do to the activation what the present block asks for: add the offset, watch the gradient."""
        if (offset := self._tap.offset) is not None:
            if callable(offset):
                offset = offset(activation.detach())
            _check_shape(self.name, offset, activation)
            activation = activation + offset
        if self._tap.watching and torch.is_grad_enabled():
            self._value = activation.detach().clone() if self.keep_value else activation.detach()
            if not activation.requires_grad:  # pixels, or a frozen embedding
                # The clone may be changed in place by later layers; a leaf that requires a gradient may not.
                activation = activation.detach().requires_grad_().clone()
            activation.register_hook(self._keep_gradient)
        return activation

    def _keep_gradient(self, gradient: Tensor) -> None:
        self.gradient = gradient.detach()


class Tap:
    """Stands in for ``module.forward`` and hands one activation to its site.

    The stand-in is one function for the life of the site: ``torch.compile`` guards on its identity and so compiles
    each module twice (with and without it), not at every step.
    """

    def __init__(self, site: OutputSite) -> None:
        self.offset: Offset | None = None
        self.watching = False
        self.calls = 0
        self._module = site.module
        self._depth = 0
        self._own_forward: Any = None

        @torch.compiler.disable(recursive=False)  # the module's own forward is still compiled
        def output_forward(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return _with_first_tensor(self._inner(*args, **kwargs), site)

        @torch.compiler.disable(recursive=False)
        def input_forward(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            args, kwargs = _with_input(args, kwargs, site)
            return self._inner(*args, **kwargs)

        self._forward = input_forward if site.name == INPUT else output_forward

    def _inner(self, *args: Any, **kwargs: Any) -> Any:
        if self._own_forward is not None:
            return self._own_forward(*args, **kwargs)
        return type(self._module).forward(self._module, *args, **kwargs)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Stand in inside the block; nested blocks share one stand-in."""
        if self._depth == 0:
            self.calls = 0
            # Accelerate and others set `forward` on the instance; that one is called inside and put back.
            self._own_forward = self._module.__dict__.get("forward")
            self._module.__dict__["forward"] = self._forward
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                if self._own_forward is None:
                    del self._module.__dict__["forward"]
                else:
                    self._module.__dict__["forward"] = self._own_forward
                    self._own_forward = None


def _check_shape(name: str, offset: Tensor, target: Tensor) -> None:
    if offset.shape != target.shape:
        raise ValueError(
            f"perturbation of site {name!r}: expected shape {tuple(target.shape)}, got {tuple(offset.shape)}; every "
            "pass of a step must see the same batch"
        )


def _dense(gradient: Tensor) -> Tensor:
    return gradient.detach().to_dense() if gradient.is_sparse else gradient.detach()


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


@torch.compiler.disable
def _with_first_tensor(output: Any, site: OutputSite) -> Any:
    """Treat a module's output: a tensor, or a tuple that begins with one (recurrent layers)."""
    if _is_floating(output):
        return site.receive(output)
    if isinstance(output, tuple) and output and _is_floating(output[0]):
        rest = output[1:]
        first = site.receive(output[0])
        return type(output)(first, *rest) if hasattr(output, "_fields") else (first, *rest)
    raise TypeError(
        f"site {site.name!r}: expected the module to return a floating-point tensor, or a tuple that begins with one; "
        f"got {type(output).__name__}"
    )


@torch.compiler.disable
def _with_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], site: OutputSite
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Treat the first floating-point tensor among the arguments."""
    for index, argument in enumerate(args):
        if _is_floating(argument):
            return (*args[:index], site.receive(argument), *args[index + 1 :]), kwargs
    for key, argument in kwargs.items():
        if _is_floating(argument):
            return args, kwargs | {key: site.receive(argument)}
    raise TypeError(
        "site 'input': the model was called without a floating-point tensor, so its input cannot be perturbed; for "
        "token ids name the embedding module instead, e.g. inputs='embedding'"
    )


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside ``torch.compile`` and ``DistributedDataParallel`` wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def find_site(model: nn.Module, name: str) -> Site:
    """The site called ``name``.

    Raises:
        ValueError: no parameter and no module has that name (the message lists the nearest ones), or ``"input"`` for a
            model with a module of that name.
    """
    model = unwrap(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))  # a tied weight answers to each of its names
    if name == INPUT:
        if hasattr(model, INPUT):
            raise ValueError(
                "site 'input' means the model's argument, but the model has a module of that name: rename it"
            )
        return OutputSite(INPUT, model)
    if name in parameters:
        return ParameterSite(name, parameters[name])
    modules = dict(model.named_modules())
    if name and name in modules:
        return OutputSite(name, modules[name])
    known = [INPUT, *parameters, *(module for module in modules if module)]
    raise ValueError(unknown("site", name, known, owner=type(model).__name__))


def find_parameters(model: nn.Module, patterns: Sequence[str]) -> list[ParameterSite]:
    """The trainable parameters whose names match any of the ``fnmatch`` patterns, in the model's order, each once.

    Raises:
        ValueError: a pattern matches nothing, or only frozen parameters.
    """
    if isinstance(patterns, str):
        raise TypeError(f"weights: expected a sequence of names, got the string {patterns!r}; write ({patterns!r},)")
    model = unwrap(model)
    named = dict(model.named_parameters(remove_duplicate=False))
    chosen: dict[int, ParameterSite] = {}
    for pattern in patterns:
        matching = [name for name in named if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise ValueError(unknown("parameter", pattern, list(named), owner=type(model).__name__))
        trainable = [name for name in matching if named[name].requires_grad]
        if not trainable:
            raise ValueError(f"{pattern!r} matches only frozen parameters ({', '.join(matching)}): unfreeze one first")
        for name in trainable:
            chosen.setdefault(id(named[name]), ParameterSite(name, named[name]))
    order = {id(parameter): index for index, parameter in enumerate(model.parameters())}
    return sorted(chosen.values(), key=lambda site: order[id(site.parameter)])


def matrix_names(model: nn.Module) -> list[str]:
    """Names of the trainable parameters with two or more dimensions: no biases, no normalization layers."""
    named = unwrap(model).named_parameters()
    return [name for name, parameter in named if parameter.ndim > 1 and parameter.requires_grad]


@contextlib.contextmanager
def perturbed(model: nn.Module, offsets: Mapping[str, Tensor]) -> Iterator[None]:
    """Add ``offsets[site]`` at each site inside the block.

    Args:
        model: the network; parameters, storage addresses and ``forward`` are as before afterwards, whatever happened.
        offsets: site name to a tensor of the site's shape.

    Raises:
        ValueError: unknown site.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> with perturbed(layer, {"bias": torch.ones(1)}):
        ...     moved = layer(torch.zeros(1, 2))
        >>> bool(torch.isclose(moved - layer(torch.zeros(1, 2)), torch.ones(1, 1)))
        True
    """
    with contextlib.ExitStack() as stack:
        for site, offset in [(find_site(model, name), offset) for name, offset in offsets.items()]:
            stack.enter_context(site.perturbed(offset))
        yield
