"""Derivatives of the mean loss, summed over batches: one batch's graph in memory at a time.

Everything is made of backward passes. Forward-mode differentiation would be the textbook way to a Jacobian-vector
product, but PyTorch has none for packed sequences and for the LSTM kernels of CPUs in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["directional_derivatives", "gauss_newton_products", "gradient", "hessian_products"]

Tensors = dict[str, Tensor]


def gradient(terms: Iterable[Tensor], arguments: Mapping[str, Tensor]) -> Tensors:
    """The gradient of the sum of scalar terms."""
    total = _Sums(arguments)
    for term in terms:
        total.add(torch.autograd.grad(term, total.arguments, materialize_grads=True))
    return total.by_name()


def hessian_products(
    terms: Iterable[Tensor], arguments: Mapping[str, Tensor], vectors: Sequence[Mapping[str, Tensor]]
) -> list[Tensors]:
    """The Hessian of the sum of scalar terms times each vector, by double backward.

    Args:
        terms: with graph.
        arguments: what to differentiate by; the vectors name the same.
        vectors: share the first backward pass, so that several at once cost less than one after the other.
    """
    totals = [_Sums(arguments) for _ in vectors]
    for term in terms:
        slopes = torch.autograd.grad(term, list(arguments.values()), create_graph=True, materialize_grads=True)
        curved = [(name, slope) for name, slope in zip(arguments, slopes, strict=True) if slope.requires_grad]
        if not curved:
            continue  # this batch's loss is linear in the arguments
        for index, (total, vector) in enumerate(zip(totals, vectors, strict=True)):
            products = torch.autograd.grad(
                [slope for _, slope in curved],
                total.arguments,
                [vector[name] for name, _ in curved],
                retain_graph=index < len(vectors) - 1,
                materialize_grads=True,
            )
            total.add(products)
    return [total.by_name() for total in totals]


def gauss_newton_products(
    terms: Iterable[tuple[Tensor, Tensor]], arguments: Mapping[str, Tensor], vectors: Sequence[Mapping[str, Tensor]]
) -> list[Tensors]:
    r"""The Gauss-Newton matrix :math:`J^\top (\partial^2 \ell / \partial f^2) J` times each vector.

    Args:
        terms: pairs of a scalar and the output :math:`f` that it is a function of, both with graph.
        arguments: what to differentiate by; the vectors name the same.
        vectors: share the graphs.
    """
    totals = [_Sums(arguments) for _ in vectors]
    for term, output in terms:
        (slope,) = torch.autograd.grad(term, output, create_graph=True, materialize_grads=True)
        if not slope.requires_grad:
            continue  # this batch's loss is linear in the output
        # J'u as a function of u, whose own transpose is J: two backward passes for a Jacobian-vector product.
        weights = torch.zeros_like(output, requires_grad=True)
        pulled = torch.autograd.grad(
            output, list(arguments.values()), weights, create_graph=True, materialize_grads=True
        )
        for total, vector in zip(totals, vectors, strict=True):
            pairs = [(p, vector[name]) for name, p in zip(arguments, pulled, strict=True) if p.requires_grad]
            if not pairs:
                continue
            (pushed,) = torch.autograd.grad(*_transposed(pairs, weights), retain_graph=True, materialize_grads=True)
            (curved,) = torch.autograd.grad(slope, output, pushed, retain_graph=True, materialize_grads=True)
            total.add(torch.autograd.grad(output, total.arguments, curved, retain_graph=True, materialize_grads=True))
    return [total.by_name() for total in totals]


def directional_derivatives(
    losses: Iterable[Tensor], arguments: Mapping[str, Tensor], vector: Mapping[str, Tensor]
) -> Tensor:
    """The derivative of each example's own loss along a vector: ``(n,)``, float64, on the CPU.

    Args:
        losses: one number an example, with graph, batch by batch.
        arguments: what to differentiate by.
        vector: names some of them.
    """
    found = []
    for batch in losses:
        weights = torch.zeros_like(batch, requires_grad=True)
        pulled = torch.autograd.grad(
            batch, list(arguments.values()), weights, create_graph=True, materialize_grads=True
        )
        named = zip(arguments, pulled, strict=True)
        pairs = [(p, vector[name]) for name, p in named if p.requires_grad and name in vector]
        if not pairs:
            found.append(torch.zeros(len(batch), dtype=torch.float64))
            continue
        (slopes,) = torch.autograd.grad(*_transposed(pairs, weights), materialize_grads=True)
        found.append(slopes.double().cpu())
    return torch.cat(found)


def _transposed(pairs: Sequence[tuple[Tensor, Tensor]], weights: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Arguments of ``autograd.grad`` for the derivative, by the weights, of what they pulled back times a vector."""
    return [pulled for pulled, _ in pairs], weights, [vector for _, vector in pairs]


class _Sums:
    """Sums of one tensor for each argument, in at least float32: bfloat16 stops growing after a few hundred terms."""

    def __init__(self, arguments: Mapping[str, Tensor]) -> None:
        self.arguments = list(arguments.values())
        self._names = list(arguments)
        self._sums = [
            torch.zeros_like(argument, dtype=torch.promote_types(argument.dtype, torch.float32), requires_grad=False)
            for argument in self.arguments
        ]

    def add(self, terms: Sequence[Tensor]) -> None:
        torch._foreach_add_(self._sums, [term.to(total.dtype) for term, total in zip(terms, self._sums, strict=True)])

    def by_name(self) -> Tensors:
        """The sums in the arguments' own types."""
        pairs = zip(self._sums, self.arguments, strict=True)
        return dict(zip(self._names, (total.to(argument.dtype) for total, argument in pairs), strict=True))
