"""Trace and Frobenius norm: exact where they can be, and standard errors that hold."""

import itertools
import math

import numpy as np
import pytest
import torch

from landscape import hessian_trace
from landscape.curvature import hessian_frobenius_norm
from landscape.curvature.lanczos import Krylov
from landscape.curvature.trace import Moments

LIKE_NETWORKS = ["network", "network with negative curvature", "low rank"]
ALL = [*LIKE_NETWORKS, "indefinite", "uniform"]
TRUTH = {"trace": np.sum, "frobenius norm": np.linalg.norm}


def runs(matrix, which, deflate, tolerance=0.05, seeds=60, max_products=2000):
    """Values, standard errors, whether converged, and products, over seeds."""
    found = []
    for seed in range(seeds):
        matrix.spent = 0
        found.append(Moments(matrix, seed).until(which, tolerance, max_products, deflate))
    return tuple(np.array(column) for column in zip(*found, strict=True))


@pytest.mark.parametrize("deflate", [3, 30])
def test_small_matrices_are_found_whole(bowl, symmetric, deflate):
    spectrum = [5.0, -1.0, 0.25, 2.0, 0.5, 1.0]
    for function, truth in ((hessian_trace, 7.75), (hessian_frobenius_norm, np.linalg.norm(spectrum))):
        found = function(bowl(symmetric(spectrum)).risk, deflate=deflate)
        assert found.value == pytest.approx(truth, rel=1e-13)
        assert (found.standard_error, found.converged, found.products) == (0, True, 6)


def test_matrices_up_to_twice_the_space_are_found_whole(bowl, symmetric):
    spectrum = np.linspace(-1, 4, 60)
    risk = bowl(symmetric(spectrum)).risk
    found = hessian_trace(risk, deflate=30)
    assert found.value == pytest.approx(spectrum.sum(), rel=1e-12)
    assert (found.standard_error, found.products) == (0, 60)
    assert hessian_trace(risk, deflate=29).standard_error > 0
    assert hessian_trace(risk, deflate=30, max_products=59).standard_error > 0


def test_trace_of_a_diagonal_hessian_has_no_error(bowl):
    # z'Az = sum of A_ii z_i^2 = trace for z_i = +-1: no variance, but the bound that it is drawn towards knows nothing
    # of that. With F^2 = 8 and n probes of the same value, its share is 10 / (10 + n - 1) of 2 F^2.
    found = hessian_trace(bowl(np.diag([2.0, 0, 0, 2.0, 0.0, 0.0])).risk, tolerance=1.0, deflate=0)
    assert found.value == pytest.approx(4, rel=1e-14)
    assert found.standard_error == pytest.approx(math.sqrt(10 / 17 * 16 / 8), rel=1e-12)
    assert (found.converged, found.products) == (True, 8)


@pytest.mark.parametrize("deflate", [0, 10])
def test_standard_error_of_many_probes(bowl, symmetric, deflate):
    # Rademacher probes: Var z'Az = 2 sum over i != j of A_ij^2, for A beside the space.
    matrix = symmetric(np.linspace(-1, 1, 40))
    found = hessian_trace(bowl(matrix).risk, tolerance=0.0, max_products=800, deflate=deflate)
    assert (found.converged, found.products) == (False, 800)
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2))
    plain = math.sqrt(variance / 800)
    if deflate:
        assert 0.5 * plain < found.standard_error < 0.9 * plain
    else:
        assert found.standard_error == pytest.approx(plain, rel=0.1)
    assert abs(found.value) <= 4 * found.standard_error


def test_standard_error_of_the_frobenius_norm(bowl, symmetric):
    # By the delta method, that of F^2 over 2 F; for signs z and B = A'A, Var z'Bz = 2 sum over i != j of B_ij^2.
    matrix = symmetric(np.linspace(-1, 1, 40))
    squared = matrix @ matrix
    variance = 2 * (np.sum(squared**2) - np.sum(np.diag(squared) ** 2))
    found = hessian_frobenius_norm(bowl(matrix).risk, tolerance=0.0, max_products=800, deflate=0)
    norm = np.linalg.norm(matrix)
    assert found.standard_error == pytest.approx(math.sqrt(variance / 800) / (2 * norm), rel=0.1)
    assert abs(found.value - norm) <= 4 * found.standard_error


@pytest.mark.parametrize("deflate", [0, 30])
@pytest.mark.parametrize("spectrum", ALL)
def test_two_standard_errors_of_the_trace_hold(known, spectrum, deflate):
    # At least 85 % of the time over sixty seeds; 95 % is what many probes would give.
    matrix = known(spectrum)
    values, errors, converged, _ = runs(matrix, "trace", deflate)
    truth = matrix.eigenvalues.sum()
    assert converged.all()
    assert (errors <= 0.05 * abs(values)).all()
    assert np.mean(np.abs(values - truth) <= 2 * errors + 1e-12 * truth) >= 0.85


@pytest.mark.parametrize(
    ("spectrum", "deflate"),
    [
        *itertools.product(ALL, [0, 30]),
    ],
)
def test_two_standard_errors_of_the_frobenius_norm_hold(known, spectrum, deflate):
    matrix = known(spectrum)
    values, errors, converged, _ = runs(matrix, "frobenius norm", deflate)
    truth = np.linalg.norm(matrix.eigenvalues)
    assert converged.all()
    assert np.mean(np.abs(values - truth) <= 2 * errors + 1e-12 * truth) >= 0.85


@pytest.mark.parametrize("which", TRUTH)
@pytest.mark.parametrize("spectrum", ALL)
def test_errors_reach_the_tolerance(known, spectrum, which):
    # Whatever the standard error says: the root of the mean squared error over seeds.
    matrix = known(spectrum)
    values, _, _, _ = runs(matrix, which, 30)
    truth = TRUTH[which](matrix.eigenvalues)
    assert np.sqrt(np.mean((values - truth) ** 2)) <= 1.3 * 0.05 * truth


@pytest.mark.parametrize("deflate", [0, 4, 30])
@pytest.mark.parametrize("spectrum", ALL)
def test_the_trace_is_unbiased(known, spectrum, deflate):
    # With a number of products that is fixed beforehand, what is left beside the space has the right mean.
    matrix = known(spectrum)
    values, _, _, products = runs(matrix, "trace", deflate, tolerance=0.0, max_products=60)
    assert (products == 60).all()
    bias = values.mean() - matrix.eigenvalues.sum()
    assert abs(bias) <= 3 * values.std(ddof=1) / math.sqrt(len(values)) + 1e-12 * np.abs(matrix.eigenvalues).sum()


@pytest.mark.parametrize("spectrum", ALL)
def test_stopping_early_biases_the_trace_by_less_than_half_a_standard_error(known, spectrum):
    matrix = known(spectrum)
    values, errors, _, _ = runs(matrix, "trace", 30)
    spread = max(values.std(ddof=1), errors.mean())
    assert abs(values.mean() - matrix.eigenvalues.sum()) <= (0.5 + 3 / math.sqrt(len(values))) * spread


@pytest.mark.parametrize("tolerance", [0.05, 0.02])
@pytest.mark.parametrize("spectrum", ALL)
def test_a_space_never_costs_more_than_it_saves(known, spectrum, tolerance):
    # Some steps are made in order to see that they do not pay.
    matrix = known(spectrum)
    ours, plain = (np.median(runs(matrix, "trace", deflate, tolerance, seeds=20)[3]) for deflate in (30, 0))
    assert ours <= plain + 5
    if spectrum in LIKE_NETWORKS:
        assert 3 * ours < plain


def test_what_is_beside_the_space(known):
    # Forms and norms of a probe's part beside the space, against projections written out.
    matrix = known("network")
    draws = np.random.default_rng(1)
    space = Krylov(matrix, matrix.gaussian(draws), 8, draws)
    for _ in range(6):
        space.step()
    moments = Moments(matrix, 0, min_probes=5, space=space)
    found = moments.until("trace", math.inf, 0, 0)
    basis = space.basis
    beside = torch.eye(matrix.size, dtype=torch.float64) - basis.T @ basis
    rest = beside @ matrix.dense @ beside
    again = np.random.default_rng(np.random.SeedSequence([0, 1]))
    probes = [matrix.rademacher(again) for _ in range(5)]
    forms = [float(probe @ rest @ probe) for probe in probes]
    inside = float(torch.trace(basis @ matrix.dense @ basis.T))
    assert found.value == pytest.approx(inside + np.mean(forms), rel=1e-12)
    norms = [float((rest @ probe).square().sum()) for probe in probes]
    squares = float((matrix.dense - rest).square().sum()) + np.mean(norms)
    norm = moments.until("frobenius norm", math.inf, 0, 0)
    assert norm.value == pytest.approx(math.sqrt(squares), rel=1e-12)
    # drawn towards the bound 2 lambda^2 F^2, which counts for ten observations, with twice the remainder for lambda
    bound = 2 * (2 * space.coupling) ** 2 * np.mean(norms)
    variance = (10 * bound + 4 * np.var(norms, ddof=1)) / 14
    assert norm.standard_error == pytest.approx(math.sqrt(variance / 5) / (2 * norm.value), rel=1e-9)


def test_a_trace_of_zero_never_converges_and_says_so(known):
    found = Moments(known([*np.ones(50), *-np.ones(50)]), 0).until("trace", 0.05, 300, 30)
    assert (found.converged, found.products) == (False, 300)
    assert abs(found.value) <= 4 * found.standard_error


@pytest.mark.parametrize("function", [hessian_trace, hessian_frobenius_norm])
def test_a_flat_risk(bowl, function):
    found = function(bowl(np.zeros((80, 80))).risk)
    assert (found.value, found.standard_error, found.converged) == (0, 0, True)
    assert found.products <= 10


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton"])
def test_moments_of_a_network(network_case, matrix):
    dense = getattr(network_case, matrix.replace("-", "_"))()
    size = len(dense)
    exact = hessian_trace(network_case.risk, matrix=matrix, deflate=size)
    assert exact.value == pytest.approx(np.trace(dense), rel=1e-7)
    assert (exact.standard_error, exact.products) == (0, size)
    exact = hessian_frobenius_norm(network_case.risk, matrix=matrix, deflate=size)
    assert exact.value == pytest.approx(np.linalg.norm(dense), rel=1e-7)
    for function, truth in ((hessian_trace, np.trace(dense)), (hessian_frobenius_norm, np.linalg.norm(dense))):
        found = function(network_case.risk, 0.1, matrix=matrix, deflate=5, max_products=80)
        assert abs(found.value - truth) <= 4 * found.standard_error
        assert found.converged == (0 < found.standard_error <= 0.1 * found.value)
        assert found.converged or found.products == 80


def test_trace_of_a_diagonal_block(network_named):
    case = network_named("GRU")
    dense = case.hessian()
    places = case.places("recurrent.bias_hh_l0")
    found = hessian_trace(case.risk, parameters=["*bias_hh*"])
    assert found.value == pytest.approx(np.trace(dense[np.ix_(places, places)]), rel=1e-6)
    assert found.products == len(places) == 9


def test_the_seed_repeats_the_estimates(bowl, symmetric):
    risk = bowl(symmetric(np.linspace(-1, 4, 70))).risk
    assert hessian_trace(risk, seed=3) == hessian_trace(risk, seed=3)
    assert hessian_trace(risk, seed=3).value != hessian_trace(risk, seed=4).value


@pytest.mark.parametrize("function", [hessian_trace, hessian_frobenius_norm])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_probes": 1}, "min_probes: expected at least 2, got 1"),
        ({"matrix": "fisher"}, "matrix: expected 'hessian' or 'gauss-newton', got 'fisher'"),
        ({"parameters": ["bias"]}, "parameters: 'bias' matches none of weight, shift"),
    ],
    ids=["probes", "matrix", "parameters"],
)
def test_wrong_arguments(bowl, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(bowl(np.eye(6)).risk, **arguments)
