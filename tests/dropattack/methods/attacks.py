"""The methods of the paper's Table 2 and SAM's family as mathematics: from a point to the gradient of a step."""

import torch
from points import SITE, combined, gradient, lengths, moved, trained


def penalty(network, point, derivative):
    """``derivative`` of the penalty, for the matrices alone."""
    plain = gradient(network, point)
    matrices = {n: p for n, p in point.items() if n != SITE and p.dim() > 1}
    return {n: g + derivative(matrices[n]) if n in matrices else g for n, g in plain.items()}


def one_step(network, point, direction, clean_weight=1.0):
    clean = gradient(network, point)
    return combined((clean_weight, clean), (1, gradient(network, moved(point, {SITE: direction(clean[SITE])}))))


def normalized(network, value):
    return value / lengths({SITE: value}, "example", network.batch_dim)[SITE]


def sizes(network, point, linf=False):
    """The norm of each example's attacked activation."""
    value = network.activation(point, network.inputs) + point[SITE]
    if linf:
        return value.abs().amax([d for d in range(value.dim()) if d != network.batch_dim], keepdim=True)
    return lengths({SITE: value}, "example", network.batch_dim)[SITE]


def pgd_offset(network, point, epsilon, step_size, steps, linf=False, start=None):
    r = torch.zeros_like(point[SITE]) if start is None else start
    for _ in range(steps):
        g = gradient(network, moved(point, {SITE: r}))[SITE]
        if linf:
            r = torch.minimum(torch.maximum(r + step_size * torch.sign(g), -0 * r - epsilon), 0 * r + epsilon)
        else:
            r = r + step_size * normalized(network, g)
            size = lengths({SITE: r}, "example", network.batch_dim)[SITE]
            r = torch.where(size > epsilon, r * epsilon / size, r)
    return r


def pgd(network, point, *args, clean_weight=0.0, **options):
    last = gradient(network, moved(point, {SITE: pgd_offset(network, point, *args, **options)}))
    return combined((clean_weight, gradient(network, point)), (1, last))


def uphill(network, point, rho, alpha):
    clean = gradient(network, point)
    chosen = {n: clean[n] for n in trained(network)}
    size = torch.sqrt(sum((g**2).sum() for g in chosen.values()))
    adversarial = gradient(network, moved(point, {n: rho * g / size for n, g in chosen.items()}))
    return combined((1 - alpha, clean), (alpha, adversarial))


def weight_norm(network, point):
    return torch.sqrt(sum((point[n] ** 2).sum() for n in trained(network)))


def freelb(network, point, epsilon, step_size, steps, start):
    r, terms = start, []
    for _ in range(steps):
        g = gradient(network, moved(point, {SITE: r}))
        terms.append((1 / steps, g))
        r = r + step_size * normalized(network, g[SITE])
        size = lengths({SITE: r}, "example", network.batch_dim)[SITE]
        r = r if epsilon is None else torch.where(size > epsilon, r * epsilon / size, r)
    return combined(*terms)


def asam(network, point, rho, eta):
    clean = gradient(network, point)
    names = trained(network)
    scale = {n: point[n].abs() + eta if n.split(".")[-1].startswith("weight") else point[n] ** 0 for n in names}
    size = torch.sqrt(sum(((scale[n] * clean[n]) ** 2).sum() for n in names))
    return gradient(network, moved(point, {n: rho * scale[n] ** 2 * clean[n] / size for n in names}))


def awp(network, point, gamma):
    clean = gradient(network, point)
    names = [n for n in trained(network) if point[n].dim() > 1]
    offsets = {
        n: gamma * torch.sqrt((point[n] ** 2).sum()) * clean[n] / torch.sqrt((clean[n] ** 2).sum()) for n in names
    }
    return gradient(network, moved(point, offsets))
