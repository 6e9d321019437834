"""Points and directions in weight space, and what each parameter is.

Which numbers form one *filter* (Li et al. 2018) depends on the layer. The rules and their reasons:

- **linear**: a row of ``(out, in)``, the weights of one neuron.
- **convolution**: an entry of the first axis of ``(out, in / groups, k, …)``, one output filter.
- **transposed convolution**: an output channel, which is the *second* axis of ``(in, out / groups, k, …)``; within
  each group, as channels of different groups share no weight.
- **embedding**: a row of ``(tokens, dim)``: each token has its own scale, as frequent tokens are trained more. A
  padding row of zeros stays zero.
- **recurrent** (RNN, LSTM, GRU): a row of ``weight_ih`` and of ``weight_hh``; gates are stacked along the first axis,
  so each row is one gate of one unit. The two matrices feed one pre-activation but are scaled apart, as they are
  separate layers to everything else.
- **attention**: a row of the packed ``in_proj_weight``.
- **bias**: every parameter with fewer than two dimensions that is not a normalization layer's, and attention's
  ``bias_k`` and ``bias_v``. It has no filters; if it is moved at all, it is one block.
- **norm**: scale and shift of a normalization layer, known by the end of its class's name (BatchNorm2d, LlamaRMSNorm,
  LayerNormalization), and the magnitude of a weight-normalized layer: rescaling it changes the function's scale and
  not its shape.
- **tied weights** are one tensor and move once, by the rule of the layer that comes first.
- anything else with two or more dimensions: entries of the first axis.

Buffers (running statistics of BatchNorm, position tables) are not parameters and are never moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Direction", "Point", "Role", "filter_norms", "fingerprint", "inner_product", "norm", "roles_of"]

_NORMALIZATION = re.compile(r"norm(alization)?(\dd)?$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Role:
    """What a parameter is: its kind (see the module's table) and, for grouped layers, the number of groups."""

    kind: str
    groups: int = 1


class Point(dict[str, Tensor]):
    """A point in weight space: parameter name to tensor, with the role of each parameter."""

    def __init__(self, tensors: Mapping[str, Tensor], roles: Mapping[str, Role] | None = None) -> None:
        super().__init__(tensors)
        self.roles: dict[str, Role] = {
            name: (roles or {}).get(name, Role("bias" if tensor.ndim < 2 else "other"))
            for name, tensor in tensors.items()
        }


class Direction(Point):
    """A direction in weight space; a parameter that it does not name stays put.

    Attributes:
        about: how it was made (seed, normalization, ignored parameters …), for the metadata of what is drawn along it.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        roles: Mapping[str, Role] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(tensors, roles)
        self.about: dict[str, Any] = dict(about or {})


def roles_of(model: nn.Module) -> dict[str, Role]:
    """The role of every parameter, by its (first) name."""
    roles: dict[str, Role] = {}
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        owner_name, _, local = name.rpartition(".")
        # The older weight_norm: weight_g beside weight_v, weight_hh_l0_g beside weight_hh_l0_v.
        magnitude = local.endswith("_g") and f"{local[:-1]}v" in modules[owner_name]._parameters
        if ".parametrizations." in f".{owner_name}":
            parametrization = modules[owner_name]
            owner_name, _, local_of_layer = f".{owner_name}".partition(".parametrizations.")
            owner_name = owner_name.removeprefix(".")
            is_weight_norm = type(parametrization[0]).__name__ == "_WeightNorm"
            magnitude = is_weight_norm and local == "original0"
            local = local_of_layer
        roles[name] = Role("norm") if magnitude else _role(modules[owner_name], local, parameter)
    return roles


def _role(owner: nn.Module, local: str, parameter: Tensor) -> Role:
    if _NORMALIZATION.search(type(owner).__name__):
        return Role("norm")
    if parameter.ndim < 2 or local in ("bias_k", "bias_v"):
        return Role("bias")
    match owner:
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            return Role("transposed convolution", owner.groups)
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return Role("convolution")
        case nn.Linear() | nn.Bilinear():
            return Role("linear")
        case nn.Embedding() | nn.EmbeddingBag():
            return Role("embedding")
        case nn.RNNBase() | nn.RNNCellBase():
            return Role("recurrent")
        case nn.MultiheadAttention():
            return Role("attention")
    return Role("other")


def filter_norms(tensor: Tensor, role: Role) -> Tensor:
    """L2 norm of each filter, in float64, in a shape that broadcasts against the tensor."""
    wide = tensor.detach().double()
    if role.kind == "transposed convolution":
        grouped = wide.unflatten(0, (role.groups, -1))  # (groups, in / groups, out / groups, k, …)
        norms = torch.linalg.vector_norm(grouped, dim=[1, *range(3, grouped.ndim)], keepdim=True)
        return norms.expand(-1, grouped.shape[1], *norms.shape[2:]).flatten(0, 1)
    if wide.ndim < 2 or role.kind == "bias":
        return torch.linalg.vector_norm(wide).reshape((1,) * wide.ndim)
    return torch.linalg.vector_norm(wide, dim=list(range(1, wide.ndim)), keepdim=True)


def inner_product(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Euclidean inner product over the parameters that both name, in float64."""
    return sum(float(torch.sum(a[name].double() * b[name].double())) for name in a if name in b)


def norm(a: Mapping[str, Tensor]) -> float:
    """Euclidean norm over all parameters, in float64."""
    return float(inner_product(a, a) ** 0.5)


def fingerprint(point: Mapping[str, Tensor]) -> str:
    """A short hash of names, shapes and bits: two points with one fingerprint are the same weights."""
    digest = hashlib.blake2b(digest_size=16)
    for chunk in _bytes(point):
        digest.update(chunk)
    return digest.hexdigest()


def _bytes(point: Mapping[str, Tensor]) -> Iterator[bytes]:
    for name, tensor in point.items():
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
