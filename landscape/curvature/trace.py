"""Trace and Frobenius norm of the Hessian or the Gauss-Newton matrix, from random probes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.lanczos import Krylov
from landscape.curvature.matrix import CurvatureMatrix, Kind
from landscape.risk import EmpiricalRisk

__all__ = ["Estimate", "Moments", "hessian_frobenius_norm", "hessian_trace"]

_AT_ONCE = 4  # probes that share a forward and a backward pass
_LOOK_BACK = 3  # steps of a Krylov space over which their gain is averaged: single ones are uneven
_MARGIN = 2  # to stop at the first estimate that is small enough would be to stop at one that is too small
_PRIOR = 10  # observations that the bound on a probe's variance counts for


class Estimate(NamedTuple):
    """A number estimated from random probes.

    Attributes:
        value: the estimate.
        standard_error: of it.
        converged: whether the standard error fell below the tolerance.
        products: matrix-vector products that were spent.
    """

    value: float
    standard_error: float
    converged: bool
    products: int


def hessian_trace(
    risk: EmpiricalRisk,
    tolerance: float = 0.05,
    max_products: int = 1000,
    min_probes: int = 8,
    seed: int = 0,
    matrix: Kind = "hessian",
    parameters: Sequence[str] | None = None,
    deflate: int = 30,
) -> Estimate:
    r"""The trace, by Hutchinson's estimator beside a Krylov space in which the trace is known.

    With an orthonormal basis V of the space, :math:`\mathrm{tr} A = \mathrm{tr} V^\top A V + \mathbb{E} z^\top (I - V
    V^\top) A (I - V V^\top) z` for vectors z of random signs (Hutchinson, 1990). A few eigenvalues of a network's
    Hessian are far larger than the others, and most of the variance of :math:`z^\top A z` is theirs. The Lanczos
    iteration finds them first, and its steps go on while one saves more probes than it costs. The idea is that of
    Hutch++ (Meyer, Musco, Musco and Woodruff, 2021); a Krylov space needs half the products of its random sketch, as
    :math:`V^\top A V` comes with it, and probes that were drawn before it was built count as well as those after.

    It stops when the standard error is below ``tolerance`` of the trace's absolute value. (A rule that watches how much
    the mean still moves, as other tools have, stops at errors several times its tolerance.) The variance of a probe is
    the sample's, drawn towards its bound :math:`2 \lVert \cdot \rVert_F^2`, which the same products estimate and which
    is steadier when probes are few.

    Args:
        risk: the function; its curvature is taken at the model's weights.
        tolerance: relative standard error to reach.
        max_products: give up (``converged`` false) after so many.
        min_probes: probes before the rule is first asked; at least 2.
        seed: of the space's start and of the probes.
        matrix: ``"hessian"`` or ``"gauss-newton"``.
        parameters: names or patterns of the parameters whose diagonal block is wanted; None: all.
        deflate: largest size of the space, each step of which holds as many numbers as there are parameters; 0: plain
            Hutchinson. A matrix of at most twice as many rows is found whole, and its trace is exact.

    Raises:
        ValueError: fewer than two probes, an unknown matrix, or a pattern that matches no parameter.
    """
    moments = Moments(CurvatureMatrix(risk, matrix, parameters), seed, min_probes)
    return moments.until("trace", tolerance, max_products, deflate)


def hessian_frobenius_norm(
    risk: EmpiricalRisk,
    tolerance: float = 0.05,
    max_products: int = 1000,
    min_probes: int = 8,
    seed: int = 0,
    matrix: Kind = "hessian",
    parameters: Sequence[str] | None = None,
    deflate: int = 30,
) -> Estimate:
    r"""The Frobenius norm :math:`\sqrt{\mathrm{tr} A^2}`: the root of the sum of the squared eigenvalues.

    From the same products as :func:`hessian_trace`: :math:`\lVert A \rVert_F^2 = \lVert V^\top A V \rVert_F^2 + 2 b^2 +
    \mathbb{E} \lVert (I - V V^\top) A (I - V V^\top) z \rVert^2`, where b is the norm of the Lanczos remainder.

    Args:
        risk: as for :func:`hessian_trace`.
        tolerance: relative standard error to reach.
        max_products: give up (``converged`` false) after so many.
        min_probes: probes before the rule is first asked; at least 2.
        seed: of the space's start and of the probes.
        matrix: ``"hessian"`` or ``"gauss-newton"``.
        parameters: names or patterns of the parameters whose diagonal block is wanted; None: all.
        deflate: largest size of the space.

    Raises:
        ValueError: as for :func:`hessian_trace`.
    """
    moments = Moments(CurvatureMatrix(risk, matrix, parameters), seed, min_probes)
    return moments.until("frobenius norm", tolerance, max_products, deflate)


class Moments:
    """Trace and Frobenius norm of a matrix: exact inside a Krylov space, from probes beside it.

    Args:
        matrix: whose.
        seed: of the probes, and of a space that is built here.
        min_probes: before any rule is asked.
        space: one that exists already, of the same matrix.

    Raises:
        ValueError: fewer than two probes.
    """

    def __init__(self, matrix: CurvatureMatrix, seed: int, min_probes: int = 8, space: Krylov | None = None) -> None:
        if min_probes < 2:
            raise ValueError(f"min_probes: expected at least 2, got {min_probes}: one has no standard error")
        self._matrix = matrix
        self._seed = seed
        self._draws = np.random.default_rng(np.random.SeedSequence([seed, 1]))  # a space's start has another stream
        self._min_probes = min_probes
        self._space = space
        self._probes: list[_Probe] = []

    def until(
        self, which: Literal["trace", "frobenius norm"], tolerance: float, max_products: int, deflate: int
    ) -> Estimate:
        """Spend products until the relative standard error is within the tolerance, or no more than so many are left.

        Args:
            which: of the two.
            tolerance: relative standard error.
            max_products: of the matrix, all told.
            deflate: size up to which the space may grow.
        """
        estimate = self._trace if which == "trace" else self._frobenius_norm
        if self._matrix.size <= min(2 * deflate, max_products):
            space = self._grown(self._matrix.size)
            while not space.is_full:
                space.step()
            return Estimate(estimate()[0], 0.0, True, self._matrix.spent)
        while len(self._probes) < self._min_probes:
            self._probe(min(_AT_ONCE, self._min_probes - len(self._probes)))
        self._deflate(min(deflate, max_products - self._matrix.spent), tolerance)
        while True:
            value, error = estimate()
            goal, left = tolerance * abs(value), max_products - self._matrix.spent
            if error <= goal or left <= 0:
                return Estimate(value, error, error <= goal, self._matrix.spent)
            needed = math.ceil(len(self._probes) * ((error / goal) ** 2 - 1)) if goal > 0 else left
            self._probe(max(1, min(_AT_ONCE, needed, left)))

    def _probe(self, count: int) -> None:
        vectors = [self._matrix.rademacher(self._draws) for _ in range(count)]
        for vector, product in zip(vectors, self._matrix.times(vectors), strict=True):
            self._probes.append(_Probe(vector, product))
            self._probes[-1].project_on(self._space)

    def _deflate(self, largest: int, tolerance: float) -> None:
        """Grow the space while a step pays: while it saves more probes than the one product that it costs.

        Of N probes the mean has a variance of 2 F² / N, with F² the squared Frobenius norm of what is beside the space.
        The tolerance asks for N = 2 F² / (tolerance × trace)² of them, so that a step which takes Δ off F² saves 2 Δ /
        (tolerance × trace)² probes, but no more than are still to be drawn.
        """
        inside = [self._squares_inside()]
        steps = 0 if self._space is None else self._space.steps
        for step in range(steps, min(largest, self._matrix.size - 1)):
            beside = float(np.mean([probe.norm for probe in self._probes]))
            unit = (tolerance * self._trace()[0]) ** 2 / 2
            if beside <= unit * len(self._probes) / _MARGIN:
                return
            if step - steps >= _LOOK_BACK and (inside[-1] - inside[-1 - _LOOK_BACK]) / _LOOK_BACK < unit:
                return
            space = self._grown(largest)
            if space.is_full:
                return
            space.step()
            inside.append(self._squares_inside())
            for probe in self._probes:
                probe.project_on(space)

    def _grown(self, capacity: int) -> Krylov:
        if self._space is None:
            draws = np.random.default_rng(self._seed)
            self._space = Krylov(self._matrix, self._matrix.gaussian(draws), capacity, draws)
        return self._space

    def _squares_inside(self) -> float:
        """The squared Frobenius norm of the matrix in the space, and between it and the rest."""
        if self._space is None:
            return 0.0
        return float(np.sum(self._space.projected**2)) + 2 * self._space.coupling**2

    def _trace(self) -> tuple[float, float]:
        inside = 0.0 if self._space is None else float(np.trace(self._space.projected))
        if not self._probes:
            return inside, 0.0
        forms, count = [probe.form for probe in self._probes], len(self._probes)
        bound = 2 * float(np.mean([probe.norm for probe in self._probes]))
        variance = (_PRIOR * bound + (count - 1) * float(np.var(forms, ddof=1))) / (_PRIOR + count - 1)
        return inside + float(np.mean(forms)), math.sqrt(variance / count)

    def _frobenius_norm(self) -> tuple[float, float]:
        if not self._probes:
            return math.sqrt(self._squares_inside()), 0.0
        norms, count = [probe.norm for probe in self._probes], len(self._probes)
        mean, sample = float(np.mean(norms)), float(np.var(norms, ddof=1))
        norm = math.sqrt(self._squares_inside() + mean)
        # The variance of a norm is at most 2 λ² F² with the largest eigenvalue λ beside the space, which its remainder
        # gives the size of. Without a space there is no such number, and the sample's spread stands alone.
        prior = 0 if self._space is None else _PRIOR
        bound = 0.0 if self._space is None else 2 * (2 * self._space.coupling) ** 2 * mean
        variance = (prior * bound + (count - 1) * sample) / (prior + count - 1)
        return norm, math.sqrt(variance / count) / (2 * norm) if norm else 0.0


class _Probe:
    """A vector z and its product Az, and what is left of both beside a Krylov space that may grow.

    With V the space's basis, c = Vᵀz, d = VᵀAz, and A V = V T + b v eᵀ, where v is the next vector and b the coupling:
    (I − VVᵀ) z has the form zᵀAz − 2 cᵀd + cᵀTc, and its product has, beside the space, the part (I − VVᵀ) Az − b cₘ v.

    Attributes:
        form: of the part of z beside the space.
        norm: squared, of that part's product beside the space.
    """

    def __init__(self, vector: Tensor, product: Tensor) -> None:
        self._vector, self._product = vector, product
        self._of_whole = self.form, self.norm = _dot(vector, product), _dot(product, product)

    def project_on(self, space: Krylov | None) -> None:
        """Leave out what is in the space."""
        if space is None:
            return
        c, d = (_numbers(space.basis @ vector) for vector in (self._vector, self._product))
        coupled = space.coupling * c[-1]
        ahead = _dot(space.next_vector, self._product) if coupled else 0.0
        form, norm = self._of_whole
        self.form = form - 2 * float(c @ d) + float(c @ space.projected @ c)
        self.norm = max(norm - float(d @ d) - 2 * coupled * ahead + coupled**2, 0.0)


def _numbers(vector: Tensor) -> np.ndarray:
    numbers: np.ndarray = vector.cpu().numpy().astype(np.float64)
    return numbers


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a, b))
