"""Points, dictionaries of tensors, and the gradient at a point by autograd.grad: no hooks, no ``.grad``.

The variables are the parameters and ``SITE``, an offset added to the attacked activation: the gradient at offset 0 is
the gradient of the activation.
"""

from collections.abc import Callable

import torch
from equations import cross_entropy
from networks import Network
from torch import Tensor

SITE = "attacked activation"
Point = dict[str, Tensor]


def loss_and_gradient(network: Network, point: Point) -> tuple[Tensor, Point]:
    point = {name: value.detach().clone().requires_grad_() for name, value in point.items()}
    activation = network.activation(point, network.inputs)
    loss = cross_entropy(network.logits(point, activation + point[SITE]), network.targets)
    return loss.detach(), dict(zip(point, torch.autograd.grad(loss, list(point.values())), strict=True))


def clean_point(network: Network) -> Point:
    parameters = network.parameters()
    return {**parameters, SITE: torch.zeros_like(network.activation(parameters, network.inputs))}


def lengths(values: Point, scope: str, batch_dim: int) -> Point:
    """The L2 norms a perturbation is divided by, broadcastable against it."""
    if scope == "global":
        joint = torch.sqrt(sum((value**2).sum() for value in values.values()))
        return dict.fromkeys(values, joint)
    if scope == "tensor":
        return {name: torch.sqrt((value**2).sum()) for name, value in values.items()}
    return {
        name: torch.sqrt((value**2).sum([d for d in range(value.dim()) if d != batch_dim], keepdim=True))
        for name, value in values.items()
    }


def gradient(network: Network, point: Point) -> Point:
    return loss_and_gradient(network, point)[1]


def gradient_of(objective: Callable[[Point], Tensor], point: Point) -> Point:
    point = {name: value.detach().clone().requires_grad_() for name, value in point.items()}
    return dict(zip(point, torch.autograd.grad(objective(point), list(point.values())), strict=True))


def trained(network: Network) -> list[str]:
    return [name for name, parameter in network.module.named_parameters() if parameter.requires_grad]


def moved(point: Point, offsets: Point) -> Point:
    return {**point, **{name: point[name] + offset for name, offset in offsets.items()}}


def combined(*terms: tuple[float | Tensor, Point]) -> Point:
    """A sum of weight times gradient."""
    return {name: sum(weight * values[name] for weight, values in terms) for name in terms[0][1]}


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """0 where the denominator is 0: a gradient that vanishes has no direction."""
    is_zero = denominator == 0
    return torch.where(is_zero, 0.0, numerator / torch.where(is_zero, 1.0, denominator))


def inner(names: list[str], a: Point, b: Point) -> Tensor:
    return sum((a[name] * b[name]).sum() for name in names)


def length(names: list[str], a: Point) -> Tensor:
    return torch.sqrt(inner(names, a, a))
