"""How much worse models do on test data than on training data."""

from __future__ import annotations

import pandas as pd

from landscape.statistics.tables import tidy

__all__ = ["MODEL", "generalization_gaps"]

MODEL = ["method", "training_seed", "checkpoint"]  # what identifies a set of weights

_SPLITS = ("train", "test")
_ROUNDING = 1e-6  # relative; two passes over the data may differ by it


def generalization_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """The generalization gap of each model, larger where it generalizes worse.

    Args:
        table: tidy flatness table with rows on the splits ``"train"`` and ``"test"``; the columns ``loss`` and, if
            there, ``accuracy`` say how the model does on that split.

    Returns:
        One row for each ``method``, ``training_seed`` and ``checkpoint``: ``train_loss``, ``test_loss``, ``loss_gap``
        (test − train); with accuracies ``train_accuracy``, ``test_accuracy``, ``accuracy_gap`` (train − test). NaN
        where a model was not measured on both.

    Raises:
        ValueError: missing columns, no rows on one of the splits, or several losses of one model on one split.
    """
    table = tidy(table, [*MODEL, "split", "loss"])
    for split in _SPLITS:
        if split not in set(table["split"]):
            raise ValueError(
                f"split: expected rows on 'train' and on 'test', got none on {split!r}; the table has "
                f"{', '.join(repr(one) for one in dict.fromkeys(table['split']))}"
            )
    gaps = table[MODEL].drop_duplicates(ignore_index=True)
    for quantity in ["loss", *(["accuracy"] if "accuracy" in table else [])]:
        for split in _SPLITS:
            gaps = gaps.merge(_one_each(table[table["split"] == split], quantity, split), on=MODEL, how="left")
        test, train = gaps[f"test_{quantity}"], gaps[f"train_{quantity}"]
        gaps[f"{quantity}_gap"] = test - train if quantity == "loss" else train - test
    return gaps


def _one_each(table: pd.DataFrame, quantity: str, split: str) -> pd.DataFrame:
    """The loss or accuracy of each model, which stands beside each of its metrics."""
    found = table.groupby(MODEL, sort=False, dropna=False)[quantity].agg(["min", "max"]).reset_index()
    differ = found[found["max"] - found["min"] > _ROUNDING * found["max"].abs()]
    if not differ.empty:
        first = differ.iloc[0]
        raise ValueError(
            f"{quantity}: expected one value for each model and split, got {first['min']:g} to {first['max']:g} for "
            f"{', '.join(str(first[column]) for column in MODEL)} on {split!r}; keep the rows that were measured on "
            "the same examples"
        )
    return found.drop(columns="max").rename(columns={"min": f"{split}_{quantity}"})
