"""Gradient norms at the input, at activations and at parameters, in closed form."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, gradient_norms


def half_square(model, batch):
    return 0.5 * (model(batch[0]) - batch[1]).square().sum(1)


@pytest.fixture
def regression():
    """Half of |W2 W1 x - y|^2 for each example, in uneven batches."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    inputs, targets = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    risk = EmpiricalRisk(model, list(zip(inputs.split(3), targets.split(3), strict=True)), half_square)
    first, second = (layer.weight.detach().numpy() for layer in model)
    return risk, inputs.numpy(), targets.numpy(), first, second


def test_closed_forms(regression):
    risk, x, y, first, second = regression
    error = x @ first.T @ second.T - y
    # d/d(output) = error; d/d(hidden) = W2' error; d/dx = W1' W2' error; dL/dW2 = mean of error (W1 x)'.
    activations = {"input": error @ second @ first, "0": error @ second, "1": error}
    parameters = {"0.weight": (error @ second).T @ x / 8, "1.weight": error.T @ (x @ first.T) / 8}
    table = gradient_norms(risk, ["input", "0", "1", "*"])
    assert list(table["site"]) == ["input", "0", "1", "0.weight", "1.weight"]
    assert list(table["kind"]) == ["activation"] * 3 + ["parameter"] * 2
    assert set(table["examples"]) == {8}
    rows = table.set_index("site")
    for site, expected in activations.items():
        norms = np.linalg.norm(expected, axis=1)
        assert rows.loc[site, "norm"] == pytest.approx(norms.mean(), rel=1e-10)
        assert rows.loc[site, "standard_error"] == pytest.approx(norms.std(ddof=1) / math.sqrt(8), rel=1e-10)
    for site, expected in parameters.items():
        assert rows.loc[site, "norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-10)
        assert math.isnan(rows.loc[site, "standard_error"])


def test_parameters_of_a_quadratic(bowl, symmetric):
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    rows = gradient_norms(quadratic.risk, ["*"]).set_index("site")
    assert rows.loc["weight", "norm"] == pytest.approx(np.linalg.norm(quadratic.gradient[:4]), rel=1e-11)
    assert rows.loc["shift", "norm"] == pytest.approx(np.linalg.norm(quadratic.gradient[4:]), rel=1e-11)


def test_patterns_choose_parameters(regression):
    assert list(gradient_norms(regression[0], ["1.*"])["site"]) == ["1.weight"]


def test_a_site_named_twice_has_one_row(regression):
    assert list(gradient_norms(regression[0], ["0.weight", "*", "0", "0"])["site"]) == ["0", "0.weight", "1.weight"]


@pytest.mark.parametrize("site", ["input", "0", "1"])
def test_layers_that_work_in_place_change_nothing(site):
    batches = [(torch.randn(6, 3, dtype=torch.float64), torch.randint(2, (6,)))]
    norms = []
    for inplace in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace), nn.Linear(5, 2), nn.ELU(inplace=inplace)).double()
        if site == "1":
            model.insert(0, nn.Linear(3, 3).double())  # the linear layer before the one in place is now "1"
        risk = EmpiricalRisk(model.eval(), batches)
        norms.append(float(gradient_norms(risk, [site])["norm"].iloc[0]))
    assert norms[1] == pytest.approx(norms[0], rel=1e-12)


def test_an_input_that_is_changed_in_place():
    batches = [(torch.randn(6, 3), torch.randint(2, (6,)))]
    model = nn.Sequential(nn.Identity(), nn.Tanh(), nn.Linear(3, 2)).eval()
    expected = gradient_norms(EmpiricalRisk(model, batches), ["input"])["norm"].iloc[0]

    class InPlace(nn.Module):
        def forward(self, values):
            # of a copy only where gradients do not flow, as the data themselves must survive
            return values.tanh_() if values.requires_grad else values.tanh()

    model[1] = InPlace()
    found = gradient_norms(EmpiricalRisk(model, batches), ["input"])["norm"].iloc[0]
    assert found == pytest.approx(expected, rel=1e-6)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.states = nn.GRU(3, 4, batch_first=True)
        self.decoder = nn.Linear(4, 2)

    def forward(self, tokens, repeat=False):
        states, _ = self.states(self.embedding(tokens))
        return self.decoder(states.mean(1)) + (self.decoder(states[:, 0]) if repeat else 0)


@pytest.fixture
def tokens():
    return [(torch.randint(5, (4, 6)), torch.tensor([0, 1, 0, 1]))]


def test_token_ids_have_no_gradient_but_their_embeddings_do(tokens):
    risk = EmpiricalRisk(Tokens().eval(), tokens)
    with pytest.raises(TypeError, match=r"site 'input': .*floating-point"):
        gradient_norms(risk, ["input"])
    # By hand: embeddings as the input of the rest, one example at a time.
    model, (ids, labels) = risk.model, tokens[0]
    norms = []
    for sentence, label in zip(ids, labels, strict=True):
        embedded = model.embedding(sentence).detach().requires_grad_()
        logits = model.decoder(model.states(embedded[None])[0].mean(1))
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, label[None]), embedded)
        norms.append(float(gradient.norm()))
    assert gradient_norms(risk, ["embedding"])["norm"].iloc[0] == pytest.approx(np.mean(norms), rel=1e-5)


def test_the_output_of_a_recurrent_layer_is_its_states(tokens):
    risk = EmpiricalRisk(Tokens().eval(), tokens)
    row = gradient_norms(risk, ["states"]).iloc[0]
    # The decoder sees the mean of 6 states: the gradient at each is W'(p - y) / 6, over all |W'(p - y)| / sqrt 6.
    model, (ids, labels) = risk.model, tokens[0]
    with torch.no_grad():
        error = model(ids).softmax(1) - nn.functional.one_hot(labels, 2)
        expected = (error @ model.decoder.weight).norm(dim=1).mean() / math.sqrt(6)
    assert row["norm"] == pytest.approx(float(expected), rel=1e-5)


def test_an_activation_of_one_number_for_each_example():
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    inputs, targets = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    risk = EmpiricalRisk(model, [(inputs, targets)], lambda model, batch: 0.5 * (model(batch[0]) - batch[1]).square())
    # d/d(output) of half of (output - target)^2 is output - target
    expected = (model(inputs) - targets).detach().abs().mean()
    assert gradient_norms(risk, ["1"])["norm"].iloc[0] == pytest.approx(float(expected), rel=1e-12)


def test_a_module_that_runs_twice_is_refused(tokens):
    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0], repeat=True), batch[1], reduction="none")

    with pytest.raises(ValueError, match="site 'decoder' was reached 2 times"):
        gradient_norms(EmpiricalRisk(Tokens().eval(), tokens, loss), ["decoder"])


def test_an_activation_without_one_row_for_each_example_is_refused():
    class Flat(nn.Module):
        def forward(self, values):
            return values.flatten()

    model = nn.Sequential(Flat(), nn.Unflatten(0, (4, 3)), nn.Linear(3, 2)).eval()
    risk = EmpiricalRisk(model, [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))])
    with pytest.raises(ValueError, match=r"expected one activation for each of 4 examples .* got shape \(12,\)"):
        gradient_norms(risk, ["0"])


@pytest.mark.parametrize(
    ("sites", "error", "message"),
    [
        (["nowhere"], ValueError, "unknown site 'nowhere'; the model has input, 0, 1, 0.weight, 1.weight"),
        ("input", TypeError, "sites: expected a sequence, got the string 'input'"),
    ],
    ids=["unknown", "string"],
)
def test_wrong_sites(regression, sites, error, message):
    with pytest.raises(error, match=message):
        gradient_norms(regression[0], sites)


def test_over_data_batches_and_examples(regression):
    risk, x, y, first, second = regression
    error = x @ first.T @ second.T - y
    # Per example: d/dW2 = error (W1 x)', d/dx = W1'W2' error. A batch's gradient is their mean for a parameter; by an
    # activation it is all its rows, each divided by the batch's size.
    examples = {
        "1.weight": np.einsum("ni,nj->nij", error, x @ first.T),
        "0.weight": np.einsum("ni,nj->nij", error @ second, x),
    }
    by_input = error @ second @ first
    batches = np.split(np.arange(8), [3, 6])
    table = gradient_norms(risk, ["input", "*"], per=("data", "batch", "example"), examples=5)
    assert table[["site", "per"]].to_numpy().tolist() == [
        [site, per] for site in ("input", "0.weight", "1.weight") for per in ("data", "batch", "example")
    ]
    rows = table.set_index(["site", "per"])
    for site, each in examples.items():
        norms = {
            "data": [np.linalg.norm(each.mean(0))],
            "batch": [np.linalg.norm(each[rows].mean(0)) for rows in batches],
            "example": [np.linalg.norm(one) for one in each[:5]],
        }
        for per, expected in norms.items():
            check_row(rows.loc[site, per], expected, 5 if per == "example" else 8)
    norms = {
        "data": [np.linalg.norm(by_input) / 8],
        "batch": [np.linalg.norm(by_input[rows]) / len(rows) for rows in batches],
        "example": np.linalg.norm(by_input, axis=1),
    }
    for per, expected in norms.items():
        check_row(rows.loc["input", per], expected, 8)


def check_row(row, norms, examples):
    assert row["norm"] == pytest.approx(np.mean(norms), rel=1e-10)
    assert (row["n"], row["examples"]) == (len(norms), examples)
    if len(norms) == 1:
        assert math.isnan(row["sd"])
        assert math.isnan(row["standard_error"])
    else:
        assert row["sd"] == pytest.approx(np.std(norms, ddof=1), rel=1e-10)
        assert row["standard_error"] == pytest.approx(row["sd"] / math.sqrt(len(norms)), rel=1e-12)


def test_by_default_what_is_cheapest(regression):
    table = gradient_norms(regression[0])
    assert table.set_index("site")["per"].to_dict() == {"input": "example", "0.weight": "data", "1.weight": "data"}


def test_more_examples_than_there_are(regression):
    row = gradient_norms(regression[0], ["0.weight"], per=["example"], examples=100).iloc[0]
    assert (row["n"], row["examples"]) == (8, 8)


def test_recurrent_layers_have_gradients_by_example(tokens):
    risk = EmpiricalRisk(Tokens().eval(), tokens)
    row = gradient_norms(risk, ["states.weight_hh_l0"], per=["example"]).iloc[0]
    (ids, labels), norms = tokens[0], []
    for sentence, label in zip(ids, labels, strict=True):  # each example as a data set of its own
        alone = EmpiricalRisk(risk.model, [(sentence[None], label[None])])
        norms.append(float(alone.gradient()["states.weight_hh_l0"].norm()))
    assert row["norm"] == pytest.approx(np.mean(norms), rel=1e-5)


def test_a_named_tuple_keeps_its_names():
    class Pair(NamedTuple):
        states: torch.Tensor
        length: int

    class Inner(nn.Linear):
        def forward(self, values):
            return Pair(super().forward(values), len(values))

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner(3, 2)

        def forward(self, values):
            return self.inner(values).states

    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))]
    model = Outer()
    with torch.no_grad():
        error = model(batches[0][0]).softmax(1) - nn.functional.one_hot(batches[0][1], 2)
    found = gradient_norms(EmpiricalRisk(model, batches), ["inner"])["norm"].iloc[0]
    assert found == pytest.approx(float(error.norm(dim=1).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"per": ["row"]}, ValueError, "per: expected some of 'data', 'batch', 'example', got 'row'"),
        ({"per": "data"}, TypeError, "per: expected a sequence, got the string 'data'"),
        ({"examples": 0}, ValueError, "examples: expected at least 1, got 0"),
    ],
)
def test_wrong_options(regression, options, error, message):
    with pytest.raises(error, match=message):
        gradient_norms(regression[0], **options)
