"""Means and standard errors against NumPy in float64, in the cases in which sums go wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape.evaluation.totals import RiskValue, Totals


def totals(losses, size=7, metrics=()):
    """Of losses in batches of a size, and of metrics beside them."""
    total = Totals()
    metrics = {name: torch.as_tensor(values).split(size) for name, values in dict(metrics).items()}
    for i, batch in enumerate(torch.as_tensor(losses).split(size)):
        total.add(batch, {name: values[i] for name, values in metrics.items()})
    return total.value()


def check(losses, rel=1e-9, **how):
    losses = np.asarray(losses, dtype=np.float64)
    value = totals(losses, **how)
    assert value.loss == pytest.approx(losses.mean(), rel=1e-12, abs=1e-15 * np.abs(losses).max())
    assert value.standard_error == pytest.approx(losses.std(ddof=1) / math.sqrt(len(losses)), rel=rel)
    assert value.count == len(losses)


DRAWS = np.random.default_rng(0).standard_normal(100)

HARD = {
    "a large mean": 1e8 + DRAWS,
    "a larger mean": 1e12 + DRAWS,
    "a negative mean": -1e8 + DRAWS,
    "tiny": 1e-200 * (5 + DRAWS),
    "a first batch unlike the rest": np.concatenate([np.zeros(7), 1e8 + DRAWS]),
    "a first batch that is far larger": np.concatenate([[1e10] * 7, DRAWS]),
    "one outlier": np.concatenate([DRAWS, [1e12]]),
    "one outlier first": np.concatenate([[1e12], DRAWS]),
    "zeros and one": np.eye(1, 100, 50)[0],
    "both signs cancel": np.concatenate([1e6 + DRAWS, -1e6 - DRAWS]),
    "heavy tails": np.exp(5 * DRAWS),
}


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("case", HARD)
def test_hard_sums(case, size):
    # 1e12 has 1e-4 in its last places: the spread itself is not known better in float64.
    check(HARD[case], rel=1e-3 if case == "a larger mean" else 1e-7, size=size)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.integers(1, 9))
def test_any_losses_in_any_batches(losses, size):
    value = totals(np.array(losses), size)
    assert value.loss == pytest.approx(np.mean(losses), rel=1e-12, abs=1e-9)
    expected = np.std(losses, ddof=1) / math.sqrt(len(losses))
    assert value.standard_error == pytest.approx(expected, rel=1e-6, abs=1e-7 * max(map(abs, losses)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8, 1e-300, -3.3])
def test_equal_losses_have_no_spread(value):
    found = totals(torch.full((50,), value, dtype=torch.float64), 8)
    assert found.loss == pytest.approx(value, rel=1e-15)
    assert found.standard_error == pytest.approx(0.0, abs=1e-16 * abs(value))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64], ids=str)
def test_sums_are_in_float64_whatever_the_losses_are_in(dtype):
    losses = (1000 + 10 * torch.randn(5000, dtype=torch.float64)).to(dtype)
    check(losses.double().numpy(), rel=1e-9)
    value = totals(losses, 64)
    assert value.loss == pytest.approx(float(losses.double().mean()), rel=1e-13)
    assert value.standard_error == pytest.approx(float(losses.double().std()) / math.sqrt(5000), rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize(
    "losses",
    [
        [1.0, math.nan, 2.0],
        [math.nan, 1.0],
        [math.inf, 1.0, 2.0],
        [1.0, 2.0, math.inf],
        [-math.inf, 1.0],
        [math.inf, -math.inf],
        [1.0, math.inf, -math.inf],
        [math.inf, math.nan],
        [math.inf, math.inf],
    ],
    ids=str,
)
def test_losses_that_are_not_finite(losses, size):
    with np.errstate(invalid="ignore"):
        expected = np.mean(losses)
    found = totals(np.array(losses), size)
    np.testing.assert_equal(found.loss, expected)
    assert math.isnan(found.standard_error)


def test_one_example_has_a_mean_and_no_standard_error():
    found = totals(np.array([2.5]), metrics={"accuracy": np.array([1.0])})
    assert found[:1] == (2.5,)
    assert math.isnan(found.standard_error)
    assert found.metrics == {"accuracy": 1.0}


def test_metrics_are_means_over_examples_not_over_batches():
    right = np.array([1.0, 1.0, 1.0, 0.0])
    tokens = np.array([3, 5, 7, 100])
    found = totals(np.zeros(4), size=3, metrics={"accuracy": right, "tokens": tokens, "right": right == 1})
    assert found.metrics == {"accuracy": 0.75, "tokens": 28.75, "right": 0.75}
    assert list(found.columns()) == ["loss", "loss_standard_error", "accuracy", "tokens", "right"]


def test_a_metric_that_is_not_finite_leaves_the_others_alone():
    found = totals(np.ones(3), 2, {"perplexity": np.array([1.0, np.inf, 2.0]), "accuracy": np.array([0.0, 1.0, 1.0])})
    assert found == RiskValue(1.0, 0.0, 3, {"perplexity": math.inf, "accuracy": pytest.approx(2 / 3)})


def test_values_can_be_looked_at_on_the_way():
    total = Totals()
    for count in range(1, 6):
        total.add(torch.full((2,), float(count)), {})
        assert total.value().loss == (count + 1) / 2
        assert total.value().count == 2 * count


def test_an_empty_batch_counts_for_nothing():
    total = Totals()
    for batch in (torch.zeros(0), 1e8 + torch.tensor(DRAWS), torch.zeros(0)):
        total.add(batch, {})
    assert total.value().count == 100
    assert total.value().standard_error == pytest.approx((1e8 + DRAWS).std(ddof=1) / 10, rel=1e-7)


@pytest.mark.parametrize("batches", [[], [torch.zeros(0)]], ids=["no batch", "an empty batch"])
def test_no_examples(batches):
    total = Totals()
    for batch in batches:
        total.add(batch, {})
    with pytest.raises(ValueError, match="batches: expected at least one example, got none"):
        total.value()


def test_no_graph_is_kept():
    weight = torch.ones(3, requires_grad=True)
    total = Totals()
    total.add(weight * 2, {"metric": weight * 3})
    held = [value for value in vars(total).values() if isinstance(value, torch.Tensor)] + list(total._metrics.values())
    assert held
    assert not any(tensor.requires_grad for tensor in held)


def test_the_same_batches_give_the_same_bits():
    assert totals(DRAWS, 9) == totals(DRAWS, 9)
