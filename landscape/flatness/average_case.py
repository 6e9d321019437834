"""Flatness in random directions: how far the risk rises, and how far one can go before it has risen."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from scipy.stats import beta

from landscape.flatness.crossings import first_crossing
from landscape.flatness.draws import draw_direction, mean_and_standard_error, mean_over_draws
from landscape.flatness.measurement import Measurement
from landscape.flatness.settings import at_least, positive_number, positive_numbers
from landscape.parameters import Direction, Point
from landscape.risk import EmpiricalRisk

__all__ = ["basin_radius", "filter_normalized_rise", "isotropic_rise", "pac_bayes_sigma"]

_FILTER: dict[str, Any] = {"normalization": "filter", "ignore": ("bias", "norm")}


def isotropic_rise(
    risk: EmpiricalRisk, seed: int = 0, radii: Sequence[float] = (3e-3, 1e-2, 3e-2), draws: int = 20
) -> list[Measurement]:
    r"""The mean rise under Gaussian noise of one scale on all parameters.

    .. math:: \mathbb{E}_{u \sim N(0, I)} \, L(\theta + \sigma u) - L(\theta)

    The average-case counterpart of sharpness, on which PAC-Bayesian bounds rest: Neyshabur, Bhojanapalli, McAllester
    and Srebro, "Exploring Generalization in Deep Learning", NeurIPS 2017. To second order it is
    :math:`\sigma^2 \mathrm{tr}(H) / 2`. The first-order term has the mean 0 and adds :math:`\sigma \lVert g \rVert` to
    the spread of the draws: at small radii that is all one sees. A larger number is sharper. Weights of trained
    networks are mostly between 0.01 and 0.1 in size; the default radii go from a small to a considerable share of that.

    Cost: one forward pass, and one for each draw and radius.

    A rescaling that leaves the function alone changes the number, as the noise is absolute.

    Args:
        risk: the function.
        seed: of the draws.
        radii: the values of :math:`\sigma`, the standard deviation of each entry.
        draws: number of directions, the same at each radius; at least 2.

    Returns:
        One measurement for each radius, with the rise of each draw.
    """
    radii = positive_numbers("radii", radii)
    rises = _rises(risk, seed, radii, draws, normalization="none", ignore=())
    return [mean_over_draws(found, {"sigma": radius}, {}) for radius, found in zip(radii, rises, strict=True)]


def filter_normalized_rise(
    risk: EmpiricalRisk, seed: int = 0, radii: Sequence[float] = (0.25, 0.5, 1.0), draws: int = 20
) -> list[Measurement]:
    r"""The mean rise along filter-normalized Gaussian directions.

    .. math:: \mathbb{E}_d \, L(\theta + \rho \, d) - L(\theta), \quad \lVert d_i \rVert = \lVert w_i \rVert

    with the norm of each filter of :math:`d` that of the weights' filter, as in Li, Xu, Taylor, Studer and Goldstein,
    "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018: the average height, at a distance, of the surfaces
    that are drawn along such directions. Biases and normalization layers stay put. A larger number is sharper.

    Cost: one forward pass, and one for each draw and radius.

    A rescaling that leaves the function alone does not change the number.

    Args:
        risk: the function.
        seed: of the draws.
        radii: the values of :math:`\rho`, in units of each filter's norm.
        draws: number of directions, the same at each radius; at least 2.

    Returns:
        One measurement for each radius, with the rise of each draw.
    """
    radii = positive_numbers("radii", radii)
    rises = _rises(risk, seed, radii, draws, **_FILTER)
    return [mean_over_draws(found, {"radius": radius}, {}) for radius, found in zip(radii, rises, strict=True)]


def basin_radius(
    risk: EmpiricalRisk,
    seed: int = 0,
    rises: Sequence[float] = (0.1, 0.5),
    draws: int = 20,
    limit: float = 4.0,
    tolerance: float = 1e-3,
) -> list[Measurement]:
    r"""How far one can go from the minimum, in a random direction, before the loss has risen by an amount.

    .. math:: \mathrm{median}_d \, \min \{ r > 0 : L(\theta + r d) > L(\theta) + \mathrm{rise} \}

    along filter-normalized Gaussian directions (Li, Xu, Taylor, Studer and Goldstein, "Visualizing the Loss Landscape
    of Neural Nets", NeurIPS 2018); biases and normalization layers stay put. A larger number is FLATTER. A loss that is
    not finite counts as risen.

    Some rays may reach the limit first (they are censored): that does not change a median as long as they are fewer
    than half, where it would bias a mean. Otherwise the value is a lower bound, the median with the limit in place of
    what is not known, and ``converged`` is false. The standard error is that of Maritz and Jarrett, "A Note on
    Estimating the Variance of the Sample Median", Journal of the American Statistical Association 73, 1978: the
    bootstrap's in the limit of infinitely many resamples. It is NaN where censored rays could change it by more than a
    tenth.

    A ray is searched by growing steps (:func:`landscape.flatness.crossings.first_crossing`): a ridge that is narrower
    than a step, half of the distance, may be missed.

    Cost: one forward pass, and for each draw one for every step out (0.02, 0.03, 0.045 … up to the limit) and about
    four for each rise.

    A rescaling that leaves the function alone does not change the number.

    Args:
        risk: the function.
        seed: of the draws.
        rises: amounts, in the unit of the loss.
        draws: number of rays; at least 2.
        limit: give up on a ray beyond this radius, in units of each filter's norm.
        tolerance: relative, of each radius.

    Returns:
        One measurement for each rise, with the radius of each draw: the limit for censored ones, which
        ``detail["censored"]`` lists by index.
    """
    rises = positive_numbers("rises", rises)
    at_least("draws", draws, 2, "one has no standard error")
    positive_number("limit", limit)
    positive_number("tolerance", tolerance)
    center, base = risk.parameters(), risk().loss
    found = [
        _radii_of_ray(risk, draw_direction(center, seed, index, **_FILTER), base, rises, limit, tolerance)
        for index in range(draws)
    ]
    return [
        _median_radius(radii, limit, {"rise": rise, "limit": float(limit)})
        for rise, radii in zip(rises, zip(*found, strict=True), strict=True)
    ]


def pac_bayes_sigma(
    risk: EmpiricalRisk,
    seed: int = 0,
    rise: float = 0.1,
    draws: int = 20,
    magnitude: bool = False,
    on: Literal["loss", "error"] = "loss",
    limit: float = 10.0,
    tolerance: float = 1e-3,
) -> Measurement:
    r"""The scale of the noise under which the risk rises by a given amount on average.

    .. math:: \sigma^* = \max \{ \sigma : \mathbb{E}_u \, L(\theta + \sigma u) - L(\theta) \le \mathrm{rise} \}, \quad
        u \sim N(0, I)

    and, with ``magnitude``, :math:`u_i \sim N(0, \theta_i^2 + \varepsilon^2)`, :math:`\varepsilon = 10^{-3}`. Jiang,
    Neyshabur, Mobahi, Krishnan and Bengio, "Fantastic Generalization Measures and Where to Find Them", ICLR 2020:
    they divide norms of the weights by it. Their rise is of the 0-1 error (``on="error"``), here of the
    loss by default; their :math:`\varepsilon` is not multiplied by :math:`\sigma`, here it is. A larger number is
    FLATTER. To second order of the loss :math:`\sigma^* = \sqrt{2 \, \mathrm{rise} / \mathrm{tr}\, H}`.

    All draws are common to all :math:`\sigma`, so that their mean is a smooth function of it (on the error a fine
    staircase); the first crossing is sought by doubling and then by Brent's method. With :math:`F_i` the rise of draw
    i and :math:`F'` the slope of their mean, from a central difference 10 % to either side, the draws reported are
    :math:`\sigma^* - (F_i(\sigma^*) - \mathrm{rise}) / F'`: their mean is the value, and their spread gives its
    standard error by the delta method.

    Cost: one forward pass, and for each draw one for every doubling from 0.001 on and about eight more.

    A rescaling that leaves the function alone changes the number, as the noise is absolute; with ``magnitude`` only as
    far as :math:`\varepsilon` matters.

    Args:
        risk: the function.
        seed: of the draws.
        rise: amount, in the unit of the loss, or as a share of the examples.
        draws: number of directions; at least 2.
        magnitude: noise in proportion to each weight.
        on: ``"loss"``; ``"error"``, 1 minus the risk's metric ``accuracy``.
        limit: give up beyond this :math:`\sigma`; the value is then this lower bound, and ``converged`` false.
        tolerance: relative, of :math:`\sigma`.

    Returns:
        One measurement. ``detail``: ``evaluations``, and ``rise_reached``, the mean rise at the value.

    Raises:
        ValueError: ``on="error"`` without an accuracy, or another unknown setting.
    """
    positive_number("rise", rise)
    at_least("draws", draws, 2, "one has no standard error")
    positive_number("limit", limit)
    positive_number("tolerance", tolerance)
    rises_at = functools.cache(_noise(risk, seed, draws, magnitude, _height(risk, on)))

    def mean_rise(sigma: float) -> float:
        return mean_and_standard_error(rises_at(sigma))[0]

    setting = {"rise": rise, "on": on, "magnitude": magnitude}
    sigma = first_crossing(mean_rise, rise, limit, first=1e-3, tolerance=tolerance)
    if sigma is None:
        detail = {"evaluations": rises_at.cache_info().misses * draws, "rise_reached": mean_rise(limit)}
        return Measurement(float(limit), math.nan, False, setting, detail)
    with np.errstate(divide="ignore", invalid="ignore"):
        rise_a_sigma = np.float64(mean_rise(1.1 * sigma) - mean_rise(0.9 * sigma)) / (0.2 * sigma)
        draws_of_sigma = sigma - (np.array(rises_at(sigma)) - mean_rise(sigma)) / rise_a_sigma
    detail = {"evaluations": rises_at.cache_info().misses * draws, "rise_reached": mean_rise(sigma)}
    if not (np.isfinite(draws_of_sigma).all() and 0 < rise_a_sigma < math.inf):
        return Measurement(sigma, math.nan, True, setting, detail)
    error = mean_and_standard_error(draws_of_sigma.tolist())[1]
    return Measurement(sigma, error, True, setting, detail, draws_of_sigma.tolist())


def _rises(risk: EmpiricalRisk, seed: int, radii: Sequence[float], draws: int, **how: Any) -> list[list[float]]:
    """For each radius the rise of each draw."""
    at_least("draws", draws, 2, "one has no standard error")
    center, base = risk.parameters(), risk().loss
    found: list[list[float]] = [[] for _ in radii]
    for index in range(draws):
        with risk.along([draw_direction(center, seed, index, **how)]) as move:
            for rises, radius in zip(found, radii, strict=True):
                move([radius])
                rises.append(_rise(risk().loss, base))
    return found


def _rise(loss: float, base: float) -> float:
    return loss - base if math.isfinite(loss) else math.inf


def _radii_of_ray(
    risk: EmpiricalRisk, direction: Direction, base: float, rises: Sequence[float], limit: float, tolerance: float
) -> list[float]:
    """The radius for each rise; infinite if the ray is censored."""
    with risk.along([direction]) as move:

        @functools.cache  # the steps out are common to all rises
        def rise_at(radius: float) -> float:
            move([radius])
            return _rise(risk().loss, base)

        crossings = [
            first_crossing(rise_at, rise, limit, first=0.02, growth=1.5, tolerance=tolerance) for rise in rises
        ]
    return [math.inf if radius is None else radius for radius in crossings]


def _median_radius(radii: Sequence[float], limit: float, setting: dict[str, Any]) -> Measurement:
    known = [min(radius, limit) for radius in radii]
    censored = [index for index, radius in enumerate(radii) if math.isinf(radius)]
    error, other = (_error_of_median([min(radius, far) for radius in radii]) for far in (limit, 2 * limit))
    if abs(other - error) > 0.1 * error:
        error = math.nan
    converged = math.isfinite(np.median(radii))
    return Measurement(float(np.median(known)), error, converged, setting, {"censored": censored}, known)


def _error_of_median(values: Sequence[float]) -> float:
    """By Maritz and Jarrett: in a resample the median is the i-th smallest value with a probability from Beta's law.

    That is exact for an odd number of values; for an even one, whose median is between two, to a few percent.
    """
    count = len(values)
    half = (count + 1) / 2
    probabilities = np.diff(beta.cdf(np.arange(count + 1) / count, half, half))
    ordered = np.sort(values)
    return float(np.sqrt(probabilities @ (ordered - probabilities @ ordered) ** 2))


def _height(risk: EmpiricalRisk, on: str) -> Callable[[], float]:
    """What is to rise."""
    if on == "loss":
        return lambda: risk().loss
    if on != "error":
        raise ValueError(f"on: expected 'loss' or 'error', got {on!r}")
    if "accuracy" not in risk.metric_names:
        raise ValueError(
            f"on='error': expected a risk with the metric 'accuracy', got {risk.metric_names}; use on='loss', or give "
            "the risk metrics={'accuracy': ...}"
        )
    return lambda: 1 - risk().metrics["accuracy"]


def _noise(
    risk: EmpiricalRisk, seed: int, draws: int, magnitude: bool, height: Callable[[], float]
) -> Callable[[float], tuple[float, ...]]:
    """Function of the scale: the rise of each draw."""
    center, base = risk.parameters(), height()

    def rises_at(sigma: float) -> tuple[float, ...]:
        found = []
        for index in range(draws):
            direction = draw_direction(center, seed, index)
            with risk.along([_in_proportion(direction, center) if magnitude else direction]) as move:
                move([sigma])
                found.append(_rise(height(), base))
        return tuple(found)

    return rises_at


_EPSILON = 1e-3  # so that weights of zero move too


def _in_proportion(direction: Direction, center: Point) -> Direction:
    scaled = {name: tensor * (center[name].square() + _EPSILON**2).sqrt() for name, tensor in direction.items()}
    return Direction(scaled, direction.roles)
