"""The filters of each kind of layer, by loops over slices."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

__all__ = ["filters_of", "norms_of"]


def filters_of(root: nn.Module, name: str, tensor: Tensor) -> list[np.ndarray]:
    """The filters of a parameter, one slice each, by what its layer says of itself."""
    values = tensor.detach().double().cpu().numpy()
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


def norms_of(slices: Sequence[np.ndarray]) -> np.ndarray:
    """The L2 norm of each slice."""
    return np.array([math.sqrt(float(np.sum(slice_ * slice_))) for slice_ in slices])
