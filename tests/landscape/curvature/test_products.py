"""Products of networks' matrices, and derivatives along a vector, against matrices that are written out."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk

TOLERANCE = {"rtol": 1e-6, "atol": 1e-8}  # that of central differences in float64


def vectors(case, count):
    draws = np.random.default_rng(1)
    return [case.by_name(torch.tensor(draws.standard_normal(len(case.center)))) for _ in range(count)]


def test_hessian_products(network_case):
    several = vectors(network_case, 3)
    dense = network_case.hessian()
    for vector, product in zip(several, network_case.risk.hessian_products(several), strict=True):
        expected = dense @ network_case.flat(vector).numpy()
        np.testing.assert_allclose(network_case.flat(product).numpy(), expected, **TOLERANCE)
    assert np.abs(dense).max() > 0.01


def test_gauss_newton_products(network_case):
    several = vectors(network_case, 3)
    dense = network_case.gauss_newton()
    for vector, product in zip(several, network_case.risk.gauss_newton_products(several), strict=True):
        expected = dense @ network_case.flat(vector).numpy()
        np.testing.assert_allclose(network_case.flat(product).numpy(), expected, **TOLERANCE)
    assert np.abs(dense).max() > 0.01


def test_derivatives_of_each_example_along_a_vector(network_case):
    (vector,) = vectors(network_case, 1)
    expected = network_case.jacobian(network_case.losses) @ network_case.flat(vector).numpy()
    found = network_case.risk.directional_derivatives(vector)
    assert (found.shape, found.dtype) == ((8,), torch.float64)
    np.testing.assert_allclose(found.numpy(), expected, **TOLERANCE)


def test_the_gradient_is_the_mean_of_the_examples(network_case):
    expected = network_case.jacobian(network_case.losses).mean(axis=0)
    np.testing.assert_allclose(network_case.flat(network_case.risk.gradient()).numpy(), expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("names", [("0.weight",), ("2.bias",), ("0.bias", "2.weight")], ids=" ".join)
def test_fewer_names_are_a_diagonal_block(network_named, kind, names):
    case = network_named("tanh")
    (vector,) = vectors(case, 1)
    places = case.places(*names)
    block = getattr(case, kind)()[np.ix_(places, places)]
    (product,) = getattr(case.risk, f"{kind}_products")([{name: vector[name] for name in names}])
    assert list(product) == list(names)
    found = torch.cat([tensor.flatten() for tensor in product.values()]).numpy()
    np.testing.assert_allclose(found, block @ case.flat(vector).numpy()[places], rtol=1e-9, atol=1e-12)


def test_derivatives_along_a_vector_that_leaves_out_parameters(network_named):
    case = network_named("tanh")
    (vector,) = vectors(case, 1)
    places = case.places("2.weight")
    expected = case.jacobian(case.losses)[:, places] @ case.flat(vector).numpy()[places]
    found = case.risk.directional_derivatives({"2.weight": vector["2.weight"]})
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_rows_of_an_embedding_that_no_text_names_have_no_curvature(network_named):
    case = network_named("embedding")  # of nine words, texts use the first eight
    (product,) = case.risk.hessian_products(vectors(case, 1))
    assert (product["embedding.weight"][8] == 0).all()
    assert (product["embedding.weight"][:8] != 0).any()


def test_a_loss_that_is_linear_in_the_parameters_has_no_curvature():
    # The loss w'x: its gradient does not depend on w.
    model = nn.Linear(3, 1).double()
    risk = EmpiricalRisk(model, [torch.randn(4, 3).double()], lambda model, batch: model(batch)[:, 0])
    vector = {name: torch.ones_like(tensor) for name, tensor in risk.parameters().items()}
    for product in (*risk.hessian_products([vector]), *risk.gauss_newton_products([vector])):
        assert all((tensor == 0).all() for tensor in product.values())
    assert [tuple(tensor.shape) for tensor in product.values()] == [(1, 3), (1,)]


def test_a_parameter_that_the_loss_does_not_see():
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(2, 2)}).double()
    data = [(torch.randn(4, 3).double(), torch.tensor([0, 1, 1, 0]))]
    risk = EmpiricalRisk(
        model,
        data,
        lambda model, batch: nn.functional.cross_entropy(model["used"](batch[0]), batch[1], reduction="none"),
    )
    vector = {name: torch.ones_like(tensor) for name, tensor in risk.parameters().items()}
    vector["used.weight"] = torch.randn(2, 3).double()
    (product,) = risk.hessian_products([vector])
    assert all((product[f"unused.{name}"] == 0).all() for name in ("weight", "bias"))
    assert (product["used.weight"] != 0).any()
    unseen = {"unused.bias": torch.ones(2).double()}
    assert (risk.directional_derivatives(unseen) == 0).all()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.decoder = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, inputs):
        queries = self.project(inputs).unsqueeze(1)
        return self.decoder(nn.functional.scaled_dot_product_attention(queries, queries, queries).squeeze(1).mean(1))


def test_attention_whose_fused_kernels_have_no_second_derivative():
    model = Attention().double().eval()
    risk = EmpiricalRisk(model, [(torch.randn(5, 3, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1]))])
    point = risk.parameters()
    vector = {name: torch.randn_like(tensor) for name, tensor in point.items()}
    product = risk.hessian_product(vector)
    # Central difference of gradients along the vector: its error is of order step^2.
    step = 1e-5
    ahead, behind = (risk.gradient({n: point[n] + sign * step * vector[n] for n in point}) for sign in (1, -1))
    for name in point:
        torch.testing.assert_close(product[name], (ahead[name] - behind[name]) / (2 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", ["hessian_products", "gauss_newton_products"])
def test_several_vectors_give_what_each_gives_alone(network_named, kind):
    case = network_named("ReLU")
    several = vectors(case, 4)
    together = getattr(case.risk, kind)(several)
    for vector, product in zip(several, together, strict=True):
        (alone,) = getattr(case.risk, kind)([vector])
        torch.testing.assert_close(case.flat(product), case.flat(alone), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kind", ["hessian_products", "gauss_newton_products"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: [v, {"0.weight": v["0.weight"]}], "vectors: expected all to name the same parameters"),
        (
            lambda v: [{"weight": v["0.weight"]}],
            "unknown parameter 'weight'; the risk is a function of 0.weight, 0.bias",
        ),
        (lambda v: [v | {"0.bias": torch.zeros(5)}], r"parameter '0.bias': expected shape \(6,\), got \(5,\)"),
    ],
    ids=["names", "unknown", "shape"],
)
def test_vectors_that_do_not_fit(network_named, kind, change, message):
    case = network_named("ReLU")
    with pytest.raises(ValueError, match=message):
        getattr(case.risk, kind)(change(vectors(case, 1)[0]))
