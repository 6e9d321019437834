"""Flatness in random directions: moments of quadratics in closed form, scans of a function written by hand."""

import math

import numpy as np
import pytest
import torch

from landscape import EmpiricalRisk, random_directions
from landscape.flatness.average_case import basin_radius, filter_normalized_rise, isotropic_rise, pac_bayes_sigma
from landscape.flatness.crossings import first_crossing
from landscape.flatness.draws import draw_direction

SPECTRUM = [-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]
CONVEX = [0.25, 0.5, 1.0, 2.0, 4.0, 9.0]


def only(measurements):
    (found,) = measurements
    return found


def along(quadratic, seed, index, **how):
    """Slope and curvature of a quadratic along a draw."""
    d = quadratic.flat(draw_direction(quadratic.risk.parameters(), seed, index, **how))
    return quadratic.gradient @ d, d @ quadratic.matrix @ d


FILTER = {"normalization": "filter", "ignore": ("bias", "norm")}


# Mean rises


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_isotropic_rise_of_a_quadratic(bowl, symmetric, sigma):
    # sigma g'u + sigma^2 u'Au / 2 has the mean sigma^2 tr(A) / 2 and the variance sigma^2 |g|^2 + sigma^4 tr(A^2) / 2.
    quadratic = bowl(symmetric(SPECTRUM))
    draws = 1500
    variance = sigma**2 * quadratic.gradient @ quadratic.gradient + sigma**4 * np.square(SPECTRUM).sum() / 2
    found = only(isotropic_rise(quadratic.risk, seed=1, radii=[sigma], draws=draws))
    assert abs(found.value - sigma**2 * sum(SPECTRUM) / 2) <= 3 * found.standard_error
    assert found.standard_error == pytest.approx(math.sqrt(variance / draws), rel=0.1)
    assert found.setting == {"sigma": sigma}
    assert len(found.draws) == draws
    assert np.mean(found.draws) == found.value


@pytest.mark.parametrize("radius", [0.5, 1.5])
def test_filter_normalized_rise_of_a_quadratic(bowl, symmetric, radius):
    # A filter of the direction is |w_i| u with u uniform on the circle, E u = 0 and E uu' = I / 2, independent between
    # rows: E rise = radius^2 / 2 * sum over rows of |w_i|^2 / 2 * trace(A_ii). The vector `shift` is a bias: not moved.
    quadratic = bowl(symmetric(SPECTRUM))
    rows = quadratic.theta[:4].reshape(2, 2)
    blocks = quadratic.matrix[:2, :2], quadratic.matrix[2:4, 2:4]
    expected = sum(radius**2 / 4 * row @ row * np.trace(block) for row, block in zip(rows, blocks, strict=True))
    found = only(filter_normalized_rise(quadratic.risk, radii=[radius], draws=800))
    assert 0 < found.standard_error < expected / 3  # enough draws to tell it from 0
    assert abs(found.value - expected) <= 3 * found.standard_error


@pytest.mark.parametrize("metric", [isotropic_rise, filter_normalized_rise])
def test_all_radii_have_the_same_draws(bowl, symmetric, metric):
    # r g'd + r^2 d'Ad / 2 =: f(r) has f(2) - 2 f(1) = d'Ad and f(3) - 3 f(1) = 3 d'Ad, draw by draw.
    one, two, three = (np.array(m.draws) for m in metric(bowl(symmetric(SPECTRUM)).risk, radii=[1, 2, 3], draws=5))
    np.testing.assert_allclose(three - 3 * one, 3 * (two - 2 * one), rtol=1e-9)
    assert len(set(one)) == 5


def test_isotropic_rise_of_a_network(by_hand):
    # Other draws, of the function written by hand.
    found = only(isotropic_rise(by_hand.risk, radii=[0.3], draws=300))
    noise = torch.from_numpy(np.random.default_rng(7).standard_normal((4000, 26)))
    rises = torch.vmap(by_hand.loss)(torch.from_numpy(by_hand.theta) + 0.3 * noise) - by_hand.value(by_hand.theta)
    other_error = float(rises.std()) / math.sqrt(len(rises))
    assert abs(found.value - float(rises.mean())) <= 3 * math.hypot(found.standard_error, other_error)
    assert found.value > 5 * found.standard_error


def test_filter_normalized_rise_of_a_network(by_hand):
    # Other draws again: rows of the two weight matrices, each as long as the weights' row; biases stay.
    found = only(filter_normalized_rise(by_hand.risk, radii=[0.7], draws=300))
    noise = torch.from_numpy(np.random.default_rng(7).standard_normal((4000, 26)))
    offsets = torch.zeros_like(noise)
    for first, last in [(0, 3), (3, 6), (6, 9), (9, 12), (16, 20), (20, 24)]:
        part = noise[:, first:last]
        length = np.linalg.norm(by_hand.theta[first:last])
        offsets[:, first:last] = part / part.norm(dim=1, keepdim=True) * length
    rises = torch.vmap(by_hand.loss)(torch.from_numpy(by_hand.theta) + 0.7 * offsets) - by_hand.value(by_hand.theta)
    other_error = float(rises.std()) / math.sqrt(len(rises))
    assert abs(found.value - float(rises.mean())) <= 3 * math.hypot(found.standard_error, other_error)
    assert found.value > 5 * found.standard_error


@pytest.mark.parametrize("metric", [filter_normalized_rise, basin_radius])
def test_a_rescaling_between_relu_layers_is_not_seen(relu, metric):
    # Powers of two are exact. (Biases do not move.)
    before, after = (metric(relu(factor), draws=5) for factor in (1.0, 4.0))
    np.testing.assert_allclose([a.draws for a in after], [b.draws for b in before], rtol=1e-12)


def test_a_rescaling_between_relu_layers_is_seen_by_noise_of_one_scale(relu):
    before, after = (isotropic_rise(relu(factor), draws=5)[-1].value for factor in (1.0, 4.0))
    assert abs(after / before - 1) > 0.1
    before, after = (pac_bayes_sigma(relu(factor), draws=5).value for factor in (1.0, 4.0))
    assert abs(after / before - 1) > 0.1


def test_noise_in_proportion_to_the_weights_hardly_sees_a_rescaling(relu):
    # Only through the 0.001 that is added to weights of about 0.3, with squares.
    before, after = (pac_bayes_sigma(relu(factor), draws=5, magnitude=True).value for factor in (1.0, 4.0))
    assert after == pytest.approx(before, rel=0.01)


def test_a_draw_without_a_finite_loss_is_an_infinite_rise(valley):
    found = only(isotropic_rise(valley(lambda w: torch.log(w).sum(), [1.0]), radii=[1.5], draws=20))
    assert (found.value, found.converged) == (math.inf, False)
    assert math.isnan(found.standard_error)
    assert 0 < sum(map(math.isinf, found.draws)) < 20


# How far one can go


def test_basin_radius_of_a_quadratic(bowl, symmetric):
    # r s + r^2 c / 2 = rise at r = (-s + sqrt(s^2 + 2 c rise)) / c.
    quadratic = bowl(symmetric(CONVEX))
    rises = [0.1, 2.0]
    found = basin_radius(quadratic.risk, seed=3, rises=rises, draws=9, limit=50, tolerance=1e-9)
    for rise, measured in zip(rises, found, strict=True):
        s, c = np.array([along(quadratic, 3, index, **FILTER) for index in range(9)]).T
        expected = (-s + np.sqrt(s**2 + 2 * c * rise)) / c
        np.testing.assert_allclose(measured.draws, expected, rtol=1e-7)
        assert measured.value == pytest.approx(np.median(expected), rel=1e-7)
        assert measured.setting == {"rise": rise, "limit": 50.0}
        assert measured.detail == {"censored": []}
        assert measured.converged


def test_basin_radius_of_a_network_by_a_dense_scan(by_hand):
    rise, base = 0.3, by_hand.value(by_hand.theta)
    found = only(basin_radius(by_hand.risk, seed=2, rises=[rise], draws=8, limit=30.0))
    distances = np.linspace(0, 30, 30001)
    for index, radius in enumerate(found.draws):
        direction = by_hand.flat(draw_direction(by_hand.risk.parameters(), 2, index, **FILTER))
        line = torch.vmap(by_hand.loss)(torch.from_numpy(by_hand.theta + distances[:, None] * direction)).numpy()
        above = np.flatnonzero(line > base + rise)
        assert radius == pytest.approx(distances[above[0]] if len(above) else 30.0, rel=2e-3, abs=2e-3)
        assert (index in found.detail["censored"]) == (not len(above))


@pytest.mark.parametrize(("draws", "tolerance"), [(21, 0.02), (20, 0.06)])
def test_standard_error_of_the_median_is_the_bootstraps(bowl, symmetric, draws, tolerance):
    found = only(basin_radius(bowl(symmetric(CONVEX)).risk, rises=[0.5], draws=draws, limit=50))
    resampled = np.random.default_rng(0).choice(found.draws, (50_000, draws))
    assert found.standard_error == pytest.approx(np.median(resampled, axis=1).std(), rel=tolerance)


def test_a_few_censored_rays_do_not_change_the_median(bowl, symmetric):
    risk = bowl(symmetric(CONVEX)).risk
    free = only(basin_radius(risk, rises=[0.5], draws=31, limit=50))
    limit = sorted(free.draws)[-3] * 0.999  # three rays out of reach
    cut = only(basin_radius(risk, rises=[0.5], draws=31, limit=limit))
    assert len(cut.detail["censored"]) == 3
    assert [cut.draws[index] for index in cut.detail["censored"]] == [limit] * 3
    assert cut.value == pytest.approx(free.value, rel=2e-3)
    assert cut.standard_error == pytest.approx(free.standard_error, rel=0.1)
    assert cut.converged


def test_the_median_of_rays_most_of_which_are_censored_is_a_bound(bowl, symmetric):
    risk = bowl(symmetric(CONVEX)).risk
    free = only(basin_radius(risk, rises=[0.5], draws=20, limit=50))
    limit = sorted(free.draws)[9] * 1.001  # ten of twenty are out of reach: so is one of the middle two
    cut = only(basin_radius(risk, rises=[0.5], draws=20, limit=limit))
    assert len(cut.detail["censored"]) == 10
    assert not cut.converged
    assert cut.value <= free.value
    assert math.isnan(cut.standard_error)


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_has_risen(valley, beyond):
    # Flat at w = 1 up to w = 1.5; the direction is plus or minus |w| = 1 (a matrix of one entry is one filter).
    def loss(w):
        return torch.where(w.sum() > 1.5, beyond, 0 * w.sum())

    risk = valley(loss, [[1.0]])
    found = only(basin_radius(risk, draws=12, rises=[0.1], limit=3.0))
    up = [index for index in range(12) if draw_direction(risk.parameters(), 0, index)["weight"] > 0]
    assert 0 < len(up) < 12
    np.testing.assert_allclose(found.draws, [0.5 if index in up else 3.0 for index in range(12)], rtol=2e-3)


def test_crossings():
    assert first_crossing(lambda r: r**2, 4.0, limit=10, first=0.1, tolerance=1e-12) == pytest.approx(2, rel=1e-11)
    assert first_crossing(lambda r: r**2, 4.0, limit=2.0, first=0.1) is None  # reached, not exceeded
    assert first_crossing(lambda r: r**2, 4.0, limit=10, first=7.0, tolerance=1e-12) == pytest.approx(2, rel=1e-11)
    # The first of several: sin rises through 1/2 at pi / 6, falls below it again and comes back.
    first = first_crossing(np.sin, 0.5, limit=20, first=0.1, growth=1.5, tolerance=1e-12)
    assert first == pytest.approx(math.pi / 6, rel=1e-11)


def test_a_crossing_is_sought_between_the_last_two_steps_only():
    tried = []
    first_crossing(lambda r: tried.append(r) or r**8, 3.0**8, limit=100, first=1.0)
    assert tried[:3] == [1.0, 2.0, 4.0]
    assert all(2.0 <= r <= 4.0 for r in tried[3:])


# The scale of noise


def test_pac_bayes_sigma_of_a_quadratic(bowl, symmetric):
    # With the mean slope s and curvature c of the draws, s sigma + c sigma^2 / 2 = rise.
    quadratic = bowl(symmetric(CONVEX))
    s, c = np.mean([along(quadratic, 5, index) for index in range(20)], axis=0)
    for rise in (0.1, 3.0):
        found = pac_bayes_sigma(quadratic.risk, seed=5, rise=rise, tolerance=1e-10)
        assert found.value == pytest.approx((-s + math.sqrt(s**2 + 2 * c * rise)) / c, rel=1e-8)
        assert found.detail["rise_reached"] == pytest.approx(rise, rel=1e-7)
        assert found.setting == {"rise": rise, "on": "loss", "magnitude": False}
        assert np.mean(found.draws) == pytest.approx(found.value, rel=1e-12)


def test_pac_bayes_sigma_of_many_draws(valley):
    # Without a slope the mean is sigma^2 tr(H) / 2: sigma = sqrt(2 rise / tr H).
    curvatures = torch.tensor([1.0, 2.0, 5.0])
    found = pac_bayes_sigma(valley(lambda w: (curvatures * w**2).sum() / 2, [0.0] * 3), draws=150, rise=0.1)
    assert abs(found.value - math.sqrt(2 * 0.1 / 8)) <= 3 * found.standard_error
    assert found.standard_error < 0.06 * found.value


def test_standard_error_of_pac_bayes_sigma_is_the_spread_over_seeds(valley):
    curvatures = torch.tensor([1.0, 1.0, 2.0, 3.0, 5.0, 5.0])
    risk = valley(lambda w: (curvatures * w**2).sum() / 2 + w[0], [0.0] * 6)
    found = [pac_bayes_sigma(risk, seed=seed, draws=8, rise=2.0) for seed in range(50)]
    spread = np.std([one.value for one in found], ddof=1)
    assert math.sqrt(np.mean([one.standard_error**2 for one in found])) == pytest.approx(spread, rel=0.25)


def test_pac_bayes_sigma_in_proportion_to_the_weights(bowl, symmetric):
    quadratic = bowl(symmetric(CONVEX))
    scales = np.sqrt(quadratic.theta**2 + 1e-6)
    center = quadratic.risk.parameters()
    d = np.array([scales * quadratic.flat(draw_direction(center, 5, index)) for index in range(20)])
    s, c = (d @ quadratic.gradient).mean(), np.einsum("ni,ij,nj->n", d, quadratic.matrix, d).mean()
    found = pac_bayes_sigma(quadratic.risk, seed=5, rise=0.4, magnitude=True, tolerance=1e-10)
    assert found.value == pytest.approx((-s + math.sqrt(s**2 + 2 * c * 0.4)) / c, rel=1e-8)


def test_pac_bayes_sigma_of_a_network_by_a_dense_scan(by_hand):
    center = by_hand.risk.parameters()
    noise = torch.from_numpy(np.array([by_hand.flat(draw_direction(center, 1, index)) for index in range(20)]))
    scan = np.linspace(0.0, 2.0, 4001)
    theta = torch.from_numpy(by_hand.theta)
    means = np.array([float(torch.vmap(by_hand.loss)(theta + sigma * noise).mean()) for sigma in scan])
    expected = scan[np.flatnonzero(means - means[0] > 0.2)[0]]
    assert pac_bayes_sigma(by_hand.risk, seed=1, rise=0.2).value == pytest.approx(expected, abs=1e-3)


def test_pac_bayes_sigma_of_the_error(by_hand):
    # The labels that the network itself gives: no error at the center, and 1/20 more for each change of a label.
    with torch.no_grad():
        labels = by_hand.model(by_hand.x).argmax(1)
    risk = EmpiricalRisk(by_hand.model, [(by_hand.x, labels)])
    center = risk.parameters()
    noise = [by_hand.flat(draw_direction(center, 1, index)) for index in range(20)]

    def error(theta):
        theta = torch.from_numpy(theta)
        hidden = torch.tanh(by_hand.x @ theta[:12].reshape(4, 3).T + theta[12:16])
        return float(((hidden @ theta[16:24].reshape(2, 4).T + theta[24:]).argmax(1) != labels).double().mean())

    found = pac_bayes_sigma(risk, seed=1, rise=0.1, on="error")
    below, above = (np.mean([error(by_hand.theta + f * found.value * u) for u in noise]) for f in (0.99, 1.01))
    assert below <= 0.1 + 1e-9
    assert above > 0.1 - 1e-9
    assert found.setting == {"rise": 0.1, "on": "error", "magnitude": False}
    assert found.value != pytest.approx(pac_bayes_sigma(risk, seed=1, rise=0.1).value, rel=0.01)


def test_pac_bayes_sigma_that_is_out_of_reach_is_a_bound(valley):
    found = pac_bayes_sigma(valley(lambda w: 1e-9 * (w**2).sum(), [0.0]), limit=2.0)
    assert (found.value, found.converged) == (2.0, False)
    assert math.isnan(found.standard_error)
    assert found.detail["rise_reached"] < 1e-7
    assert not found.draws


def test_a_cliff_has_no_standard_error(valley):
    # A loss that is not finite beyond some noise: the crossing is there, without a slope.
    found = pac_bayes_sigma(valley(lambda w: torch.where(w.abs().sum() > 0.5, math.inf, 0 * w.sum()), [0.0]))
    largest = max(abs(random_direction) for random_direction in _noise_of_one_weight())
    assert found.value == pytest.approx(0.5 / largest, rel=2e-3)
    assert math.isnan(found.standard_error)


def _noise_of_one_weight():
    center = {"weight": torch.zeros(1, dtype=torch.float64)}
    seeds = [int(np.random.SeedSequence([0, index]).generate_state(1)[0]) for index in range(20)]
    draws = [random_directions(center, 1, seed, normalization="none", ignore=())[0] for seed in seeds]
    return [float(draw["weight"]) for draw in draws]


# Settings


@pytest.mark.parametrize("metric", [isotropic_rise, filter_normalized_rise, basin_radius, pac_bayes_sigma])
def test_one_draw_has_no_standard_error(by_hand, metric):
    with pytest.raises(ValueError, match="draws: expected at least 2, got 1; one has no standard error"):
        metric(by_hand.risk, draws=1)


def test_settings_that_cannot_be(by_hand):
    with pytest.raises(ValueError, match="rise: expected a positive number, got 0"):
        pac_bayes_sigma(by_hand.risk, rise=0)
    with pytest.raises(ValueError, match="limit: expected a positive number, got inf"):
        basin_radius(by_hand.risk, limit=math.inf)
    with pytest.raises(ValueError, match="rises: expected one or more positive numbers"):
        basin_radius(by_hand.risk, rises=[-1.0])
    with pytest.raises(ValueError, match="on: expected 'loss' or 'error', got 'accuracy'"):
        pac_bayes_sigma(by_hand.risk, on="accuracy")


def test_the_error_of_a_risk_without_accuracy(bowl):
    with pytest.raises(ValueError, match=r"on='error': expected a risk with the metric 'accuracy', got \[\]"):
        pac_bayes_sigma(bowl(np.eye(6)).risk, on="error")
