"""DropAttack a second time, as mathematics on points."""

import dataclasses

import torch
from networks import Network
from points import SITE, Point, clean_point, lengths, loss_and_gradient
from torch import Tensor


@dataclasses.dataclass
class Result:
    gradient: Point
    clean_loss: Tensor
    adversarial_losses: dict[str, list[Tensor]]
    perturbations: Point


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
