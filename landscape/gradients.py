"""First-order diagnostics: how large the gradients are, at the input and at each weight."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from landscape.risk import EmpiricalRisk

__all__ = ["gradient_norms"]


def gradient_norms(risk: EmpiricalRisk, sites: Sequence[str] = ("input", "*")) -> pd.DataFrame:
    """L2 norms of the gradient with respect to activations and parameters, at the model's weights.

    Args:
        risk: the function.
        sites: ``"input"``, the first floating-point argument of the model; a module's name, its output; a parameter's
            name or an ``fnmatch`` pattern of parameters (the default has all of them).

    Returns:
        One row a site: ``site``; ``kind``, ``"activation"`` or ``"parameter"``; ``norm``; ``standard_error``;
        ``examples``. For a parameter the norm of the gradient of the mean loss. For an activation the mean, over
        examples, of the norm of the gradient of that example's own loss, with its standard error.

    Raises:
        ValueError: an unknown site.
        TypeError: the activation is not a floating-point tensor (token ids: name the embedding module instead).
    """
    parameters, activations = _sorted_out(risk, sites)
    gradient = risk.gradient() if parameters else {}
    rows = [
        {"site": name, "kind": "parameter", "norm": float(gradient[name].double().norm()), "standard_error": math.nan}
        for name in parameters
    ]
    for name in reversed(activations):
        norms = torch.cat(list(_example_norms(risk, name)))
        error = float(norms.std() / math.sqrt(len(norms))) if len(norms) > 1 else math.nan
        rows.insert(0, {"site": name, "kind": "activation", "norm": float(norms.mean()), "standard_error": error})
    return pd.DataFrame(rows).assign(examples=risk.count)


def _sorted_out(risk: EmpiricalRisk, sites: Sequence[str]) -> tuple[list[str], list[str]]:
    if isinstance(sites, str):
        raise TypeError(f"sites: expected a sequence, got the string {sites!r}; write ({sites!r},)")
    parameters: dict[str, None] = {}
    activations: dict[str, None] = {}
    for site in sites:
        if site == "input" or site in risk.modules():
            activations[site] = None
        elif matching := risk.matching_parameters(site):
            parameters |= dict.fromkeys(matching)
        else:
            known = [*risk.modules(), *risk.matching_parameters("*")]
            raise ValueError(f"unknown site {site!r}; the model has {', '.join(known)}")
    return list(parameters), list(activations)


def _example_norms(risk: EmpiricalRisk, site: str) -> Iterator[Tensor]:
    with risk.differentiable(), _caught(risk.modules()[site], at_input=site == "input") as caught:
        for losses in risk.example_losses():
            if len(caught) != 1:
                raise ValueError(f"site {site!r} was reached {len(caught)} times in one forward pass, expected once")
            # Examples do not mix in evaluation mode, so the gradient of the sum holds each example's own gradient.
            (gradient,) = torch.autograd.grad(losses.sum(), caught, materialize_grads=True)
            if len(gradient) != len(losses):
                raise ValueError(
                    f"site {site!r}: expected one activation for each of {len(losses)} examples along the first "
                    f"dimension, got shape {tuple(gradient.shape)}"
                )
            caught.clear()
            yield gradient.detach().double().reshape(len(gradient), -1).norm(dim=1)


@contextlib.contextmanager
def _caught(module: nn.Module, *, at_input: bool) -> Iterator[list[Tensor]]:
    """The activations that pass through a module's input or output, each made to require a gradient."""
    caught: list[Tensor] = []

    def catch(value: Tensor) -> Tensor:
        caught.append(value if value.requires_grad else value.detach().requires_grad_())
        return caught[-1].clone()  # later layers may change it in place

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for index, argument in enumerate(args):
            if _is_floating(argument):
                return (*args[:index], catch(argument), *args[index + 1 :]), kwargs
        for key, argument in kwargs.items():
            if _is_floating(argument):
                return args, kwargs | {key: catch(argument)}
        raise TypeError("site 'input': the model was called without a floating-point tensor; name a module instead")

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        first, rest = (output[0], output[1:]) if isinstance(output, tuple) and output else (output, None)
        if not _is_floating(first):
            raise TypeError(f"expected the module to return a floating-point tensor, got {type(output).__name__}")
        return catch(first) if rest is None else (catch(first), *rest)

    if at_input:
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield caught
    finally:
        handle.remove()


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
