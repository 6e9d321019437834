"""Worst-case sharpness against trust-region problems, boxes with known maxima, and other optimizers."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize

from landscape import EmpiricalRisk
from landscape.flatness.ascent import loss_like_slope, slope
from landscape.flatness.worst_case import adaptive_sharpness, epsilon_sharpness, m_sharpness, sam_sharpness

SPECTRUM = [-3.0, 0.5, 1.0, 2.0, 4.0, 9.0]


def highest_in_ball(gradient, matrix, rho):
    """The maximum of g'e + e'Ae / 2 over |e| <= rho (Moré and Sorensen 1983).

    On the border (mu - A) e = g with mu above the largest eigenvalue, and the norm falls as mu rises; if A is negative
    definite the maximum may be inside, at -A^-1 g.
    """
    eigenvalues, vectors = np.linalg.eigh(matrix)
    slopes = vectors.T @ gradient

    def excess(mu):
        return np.linalg.norm(slopes / (mu - eigenvalues)) - rho

    top = eigenvalues[-1]
    if top < 0 and excess(0.0) <= 0:
        e = slopes / -eigenvalues
    else:
        mu = brentq(excess, max(top, 0) + 1e-12, top + np.linalg.norm(slopes) / rho + 1, xtol=1e-14)
        e = slopes / (mu - eigenvalues)
    return slopes @ e + (eigenvalues * e) @ e / 2


def only(measurements):
    (found,) = measurements
    return found


# Loss and gradient at once


def test_slope_over_all_examples_and_over_one_batch(by_hand):
    theta = torch.tensor(by_hand.theta, requires_grad=True)
    batches = [None, by_hand.risk.batches[2]]
    for batch, losses in zip(batches, [by_hand.losses(theta), by_hand.losses(theta)[8:]], strict=True):
        found = slope(by_hand.risk, batch)
        (gradient,) = torch.autograd.grad(losses.mean(), theta)
        np.testing.assert_allclose(by_hand.flat(found.gradient), gradient, rtol=1e-10, atol=1e-14)
        assert found.loss == pytest.approx(losses.mean().item(), rel=1e-12)
        assert loss_like_slope(by_hand.risk, batch) == found.loss
        assert found.examples == len(losses)


# Keskar's sharpness


@pytest.mark.parametrize("epsilon", [1e-3, 0.3])
def test_epsilon_sharpness_of_a_separable_quadratic(bowl, epsilon):
    # For each coordinate |g| s + a s^2 / 2 with s the side of the box, if it still rises there: |g| + a s > 0.
    # Otherwise the maximum is inside, at s = -|g| / a, and is -g^2 / 2a.
    curvatures = np.array([-5.0, 0.5, 1.0, 2.0, 4.0, 9.0])
    quadratic = bowl(np.diag(curvatures))
    slope, side = np.abs(quadratic.gradient), epsilon * (np.abs(quadratic.theta) + 1)
    at_border = slope + curvatures * side > 0
    rises = np.where(at_border, slope * side + curvatures * side**2 / 2, -(slope**2) / (2 * curvatures))
    expected = 100 * rises.sum() / (1 + quadratic.losses(quadratic.theta).mean())
    found = only(epsilon_sharpness(quadratic.risk, radii=[epsilon], iterations=50))
    assert found.value == pytest.approx(expected, rel=1e-7)
    assert found.converged
    assert found.detail["on_border"] == at_border.mean()
    assert found.setting == {"epsilon": epsilon, "iterations": 50}


def test_epsilon_sharpness_where_some_coordinates_stay_inside(bowl):
    # All concave, and the box a tenth wider than the longest way |g / a| to the top: the rise is -g^2 / 2a in each.
    curvatures = -np.array([5.0, 0.5, 1.0, 2.0, 4.0, 9.0])
    quadratic = bowl(np.diag(curvatures))
    way = np.abs(quadratic.gradient / curvatures)
    epsilon = float(1.1 * (way / (np.abs(quadratic.theta) + 1)).max())
    base = quadratic.losses(quadratic.theta).mean()
    expected = 100 * (-(quadratic.gradient**2) / (2 * curvatures)).sum() / (1 + base)
    found = only(epsilon_sharpness(quadratic.risk, radii=[epsilon], iterations=200))
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.detail["on_border"] == 0


@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_epsilon_sharpness_of_a_network_by_another_optimizer(by_hand, epsilon):
    side = epsilon * (np.abs(by_hand.theta) + 1)
    base = by_hand.value(by_hand.theta)

    def depth(shares):
        value, gradient = by_hand.value_and_gradient(by_hand.theta + shares * side)
        return base - value, -gradient * side

    bounds = [(-1, 1)] * len(side)
    found_there = minimize(depth, np.zeros(26), jac=True, method="SLSQP", bounds=bounds, options={"ftol": 1e-14})
    found = only(epsilon_sharpness(by_hand.risk, radii=[epsilon], iterations=200))
    assert found.value == pytest.approx(100 * -found_there.fun / (1 + base), rel=1e-4)


def test_ten_iterations_come_close_whatever_the_scale_of_the_loss_is(by_hand):
    risk = by_hand.risk
    for scale in (1e-6, 1.0, 1e6):
        scaled = EmpiricalRisk(risk.model, risk.batches, loss=lambda m, b, s=scale: s * risk.losses(m, b))
        few, many = (only(epsilon_sharpness(scaled, radii=[1e-2], iterations=n)) for n in (10, 500))
        assert few.value == pytest.approx(many.value, rel=1e-2)
        assert many.converged
        assert few.detail["iterations"] <= 10


def test_an_optimizer_that_is_stopped_has_not_converged(by_hand):
    assert not only(epsilon_sharpness(by_hand.risk, radii=[0.5], iterations=1)).converged


def test_epsilon_sharpness_from_a_point_without_slope(valley):
    # At w = 0 the box is |w| <= epsilon: the corners all have epsilon^2 (1 + 4) / 2.
    risk = valley(lambda w: 0.5 * (w[0] ** 2 + 4 * w[1] ** 2), [0.0, 0.0])
    found = only(epsilon_sharpness(risk, radii=[0.2], seed=3))
    assert found.value == pytest.approx(100 * 0.2**2 * 5 / 2, rel=1e-12)


def test_epsilon_sharpness_at_the_top_of_a_hill_is_zero(valley):
    found = only(epsilon_sharpness(valley(lambda w: -(w**2).sum(), [0.0, 0.0]), radii=[0.2]))
    assert found.value == 0.0


# A Euclidean ball


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_one_step_on_a_quadratic(bowl, symmetric, rho):
    # L(theta + e) - L(theta) = g'e + e'Ae / 2 with e = rho g / |g|.
    quadratic = bowl(symmetric(SPECTRUM))
    g = quadratic.gradient
    expected = rho * np.linalg.norm(g) + rho**2 * (g @ quadratic.matrix @ g) / (2 * g @ g)
    found = only(sam_sharpness(quadratic.risk, radii=[rho], steps=[1]))
    assert found.value == pytest.approx(expected, rel=1e-11)
    assert found.detail["steepness"] == pytest.approx(np.linalg.norm(g), rel=1e-12)
    assert found.setting == {"rho": rho, "steps": 1}
    assert math.isnan(found.standard_error)


@pytest.mark.parametrize("rho", [0.05, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("spectrum", [SPECTRUM, [-9.0, -4.0, -2.0, -1.0, -0.5, -0.2], [0.0] * 5 + [1e-3]])
def test_many_steps_reach_the_maximum_over_the_ball(bowl, symmetric, rho, spectrum):
    quadratic = bowl(symmetric(spectrum))
    expected = highest_in_ball(quadratic.gradient, quadratic.matrix, rho)
    ten, many = sam_sharpness(quadratic.risk, radii=[rho], steps=[10, 300])
    assert many.value == pytest.approx(expected, rel=1e-6)
    assert ten.value == pytest.approx(expected, rel=0.05)
    assert max(ten.value, many.value) <= expected * (1 + 1e-10)


def test_many_steps_on_a_network_by_another_optimizer(by_hand):
    rho, base = 0.7, by_hand.value(by_hand.theta)
    inside = {
        "type": "ineq",
        "fun": lambda e: rho**2 - e @ e,
        "jac": lambda e: -2 * e,
    }

    def depth(e):
        value, gradient = by_hand.value_and_gradient(by_hand.theta + e)
        return base - value, -gradient

    starts = np.random.default_rng(0).standard_normal((8, 26))
    best = max(
        -minimize(depth, rho * s / np.linalg.norm(s), jac=True, method="SLSQP", constraints=inside).fun for s in starts
    )
    few, many = sam_sharpness(by_hand.risk, radii=[rho], steps=[10, 200])
    assert many.value == pytest.approx(best, rel=1e-4)
    assert few.value == pytest.approx(best, rel=0.05)


def test_one_step_on_a_network(by_hand):
    base, gradient = by_hand.value_and_gradient(by_hand.theta)
    for rho in (0.05, 0.5):
        expected = by_hand.value(by_hand.theta + rho * gradient / np.linalg.norm(gradient)) - base
        assert only(sam_sharpness(by_hand.risk, radii=[rho], steps=[1])).value == pytest.approx(expected, rel=1e-10)


def test_more_steps_are_never_lower_and_do_not_depend_on_what_else_is_asked(by_hand):
    counts = [1, 2, 3, 5, 10, 20]
    together = [found.value for found in sam_sharpness(by_hand.risk, radii=[1.5], steps=counts)]
    assert together == sorted(together)
    assert together[-1] > together[0]
    alone = [only(sam_sharpness(by_hand.risk, radii=[1.5], steps=[count])).value for count in counts]
    assert alone == together


def test_one_step_past_a_summit_falls_and_more_steps_do_not(valley):
    # L = w - w^2 from 0: the step of 2 ends at -2; the maximum within reach is 1/4 at w = 1/2.
    one, many = sam_sharpness(valley(lambda w: (w - w**2).sum(), [0.0]), radii=[2.0], steps=[1, 60])
    assert one.value == -2.0
    assert many.value == pytest.approx(0.25, rel=1e-6)


def test_a_point_without_slope(valley):
    # Within the ball 0.5 rho^2 max(1, 4) = 2 rho^2. One step has nowhere to go.
    risk = valley(lambda w: 0.5 * (w[0] ** 2 + 4 * w[1] ** 2), [0.0, 0.0])
    one, many = sam_sharpness(risk, radii=[0.5], steps=[1, 60], seed=4)
    assert (one.value, one.detail["steepness"]) == (0.0, 0.0)
    assert many.value == pytest.approx(2 * 0.5**2, rel=1e-9)
    assert many == sam_sharpness(risk, radii=[0.5], steps=[60], seed=4)[0]
    assert only(sam_sharpness(risk, radii=[0.5], steps=[1])).value == 0.0


def test_a_loss_that_is_not_finite_is_an_infinite_rise(valley):
    risk = valley(lambda w: -torch.log(1 - w).sum(), [0.0])
    near, far = sam_sharpness(risk, radii=[0.5, 2.0], steps=[1])
    assert near.value == pytest.approx(math.log(2), rel=1e-12)
    assert (far.value, far.converged) == (math.inf, False)
    boxed = only(epsilon_sharpness(risk, radii=[2.0]))
    assert (boxed.value, boxed.converged) == (math.inf, False)
    batchwise = only(m_sharpness(risk, radii=[2.0]))
    assert (batchwise.value, batchwise.converged) == (math.inf, False)


# A ball that the weights scale


@pytest.mark.parametrize(("normalization", "eta"), [("element", 0.0), ("element", 0.1), ("filter", 0.0)])
def test_adaptive_sharpness_of_a_quadratic(bowl, symmetric, normalization, eta):
    # In u = T^-1 e a quadratic again, with gradient Tg and Hessian TAT, over a round ball.
    quadratic = bowl(symmetric(SPECTRUM))
    theta, rho = quadratic.theta, 0.4
    blocks = [theta[:2], theta[2:4], theta[4:]]  # two rows and a bias
    t = np.abs(theta) if normalization == "element" else np.repeat([np.linalg.norm(block) for block in blocks], 2)
    t = t + eta
    g, a = t * quadratic.gradient, t[:, None] * quadratic.matrix * t
    step = rho * g / np.linalg.norm(g)
    settings = {"radii": [rho], "eta": eta, "normalization": normalization}
    one, many = adaptive_sharpness(quadratic.risk, steps=[1, 300], **settings)
    assert one.value == pytest.approx(g @ step + step @ a @ step / 2, rel=1e-11)
    assert many.value == pytest.approx(highest_in_ball(g, a, rho), rel=1e-6)
    assert many.setting == {"rho": rho, "steps": 300, "normalization": normalization, "eta": eta}


@pytest.mark.parametrize("normalization", ["element", "filter"])
def test_adaptive_sharpness_of_a_network(by_hand, normalization):
    # e = rho T^2 g / |T g|, on the function written by hand.
    base, gradient = by_hand.value_and_gradient(by_hand.theta)
    t = np.abs(by_hand.theta)
    if normalization == "filter":
        rows = [*by_hand.theta[:12].reshape(4, 3), by_hand.theta[12:16], *by_hand.theta[16:24].reshape(2, 4)]
        t = np.concatenate([np.full(len(row), np.linalg.norm(row)) for row in [*rows, by_hand.theta[24:]]])
    step = 0.3 * t**2 * gradient / np.linalg.norm(t * gradient)
    found = only(adaptive_sharpness(by_hand.risk, radii=[0.3], steps=[1], normalization=normalization))
    assert found.value == pytest.approx(by_hand.value(by_hand.theta + step) - base, rel=1e-10)


@pytest.mark.parametrize("normalization", ["element", "filter"])
def test_adaptive_sharpness_does_not_see_a_rescaling_between_relu_layers(relu, normalization):
    # Powers of two are exact: the same bits at every step.
    before, after = (adaptive_sharpness(relu(factor), normalization=normalization) for factor in (1.0, 4.0))
    assert [found.value for found in before] == [found.value for found in after]
    assert all(found.value > 0 for found in before)


@pytest.mark.parametrize(
    "metric",
    [
        lambda risk: adaptive_sharpness(risk, eta=0.1),
        lambda risk: adaptive_sharpness(risk, eta=0.1, normalization="filter"),
        sam_sharpness,
        epsilon_sharpness,
        m_sharpness,
    ],
    ids=["element, eta", "filter, eta", "sam", "epsilon", "m"],
)
def test_the_others_see_a_rescaling_between_relu_layers(relu, metric):
    ratios = [b.value / a.value for a, b in zip(metric(relu()), metric(relu(4.0)), strict=True)]
    assert all(abs(ratio - 1) > 0.05 for ratio in ratios), ratios


def test_normalization_layers_and_biases_are_one_block_each(network):
    # |Tg|^2 = sum over rows of linear layers, BatchNorm's scale, its shift, and each bias, of |w_f|^2 |g_f|^2.
    risk = EmpiricalRisk(network.model, network.batches)
    center, gradient = risk.parameters(), risk.gradient()
    blocks = [
        (w, g)
        for name, weight in center.items()
        for w, g in (zip(weight, gradient[name], strict=True) if weight.ndim == 2 else [(weight, gradient[name])])
    ]
    assert len(blocks) == 4 + 2 + 4
    squares = sum(float(w.square().sum() * g.square().sum()) for w, g in blocks)
    found = adaptive_sharpness(risk, normalization="filter")[0]
    assert found.detail["steepness"] == pytest.approx(math.sqrt(squares), rel=1e-12)


# Batches by themselves


def test_m_sharpness_with_all_examples_in_one_batch_is_that_of_one_step(by_hand):
    radii = [0.05, 0.5]
    whole = m_sharpness(by_hand.risk, radii=radii, examples_a_batch=10)
    one_step = sam_sharpness(by_hand.risk, radii=radii, steps=[1])
    np.testing.assert_allclose([w.value for w in whole], [one.value for one in one_step], rtol=1e-11)
    assert all(math.isnan(w.standard_error) for w in whole)
    assert whole[0].detail == {"batches": 1, "largest_batch": 10}


@pytest.mark.parametrize(("examples", "sizes"), [(None, (4, 4, 2)), (5, (5, 5)), (3, (3, 3, 3, 1)), (99, (10,))])
def test_m_sharpness_of_a_network(by_hand, examples, sizes):
    theta = torch.tensor(by_hand.theta, requires_grad=True)
    rises = []
    for x, y in zip(by_hand.x.split(sizes), by_hand.y.split(sizes), strict=True):
        base = by_hand.losses(theta, x, y).mean()
        (gradient,) = torch.autograd.grad(base, theta)
        there = by_hand.losses(theta + 0.3 * gradient / gradient.norm(), x, y).mean()
        rises.append((there - base).item())
    found = only(m_sharpness(by_hand.risk, seed=9, radii=[0.3], examples_a_batch=examples))
    assert found.value == pytest.approx(np.average(rises, weights=sizes), rel=1e-10)
    assert found.setting == {"rho": 0.3, "examples_a_batch": "as given" if examples is None else examples}
    if sizes == (5, 5):  # equal batches: the usual standard error
        assert found.standard_error == pytest.approx(np.std(rises, ddof=1) / math.sqrt(2), rel=1e-9)


def test_standard_error_of_m_sharpness_with_a_smaller_last_batch(by_hand):
    # Weights p_b = n_b / n: the variance of sum p_b r_b is sum p_b^2 s^2, with s^2 from the deviations, B / (B - 1).
    found = only(m_sharpness(by_hand.risk, radii=[0.3]))
    separate = [
        only(m_sharpness(EmpiricalRisk(by_hand.model, [batch]), radii=[0.3])).value for batch in by_hand.risk.batches
    ]
    p = np.array([4, 4, 2]) / 10
    expected = math.sqrt(3 / 2 * (p**2 * (separate - p @ separate) ** 2).sum())
    assert found.standard_error == pytest.approx(expected, rel=1e-9)


def test_smaller_batches_are_at_least_as_steep(by_hand):
    # To first order rho times the mean of the batches' gradient norms, and Jensen: |mean of g_b| <= mean of |g_b|.
    rho = 1e-5
    slopes = [
        only(m_sharpness(by_hand.risk, radii=[rho], examples_a_batch=m)).value / rho for m in (1, 2, 10)
    ]  # each size divides the next
    assert slopes == sorted(slopes, reverse=True)
    norms = [
        np.linalg.norm(torch.autograd.functional.jacobian(by_hand.losses, torch.tensor(by_hand.theta))[i].numpy())
        for i in range(10)
    ]
    assert slopes[0] == pytest.approx(np.mean(norms), rel=1e-4)


def test_a_batch_without_slope_does_not_rise(valley):
    risk = valley(lambda w: (w**2).sum(), [0.0])
    assert only(m_sharpness(risk, radii=[0.5])).value == 0.0


# Settings


@pytest.mark.parametrize("metric", [epsilon_sharpness, sam_sharpness, adaptive_sharpness, m_sharpness])
def test_radii_are_positive_numbers(by_hand, metric):
    with pytest.raises(ValueError, match=r"radii: expected one or more positive numbers, got \(0.1, -1\)"):
        metric(by_hand.risk, radii=[0.1, -1])
    with pytest.raises(ValueError, match="radii: expected one or more positive numbers"):
        metric(by_hand.risk, radii=[])
    with pytest.raises(TypeError, match=r"radii: expected a sequence of numbers, got 0.1; write \(0.1,\)"):
        metric(by_hand.risk, radii=0.1)


def test_settings_that_cannot_be(by_hand):
    with pytest.raises(ValueError, match=r"steps: expected whole numbers of at least 1, got \(1, 0\)"):
        sam_sharpness(by_hand.risk, steps=[1, 0])
    with pytest.raises(TypeError, match=r"steps: expected a sequence of whole numbers, got 10; write \(10,\)"):
        sam_sharpness(by_hand.risk, steps=10)
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        epsilon_sharpness(by_hand.risk, iterations=0)
    with pytest.raises(ValueError, match="normalization: expected 'element' or 'filter', got 'layer'"):
        adaptive_sharpness(by_hand.risk, normalization="layer")
    with pytest.raises(ValueError, match="eta: expected a number of 0 or more, got -1"):
        adaptive_sharpness(by_hand.risk, eta=-1)
    with pytest.raises(ValueError, match="examples_a_batch: expected at least 1, got 0"):
        m_sharpness(by_hand.risk, examples_a_batch=0)
