"""Norms of the gradient at the minimum, with respect to the input and to the weights."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landscape.flatness.measurement import Measurement
from landscape.gradients import gradient_norms
from landscape.risk import EmpiricalRisk

__all__ = ["gradient_norm_metrics"]


def gradient_norm_metrics(
    risk: EmpiricalRisk, seed: int = 0, sites: Sequence[str] = ("input", "*")
) -> dict[str, list[Measurement]]:
    r"""Norms of gradients: what penalizes the loss to first order under a perturbation of one length.

    - ``"input_gradient_norm"``: :math:`\frac1n \sum_i \lVert \nabla_x \ell_i \rVert_2`, the mean over examples of the
      norm of the gradient of an example's own loss with respect to its input, or to another activation, with its
      standard error (Drucker and Le Cun, "Improving Generalization Performance Using Double Backpropagation", IEEE
      Transactions on Neural Networks 3, 1992, penalize its square);
    - ``"weight_gradient_norm"``: :math:`\lVert \nabla_w L \rVert_2` of each parameter and, with ``{"site": "*"}``, of
      all together (Zhao, Zhang and Hu, "Penalizing Gradient Norm for Efficiently Improving Generalization in Deep
      Learning", ICML 2022).

    A larger number is sharper. At a minimum the second is 0, and otherwise tells how far training has come.

    Cost: one forward and backward pass for each activation, and one for all parameters.

    A rescaling of weights that leaves the function alone does not change the gradient by the input, and changes those
    by weights, and by inner activations.

    Args:
        risk: the function.
        seed: not used, as nothing is drawn.
        sites: as for :func:`landscape.gradient_norms`. ``"input"`` stands for the outputs of the embedding layers if
            no argument of the model is a floating-point tensor, as with token ids.

    Returns:
        The two parts, one measurement for each site.

    Raises:
        TypeError: ``"input"``, of a model that has neither.
    """
    del seed
    if "input" in sites and not isinstance(sites, str):
        there = _inputs(risk)
        sites = [one for site in sites for one in (there if site == "input" else [site])]
    table = gradient_norms(risk, sites)
    activations, weights = (table[table["kind"] == kind] for kind in ("activation", "parameter"))
    found = {
        part: [
            Measurement(float(norm), float(error), setting={"site": site})
            for site, norm, error in zip(rows["site"], rows["norm"], rows["standard_error"], strict=True)
        ]
        for part, rows in (("input_gradient_norm", activations), ("weight_gradient_norm", weights))
    }
    if set(weights["site"]) == set(risk.matching_parameters("*")):
        found["weight_gradient_norm"].append(Measurement(math.hypot(*weights["norm"]), setting={"site": "*"}))
    return found


def _inputs(risk: EmpiricalRisk) -> list[str]:
    """Where the input enters as numbers: the model's own input, or the embeddings of what is none."""
    with risk.evaluation(), torch.no_grad(), _seen(risk) as seen:
        examples = len(next(risk.example_losses()))
    if any(_is_floating(argument) for argument in seen[""].arguments):
        return ["input"]
    tables = [name for name, calls in seen.items() if name and calls.outputs and len(calls.outputs[0]) == examples]
    if not tables:
        raise TypeError(
            "site 'input': the model is called without a floating-point tensor, and has no embedding whose output has "
            f"one entry for each of {examples} examples; name a module instead of 'input'"
        )
    return tables


@dataclasses.dataclass
class _Calls:
    """What went into a module and came out of it."""

    arguments: list[Any] = dataclasses.field(default_factory=list)
    outputs: list[Tensor] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def _seen(risk: EmpiricalRisk) -> Iterator[dict[str, _Calls]]:
    """Inside the block, what passes through the model (named ``""``) and through its embedding layers."""
    calls: dict[str, _Calls] = {}
    with contextlib.ExitStack() as hooks:
        for name, module in risk.eager.named_modules():
            if name and not isinstance(module, nn.Embedding | nn.EmbeddingBag):
                continue
            own = calls[name] = _Calls()

            def before(_module: nn.Module, args: Any, kwargs: dict[str, Any], own: _Calls = own) -> None:
                own.arguments.extend([*args, *kwargs.values()])

            def after(_module: nn.Module, _args: Any, output: Any, own: _Calls = own) -> None:
                own.outputs.append(output)

            hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(after).remove)
        yield calls


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
