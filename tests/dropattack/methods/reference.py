"""DropAttack a second time, as mathematics: functions of a dictionary of tensors, differentiated by autograd.grad.

The variables are the parameters and ``SITE``, an offset added to the attacked activation: the gradient at offset 0 is
the gradient of the activation.
"""

import dataclasses

import torch
from equations import cross_entropy
from networks import Network
from torch import Tensor

SITE = "attacked activation"
Point = dict[str, Tensor]


@dataclasses.dataclass
class Result:
    gradient: Point
    clean_loss: Tensor
    adversarial_losses: dict[str, list[Tensor]]
    perturbations: Point


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


def dropattack(
    network: Network,
    masks: Point,
    *,
    inputs: str | None = None,
    weights: tuple[str, ...] = (),
    epsilon: float = 0.0,
    epsilon_weights: float | None = None,
    ascent_steps: int = 1,
    clean_weight: float = 1.0,
    mask_then_normalize: bool = False,
    accumulate: bool = False,
    input_norm: str = "example",
    weight_norm: str = "tensor",
    relative_epsilon: bool = False,
    reduction: str = "sum",
    batch_dim: int = 0,
) -> Result:
    """``inputs`` is ``SITE`` or the name of a parameter; ``masks`` has one entry for each attacked variable."""
    clean = clean_point(network)
    clean_loss, clean_gradient = loss_and_gradient(network, clean)
    values = {**clean, SITE: network.activation(clean, network.inputs)}

    attacks = {}
    if inputs is not None:
        attacks["inputs"] = ([inputs], epsilon, input_norm if inputs == SITE else "tensor")
    if weights:
        attacks["weights"] = (list(weights), epsilon if epsilon_weights is None else epsilon_weights, weight_norm)

    total = {name: clean_weight * gradient for name, gradient in clean_gradient.items()}
    losses: dict[str, list[Tensor]] = {}
    perturbations: Point = {}
    for attack, (names, size, scope) in attacks.items():
        losses[attack] = []
        direction = {name: clean_gradient[name] for name in names}
        offsets = {name: torch.zeros_like(clean[name]) for name in names}
        sizes = lengths({name: values[name] for name in names}, scope, batch_dim)
        for _ in range(ascent_steps):
            masked = {name: masks[name] * direction[name] for name in names}
            norms = lengths(masked if mask_then_normalize else direction, scope, batch_dim)
            for name in names:
                step = size * masked[name] / norms[name]
                step = step * sizes[name] if relative_epsilon else step
                offsets[name] = offsets[name] + step if accumulate else step
            loss, gradient = loss_and_gradient(network, {**clean, **{n: clean[n] + offsets[n] for n in names}})
            losses[attack].append(loss)
            total = {name: total[name] + gradient[name] / ascent_steps for name in total}
            direction = {name: direction[name] + gradient[name] / ascent_steps for name in names}
        perturbations.update(offsets)
    if reduction == "mean":
        total = {name: value / (clean_weight + len(attacks)) for name, value in total.items()}
    del total[SITE]
    return Result(total, clean_loss, losses, perturbations)
