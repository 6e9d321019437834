"""Eigenvalues and trace of a quadratic risk, whose Hessian is known, and of a network, against its dense Hessian."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, hessian_eigenvalues, hessian_trace, random_directions
from landscape.curvature import plane_hessian

SPECTRA = {
    "dense": [-3.0, -0.5, 0.1, 1.0, 4.0, 9.0],
    "dense, repeated": [-1.0, -1.0, 2.0, 2.0, 2.0, 5.0],
    "ARPACK": [-6.0, -5.0, -4.0, *np.linspace(-1, 1, 40), 7.0, 8.0, 10.0],
}


@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_eigenvalues_of_a_quadratic(bowl, symmetric, spectrum, count, which):
    risk = bowl(symmetric(SPECTRA[spectrum])).risk
    found = hessian_eigenvalues(risk, count, which, tolerance=1e-6)
    expected = np.sort(SPECTRA[spectrum])[::-1]
    expected = expected[:count] if which == "largest" else expected[-count:]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-5)
    assert found.converged
    assert found.residuals.shape == (count,)
    assert (found.residuals < 1e-3).all()


def test_all_eigenvalues_can_be_asked_for(bowl, symmetric):
    spectrum = np.linspace(-2, 3, 24)
    found = hessian_eigenvalues(bowl(symmetric(spectrum)).risk, count=24)
    np.testing.assert_allclose(found.eigenvalues, spectrum[::-1], atol=1e-10)


def test_an_eigenvalue_lies_within_each_residual(bowl, symmetric):
    # For a symmetric H and a unit vector v, some eigenvalue is within |Hv - mu v| of mu: also of a rough answer.
    spectrum = np.sort(np.random.default_rng(1).standard_normal(60))
    found = hessian_eigenvalues(bowl(symmetric(spectrum)).risk, 2, tolerance=0.3)
    assert (found.residuals > 1e-9).any()
    for value, residual in zip(found.eigenvalues, found.residuals, strict=True):
        assert np.abs(spectrum - value).min() <= residual * (1 + 1e-9)


def test_eigenvalues_say_when_they_did_not_converge(bowl, symmetric):
    spectrum = np.linspace(0, 1, 200)
    found = hessian_eigenvalues(bowl(symmetric(spectrum)).risk, 4, tolerance=1e-12, max_products=20)
    assert not found.converged
    assert len(found.eigenvalues) == len(found.residuals) < 4
    assert 20 <= found.products <= 50


def test_a_flat_risk_has_eigenvalues_of_zero(bowl):
    found = hessian_eigenvalues(bowl(np.zeros((30, 30))).risk)
    np.testing.assert_allclose(found.eigenvalues, [0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count: expected 1 to 6, the number of parameters, got 0"),
        ({"count": 7}, "count: expected 1 to 6"),
        ({"which": "middle"}, "which: expected 'largest' or 'smallest', got 'middle'"),
    ],
    ids=["none", "too many", "which"],
)
def test_wrong_arguments(bowl, arguments, message):
    with pytest.raises(ValueError, match=message):
        hessian_eigenvalues(bowl(np.eye(6)).risk, **arguments)


def test_trace_of_a_diagonal_hessian_is_exact(bowl):
    # z'Az = sum of A_ii z_i^2 = trace for z_i = +-1: no variance, so the first ten probes suffice.
    diagonal = [5.0, -1.0, 0.25, 2.0, 0.0, 1.0]
    found = hessian_trace(bowl(np.diag(diagonal)).risk)
    assert found.value == pytest.approx(7.25, rel=1e-14)
    assert found.standard_error == pytest.approx(0, abs=1e-14)
    assert (found.converged, found.products) == (True, 10)


@pytest.mark.parametrize("seed", range(3))
def test_trace_of_a_dense_hessian(bowl, symmetric, seed):
    spectrum = np.linspace(-1, 4, 30)
    found = hessian_trace(bowl(symmetric(spectrum)).risk, seed=seed)
    assert abs(found.value - spectrum.sum()) <= 3 * found.standard_error
    assert found.converged
    assert 0 < found.standard_error <= 0.05 * abs(found.value)


def test_standard_error_of_the_trace(bowl, symmetric):
    # Rademacher probes: Var z'Az = 2 sum over i != j of A_ij^2.
    matrix = symmetric(np.linspace(-1, 1, 12))
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2))
    found = hessian_trace(bowl(matrix).risk, tolerance=0.0, max_products=800)
    assert (found.converged, found.products) == (False, 800)
    assert found.standard_error == pytest.approx(math.sqrt(variance / 800), rel=0.1)


def test_the_seed_repeats_the_estimates(bowl, symmetric):
    risk = bowl(symmetric(np.linspace(-1, 4, 30))).risk
    assert hessian_trace(risk, seed=3) == hessian_trace(risk, seed=3)
    assert hessian_trace(risk, seed=3).value != hessian_trace(risk, seed=4).value
    first, second = (hessian_eigenvalues(risk, 2, seed=3).eigenvalues for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.fixture
def two_layers():
    """A network, its risk, and the same risk written by hand as a function of one flat vector."""
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, labels = torch.randn(7, 2, dtype=torch.float64), torch.randint(3, (7,))
    risk = EmpiricalRisk(model, list(zip(inputs.split(3), labels.split(3), strict=True)))

    def by_hand(flat):
        first, shift, second, offset = flat.split([10, 5, 15, 3])
        hidden = torch.tanh(inputs @ first.reshape(5, 2).T + shift)
        logits = hidden @ second.reshape(3, 5).T + offset
        return (torch.logsumexp(logits, 1) - logits[torch.arange(7), labels]).mean()

    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return risk, torch.autograd.functional.hessian(by_hand, flat), torch.func.grad(by_hand)(flat)


def test_products_are_columns_of_the_dense_hessian(two_layers):
    risk, dense, _ = two_layers
    shapes = risk.parameters()
    for unit, expected in zip(torch.eye(33, dtype=torch.float64), dense, strict=True):
        parts = unit.split([tensor.numel() for tensor in shapes.values()])
        vector = {name: part.reshape(shapes[name].shape) for name, part in zip(shapes, parts, strict=True)}
        product = torch.cat([tensor.flatten() for tensor in risk.hessian_product(vector).values()])
        torch.testing.assert_close(product, expected, rtol=1e-9, atol=1e-12)


def test_gradient_of_a_network(two_layers):
    risk, _, expected = two_layers
    found = torch.cat([tensor.flatten() for tensor in risk.gradient().values()])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_spectrum_of_a_network(two_layers):
    risk, dense, _ = two_layers
    expected = torch.linalg.eigvalsh(dense).numpy()
    found = hessian_eigenvalues(risk, 2, tolerance=1e-8).eigenvalues
    np.testing.assert_allclose(found, expected[:-3:-1], rtol=1e-6)
    assert hessian_eigenvalues(risk, 1, "smallest", 1e-8).eigenvalues[0] == pytest.approx(expected[0], rel=1e-5)
    trace = hessian_trace(risk, tolerance=0.1)
    assert abs(trace.value - expected.sum()) <= 3 * trace.standard_error


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.decoder = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, inputs):
        queries = self.project(inputs).unsqueeze(1)
        return self.decoder(nn.functional.scaled_dot_product_attention(queries, queries, queries).squeeze(1).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.decoder = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.decoder(self.recurrent(inputs)[0].mean(1))


@pytest.mark.parametrize("kind", [Attention, Recurrent])
def test_layers_whose_fused_kernels_have_no_second_derivative(kind):
    model = kind().double().eval()
    risk = EmpiricalRisk(model, [(torch.randn(5, 3, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1]))])
    point = risk.parameters()
    vector = {name: torch.randn_like(tensor) for name, tensor in point.items()}
    product = risk.hessian_product(vector)
    # Central difference of gradients along the vector: its error is of order step^2.
    step = 1e-5
    ahead, behind = (risk.gradient({n: point[n] + sign * step * vector[n] for n in point}) for sign in (1, -1))
    for name in point:
        torch.testing.assert_close(product[name], (ahead[name] - behind[name]) / (2 * step), rtol=1e-5, atol=1e-8)


def test_the_hessian_of_a_plane(bowl, symmetric):
    # of the quadratic form: d' A e, exactly, wherever the center is
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    directions = random_directions(quadratic.risk.parameters(), count=3, ignore=())
    flat = np.stack([quadratic.flat(direction) for direction in directions])
    np.testing.assert_allclose(
        plane_hessian(quadratic.risk, directions), flat @ quadratic.matrix @ flat.T, rtol=1e-10, atol=1e-12
    )


def test_the_hessian_of_a_plane_that_moves_some_parameters(bowl, symmetric):
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    (direction,) = random_directions(quadratic.risk.parameters(), count=1)  # the vector is a bias, and stays
    d = quadratic.flat(direction)
    assert plane_hessian(quadratic.risk, [direction]) == pytest.approx(np.array([[d @ quadratic.matrix @ d]]))
