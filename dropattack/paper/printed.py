"""The tables of the DropAttack paper, as printed."""

from __future__ import annotations

from importlib import resources

import pandas as pd

__all__ = ["TARGET_TABLES", "paper_table"]

TARGET_TABLES = {5: "imdb", 6: "pheme", 7: "ag-news", 8: "mnist", 9: "cifar10"}
"""The tables that try one target of the attack after another, and the data set of each."""


def paper_table(number: int) -> pd.DataFrame:
    """A table of the paper with its numbers as printed, misprints included.

    1. Sizes of the splits: ``dataset``, ``task``, ``classes``, ``train``, ``validation``, ``test``.
    2. Methods compared: ``method``, ``dataset``, ``accuracy``, ``f1``.
    3. Training sets of the IMDB of several sizes: ``examples``, ``standard``, ``dropattack``, ``printed_gain``.
    4. Ascent steps: ``ascent_steps``, ``dataset``, ``accuracy``, ``f1``.
    5. to 9. Targets of the attack, one data set each: ``target`` (the printed names, separated by ", "; ``"none"`` is
       standard training), ``attack_probability``, ``epsilon``, ``accuracy``, ``f1``.
    10. The IMDB: ``attack_probability``, ``epsilon``, ``accuracy``.

    Accuracies and F1 scores are in per cent; the paper prints F1 scores for PHEME alone, and NaN stands for the others.
    Data sets are named as in ``dropattack.data.DATASETS``.

    Args:
        number: 1 to 10.

    Returns:
        One row for each printed number, or pair of accuracy and F1, in the order of the paper; Tables 1 and 3 have a
        row for each data set and for each size.

    Raises:
        ValueError: the paper has no such table.

    Source:
        DropAttack: A Masked Weight Adversarial Training Method to Improve Generalization of Neural Networks, 2021,
        arXiv:2108.12805v1.

    Example:
        >>> paper_table(3).loc[0, "standard"].item()
        63.26
    """
    if number not in range(1, 11):
        raise ValueError(f"number: expected a table of the paper, 1 to 10, got {number!r}")
    with resources.files("dropattack.paper").joinpath("tables", f"table{number}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
