"""Reading the folder of results: the tables of studies, if they are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from landscape.statistics import Interval, mean_interval

__all__ = ["DATASETS_TOLD", "paired", "points", "records", "studies", "table"]

DATASETS_TOLD = {"imdb": "IMDB", "pheme": "PHEME", "ag-news": "AG News", "mnist": "MNIST", "cifar10": "CIFAR-10"}


def table(results: Path, name: str) -> pd.DataFrame | None:
    """A table of the folder of results; None if it is not there."""
    file = results / name
    return pd.read_csv(file) if file.is_file() else None


def studies(results: Path, name: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """For each data set whose Table-2 study has this table: its name in words, the file, and the table."""
    for dataset, told in DATASETS_TOLD.items():
        file = f"table2-{dataset}/{name}"
        if (found := table(results, file)) is not None:
            yield told, file, found


def records(table: pd.DataFrame) -> list[Any]:
    """The rows of a table, with its columns as attributes."""
    return list(table.itertuples(index=False))


def points(runs: pd.DataFrame, method: str, column: str = "best_test_accuracy") -> pd.Series:
    """A metric (%) of a row of a study, by seed; empty if the study has no such row."""
    mine = runs[runs["method"] == method]
    return (100 * mine.set_index("seed")[column]).sort_index()


def paired(a: pd.Series, b: pd.Series) -> Interval:
    """Mean of a − b over the seeds that both have, with its Student's t interval; NaN without any."""
    seeds = a.index.intersection(b.index)
    if not len(seeds):
        return Interval(np.nan, np.nan, np.nan, 0)
    return mean_interval((a[seeds] - b[seeds]).to_numpy())
