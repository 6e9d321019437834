"""Whether losses change with the weights as the gradient says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from landscape.selfcheck.subject import Subject, same_bits, some

__all__ = ["loss_follows_weights"]

_PROBES = 8  # sums of a batch's losses with random signs whose derivatives are compared
_DISTANCES = (0.0, 0.5, 1.0)  # along a direction, where slopes are compared, until they agree
_STEPS = tuple(2.0**-k for k in range(5, 13))


def loss_follows_weights(subject: Subject) -> tuple[bool, str]:
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
        slopes = Slopes(subject, distance)
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
        return False, some([wrong[what] for what in parts if what in wrong])
    return True, (
        f"{len(told)} of {len(parts)} slopes agree with differences"
        + (f", such as {told[0]}" if told else "")
        + (f"; too small or too rough to tell, though losses move: {some(list(untold))}" if untold else "")
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
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


class Slopes:
    """Derivatives of the first batch's losses along parts of the first direction, at a distance along it, in two ways.

    Attributes:
        reached: the parameters that the gradient reaches.
    """

    def __init__(self, subject: Subject, distance: float) -> None:
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

    def compare(self, part: Mapping[str, Tensor]) -> Comparison:
        """Gradient and central differences along a part of the direction, at the first step that tells."""
        gradients = np.sum([self.gradients[name] for name in part], axis=0)
        worst = None
        responds = False
        previous: tuple[np.ndarray, np.ndarray] | None = None
        sums = self.sums.numpy()
        for step in _STEPS:
            above, below = self._at(part, [step, -step])
            changes = not (same_bits(above, self.center) and same_bits(below, self.center))
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
                    found = Comparison(
                        responds, error <= allowed, step, float(sums[0] @ slopes), float(gradients[0]), error / size
                    )
                    if found.agrees:
                        return found
                    worst = found
            previous = slopes, jumps
        if worst is not None:
            return dataclasses.replace(worst, responds=responds)
        return Comparison(responds or self._any_batch_responds(part))

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
        return any(not same_bits(one, other) for one, other in zip(*every, strict=True))


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
