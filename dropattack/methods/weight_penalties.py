"""L1 and L2 regularization: a penalty on the weights, added to the loss."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropattack.arguments import check_nonnegative
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step
from dropattack.sites import find_parameters, matrix_names

__all__ = ["L1", "L2"]


class _WeightPenalty(Method):
    def __init__(self, model: nn.Module, coefficient: float = 1e-4, weights: Sequence[str] | None = None) -> None:
        super().__init__(model)
        chosen = matrix_names(self.model) if weights is None else weights
        self._weights = [site.parameter for site in find_parameters(self.model, chosen)]
        self.coefficient = check_nonnegative("coefficient", coefficient)

    @property
    def cost(self) -> Cost:
        """One pass."""
        return Cost(forwards=1, backwards=1)

    def _step(self, step: Step) -> StepRecord:
        return StepRecord(clean_loss=step.run(clean=True, objective=lambda loss: loss + self._penalty()))

    @abc.abstractmethod
    def _penalty(self) -> Tensor:
        """A scalar of the weights."""


class L1(_WeightPenalty):
    r"""The gradient of :math:`L + \lambda \sum \lvert w \rvert`; the subgradient at 0 is 0.

    Tibshirani, "Regression shrinkage and selection via the lasso", 1996.

    Cost: 1 forward and backward pass.

    Args:
        model: the network.
        coefficient: :math:`\lambda`; at least 0.
        weights: names or ``fnmatch`` patterns; None: every trainable parameter with two or more dimensions, so neither
            biases nor normalization layers.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative coefficient.
    """

    def _penalty(self) -> Tensor:
        return self.coefficient * torch.stack([weight.abs().sum() for weight in self._weights]).sum()


class L2(_WeightPenalty):
    r"""The gradient of :math:`L + \tfrac{\lambda}{2} \sum w^2`, added to the objective as the paper says.

    With Adam this is the coupled form (its ``weight_decay``), not AdamW's decoupled one.

    Cost: 1 forward and backward pass.

    Args:
        model: the network.
        coefficient: :math:`\lambda`; at least 0.
        weights: as for :class:`L1`.

    Raises:
        ValueError: a pattern without a trainable parameter, a negative coefficient.
    """

    def _penalty(self) -> Tensor:
        return self.coefficient / 2 * torch.stack([weight.square().sum() for weight in self._weights]).sum()
