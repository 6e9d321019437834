"""The checks: each takes another road than the code that it looks at."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.evaluation.walk import Walk, evaluate
from landscape.selfcheck.filters import filters_of, norms_of
from landscape.selfcheck.slopes import loss_follows_weights
from landscape.selfcheck.subject import Subject, same_bits, some

__all__ = ["CHECKS"]

_SAME = 1e-5  # relative; what two summation orders of float32 losses may differ by


def _center(subject: Subject) -> tuple[bool, str]:
    expected, count = subject.plain()
    subject.before.put_back()
    value = subject.risk()
    origin = (0.0,) * len(subject.directions)
    nodes = [subject.somewhere, origin]
    walked = evaluate(Walk({"": subject.risk}, subject.directions), nodes, progress=False)[origin][""]["loss"]
    return (
        _close(value.loss, expected) and _close(walked, expected) and value.count == count,
        f"expected loss {expected:.9g} over {count} examples from a plain loop, got {value.loss:.9g} over "
        f"{value.count}, and {walked:.9g} on a walk",
    )


def _off_center(subject: Subject) -> tuple[bool, str]:
    at = subject.somewhere
    nodes = [(0.0,) * len(at), at]
    got = evaluate(Walk({"": subject.risk}, subject.directions), nodes, progress=False)[at][""]["loss"]
    with torch.no_grad():
        for name, weights in subject.by_hand(at).items():
            subject.root.get_parameter(name).copy_(weights)
    expected, _ = subject.plain()
    passed = math.isclose(got, expected, rel_tol=1e-3, abs_tol=1e-6) or (math.isnan(got) and math.isnan(expected))
    where = ", ".join(f"{coordinate:g}" for coordinate in at)
    return passed, f"at ({where}) expected {expected:.9g} from weights set by hand, got {got:.9g} on a walk"


def _two_passes(subject: Subject) -> tuple[bool, str]:
    # In the plain loop the random stream runs on from pass to pass; the risk gives back what it draws.
    plain = [subject.plain()[0], subject.plain()[0]]
    subject.before.put_back()
    risks = [subject.risk().loss, subject.risk().loss]
    bitwise = plain[0] == plain[1] and risks[0] == risks[1]
    return (
        _close(*plain) and _close(*risks),
        f"{plain[0]:.9g} and {plain[1]:.9g} from plain loops, {risks[0]:.9g} and {risks[1]:.9g} from the risk "
        f"({'bit for bit the same' if bitwise else f'not bit for bit; up to {_SAME:g} of the loss is allowed'})",
    )


class _DeliberateError(Exception):
    """Raised to see what an exception leaves behind."""


def _restored(subject: Subject) -> tuple[bool, str]:
    found: dict[str, list[str]] = {}
    nodes = [subject.somewhere, (0.5,) * len(subject.directions)]
    evaluate(Walk({"": subject.risk}, subject.directions), nodes, progress=False)
    found["after moves"] = subject.before.changes()
    subject.before.put_back()

    with contextlib.suppress(_DeliberateError), subject.risk.along(subject.directions) as move:
        move(subject.somewhere)
        raise _DeliberateError
    found["after an exception between moves"] = subject.before.changes()
    subject.before.put_back()

    def blow(_module: nn.Module, _args: Any) -> None:
        raise _DeliberateError

    handle = subject.risk.model.register_forward_pre_hook(blow)
    try:
        with contextlib.suppress(_DeliberateError):
            evaluate(Walk({"": subject.risk}, subject.directions), nodes, progress=False)
    finally:
        handle.remove()
    found["after an exception in the model"] = subject.before.changes()
    wrong = [f"{when}: {some(changes)}" for when, changes in found.items() if changes]
    same = "weights, buffers, training flags, requires_grad and .grad are bit for bit the same"
    return not wrong, "; ".join(wrong) or f"{same} {', '.join(found)}"


def _rows(subject: Subject) -> tuple[bool, str]:
    point = subject.risk.parameters()
    worst, where = 0.0, ""
    kinds: dict[str, list[int]] = {}
    wrong = []
    for name in sorted(subject.names, key=list(point).index):
        expected = norms_of(filters_of(subject.root, name, point[name]))
        kinds.setdefault(point.roles[name].kind, []).append(len(expected))
        resolution = torch.finfo(point[name].dtype)
        floor = float(resolution.tiny * resolution.eps * point[name].numel() ** 0.5)
        for index, direction in enumerate(subject.directions):
            if name not in direction:
                continue
            got = norms_of(filters_of(subject.root, name, direction[name]))
            deviations = np.abs(got - expected) / np.maximum(expected, floor)
            deviations[np.abs(got - expected) <= floor] = 0.0
            row = int(np.argmax(deviations))
            if deviations[row] > worst:
                worst, where = float(deviations[row]), f" ({name}, filter {row})"
            if deviations[row] > max(_SAME, 4 * resolution.eps):
                wrong.append(
                    f"{name}, filter {row} of direction {index}: expected {expected[row]:.6g}, got {got[row]:.6g}"
                )
    counted = ", ".join(f"{len(counts)} {kind} ({sum(counts)} filters)" for kind, counts in kinds.items())
    if wrong:
        return False, f"{some(wrong)}; of {counted}"
    return True, f"{counted}; largest relative deviation {worst:.2g}{where}"


def _cosine(subject: Subject) -> tuple[bool, str]:
    passed, parts = True, []
    for i, j in itertools.combinations(range(len(subject.directions)), 2):
        cosine, spread = _cosine_and_spread(subject.root, subject.directions[i], subject.directions[j])
        passed = passed and abs(cosine) <= 5 * spread and abs(cosine) < 0.999
        parts.append(f"{cosine:.3g} between directions {i} and {j}, expected 0 ± {spread:.2g} of independent ones")
    return passed, "; ".join(parts)


def _cosine_and_spread(root: nn.Module, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, float]:
    product = variance = 0.0
    for name in one.keys() & other.keys():
        a, b = (filters_of(root, name, direction[name]) for direction in (one, other))
        product += sum(float(np.sum(x * y)) for x, y in zip(a, b, strict=True))
        # Independent unit vectors of n entries have an inner product of mean 0 and variance 1/n.
        variance += float(np.sum(np.square(norms_of(a) * norms_of(b)) / [x.size for x in a]))
    lengths = math.prod(math.sqrt(sum(float(t.double().square().sum()) for t in d.values())) for d in (one, other))
    return (product / lengths, math.sqrt(variance) / lengths) if lengths else (math.nan, math.nan)


def _moves(subject: Subject) -> tuple[bool, str]:
    at = (0.5, -0.25, 0.125)[: len(subject.directions)] + (0.0,) * (len(subject.directions) - 3)
    expected = subject.by_hand(at)
    start = subject.by_hand((0.0,) * len(at))
    with subject.risk.along(subject.directions) as move:
        move(at)
        got = {name: subject.root.get_parameter(name).detach().clone() for name in expected}
    wrong = []
    for name, tensor in expected.items():
        # Rounding of each term to the parameter's type.
        size = start[name].abs()
        for coordinate, direction in zip(at, subject.directions, strict=True):
            size = size + (abs(coordinate) * direction[name].double().abs() if name in direction else 0.0)
        allowed = 4 * torch.finfo(got[name].dtype).eps * size + torch.finfo(got[name].dtype).tiny
        error = (got[name].double() - tensor).abs()
        if not bool((error <= allowed).all()):
            wrong.append(f"{name} is off by {float(error.max()):.3g}, allowed {float(allowed.max()):.2g}")
    return not wrong, some(wrong) or f"{len(expected)} tensors are where the coordinates say, each moved once"


def _tied(subject: Subject) -> tuple[bool, str]:
    tensors = dict(subject.root.named_parameters(remove_duplicate=False))
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            groups.setdefault(tensor.data_ptr(), []).append(name)
    tied = [names for names in groups.values() if len(names) > 1]
    wrong = [
        f"{' and '.join(names)} share memory and both move"
        for names in tied
        if sum(name in subject.names for name in names) > 1
    ]
    with subject.risk.along(subject.directions) as move:
        move(subject.somewhere)
        for names in tied:
            now = [subject.root.get_parameter(name) for name in names]
            if any(one is not tensors[name] for one, name in zip(now, names, strict=True)):
                wrong.append(f"{' and '.join(names)} are no longer the tensors they were")
            if any(one.shape == now[0].shape and not same_bits(one, now[0]) for one in now):
                wrong.append(f"{' and '.join(names)} come apart")
    return not wrong, some(wrong) or "; ".join(
        f"{' = '.join(names)}, moved once" for names in tied
    ) or "no tied weights"


def _rest(subject: Subject) -> tuple[bool, str]:
    aliases = {name: tensor.data_ptr() for name, tensor in subject.root.named_parameters(remove_duplicate=False)}
    moving = {aliases[name] for name in subject.names}
    prefix = "" if subject.root is subject.risk.model else "_orig_mod."
    beside = {prefix + name for name, place in aliases.items() if place in moving}
    with subject.risk.along(subject.directions) as move:
        move(subject.somewhere)
        changed = subject.before.changed_tensors(beside)
    still = sum(1 for _ in subject.root.named_parameters()) - len(subject.names)
    buffers = sum(1 for _ in subject.root.named_buffers())
    return not changed, some(changed) or f"{still} parameters and {buffers} buffers stay put"


CHECKS: dict[str, Callable[[Subject], tuple[bool, str]]] = {
    "center": _center,
    "off center": _off_center,
    "two passes": _two_passes,
    "restored": _restored,
    "filter norms": _rows,
    "cosine": _cosine,
    "moves": _moves,
    "tied weights": _tied,
    "the rest": _rest,
    "loss follows weights": loss_follows_weights,
}


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=1e-12)
