"""Generalization gaps: signs, models, and what is missing."""

import numpy as np
import pandas as pd
import pytest

from landscape.statistics import generalization_gaps


@pytest.fixture
def table(flatness):
    # Two metrics each, so that every loss is there twice.
    parts = [
        flatness(("a", 0, 1.0), split="train", loss=0.1, accuracy=0.99),
        flatness(("a", 0, 1.0), split="test", loss=0.5, accuracy=0.9),
        flatness(("a", 1, 1.0), split="train", loss=0.2, accuracy=0.98),
        flatness(("a", 1, 1.0), split="test", loss=0.1, accuracy=0.99),
        flatness(("b", 0, 1.0), split="train", loss=0.3, accuracy=0.97),
    ]
    one = pd.concat(parts, ignore_index=True)
    return pd.concat([one, one.assign(metric="trace")])


def test_by_hand(table):
    found = generalization_gaps(table)
    assert found[["method", "training_seed", "checkpoint"]].to_numpy().tolist() == [
        ["a", 0, "selected"],
        ["a", 1, "selected"],
        ["b", 0, "selected"],
    ]
    assert found["loss_gap"].to_numpy() == pytest.approx([0.4, -0.1, np.nan], nan_ok=True)
    assert found["accuracy_gap"].to_numpy() == pytest.approx([0.09, -0.01, np.nan], nan_ok=True)
    assert found["train_loss"].to_numpy() == pytest.approx([0.1, 0.2, 0.3])
    assert found["test_accuracy"].to_numpy() == pytest.approx([0.9, 0.99, np.nan], nan_ok=True)


def test_each_checkpoint_has_its_own(table):
    both = pd.concat([table, table.assign(checkpoint="matched", loss=table["loss"] * 2)])
    found = generalization_gaps(both).set_index(["method", "training_seed", "checkpoint"])["loss_gap"]
    assert found["a", 0, "selected"] == pytest.approx(0.4)
    assert found["a", 0, "matched"] == pytest.approx(0.8)


def test_without_accuracy(table):
    found = generalization_gaps(table.drop(columns="accuracy"))
    assert list(found.columns) == ["method", "training_seed", "checkpoint", "train_loss", "test_loss", "loss_gap"]


def test_models_that_have_only_names(table):
    found = generalization_gaps(table[table["training_seed"] == 0].assign(training_seed=pd.NA))
    assert found["training_seed"].isna().all()
    assert found["loss_gap"].to_numpy() == pytest.approx([0.4, np.nan], nan_ok=True)


def test_a_table_from_a_file(table, through_csv):
    pd.testing.assert_frame_equal(generalization_gaps(through_csv(table)), generalization_gaps(table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["split"] == "train"], "got none on 'test'; the table has 'train'"),
        (lambda t: t.assign(split=""), "got none on 'train'; the table has ''"),
        (
            lambda t: t.assign(loss=np.linspace(1, 2, len(t))),
            "loss: expected one value .* for a, 0, selected on 'train'",
        ),
        (lambda t: t.drop(columns="loss"), "but loss is missing"),
    ],
)
def test_refusals(table, change, message):
    with pytest.raises(ValueError, match=message):
        generalization_gaps(change(table))
