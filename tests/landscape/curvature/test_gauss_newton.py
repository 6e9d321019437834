"""The Gauss-Newton matrix: J' (d2 loss / d output2) J, whatever a model returns, and where it cannot be had."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, hessian_eigenvalues, hessian_trace

DRAWS = np.random.default_rng(0)
INPUTS, TARGETS = torch.tensor(DRAWS.standard_normal((7, 3))), torch.tensor(DRAWS.standard_normal((7, 2)))
BATCHES = list(zip(INPUTS.split(3), TARGETS.split(3), strict=True))


def squares(model, batch):
    return (model(batch[0]) - batch[1]).square().sum(1)


def products_of_units(risk, kind):
    """The matrix, from its columns."""
    shapes = {name: tensor.shape for name, tensor in risk.parameters().items()}
    units = torch.eye(sum(shape.numel() for shape in shapes.values()), dtype=torch.float64)
    vectors = [
        {
            name: part.reshape(shapes[name])
            for name, part in zip(shapes, unit.split([shape.numel() for shape in shapes.values()]), strict=True)
        }
        for unit in units
    ]
    products = getattr(risk, f"{kind}_products")(vectors)
    return torch.stack([torch.cat([tensor.flatten() for tensor in p.values()]) for p in products]).numpy()


def test_it_is_the_hessian_where_the_model_is_linear(network_named):
    case = network_named("linear")
    np.testing.assert_allclose(case.gauss_newton(), case.hessian(), rtol=1e-10, atol=1e-14)
    matrices = [products_of_units(case.risk, kind) for kind in ("hessian", "gauss_newton")]
    np.testing.assert_allclose(matrices[1], matrices[0], rtol=1e-10, atol=1e-14)


def test_it_is_positive_semidefinite_for_cross_entropy(network_named):
    case = network_named("tanh")
    values = np.linalg.eigvalsh(products_of_units(case.risk, "gauss_newton"))
    assert values.min() > -1e-12
    assert np.linalg.eigvalsh(products_of_units(case.risk, "hessian")).min() < -1e-3  # unlike the Hessian
    found = hessian_eigenvalues(case.risk, 1, "smallest", 1e-6, matrix="gauss-newton")
    assert found.eigenvalues[0] == pytest.approx(0, abs=1e-6 * values.max())


def test_squares_of_a_linear_model():
    # The mean of |Wx + b - y|^2 has the second derivatives 2 mean (x, 1)(x, 1)' for each of the outputs alike.
    risk = EmpiricalRisk(nn.Linear(3, 2).double(), BATCHES, squares)
    extended = torch.cat([INPUTS, torch.ones(7, 1, dtype=torch.float64)], 1)
    expected = np.linalg.eigvalsh((2 * extended.T @ extended / 7).numpy())
    found = hessian_eigenvalues(risk, 8, matrix="gauss-newton")
    np.testing.assert_allclose(found.eigenvalues, np.repeat(expected, 2)[::-1], rtol=1e-10)
    assert hessian_trace(risk, matrix="gauss-newton").value == pytest.approx(2 * expected.sum(), rel=1e-12)


class Wrapped(nn.Module):
    """Returns its output in some container."""

    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), wrap

    def forward(self, inputs):
        return self.wrap(self.linear(inputs))


WRAPPINGS = {
    "tuple": (lambda output: (output, torch.zeros(2, dtype=torch.long)), lambda found: found[0]),
    "dict": (lambda output: {"logits": output, "name": "x"}, lambda found: found["logits"]),
    "with its loss": (lambda output: (output.square().mean(), output), lambda found: found[1]),
}


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_models_that_return_more_than_a_tensor(kind):
    torch.manual_seed(0)
    plain = Wrapped(lambda output: output).double()
    wrap, unwrap = WRAPPINGS[kind]
    wrapped = Wrapped(wrap).double()
    wrapped.load_state_dict(plain.state_dict())
    expected = products_of_units(EmpiricalRisk(plain, BATCHES, squares), "gauss_newton")
    risk = EmpiricalRisk(wrapped, BATCHES, lambda model, batch: squares(lambda inputs: unwrap(model(inputs)), batch))
    np.testing.assert_array_equal(products_of_units(risk, "gauss_newton"), expected)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    ("wrap", "number"),
    [
        (lambda output: (output, output + 1), 2),
        (lambda output: (output.argmax(1),), 0),
        (lambda output: (output.detach(),), 1),
    ],
    ids=["two", "none", "no graph"],
)
def test_models_without_one_output(wrap, number):
    model = Wrapped(wrap).double()
    risk = EmpiricalRisk(
        model, BATCHES, lambda model, batch: (model.linear(batch[0]) + 0 * model(batch[0])[0].sum()).sum(1)
    )
    vector = {name: torch.ones_like(tensor) for name, tensor in risk.parameters().items()}
    message = f"expected a model that returns one floating-point tensor which depends on the parameters, got {number}"
    with pytest.raises(TypeError, match=message):
        risk.gauss_newton_products([vector])


def test_a_loss_that_is_linear_in_the_output_has_none(network_named):
    # The second derivative by the output is zero, though the Hessian is not: tanh is curved.
    case = network_named("tanh")
    risk = EmpiricalRisk(case.model, case.batches, lambda model, batch: model(batch[0]).sum(1))
    assert (products_of_units(risk, "gauss_newton") == 0).all()
    assert np.abs(products_of_units(risk, "hessian")).max() > 0.1
    found = hessian_trace(risk, matrix="gauss-newton")
    assert (found.value, found.standard_error, found.converged) == (0, 0, True)


def test_batches_of_any_size_have_one_matrix(network_named):
    case = network_named("tanh")
    whole = EmpiricalRisk(case.model, [(*case.inputs, case.labels)])
    for kind in ("hessian", "gauss_newton"):
        np.testing.assert_allclose(
            products_of_units(case.risk, kind), products_of_units(whole, kind), rtol=1e-10, atol=1e-14
        )


def test_a_loss_that_calls_the_model_twice_has_no_one_output():
    model = nn.Linear(2, 1).double()
    batches = [torch.randn(3, 2, dtype=torch.float64)]
    risk = EmpiricalRisk(model, batches, loss=lambda model, x: (model(x) ** 2 + model(2 * x) ** 2).squeeze(1))
    with pytest.raises(TypeError, match="expected a loss that calls the model once, got 2 calls"):
        risk.gauss_newton_products([risk.parameters()])
