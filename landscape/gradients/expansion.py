"""The rise of the loss under perturbations of one site, beside the terms of its expansion."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from landscape.gradients.perturbations import Perturbation, Perturbations, Settings, row_norms
from landscape.gradients.rises import batches_of, forward_passes, rises, rises_along
from landscape.gradients.sites import Activation
from landscape.risk import EmpiricalRisk

__all__ = ["of_activation", "of_parameter"]

_TOGETHER = 8  # Hessian-vector products that share a graph, and so directions in memory


def of_activation(risk: EmpiricalRisk, site: str, settings: Settings) -> pd.DataFrame:
    """Rises and terms at an activation, where each example is perturbed along its own gradient.

    Returns:
        One row for each epsilon and perturbation.
    """
    activation = Activation(risk, site)
    perturbations = Perturbations(site, settings)
    totals = _Totals(settings.epsilons)
    with forward_passes(risk):
        for batch in batches_of(risk):
            # The draws are made twice, here from a copy of their streams: the graph must be gone before buffers that
            # it holds are given back, and all directions of a batch at once would need much memory.
            value, gradient = _terms_of_batch(risk, activation, batch, copy.deepcopy(perturbations), totals)
            _rises_of_batch(risk, activation, batch, perturbations.of(gradient, value), totals)
    return totals.table(risk.count, risk.count)


def _terms_of_batch(
    risk: EmpiricalRisk, activation: Activation, batch: Any, perturbations: Perturbations, totals: _Totals
) -> tuple[Tensor, Tensor]:
    with risk.differentiable():
        value, gradient = activation.value_and_gradient(batch, create_graph=True)
        flat = gradient.detach()
        for one in perturbations.of(flat, value.detach()):
            totals.add_terms(one, flat, _curved(value, gradient, one.direction))
        return value.detach(), flat


def _curved(value: Tensor, gradient: Tensor, direction: Tensor) -> Tensor:
    """Each example's own Hessian times its row of the direction."""
    if not gradient.requires_grad:  # the loss is linear in the activation
        return torch.zeros_like(direction)
    return torch.autograd.grad(gradient, value, direction, retain_graph=True, materialize_grads=True)[0]


def _rises_of_batch(
    risk: EmpiricalRisk, activation: Activation, batch: Any, perturbations: Iterable[Perturbation], totals: _Totals
) -> None:
    with activation.moved() as move:
        losses = functools.partial(risk.losses, risk.eager, batch)
        base = losses()
        for one in perturbations:

            def move_to(epsilon: float, direction: Tensor = one.direction) -> None:
                move(direction, epsilon)

            totals.add_rises(one, rises(losses, base, move_to, totals.epsilons))


def of_parameter(risk: EmpiricalRisk, name: str, gradient: Tensor, settings: Settings) -> pd.DataFrame:
    """Rises and terms at a parameter, which is perturbed along the gradient of the mean loss.

    Returns:
        One row for each epsilon and perturbation.
    """
    value = dict(risk.eager.named_parameters())[name].detach()
    totals = _Totals(settings.epsilons)
    row = gradient[None]  # a parameter is one row
    perturbations = Perturbations(name, settings).of(row, value[None])
    while chunk := list(itertools.islice(perturbations, _TOGETHER)):
        directions = [{name: one.direction[0]} for one in chunk]
        for one, direction, product in zip(chunk, directions, risk.hessian_products(directions), strict=True):
            totals.add_terms(one, row, product[name][None])
            for risen, _ in rises_along(risk, direction, settings.epsilons):
                totals.add_rises(one, risen)
    return totals.table(1, risk.count)


class _Totals:
    """Sums over rows and batches: terms at epsilon 1 and rises, for each perturbation."""

    def __init__(self, epsilons: Sequence[float]) -> None:
        self.epsilons = epsilons
        self._terms: dict[tuple[str, int], np.ndarray] = {}
        self._rises: dict[tuple[str, int], np.ndarray] = {}

    def add_terms(self, one: Perturbation, gradient: Tensor, curved: Tensor) -> None:
        """Add rows with this gradient, and with this product of their Hessian and the direction."""
        direction = one.direction.double()
        first, second = (direction * gradient).sum(), 0.5 * (direction * curved).sum()
        sums = [row_norms(direction).sum(), first, second, one.eq_12.sum(), one.expected_first_order.sum()]
        _add(self._terms, one, torch.stack(sums))

    def add_rises(self, one: Perturbation, risen: Tensor) -> None:
        """Add the rises of the sum of a batch's losses, one for each epsilon."""
        _add(self._rises, one, risen)

    def table(self, rows: int, examples: int) -> pd.DataFrame:
        """The means: of terms over rows, of rises over examples."""
        epsilons = np.array(self.epsilons)
        tables = []
        for (kind, draw), terms in self._terms.items():
            norm, first, second, eq_12, expected = terms / rows
            columns = {
                "epsilon": epsilons,
                "perturbation": kind,
                "draw": draw,
                "norm": norm * epsilons,
                "rise": self._rises[kind, draw] / examples,
                "first_order": first * epsilons,
                "second_order": second * epsilons**2,
                "eq_12": eq_12 * epsilons,
                "expected_first_order": expected * epsilons,
            }
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables).sort_values("epsilon", kind="stable")


def _add(sums: dict[tuple[str, int], np.ndarray], one: Perturbation, numbers: Tensor) -> None:
    key = one.kind, one.draw
    sums[key] = sums.get(key, 0.0) + numbers.cpu().numpy()
