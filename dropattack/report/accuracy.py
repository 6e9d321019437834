"""What a study says of accuracy: every method beside the baseline and the paper, and the curves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.report.columns import cells, filled, interval_cells, per_cent
from dropattack.report.files import picture, read
from landscape import plots
from landscape.report import Cell, Column, Part, Section, Table, shown_number

__all__ = ["accuracy_section"]

_ABOUT = """Test data is read once, at the epoch that was best on validation data. Differences are paired over the \
training seeds that both methods have; their intervals are Student's t, 95 %. They speak of other training seeds on \
this data; that the test data is a sample, too, they leave out. Passes are forward and backward passes in a training \
step. Three p-values: the paired t test, the same after Holm's correction for all methods, and the exact sign-flip \
test, which assumes no distribution and, with three pairs, cannot go below 0.25."""
_MOST_CURVES = 4
_NEEDED = ("metric", "method", "mean", "sd", "n", "difference", "low", "high", "pairs", "paper")


def accuracy_section(folder: Path, places: Sequence[Path]) -> Section | None:
    """The comparison of a study's methods; None if there is none.

    Args:
        folder: of the study's results.
        places: folders of its pictures.
    """
    table, epochs = read(folder / "comparison.csv", _NEEDED), read(folder / "epochs.csv", ("method", "seed", "epoch"))
    curves = picture(
        places,
        "curves.png",
        "Accuracy and loss over the epochs, on training and validation data, with bands of one standard deviation over "
        "training seeds; the numbers are in epochs.csv.",
        "Training curves: mean and standard deviation over training seeds.",
        None if epochs is None else functools.partial(_curves, epochs),
    )
    if table is None:
        return Section("Training curves", curves) if curves else None
    tables = [
        _comparison(group, str(metric), folded=number > 0)
        for number, (metric, group) in enumerate(table.groupby("metric", sort=False))
    ]
    return Section("Test accuracy", [_ABOUT, *tables, *_classical(folder), *curves])


def _classical(folder: Path) -> list[Part]:
    """A classifier that is no network, on the same examples."""
    found = read(folder / "classical.csv", ("method", "best_validation_accuracy", "best_test_accuracy"))
    if found is None:
        return []
    columns = [
        Column("method", "Classifier"),
        Column("best_validation_accuracy", "Validation accuracy", "%", ".2f"),
        Column("best_test_accuracy", "Test accuracy", "%", ".2f"),
    ]
    caption = "For comparison: no network, on the same examples, tuned on the same validation data"
    return [Table(per_cent(found), caption, columns)]


def _curves(epochs: pd.DataFrame) -> Any:
    """Standard training and DropAttack as far as there are any; more lines than these nobody tells apart."""
    methods = list(dict.fromkeys(epochs["method"].astype(str)))
    wanted = [methods[0], *(name for name in methods[1:] if name.startswith("dropattack"))]
    chosen = wanted if len(wanted) > 1 else methods
    return plots.curve_panels({name: epochs[epochs["method"].astype(str) == name] for name in chosen[:_MOST_CURVES]})


def _comparison(group: pd.DataFrame, metric: str, folded: bool) -> Table:
    baseline = group.loc[group["difference"].isna(), "method"]
    against = f", and the difference from {baseline.iloc[0]}" if len(baseline) == 1 else ""
    rows = group.assign(
        method=group["method"].astype(str),
        shown=cells(group, (_mean(*both) for both in zip(group["mean"], group["sd"], strict=True))),
        change=cells(group, (Cell(shown_number(x, "+.2f"), x) for x in group["difference"])),
        interval=interval_cells(group, "+.2f"),
    )
    columns = [
        Column("method", "Method"),
        Column("shown", "Mean ± sd", "%"),
        Column("n", "Seeds"),
        Column("change", "Difference", "points"),
        Column("interval", "95 % interval", "points"),
        Column("paper", "The paper prints", "%", ".2f"),
        Column("passes", "Passes a step"),
        Column("pairs", "Pairs"),
        Column("p_value", "p", "t test", ".2g"),
        Column("p_holm", "p", "Holm", ".2g"),
        Column("p_exact", "p", "exact", ".2g"),
    ]
    return Table(rows, f"Test {metric} of every method{against}", filled(rows, columns), folded)


def _mean(mean: float, sd: float) -> Cell:
    return Cell(f"{mean:.2f}" if pd.isna(sd) else f"{mean:.2f} ± {sd:.2f}", mean)
