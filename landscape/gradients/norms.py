"""How large gradients are, at the input and at each weight: over all data, over a batch, for one example."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from landscape.evaluation.batches import moved
from landscape.gradients.sites import Activation, find_sites
from landscape.risk import EmpiricalRisk

__all__ = ["gradient_norms"]

_PER = ("data", "batch", "example")


def gradient_norms(
    risk: EmpiricalRisk,
    sites: Sequence[str] = ("input", "*"),
    per: Sequence[str] | None = None,
    examples: int = 64,
) -> pd.DataFrame:
    r"""L2 norms of the gradient with respect to activations and parameters, at the model's weights.

    Three gradients of different size go by this name:

    - ``"data"``: of the mean loss over all examples;
    - ``"batch"``: of the mean loss over one batch. With respect to an activation of n examples it is
      :math:`\sqrt{\sum_i \lVert g_i \rVert^2} / n`, as each loss depends on its own row alone;
    - ``"example"``: of one example's own loss, with respect to its own row of an activation, or to a parameter.

    Cost: one forward and backward pass for each activation, one for all parameters over the data and one over the
    batches, and for each example of a parameter one backward pass of its batch.

    Args:
        risk: the function.
        sites: ``"input"``, the first floating-point argument of the model; a module's name, its output; a parameter's
            name or an ``fnmatch`` pattern of parameters (the default has all of them).
        per: which of the three, for every site. None: the cheapest, ``"example"`` for activations and ``"data"`` for
            parameters.
        examples: with ``"example"``, parameters see the first so many examples only.

    Returns:
        One row for each site and entry of ``per``: ``site``; ``kind``, ``"activation"`` or ``"parameter"``; ``per``;
        ``norm``, the mean of the norms; ``sd``, their standard deviation, and ``standard_error``, that of their mean
        (both NaN for one norm); ``n``, their number; ``examples``, how many examples were used. Each batch counts once,
        whatever its size.

    Raises:
        ValueError: an unknown site, or an unknown ``per``.
        TypeError: the activation is not a floating-point tensor (token ids: name the embedding module instead).
    """
    _check(per, examples)
    activations, parameters = find_sites(risk, sites)
    rows = []
    for site in activations:
        for one, norms in _of_activation(risk, site, per or ("example",)).items():
            rows.append(_row(site, "activation", one, norms, risk.count))
    found = {one: _of_parameters(risk, parameters, one, examples) for one in per or ("data",)} if parameters else {}
    for name in parameters:
        for one, norms_of in found.items():
            used = len(norms_of[name]) if one == "example" else risk.count
            rows.append(_row(name, "parameter", one, norms_of[name], used))
    return pd.DataFrame(rows)


def _check(per: Sequence[str] | None, examples: int) -> None:
    if isinstance(per, str):
        raise TypeError(f"per: expected a sequence, got the string {per!r}; write ({per!r},)")
    for one in per or ():
        if one not in _PER:
            raise ValueError(f"per: expected some of {', '.join(map(repr, _PER))}, got {one!r}")
    if examples < 1:
        raise ValueError(f"examples: expected at least 1, got {examples}")


def _row(site: str, kind: str, per: str, norms: Sequence[float], examples: int) -> dict[str, Any]:
    spread = float(np.std(norms, ddof=1)) if len(norms) > 1 else math.nan
    return {
        "site": site,
        "kind": kind,
        "per": per,
        "norm": float(np.mean(norms)),
        "sd": spread,
        "standard_error": spread / math.sqrt(len(norms)),
        "n": len(norms),
        "examples": examples,
    }


def _of_activation(risk: EmpiricalRisk, site: str, per: Sequence[str]) -> dict[str, list[float]]:
    batches = [norms for norms in _example_norms(risk, site) if len(norms)]
    every = torch.cat(batches)
    found = {
        "data": [float(every.norm()) / len(every)],
        "batch": [float(norms.norm()) / len(norms) for norms in batches],
        "example": every.tolist(),
    }
    return {one: found[one] for one in per}


def _example_norms(risk: EmpiricalRisk, site: str) -> Iterator[Tensor]:
    device = next(risk.eager.parameters()).device
    activation = Activation(risk, site)
    with risk.differentiable():
        for batch in risk.used_batches():
            _, gradient = activation.value_and_gradient(moved(batch, device))
            yield gradient.double().reshape(len(gradient), -1).norm(dim=1)


def _of_parameters(risk: EmpiricalRisk, names: Sequence[str], per: str, examples: int) -> dict[str, list[float]]:
    if per == "data":
        gradient = risk.gradient()
        return {name: [float(gradient[name].double().norm())] for name in names}
    arguments = dict(risk.eager.named_parameters())
    weights = [arguments[name] for name in names]
    with risk.differentiable():
        losses = risk.example_losses()
        if per == "batch":
            found = [_norms(one.mean(), weights, keep=False) for one in losses if len(one)]
        else:
            own = itertools.islice(((one[i], i + 1 < len(one)) for one in losses for i in range(len(one))), examples)
            found = [_norms(loss, weights, keep) for loss, keep in own]
    return dict(zip(names, map(list, zip(*found, strict=True)), strict=True))


def _norms(loss: Tensor, weights: Sequence[Tensor], keep: bool) -> list[float]:
    gradient = torch.autograd.grad(loss, weights, retain_graph=keep, materialize_grads=True)
    return torch.stack([one.double().norm() for one in gradient]).tolist()
