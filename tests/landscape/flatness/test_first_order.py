"""Gradient norms as metrics: parts, sites, and the input of models whose input is not a number."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk
from landscape.flatness.first_order import gradient_norm_metrics


def by_site(measurements):
    return {found.setting["site"]: found for found in measurements}


def test_weights_of_a_network(by_hand):
    _, gradient = by_hand.value_and_gradient(by_hand.theta)
    found = by_site(gradient_norm_metrics(by_hand.risk)["weight_gradient_norm"])
    parts = {"0.weight": (0, 12), "0.bias": (12, 16), "2.weight": (16, 24), "2.bias": (24, 26), "*": (0, 26)}
    assert found.keys() == parts.keys()
    for site, (first, last) in parts.items():
        assert found[site].value == pytest.approx(np.linalg.norm(gradient[first:last]), rel=1e-10)


def test_input_of_a_network_by_finite_differences(by_hand):
    theta, step = torch.from_numpy(by_hand.theta), 1e-5
    slopes = np.zeros((10, 3))
    for column in range(3):
        shift = torch.zeros_like(by_hand.x)
        shift[:, column] = step
        up, down = (by_hand.losses(theta, by_hand.x + sign * shift) for sign in (1, -1))
        slopes[:, column] = (up - down) / (2 * step)
    norms = np.linalg.norm(slopes, axis=1)
    found = by_site(gradient_norm_metrics(by_hand.risk)["input_gradient_norm"])
    assert found.keys() == {"input"}
    assert found["input"].value == pytest.approx(norms.mean(), rel=1e-6)
    assert found["input"].standard_error == pytest.approx(norms.std(ddof=1) / math.sqrt(10), rel=1e-6)


def test_weights_of_a_quadratic(bowl, symmetric):
    quadratic = bowl(symmetric([-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]))
    found = gradient_norm_metrics(quadratic.risk)
    assert by_site(found["weight_gradient_norm"])["*"].value == pytest.approx(np.linalg.norm(quadratic.gradient))
    # The bowl's input is the center c of each example, with the slope -A (theta - c).
    centers = torch.cat(list(quadratic.risk.batches)).numpy()
    norms = np.linalg.norm((quadratic.theta - centers) @ quadratic.matrix, axis=1)
    assert by_site(found["input_gradient_norm"])["input"].value == pytest.approx(norms.mean(), rel=1e-12)


def test_sites_that_are_named(by_hand):
    found = gradient_norm_metrics(by_hand.risk, sites=["0", "2.*"])
    assert by_site(found["input_gradient_norm"]).keys() == {"0"}
    assert by_site(found["weight_gradient_norm"]).keys() == {"2.weight", "2.bias"}  # not all: no sum of all


class Words(nn.Module):
    """Token ids, and positions that all examples share."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(7, 3)
        self.positions = nn.Embedding(4, 3)
        self.read_out = nn.Linear(3, 2)

    def forward(self, ids):
        return self.read_out(torch.tanh(self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))).mean(1))


@pytest.fixture
def words():
    ids, labels = torch.randint(7, (6, 4)), torch.randint(2, (6,))
    model = Words().double()
    return EmpiricalRisk(model, list(zip(ids.split(5), labels.split(5), strict=True))), ids, labels


def test_input_of_token_ids_is_their_embedding(words):
    risk, ids, labels = words
    model = risk.model
    embedded = (model.tokens.weight[ids]).detach().requires_grad_()
    scores = model.read_out(torch.tanh(embedded + model.positions.weight).mean(1))
    (slopes,) = torch.autograd.grad(nn.functional.cross_entropy(scores, labels, reduction="sum"), embedded)
    norms = slopes.flatten(1).norm(dim=1)
    found = by_site(gradient_norm_metrics(risk)["input_gradient_norm"])
    assert found.keys() == {"tokens"}  # positions have no example dimension
    assert found["tokens"].value == pytest.approx(float(norms.mean()), rel=1e-12)


def test_a_model_without_an_input_that_is_a_number(words):
    class OneHot(nn.Module):
        def __init__(self):
            super().__init__()
            self.read_out = nn.Linear(7, 2)

        def forward(self, ids):
            return self.read_out(nn.functional.one_hot(ids, 7).float().mean(1))

    _, ids, labels = words
    risk = EmpiricalRisk(OneHot(), [(ids, labels)])
    with pytest.raises(TypeError, match="has no embedding whose output has one entry for each of 6 examples"):
        gradient_norm_metrics(risk)
    assert "weight_gradient_norm" in gradient_norm_metrics(risk, sites=["*"])


def test_one_string_is_not_a_sequence_of_sites(by_hand):
    with pytest.raises(TypeError, match="sites: expected a sequence, got the string 'input'"):
        gradient_norm_metrics(by_hand.risk, sites="input")
