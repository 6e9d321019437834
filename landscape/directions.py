"""Directions to look along."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from landscape.curvature import hessian_eigenpairs
from landscape.parameters import Direction, Point, Role, filter_norms, fingerprint, norm
from landscape.risk import EmpiricalRisk

__all__ = ["check_same_parameters", "direction_between", "hessian_directions", "random_directions"]

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


def direction_between(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Direction:
    """The way from one point to another, ``b - a``: with ``a`` as center, coordinate 0 is ``a`` and 1 is ``b``.

    Args:
        a: where it starts.
        b: where it ends.

    Raises:
        ValueError: other names or shapes in ``b``.
    """
    check_same_parameters("b", b, a)
    between = {name: b[name].detach().to(tensor) - tensor.detach() for name, tensor in a.items()}
    about = {"kind": "between", "length": norm(between), "start": fingerprint(a), "end": fingerprint(b)}
    return Direction(between, a.roles if isinstance(a, Point) else None, about)


def hessian_directions(
    risk: EmpiricalRisk,
    count: int = 2,
    which: Literal["largest", "smallest", "both"] = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
) -> tuple[Direction, ...]:
    """Unit eigenvectors of the Hessian at the model's weights, over all parameters of the risk.

    They are neither filter-normalized nor blind to biases: a coordinate is a distance in weight space. Eigenvectors
    have no sign; these get that of their inner product with fixed Gaussian draws. (The sign of the largest entry would
    hang on rounding errors where entries come in pairs of opposite sign, as in a layer before a softmax.) Eigenvectors
    of eigenvalues that nearly coincide span a plane in which any other pair is as good.

    Args:
        risk: the function.
        count: how many.
        which: ``"largest"``: of the largest eigenvalues, the largest first; ``"smallest"``: of the algebraically
            smallest, the smallest first; ``"both"``: half of them from each end, the largest first.
        tolerance: relative accuracy of the eigenvalues; with ``"both"``, that of the smallest is a share of the spread
            of the spectrum.
        max_products: give up after so many Hessian-vector products.
        seed: of the iteration's starting vector.

    Returns:
        ``count`` directions. ``about`` holds ``eigenvalue``, ``residual`` (‖Hv − λv‖ for unit v), and ``converged``.

    Raises:
        ValueError: an unknown end, a number that cannot be, or an iteration that did not converge.
    """
    found, vectors = hessian_eigenpairs(risk, count, which, tolerance, max_products, seed)
    if not found.converged:
        raise ValueError(
            f"the Hessian's eigenvalues ({which}): {count} did not converge in {found.products} products; raise "
            "max_products or tolerance"
        )
    largest = {"largest": count, "smallest": 0, "both": count // 2}[which]
    outermost_first = [*range(largest), *reversed(range(largest, count))]
    roles = risk.parameters().roles
    return tuple(
        Direction(
            _with_fixed_sign(vectors[place]),
            roles,
            {
                "kind": "hessian",
                "which": "largest" if place < largest else "smallest",
                "index": place if place < largest else count - 1 - place,
                "eigenvalue": float(found.eigenvalues[place]),
                "residual": float(found.residuals[place]),
                "converged": found.converged,
                "tolerance": tolerance,
            },
        )
        for place in outermost_first
    )


def check_same_parameters(what: str, point: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """See that two points have the same parameters.

    Raises:
        ValueError: ``what`` has other names or shapes than ``like``.
    """
    if differing := sorted(point.keys() ^ like.keys()):
        missing = [name for name in differing if name in like]
        raise ValueError(
            f"{what}: expected the parameters of the first point, but "
            + (f"{', '.join(map(repr, missing))} is missing" if missing else f"{differing[0]!r} is not one of them")
        )
    for name, tensor in like.items():
        if point[name].shape != tensor.shape:
            raise ValueError(f"{what}: {name!r} has shape {tuple(point[name].shape)}, expected {tuple(tensor.shape)}")


def _with_fixed_sign(vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
    draws = np.random.default_rng(0)
    overlap = sum(
        float(tensor.double().cpu().flatten() @ torch.from_numpy(draws.standard_normal(tensor.numel())))
        for tensor in vector.values()
    )
    return {name: -tensor if overlap < 0 else tensor for name, tensor in vector.items()}


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
