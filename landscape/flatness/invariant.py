r"""Flatness metrics that no rescaling of the weights moves, without a radius to choose.

If one layer is multiplied by c and the next divided by c, and the function stays the same, then gradients of the first
are divided by c and those of the second multiplied by c. So whatever is made of weights *times* derivatives, layer by
layer, stays the same: :math:`\langle \theta, \nabla \ell \rangle`, or a Hessian between two factors of weights.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from landscape.flatness.draws import draw_direction, mean_and_standard_error
from landscape.flatness.measurement import Measurement
from landscape.flatness.settings import at_least, positive_number
from landscape.parameters import Point, inner_product
from landscape.risk import EmpiricalRisk

__all__ = ["filter_normalized_trace", "fisher_rao_norm", "relative_flatness"]

_HAVE_NEURONS = ("linear", "convolution", "recurrent", "attention", "other")
_TOGETHER = 10  # vectors whose products share a graph, and draws before the stopping rule is first asked

Probe = Callable[[int], Mapping[str, Tensor]]


def relative_flatness(
    risk: EmpiricalRisk,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    tolerance: float = 0.05,
    max_products: int = 200,
) -> list[Measurement]:
    r"""Relative flatness of a layer; the name is the paper's, but a larger number is sharper.

    For the weights :math:`W \in \mathbb{R}^{m \times k}` of one layer, whose rows :math:`w_s` are its neurons (or
    output filters, or gates), and the blocks :math:`H_{s,s'} = \partial^2 L / \partial w_s \partial w_{s'}`,

    .. math:: \kappa = \sum_{s,s'} \langle w_s, w_{s'} \rangle \operatorname{tr} H_{s,s'}.

    **Estimator.** Let :math:`R R^\top = W W^\top` and :math:`X` have independent entries of mean 0 and variance 1. For
    :math:`V = R X`, :math:`\mathbb{E}[V_{si} V_{s'j}] = \delta_{ij} (R R^\top)_{ss'}`, so that
    :math:`\mathbb{E}\, V^\top H V = \sum_{s,s',i} (W W^\top)_{ss'} H_{si,s'i} = \kappa`. In other words, κ is the
    trace of the Hessian in the coordinates :math:`X`, and Hutchinson's estimator applies. Signs for the entries of
    :math:`X` give a spread of about half the value for a draw on small classifiers; a rank-one :math:`X`, the simplest
    choice, has twice that and needs four to five times as many products. :math:`R` is :math:`W` itself or, where the
    layer has fewer rows than columns, the symmetric root of :math:`W W^\top`, so that there are as few coordinates as
    possible: :math:`\min(m, k) \cdot k`. When ``max_products`` allows one product for each of them, the sum is exact.

    **Rescaling.** Unchanged when the whole layer is multiplied by c and the next one divided by c, or the previous
    layer multiplied and this one divided, also neuron by neuron on its *output* side. Multiplying single neurons of the
    *previous* layer, with the columns of :math:`W` divided, does change it: κ adds up :math:`k` columns that then have
    scales of their own.

    Cost: one Hessian-vector product of this layer's block for each draw, ten at a time on one graph. For the last
    layer each costs little more than its share of a forward pass.

    Args:
        risk: the function; its Hessian is taken at the model's weights.
        seed: of the draws.
        layers: names or ``fnmatch`` patterns of weights, or of the modules that hold them. None: the last linear layer,
            where the paper measures.
        tolerance: relative standard error to reach.
        max_products: give up (``converged`` false) after so many products for one layer; at least 2.

    Returns:
        One measurement for each layer.

    Raises:
        ValueError: a layer that does not exist or has no neurons, no linear layer, or a number that cannot be.

    References:
        Petzka, Kamp, Adilova, Sminchisescu, Boley, "Relative Flatness and Generalization", NeurIPS 2021.
    """
    _check_effort(tolerance, max_products)
    center = risk.parameters()
    return [
        _relative_flatness_of(risk, seed, name, center[name], tolerance, max_products)
        for name in _layers(center, layers)
    ]


def fisher_rao_norm(
    risk: EmpiricalRisk, seed: int = 0, fisher: Sequence[str] = ("empirical", "model")
) -> list[Measurement]:
    r"""The squared Fisher-Rao norm of the weights, :math:`\langle \theta, I(\theta) \theta \rangle`.

    The square is what the paper's definition writes down, and it is a mean over examples. With the empirical Fisher
    matrix (labels from the data) it is :math:`\frac1N \sum_n \langle \nabla \ell_n, \theta \rangle^2`. With the model's
    own (labels drawn from its predictions) it is :math:`\theta^\top G \theta`, as the Gauss-Newton matrix :math:`G` is
    that Fisher matrix for cross-entropy of a softmax; for other losses it is the Gauss-Newton form under that name.
    Larger is sharper. The empirical one vanishes on data that are fitted perfectly; the model's own when predictions
    are certain.

    Unchanged by rescaling, as :math:`\langle \nabla \ell_n, \theta \rangle` is, layer by layer. For a network without
    biases and with :math:`l` layers of weights between ReLUs, that is :math:`l \, \langle \partial \ell_n / \partial
    f_n, f_n \rangle` (the paper's theorem), so that the norm says nothing that the outputs do not.

    Cost: one pass of derivatives, about two backward passes, for the empirical one and two more for the model's own.

    Args:
        risk: the function. Parameters that it does not vary do not count.
        seed: not used, as nothing is drawn.
        fisher: ``"empirical"``, ``"model"``, or both.

    Returns:
        One measurement for each. That of the empirical one has ``standard_error_over_examples`` in ``detail``.

    Raises:
        ValueError: another kind of Fisher matrix.

    References:
        Liang, Poggio, Rakhlin, Stokes, "Fisher-Rao Metric, Geometry, and Complexity of Neural Networks", AISTATS 2019.
    """
    del seed
    if isinstance(fisher, str):
        raise TypeError(f"fisher: expected a sequence, got the string {fisher!r}; write ({fisher!r},)")
    if unknown := sorted(set(fisher) - {"empirical", "model"}):
        raise ValueError(f"fisher: expected 'empirical' or 'model', got {unknown[0]!r}")
    weights = risk.parameters()
    return [_empirical_norm(risk, weights) if kind == "empirical" else _model_norm(risk, weights) for kind in fisher]


def filter_normalized_trace(
    risk: EmpiricalRisk,
    seed: int = 0,
    tolerance: float = 0.05,
    max_products: int = 200,
    ignore: Sequence[str] = ("bias", "norm"),
) -> Measurement:
    r"""Trace of the Hessian where each filter is measured in units of its own norm.

    A filter-normalized Gaussian direction :math:`d` is, filter by filter, uniform on the sphere of radius
    :math:`\lVert w_i \rVert`, and filters are independent. So :math:`\mathbb{E}[d_i d_j^\top] = \delta_{ij}
    \lVert w_i \rVert^2 / n_i` for the :math:`n_i` weights of filter :math:`i`, and

    .. math:: \mathbb{E}\, d^\top H d = \sum_i \frac{\lVert w_i \rVert^2}{n_i} \operatorname{tr} H_{ii}.

    To second order the risk rises by :math:`\rho^2 / 2` times this under noise of relative size :math:`\rho`: it is the
    curvature of a filter-normalized surface, averaged over directions, without a radius. Larger is sharper. Rescaling
    does not change it, not even neuron by neuron, as long as biases and normalization layers stay put.

    Cost: one Hessian-vector product for each draw, ten at a time on one graph.

    Args:
        risk: the function; its Hessian is taken at the model's weights.
        seed: of the draws.
        tolerance: relative standard error to reach.
        max_products: give up (``converged`` false) after so many; at least 2.
        ignore: parameters that stay put, as for :func:`landscape.random_directions`.

    Raises:
        ValueError: a number that cannot be, or what :func:`landscape.random_directions` refuses.

    References:
        Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, for the
        directions; Tsuzuku, Sato, Sugiyama, "Normalized Flat Minima: Exploring Scale Invariant Definition of Flat
        Minima for Neural Networks Using PAC-Bayesian Analysis", ICML 2020, for the idea of a Hessian in such units.
    """
    _check_effort(tolerance, max_products)
    center = risk.parameters()

    def probe(index: int) -> Mapping[str, Tensor]:
        return draw_direction(center, seed, index, "filter", ignore)

    found = _mean_product(risk, probe, tolerance, max_products)
    return Measurement(
        found.mean, found.error, found.converged, {}, {"products": len(found.values)}, draws=tuple(found.values)
    )


def _relative_flatness_of(
    risk: EmpiricalRisk, seed: int, name: str, weights: Tensor, tolerance: float, max_products: int
) -> Measurement:
    rows = weights.detach().double().flatten(1)
    root = _symmetric_root(rows) if rows.shape[0] < rows.shape[1] else rows
    shape = root.shape[1], rows.shape[1]

    def along(coordinates: Tensor) -> dict[str, Tensor]:
        return {name: (root @ coordinates.to(root)).reshape(weights.shape).to(weights)}

    def signs(index: int) -> dict[str, Tensor]:
        draws = np.random.default_rng(np.random.SeedSequence([seed, index]))
        return along(torch.from_numpy(draws.integers(0, 2, shape) * 2.0 - 1.0))

    def unit(index: int) -> dict[str, Tensor]:
        coordinates = torch.zeros(shape, dtype=torch.float64)
        coordinates.view(-1)[index] = 1.0
        return along(coordinates)

    size, setting = shape[0] * shape[1], {"layer": name}
    if size <= max_products:
        value = sum(_products(risk, [unit(index) for index in range(size)]))
        return Measurement(value, setting=setting, detail={"products": size, "exact": True})
    found = _mean_product(risk, signs, tolerance, max_products)
    detail = {"products": len(found.values), "exact": False}
    return Measurement(found.mean, found.error, found.converged, setting, detail, tuple(found.values))


def _symmetric_root(rows: Tensor) -> Tensor:
    """The one positive semi-definite R with R R = W W': other roots differ from model to model by arbitrary signs."""
    eigenvalues, vectors = torch.linalg.eigh(rows @ rows.T)
    return (vectors * eigenvalues.clamp(min=0).sqrt()) @ vectors.T


def _empirical_norm(risk: EmpiricalRisk, weights: Point) -> Measurement:
    squares = risk.directional_derivatives(weights) ** 2
    error = float(squares.std() / math.sqrt(len(squares))) if len(squares) > 1 else math.nan
    detail = {"standard_error_over_examples": error}
    return Measurement(float(squares.mean()), setting={"fisher": "empirical"}, detail=detail)


def _model_norm(risk: EmpiricalRisk, weights: Point) -> Measurement:
    (product,) = risk.gauss_newton_products([weights])
    return Measurement(inner_product(weights, product), setting={"fisher": "model"})


def _layers(center: Point, patterns: Sequence[str] | None) -> list[str]:
    matrices = [name for name in center if center[name].ndim > 1 and center.roles[name].kind in _HAVE_NEURONS]
    if patterns is None:
        linear = [name for name in matrices if center.roles[name].kind == "linear" and center[name].ndim == 2]
        if not linear:
            raise ValueError(f"expected a linear layer, got none; give layers, one or more of {', '.join(matrices)}")
        return linear[-1:]
    if isinstance(patterns, str):
        raise TypeError(f"layers: expected a sequence, got the string {patterns!r}; write ({patterns!r},)")
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in matrices):
            raise ValueError(f"layers: {pattern!r} matches none of the layers with neurons, {', '.join(matrices)}")
    return [name for name in matrices if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(one, pattern) for one in (name, name.rpartition(".")[0]))


class _Mean(NamedTuple):
    mean: float
    error: float
    converged: bool
    values: list[float]


def _mean_product(risk: EmpiricalRisk, probe: Probe, tolerance: float, most: int) -> _Mean:
    """The mean of d'Hd over draws, until its relative standard error is reached or the products are spent."""
    values: list[float] = []
    while True:
        upcoming = range(len(values), min(len(values) + _TOGETHER, most))
        values += _products(risk, [probe(index) for index in upcoming])
        mean, error = mean_and_standard_error(values)
        converged = error <= tolerance * abs(mean)  # false if a product was not finite
        if converged or not math.isfinite(mean) or len(values) >= most:
            return _Mean(mean, error, converged, values)


def _products(risk: EmpiricalRisk, vectors: Sequence[Mapping[str, Tensor]]) -> list[float]:
    blocks = [vectors[start : start + _TOGETHER] for start in range(0, len(vectors), _TOGETHER)]
    return [
        inner_product(vector, product)
        for block in blocks
        for vector, product in zip(block, risk.hessian_products(block), strict=True)
    ]


def _check_effort(tolerance: float, max_products: int) -> None:
    positive_number("tolerance", tolerance)
    at_least("max_products", max_products, 2, "one draw has no standard error")
