"""Uphill in weight space: loss and gradient from one pass, and projected gradient ascent within a ball."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from landscape.evaluation import derivatives
from landscape.evaluation.totals import Totals
from landscape.flatness.draws import draw_direction
from landscape.parameters import norm
from landscape.risk import EmpiricalRisk

__all__ = ["Ball", "Slope", "Step", "loss_like_slope", "slope"]

Tensors = Mapping[str, Tensor]


class Slope(NamedTuple):
    """The mean loss at a point over a number of examples, and its gradient there."""

    loss: float
    gradient: Tensors
    examples: int


def slope(risk: EmpiricalRisk, batch: Any = None) -> Slope:
    """Loss and gradient at the model's present weights, from one forward and backward pass.

    Args:
        risk: the function.
        batch: average over the examples of this batch alone, which is on the model's device; None: over all.
    """
    parameters = dict(risk.eager.named_parameters())
    arguments = {name: parameters[name] for name in risk.matching_parameters("*")}
    total = Totals()

    def terms() -> Iterator[Tensor]:
        for losses in _losses(risk, batch):
            total.add(losses, {})
            yield losses.sum() / (risk.count if batch is None else len(losses))

    with risk.differentiable():
        gradient = derivatives.gradient(terms(), arguments)
    value = total.value()
    return Slope(value.loss, gradient, value.count)


def loss_like_slope(risk: EmpiricalRisk, batch: Any = None) -> float:
    """The loss alone, by the same kernels as :func:`slope`: their difference has no other rounding errors.

    Args:
        risk: the function.
        batch: as for :func:`slope`.
    """
    total = Totals()
    with risk.differentiable(), torch.no_grad():
        for losses in _losses(risk, batch):
            total.add(losses, {})
    return total.value().loss


def _losses(risk: EmpiricalRisk, batch: Any) -> Iterator[Tensor]:
    return risk.example_losses() if batch is None else iter([risk.losses(risk.eager, batch)])


class Step(NamedTuple):
    """One step of an ascent.

    Attributes:
        rise: of the loss above the center's, where this step went; infinite if the loss there is not finite.
        highest: of the rises so far, at least 0, that of the center itself.
    """

    rise: float
    highest: float


@dataclasses.dataclass(frozen=True)
class Ball:
    r"""Ascent of a risk within :math:`\lVert T^{-1} e \rVert_2 \le \rho` around the model's weights.

    In the coordinates :math:`u = T^{-1} e` this is a Euclidean ball, and the gradient is :math:`T g`.

    Attributes:
        risk: the function.
        center: loss and gradient at the model's weights, which all radii share.
        scale: the diagonal of :math:`T` by parameter, in shapes that broadcast; None: the identity.
        seed: of the first heading where the gradient at the center vanishes.
    """

    risk: EmpiricalRisk
    center: Slope
    scale: Tensors | None = None
    seed: int = 0

    @property
    def steepness(self) -> float:
        r"""The norm :math:`\lVert T g \rVert_2` at the center: to first order the rise is this times the radius."""
        return norm(self._scaled(self.center.gradient))

    def ascend(self, rho: float, count: int) -> Iterator[Step]:
        r"""Take steps uphill, starting at the center.

        The first step is :math:`\rho \, T g / \lVert T g \rVert_2`. Each further one goes from the best point so far
        along its normalized gradient, by twice the radius, and is projected onto the ball; after a step that finds
        nothing higher the next one is half as long, and after one that does, twice as long again up to that limit.
        Long steps on a sphere are nearly power iterations, which never descend if the risk is convex; short ones find
        a maximum inside the ball.

        Args:
            rho: the radius.
            count: of steps, each a forward and backward pass, the last one without its backward pass.

        Yields:
            Each step.
        """
        place: Tensors = {}
        heading = _unit(self._scaled(self.center.gradient)) or self._random_heading()
        length, limit, highest = rho, 2 * rho, 0.0
        for left in reversed(range(count)):
            if not heading:  # the top, or where the loss is not finite
                yield Step(highest, highest)
                continue
            trial = _projected(_moved(place, heading, length), rho)
            loss, gradient = self._there(trial, with_gradient=left > 0)
            rise = loss - self.center.loss if math.isfinite(loss) else math.inf
            if rise > highest:
                highest, place, length = rise, trial, min(2 * length, limit)
                heading = _unit(self._scaled(gradient)) if math.isfinite(rise) else {}
            else:
                length /= 2
            yield Step(rise, highest)

    def _there(self, place: Tensors, with_gradient: bool) -> tuple[float, Tensors]:
        with self.risk.along([self._scaled(place)]) as move:
            move([1.0])
            return slope(self.risk)[:2] if with_gradient else (loss_like_slope(self.risk), {})

    def _scaled(self, tensors: Tensors) -> Tensors:
        if self.scale is None:
            return tensors
        return {name: tensor * self.scale[name] for name, tensor in tensors.items()}

    def _random_heading(self) -> Tensors:
        return _unit(draw_direction(self.risk.parameters(), self.seed, 0))


def _unit(tensors: Tensors) -> Tensors:
    """The direction; empty if there is none."""
    length = norm(tensors)
    if length == 0 or not math.isfinite(length):
        return {}
    return {name: tensor / length for name, tensor in tensors.items()}


def _moved(place: Tensors, heading: Tensors, length: float) -> Tensors:
    """An offset plus a step; no offset is that of the center."""
    if not place:
        return {name: length * tensor for name, tensor in heading.items()}
    return {name: torch.add(tensor, heading[name], alpha=length) for name, tensor in place.items()}


def _projected(place: Tensors, rho: float) -> Tensors:
    length = norm(place)
    return place if length <= rho else {name: tensor * (rho / length) for name, tensor in place.items()}
