"""Steps uphill: directions of unit norm, Bernoulli masks, and the perturbation of Algorithm 1.

Norms are L2. Their scope is ``"example"`` (each example of the batch on its own), ``"tensor"`` (one norm for the
tensor) or ``"global"`` (one norm for all the tensors of an attack together).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Ball",
    "BallNorm",
    "NormScope",
    "bernoulli_mask",
    "generator_on",
    "global_step",
    "norms",
    "orthogonal_part",
    "random_like",
    "units",
]

NormScope = Literal["example", "tensor", "global"]
BallNorm = Literal["l2", "linf"]


def norms(tensors: Sequence[Tensor], scope: NormScope, batch_dim: int = 0) -> list[Tensor]:
    """L2 norms that broadcast against the tensors, in at least float32.

    The largest entry is divided out before squaring: well-trained networks have gradients whose squares vanish in
    float32 (1e-25), and a loss scale of 65536 makes others overflow.

    Args:
        tensors: one for each site of an attack, any shapes.
        scope: what one norm is taken over.
        batch_dim: the dimension that counts examples; used by scope ``"example"``.

    Returns:
        One tensor each: of shape ``(1, …, B, …, 1)`` for ``"example"``, with one entry otherwise.
    """
    each = [_norm(tensor, batch_dim if scope == "example" else None) for tensor in tensors]
    if scope == "global":
        largest = torch.stack([norm.amax() for norm in each]).amax()
        scale = torch.where(largest > 0, largest, torch.ones_like(largest))
        total = scale * torch.stack([(norm / scale).square().sum() for norm in each]).sum().sqrt()
        each = [total.reshape((1,) * tensor.ndim) for tensor in tensors]
    return each


def _norm(tensor: Tensor, batch_dim: int | None) -> Tensor:
    if tensor.ndim == 0:
        return tensor.abs()
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if batch_dim is not None and not -tensor.ndim <= batch_dim < tensor.ndim:
        raise ValueError(f"batch_dim: expected a dimension of shape {tuple(tensor.shape)}, got {batch_dim}")
    kept = None if batch_dim is None else batch_dim % tensor.ndim
    dims = [dim for dim in range(tensor.ndim) if dim != kept]
    if not dims:  # a vector with one number an example
        return wide.abs()
    scale = wide.abs().amax(dims, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale * torch.linalg.vector_norm(wide / scale, dim=dims, keepdim=True)


def units(tensors: Sequence[Tensor], scope: NormScope, batch_dim: int = 0) -> list[Tensor]:
    """The tensors divided by their norms; zero where the norm is zero or not finite.

    Example:
        >>> units([torch.tensor([[3.0, 4.0], [0.0, 0.0]])], "example")[0]
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    return [_divided(tensor, norm) for tensor, norm in zip(tensors, norms(tensors, scope, batch_dim), strict=True)]


def _divided(tensor: Tensor, norm: Tensor) -> Tensor:
    usable = torch.isfinite(norm) & (norm > 0)
    quotient = tensor / torch.where(usable, norm, torch.ones_like(norm))
    return torch.where(usable, quotient, torch.zeros_like(quotient)).to(tensor.dtype)


@dataclasses.dataclass(frozen=True)
class Ball:
    """The ball that a perturbation must not leave: around each example of an input, or around a whole tensor.

    Attributes:
        norm: ``"l2"`` or ``"linf"``.
        scope: ``"example"`` or ``"tensor"``, what one norm is taken over.
        batch_dim: the dimension that counts examples.
    """

    norm: BallNorm = "l2"
    scope: NormScope = "example"
    batch_dim: int = 0

    def sizes(self, tensor: Tensor) -> Tensor:
        """Norms that broadcast against the tensor."""
        if self.norm == "l2":
            return norms([tensor], self.scope, self.batch_dim)[0]
        kept = self.batch_dim % tensor.ndim if self.scope == "example" and tensor.ndim else None
        dims = [dim for dim in range(tensor.ndim) if dim != kept]
        return tensor.abs().amax(dims, keepdim=True) if dims else tensor.abs()

    def uphill(self, gradient: Tensor) -> Tensor:
        """The step of size 1 along which a linear function with this gradient rises most; zero without a gradient.

        Example:
            >>> Ball("linf").uphill(torch.tensor([[3.0, -4.0, 0.0]]))
            tensor([[ 1., -1.,  0.]])
        """
        if self.norm == "l2":
            return units([gradient], self.scope, self.batch_dim)[0]
        return gradient.sign().nan_to_num(0.0)

    def projected(self, perturbation: Tensor, radius: float | Tensor) -> Tensor:
        """The nearest point of the ball: what lies inside stays.

        Args:
            perturbation: any shape.
            radius: one, or one for each example, broadcastable.

        Example:
            >>> Ball().projected(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
            tensor([[0.6000, 0.8000],
                    [0.3000, 0.4000]])
        """
        if self.norm == "linf":
            bound = torch.as_tensor(radius, dtype=perturbation.dtype, device=perturbation.device)
            return torch.minimum(torch.maximum(perturbation, -bound), bound)
        lengths = self.sizes(perturbation)
        outside = lengths > radius
        shrink = torch.where(outside, radius / torch.where(outside, lengths, torch.ones_like(lengths)), 1.0)
        return (perturbation * shrink).to(perturbation.dtype)

    def random_point(self, like: Tensor, radius: float | Tensor, generator: torch.Generator) -> Tensor:
        """A point inside: uniform entries for L-infinity; for L2 a uniform direction and a uniform length."""
        if self.norm == "linf":
            return torch.empty_like(like).uniform_(-1, 1, generator=generator) * radius
        (direction,) = units([torch.empty_like(like).normal_(generator=generator)], self.scope, self.batch_dim)
        share = torch.empty_like(self.sizes(like)).uniform_(0, 1, generator=generator)
        return (direction * share * radius).to(like.dtype)


def global_step(gradients: Sequence[Tensor], length: float, values: Sequence[Tensor] | None = None) -> list[Tensor]:
    """The step uphill of the given length over all tensors together (the ascent of SAM and its relatives).

    Args:
        gradients: one a weight.
        length: norm of the step.
        values: the weights, if ``length`` is a share of their common norm.
    """
    directions = units(gradients, "global")
    if values is None:
        return [length * unit for unit in directions]
    sizes = norms(values, "global")
    return [(length * size * unit).to(unit.dtype) for size, unit in zip(sizes, directions, strict=True)]


def orthogonal_part(tensors: Sequence[Tensor], along: Sequence[Tensor]) -> list[Tensor]:
    """What remains of one vector when its projection on another is taken away; both are lists of tensors.

    Example:
        >>> orthogonal_part([torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([0.0]), torch.tensor([2.0])])
        [tensor([3.]), tensor([0.])]
    """
    directions = units(along, "global")
    inner = torch.stack([(tensor * unit).sum() for tensor, unit in zip(tensors, directions, strict=True)]).sum()
    return [tensor - inner * unit for tensor, unit in zip(tensors, directions, strict=True)]


def bernoulli_mask(like: Tensor, probability: float, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
    """Independent entries, true (attacked) with the given probability; no 1/p rescaling (paper, Algorithm 1).

    Args:
        like: gives the shape and the device.
        probability: P(an entry is attacked), in [0, 1].
        generator: on the device of ``like``. Nothing is drawn when the probability is 1.
        rows: Boolean, one for each row: the only rows to draw for, all others are false. An embedding has many that no
            word of the batch touches.
    """
    if probability == 1:
        return torch.ones(like.shape, dtype=torch.bool, device=like.device)
    if rows is None:
        return _coin_flips(like.shape, probability, like.device, generator)
    mask = torch.zeros(like.shape, dtype=torch.bool, device=like.device)
    mask[rows] = _coin_flips((int(rows.sum()), *like.shape[1:]), probability, like.device, generator)
    return mask


def _coin_flips(shape: Sequence[int], probability: float, device: torch.device, generator: torch.Generator) -> Tensor:
    """Two draws from each random 64-bit word, five times as fast as ``bernoulli_`` on a CPU; P is exact to 2^-32."""
    count = math.prod(shape)
    words = torch.empty((count + 1) // 2, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
    below = min(round(probability * 2**32), 2**32 - 1) - 2**31
    return (words.view(torch.int32)[:count] < below).view(*shape)


def random_like(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise on the entries where the gradient is not zero.

    The control for a gradient direction: it must not spend its norm on entries that no attack would touch, such as
    padded positions or the embedding rows of absent words.
    """
    noise = torch.empty_like(gradient).normal_(generator=generator)
    return torch.where(gradient != 0, noise, torch.zeros_like(noise))


def generator_on(device: torch.device, generator: torch.Generator | None) -> torch.Generator:
    """The generator, or a new one with PyTorch's fixed default seed.

    Raises:
        ValueError: the generator draws on another kind of device.
    """
    if generator is None:
        return torch.Generator(device)
    if generator.device.type != device.type:
        raise ValueError(
            f"generator: expected one on {device.type}, where the attacked tensors are, got {generator.device.type}; "
            f"make it with torch.Generator({device.type!r})"
        )
    return generator
