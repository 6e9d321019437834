"""Flat vectors and named tensors, precisions, SciPy's operator, and what is left behind."""

import weakref

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator, cg, eigsh
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import EmpiricalRisk, hessian_eigenvalues, hessian_trace
from landscape.curvature import (
    hessian_eigenpairs,
    hessian_frobenius_norm,
    hessian_operator,
    plane_hessian,
    spectral_density,
)
from landscape.curvature.matrix import CurvatureMatrix
from landscape.directions import random_directions

CALLS = {
    "eigenvalues": lambda risk, **settings: hessian_eigenvalues(risk, 2, "both", **settings),
    "eigenpairs": lambda risk, **settings: hessian_eigenpairs(risk, 2, **settings),
    "trace": lambda risk, **settings: hessian_trace(risk, deflate=5, **settings),
    "Frobenius norm": lambda risk, **settings: hessian_frobenius_norm(risk, deflate=5, **settings),
    "density": lambda risk, **settings: spectral_density(risk, steps=5, **settings),
    "operator": lambda risk, **settings: eigsh(hessian_operator(risk, **settings), 1, v0=np.ones(46)),
}


def test_flat_vectors_and_back(network_named):
    case = network_named("tanh")
    matrix = CurvatureMatrix(case.risk)
    vector = matrix.gaussian(np.random.default_rng(0))
    named = matrix.by_name(vector)
    assert {name: tensor.shape for name, tensor in named.items()} == case.shapes
    torch.testing.assert_close(matrix.flat(named), vector, rtol=0, atol=0)
    torch.testing.assert_close(case.flat(named), vector, rtol=0, atol=0)


def test_draws_do_not_depend_on_the_precision(network_named):
    wide, narrow = network_named("tanh"), network_named("tanh")
    narrow.model.float()
    narrow = CurvatureMatrix(EmpiricalRisk(narrow.model, [(narrow.inputs[0].float(), narrow.labels)]))
    wide = CurvatureMatrix(wide.risk)
    for kind in ("gaussian", "rademacher"):
        one, other = (getattr(matrix, kind)(np.random.default_rng(5)) for matrix in (wide, narrow))
        assert (one.dtype, other.dtype) == (torch.float64, torch.float32)
        torch.testing.assert_close(one.float(), other, rtol=0, atol=0)
    assert set(one.tolist()) == {-1.0, 1.0}
    assert abs(one.mean()) < 0.4


def test_products_are_counted(network_named):
    matrix = CurvatureMatrix(network_named("tanh").risk)
    vectors = [matrix.gaussian(np.random.default_rng(seed)) for seed in range(3)]
    alone = matrix @ vectors[0]
    together = matrix.times(vectors)
    assert matrix.spent == 4
    torch.testing.assert_close(together[0], alone, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("names", [["0.*"], ["2.bias", "0.weight"], ["*.bias", "2.*"]], ids=" ".join)
def test_patterns_choose_a_diagonal_block(network_named, names):
    case = network_named("tanh")
    chosen = [name for name in case.shapes if any(name in case.risk.matching_parameters(pattern) for pattern in names)]
    places = case.places(*chosen)
    dense = case.hessian()[np.ix_(places, places)]
    operator = hessian_operator(case.risk, parameters=names)
    assert operator.shape == dense.shape
    np.testing.assert_allclose(operator @ np.eye(len(places)), dense, rtol=1e-9, atol=1e-12)


def test_a_risk_of_fewer_parameters_has_their_block(network_named):
    case = network_named("tanh")
    risk = EmpiricalRisk(
        case.model, case.batches, lambda model, batch: case.risk.losses(model, batch), parameters=["2.*"]
    )
    places = case.places("2.weight", "2.bias")
    dense = case.hessian()[np.ix_(places, places)]
    np.testing.assert_allclose(hessian_operator(risk) @ np.eye(len(places)), dense, rtol=1e-9, atol=1e-12)


def test_the_operator_serves_scipys_solvers(network_named):
    case = network_named("tanh")
    operator = hessian_operator(case.risk, "gauss-newton")
    damped = case.gauss_newton() + 0.1 * np.eye(len(case.center))
    slope = case.flat(case.risk.gradient()).numpy()
    solution, status = cg(operator + 0.1 * aslinearoperator(np.eye(len(slope))), slope, rtol=1e-12)
    assert status == 0
    np.testing.assert_allclose(solution, np.linalg.solve(damped, slope), rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(operator.rmatvec(slope), operator.matvec(slope))
    assert operator.dtype == np.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions(network_named, dtype):
    # Rounded weights are another point: the reference is a float64 copy of them.
    rounded = network_named("tanh")
    rounded.model.to(dtype)
    low = EmpiricalRisk(
        rounded.model,
        [(rounded.inputs[0].to(dtype), rounded.labels)],
        lambda model, batch: nn.functional.cross_entropy(model(batch[0]).float(), batch[1], reduction="none"),
    )
    exact = network_named("tanh")
    exact.model.load_state_dict(rounded.model.state_dict())
    high = EmpiricalRisk(exact.model, [(rounded.inputs[0].to(dtype).double(), exact.labels)])
    rtol = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    for call in (
        lambda risk: hessian_eigenvalues(risk, 1).eigenvalues[0],
        lambda risk: hessian_eigenvalues(risk, 1, matrix="gauss-newton").eigenvalues[0],
        lambda risk: hessian_trace(risk).value,
        lambda risk: hessian_frobenius_norm(risk).value,
    ):
        assert call(low) == pytest.approx(call(high), rel=rtol)
    found, (vector,) = hessian_eigenpairs(low, 1)
    assert found.converged
    assert {tensor.dtype for tensor in vector.values()} == {dtype}
    assert CurvatureMatrix(low).dtype == torch.float32
    assert spectral_density(low, min_probes=2, tolerance=1.0)["node"].max() == pytest.approx(
        found.eigenvalues[0], rel=rtol
    )


def test_many_batches_in_bfloat16_do_not_stop_growing():
    # A sum of 1,000 equal terms in bfloat16 sticks at 256 of them.
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    batches = [torch.ones(1, 1, dtype=torch.bfloat16)] * 1000
    risk = EmpiricalRisk(model, batches, lambda model, batch: model(batch)[:, 0].square())
    product = risk.hessian_product({"weight": torch.ones(1, 1, dtype=torch.bfloat16)})
    assert float(product["weight"]) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("call", CALLS)
def test_products_that_are_not_finite(risk_of, call):
    # sqrt has a value at 0 and no curvature; |w| + sqrt(w - w) is finite, and its derivatives are not.
    risk = risk_of(lambda w: (w.square() + (w - w.detach()).abs().sqrt()).sum(), np.linspace(1, 2, 46))
    with pytest.raises(ValueError, match="Hessian-vector product is not finite: the loss has no curvature"):
        CALLS[call](risk)


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("call", CALLS)
def test_the_model_is_put_back(network, unchanged, call, matrix):
    batches = DataLoader(TensorDataset(*network.data), batch_size=3)  # draws from the global stream when it is read
    risk = EmpiricalRisk(network.model, batches)
    for parameter in network.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    network.model.train()
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global stream must not move
    with unchanged(network.model):
        CALLS[call](risk, matrix=matrix)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("call", CALLS)
def test_the_model_is_put_back_when_a_product_fails(network, unchanged, call, matrix):
    class BlownError(Exception):
        pass

    def loss(model, batch):
        if torch.is_grad_enabled() and len(batch[1]) == 1:  # the last batch of a product
            raise BlownError("in the middle")
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    risk = EmpiricalRisk(network.model, network.batches, loss)
    network.model.train()
    with unchanged(network.model), pytest.raises(BlownError, match="in the middle"):
        CALLS[call](risk, matrix=matrix)


@pytest.mark.parametrize("kind", ["hessian_products", "gauss_newton_products", "directional_derivatives"])
def test_one_graph_at_a_time(network_named, kind):
    # What graphs hold at most does not grow with the number of batches.
    case = network_named("tanh")
    vector = case.by_name(torch.ones_like(case.center))
    alive, most = weakref.WeakSet(), [0]

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor

    def noted(tensor):
        saved = Saved(tensor.detach())
        alive.add(saved)
        most[0] = max(most[0], len(alive))
        return saved

    held = []
    for count in (2, 12):
        risk = EmpiricalRisk(case.model, [(case.inputs[0], case.labels)] * count)
        most[0] = 0
        with torch.autograd.graph.saved_tensors_hooks(noted, lambda saved: saved.tensor):
            getattr(risk, kind)(vector if kind == "directional_derivatives" else [vector, vector])
        held.append(most[0])
    assert held[0] == held[1] > 0


def test_a_string_is_no_sequence_of_patterns(bowl):
    with pytest.raises(
        TypeError, match=r"parameters: expected a sequence, got the string 'weight'; write \('weight',\)"
    ):
        hessian_trace(bowl(np.eye(6)).risk, parameters="weight")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrix": "fisher"}, "matrix: expected 'hessian' or 'gauss-newton', got 'fisher'"),
        ({"parameters": ["weight", "bias"]}, "parameters: 'bias' matches none of weight, shift"),
        ({"parameters": []}, "parameters: expected at least one name, got none"),
    ],
    ids=["matrix", "parameters", "none"],
)
def test_wrong_arguments(bowl, arguments, message):
    with pytest.raises(ValueError, match=message):
        hessian_operator(bowl(np.eye(6)).risk, **arguments)


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


def test_the_hessian_of_a_plane_of_a_network(network_case):
    directions = random_directions(network_case.risk.parameters(), count=2)
    still = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in network_case.shapes.items()}
    flat = np.stack([network_case.flat(still | dict(direction)).numpy() for direction in directions])
    expected = flat @ network_case.hessian() @ flat.T
    np.testing.assert_allclose(plane_hessian(network_case.risk, directions), expected, rtol=1e-5, atol=1e-7)


def test_directions_of_different_parameters(bowl, symmetric):
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    one, other = {"weight": torch.ones(2, 2).double()}, {"shift": torch.ones(2).double()}
    d, e = quadratic.flat(one), quadratic.flat(other)
    expected = np.array([[d @ quadratic.matrix @ d, d @ quadratic.matrix @ e]] * 2)
    expected[1] = e @ quadratic.matrix @ d, e @ quadratic.matrix @ e
    np.testing.assert_allclose(plane_hessian(quadratic.risk, [one, other]), expected, rtol=1e-10)
