"""The highest rise within a box around the minimum, by L-BFGS-B."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor

from landscape.flatness.ascent import Slope, slope
from landscape.risk import EmpiricalRisk

__all__ = ["Box", "Search"]


class Search(NamedTuple):
    """The highest place that was seen.

    Attributes:
        rise: of the loss above the center's, at least 0, that of the center; infinite if a loss was not finite.
        converged: whether the optimizer ended by itself, and the rise is finite.
        iterations: of the optimizer.
        evaluations: of loss and gradient, besides those at the center.
        on_border: share of the coordinates of that place that lie on the border of the box.
    """

    rise: float
    converged: bool
    iterations: int
    evaluations: int
    on_border: float


class Box:
    r"""The box :math:`|z_i| \le \epsilon (|\theta_i| + 1)` around the weights, in shares, -1 to 1, of its sides.

    Args:
        risk: the function.
        center: its loss and gradient at the model's weights.
        radius: :math:`\epsilon`.
    """

    def __init__(self, risk: EmpiricalRisk, center: Slope, radius: float) -> None:
        self._risk = risk
        self._weights = risk.parameters()
        self._middle = _flat(self._weights)
        self._sides = radius * (np.abs(self._middle) + 1)
        self._loss = center.loss
        self._slopes_at_center = _flat(center.gradient) * self._sides
        self._evaluations = 0
        self._highest = 0.0
        self._place = np.zeros_like(self._middle)

    def search(self, iterations: int, seed: int) -> Search:
        """Look for the maximum, from the center; from a random place if the slope there is zero.

        Args:
            iterations: at most so many.
            seed: of the random place.
        """
        start = np.zeros_like(self._middle)
        if not self._slopes_at_center.any():
            start = np.random.default_rng(seed).uniform(-1, 1, len(start))
        # The unit of the loss: the first step, which is as long as the gradient, is then about as long as the box.
        unit = float(np.abs(self._rise(start)[1]).mean())
        ended, taken = True, 0
        if unit > 0:

            def depth(shares: np.ndarray) -> tuple[float, np.ndarray]:
                rise, slopes = self._rise(shares)
                return -rise / unit, -slopes / unit

            bounds = Bounds(np.full_like(start, -1.0), np.full_like(start, 1.0))
            result = minimize(depth, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations})
            ended, taken = bool(result.success), int(result.nit)
        on_border = float((np.abs(self._place) >= 1).mean())
        return Search(self._highest, ended and math.isfinite(self._highest), taken, self._evaluations, on_border)

    def _rise(self, shares: np.ndarray) -> tuple[float, np.ndarray]:
        """Rise and its slopes; flat where the loss is not finite, which ends the search."""
        if not shares.any():
            return 0.0, self._slopes_at_center
        self._evaluations += 1
        with self._risk.at(self._by_name(self._middle + shares * self._sides)):
            loss, gradient, _ = slope(self._risk)
        rise = loss - self._loss if math.isfinite(loss) else math.inf
        if rise > self._highest:
            self._highest, self._place = rise, shares.copy()
        slopes = _flat(gradient) * self._sides
        if not (math.isfinite(rise) and np.isfinite(slopes).all()):
            return 0.0, np.zeros_like(slopes)
        return rise, slopes

    def _by_name(self, vector: np.ndarray) -> dict[str, Tensor]:
        parts = torch.from_numpy(vector).split([tensor.numel() for tensor in self._weights.values()])
        return {
            name: part.reshape(like.shape).to(like.device, like.dtype)
            for (name, like), part in zip(self._weights.items(), parts, strict=True)
        }


def _flat(tensors: Mapping[str, Tensor]) -> np.ndarray:
    return torch.cat([tensor.double().flatten().cpu() for tensor in tensors.values()]).numpy()
