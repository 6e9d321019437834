"""The norms of gradients on a few fixed examples, to follow them while a model is trained."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropattack.passes import Cost, Step, differentiable_kernels
from dropattack.sites import OutputSite, ParameterSite, find_parameters, find_site
from dropattack.undisturbed import evaluation_mode, undisturbed

__all__ = ["GradientNorms"]

_WILDCARDS = frozenset("*?[")
_PROBED = 2  # examples of the pass that tries the sites out


class GradientNorms:
    r"""Norms of the gradient of the cross-entropy, on the same examples at each call.

    For the input and for activations it is the mean over examples of :math:`\lVert \nabla_{a_i} \ell_i \rVert_2`, the
    norm of each example's own loss gradient. For a parameter, and for all trainable ones together, it is
    :math:`\lVert \nabla_w \tfrac1n \sum_i \ell_i \rVert_2`, the norm of the gradient of the mean loss.

    A call makes one forward and one backward pass in evaluation mode, and leaves the model as it was: weights,
    gradients, buffers, training flags and random streams.

    Args:
        model: maps inputs to logits ``(n, classes)``.
        batches: inputs and labels ``(n,)``, of any sizes; looked at again at each call.
        sites: ``"input"``, the model's first floating-point argument; a module's name, its output, whose first
            dimension must count the examples; a parameter's name or an ``fnmatch`` pattern of trainable parameters.

    Raises:
        ValueError: an unknown site, a pattern without a trainable parameter, an activation without a row for each
            example, or no examples.
        RuntimeError: an activation that the model does not reach exactly once.
        TypeError: an activation that is no floating-point tensor (token ids: name the embedding module instead).

    Example:
        >>> model = nn.Linear(2, 2)
        >>> _ = [nn.init.zeros_(parameter) for parameter in model.parameters()]
        >>> norms = GradientNorms(model, [(torch.ones(1, 2), torch.tensor([0]))], ["weight", "bias"])
        >>> {name: round(norm, 3) for name, norm in norms().items()}  # softmax minus one-hot is (-1/2, 1/2)
        {'gradient_norm': 1.225, 'gradient_norm_weight': 1.0, 'gradient_norm_bias': 0.707}
    """

    def __init__(self, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], sites: Sequence[str]) -> None:
        self._model = model
        self._batches = [(inputs, labels) for inputs, labels in batches if len(labels)]
        if not self._batches:
            raise ValueError("batches: expected at least one example, got none")
        self._sites = _found(model, sites)
        self._activations = [site for site in self._sites if isinstance(site, OutputSite)]
        inputs, labels = self._batches[0]
        self._measure([(inputs[:_PROBED], labels[:_PROBED])])

    def __call__(self) -> dict[str, float]:
        """``gradient_norm``, of all trainable parameters together, and ``gradient_norm_<site>`` for each site."""
        return self._measure(self._batches)

    def _measure(self, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
        count = sum(len(labels) for _, labels in batches)
        sums = dict.fromkeys((site.name for site in self._activations), 0.0)
        with contextlib.ExitStack() as stack:
            for context in (undisturbed(self._model), evaluation_mode(self._model), differentiable_kernels()):
                stack.enter_context(context)
            for inputs, labels in batches:
                for name, norms in self._example_norms(inputs, labels).items():
                    sums[name] += norms.sum().item()
            trained = {
                name: 0.0 if parameter.grad is None else _size(parameter.grad) / count
                for name, parameter in self._model.named_parameters(remove_duplicate=False)
                if parameter.requires_grad
            }
            whole = math.hypot(*(trained[name] for name, _ in self._model.named_parameters() if name in trained))
        found = {
            site.name: sums[site.name] / count if site.name in sums else trained[site.name] for site in self._sites
        }
        return {"gradient_norm": whole} | {f"gradient_norm_{name}": norm for name, norm in found.items()}

    def _example_norms(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Adds the gradients of the summed loss to ``.grad``; returns ``(n,)`` norms for each activation."""
        closure = functools.partial(_summed_loss, self._model, inputs, labels)
        with Step(self._model, closure, Cost(1, 1), Tensor.backward, contextlib.nullcontext) as step:
            step.run(watch=self._activations, clean=True)
            return {site.name: self._row_norms(site, len(labels)) for site in self._activations}

    def _row_norms(self, site: OutputSite, count: int) -> Tensor:
        shape = tuple(site.value.shape)
        if not shape or shape[0] != count:
            raise ValueError(
                f"site {site.name!r}: expected a row for each of {count} examples, got shape {shape}; name a module "
                "whose output has the examples first"
            )
        if site.gradient is None:  # the loss does not depend on it
            return torch.zeros(count)
        return site.gradient.double().reshape(count, -1).norm(dim=1)


def _found(model: nn.Module, names: Sequence[str]) -> list[OutputSite | ParameterSite]:
    """The sites of all names and patterns, each once."""
    if isinstance(names, str):
        raise TypeError(f"sites: expected a sequence of names, got the string {names!r}; write [{names!r}]")
    found: dict[str, OutputSite | ParameterSite] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name in parameters or _WILDCARDS & set(name):
            found |= {site.name: site for site in find_parameters(model, [name])}
        else:
            site = find_site(model, name)
            assert isinstance(site, OutputSite)  # parameters were dealt with above
            found[site.name] = site
    return list(found.values())


def _summed_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    device = next(model.parameters()).device
    return nn.functional.cross_entropy(model(inputs.to(device)), labels.to(device), reduction="sum")


def _size(gradient: Tensor) -> float:
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return dense.double().norm().item()
