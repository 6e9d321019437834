"""Laws for every metric: nothing is left behind, seeds repeat, settings name quantities, numbers survive JSON."""

import json
import math

import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk
from landscape.flatness.average_case import basin_radius, filter_normalized_rise, isotropic_rise, pac_bayes_sigma
from landscape.flatness.first_order import gradient_norm_metrics
from landscape.flatness.planes import plane_metrics
from landscape.flatness.worst_case import adaptive_sharpness, epsilon_sharpness, m_sharpness, sam_sharpness

METRICS = {
    "epsilon": epsilon_sharpness,
    "sam": lambda risk, seed=0: sam_sharpness(risk, seed, steps=(1, 3)),
    "adaptive, element": lambda risk, seed=0: adaptive_sharpness(risk, seed, steps=(1, 3)),
    "adaptive, filter": lambda risk, seed=0: adaptive_sharpness(risk, seed, steps=(1, 3), normalization="filter"),
    "m": m_sharpness,
    "m, re-split": lambda risk, seed=0: m_sharpness(risk, seed, examples_a_batch=4),
    "isotropic": lambda risk, seed=0: isotropic_rise(risk, seed, draws=3),
    "filter-normalized": lambda risk, seed=0: filter_normalized_rise(risk, seed, draws=3),
    "basin": lambda risk, seed=0: basin_radius(risk, seed, draws=3),
    "sigma": lambda risk, seed=0: pac_bayes_sigma(risk, seed, draws=3),
    "gradient norms": gradient_norm_metrics,
    "planes": lambda risk, seed=0: plane_metrics(risk, seed, pairs=2, tolerance=0.5),
}
DRAWN = {"isotropic", "filter-normalized", "basin", "sigma", "planes"}


def flat(found):
    parts = found.items() if isinstance(found, dict) else [("", found)]
    return [(name, one) for name, part in parts for one in (part if isinstance(part, list) else [part])]


def comparable(found):
    """NaN equals nothing."""
    return [(name, repr(one)) for name, one in flat(found)]


class Fuse:
    """Cross-entropy that raises at the call it is set to."""

    left = 10**9

    def __call__(self, model, batch):
        output = model(batch[0])
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("the fuse has blown")
        return nn.functional.cross_entropy(output, batch[1], reduction="none")


@pytest.fixture
def untidy(network):
    """The network with mixed training flags, gradients that someone still needs, and a frozen parameter."""
    network.model.train()
    network.model[3].eval()
    network.model[3].bias.requires_grad_(False)
    network.model[0].weight.grad = torch.randn_like(network.model[0].weight)
    return network


@pytest.mark.parametrize("name", METRICS)
def test_nothing_is_left_behind(untidy, unchanged, name):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*untidy.data), batch_size=4, shuffle=True)
    for batches in (untidy.batches, loader):
        risk = EmpiricalRisk(untidy.model, batches)
        with unchanged(untidy.model):
            METRICS[name](risk)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("call", [1, 3, 6])
def test_nothing_is_left_behind_by_an_exception(untidy, unchanged, name, call):
    fuse = Fuse()
    risk = EmpiricalRisk(untidy.model, untidy.batches, loss=fuse)
    fuse.left = call
    with unchanged(untidy.model), pytest.raises(RuntimeError, match="the fuse has blown"):
        METRICS[name](risk)


@pytest.mark.parametrize("name", METRICS)
def test_a_seed_repeats_and_another_one_draws_something_else(network, name):
    risk = EmpiricalRisk(network.model, network.batches)
    assert comparable(METRICS[name](risk, 3)) == comparable(METRICS[name](risk, 3))
    assert (comparable(METRICS[name](risk, 3)) != comparable(METRICS[name](risk, 4))) == (name in DRAWN)


@pytest.mark.parametrize("name", METRICS)
def test_two_models_have_the_same_settings_and_no_setting_twice(network, name):
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double().eval()
    settings = [
        [
            (part, json.dumps(found.setting))
            for part, found in flat(METRICS[name](EmpiricalRisk(model, network.batches)))
        ]
        for model in (network.model, other)
    ]
    assert settings[0] == settings[1]
    assert len(set(settings[0])) == len(settings[0])


@pytest.mark.parametrize("name", METRICS)
def test_float32_is_measured_like_float64(network, name):
    narrow = [(x.float(), y) for x, y in network.batches]
    wide = flat(METRICS[name](EmpiricalRisk(network.model, network.batches)))
    found = flat(METRICS[name](EmpiricalRisk(network.model.float(), narrow)))
    for (_, one), (_, other) in zip(found, wide, strict=True):
        json.loads(json.dumps([one.value, one.standard_error, one.converged, one.detail, list(one.draws)]))
        assert type(one.value) is float
        assert type(one.converged) is bool
        if not math.isnan(other.value):
            assert one.value == pytest.approx(other.value, rel=0.02, abs=1e-3)


@pytest.mark.parametrize("name", ["sam", "m", "isotropic", "epsilon"])
def test_statistics_that_are_estimated_anew_follow_the_weights(network, name):
    # Before BatchNorm the scale of the first layer does not matter, if the statistics follow; the gradient with respect
    # to it is larger by what it is smaller. Here: the same number as that of a loss that normalizes by hand.
    batches = [network.data]
    risk = EmpiricalRisk(network.model, batches, statistics=batches)

    def loss(model, batch):
        hidden = model[0](batch[0]).detach() if not torch.is_grad_enabled() else model[0](batch[0])
        mean, variance = hidden.mean(0).detach(), hidden.var(0).detach()
        hidden = (hidden - mean) / torch.sqrt(variance + model[1].eps) * model[1].weight + model[1].bias
        return nn.functional.cross_entropy(model[3](torch.tanh(hidden)), batch[1], reduction="none")

    by_hand = EmpiricalRisk(network.model, batches, loss=loss, metrics={})
    for (_, found), (_, expected) in zip(flat(METRICS[name](risk)), flat(METRICS[name](by_hand)), strict=True):
        assert found.value == pytest.approx(expected.value, rel=1e-7)
