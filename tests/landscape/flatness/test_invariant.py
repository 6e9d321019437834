"""Metrics that no rescaling moves: closed forms, dense Hessians, and what rescaling does and does not do to them."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from landscape import EmpiricalRisk, random_directions
from landscape.flatness.invariant import filter_normalized_trace, fisher_rao_norm, relative_flatness
from landscape.parameters import inner_product


def make_risk(model, inputs, classes=3):
    model = model.double().eval()
    labels = torch.arange(len(inputs)) % classes
    return EmpiricalRisk(model, list(zip(inputs.split(4), labels.split(4), strict=True)))


def gaussian(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class LastState(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, inputs):
        return self.head(self.lstm(inputs)[0][:, -1])


def mlp(*, bias=True):
    return nn.Sequential(
        nn.Linear(3, 4, bias=bias), nn.ReLU(), nn.Linear(4, 5, bias=bias), nn.ReLU(), nn.Linear(5, 3, bias=bias)
    )


MODELS = {
    "MLP": (mlp, (7, 3), ["0.weight", "2.weight", "4.weight"]),
    "CNN": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)),
        (6, 1, 4, 3),
        ["0.weight", "4.weight"],
    ),
    "LSTM": (LastState, (5, 4, 2), ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "head.weight"]),
}


def dense_hessian(risk, name):
    """Of the mean loss, by one parameter, as (m, k, m, k)."""
    inputs, labels = (torch.cat(parts) for parts in zip(*risk.batches, strict=True))
    weights = risk.model.get_parameter(name).detach()

    def loss(flat):
        outputs = functional_call(risk.model, {name: flat.reshape(weights.shape)}, (inputs,))
        return nn.functional.cross_entropy(outputs, labels)

    hessian = torch.autograd.functional.hessian(loss, weights.flatten())
    rows, columns = weights.flatten(1).shape
    return hessian.reshape(rows, columns, rows, columns)


def double_sum(risk, name):
    """Relative flatness as it is defined, sum over pairs of rows."""
    rows, hessian = risk.model.get_parameter(name).detach().flatten(1), dense_hessian(risk, name)
    return sum(
        float(rows[s] @ rows[t] * hessian[s, :, t, :].trace()) for s, t in itertools.product(range(len(rows)), repeat=2)
    )


@pytest.mark.parametrize("model", MODELS)
def test_relative_flatness_is_the_double_sum_over_a_dense_hessian(model):
    make, shape, names = MODELS[model]
    risk = make_risk(make(), gaussian(*shape))
    found = relative_flatness(risk, layers=names)
    assert [one.setting for one in found] == [{"layer": name} for name in names]
    for name, one in zip(names, found, strict=True):
        assert one.value == pytest.approx(double_sum(risk, name), rel=1e-9)
        assert one.converged
        assert one.detail["exact"]
        assert math.isnan(one.standard_error)
        assert one.draws == ()


@pytest.mark.parametrize("shape", [(3, 8), (8, 3)], ids=["wide", "tall"])
def test_drawn_relative_flatness_agrees_with_the_softmax_classifier_in_closed_form(shape):
    # For logits z = W x and cross-entropy, d2l/dz2 = diag(p) - p p', so H_st = mean (p_s [s = t] - p_s p_t) x x' and
    # tr H_st = mean (p_s [s = t] - p_s p_t) |x|^2, whatever the labels.
    classes, features = shape
    inputs = gaussian(9, features)
    risk = make_risk(nn.Linear(features, classes, bias=False), inputs, classes)
    weights = risk.model.weight.detach()
    p = (inputs @ weights.T).softmax(1)
    traces = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]).mul((inputs**2).sum(1)[:, None, None]).mean(0)
    expected = float(((weights @ weights.T) * traces).sum())
    (exact,) = relative_flatness(risk)
    (drawn,) = relative_flatness(risk, tolerance=0.02, max_products=shape[1] * min(shape) - 1)
    assert exact.value == pytest.approx(expected, rel=1e-12)
    assert not drawn.detail["exact"]
    assert abs(drawn.value - expected) < 3 * drawn.standard_error
    assert drawn.standard_error < 0.2 * expected


def test_draws_of_relative_flatness_are_unbiased_and_their_error_is_honest():
    # Over seeds, (value - exact) / standard error of means of 60 draws is nearly standard normal.
    risk = make_risk(nn.Linear(40, 3), gaussian(12, 40))
    (exact,) = relative_flatness(risk, max_products=120)
    scores = []
    for seed in range(40):
        (found,) = relative_flatness(risk, seed, tolerance=1e-9, max_products=60)
        assert len(found.draws) == 60
        assert found.value == pytest.approx(np.mean(found.draws))
        scores.append((found.value - exact.value) / found.standard_error)
    assert abs(np.mean(scores)) < 3 / math.sqrt(40)
    assert 0.7 < np.std(scores) < 1.35


def test_relative_flatness_stops_at_its_tolerance_and_says_when_it_does_not():
    risk = make_risk(nn.Linear(40, 3), gaussian(12, 40))
    (reached,) = relative_flatness(risk, tolerance=0.1, max_products=119)
    (spent,) = relative_flatness(risk, tolerance=1e-6, max_products=23)
    assert reached.converged
    assert reached.standard_error <= 0.1 * reached.value
    assert reached.detail["products"] < 119
    assert not spent.converged
    assert spent.detail["products"] == len(spent.draws) == 23
    assert spent.draws[:10] == reached.draws[:10]


def test_draws_are_common_to_models_of_one_architecture():
    # Twice the weights on half the inputs: the same function of the same coordinates, draw by draw, if the root of
    # W W' has no signs or order of its own.
    inputs = gaussian(8, 30)
    one = make_risk(nn.Linear(30, 3), inputs)
    other = make_risk(nn.Linear(30, 3), inputs / 2)
    other.model.load_state_dict({"weight": one.model.weight * 2, "bias": one.model.bias})
    settings = {"seed": 5, "tolerance": 1e-9, "max_products": 12}
    draws = [relative_flatness(risk, **settings)[0].draws for risk in (one, other)]
    np.testing.assert_allclose(*draws, rtol=1e-9)


def test_draws_are_common_to_models_that_nearly_coincide():
    # Rows that are orthogonal and of equal length leave the eigenvectors of W W' to rounding. Its symmetric root is a
    # multiple of the identity nevertheless.
    risk = make_risk(nn.Linear(30, 3, bias=False), gaussian(8, 30))
    rows = torch.linalg.qr(gaussian(30, 3)).Q.T
    draws = []
    for noise in (0, 1e-10):
        with torch.no_grad():
            risk.model.weight.copy_(rows + noise * gaussian(3, 30))
        draws.append(relative_flatness(risk, tolerance=1e-9, max_products=12)[0].draws)
    np.testing.assert_allclose(*draws, rtol=1e-6)


def rescale_layers(model, factor):
    """Multiply layer 0 of ``mlp`` and its bias, divide layer 2."""
    with torch.no_grad():
        model[0].weight *= factor
        model[0].bias *= factor
        model[2].weight /= factor


@pytest.mark.parametrize("max_products", [200, 6], ids=["exact", "drawn"])
def test_layerwise_rescaling_changes_relative_flatness_of_neither_layer(max_products):
    risk = make_risk(mlp(), gaussian(7, 3))

    def values():
        found = relative_flatness(risk, layers=["0", "2"], tolerance=1e-9, max_products=max_products)
        return [one.value for one in found]

    before = values()
    rescale_layers(risk.model, 4.0)
    np.testing.assert_allclose(values(), before, rtol=1e-10)


def test_neuronwise_rescaling_changes_relative_flatness_on_the_input_side_alone():
    # With D = diag(c): W0 -> D W0 and W2 -> W2 / D. Blocks of layer 0 become H_st / (c_s c_t), rows c_s w_s: no change.
    # Entries of layer 2 become H_{si,tj} c_i c_j, so kappa becomes sum_{s,t} <w_s, w_t>_{1/c^2} sum_i c_i^2 H_{si,ti}.
    risk = make_risk(mlp(), gaussian(7, 3))
    factors = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    hessian, rows = dense_hessian(risk, "2.weight"), risk.model[2].weight.detach().clone()
    expected = torch.einsum("sk,tk,k,i,siti->", rows, rows, factors**-2, factors**2, hessian)
    loss, before = risk().loss, relative_flatness(risk, layers=["0", "2"])
    with torch.no_grad():
        risk.model[0].weight *= factors[:, None]
        risk.model[0].bias *= factors
        risk.model[2].weight /= factors
    after = relative_flatness(risk, layers=["0", "2"])
    assert risk().loss == pytest.approx(loss, rel=1e-12)
    assert after[0].value == pytest.approx(before[0].value, rel=1e-10)
    assert after[1].value == pytest.approx(float(expected), rel=1e-9)
    assert abs(after[1].value / before[1].value - 1) > 0.1


def test_the_default_layer_is_the_last_linear_one():
    risk = make_risk(mlp(), gaussian(7, 3))
    (found,) = relative_flatness(risk)
    assert found.setting == {"layer": "4.weight"}
    assert found == relative_flatness(risk, layers=["4.*"])[0]


def test_relative_flatness_refuses_layers_that_are_not_there():
    convolution = make_risk(nn.Sequential(nn.Conv1d(1, 3, 4), nn.Flatten()), gaussian(6, 1, 4))
    with pytest.raises(ValueError, match=r"expected a linear layer, got none; give layers, one or more of 0\.weight"):
        relative_flatness(convolution)
    risk = make_risk(mlp(), gaussian(7, 3))
    with pytest.raises(ValueError, match=r"layers: '0\.bias' matches none of the layers with neurons, 0\.weight, 2"):
        relative_flatness(risk, layers=["0.bias"])
    with pytest.raises(TypeError, match=r"expected a sequence, got the string '0'; write \('0',\)"):
        relative_flatness(risk, layers="0")
    with pytest.raises(ValueError, match="max_products: expected at least 2, got 1; one draw has no standard error"):
        relative_flatness(risk, max_products=1)
    with pytest.raises(ValueError, match="tolerance: expected a positive number, got 0"):
        filter_normalized_trace(risk, tolerance=0)


def test_empirical_fisher_rao_norm_of_a_network_without_biases_comes_from_its_outputs():
    # ReLU networks without biases are homogeneous of degree l = 3 in their weights: <df/dtheta, theta> = l f (Euler).
    # So <grad loss, theta> = l <dloss/df, f> = l <p - y, f> for cross-entropy.
    inputs = gaussian(7, 3)
    risk = make_risk(mlp(bias=False), inputs)
    outputs = risk.model(inputs).detach()
    labels = torch.cat([batch[1] for batch in risk.batches])
    slopes = ((outputs.softmax(1) - nn.functional.one_hot(labels, 3)) * outputs).sum(1)
    squares = (3 * slopes) ** 2
    empirical, _ = fisher_rao_norm(risk)
    assert empirical.value == pytest.approx(float(squares.mean()), rel=1e-10)
    error = empirical.detail["standard_error_over_examples"]
    assert error == pytest.approx(float(squares.std()) / math.sqrt(7), rel=1e-10)


def test_the_models_fisher_rao_norm_of_a_network_without_biases_comes_from_its_outputs():
    # J theta = l f by Euler's theorem, so theta' G theta = l^2 mean f' (diag(p) - p p') f: the variance of f under p.
    inputs = gaussian(7, 3)
    risk = make_risk(mlp(bias=False), inputs)
    outputs = risk.model(inputs).detach()
    p = outputs.softmax(1)
    variance = (p * outputs**2).sum(1) - (p * outputs).sum(1) ** 2
    (found,) = fisher_rao_norm(risk, fisher=("model",))
    assert found.value == pytest.approx(9 * float(variance.mean()), rel=1e-10)
    assert found.setting == {"fisher": "model"}


@pytest.mark.parametrize("model", MODELS)
def test_fisher_rao_norms_agree_with_gradients_one_by_one(model):
    # The model's Fisher matrix as it is defined: outer products of the gradients for labels of probability p_y.
    make, shape, _ = MODELS[model]
    inputs = gaussian(*shape)
    risk = make_risk(make(), inputs)
    arguments, weights, labels = dict(risk.model.named_parameters()), risk.parameters(), torch.arange(len(inputs)) % 3

    def slope(example, label):
        loss = nn.functional.cross_entropy(risk.model(inputs[example : example + 1]), torch.tensor([label]))
        return inner_product(dict(zip(arguments, torch.autograd.grad(loss, arguments.values()), strict=True)), weights)

    examples = range(len(inputs))
    p = risk.model(inputs).softmax(1).tolist()
    empirical, own = (found.value for found in fisher_rao_norm(risk))
    assert empirical == pytest.approx(np.mean([slope(n, int(labels[n])) ** 2 for n in examples]), rel=1e-9)
    assert own == pytest.approx(
        np.mean([sum(p[n][label] * slope(n, label) ** 2 for label in range(3)) for n in examples]), rel=1e-9
    )


def test_rescaling_does_not_change_the_fisher_rao_norms():
    risk = make_risk(mlp(), gaussian(7, 3))
    before = [found.value for found in fisher_rao_norm(risk)]
    rescale_layers(risk.model, 4.0)
    np.testing.assert_allclose([found.value for found in fisher_rao_norm(risk)], before, rtol=1e-10)


def test_fisher_rao_norm_refuses_another_matrix():
    risk = make_risk(mlp(), gaussian(7, 3))
    with pytest.raises(ValueError, match="fisher: expected 'empirical' or 'model', got 'true'"):
        fisher_rao_norm(risk, fisher=("model", "true"))
    with pytest.raises(TypeError, match=r"expected a sequence, got the string 'model'; write \('model',\)"):
        fisher_rao_norm(risk, fisher="model")


def test_filter_normalized_trace_of_a_quadratic(bowl, symmetric):
    # Filters are the rows (0, 1) and (2, 3) of "weight"; the vector "shift" stays put. So the expectation is
    # sum over rows of |w_i|^2 / 2 times the sum of that row's two diagonal entries of A.
    risk = bowl(symmetric([0.5, 1.0, 2.0, 3.0, 4.0, 6.0]))
    rows, diagonal = risk.theta[:4].reshape(2, 2), np.diag(risk.matrix)[:4].reshape(2, 2)
    expected = float(((rows**2).sum(1) / 2 * diagonal.sum(1)).sum())
    found = filter_normalized_trace(risk.risk, tolerance=1e-9, max_products=400)
    assert abs(found.value - expected) < 3 * found.standard_error
    assert found.standard_error < 0.05 * expected
    assert not found.converged
    assert found.detail == {"products": 400}
    early = filter_normalized_trace(risk.risk, tolerance=0.1, max_products=400)
    assert early.converged
    assert early.standard_error <= 0.1 * early.value
    assert early.draws == found.draws[: len(early.draws)]
    assert len(early.draws) < 400


def test_each_draw_of_the_filter_normalized_trace_is_the_curvature_along_a_filter_normalized_direction():
    # The second difference of the loss along the direction, with an error of order h^2.
    risk = make_risk(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), gaussian(7, 3))
    found = filter_normalized_trace(risk, seed=3, tolerance=1e-9, max_products=3)
    assert len(found.draws) == 3
    for index, draw in enumerate(found.draws):
        own_seed = int(np.random.SeedSequence([3, index]).generate_state(1)[0])
        (direction,) = random_directions(risk.parameters(), count=1, seed=own_seed)
        losses = []
        with risk.along([direction]) as move:
            for radius in (-1e-3, 0, 1e-3):
                move([radius])
                losses.append(risk().loss)
        assert draw == pytest.approx((losses[0] - 2 * losses[1] + losses[2]) / 1e-6, rel=1e-4)


def test_rescaling_does_not_change_any_draw_of_the_filter_normalized_trace():
    risk = make_risk(mlp(), gaussian(7, 3))
    before = filter_normalized_trace(risk)
    rescale_layers(risk.model, 4.0)
    np.testing.assert_allclose(filter_normalized_trace(risk).draws, before.draws, rtol=1e-10)


@pytest.mark.parametrize("metric", [relative_flatness, fisher_rao_norm, filter_normalized_trace])
def test_the_model_is_left_as_it_was(network, unchanged, metric):
    risk = EmpiricalRisk(network.model, network.batches)
    with unchanged(network.model):
        metric(risk)
