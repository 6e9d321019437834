"""What the minima and the way there say: C8 (gradients), C9 (flatness), C10 (curves)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dropattack.claims.evidence import DATASETS_TOLD, paired, points, records, studies, table
from dropattack.claims.verdicts import Finding, judge_interval

__all__ = ["flatter", "lower", "penalty_at_epsilon", "slower_at_first", "smaller_gap", "smaller_gradients"]

_PAPER = "dropattack-iw-paper"
_TUNED = "dropattack-iw"
_INPUTS = ("site=input", "site=embedding")
_PAPER_EPSILON = 5.0
_OF_DATA = {"mnist-5k": "MNIST, 5,000 digits", **DATASETS_TOLD}


def smaller_gradients(results: Path) -> list[Finding]:
    """C8: the gradient at the attacked input, with DropAttack against standard training, on training data."""
    found = []
    for dataset, file, rows, method in _flatness(results):
        mine = rows[(rows["metric"] == "input_gradient_norm") & rows["setting"].isin(_INPUTS)]
        mine = mine[(mine["method"] == method) & (mine["split"] == "train")]
        for row in records(mine):
            what = f"gradient norm at the input, DropAttack minus standard training, {_checkpoint(row.checkpoint)}"
            verdict = judge_interval(-row.high, -row.low)
            found.append(Finding(dataset, verdict, file, what, row.difference, row.low, row.high, "norm", int(row.n)))
    return found


def penalty_at_epsilon(results: Path) -> list[Finding]:
    """C8: how far the first-order term of eq. 12 and 13 describes the rise of the loss, at standard weights."""
    found = []
    for file in sorted(results.glob("*-penalty/checks/fair.csv")):
        name = str(file.relative_to(results))
        rows = pd.read_csv(file)
        rows = rows[rows["model"].str.startswith("standard")]
        for row in records(rows[rows["description"].isin(["first_order", "eq_12"])]):
            told = {"first_order": "p ε ‖g‖, eq. 13 as Algorithm 1 has it", "eq_12": "ε ‖M g‖, eq. 12 as printed"}
            largest = 0.0 if pd.isna(row.epsilon) else float(row.epsilon)
            verdict = judge_interval(largest, largest, _PAPER_EPSILON * (1 - 1e-9))
            what = f"largest epsilon up to which the rise is {told[row.description]}, within a tenth, at {row.site}"
            dataset = _OF_DATA.get(file.parts[-3].removesuffix("-penalty"), file.parts[-3])
            found.append(Finding(dataset, verdict, name, what, largest, unit="epsilon", n=1))
    return found


def flatter(results: Path) -> list[Finding]:
    """C9: the rise of the training loss along filter-normalized directions."""
    found = []
    for dataset, file, rows, method in _flatness(results):
        mine = rows[(rows["metric"] == "filter_normalized_rise") & (rows["method"] == method)]
        mine = mine[mine["split"] == "train"]
        for (checkpoint,), group in mine.groupby(["checkpoint"], sort=False):
            row = group.iloc[len(group) // 2]  # the middle radius
            what = (
                f"rise of the training loss at {row['setting']}, DropAttack minus standard training, "
                f"{_checkpoint(checkpoint)}"
            )
            verdict = judge_interval(-row["high"], -row["low"])
            numbers = (float(row["difference"]), float(row["low"]), float(row["high"]))
            found.append(Finding(dataset, verdict, file, what, *numbers, unit="nats", n=int(row["n"])))
    return found


def lower(results: Path) -> list[Finding]:
    """C9: the test loss at the selected checkpoint."""
    found = []
    for dataset, file, runs in studies(results, "runs.csv"):
        if {_TUNED, "original"} <= set(runs["method"]):
            loss = {name: points(runs, name, "best_test_loss") / 100 for name in (_TUNED, "original")}
            interval = paired(loss[_TUNED], loss["original"])
            verdict = judge_interval(-interval.high, -interval.low)
            what = "test loss, DropAttack-(I&W) minus standard training"
            found.append(Finding(dataset, verdict, file, what, *interval[:3], unit="nats", n=interval.n))
    return found


def slower_at_first(results: Path) -> list[Finding]:
    """C10: validation accuracy after the first epoch, at the paper's setting."""
    found = []
    for dataset, file, epochs in studies(results, "epochs.csv"):
        first = epochs[epochs["epoch"] == 1]
        if {_PAPER, "original"} <= set(first["method"]):
            mine, standard = (points(first, name, "validation_accuracy") for name in (_PAPER, "original"))
            interval = paired(mine, standard)
            verdict = judge_interval(-interval.high, -interval.low)
            what = "validation accuracy after one epoch, DropAttack at epsilon 5 minus standard training"
            found.append(Finding(dataset, verdict, file, what, *interval[:3], n=interval.n))
    return found


def smaller_gap(results: Path) -> list[Finding]:
    """C10: training minus validation accuracy at the selected epoch, at the paper's setting."""
    found = []
    for dataset, file, runs in studies(results, "runs.csv"):
        if {_PAPER, "original"} <= set(runs["method"]):
            gap = {
                name: points(runs, name, "best_train_accuracy") - points(runs, name, "best_validation_accuracy")
                for name in (_PAPER, "original")
            }
            interval = paired(gap[_PAPER], gap["original"])
            verdict = judge_interval(-interval.high, -interval.low)
            what = "training minus validation accuracy, DropAttack at epsilon 5 minus standard training"
            found.append(Finding(dataset, verdict, file, what, *interval[:3], n=interval.n))
    return found


def _flatness(results: Path) -> Iterator[tuple[str, str, pd.DataFrame, str]]:
    """Every comparison of flatness metrics with standard training: data set, file, rows, name of DropAttack's row."""
    for dataset, file, rows in studies(results, "flatness/differences.csv"):
        yield dataset, file, rows, _TUNED
    for name in ("mnist-5k-flatness", "mnist-5k-penalty", "pheme-penalty"):
        other = table(results, f"{name}/differences.csv")
        if other is not None:
            yield _OF_DATA[name.rsplit("-", 1)[0]], f"{name}/differences.csv", other, "dropattack"


def _checkpoint(name: object) -> str:
    return "at matched training loss" if name == "matched" else f"at the {name} checkpoint"
