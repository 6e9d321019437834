"""The relatives of DropAttack as mathematics: functions from a point to the gradient that a step would use.

Only parameters that require a gradient are perturbed, and only they count in a norm.
"""

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction

import torch
from equations import Parameters, cross_entropy
from networks import Network
from points import SITE, Point, combined, gradient, gradient_of, inner, length, moved, ratio, trained
from torch import Tensor

Reference = Callable[[Network, Point], Point]


# Distances between predictions


def logits_at(network: Network, point: Point, offset: Tensor | float = 0.0) -> Tensor:
    return network.logits(point, network.activation(point, network.inputs) + point[SITE] + offset)


def loss_at(network: Network, point: Point) -> Tensor:
    return cross_entropy(logits_at(network, point), network.targets)


def kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q), the mean over examples."""
    log_p = p_logits - torch.logsumexp(p_logits, dim=1, keepdim=True)
    log_q = q_logits - torch.logsumexp(q_logits, dim=1, keepdim=True)
    return (torch.exp(log_p) * (log_p - log_q)).sum(1).mean()


def symmetric_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    return kl(p_logits, q_logits) + kl(q_logits, p_logits)


def other_dims(network: Network, value: Tensor) -> list[int]:
    return [d for d in range(value.dim()) if d != network.batch_dim]


def unit(network: Network, value: Tensor) -> Tensor:
    """Every example divided by its L2 norm."""
    return ratio(value, torch.sqrt((value**2).sum(other_dims(network, value), keepdim=True)))


# Attacks on the weights


def ascent(network: Network, gradients: Point, rho: float) -> Point:
    """Rho * g / ||g||, with one norm over all trained parameters."""
    names = trained(network)
    size = length(names, gradients)
    return {name: rho * ratio(gradients[name], size) for name in names}


def gsam(network: Network, point: Point, rho: float, alpha: float) -> Point:
    """Zhuang et al. 2022: the perturbed gradient minus the part of the clean one that is orthogonal to it."""
    names = trained(network)
    clean = gradient(network, point)
    perturbed = gradient(network, moved(point, ascent(network, clean, rho)))
    along = ratio(inner(names, clean, perturbed), inner(names, perturbed, perturbed))
    return combined((1, perturbed), (-alpha, clean), (alpha * along, perturbed))


def steepening(network: Network, clean: Point, perturbed: Point) -> Point:
    """LookSAM's g_v: the part of the SAM gradient that is orthogonal to the clean one."""
    names = trained(network)
    along = ratio(inner(names, perturbed, clean), inner(names, clean, clean))
    return {name: perturbed[name] - along * clean[name] for name in names}


def looksam(steps: list[tuple[Network, Point]], rho: float, alpha: float, every: int) -> list[Point]:
    """Liu et al. 2022: SAM every ``every`` steps; in between, the clean gradient and the remembered g_v."""
    results = []
    g_v: Point = {}
    for index, (network, point) in enumerate(steps):
        names = trained(network)
        clean = gradient(network, point)
        if index % every == 0:
            perturbed = gradient(network, moved(point, ascent(network, clean, rho)))
            g_v = steepening(network, clean, perturbed)
            results.append(perturbed)
        else:
            scale = alpha * ratio(length(names, clean), length(names, g_v))
            results.append(moved(clean, {name: scale * g_v[name] for name in names}))
    return results


def sparse_sam(network: Network, point: Point, rho: float, masks: Point) -> Point:
    """Mi et al. 2022: the mask comes after the normalization, so that the perturbation is shorter than rho."""
    offsets = ascent(network, gradient(network, point), rho)
    return gradient(network, moved(point, {name: masks[name] * offset for name, offset in offsets.items()}))


def largest(network: Network, scores: Point, sparsity: float) -> Point:
    """1 for the floor((1 - sparsity) * N) largest scores over all trained parameters; of equals, the first.

    The share is a decimal number: in binary, (1 - 0.9) * 100 is less than 10.
    """
    names = trained(network)
    joint = torch.cat([scores[name].flatten() for name in names])
    keep = math.floor((1 - Fraction(str(sparsity))) * len(joint))
    kept = torch.argsort(joint, descending=True, stable=True)[:keep]
    mask = torch.isin(torch.arange(len(joint)), kept).to(joint.dtype)
    parts = mask.split([scores[name].numel() for name in names])
    return {name: part.reshape(scores[name].shape) for name, part in zip(names, parts, strict=True)}


def fisher_masks(network: Network, point: Point, sparsity: float) -> Point:
    """The squared gradient of the mean loss."""
    return largest(network, {name: g**2 for name, g in gradient(network, point).items()}, sparsity)


def example(network: Network, point: Point, index: int) -> tuple[Network, Point]:
    """A batch of one; the same function only for networks without batch statistics."""
    alone = dataclasses.replace(
        network,
        inputs=network.inputs.narrow(network.batch_dim, index, 1),
        targets=network.targets[index : index + 1],
    )
    return alone, {**point, SITE: point[SITE].narrow(network.batch_dim, index, 1)}


def fisher_masks_of_examples(network: Network, point: Point, sparsity: float) -> Point:
    """The squared gradients of the losses of single examples, summed: the diagonal of the empirical Fisher matrix."""
    alone = [gradient(*example(network, point, index)) for index in range(len(network.targets))]
    return largest(network, {name: sum(g[name] ** 2 for g in alone) for name in trained(network)}, sparsity)


def rwp_offsets(network: Network, point: Point, gamma: float, noise: Point) -> Point:
    """The noise of a matrix grows with the norm of its row, that of a vector with the norm of the vector."""
    offsets = {}
    for name in trained(network):
        value = point[name]
        dims = list(range(1, value.dim())) if value.dim() > 1 else [0]
        offsets[name] = gamma * torch.sqrt((value**2).sum(dims, keepdim=True)) * noise[name]
    return offsets


def rwp(network: Network, point: Point, gamma: float, noise: Point, alpha: float) -> Point:
    """Li et al. 2022: ``noise`` is standard normal."""
    noisy = gradient(network, moved(point, rwp_offsets(network, point, gamma, noise)))
    return combined((alpha, noisy), (1 - alpha, gradient(network, point)))


# Penalties


def penalty(rows: Tensor, mask: Tensor, form: str) -> Tensor:
    """P of each row of gradients, summed; a row of which the mask leaves nothing counts 0."""
    masked = mask * rows
    remains = (masked != 0).any(1)
    squares = (masked[remains] ** 2).sum(1)
    if form == "masked-norm":
        return torch.sqrt(squares).sum()
    assert form == "first-order"
    return (squares / torch.sqrt((rows[remains] ** 2).sum(1))).sum()


def explicit_penalty(
    network: Network,
    point: Point,
    inputs: bool,
    weights: tuple[str, ...],
    epsilon: float,
    epsilon_weights: float,
    masks: Point,
    form: str,
    loss_weight: float,
) -> Point:
    """What DropAttack is to first order: the norms of the loss's gradients, added to the loss.

    ``form`` is "masked-norm", ||M g||, of equation 12, or "first-order", ||M g||^2 / ||g||, of algorithm 1. The inputs
    have one penalty for each example, of the gradient of the mean loss.
    """
    attacked = [SITE, *weights] if inputs else list(weights)

    def objective(p: Point) -> Tensor:
        loss = loss_at(network, p)
        gradients = torch.autograd.grad(loss, [p[name] for name in attacked], create_graph=True)
        total = loss_weight * loss
        for name, g in zip(attacked, gradients, strict=True):
            if name == SITE:
                rows, mask = (value.movedim(network.batch_dim, 0).flatten(1) for value in (g, masks[name]))
                total = total + epsilon * penalty(rows, mask, form)
            else:
                total = total + epsilon_weights * penalty(g.reshape(1, -1), masks[name].reshape(1, -1), form)
        return total

    return gradient_of(objective, point)


# Smooth predictions


def vat_offset(
    network: Network, point: Point, epsilon: float, xi: float, power_iterations: int, start: Tensor
) -> Tensor:
    """Power iterations with the Hessian of the KL, whose gradient at 0 is 0; its top eigenvector, epsilon long.

    The gradient is that at xi * d / ||d||, not through the normalization, which would remove the component along d.
    An example without a direction gets none from the rounding of the KL.
    """
    clean = logits_at(network, point).detach()
    d = start
    for _ in range(power_iterations):
        r = (xi * unit(network, d)).requires_grad_()
        (h,) = torch.autograd.grad(kl(clean, logits_at(network, point, r)), r)
        d = torch.where(d.abs().amax(other_dims(network, d), keepdim=True) == 0, 0.0, h)
    return epsilon * unit(network, d)


def vat(
    network: Network,
    point: Point,
    epsilon: float,
    xi: float,
    power_iterations: int,
    coefficient: float,
    start: Tensor,
) -> Point:
    """Miyato et al. 2018: the clean prediction is a constant, the target of the perturbed one."""
    clean = logits_at(network, point).detach()
    r = vat_offset(network, point, epsilon, xi, power_iterations, start)
    return gradient_of(lambda p: loss_at(network, p) + coefficient * kl(clean, logits_at(network, p, r)), point)


def r3f(network: Network, point: Point, coefficient: float, noise: Tensor) -> Point:
    """Aghajanyan et al. 2020: both predictions are pulled together."""
    return gradient_of(
        lambda p: loss_at(network, p) + coefficient * symmetric_kl(logits_at(network, p), logits_at(network, p, noise)),
        point,
    )


def smart_offset(network: Network, point: Point, epsilon: float, step_size: float, steps: int, start: Tensor) -> Tensor:
    clean = logits_at(network, point).detach()
    r = start
    for _ in range(steps):
        variable = r.detach().clone().requires_grad_()
        (h,) = torch.autograd.grad(symmetric_kl(clean, logits_at(network, point, variable)), variable)
        step = step_size * ratio(h, h.abs().amax(other_dims(network, h), keepdim=True))
        r = torch.clamp(r + step, -epsilon, epsilon)
    return r


def smart(
    network: Network,
    point: Point,
    epsilon: float,
    step_size: float,
    steps: int,
    coefficient: float,
    start: Tensor,
    teacher: Parameters | None = None,
    proximal_weight: float = 0.0,
) -> Point:
    """Jiang et al. 2020: smooth predictions that stay near those of a teacher."""
    r = smart_offset(network, point, epsilon, step_size, steps, start)
    taught = None if teacher is None else logits_at(network, {**point, **teacher}).detach()

    def objective(p: Point) -> Tensor:
        clean = logits_at(network, p)
        total = loss_at(network, p) + coefficient * symmetric_kl(clean, logits_at(network, p, r))
        return total if taught is None else total + proximal_weight * symmetric_kl(clean, taught)

    return gradient_of(objective, point)


# A method on the adversarial inputs of another


def composed(
    network: Network,
    point: Point,
    input_offset_fn: Callable[[Network, Point], Tensor],
    weight_reference: Reference,
    clean_weight: float,
) -> Point:
    """The inputs are attacked at the clean weights, and the weights then at the attacked inputs."""
    r = input_offset_fn(network, point).detach()
    return combined((clean_weight, gradient(network, point)), (1, weight_reference(network, moved(point, {SITE: r}))))
