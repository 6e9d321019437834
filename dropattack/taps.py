"""Standing in for ``module.forward``, to change what goes into a module or what comes out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["Tap"]

Receive = Callable[[Tensor], Tensor]


class Tap:
    """Stands in for ``module.forward`` and sends one activation through ``receive``.

    The stand-in is one function for the life of the tap: ``torch.compile`` guards on its identity and so compiles each
    module twice (with and without it), not at every step. Module hooks would do the same work, but ``torch.compile``
    skips hooks that are registered after compilation.

    Args:
        name: the site's, for messages.
        module: the module.
        receive: takes the activation and returns what replaces it.
        side: ``"output"``, the module's output or the first tensor of a tuple; ``"input"``, its first floating-point
            argument.
    """

    def __init__(self, name: str, module: nn.Module, receive: Receive, side: Literal["input", "output"]) -> None:
        self.calls = 0
        self._module = module
        self._depth = 0
        self._own_forward: Any = None

        @torch.compiler.disable(recursive=False)  # the module's own forward is still compiled
        def output_forward(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return _with_first_tensor(self._inner(*args, **kwargs), name, receive)

        @torch.compiler.disable(recursive=False)
        def input_forward(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            args, kwargs = _with_input(args, kwargs, receive)
            return self._inner(*args, **kwargs)

        self._forward = input_forward if side == "input" else output_forward

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


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


@torch.compiler.disable
def _with_first_tensor(output: Any, name: str, receive: Receive) -> Any:
    """Treat a module's output: a tensor, or a tuple that begins with one (recurrent layers)."""
    if _is_floating(output):
        return receive(output)
    if isinstance(output, tuple) and output and _is_floating(output[0]):
        rest = output[1:]
        first = receive(output[0])
        return type(output)(first, *rest) if hasattr(output, "_fields") else (first, *rest)
    raise TypeError(
        f"site {name!r}: expected the module to return a floating-point tensor, or a tuple that begins with one; got "
        f"{type(output).__name__}; name a module inside it that does"
    )


@torch.compiler.disable
def _with_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], receive: Receive
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Treat the first floating-point tensor among the arguments."""
    for index, argument in enumerate(args):
        if _is_floating(argument):
            return (*args[:index], receive(argument), *args[index + 1 :]), kwargs
    for key, argument in kwargs.items():
        if _is_floating(argument):
            return args, kwargs | {key: receive(argument)}
    raise TypeError(
        "site 'input': the model was called without a floating-point tensor, so its input cannot be perturbed; for "
        "token ids name the embedding module instead, e.g. inputs='embedding'"
    )
