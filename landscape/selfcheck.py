"""A self-test on the user's own model: whether what a surface would show is the model's loss, and along what.

Each check takes another road than the code that it looks at: losses are summed in a plain loop, norms of filters by
loops over slices, weights are put in place by hand. A model can defeat a surface without an error (it caches or packs
its weights, draws random numbers, counts its calls), and then the surface looks like any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from landscape.batches import moved
from landscape.directions import random_directions
from landscape.risk import EmpiricalRisk
from landscape.walk import Walk, evaluate

__all__ = ["CHECKS", "CheckReport", "CheckResult", "check"]

_SAME = 1e-5  # relative; what two summation orders of float32 losses may differ by
_PROBES = 8  # sums of a batch's losses with random signs whose derivatives are compared
_DISTANCES = (0.0, 0.5, 1.0)  # along a direction, where slopes are compared, until they agree
_STEPS = tuple(2.0**-k for k in range(5, 13))


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it passed, and the numbers."""

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.detail}"


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found.

    Attributes:
        results: one for each check.
        moved: one row a parameter: ``parameter``, ``kind``, ``shape``, ``filters``, ``weight_norm``,
            ``direction_norm_0`` … (one for each direction), ``moved``, ``why_not``, and ``share`` of all the model's
            weights.
    """

    results: tuple[CheckResult, ...]
    moved: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(result.passed for result in self.results)

    def __str__(self) -> str:
        failed = [result.name for result in self.results if not result.passed]
        share = self.moved.loc[self.moved["moved"], "share"].sum()
        return "\n".join(
            [
                *map(str, self.results),
                "",
                self.moved.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="-"),
                "",
                f"{share:.1%} of the weights move",
                f"failed: {', '.join(failed)}" if failed else f"all {len(self.results)} checks passed",
            ]
        )


def check(risk: EmpiricalRisk, directions: Sequence[Mapping[str, Tensor]] | None = None, seed: int = 0) -> CheckReport:
    """Test whether a surface of this risk along these directions can be trusted.

    Costs about a dozen passes over the data, and for each tensor that moves a few passes over the first batch. An
    error that a check runs into is a failure of that check. The model is bit for bit the same afterwards, also where
    a check found that something had changed it.

    A parameter that moves though no loss depends on it fails too, as it cannot be told from one that the model keeps a
    copy of: leave it out with ``EmpiricalRisk(parameters=…)`` or ``random_directions(ignore=…)``.

    Args:
        risk: what would be drawn.
        directions: along what, filter-normalized; None: two random ones.
        seed: of random directions, and of what the checks draw.

    Raises:
        ValueError: no direction, or one that does not fit the risk.
    """
    if directions is None:
        directions = random_directions(risk.parameters(), seed=seed)
    if not directions:
        raise ValueError("directions: expected at least one, got none")
    before = _State(risk.model)
    subject = _Subject(risk, directions, seed, before)
    random_state = torch.get_rng_state()
    results = []
    try:
        with risk.along(directions):  # raises for what does not fit
            pass
        before.put_back()
        table = _moved(subject)
        for name, one in CHECKS.items():
            if name == "cosine" and len(directions) < 2:
                continue
            try:
                passed, detail = one(subject)
            except Exception as error:  # whatever the model raises is a finding, and the other checks go on
                passed, detail = False, f"stopped by {type(error).__name__}: {error}"
            results.append(CheckResult(name, passed, detail))
            before.put_back()
    finally:
        before.put_back()
        torch.set_rng_state(random_state)
    return CheckReport(tuple(results), table)


class _State:
    """Everything that must be the same afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self._training = [(name or "the model", module, module.training) for name, module in model.named_modules()]
        self._slots = [
            (f"{path}.{name}".lstrip("."), slots, name, tensor, tensor.detach().clone(), tensor.requires_grad)
            for path, module in model.named_modules()
            for slots in (module._parameters, module._buffers)
            for name, tensor in slots.items()
            if tensor is not None
        ]
        self._gradients = [
            (name, parameter, parameter.grad, None if parameter.grad is None else parameter.grad.detach().clone())
            for name, parameter in model.named_parameters()
        ]

    def changes(self) -> list[str]:
        """What is not as it was."""
        return [
            *self.changed_tensors(),
            *(f"requires_grad of {name}" for name, *_, tensor, _, flag in self._slots if tensor.requires_grad != flag),
            *(f"training of {name}" for name, module, flag in self._training if module.training != flag),
            *(f".grad of {name}" for name, weight, *kept in self._gradients if not _same_gradient(weight, *kept)),
        ]

    def changed_tensors(self, beside: Collection[str] = ()) -> list[str]:
        """Parameters and buffers that are not as they were, beside those of these names."""
        return [
            f"{name} is {'changed' if slots.get(local) is tensor else 'another tensor'}"
            for name, slots, local, tensor, saved, _ in self._slots
            if name not in beside and not (slots.get(local) is tensor and _same_bits(tensor, saved))
        ]

    def put_back(self) -> None:
        """Undo what a check found, or did."""
        with torch.no_grad():
            for _, slots, local, tensor, saved, flag in self._slots:
                if not _same_bits(tensor, saved):
                    tensor.copy_(saved)
                if tensor.requires_grad != flag:
                    tensor.requires_grad_(flag)
                slots[local] = tensor
            for _, parameter, gradient, saved_gradient in self._gradients:
                if not _same_gradient(parameter, gradient, saved_gradient):
                    parameter.grad = gradient
                    if gradient is not None and saved_gradient is not None:
                        gradient.copy_(saved_gradient)
        for _, module, flag in self._training:
            module.training = flag


@dataclasses.dataclass(frozen=True)
class _Subject:
    risk: EmpiricalRisk
    directions: Sequence[Mapping[str, Tensor]]
    seed: int
    before: _State

    @property
    def root(self) -> nn.Module:
        """The module that names its parameters, also below a compiled one."""
        return self.risk.eager

    @property
    def names(self) -> set[str]:
        return {name for direction in self.directions for name in direction}

    @property
    def somewhere(self) -> tuple[float, ...]:
        """Coordinates off the center, another one for each direction."""
        return tuple(0.1 * (-0.5) ** index for index in range(len(self.directions)))

    def by_hand(self, coordinates: Sequence[float]) -> dict[str, Tensor]:
        """Weights at these coordinates, in float64."""
        weights = {name: self.root.get_parameter(name).detach().double() for name in self.names}
        for coordinate, direction in zip(coordinates, self.directions, strict=True):
            for name, step in direction.items():
                weights[name] = weights[name] + coordinate * step.double()
        return weights

    def losses(self, model: nn.Module) -> Iterator[Tensor]:
        """Losses of each batch, by a plain loop in the caller's mode."""
        device = next(self.root.parameters()).device
        torch.clear_autocast_cache()  # an autocast block around us keeps copies of weights from before they were moved
        for batch in self.risk.used_batches():
            yield self.risk.losses(model, moved(batch, device))

    def plain(self) -> tuple[float, int]:
        """The mean loss and the number of examples, by a plain loop in evaluation mode."""
        self.risk.model.eval()
        torch.clear_autocast_cache()
        self.risk.reestimate()
        total, count = 0.0, 0
        with torch.no_grad():
            for losses in self.losses(self.risk.model):
                total += float(losses.double().sum())
                count += len(losses)
        return total / max(count, 1), count


def _moved(subject: _Subject) -> pd.DataFrame:
    point = subject.risk.parameters()
    ignored = {name for d in subject.directions for name in getattr(d, "about", {}).get("ignored", ())}
    everything = dict(subject.root.named_parameters())
    total = sum(tensor.numel() for tensor in everything.values())
    rows = []
    for name, tensor in everything.items():
        norms = [float(d[name].double().norm()) if name in d else 0.0 for d in subject.directions]
        moves = any(norm > 0 for norm in norms)
        if moves:
            reason = ""
        elif name in subject.names:
            reason = "the direction is zero, as the weights are" if not tensor.any() else "the direction is zero"
        elif name in ignored:
            reason = f"ignored ({point.roles[name].kind})" if name in point else "ignored"
        elif name not in point:
            reason = "not among the risk's parameters" if tensor.requires_grad else "requires no gradient"
        else:
            reason = "no direction names it"
        rows.append(
            {
                "parameter": name,
                "kind": point.roles[name].kind if name in point else "-",
                "shape": "×".join(map(str, tensor.shape)) or "scalar",
                "filters": len(_filters(subject.root, name, _array(tensor))),
                "weight_norm": float(tensor.detach().double().norm()),
            }
            | {f"direction_norm_{index}": norm for index, norm in enumerate(norms)}
            | {"moved": moves, "why_not": reason, "share": tensor.numel() / total}
        )
    return pd.DataFrame(rows)


def _center(subject: _Subject) -> tuple[bool, str]:
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


def _off_center(subject: _Subject) -> tuple[bool, str]:
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


def _two_passes(subject: _Subject) -> tuple[bool, str]:
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


def _restored(subject: _Subject) -> tuple[bool, str]:
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
    wrong = [f"{when}: {_some(changes)}" for when, changes in found.items() if changes]
    same = "weights, buffers, training flags, requires_grad and .grad are bit for bit the same"
    return not wrong, "; ".join(wrong) or f"{same} {', '.join(found)}"


def _rows(subject: _Subject) -> tuple[bool, str]:
    point = subject.risk.parameters()
    worst, where = 0.0, ""
    kinds: dict[str, list[int]] = {}
    wrong = []
    for name in sorted(subject.names, key=list(point).index):
        expected = _norms(_filters(subject.root, name, _array(point[name])))
        kinds.setdefault(point.roles[name].kind, []).append(len(expected))
        resolution = torch.finfo(point[name].dtype)
        floor = float(resolution.tiny * resolution.eps * point[name].numel() ** 0.5)
        for index, direction in enumerate(subject.directions):
            if name not in direction:
                continue
            got = _norms(_filters(subject.root, name, _array(direction[name])))
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
        return False, f"{_some(wrong)}; of {counted}"
    return True, f"{counted}; largest relative deviation {worst:.2g}{where}"


def _cosine(subject: _Subject) -> tuple[bool, str]:
    passed, parts = True, []
    for i, j in itertools.combinations(range(len(subject.directions)), 2):
        cosine, spread = _cosine_and_spread(subject.root, subject.directions[i], subject.directions[j])
        passed = passed and abs(cosine) <= 5 * spread and abs(cosine) < 0.999
        parts.append(f"{cosine:.3g} between directions {i} and {j}, expected 0 ± {spread:.2g} of independent ones")
    return passed, "; ".join(parts)


def _cosine_and_spread(root: nn.Module, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, float]:
    product = variance = 0.0
    for name in one.keys() & other.keys():
        a, b = (_filters(root, name, _array(direction[name])) for direction in (one, other))
        product += sum(float(np.sum(x * y)) for x, y in zip(a, b, strict=True))
        # Independent unit vectors of n entries have an inner product of mean 0 and variance 1/n.
        variance += float(np.sum(np.square(_norms(a) * _norms(b)) / [x.size for x in a]))
    lengths = math.prod(math.sqrt(sum(float(np.sum(_array(t) ** 2)) for t in d.values())) for d in (one, other))
    return (product / lengths, math.sqrt(variance) / lengths) if lengths else (math.nan, math.nan)


def _moves(subject: _Subject) -> tuple[bool, str]:
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
    return not wrong, _some(wrong) or f"{len(expected)} tensors are where the coordinates say, each moved once"


def _tied(subject: _Subject) -> tuple[bool, str]:
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
            if any(one.shape == now[0].shape and not _same_bits(one, now[0]) for one in now):
                wrong.append(f"{' and '.join(names)} come apart")
    return not wrong, _some(wrong) or "; ".join(
        f"{' = '.join(names)}, moved once" for names in tied
    ) or "no tied weights"


def _rest(subject: _Subject) -> tuple[bool, str]:
    aliases = {name: tensor.data_ptr() for name, tensor in subject.root.named_parameters(remove_duplicate=False)}
    moving = {aliases[name] for name in subject.names}
    prefix = "" if subject.root is subject.risk.model else "_orig_mod."
    beside = {prefix + name for name, place in aliases.items() if place in moving}
    with subject.risk.along(subject.directions) as move:
        move(subject.somewhere)
        changed = subject.before.changed_tensors(beside)
    still = sum(1 for _ in subject.root.named_parameters()) - len(subject.names)
    buffers = sum(1 for _ in subject.root.named_buffers())
    return not changed, _some(changed) or f"{still} parameters and {buffers} buffers stay put"


def _follows(subject: _Subject) -> tuple[bool, str]:
    """Whether the losses change with the weights as the gradient says, for each tensor and for all of them together.

    At a minimum the gradient of the mean is zero, and a comparison says nothing. So derivatives of sums of the first
    batch's losses with random signs are compared, which vanish only if each example's does; and where the two do not
    agree, as these are lost in rounding too, they are compared again away from the center: a model that does not follow
    its weights does so nowhere. Central differences at a step and at half of it tell whether both
    are in the linear range; the jump between the one-sided slopes tells kinks at the point itself; second differences
    at a few units of rounding tell the noise of a loss (Moré and Wild, "Estimating Computational Noise", 2011). Where
    these errors are not small beside the derivative, nothing is concluded.
    """
    direction = subject.directions[0]
    parts: dict[str, Mapping[str, Tensor]] = {"all tensors together": direction}
    parts |= {name: {name: step} for name, step in direction.items() if step.any()}
    told: list[str] = []
    wrong: dict[str, str] = {}
    untold, silent = dict(parts), set(parts)
    for distance in _DISTANCES:
        if not untold:
            break
        slopes = _Slopes(subject, distance)
        for what, part in list(untold.items()):
            comparison = slopes.compare(part)
            if comparison.responds or slopes.reached & part.keys():
                silent.discard(what)
            if comparison.agrees:
                told.append(str(comparison))
                wrong.pop(what, None)
                del untold[what]
            elif comparison.agrees is False:
                wrong.setdefault(what, f"{what}: {comparison}")
    for what in silent:
        wrong[what] = (
            f"no loss changes when {what} moves: the model keeps a copy (cached, packed, detached), or does not use it "
            "(leave it out with parameters= or ignore=)"
        )
    if wrong:
        return False, _some([wrong[what] for what in parts if what in wrong])
    return True, (
        f"{len(told)} of {len(parts)} slopes agree with differences"
        + (f", such as {told[0]}" if told else "")
        + (f"; too small or too rough to tell, though losses move: {_some(list(untold))}" if untold else "")
    )


@dataclasses.dataclass(frozen=True)
class _Comparison:
    responds: bool
    agrees: bool | None = None
    step: float = math.nan
    difference: float = math.nan
    gradient: float = math.nan
    error: float = math.nan

    def __str__(self) -> str:
        return (
            f"{self.difference:.6g} by central difference (mean of the first batch, step {self.step:.3g}) and "
            f"{self.gradient:.6g} by its gradient; examples' slopes differ by {self.error:.2g}"
        )


class _Slopes:
    """Derivatives of the first batch's losses along parts of the first direction, at a distance along it, in two ways.

    Attributes:
        reached: the parameters that the gradient reaches.
    """

    def __init__(self, subject: _Subject, distance: float) -> None:
        self.subject, self.risk = subject, subject.risk
        direction = subject.directions[0]
        self.base = subject.by_hand([distance] + [0.0] * (len(subject.directions) - 1)) if distance else {}
        model, draws = subject.root, torch.Generator().manual_seed(subject.seed)
        names = list(direction)
        weights = [model.get_parameter(name) for name in names]
        with self.risk.at(self.base), self.risk.differentiable():
            losses = next(subject.losses(model))
            signs = torch.randint(2, (_PROBES, len(losses)), generator=draws).double() * 2 - 1
            self.sums = torch.cat([torch.full((1, len(losses)), 1 / len(losses), dtype=torch.float64), signs])
            # One row for each sum of losses, first of them the mean; one column for each tensor.
            self.gradients: dict[str, list[float]] = {name: [] for name in names}
            self.reached: set[str] = set()
            for row in self.sums.to(losses):
                found: Sequence[Tensor | None] = [None] * len(weights)
                if losses.requires_grad:
                    found = torch.autograd.grad((row * losses).sum(), weights, retain_graph=True, allow_unused=True)
                for name, gradient in zip(names, found, strict=True):
                    if gradient is not None:
                        self.reached.add(name)
                    slope = 0.0 if gradient is None else float((gradient.double() * direction[name].double()).sum())
                    self.gradients[name].append(slope)
        self.center = self._at(direction, [0.0])[0]
        eps = max(torch.finfo(weight.dtype).eps for weight in weights)
        above, below, *far = self._at(direction, [64 * eps, -64 * eps, 0.5, -0.5])
        second = (above - 2 * self.center + below).square() / 6
        # Losses near zero are differences of larger numbers, about as large as losses elsewhere, and change in steps of
        # the rounding of these.
        largest = float(torch.cat([self.center, *far]).abs().nan_to_num(posinf=0.0).max())
        rounding = 2 * torch.finfo(losses.dtype).eps * largest
        self.noise = float(second.nan_to_num(posinf=0.0).clamp(min=rounding**2).sum().sqrt())

    def compare(self, part: Mapping[str, Tensor]) -> _Comparison:
        """Gradient and central differences along a part of the direction, at the first step that tells."""
        gradients = np.sum([self.gradients[name] for name in part], axis=0)
        worst = None
        responds = False
        previous: tuple[np.ndarray, np.ndarray] | None = None
        sums = self.sums.numpy()
        for step in _STEPS:
            above, below = self._at(part, [step, -step])
            changes = not (_same_bits(above, self.center) and _same_bits(below, self.center))
            if responds and not changes:
                break  # from here on steps are lost in the rounding of the losses
            responds = responds or changes
            slopes = ((above - below) / (2 * step)).numpy()
            jumps = ((above - 2 * self.center + below) / step).numpy()
            if previous is not None and np.isfinite(slopes).all() and np.isfinite(previous[0]).all():
                size = max(_root_mean_square(gradients[1:]), float(np.linalg.norm(slopes)))
                nonlinear = float(np.linalg.norm(slopes - previous[0]))
                kinks = float(np.linalg.norm(2 * jumps - previous[1])) / 2
                allowed = 0.05 * size + 3 * (nonlinear + kinks) + 4 * self.noise / (math.sqrt(2) * step)
                error = _root_mean_square(gradients[1:] - sums[1:] @ slopes)
                if size > 0 and allowed <= 0.3 * size:
                    found = _Comparison(
                        responds, error <= allowed, step, float(sums[0] @ slopes), float(gradients[0]), error / size
                    )
                    if found.agrees:
                        return found
                    worst = found
            previous = slopes, jumps
        if worst is not None:
            return dataclasses.replace(worst, responds=responds)
        return _Comparison(responds or self._any_batch_responds(part))

    def _at(self, part: Mapping[str, Tensor], coordinates: Sequence[float]) -> list[Tensor]:
        found = []
        with self.risk.along([part], self.base) as move, self.risk.evaluation(), torch.no_grad():
            self.risk.reestimate()
            for coordinate in coordinates:
                move([coordinate])
                found.append(next(self.subject.losses(self.risk.model)).double().cpu())
        return found

    def _any_batch_responds(self, part: Mapping[str, Tensor]) -> bool:
        with self.risk.along([part], self.base) as move, self.risk.evaluation(), torch.no_grad():
            self.risk.reestimate()
            every = []
            for coordinate in (0.0, 0.5):
                move([coordinate])
                every.append([losses.clone() for losses in self.subject.losses(self.risk.model)])
        return any(not _same_bits(one, other) for one, other in zip(*every, strict=True))


CHECKS: dict[str, Callable[[_Subject], tuple[bool, str]]] = {
    "center": _center,
    "off center": _off_center,
    "two passes": _two_passes,
    "restored": _restored,
    "filter norms": _rows,
    "cosine": _cosine,
    "moves": _moves,
    "tied weights": _tied,
    "the rest": _rest,
    "loss follows weights": _follows,
}


def _filters(root: nn.Module, name: str, values: np.ndarray) -> list[np.ndarray]:
    """The filters of a parameter, one slice each, by what its layer says of itself."""
    path, _, local = name.rpartition(".")
    owner = root.get_submodule(re.sub(r"(^|\.)parametrizations\.\w+$", "", path))
    if values.ndim < 2 or local in ("bias_k", "bias_v"):
        return [values]
    match owner:
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            inputs, outputs = owner.in_channels // owner.groups, owner.out_channels // owner.groups
            if values.shape[:2] == (owner.in_channels, outputs):
                return [
                    values[group * inputs : (group + 1) * inputs, channel]
                    for group in range(owner.groups)
                    for channel in range(outputs)
                ]
        case nn.RNNBase() | nn.RNNCellBase():
            gates = max(len(values) // owner.hidden_size, 1)
            units = len(values) // gates
            return [values[gate * units + unit] for gate in range(gates) for unit in range(units)]
    return [values[row] for row in range(len(values))]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _norms(slices: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([math.sqrt(float(np.sum(slice_ * slice_))) for slice_ in slices])


def _same_gradient(parameter: nn.Parameter, gradient: Tensor | None, saved: Tensor | None) -> bool:
    if gradient is None or saved is None:
        return parameter.grad is None
    return parameter.grad is gradient and _same_bits(gradient, saved)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    a, b = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(a, b)


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=1e-12)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _some(items: Sequence[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more
