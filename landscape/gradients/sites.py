"""Where gradients are taken and perturbations added: the model's input, the output of a module, parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landscape.risk import EmpiricalRisk

__all__ = ["Activation", "find_sites"]


def find_sites(risk: EmpiricalRisk, sites: Sequence[str]) -> tuple[list[str], list[str]]:
    """The activations and the parameters that are named, each once.

    Args:
        risk: the function.
        sites: ``"input"``; module names; parameter names and ``fnmatch`` patterns of them.

    Returns:
        Names of activations, names of parameters.

    Raises:
        TypeError: a string instead of a sequence.
        ValueError: an unknown site.
    """
    if isinstance(sites, str):
        raise TypeError(f"sites: expected a sequence, got the string {sites!r}; write ({sites!r},)")
    activations: dict[str, None] = {}
    parameters: dict[str, None] = {}
    for site in sites:
        if site == "input" or site in risk.modules():
            activations[site] = None
        elif matching := risk.matching_parameters(site):
            parameters |= dict.fromkeys(matching)
        else:
            known = [*risk.modules(), *risk.matching_parameters("*")]
            raise ValueError(f"unknown site {site!r}; the model has {', '.join(known)}")
    return list(activations), list(parameters)


class Activation:
    """The input of a model (``"input"``: its first floating-point argument), or the output of one of its modules.

    Of a module that returns a tuple, as recurrent layers do, the first tensor.

    Args:
        risk: the function.
        site: ``"input"`` or the module's name.
    """

    def __init__(self, risk: EmpiricalRisk, site: str) -> None:
        self.site = site
        self._risk = risk
        self._module = risk.modules()[site]

    def value_and_gradient(self, batch: Any, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """The activation, and the gradient of each example's own loss with respect to its row of it.

        Inside :meth:`~landscape.EmpiricalRisk.differentiable`.

        Args:
            batch: on the model's device.
            create_graph: keep the graph of the gradient, for second derivatives.

        Raises:
            TypeError: the activation is not a floating-point tensor.
            ValueError: the module does not run exactly once, or its output has not one row for each example.
        """
        caught: list[Tensor] = []

        def catch(value: Tensor) -> Tensor:
            caught.append(value if value.requires_grad else value.detach().requires_grad_())
            return caught[-1].clone()  # later layers may change it in place

        with self._sent_through(catch):
            losses = self._risk.losses(self._risk.eager, batch)
        if len(caught) != 1:
            raise ValueError(f"site {self.site!r} was reached {len(caught)} times in one forward pass, expected once")
        # Examples do not mix in evaluation mode, so the gradient of the sum holds each example's own gradient.
        (gradient,) = torch.autograd.grad(losses.sum(), caught, create_graph=create_graph, materialize_grads=True)
        if not gradient.ndim or len(gradient) != len(losses):
            raise ValueError(
                f"site {self.site!r}: expected one activation for each of {len(losses)} examples along the first "
                f"dimension, got shape {tuple(gradient.shape)}"
            )
        return caught[0], gradient

    @contextlib.contextmanager
    def moved(self) -> Iterator[Callable[[Tensor, float], None]]:
        """Inside the block, ``move(direction, epsilon)`` adds epsilon times the direction to the activation."""
        offset: list[tuple[Tensor, float]] = []

        def add(value: Tensor) -> Tensor:
            return torch.add(value, offset[0][0], alpha=offset[0][1]) if offset else value

        def move(direction: Tensor, epsilon: float) -> None:
            offset[:] = [(direction, epsilon)]

        with self._sent_through(add):
            yield move

    def _sent_through(self, receive: Callable[[Tensor], Tensor]) -> contextlib.AbstractContextManager[None]:
        if self.site == "input":
            return _input_sent_through(self._module, receive)
        return _output_sent_through(self._module, receive)


@contextlib.contextmanager
def _input_sent_through(module: nn.Module, receive: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for index, argument in enumerate(args):
            if _is_floating(argument):
                return (*args[:index], receive(argument), *args[index + 1 :]), kwargs
        for key, argument in kwargs.items():
            if _is_floating(argument):
                return args, kwargs | {key: receive(argument)}
        raise TypeError(
            f"site 'input': the model was called without a floating-point tensor; {_instead_of_tokens(module)}"
        )

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _output_sent_through(module: nn.Module, receive: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        if _is_floating(output):
            return receive(output)
        if isinstance(output, tuple) and output and _is_floating(output[0]):
            first, rest = receive(output[0]), output[1:]
            return type(output)(first, *rest) if hasattr(output, "_fields") else (first, *rest)
        raise TypeError(
            "expected the module to return a floating-point tensor, or a tuple that begins with one; got "
            f"{type(output).__name__}; name a module inside it that does"
        )

    handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _instead_of_tokens(model: nn.Module) -> str:
    tables = [name for name, part in model.named_modules() if name and isinstance(part, nn.Embedding | nn.EmbeddingBag)]
    if not tables:
        return "name a module instead"
    return f"for token ids name the embedding instead: {' or '.join(map(repr, tables))}"


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
