"""Agreement between the processes of a distributed job on one perturbation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["averaged", "from_first"]


def averaged(tensor: Tensor) -> Tensor:
    """The mean of the tensor over the processes of the default group."""
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def from_first(tensor: Tensor) -> Tensor:
    """The tensor of process 0, written into this one."""
    torch.distributed.broadcast(tensor, src=0)
    return tensor
