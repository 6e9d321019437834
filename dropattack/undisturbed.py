"""Looking at a model's gradients without leaving a trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from dropattack.passes import RandomStreams

__all__ = ["evaluation_mode", "undisturbed"]


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Begin with every ``.grad`` empty, and put gradients, buffers and global random streams back afterwards.

    The same tensors are back in their places, with the same bits, also after an exception. Weights are not looked
    after: no backward pass changes them.

    Args:
        model: the network.
    """
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    streams = RandomStreams(model)
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for module, name, buffer, saved in buffers:
                buffer.copy_(saved)
                setattr(module, name, buffer)
        streams.rewind()


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; each module has its own training flag back afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
