"""Eigenvectors of quadratic risks, whose Hessian is known, and the direction between two points."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, Point, hessian_eigenvalues
from landscape.curvature import hessian_eigenpairs
from landscape.directions import direction_between, hessian_directions
from landscape.parameters import fingerprint, inner_product, norm

SPECTRA = {
    "small": [-3.0, -0.5, 0.1, 1.0, 4.0, 9.0],
    "large": [-6.0, -5.0, -4.0, *np.linspace(-1, 1, 40), 7.0, 8.0, 10.0],
}
ORDERS = {
    ("largest", 2): lambda ascending: [ascending[-1], ascending[-2]],
    ("smallest", 2): lambda ascending: [ascending[0], ascending[1]],
    ("both", 2): lambda ascending: [ascending[-1], ascending[0]],
    ("both", 4): lambda ascending: [ascending[-1], ascending[-2], ascending[0], ascending[1]],
    ("largest", 1): lambda ascending: [ascending[-1]],
}


@pytest.mark.parametrize(("which", "count"), ORDERS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_eigenvectors_of_a_quadratic(bowl, symmetric, spectrum, which, count):
    there = bowl(symmetric(SPECTRA[spectrum]))
    directions = hessian_directions(there.risk, count, which, tolerance=1e-9)
    values, vectors = np.linalg.eigh(there.matrix)
    assert len(directions) == count
    for direction, expected in zip(directions, ORDERS[which, count](values.tolist()), strict=True):
        assert direction.about["eigenvalue"] == pytest.approx(expected, rel=1e-7)
        overlap = there.flat(direction) @ vectors[:, values.tolist().index(expected)]
        # The iteration stops when eigenvalues are right to 1e-9 of the spread, 16 or less, and gaps are 1 or more.
        # Residuals go with the root of that, and what an overlap lacks of 1 goes with the residual squared.
        assert abs(overlap) == pytest.approx(1, abs=2e-8)
        assert norm(direction) == pytest.approx(1, abs=1e-12)
        assert direction.about["residual"] < 1.3e-4
        assert direction.about["converged"] is True
    for index, direction in enumerate(directions):
        assert all(abs(inner_product(direction, earlier)) < 1e-6 for earlier in directions[:index])


def test_the_risk_along_an_eigenvector_is_a_parabola(bowl, symmetric):
    there = bowl(symmetric(SPECTRA["small"]))
    for direction in hessian_directions(there.risk, 2, "both"):
        slope, curvature = there.gradient @ there.flat(direction), direction.about["eigenvalue"]
        with there.risk.along([direction]) as move:
            for step in (-0.7, 1.3):
                move([step])
                expected = there.losses(there.theta).mean() + step * slope + step**2 * curvature / 2
                assert there.risk().loss == pytest.approx(expected, rel=1e-9)


def test_about_says_what_it_is_and_is_json(bowl, symmetric):
    first, second = hessian_directions(bowl(symmetric(SPECTRA["small"])).risk, 2, "both")
    assert json.loads(json.dumps(first.about)) == first.about
    assert (first.about["kind"], first.about["which"], first.about["index"]) == ("hessian", "largest", 0)
    assert (second.about["which"], second.about["index"]) == ("smallest", 0)
    assert {"eigenvalue", "residual", "converged", "tolerance"} <= set(first.about)


def test_the_sign_does_not_hang_on_the_start_of_the_iteration(bowl, symmetric):
    risk = bowl(symmetric(SPECTRA["large"])).risk
    runs = [hessian_directions(risk, 3, tolerance=1e-10, seed=seed) for seed in range(4)]
    for run in runs[1:]:
        for one, other in zip(run, runs[0], strict=True):
            assert inner_product(one, other) == pytest.approx(1, abs=1e-8)


def test_the_same_seed_gives_the_same_bits(bowl, symmetric):
    risk = bowl(symmetric(SPECTRA["large"])).risk
    first, second = (hessian_directions(risk, 2, "both", seed=5) for _ in range(2))
    assert [fingerprint(one) for one in first] == [fingerprint(one) for one in second]


def test_the_sign_where_entries_come_in_pairs_of_opposite_sign(bowl):
    # The eigenvector (1, -1, 0 ...) / sqrt(2) has no largest entry: rounding would decide.
    for tiny in (-1e-12, 1e-12):
        matrix = np.diag([2.0 + tiny, 2.0 - tiny, 0.0, 0.0, 0.0, 0.0])
        matrix[0, 1] = matrix[1, 0] = -1.0
        there = bowl(matrix)
        (direction,) = hessian_directions(there.risk, 1)
        found = there.flat(direction)
        np.testing.assert_allclose(np.abs(found[:2]), np.sqrt(0.5), rtol=1e-6)
        assert found[0] > 0  # the fixed draws begin with 0.126 and -0.132


def test_the_smallest_eigenvalue_beside_zero_costs_few_products(bowl, symmetric):
    # Nothing but rounding below zero, and 300 values near it: relative to itself the smallest could not be found in 200
    # products. As a share of the spread it is, whether the largest is asked for or not.
    spectrum = [*np.linspace(1e-9, 1e-3, 300), 1.0, 3.0, 10.0]
    risk = bowl(symmetric(spectrum)).risk
    alone = hessian_eigenvalues(risk, 1, "smallest")
    assert alone.converged
    assert alone.products < 20
    assert alone.eigenvalues[0] == pytest.approx(0, abs=1e-3 * 10)
    largest, smallest = hessian_directions(risk, 2, "both", max_products=20)
    assert largest.about["eigenvalue"] == pytest.approx(10, rel=1e-3)
    assert smallest.about["eigenvalue"] == pytest.approx(0, abs=1e-3 * 10)


def test_eigenvectors_where_every_direction_is_one(bowl):
    # The space is invariant from its first step on.
    largest, smallest = hessian_directions(bowl(2 * np.eye(30)).risk, 2, "both")
    assert largest.about["eigenvalue"] == pytest.approx(2)
    assert smallest.about["eigenvalue"] == pytest.approx(2)
    assert norm(smallest) == pytest.approx(1)


def test_pairs_hold_the_eigenvalues_of_the_plain_function(bowl, symmetric):
    risk = bowl(symmetric(SPECTRA["large"])).risk
    found, vectors = hessian_eigenpairs(risk, 3, "smallest")
    plain = hessian_eigenvalues(risk, 3, "smallest")
    np.testing.assert_array_equal(found.eigenvalues, plain.eigenvalues)
    np.testing.assert_array_equal(found.residuals, plain.residuals)
    for value, vector in zip(found.eigenvalues, vectors, strict=True):
        assert inner_product(vector, risk.hessian_product(vector)) == pytest.approx(value, rel=1e-9)


def test_float32_keeps_roles_and_length():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    risk = EmpiricalRisk(model, [(torch.randn(9, 6), torch.randint(3, (9,)))])
    (direction,) = hessian_directions(risk, 1)
    assert direction.roles == risk.parameters().roles
    assert all(tensor.dtype == torch.float32 for tensor in direction.values())
    assert norm(direction) == pytest.approx(1, abs=1e-6)


def test_the_model_is_put_back(network, unchanged):
    with unchanged(network.model):
        hessian_directions(EmpiricalRisk(network.model, network.batches), 2, "both")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"which": "middle"}, "which: expected 'largest', 'smallest' or 'both', got 'middle'"),
        ({"which": "both", "count": 3}, "count: expected an even number, half of it from each end"),
        ({"count": 0}, "count: expected 1 to 46, the number of parameters, got 0"),
        ({"which": "both", "count": 0}, "count: expected 1 to 46"),
        (
            {"count": 5, "max_products": 20, "tolerance": 1e-14},
            r"the Hessian's eigenvalues \(largest\): 5 did not converge in 20 products; raise max_products",
        ),
    ],
    ids=["which", "odd", "none", "none of both", "not converged"],
)
def test_wrong_arguments(bowl, symmetric, arguments, message):
    with pytest.raises(ValueError, match=message):
        hessian_directions(bowl(symmetric(SPECTRA["large"])).risk, **arguments)


def test_the_way_between_two_points(network):
    a = EmpiricalRisk(network.model, network.batches).parameters()
    b = {name: tensor + torch.randn_like(tensor) for name, tensor in a.items()}
    between = direction_between(a, b)
    for name in a:
        torch.testing.assert_close(between[name], b[name] - a[name], rtol=0, atol=0)
    assert between.roles == a.roles
    length = sum(float((b[name] - a[name]).square().sum()) for name in a) ** 0.5
    assert between.about == {
        "kind": "between",
        "length": pytest.approx(length, rel=1e-12),
        "start": fingerprint(a),
        "end": fingerprint(b),
    }


def test_the_way_between_points_of_different_types_and_parameters_that_need_gradients():
    a = Point({"weight": nn.Parameter(torch.zeros(2, 2))})
    between = direction_between(a, {"weight": torch.ones(2, 2, dtype=torch.float64)})
    assert between["weight"].dtype == torch.float32
    assert not between["weight"].requires_grad


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": torch.zeros(2)}, "b: expected the parameters of the first point, but 'v' is missing"),
        ({"w": torch.zeros(2), "v": torch.zeros(1), "u": torch.zeros(1)}, "b: .* but 'u' is not one of them"),
        ({"w": torch.zeros(3), "v": torch.zeros(1)}, r"b: 'w' has shape \(3,\), expected \(2,\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_points_that_do_not_belong_together(other, message):
    with pytest.raises(ValueError, match=message):
        direction_between({"w": torch.zeros(2), "v": torch.zeros(1)}, other)
