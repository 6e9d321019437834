"""Directions to look along."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from landscape.parameters import Direction, Point, Role, filter_norms, fingerprint

__all__ = ["random_directions"]

_KINDS = (
    "linear",
    "convolution",
    "transposed convolution",
    "embedding",
    "recurrent",
    "attention",
    "norm",
    "bias",
    "other",
)


def random_directions(
    center: Mapping[str, Tensor],
    count: int = 2,
    seed: int = 0,
    normalization: Literal["filter", "layer", "none"] = "filter",
    ignore: Sequence[str] = ("bias", "norm"),
    reference: Mapping[str, Tensor] | None = None,
) -> tuple[Direction, ...]:
    r"""Gaussian directions, rescaled to the weights (Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018).

    With ``"filter"``, each filter :math:`d_i \leftarrow d_i \lVert w_i \rVert / \lVert d_i \rVert`; see
    :mod:`landscape.parameters` for what a filter is in each kind of layer.

    The draws depend on the seed, the direction's index, and each parameter's name and shape alone. They are made in
    float64 on the CPU. So two models of one architecture get the same draws, each scaled to its own weights, on any
    device, and ignoring one parameter changes no other.

    Args:
        center: the weights, usually ``risk.parameters()``. A plain dictionary works too, but then only shapes tell
            what a parameter is: rows of the first axis, and fewer than two dimensions is a bias.
        count: number of directions.
        seed: of the draws.
        normalization: ``"filter"``; ``"layer"``, one factor a tensor; ``"none"``, the bare draws.
        ignore: parameters that stay put: kinds (``"bias"``, ``"norm"``, ``"embedding"`` …) or ``fnmatch`` patterns of
            names.
        reference: other weights to take the norms from. An untrained model here reproduces the protocol of
            DropAttack's authors, whose directions are not normalized to the minimum they are drawn around.

    Returns:
        ``count`` directions.

    Raises:
        ValueError: an unknown normalization, an ``ignore`` entry that matches nothing, nothing left to move, or a
            reference with other names or shapes.
    """
    if normalization not in ("filter", "layer", "none"):
        raise ValueError(f"normalization: expected 'filter', 'layer' or 'none', got {normalization!r}")
    point = center if isinstance(center, Point) else Point(center)
    ignored = _ignored(point, ignore)
    moved = [name for name in point if name not in ignored]
    if not moved:
        raise ValueError(f"ignore={tuple(ignore)!r} leaves no parameter to move")
    _check_reference(point, reference)
    scale_to = point if reference is None else reference
    about = {
        "kind": "random",
        "seed": seed,
        "normalization": normalization,
        "ignored": sorted(ignored),
        "reference": "center" if reference is None else fingerprint(reference),
    }
    return tuple(
        Direction(
            {
                name: _rescaled(_draw(seed, index, name, point[name]), scale_to[name], point.roles[name], normalization)
                for name in moved
            },
            point.roles,
            about | {"index": index},
        )
        for index in range(count)
    )


def _draw(seed: int, index: int, name: str, like: Tensor) -> Tensor:
    key = f"{seed} {index} {name}".encode()
    stream = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big")
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(stream), dtype=torch.float64)
    return noise.to(like.device, like.dtype)


def _rescaled(draw: Tensor, weights: Tensor, role: Role, normalization: str) -> Tensor:
    if normalization == "none":
        return draw
    role = role if normalization == "filter" else Role("bias")  # a layer is one block
    factor = filter_norms(weights, role).to(draw.device) / filter_norms(draw, role)
    return (draw.double() * factor).to(draw.dtype)


def _ignored(point: Point, ignore: Sequence[str]) -> set[str]:
    if isinstance(ignore, str):
        raise TypeError(f"ignore: expected a sequence, got the string {ignore!r}; write ({ignore!r},)")
    ignored: set[str] = set()
    for entry in ignore:
        matching = {name for name in point if point.roles[name].kind == entry or fnmatch.fnmatchcase(name, entry)}
        if not matching and entry not in _KINDS:
            raise ValueError(f"ignore: {entry!r} is neither a kind ({', '.join(_KINDS)}) nor one of {', '.join(point)}")
        ignored |= matching
    return ignored


def _check_reference(point: Point, reference: Mapping[str, Tensor] | None) -> None:
    if reference is None:
        return
    for name, tensor in point.items():
        if name not in reference:
            raise ValueError(f"reference: expected the parameters of the center, but {name!r} is missing")
        if reference[name].shape != tensor.shape:
            raise ValueError(
                f"reference: {name!r} has shape {tuple(reference[name].shape)}, expected {tuple(tensor.shape)}"
            )
