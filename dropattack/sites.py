"""Where a perturbation is added, and how it is taken back.

A *site* is named by a string:

- a **parameter name** (``"lstm.weight_ih_l0"``): the parameter itself;
- a **module name** (``"embedding"``): the output of that module;
- ``"input"``: the first floating-point tensor among the arguments of the model.

Parameters are moved in place under ``no_grad`` and restored with ``copy_`` from a saved clone, so that a stale graph
raises instead of computing with the wrong weights, storage stays where it was, and no rounding error remains.
Outputs and inputs are reached by standing in for the module's ``forward`` (a :class:`~dropattack.taps.Tap`).
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from dropattack.names import unknown
from dropattack.taps import Tap

__all__ = [
    "INPUT",
    "MovingOffset",
    "Offset",
    "OutputSite",
    "ParameterSite",
    "Site",
    "find_output",
    "find_parameters",
    "find_site",
    "matrix_names",
    "perturbed",
    "touched_rows",
    "unwrap",
]

INPUT = "input"

# What is added at a site: a tensor of its shape, or a function that makes one when the value is known.
Offset = Tensor | Callable[[Tensor], Tensor]


class MovingOffset:
    """An offset that is made when its site's value is first seen, and stays (activation checkpointing asks again).

    Args:
        make: from the value at the site to the offset, a tensor of its shape.
    """

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        self._make = make
        self._tensor: Tensor | None = None

    def __call__(self, value: Tensor) -> Tensor:
        """The present offset; made now if there is none."""
        if self._tensor is None:
            self._tensor = self._make(value)
        return self._tensor

    @property
    def tensor(self) -> Tensor:
        """The present offset; assign to move it.

        Raises:
            RuntimeError: no pass has asked for it yet.
        """
        if self._tensor is None:
            raise RuntimeError("the offset has not been made: no pass went through its site")
        return self._tensor

    @tensor.setter
    def tensor(self, moved: Tensor) -> None:
        self._tensor = moved


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

    def kept(self) -> contextlib.AbstractContextManager[None]:
        """Keep in ``activation`` the tensor that a forward pass inside the block has at the site, graph attached."""
        ...

    @property
    def activation(self) -> Tensor:
        """What :meth:`kept` kept."""
        ...

    def check_reached_once(self) -> None:
        """Raise a RuntimeError unless the last pass went through the site exactly once."""
        ...

    def forget(self) -> None:
        """Free what was watched."""
        ...


class ParameterSite:
    """A parameter of the model, perturbed in place.

    Args:
        name: the parameter's.
        parameter: the parameter.
        is_table: an embedding, of which a batch touches some rows.
    """

    keep_value = False

    def __init__(self, name: str, parameter: nn.Parameter, *, is_table: bool = False) -> None:
        self.name = name
        self.parameter = parameter
        self.is_table = is_table
        self.gradient: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The parameter, detached."""
        return self.parameter.detach()

    @property
    def activation(self) -> Tensor:
        """The parameter itself."""
        return self.parameter

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Nothing to do: the parameter is there before and after any pass."""
        yield

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

    def __init__(self, name: str, module: nn.Module, side: Literal["input", "output"] = "output") -> None:
        self.name = name
        self.module = module
        self.keep_value = False
        self.gradient: Tensor | None = None
        self._value: Tensor | None = None
        self._activation: Tensor | None = None
        self._offset: Offset | None = None
        self._watching = self._keeping = False
        self._tap = Tap(name, module, self._receive, side)

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
            self._offset = offset
            try:
                yield
            finally:
                self._offset = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Catch the gradient with respect to the (perturbed) activation."""
        self.gradient = self._value = None
        with self._tap.installed():
            self._watching = True
            try:
                yield
            finally:
                self._watching = False

    @property
    def activation(self) -> Tensor:
        """The activation of the last pass that kept it, with its graph.

        Raises:
            RuntimeError: no pass kept it.
        """
        if self._activation is None:
            raise RuntimeError(f"no pass has kept the activation of site {self.name!r}")
        return self._activation

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the (perturbed) activation, with its graph, in ``activation``."""
        self._activation = None
        with self._tap.installed():
            self._keeping = True
            try:
                yield
            finally:
                self._keeping = False

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

    def check_not_reached(self) -> None:
        """Refuse a backward pass that runs the module again.

        Raises:
            RuntimeError: activation checkpointing called the module, which had several perturbations to choose from.
        """
        if self._tap.calls:
            raise RuntimeError(
                f"site {self.name!r} was run again by activation checkpointing in a backward pass through two forward "
                "passes, without its perturbation; checkpoint another part of the model"
            )

    def forget(self) -> None:
        """Free the watched gradient and the activations."""
        self.gradient = self._value = self._activation = None

    @torch.compiler.disable
    def _receive(self, activation: Tensor) -> Tensor:
        """Do to the activation what the present block asks for: add the offset, watch the gradient, keep it."""
        if (offset := self._offset) is not None:
            if callable(offset):
                offset = offset(activation.detach())
            _check_shape(self.name, offset, activation)
            activation = activation + offset
        if not torch.is_grad_enabled():
            if self._keeping:
                self._activation = activation
            return activation
        if self._watching:
            self._value = activation.detach().clone() if self.keep_value else activation.detach()
        if (self._watching or self._keeping) and not activation.requires_grad:  # pixels, or a frozen embedding
            # The clone may be changed in place by later layers; a leaf that requires a gradient may not.
            activation = activation.detach().requires_grad_().clone()
        if self._watching:
            activation.register_hook(self._keep_gradient)
        if self._keeping:
            self._activation = activation
        return activation

    def _keep_gradient(self, gradient: Tensor) -> None:
        self.gradient = gradient.detach()


def _check_shape(name: str, offset: Tensor, target: Tensor) -> None:
    if offset.shape != target.shape:
        raise ValueError(
            f"perturbation of site {name!r}: expected shape {tuple(target.shape)}, got {tuple(offset.shape)}; every "
            "pass of a step must see the same batch"
        )


def _dense(gradient: Tensor) -> Tensor:
    return gradient.detach().to_dense() if gradient.is_sparse else gradient.detach()


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside wrappers: ``torch.compile``, ``DistributedDataParallel``, Lightning Fabric."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
            continue
        for attribute in ("_orig_mod", "_original_module"):  # torch.compile's, Fabric's
            if isinstance(inner := getattr(model, attribute, None), nn.Module):
                model = inner
                break
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
        return OutputSite(INPUT, model, side="input")
    if name in parameters:
        return _parameter_site(model, name, parameters[name])
    modules = dict(model.named_modules())
    if name and name in modules:
        return OutputSite(name, modules[name])
    known = [INPUT, *parameters, *(module for module in modules if module)]
    raise ValueError(unknown("site", name, known, owner=type(model).__name__))


def touched_rows(site: Site, gradient: Tensor) -> Tensor | None:
    """For an embedding's weight, which rows the batch touched; None for any other site."""
    if not (isinstance(site, ParameterSite) and site.is_table):
        return None
    return gradient.flatten(1).any(1)


def _parameter_site(model: nn.Module, name: str, parameter: nn.Parameter) -> ParameterSite:
    owner = model.get_submodule(name.rpartition(".")[0])
    return ParameterSite(name, parameter, is_table=isinstance(owner, nn.Embedding | nn.EmbeddingBag))


def find_output(model: nn.Module, name: str | None) -> OutputSite:
    """The output of the module called ``name``; of the model itself for None.

    Raises:
        ValueError: no module has that name.
    """
    model = unwrap(model)
    if name is None:
        return OutputSite("output", model)
    modules = dict(model.named_modules())
    if not name or name not in modules:
        raise ValueError(unknown("module", name, [module for module in modules if module], owner=type(model).__name__))
    return OutputSite(name, modules[name])


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
            chosen.setdefault(id(named[name]), _parameter_site(model, name, named[name]))
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
