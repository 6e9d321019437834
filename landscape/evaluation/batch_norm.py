"""BatchNorm's running statistics, estimated anew for weights that have moved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["batch_norm_layers", "reestimate"]


def batch_norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def reestimate(model: nn.Module, passes: Iterable[Callable[[], object]]) -> None:
    """Replace the running statistics by those of the present weights (Garipov et al. 2018, ``update_bn``).

    Each batch's mean and variance count by the number of values that went into them.

    Args:
        model: in evaluation mode; its other layers stay so.
        passes: one function for each batch, that sends it through the model.

    Raises:
        ValueError: a batch of a single example.
    """
    layers = batch_norm_layers(model)
    with contextlib.ExitStack() as stack, torch.no_grad():
        for layer in layers:
            layer.reset_running_stats()
            stack.enter_context(_averaging(layer))
        for forward in passes:
            forward()


@contextlib.contextmanager
def _averaging(layer: _BatchNorm) -> Iterator[None]:
    seen = 0

    def weigh(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:  # noqa: ARG001
        nonlocal seen
        values: Tensor = arguments[0] if arguments else named["input"]
        count = values.numel() // values.shape[1]
        if count < 2:
            raise ValueError("statistics: a batch of one value a channel has no variance; use batches of two or more")
        seen += count
        layer.momentum = count / seen

    momentum, training = layer.momentum, layer.training
    hook = layer.register_forward_pre_hook(weigh, with_kwargs=True)
    layer.training = True
    try:
        yield
    finally:
        hook.remove()
        layer.training, layer.momentum = training, momentum
