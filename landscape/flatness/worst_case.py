"""Sharpness: how much the risk rises at worst within a neighborhood of the minimum.

Each of these is the rise at the end of a search, and so a lower bound of the true maximum. A loss that is not finite
somewhere in the neighborhood is an infinite rise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from landscape.evaluation.batches import moved
from landscape.flatness.ascent import Ball, loss_like_slope, slope
from landscape.flatness.box import Box
from landscape.flatness.measurement import Measurement
from landscape.flatness.resplit import resplit
from landscape.flatness.settings import at_least, checked_steps, positive_numbers
from landscape.parameters import Point, filter_norms, norm
from landscape.risk import EmpiricalRisk

__all__ = ["adaptive_sharpness", "epsilon_sharpness", "m_sharpness", "sam_sharpness"]


def epsilon_sharpness(
    risk: EmpiricalRisk, seed: int = 0, radii: Sequence[float] = (1e-3, 5e-4), iterations: int = 10
) -> list[Measurement]:
    r"""The largest relative rise, in percent, within a small box around the minimum.

    .. math:: 100 \, \frac{\max_{z \in C} L(\theta + z) - L(\theta)}{1 + L(\theta)}, \quad
        C = \{ z : |z_i| \le \epsilon \, (|\theta_i| + 1) \}

    Keskar, Mudigere, Nocedal, Smelyanskiy and Tang, "On Large-Batch Training for Deep Learning: Generalization Gap and
    Sharp Minima", ICLR 2017, Metric 2.1 in the full space, with their defaults. A larger number is sharper; none is
    below 0, as the box holds the minimum itself.

    As there, the maximum is sought by a few iterations of L-BFGS-B, from the center; from a random point of the box if
    the gradient at the center vanishes. Coordinates are shares of the box's sides, and the unit of the loss is set by
    the mean slope along them, so that the first step goes nearly to a corner whatever the scale of the loss is. The
    optimizer holds some 25 copies of the weights in float64 on the CPU.

    Cost: one forward and backward pass for all radii, and for each radius one for every evaluation of the optimizer, a
    few more than its iterations.

    A rescaling that leaves the function alone changes the number, as the box has its own scale for each weight, with
    an absolute part.

    Args:
        risk: the function.
        seed: of the starting point where the gradient vanishes; otherwise nothing is drawn.
        radii: the values of :math:`\epsilon`.
        iterations: stop the optimizer after so many (``converged`` is then false).

    Returns:
        One measurement for each radius. ``detail``: ``iterations``, ``evaluations``, and ``on_border``, the share of
        coordinates that lie on the border of the box.
    """
    radii = positive_numbers("radii", radii)
    at_least("iterations", iterations, 1)
    center = slope(risk)
    found = []
    for radius in radii:
        box = Box(risk, center, radius)
        search = box.search(iterations, seed)
        value = 100 * search.rise / (1 + center.loss)
        setting = {"epsilon": radius, "iterations": iterations}
        detail = {"iterations": search.iterations, "evaluations": search.evaluations, "on_border": search.on_border}
        found.append(Measurement(value, math.nan, search.converged, setting, detail))
    return found


def sam_sharpness(
    risk: EmpiricalRisk,
    seed: int = 0,
    radii: Sequence[float] = (0.05, 0.1, 0.5),
    steps: Sequence[int] = (1, 10),
) -> list[Measurement]:
    r"""The rise within a Euclidean ball over all parameters: what sharpness-aware minimization minimizes.

    .. math:: \max_{\lVert e \rVert_2 \le \rho} L(\theta + e) - L(\theta)

    Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR
    2021. One step is their approximation, the rise at :math:`\rho \, g / \lVert g \rVert_2`, which can be negative
    where the risk bends down. More steps are projected gradient ascent from there, of step size :math:`2 \rho` halved
    where it overshoots, and report the highest loss found (:meth:`landscape.flatness.ascent.Ball.ascend`), so that
    more steps are never lower. A larger number is sharper.

    Where the gradient vanishes one step finds nothing (0), and more steps start along a random direction.

    Cost: one forward and backward pass for all, and for each radius as many as the largest number of steps, the last
    of them forward only; all numbers of steps are read off one ascent.

    A rescaling that leaves the function alone changes the number, as the ball is absolute.

    Args:
        risk: the function; its gradient is that of the whole data set.
        seed: of the first step where the gradient vanishes; otherwise nothing is drawn.
        radii: the values of :math:`\rho`.
        steps: numbers of ascent steps.

    Returns:
        One measurement for each radius and number of steps. ``detail``: ``steepness``, the norm of the gradient.
    """
    radii, steps = positive_numbers("radii", radii), checked_steps(steps)
    return _rises_in(Ball(risk, slope(risk), None, seed), radii, steps, {})


_RADII = {"element": (0.5, 1.0, 2.0), "filter": (0.05, 0.1, 0.2)}


def adaptive_sharpness(
    risk: EmpiricalRisk,
    seed: int = 0,
    radii: Sequence[float] | None = None,
    steps: Sequence[int] = (1, 10),
    eta: float = 0.0,
    normalization: Literal["element", "filter"] = "element",
) -> list[Measurement]:
    r"""The rise within a ball that is scaled by the weights themselves.

    .. math:: \max_{\lVert T^{-1} e \rVert_2 \le \rho} L(\theta + e) - L(\theta)

    Kwon, Kim, Park and Choi, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
    Networks", ICML 2021. With ``"element"``, :math:`T = \mathrm{diag}(|\theta_i| + \eta)`; with ``"filter"``, the norm
    of the filter that holds the weight, plus :math:`\eta`; biases and normalization layers are one block each
    (:func:`landscape.parameters.filter_norms`). All parameters of the risk move. One step is
    :math:`e = \rho \, T^2 g / \lVert T g \rVert_2`; more steps as in :func:`sam_sharpness`. A larger number is sharper.

    If an ascent spread evenly over n weights, each would change by a share :math:`\rho / \sqrt n` of itself
    (``"element"``) or of its filter's norm. The default radii, 0.5 to 2 by element, are what ASAM trains with and
    above; for networks of :math:`10^4` to :math:`10^6` weights they are root-mean-square changes from 2 % down to
    0.05 %. A filter's norm is larger than its typical weight by the root of its size, about ten, and the default radii
    by filter are a tenth.

    Cost: as :func:`sam_sharpness`.

    With :math:`\eta = 0` a rescaling that leaves the function alone, by a factor for each layer or (``"element"``)
    weight, does not change the number; otherwise it does.

    Args:
        risk: the function.
        seed: of the first step where the gradient vanishes; otherwise nothing is drawn.
        radii: the values of :math:`\rho`; None: those above.
        steps: numbers of ascent steps.
        eta: :math:`\eta`, 0 or more.
        normalization: ``"element"`` or ``"filter"``.

    Returns:
        One measurement for each radius and number of steps. ``detail``: ``steepness``, :math:`\lVert T g \rVert_2`.

    Raises:
        ValueError: an unknown normalization, or a negative ``eta``.
    """
    if normalization not in _RADII:
        raise ValueError(f"normalization: expected 'element' or 'filter', got {normalization!r}")
    if not (math.isfinite(eta) and eta >= 0):
        raise ValueError(f"eta: expected a number of 0 or more, got {eta}")
    radii, steps = positive_numbers("radii", _RADII[normalization] if radii is None else radii), checked_steps(steps)
    scale = _scale(risk.parameters(), normalization, eta)
    setting = {"normalization": normalization, "eta": float(eta)}
    return _rises_in(Ball(risk, slope(risk), scale, seed), radii, steps, setting)


def m_sharpness(
    risk: EmpiricalRisk,
    seed: int = 0,
    radii: Sequence[float] = (0.05, 0.1, 0.5),
    examples_a_batch: int | None = None,
) -> list[Measurement]:
    r"""The mean, over batches of m examples, of how much a batch's own loss rises by one ascent step of its own.

    .. math:: \sum_b \frac{n_b}{n} \left[ L_b(\theta + \rho \, g_b / \lVert g_b \rVert_2) - L_b(\theta) \right]

    Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR
    2021, section 4.1. With one batch of all examples it is the one-step :func:`sam_sharpness`. To first order the rise
    is :math:`\rho` times the mean norm of the batches' gradients, which by Jensen's inequality is at least the norm of
    their mean: at a small radius smaller batches never look flatter. A larger number is sharper.

    Batches are in the order as given, never shuffled: the same for all models that are measured on one data set.

    Cost: one forward and backward pass, and for each radius a forward pass. (If the risk estimates BatchNorm's
    ``statistics`` anew, that is done for every batch and radius.)

    A rescaling that leaves the function alone changes the number, as the ball is absolute.

    Args:
        risk: the function.
        seed: not used, as nothing is drawn.
        radii: the values of :math:`\rho`.
        examples_a_batch: m; the batches, tuples, lists or dictionaries of tensors, are divided anew. None: the risk's
            own batches.

    Returns:
        One measurement for each radius, with the standard error over batches (NaN for a single one). ``detail``:
        ``batches`` and ``largest_batch``.
    """
    del seed
    radii = positive_numbers("radii", radii)
    if examples_a_batch is not None:
        at_least("examples_a_batch", examples_a_batch, 1)
    device = next(risk.eager.parameters()).device
    sizes: list[int] = []
    rises: list[list[float]] = []
    with risk.evaluation():  # reading a data loader draws from the global random stream
        batches = risk.used_batches()
        for batch in batches if examples_a_batch is None else resplit(batches, examples_a_batch):
            size, found = _rises_of_batch(risk, moved(batch, device), radii)
            sizes.append(size)
            rises.append(found)
    shares = np.array(sizes) / sum(sizes)
    size_asked = "as given" if examples_a_batch is None else examples_a_batch
    return [
        _mean_of_batches(np.array(column), shares, {"rho": rho, "examples_a_batch": size_asked}, max(sizes))
        for rho, column in zip(radii, zip(*rises, strict=True), strict=True)
    ]


def _rises_in(ball: Ball, radii: Sequence[float], steps: Sequence[int], setting: dict[str, Any]) -> list[Measurement]:
    steepness = ball.steepness
    found = []
    for rho in radii:
        climb = [] if steepness == 0 and max(steps) == 1 else list(ball.ascend(rho, max(steps)))
        for count in steps:
            one_step = 0.0 if steepness == 0 else climb[0].rise
            rise = one_step if count == 1 else climb[count - 1].highest
            asked = {"rho": rho, "steps": count} | setting
            found.append(Measurement(rise, math.nan, math.isfinite(rise), asked, {"steepness": steepness}))
    return found


def _scale(center: Point, normalization: str, eta: float) -> dict[str, Tensor]:
    if normalization == "element":
        return {name: tensor.abs() + eta for name, tensor in center.items()}
    return {name: (filter_norms(tensor, center.roles[name]) + eta).to(tensor.dtype) for name, tensor in center.items()}


def _rises_of_batch(risk: EmpiricalRisk, batch: Any, radii: Sequence[float]) -> tuple[int, list[float]]:
    base, gradient, size = slope(risk, batch)
    length = norm(gradient)
    if length == 0:
        return size, [0.0] * len(radii)
    rises = []
    with risk.along([gradient]) as move:
        for rho in radii:
            move([rho / length])
            loss = loss_like_slope(risk, batch)
            rises.append(loss - base if math.isfinite(loss) else math.inf)
    return size, rises


def _mean_of_batches(rises: np.ndarray, shares: np.ndarray, setting: dict[str, Any], largest: int) -> Measurement:
    detail = {"batches": len(rises), "largest_batch": largest}
    if not np.isfinite(rises).all():
        return Measurement(math.inf, math.nan, False, setting, detail)
    mean, error = float(shares @ rises), math.nan
    if len(rises) > 1:  # for equal shares, the standard deviation over the root of the number of batches
        error = math.sqrt(len(rises) / (len(rises) - 1) * float(shares**2 @ (rises - mean) ** 2))
    return Measurement(mean, error, True, setting, detail)
