"""The Lanczos iteration with full re-orthogonalization, and thick restarts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.matrix import CurvatureMatrix

__all__ = ["Krylov", "Ritz"]


class Ritz(NamedTuple):
    """Approximate eigenpairs from a Krylov space, the smallest eigenvalue first.

    Attributes:
        values: ``(m,)``.
        coordinates: ``(m, m)``, unit eigenvectors in columns, in the basis.
        residuals: ``(m,)``, ``‖Av − θv‖`` of each: some eigenvalue of A lies within this distance of θ.
    """

    values: np.ndarray
    coordinates: np.ndarray
    residuals: np.ndarray


class Krylov:
    r"""An orthonormal basis that grows by one product at a time, and the matrix projected on it.

    Lanczos, "An iteration method for the solution of the eigenvalue problem of linear differential and integral
    operators", 1950, with every new vector made orthogonal to all others twice, so that no ghost copies of eigenvalues
    appear (as they do with three-term recurrences in floating point). :math:`A V = V T + w e_m^\top`, where only the
    last column of the remainder is not zero; this also holds after :meth:`restart` (Wu and Simon, "Thick-restart
    Lanczos method for large symmetric eigenvalue problems", 2000), when T is no longer tridiagonal.

    Args:
        matrix: a symmetric one.
        start: ``(n,)``, of any length but zero.
        capacity: vectors that fit; ``capacity × n`` numbers of memory.
        draws: for new starts when the space is invariant before it is full.

    Attributes:
        steps: size m of the basis.
        coupling: norm of the remainder w; 0 if the space is invariant.
    """

    def __init__(self, matrix: CurvatureMatrix, start: Tensor, capacity: int, draws: np.random.Generator) -> None:
        self._matrix = matrix
        self._draws = draws
        self._vectors = torch.empty(
            min(capacity, matrix.size) + 1, matrix.size, dtype=matrix.dtype, device=matrix.device
        )
        self._vectors[0] = start / torch.linalg.vector_norm(start)
        self._projected = np.zeros((0, 0))
        self._size = 0.0  # of the matrix, so far: what counts as zero beside it
        self.steps = 0
        self.coupling = 0.0

    @property
    def is_full(self) -> bool:
        """Whether no further step fits."""
        return self.steps == len(self._vectors) - 1

    @property
    def basis(self) -> Tensor:
        """``(m, n)``, orthonormal rows."""
        return self._vectors[: self.steps]

    @property
    def next_vector(self) -> Tensor:
        """``(n,)``: with which the next step begins; the remainder, of unit length, unless the coupling is 0."""
        return self._vectors[self.steps]

    @property
    def projected(self) -> np.ndarray:
        """``(m, m)``, symmetric: the matrix in the basis."""
        return self._projected

    def step(self) -> None:
        """One product, and one more vector of the basis."""
        remainder = self._matrix @ self._vectors[self.steps]
        self._size = max(self._size, float(torch.linalg.vector_norm(remainder)))
        self.steps += 1
        remainder, coefficients = self._orthogonal(remainder)
        column = coefficients.double().cpu().numpy()
        grown = np.zeros((self.steps, self.steps))
        grown[:-1, :-1] = self._projected
        grown[-1] = grown[:, -1] = column
        self._projected = grown
        self.coupling = float(torch.linalg.vector_norm(remainder))
        if self.coupling <= 10 * torch.finfo(self._matrix.dtype).eps * self._size:
            self.coupling = 0.0
        if self.steps < self._matrix.size:
            self._vectors[self.steps] = self._fresh() if self.coupling == 0 else remainder / self.coupling

    def ritz(self) -> Ritz:
        """What the space says of the spectrum."""
        values, coordinates = np.linalg.eigh(self._projected)
        return Ritz(values, coordinates, self.coupling * np.abs(coordinates[-1]))

    def vectors_of(self, coordinates: np.ndarray) -> Tensor:
        """``(k, n)``: vectors from their coordinates ``(m, k)`` in the basis."""
        return torch.from_numpy(coordinates.T.copy()).to(self.basis) @ self.basis

    def restart(self, keep: np.ndarray) -> None:
        """Shrink the space to some of its Ritz vectors and the remainder, with which the iteration goes on.

        Args:
            keep: indices into :meth:`ritz`.
        """
        ritz = self.ritz()
        kept = self.vectors_of(ritz.coordinates[:, keep])
        self._vectors[len(keep)] = self._vectors[self.steps]
        self._vectors[: len(keep)] = kept
        self._projected = np.diag(ritz.values[keep])
        self.steps = len(keep)

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The vector without its part in the basis, and the coefficients of that part."""
        coefficients = self.basis @ vector
        vector = vector - coefficients @ self.basis
        again = self.basis @ vector  # one pass leaves a share of rounding errors that the coupling magnifies
        return vector - again @ self.basis, coefficients + again

    def _fresh(self) -> Tensor:
        """A unit vector orthogonal to the basis."""
        vector, _ = self._orthogonal(self._matrix.gaussian(self._draws))
        vector, _ = self._orthogonal(vector / torch.linalg.vector_norm(vector))
        return vector / torch.linalg.vector_norm(vector)
