"""The layers of a model in the order in which they run, and what rescales each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from landscape.risk import EmpiricalRisk

__all__ = ["Layer", "divided", "multiplied", "statistics", "steps"]

# What a layer multiplies its input by, by the names of PyTorch's layers; biases and recurrent weights are not.
_INPUT_WEIGHTS = ("weight", "weight_g", "weight_ih", "weight_ih_l0", "weight_ih_l0_reverse", "in_proj_weight")


class Layer(NamedTuple):
    """A module that has parameters or running statistics of its own, or normalizes without any."""

    name: str
    module: nn.Module


def steps(risk: EmpiricalRisk) -> list[list[Layer]]:
    """Layers in the order of their first call; those that are called one after the other on one tensor are one step.

    Parallel convolutions on one embedding are such a step: what multiplies the embedding must divide all of them.

    Cost: a forward pass over one batch.
    """
    found: list[tuple[int, list[Layer]]] = []
    seen: set[nn.Module] = set()
    inputs: list[Tensor] = []  # kept to the end: the address of one that is freed could be another's next

    def note(name: str, module: nn.Module, arguments: Sequence[Any]) -> None:
        if module in seen:
            return
        seen.add(module)
        tensor = next((one for one in arguments if isinstance(one, Tensor)), None)
        address = -len(seen) if tensor is None else tensor.data_ptr()
        if tensor is not None:
            inputs.append(tensor)
        if found and found[-1][0] == address:
            found[-1][1].append(Layer(name, module))
        else:
            found.append((address, [Layer(name, module)]))

    handles = [
        module.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: note(name, module, (*args, *kwargs.values())), with_kwargs=True
        )
        for name, module in risk.eager.named_modules()
        if _is_layer(module)
    ]
    try:
        with risk.differentiable(), torch.no_grad():
            next(iter(risk.example_losses()))
    finally:
        for handle in handles:
            handle.remove()
    return [layers for _, layers in found]


def multiplied(layer: Layer) -> list[Tensor]:
    """What multiplies a layer's output, if that is linear in all of its parameters."""
    return [tensor for tensor in layer.module._parameters.values() if tensor is not None]


def divided(layer: Layer) -> list[Tensor]:
    """What divides a layer's response to its input."""
    own = layer.module._parameters
    found = [own[name] for name in _INPUT_WEIGHTS if own.get(name) is not None]
    return [tensor for tensor in found if tensor is not None and tensor.ndim > 1]


def statistics(layer: Layer) -> list[tuple[Tensor, int]]:
    """Running statistics of a layer's input, each with the power of the factor that its unit has."""
    own = layer.module._buffers
    powers = {"running_mean": 1, "running_var": 2}
    return [(tensor, power) for name, power in powers.items() if (tensor := own.get(name)) is not None]


def _is_layer(module: nn.Module) -> bool:
    layer = Layer("", module)
    is_bare_normalization = "norm" in type(module).__name__.lower() and not any(True for _ in module.children())
    return bool(multiplied(layer) or statistics(layer)) or is_bare_normalization
