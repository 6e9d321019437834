"""For optimizers that evaluate the loss themselves: LBFGS, and whatever else takes ``optimizer.step(closure)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dropattack.adapters.single_step import check_single_step
from dropattack.methods.base import Method
from dropattack.passes import Closure, RandomStreams

__all__ = ["optimizer_closure"]


def optimizer_closure(
    method: Method, closure: Closure, optimizer: torch.optim.Optimizer, **options: Any
) -> Callable[[], Tensor]:
    """What ``optimizer.step`` wants: a function that computes ``.grad`` and returns the value it belongs to.

    The value is the method's objective (``method.last.objective``), not the clean loss, so that a line search compares
    what it descends. Every evaluation draws the same masks, random starts and dropout masks and begins with what the
    method carried before the first, so that it compares one function; make a new closure for each optimizer step, or
    all steps are made with these draws. Where the perturbation is computed from a gradient, ``.grad`` leaves out how it
    moves with the weights (by Danskin's theorem nothing is missing if it is the worst one in its ball), so that a line
    search may stop earlier than on the plain loss.

    Running statistics change in each evaluation, as they do without a method.

    Args:
        method: makes one optimizer step a batch, and evaluates the closure ``method.cost.forwards`` times in each
            evaluation.
        closure: runs the forward pass and returns the loss, as for ``method.backward``.
        optimizer: its gradients are zeroed before each evaluation.
        **options: as for ``method.backward``.

    Returns:
        A function without arguments that returns the objective, detached.

    Raises:
        ValueError: the method replays each batch for several optimizer steps.
        RuntimeError: no pass of the method adds to ``.grad``.

    Example:
        >>> from dropattack.methods import Standard
        >>> model = torch.nn.Linear(2, 1)
        >>> x, y = torch.randn(8, 2), torch.randn(8, 1)
        >>> optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
        >>> closure = optimizer_closure(Standard(model), lambda: ((model(x) - y) ** 2).mean(), optimizer)
        >>> before = float(closure())
        >>> bool(optimizer.step(closure) <= before)
        True
    """
    check_single_step(method, "an optimizer's closure")
    carried = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    streams = RandomStreams(method.model)

    def evaluate() -> Tensor:
        streams.replay()
        method.load_state_dict({name: tensor.clone() for name, tensor in carried.items()})
        optimizer.zero_grad()
        method.backward(closure, **options)
        record = method.last
        if record is None or record.objective is None:
            raise RuntimeError(f"{type(method).__name__} ran no pass that adds to .grad, so that there is no objective")
        return record.objective

    return evaluate
