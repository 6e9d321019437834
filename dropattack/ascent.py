"""Steps uphill: directions of unit norm, Bernoulli masks, and the perturbation of Algorithm 1.

Norms are L2. Their scope is ``"example"`` (each example of the batch on its own), ``"tensor"`` (one norm for the
tensor) or ``"global"`` (one norm for all the tensors of an attack together).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["NormScope", "bernoulli_mask", "norms", "projected", "random_like", "units"]

NormScope = Literal["example", "tensor", "global"]


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


def projected(perturbation: Tensor, epsilon: float, scope: NormScope, batch_dim: int = 0) -> Tensor:
    """The nearest point of the L2 ball of radius ``epsilon``: what lies inside stays, what lies outside is shortened.

    Example:
        >>> projected(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0, "example")
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    (length,) = norms([perturbation], scope, batch_dim)
    shrink = epsilon / length.clamp(min=epsilon) if epsilon else torch.zeros_like(length)
    return (perturbation * shrink).to(perturbation.dtype)


def bernoulli_mask(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Independent entries, true (attacked) with the given probability; no 1/p rescaling (paper, Algorithm 1).

    Args:
        like: gives the shape and the device.
        probability: P(an entry is attacked), in [0, 1].
        generator: on the device of ``like``. Nothing is drawn when the probability is 1.
    """
    mask = torch.ones(like.shape, dtype=torch.bool, device=like.device)
    return mask if probability == 1 else mask.bernoulli_(probability, generator=generator)


def random_like(gradient: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise on the entries where the gradient is not zero.

    The control for a gradient direction: it must not spend its norm on entries that no attack would touch, such as
    padded positions or the embedding rows of absent words.
    """
    noise = torch.empty_like(gradient).normal_(generator=generator)
    return torch.where(gradient != 0, noise, torch.zeros_like(noise))
