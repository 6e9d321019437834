"""The Hessian and the Gauss-Newton matrix of the empirical risk, as functions of flat vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from landscape.risk import EmpiricalRisk

__all__ = ["CurvatureMatrix", "Kind", "hessian_operator"]

Kind = Literal["hessian", "gauss-newton"]


class CurvatureMatrix:
    """Products of a curvature matrix with flat vectors, on the risk's device; counts them.

    Vectors have the parameters' precision, but at least float32.

    Args:
        risk: the function; its curvature is taken at the model's weights.
        kind: ``"hessian"``, or ``"gauss-newton"``: without the curvature of the network itself, so that no eigenvalue
            is negative if the loss is convex in the model's output.
        parameters: names or ``fnmatch`` patterns; the matrix is the diagonal block of these. None: all.

    Attributes:
        size: number of rows.
        spent: products so far.

    Raises:
        ValueError: an unknown kind, or a pattern that matches no parameter.
    """

    def __init__(self, risk: EmpiricalRisk, kind: Kind = "hessian", parameters: Sequence[str] | None = None) -> None:
        if kind not in ("hessian", "gauss-newton"):
            raise ValueError(f"matrix: expected 'hessian' or 'gauss-newton', got {kind!r}")
        self.risk = risk
        self.kind: Kind = kind
        point = risk.parameters()
        chosen = point if parameters is None else _matching(risk, parameters)
        self._like = {name: tensor for name, tensor in point.items() if name in chosen}
        first = next(iter(self._like.values()))
        self.device = first.device
        self.dtype = torch.promote_types(first.dtype, torch.float32)
        self.size = sum(tensor.numel() for tensor in self._like.values())
        self.spent = 0

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The product with one vector ``(size,)``."""
        return self.times([vector])[0]

    def times(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The products with several vectors ``(size,)``, which share one backward pass.

        Raises:
            ValueError: a product is not finite.
        """
        self.spent += len(vectors)
        named = [self.by_name(vector) for vector in vectors]
        multiply = self.risk.hessian_products if self.kind == "hessian" else self.risk.gauss_newton_products
        products = [self.flat(product) for product in multiply(named)]
        if not all(bool(torch.isfinite(product).all()) for product in products):
            raise ValueError("a Hessian-vector product is not finite: the loss has no curvature at these weights")
        return products

    def by_name(self, vector: Tensor) -> dict[str, Tensor]:
        """A flat vector as tensors of the parameters' shapes, types and devices."""
        parts = vector.split([tensor.numel() for tensor in self._like.values()])
        return {
            name: part.reshape(like.shape).to(like.device, like.dtype)
            for (name, like), part in zip(self._like.items(), parts, strict=True)
        }

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """The inverse of :meth:`by_name`."""
        return torch.cat([tensors[name].flatten().to(self.device, self.dtype) for name in self._like])

    def gaussian(self, draws: np.random.Generator) -> Tensor:
        """A standard normal vector, drawn on the CPU in float64, so that it is the same on every device."""
        return self._here(draws.standard_normal(self.size))

    def rademacher(self, draws: np.random.Generator) -> Tensor:
        """A vector of independent signs; see :meth:`gaussian`."""
        return self._here(draws.integers(0, 2, self.size, dtype=np.int8) * np.int8(2) - np.int8(1))

    def _here(self, vector: np.ndarray) -> Tensor:
        return torch.from_numpy(vector).to(self.device, self.dtype)


def hessian_operator(
    risk: EmpiricalRisk, matrix: Kind = "hessian", parameters: Sequence[str] | None = None
) -> LinearOperator:
    """The matrix as a SciPy ``LinearOperator`` in float64, for ``scipy.sparse.linalg``: ``eigsh``, ``cg`` and others.

    Set the environment variable ``OPENBLAS_NUM_THREADS=1``, or use ``threadpoolctl.threadpool_limits``, around SciPy's
    iterations: its small dense steps otherwise wake a second pool of threads that fights with PyTorch's.

    Args:
        risk: the function; its curvature is taken at the model's weights.
        matrix: ``"hessian"`` or ``"gauss-newton"``.
        parameters: names or patterns of the parameters whose diagonal block is wanted; None: all.

    Raises:
        ValueError: an unknown matrix, or a pattern that matches no parameter.
    """
    products = CurvatureMatrix(risk, matrix, parameters)

    def times(vector: np.ndarray) -> np.ndarray:
        flat = torch.from_numpy(np.array(vector, dtype=np.float64).ravel()).to(products.device, products.dtype)
        return (products @ flat).double().cpu().numpy()

    return LinearOperator((products.size,) * 2, matvec=times, rmatvec=times, dtype=np.float64)


def _matching(risk: EmpiricalRisk, patterns: Sequence[str]) -> set[str]:
    if isinstance(patterns, str):
        raise TypeError(f"parameters: expected a sequence, got the string {patterns!r}; write ({patterns!r},)")
    found: set[str] = set()
    for pattern in patterns:
        matching = risk.matching_parameters(pattern)
        if not matching:
            raise ValueError(f"parameters: {pattern!r} matches none of {', '.join(risk.parameters())}")
        found.update(matching)
    if not found:
        raise ValueError("parameters: expected at least one name, got none")
    return found
