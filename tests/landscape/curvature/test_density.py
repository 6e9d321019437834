"""Densities of known spectra and of networks: nodes, weights, moments and intervals."""

import numpy as np
import pytest
from scipy.special import ndtr

from landscape.curvature import spectral_density


def smeared(eigenvalues, grid, width):
    """The density of a known spectrum, broadened alike."""
    bells = np.exp(-(((grid[:, None] - eigenvalues) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    return bells.mean(axis=1)


def check_rule(found):
    """What holds of any density."""
    nodes, weights, grid = found["node"].values, found["weight"].values, found["eigenvalue"].values
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-10)
    assert (weights >= 0).all()
    assert (np.isnan(nodes) == (weights == 0))[np.isnan(nodes)].all()
    assert np.trapezoid(found["density"].values, grid) == pytest.approx(1, abs=2e-4)  # four bandwidths at either end
    assert (found["density_low"] <= found["density"]).all()
    assert (found["density"] <= found["density_high"]).all()
    assert found["density_low"].min() >= 0


def moments_of(found, power):
    """Of each probe."""
    return (found["weight"] * found["node"].fillna(0) ** power).sum("step").values


def test_a_known_spectrum(bowl, symmetric):
    spectrum = np.sort(np.r_[np.random.default_rng(2).standard_normal(180), 8.0, 9.0, -6.0])
    found = spectral_density(bowl(symmetric(spectrum)).risk, bandwidth=0.5, min_probes=12)
    check_rule(found)
    assert found.attrs["converged"] == 1
    assert (found.attrs["size"], found.attrs["matrix"], found.attrs["bandwidth"]) == (183, "Hessian", 0.5)
    assert found.attrs["products"] == found.attrs["probes"] * 40 == found["node"].size
    # No ghosts: an eigenvalue that stands far out is one node of each probe, also when it is known to all digits.
    assert (np.diff(found["node"].values, axis=1) > 1e-3).all()
    # Extreme nodes are eigenvalues.
    assert float(found["node"].max()) == pytest.approx(9, abs=1e-6)
    assert float(found["node"].min()) == pytest.approx(-6, abs=1e-6)
    # The broadened distribution is within three of its standard errors, plus what the steps leave.
    grid = found["eigenvalue"].values
    step = grid[1] - grid[0]
    cumulative = np.cumsum(found["density"].values) * step
    expected = ndtr((grid[:, None] + step / 2 - spectrum) / 0.5).mean(axis=1)
    assert np.abs(cumulative - expected).max() <= 3 * found.attrs["standard_error"] + found.attrs["step_error"]
    within = (found["density_low"] <= smeared(spectrum, grid, 0.5)) & (
        smeared(spectrum, grid, 0.5) <= found["density_high"]
    )
    assert float(within.mean()) > 0.8  # pointwise 95 %, and neighbors are right or wrong together


def start_of(probe, size):
    """The unit vector that a probe starts from with seed 0."""
    start = np.random.default_rng(np.random.SeedSequence([0, probe])).standard_normal(size)
    return start / np.linalg.norm(start)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_moments(bowl, symmetric, power):
    # A rule of m nodes is exact for polynomials up to degree 2 m - 1: v'A^k v, whose mean is tr A^k / n.
    spectrum = np.linspace(-1, 2, 80)
    matrix = symmetric(spectrum)
    found = spectral_density(bowl(matrix).risk, steps=5, min_probes=30, tolerance=1.0)
    probes = moments_of(found, power)
    assert len(probes) == 30
    error = probes.std(ddof=1) / np.sqrt(30)
    assert abs(probes.mean() - np.mean(spectrum**power)) <= 3 * error
    start = start_of(0, 80)
    exact = start @ np.linalg.matrix_power(matrix, power) @ start
    assert probes[0] == pytest.approx(exact, rel=1e-10)


def test_an_invariant_space_ends_a_probe(bowl):
    # Three different eigenvalues: a probe has three steps, and its rule is exact.
    spectrum = np.repeat([-1.0, 0.0, 3.0], [10, 70, 20])
    found = spectral_density(bowl(np.diag(spectrum)).risk, steps=10, min_probes=20, tolerance=1.0)
    check_rule(found)
    np.testing.assert_allclose(found["node"].values[:, :3], np.tile([-1, 0, 3], (20, 1)), atol=1e-10)
    assert found["node"].isnull().sum() == 20 * 7
    assert found.attrs["products"] == 20 * 3
    # Weights of each have the mean k / n, and for Gaussian vectors the spread of a beta distribution.
    shares, error = np.array([0.1, 0.7, 0.2]), found["weight"].values[:, :3].std(axis=0, ddof=1) / np.sqrt(20)
    assert (np.abs(found["weight"].values[:, :3].mean(axis=0) - shares) <= 3 * error).all()
    np.testing.assert_allclose(error * np.sqrt(20), np.sqrt(shares * (1 - shares) / 51), rtol=0.5)


def test_a_small_matrix_has_all_its_eigenvalues_as_nodes(bowl, symmetric):
    spectrum = [-3.0, -0.5, 0.1, 1.0, 4.0, 9.0]
    found = spectral_density(bowl(symmetric(spectrum)).risk, tolerance=1.0)
    check_rule(found)
    np.testing.assert_allclose(found["node"].values[:, :6], np.tile(spectrum, (found.attrs["probes"], 1)), atol=1e-10)
    assert found["node"][:, 6:].isnull().all()


def test_more_probes_until_the_tolerance(bowl, symmetric):
    risk = bowl(symmetric(np.linspace(-1, 2, 80))).risk
    rough, fine = (spectral_density(risk, steps=10, tolerance=tolerance) for tolerance in (0.2, 0.02))
    assert rough.attrs["probes"] == 2
    assert fine.attrs["probes"] > 2
    assert fine.attrs["standard_error"] <= 0.02
    np.testing.assert_array_equal(fine["node"][:2], rough["node"])


def test_it_says_when_it_did_not_converge(bowl, symmetric):
    risk = bowl(symmetric(np.linspace(-1, 2, 80))).risk
    probes = spectral_density(risk, steps=10, tolerance=1e-3, max_products=50)
    assert (probes.attrs["converged"], probes.attrs["products"]) == (0, 50)
    assert probes.attrs["standard_error"] > 1e-3
    # Three steps cannot tell the parts of a spectrum apart, however many probes there are.
    steps = spectral_density(risk, steps=3, tolerance=0.05)
    assert steps.attrs["standard_error"] <= 0.05 < steps.attrs["step_error"]
    assert steps.attrs["converged"] == 0


def test_the_standard_error_is_that_of_the_distribution(bowl, symmetric):
    found = spectral_density(bowl(symmetric(np.linspace(-1, 2, 80))).risk, steps=10, min_probes=6, tolerance=1.0)
    grid, width = found["eigenvalue"].values, found.attrs["bandwidth"]
    steps = ndtr((grid[:, None, None] - found["node"].values) / width)
    of_probes = (steps * found["weight"].values).sum(axis=2)
    expected = (of_probes.std(axis=1, ddof=1) / np.sqrt(6)).max()
    assert found.attrs["standard_error"] == pytest.approx(expected, rel=1e-10)


def test_the_bandwidth_is_a_share_of_the_range(bowl, symmetric):
    found = spectral_density(bowl(symmetric(np.linspace(-1, 2, 80))).risk, tolerance=1.0)
    low, high = float(found["node"].min()), float(found["node"].max())
    assert found.attrs["bandwidth"] == pytest.approx(0.01 * (high - low))
    width = found.attrs["bandwidth"]
    np.testing.assert_allclose(found["eigenvalue"][[0, -1]], [low - 4 * width, high + 4 * width])


def test_one_eigenvalue_alone(bowl):
    found = spectral_density(bowl(2 * np.eye(30)).risk)
    check_rule(found)
    np.testing.assert_allclose(found["node"][:, 0], 2, rtol=1e-12)
    assert found.attrs["products"] == found.attrs["probes"] == 2
    assert float(found["eigenvalue"][int(found["density"].argmax("eigenvalue"))]) == pytest.approx(2)


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton"])
def test_density_of_a_network(network_case, matrix):
    dense = getattr(network_case, matrix.replace("-", "_"))()
    values = np.linalg.eigvalsh(dense)
    found = spectral_density(network_case.risk, matrix=matrix, tolerance=1.0)
    check_rule(found)
    for probe in range(2):
        start = start_of(probe, len(values))
        for power in (1, 2, 3):
            expected = start @ np.linalg.matrix_power(dense, power) @ start
            assert moments_of(found, power)[probe] == pytest.approx(expected, rel=1e-5)
    assert float(found["node"].max()) == pytest.approx(values[-1], rel=1e-6)
    assert found.attrs["matrix"] == {"hessian": "Hessian", "gauss-newton": "Gauss-Newton"}[matrix]
    assert (found.attrs["size"], found.attrs["examples"]) == (len(values), 8)


def test_density_of_a_diagonal_block(network_named):
    case = network_named("ReLU")
    places = case.places("2.weight")
    values = np.linalg.eigvalsh(case.hessian()[np.ix_(places, places)])
    found = spectral_density(case.risk, parameters=["2.weight"], tolerance=1.0)
    assert found.attrs["size"] == 18
    assert float(found["node"].max()) == pytest.approx(values[-1], rel=1e-8)


def test_the_seed_repeats_the_bits(bowl, symmetric):
    risk = bowl(symmetric(np.linspace(-1, 2, 40))).risk
    first, second, other = (spectral_density(risk, tolerance=1.0, seed=seed) for seed in (3, 3, 4))
    assert first.identical(second)
    assert not np.array_equal(first["weight"], other["weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 1}, "steps: expected at least 2, got 1"),
        ({"min_probes": 1}, "min_probes: expected at least 2, got 1"),
        ({"bandwidth": 0.0}, "bandwidth: expected a positive number, got 0.0"),
        ({"matrix": "fisher"}, "matrix: expected 'hessian' or 'gauss-newton', got 'fisher'"),
        ({"parameters": ["bias"]}, "parameters: 'bias' matches none of weight, shift"),
    ],
    ids=["steps", "probes", "bandwidth", "matrix", "parameters"],
)
def test_wrong_arguments(bowl, arguments, message):
    with pytest.raises(ValueError, match=message):
        spectral_density(bowl(np.eye(6)).risk, **arguments)
