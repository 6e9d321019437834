"""The perturbations of a penalty check: masked gradients, and the controls that tell what the mask does."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["Perturbation", "Perturbations", "Settings", "row_norms"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to perturb by; see :func:`landscape.penalty_check`.

    Raises:
        ValueError: a number that cannot be.
    """

    epsilons: tuple[float, ...]
    attack_probability: float
    masks: int
    random_directions: int
    mask_then_normalize: bool
    relative_epsilon: bool
    seed: int

    def __post_init__(self) -> None:
        if not self.epsilons or not all(math.isfinite(epsilon) and epsilon > 0 for epsilon in self.epsilons):
            raise ValueError(f"epsilons: expected one or more positive numbers, got {self.epsilons}")
        if not 0 <= self.attack_probability <= 1:
            raise ValueError(f"attack_probability: expected a share from 0 to 1, got {self.attack_probability}")
        if self.masks < 1:
            raise ValueError(f"masks: expected at least 1, got {self.masks}")
        if self.random_directions < 0:
            raise ValueError(f"random_directions: expected at least 0, got {self.random_directions}")


@dataclasses.dataclass(frozen=True)
class Perturbation:
    r"""A perturbation r of each row, divided by epsilon.

    Attributes:
        kind: ``"masked"``, ``"gradient"``, ``"scaled gradient"`` or ``"random"``.
        draw: its number among those of its kind.
        direction: :math:`r / \epsilon`, of the gradient's shape and type.
        eq_12: :math:`\lVert M \odot g \rVert` of each row (times the row's own norm for relative epsilons), float64;
            NaN without a mask.
        expected_first_order: mean over masks of the inner product of gradient and direction; NaN without a mask, and
            where it has no closed form.
    """

    kind: str
    draw: int
    direction: Tensor
    eq_12: Tensor
    expected_first_order: Tensor


class Perturbations:
    """All perturbations of one site, batch after batch.

    Masks and noise are drawn on the CPU in float64 and depend on the seed, the site's name, their number and the
    examples before them: they are the same for all models of one architecture, on every device, and for batches of any
    size (of one shape). The masks of a smaller attack probability lie within those of a larger one.

    Args:
        site: its name.
        settings: what to perturb by.
    """

    def __init__(self, site: str, settings: Settings) -> None:
        self._settings = settings
        self._masks = [_stream(settings.seed, site, "mask", draw) for draw in range(settings.masks)]
        self._noise = [_stream(settings.seed, site, "noise", draw) for draw in range(settings.random_directions)]

    def of(self, gradient: Tensor, value: Tensor) -> Iterator[Perturbation]:
        """The perturbations of one batch of rows, one after the other.

        Args:
            gradient: ``(rows, …)``; each row has a norm of its own.
            value: what is perturbed, of the same shape.
        """
        settings = self._settings
        steepness = row_norms(gradient)
        unit = row_norms(value) if settings.relative_epsilon else torch.ones_like(steepness)
        unknown = torch.full_like(steepness, math.nan)
        share = settings.attack_probability
        expected = unknown if settings.mask_then_normalize else share * unit * steepness
        lengths = []
        for draw, stream in enumerate(self._masks):
            mask = torch.from_numpy(stream.random(tuple(gradient.shape)) < share).to(gradient.device)
            masked = gradient * mask
            kept = row_norms(masked)
            direction = _scaled(masked, _ratio(unit, kept if settings.mask_then_normalize else steepness))
            lengths.append(row_norms(direction))
            yield Perturbation("masked", draw, direction, unit * kept, expected)
        full = _ratio(unit, steepness)
        yield Perturbation("gradient", 0, _scaled(gradient, full), unknown, unknown)
        scale = math.sqrt(share) if settings.mask_then_normalize else share
        yield Perturbation("scaled gradient", 0, _scaled(gradient, scale * full), unknown, unknown)
        for draw, stream in enumerate(self._noise):
            noise = torch.from_numpy(stream.standard_normal(tuple(gradient.shape))).to(gradient.device)
            noise = noise * (gradient != 0)
            direction = _scaled(noise, _ratio(lengths[draw % len(lengths)], row_norms(noise))).to(gradient.dtype)
            yield Perturbation("random", draw, direction, unknown, unknown)


def _stream(seed: int, site: str, what: str, draw: int) -> np.random.Generator:
    key = hashlib.blake2b(f"{seed} {draw} {what} {site}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(key, "big"))


def row_norms(rows: Tensor) -> Tensor:
    """L2 norm of each row, in float64: squares of small gradients vanish in float32."""
    return torch.linalg.vector_norm(rows.reshape(len(rows), math.prod(rows.shape[1:])), dim=1, dtype=torch.float64)


def _ratio(numerator: Tensor, norms: Tensor) -> Tensor:
    """Zero where the norm is: what has no direction does not move."""
    return torch.where(norms > 0, numerator / torch.where(norms > 0, norms, 1.0), 0.0)


def _scaled(rows: Tensor, factors: Tensor) -> Tensor:
    """Each row times its factor; of a float32 row in float64, as factors may be as large as gradients are small."""
    return (rows.double() * factors.reshape(-1, *(1 for _ in rows.shape[1:]))).to(rows.dtype)
