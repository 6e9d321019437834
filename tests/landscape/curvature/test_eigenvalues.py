"""Extreme eigenvalues of known spectra and of networks, and what is said of their errors."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from landscape import hessian_eigenvalues
from landscape.curvature import eigenvalues, hessian_eigenpairs, hessian_operator
from landscape.curvature.eigenvalues import extreme_ritz

SPECTRA = {
    "small": [-3.0, -0.5, 0.1, 1.0, 4.0, 9.0],
    "small, repeated": [-1.0, -1.0, 2.0, 2.0, 2.0, 5.0],
    "large": [-6.0, -5.0, -4.0, *np.linspace(-1, 1, 40), 7.0, 8.0, 10.0],
}


def expected_of(spectrum, count, which):
    """Largest first."""
    descending = np.sort(spectrum)[::-1]
    largest = {"largest": count, "smallest": 0, "both": count // 2}[which]
    return np.r_[descending[:largest], descending[len(descending) - (count - largest) :]]


def found_in(matrix, count, which, tolerance, seed=0, max_products=1000):
    """Values, residuals and errors as they come back, vectors, and whether converged."""
    largest = {"largest": count, "smallest": 0, "both": count // 2}[which]
    space, ritz, errors, converged = extreme_ritz(matrix, largest, count - largest, tolerance, max_products, seed)
    places = np.r_[range(len(ritz.values) - 1, len(ritz.values) - 1 - largest, -1), range(count - largest - 1, -1, -1)]
    places = places.astype(int)
    return ritz.values[places], ritz.residuals[places], errors, space.vectors_of(ritz.coordinates[:, places]), converged


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_eigenvalues_of_a_quadratic(bowl, symmetric, spectrum, count, which):
    found = hessian_eigenvalues(bowl(symmetric(SPECTRA[spectrum])).risk, count, which, tolerance=1e-7)
    # A smallest one is within the tolerance as a share of the spread.
    np.testing.assert_allclose(found.eigenvalues, expected_of(SPECTRA[spectrum], count, which), rtol=1e-6, atol=1e-6)
    assert found.converged
    assert found.residuals.shape == found.errors.shape == (count,)
    assert (found.errors <= found.residuals).all()
    # The error goes with the residual squared over a gap, which is 1 or more: the root of 1e-7 times the spread.
    assert (found.residuals < 2e-3).all()


@pytest.mark.parametrize("count", [1, 3])
def test_odd_counts(bowl, symmetric, count):
    for which in ("largest", "smallest"):
        found = hessian_eigenvalues(bowl(symmetric(SPECTRA["large"])).risk, count, which, tolerance=1e-7)
        np.testing.assert_allclose(found.eigenvalues, expected_of(SPECTRA["large"], count, which), rtol=1e-6)


@pytest.mark.parametrize("size", [6, 20])
def test_small_matrices_are_found_whole_with_multiplicities(bowl, symmetric, size):
    spectrum = [*np.repeat(3.0, size - 4), -1.0, -1.0, 0.0, 5.0]
    found = hessian_eigenvalues(bowl(symmetric(spectrum)).risk, size)
    np.testing.assert_allclose(found.eigenvalues, np.sort(spectrum)[::-1], atol=1e-12)
    assert found.products == size
    assert hessian_eigenvalues(bowl(symmetric(spectrum)).risk, 1).products == size


def test_all_eigenvalues_can_be_asked_for(bowl, symmetric):
    spectrum = np.linspace(-2, 3, 24)
    found = hessian_eigenvalues(bowl(symmetric(spectrum)).risk, count=24)
    np.testing.assert_allclose(found.eigenvalues, spectrum[::-1], atol=1e-10)
    assert (found.converged, found.products) == (True, 24)


@pytest.mark.parametrize("spectrum", ["network", "network with negative curvature", "indefinite", "uniform"])
@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_residuals_are_true_and_an_eigenvalue_lies_within_each(known, spectrum, which):
    matrix = known(spectrum)
    for tolerance in (0.1, 1e-3):
        values, residuals, _, vectors, _ = found_in(matrix, 4, which, tolerance)
        for value, residual, vector in zip(values, residuals, vectors, strict=True):
            true = float(torch.linalg.vector_norm(matrix.dense @ vector - float(value) * vector))
            rounding = 1e-12 * np.abs(matrix.eigenvalues).max()
            assert true == pytest.approx(residual, rel=1e-9, abs=rounding)
            # For a symmetric A and a unit vector v, some eigenvalue is within |Av - mu v| of mu.
            assert np.abs(matrix.eigenvalues - value).min() <= residual + rounding


def test_errors_are_honest(known):
    # Errors are estimates: a Ritz value can still sit on the way from one eigenvalue to the next. Over spectra and
    # seeds, the true error is within five times the reported one in 95 of 100 runs, and mostly below it.
    ratios = []
    for spectrum in ("network", "network with negative curvature", "indefinite", "uniform"):
        matrix = known(spectrum)
        for which in ("largest", "both"):
            for seed in range(10):
                values, _, errors, _, converged = found_in(matrix, 4, which, 1e-3, seed)
                assert converged
                true = np.abs(values - expected_of(matrix.eigenvalues, 4, which))
                ratios.append((true / (errors + 1e-13 * np.abs(matrix.eigenvalues).max())).max())
    assert np.mean(np.array(ratios) <= 5) >= 0.95
    assert np.median(ratios) <= 1


@pytest.mark.parametrize("spectrum", ["network", "network with negative curvature", "uniform"])
def test_true_errors_are_within_the_tolerance(known, spectrum):
    # Relative to itself for a largest one, a share of the spread for a smallest one.
    matrix = known(spectrum)
    scales = np.array([*matrix.eigenvalues[:2], *np.repeat(np.ptp(matrix.eigenvalues), 2)])
    for tolerance in (1e-2, 1e-4):
        values = np.stack([found_in(matrix, 4, "both", tolerance, seed)[0] for seed in range(10)])
        errors = np.abs(values - expected_of(matrix.eigenvalues, 4, "both"))
        assert (np.median(errors, axis=0) <= tolerance * scales).all()


@pytest.mark.parametrize("capacity", [24, 30])
@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_restarts_find_the_same(known, monkeypatch, which, capacity):
    monkeypatch.setattr(eigenvalues, "_CAPACITY", capacity)
    matrix = known("uniform")
    values, residuals, _, vectors, converged = found_in(matrix, 2, which, 1e-9)
    assert converged
    assert matrix.spent > 1.5 * capacity  # so that there were restarts
    np.testing.assert_allclose(values, expected_of(matrix.eigenvalues, 2, which), atol=1e-8)
    for value, residual, vector in zip(values, residuals, vectors, strict=True):
        true = float(torch.linalg.vector_norm(matrix.dense @ vector - float(value) * vector))
        assert true == pytest.approx(residual, rel=1e-6, abs=1e-12)
    # Keeping half of the space costs little: ARPACK's trade, but more slowly than without limits.
    monkeypatch.setattr(eigenvalues, "_CAPACITY", 200)
    without = known("uniform")
    found_in(without, 2, which, 1e-9)
    assert without.spent <= matrix.spent <= 1.5 * without.spent


def test_the_end_that_was_not_asked_for_costs_nothing(known):
    spectrum = [100.0, 90.0, 80.0, *np.linspace(-1, 1, 195), -2.0, -3.0]
    one, other = known(spectrum), known(spectrum)
    found_in(one, 1, "largest", 1e-4)
    found_in(other, 2, "both", 1e-4)
    assert one.spent < other.spent <= 60


def test_what_did_not_converge_is_returned_with_its_residuals(bowl, symmetric):
    spectrum = np.linspace(0, 1, 200)
    found = hessian_eigenvalues(bowl(symmetric(spectrum)).risk, 4, tolerance=1e-12, max_products=20)
    assert (found.converged, found.products) == (False, 20)
    assert len(found.eigenvalues) == len(found.residuals) == len(found.errors) == 4
    assert (np.diff(found.eigenvalues) < 0).all()
    assert (found.residuals > 1e-3).all()
    assert (found.eigenvalues <= 1).all()
    assert found.eigenvalues[0] > 0.95


def test_at_least_as_many_products_as_eigenvalues(bowl, symmetric):
    found = hessian_eigenvalues(bowl(symmetric(np.linspace(0, 1, 40))).risk, 8, max_products=1)
    assert (len(found.eigenvalues), found.products, found.converged) == (8, 8, False)


def test_no_tolerance_is_better_than_rounding(known):
    # Asked for all digits, an iteration that has them stops all the same.
    values, _, _, _, converged = found_in(known("network"), 2, "largest", 0.0)
    assert converged
    np.testing.assert_allclose(values, [54, 44], rtol=1e-13)


def test_a_flat_risk_has_eigenvalues_of_zero(bowl):
    found = hessian_eigenvalues(bowl(np.zeros((30, 30))).risk)
    np.testing.assert_allclose(found.eigenvalues, [0.0], atol=1e-12)
    assert found.converged
    assert found.products <= 6


def test_a_multiple_of_the_identity(bowl):
    found = hessian_eigenvalues(bowl(2 * np.eye(30)).risk, 2, "both")
    np.testing.assert_allclose(found.eigenvalues, 2, rtol=1e-13)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-13)


@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
def test_arpack_agrees(network_named, which, kind):
    case = network_named("tanh")
    (expected,) = eigsh(
        hessian_operator(case.risk, kind),
        1,
        which={"largest": "LA", "smallest": "SA"}[which],
        return_eigenvectors=False,
    )
    found = hessian_eigenvalues(case.risk, 1, which, 1e-9, matrix=kind)
    assert found.eigenvalues[0] == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_fewer_products_than_power_iteration(known):
    matrix = known("network")
    values, _, _, _, converged = found_in(matrix, 1, "largest", 1e-3)
    error, ours = abs(values[0] - 54), matrix.spent
    assert converged
    assert error <= 1e-3 * 54
    # Power iteration gains a factor of (44 / 54)^2 = 0.66 on the error of the eigenvalue with each product.
    vector, products, estimate = matrix.gaussian(np.random.default_rng(0)), 0, 0.0
    while abs(estimate - 54) > max(error, 1e-6):
        vector = vector / torch.linalg.vector_norm(vector)
        product = matrix.dense @ vector
        estimate, vector, products = float(vector @ product), product, products + 1
    assert 2 * ours < products


@pytest.mark.parametrize(("which", "count"), [("largest", 3), ("smallest", 2), ("both", 4)])
def test_spectrum_of_a_network(network_case, which, count):
    expected = expected_of(np.linalg.eigvalsh(network_case.hessian()), count, which)
    found = hessian_eigenvalues(network_case.risk, count, which, tolerance=1e-8)
    assert found.converged
    spread = np.ptp(np.linalg.eigvalsh(network_case.hessian()))
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-6, atol=1e-7 * spread)


def test_spectrum_of_a_networks_gauss_newton_matrix(network_case):
    expected = np.linalg.eigvalsh(network_case.gauss_newton())[:-3:-1]
    found = hessian_eigenvalues(network_case.risk, 2, tolerance=1e-8, matrix="gauss-newton")
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-6)


def test_spectrum_of_a_diagonal_block(network_named):
    case = network_named("LSTM")
    places = case.places("decode.weight", "decode.bias")
    expected = np.linalg.eigvalsh(case.hessian()[np.ix_(places, places)])
    found, vectors = hessian_eigenpairs(case.risk, 12, parameters=["decode.*"])
    np.testing.assert_allclose(found.eigenvalues, expected[::-1], atol=1e-7)
    assert [list(vector) for vector in vectors] == [["decode.weight", "decode.bias"]] * 12


def test_the_seed_repeats_the_bits(bowl, symmetric):
    risk = bowl(symmetric(np.linspace(-1, 4, 30))).risk
    first, second, other = (hessian_eigenvalues(risk, 2, tolerance=0.1, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.eigenvalues, second.eigenvalues)
    assert (first.eigenvalues != other.eigenvalues).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count: expected 1 to 6, the number of parameters, got 0"),
        ({"count": 7}, "count: expected 1 to 6"),
        ({"which": "middle"}, "which: expected 'largest', 'smallest' or 'both', got 'middle'"),
        ({"which": "both"}, "count: expected an even number, half of it from each end of the spectrum, got 1"),
        ({"matrix": "fisher"}, "matrix: expected 'hessian' or 'gauss-newton', got 'fisher'"),
        ({"parameters": ["bias"]}, "parameters: 'bias' matches none of weight, shift"),
    ],
    ids=["none", "too many", "which", "odd", "matrix", "parameters"],
)
def test_wrong_arguments(bowl, arguments, message):
    with pytest.raises(ValueError, match=message):
        hessian_eigenvalues(bowl(np.eye(6)).risk, **arguments)
