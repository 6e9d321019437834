"""Weights at a common training loss, where the loss along a run is known."""

import math

import pytest
import torch
from torch import nn

from landscape import EmpiricalRisk, match_training_loss


class Parabola(nn.Module):
    """Loss = weight² or, for a double well, (weight² − 1)² + 0.1."""

    def __init__(self, wells=False):
        super().__init__()
        self.weight, self.wells = nn.Parameter(torch.tensor([1.0], dtype=torch.float64)), wells

    def forward(self, ones):
        square = self.weight.square() * ones
        return (square - 1) ** 2 + 0.1 if self.wells else square


def risk_of(wells=False):
    return EmpiricalRisk(Parabola(wells), [torch.ones(3, dtype=torch.float64)], loss=lambda model, batch: model(batch))


def run(*weights):
    return [{"weight": torch.tensor([weight], dtype=torch.float64)} for weight in weights]


def test_a_checkpoint_at_the_common_loss_is_taken_as_it_is():
    risks = {"a": risk_of(), "b": risk_of()}
    # The lowest losses are 1 and 0.25: both reach 1.
    found = match_training_loss(risks, {"a": run(3, 1), "b": run(2, 1.005, 0.5)}, progress=False)
    assert (found["a"].place, found["a"].loss) == (1, 1.0)
    assert found["b"].place == 1
    assert float(found["b"].point["weight"]) == 1.005


def test_between_two_checkpoints_the_loss_is_met_and_evaluated():
    risks = {"a": risk_of(), "b": risk_of()}
    found = match_training_loss(risks, {"a": run(3, 1), "b": run(2, 0.5)}, tolerance=1e-3, progress=False)["b"]
    # On the line from 2 to 0.5 the loss is 1 at weight 1: two thirds of the way.
    assert found.loss == pytest.approx(1, rel=1e-3)
    assert found.place == pytest.approx(2 / 3, abs=1e-3)
    assert float(found.point["weight"]) == pytest.approx(1, abs=1e-3)
    assert found.refused == ""


def test_the_first_time_counts():
    found = match_training_loss({"a": risk_of()}, {"a": run(3, 1, 2, 1, 0)}, loss=1.0, progress=False)["a"]
    assert found.place == 1


def test_checkpoints_may_be_functions_and_the_model_is_put_back():
    risk = risk_of()
    loads = [lambda one=one: one for one in run(3, 0.5)]
    assert match_training_loss({"a": risk}, {"a": loads}, loss=1.0, progress=False)["a"].loss == pytest.approx(
        1, rel=0.02
    )
    assert float(risk.model.weight.detach()) == 1.0


@pytest.mark.parametrize(
    ("wells", "weights", "loss", "reason"),
    [
        (False, (3, 2), 1.0, "its training loss comes down to 4 only, not to 1"),
        (False, (0.5, 2), 1.0, "its first checkpoint has a training loss of 0.25, below 1"),
        # from one well of (w² − 1)² + 0.1 to the other: the loss at w = -0.1, halfway, is 1.0801
        (True, (-1.2, 1.0), 0.15, "between checkpoints 0 and 1 the training loss rises to 1.08, above both ends"),
    ],
    ids=["never", "begins below", "barrier"],
)
def test_refusals_say_why(wells, weights, loss, reason):
    found = match_training_loss({"a": risk_of(wells)}, {"a": run(*weights)}, loss=loss, progress=False)["a"]
    assert found.point is None
    assert math.isnan(found.loss)
    assert found.refused.startswith(reason)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"risks": {}}, "risks: expected at least one run, got none"),
        ({"checkpoints": {}}, "checkpoints: expected some of every run, got none of 'a'"),
        ({"checkpoints": {"a": []}}, "got none of 'a'"),
        ({"loss": 0.0}, "loss: expected a positive number, got 0.0"),
        ({"tolerance": -1.0}, "tolerance: expected a positive number, got -1.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        match_training_loss(**{"risks": {"a": risk_of()}, "checkpoints": {"a": run(1)}} | arguments, progress=False)


def test_batch_norm_needs_statistics(network):
    risk = EmpiricalRisk(network.model, network.batches)
    with pytest.raises(ValueError, match="run 'net': BatchNorm's statistics belong to the weights in the model"):
        match_training_loss({"net": risk}, {"net": [risk.parameters()]}, progress=False)
    again = EmpiricalRisk(network.model, network.batches, statistics=[network.data])
    found = match_training_loss({"net": again}, {"net": [again.parameters()]}, progress=False)["net"]
    assert found.loss == pytest.approx(again().loss, rel=1e-9)
