"""The Hessian on a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from landscape.parameters import inner_product
from landscape.risk import EmpiricalRisk

__all__ = ["plane_hessian"]


def plane_hessian(risk: EmpiricalRisk, directions: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
    r"""The Hessian of the risk restricted to a plane, at the model's weights: :math:`d_i^\top H d_j`.

    It is exact, where the second derivatives of an interpolated surface are not: those magnify its errors.
    Cost: one Hessian-vector product for each direction, which share a forward and a backward pass.

    Args:
        risk: the function.
        directions: along which; what they do not name does not move.

    Returns:
        ``(n, n)``, in units of the loss for coordinates along the directions.
    """
    center = risk.parameters()
    moved = [name for name in center if any(name in direction for direction in directions)]
    still = {name: torch.zeros_like(center[name]) for name in moved}
    products = risk.hessian_products([still | dict(direction) for direction in directions])
    hessian = np.array([[inner_product(direction, product) for product in products] for direction in directions])
    return (hessian + hessian.T) / 2
