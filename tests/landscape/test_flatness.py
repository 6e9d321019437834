"""Flatness metrics of a quadratic risk in closed form, and the table made of them."""

import functools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from landscape import METRICS, EmpiricalRisk, Measurement, ascent_sharpness, flatness_table, gaussian_rise

SPECTRUM = [-1.0, 0.5, 1.0, 2.0, 4.0, 9.0]


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_ascent_sharpness_of_a_quadratic(bowl, symmetric, rho):
    # L(theta + e) - L(theta) = g'e + e'Ae / 2 with e = rho g / |g|.
    quadratic = bowl(symmetric(SPECTRUM))
    g = quadratic.gradient
    expected = rho * np.linalg.norm(g) + rho**2 * (g @ quadratic.matrix @ g) / (2 * g @ g)
    found = ascent_sharpness(quadratic.risk, rho=rho)
    assert found.value == pytest.approx(expected, rel=1e-11)
    assert math.isnan(found.standard_error)
    assert found.converged


def test_ascent_sharpness_without_a_gradient(bowl):
    found = ascent_sharpness(bowl(np.zeros((6, 6))).risk)
    assert found.value == 0.0


@pytest.mark.parametrize("radius", [0.5, 1.5])
def test_gaussian_rise_of_a_quadratic(bowl, symmetric, radius):
    # A filter of the direction is |w_i| u with u uniform on the circle, E u = 0 and E uu' = I / 2, independent between
    # rows: E rise = radius^2 / 2 * sum over rows of |w_i|^2 / 2 * trace(A_ii). The vector `shift` is a bias: not moved.
    quadratic = bowl(symmetric(SPECTRUM))
    rows = quadratic.theta[:4].reshape(2, 2)
    blocks = quadratic.matrix[:2, :2], quadratic.matrix[2:4, 2:4]
    expected = sum(radius**2 / 4 * row @ row * np.trace(block) for row, block in zip(rows, blocks, strict=True))
    found = gaussian_rise(quadratic.risk, radius=radius, draws=800)
    assert 0 < found.standard_error < expected / 3  # enough draws to tell it from 0
    assert abs(found.value - expected) <= 3 * found.standard_error


def test_gaussian_rise_does_not_see_a_rescaling_between_relu_layers():
    # Twice the first layer and half the second is the same function, and filter norms follow; powers of two are exact.
    batches = [(torch.randn(9, 3), torch.randint(2, (9,)))]
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False)).eval()
    before = gaussian_rise(EmpiricalRisk(model, batches), draws=5)
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[2].weight.div_(2)
    after = gaussian_rise(EmpiricalRisk(model, batches), draws=5)
    assert after.value == pytest.approx(before.value, rel=1e-4)


def test_one_draw_has_no_standard_error(bowl):
    with pytest.raises(ValueError, match="draws: expected at least 2, got 1"):
        gaussian_rise(bowl(np.eye(6)).risk, draws=1)


def test_table_of_a_quadratic(bowl, symmetric):
    quadratic = bowl(symmetric(SPECTRUM))
    table = flatness_table({"bowl": quadratic.risk}, seed=5, progress=False)
    assert list(table["metric"]) == list(METRICS)
    rows = table.set_index("metric")
    assert rows.loc["hessian_top_eigenvalue", "value"] == pytest.approx(9.0, rel=1e-3)
    trace = rows.loc["hessian_trace"]
    assert abs(trace["value"] - sum(SPECTRUM)) <= 3 * trace["standard_error"]
    assert rows.loc["ascent_sharpness", "value"] == ascent_sharpness(quadratic.risk).value
    assert rows.loc["gaussian_rise", "value"] == gaussian_rise(quadratic.risk, seed=5).value
    assert set(table["seed"]) == {5}
    assert set(table["examples"]) == {7}
    np.testing.assert_allclose(table["loss"], quadratic.losses(quadratic.theta).mean())
    assert json.loads(rows.loc["gaussian_rise", "setting"]) == {"radius": 0.5, "draws": 20}


def test_table_has_every_pair_of_model_and_metric_once(bowl):
    risks = {"one": bowl(np.eye(6)).risk, "two": bowl(2 * np.eye(6)).risk}
    table = flatness_table(risks, ["ascent_sharpness", "hessian_trace"], progress=False)
    assert list(zip(table["model"], table["metric"], strict=True)) == [
        ("one", "ascent_sharpness"),
        ("one", "hessian_trace"),
        ("two", "ascent_sharpness"),
        ("two", "hessian_trace"),
    ]
    assert list(table.columns) == [
        "model", "metric", "value", "standard_error", "converged", "setting", "loss", "examples", "seed",
    ]  # fmt: skip


def test_models_share_their_draws(bowl):
    # The same bowl twice as steep: with the same draws each rise doubles, so the means do, exactly.
    risks = {"one": bowl(np.eye(6)).risk, "two": bowl(2 * np.eye(6)).risk}
    one, two = flatness_table(risks, ["gaussian_rise"], progress=False)["value"]
    assert two == pytest.approx(2 * one, rel=1e-12)


def test_other_metrics_and_settings(bowl):
    own = {
        "wide": functools.partial(gaussian_rise, radius=2.0, draws=4),
        "own": lambda risk, seed: Measurement(float(seed), 0.25, False, {"note": "mine"}),
    }
    table = flatness_table({"bowl": bowl(np.eye(6)).risk}, own, seed=7, progress=False).set_index("metric")
    assert json.loads(table.loc["wide", "setting"]) == {"radius": 2.0, "draws": 4}
    assert tuple(table.loc["own", ["value", "standard_error", "converged"]]) == (7.0, 0.25, False)


def test_tables_repeat(bowl, symmetric):
    risk = bowl(symmetric(np.linspace(-1, 4, 30))).risk
    first, second = (flatness_table({"bowl": risk}, seed=2, progress=False) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_unknown_metric(bowl):
    with pytest.raises(ValueError, match="unknown metric 'depth'; known: gaussian_rise, ascent_sharpness"):
        flatness_table({"bowl": bowl(np.eye(6)).risk}, ["depth"], progress=False)


def test_gaussian_rise_ignores_a_rescaling_that_leaves_the_function_alone_and_the_others_do_not():
    # relu(c z) = c relu(z) for c > 0: the first layer times c and the second divided by c give the same network.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    batches = [(torch.randn(30, 3, dtype=torch.float64), torch.randint(0, 2, (30,)))]
    before = flatness_table({"net": EmpiricalRisk(model, batches)}, seed=1, progress=False)
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter.mul_(10)
        model[2].weight.div_(10)
    after = flatness_table({"net": EmpiricalRisk(model, batches)}, seed=1, progress=False)
    assert after["loss"].iloc[0] == pytest.approx(before["loss"].iloc[0], rel=1e-12)
    ratio = dict(zip(after["metric"], after["value"] / before["value"], strict=True))
    assert ratio.pop("gaussian_rise") == pytest.approx(1, rel=1e-9)
    assert all(abs(one - 1) > 0.1 for one in ratio.values()), ratio
