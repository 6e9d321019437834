"""What test accuracies say: C1 to C7 and C11."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dropattack.claims.evidence import paired, points, studies, table
from dropattack.claims.verdicts import Finding, judge_interval

__all__ = [
    "best_of_all",
    "best_probability",
    "half_of_the_data",
    "input_and_weights_over_input",
    "layers_near_the_input",
    "more_ascent_steps",
    "more_than_two_points",
    "one_back_propagation",
]

FULL = "dropattack-iw"
_NAMES = {"dropattack-iw": "DropAttack-(I&W)", "dropattack-i": "DropAttack-(I)", "original": "standard training"}
# Rows that are no competitors: other settings of DropAttack, and its controls.
_OURS = (FULL, "dropattack-i", "dropattack-i-paper", "dropattack-iw-paper", "random-direction", "epsilon-0", "no-mask")
MARGIN = 0.5  # points: about the standard error of one accuracy of 90 % on 2,500 examples
_SIZES = (1250, 2500, 5000, 10000)


def best_of_all(results: Path) -> list[Finding]:
    """C1: DropAttack-(I&W) against the competitor that validation data ranks first."""
    found = []
    for dataset, file, runs in studies(results, "runs.csv"):
        others = [name for name in dict.fromkeys(runs["method"]) if name not in _OURS]
        if FULL not in set(runs["method"]) or not others:
            continue
        validation = {name: points(runs, name, "best_validation_accuracy").mean() for name in others}
        best = max(validation, key=lambda name: validation[name])
        found.append(_difference(dataset, file, runs, FULL, best))
    return found


def input_and_weights_over_input(results: Path) -> list[Finding]:
    """C2: the attack on weights on top of that on the input."""
    return [
        _difference(dataset, file, runs, FULL, "dropattack-i")
        for dataset, file, runs in studies(results, "runs.csv")
        if {FULL, "dropattack-i"} <= set(runs["method"])
    ]


def half_of_the_data(results: Path) -> list[Finding]:
    """C3: DropAttack on half of the reviews against standard training on all of them."""
    sizes = dict(_sizes(results))
    found = []
    for size, (file, runs) in sizes.items():
        if size // 2 in sizes:
            _, fewer = sizes[size // 2]
            interval = paired(points(fewer, FULL), points(runs, "original"))
            what = f"DropAttack-(I&W) on {size // 2:,} reviews minus standard training on {size:,}"
            verdict = judge_interval(interval.low, interval.high)
            found.append(Finding("IMDB", verdict, file, what, *interval[:3], n=interval.n))
    return found


def more_than_two_points(results: Path) -> list[Finding]:
    """C4: the gain at each size."""
    found = []
    for size, (file, runs) in _sizes(results):
        interval = paired(points(runs, FULL), points(runs, "original"))
        what = f"DropAttack-(I&W) minus standard training, {size:,} reviews"
        found.append(
            Finding("IMDB", judge_interval(interval.low, interval.high, 2.0), file, what, *interval[:3], n=interval.n)
        )
    return found


def more_ascent_steps(results: Path) -> list[Finding]:
    """C5: K = 2 and 3 against K = 1."""
    return [
        _difference("MNIST", file, runs, f"K {steps}", "p 0.5", (f"K = {steps}", "K = 1"))
        for file, runs in _ablations(results)
        for steps in (2, 3)
    ]


def best_probability(results: Path) -> list[Finding]:
    """C6: p of 0.5 and 0.7 together against the smaller ones and the larger ones."""
    found = []
    for file, runs in _ablations(results):
        inside = _mean_over(runs, ("p 0.5", "p 0.7"))
        for told, outside in (("0.1 and 0.3", ("p 0.1", "p 0.3")), ("0.9 and 1", ("p 0.9", "p 1.0"))):
            interval = paired(inside, _mean_over(runs, outside))
            what = f"p of 0.5 and 0.7 minus p of {told}, mean accuracies"
            verdict = judge_interval(interval.low, interval.high)
            found.append(Finding("MNIST", verdict, file, what, *interval[:3], n=interval.n))
    return found


def layers_near_the_input(results: Path) -> list[Finding]:
    """C7: each attacked layer against the next one further from the input; and the trend over all."""
    found = []
    layers = ("conv1", "conv2", "fc1", "fc2", "fc3")
    for file, runs in _ablations(results):
        accuracy = pd.DataFrame({layer: points(runs, f"{layer}.weight alone") for layer in layers})
        slopes = pd.Series(
            [np.polyfit(range(len(layers)), row, 1)[0] for row in accuracy.to_numpy()], index=accuracy.index
        )
        interval = paired(-slopes, 0 * slopes)
        what = "gain in accuracy for each layer nearer to the input (slope over five attacked weights)"
        verdict = judge_interval(interval.low, interval.high)
        found.append(Finding("MNIST", verdict, file, what, *interval[:3], unit="points a layer", n=interval.n))
    return found


def one_back_propagation(results: Path) -> list[Finding]:
    """C11: three passes against the three of FreeLB, the four of PGD, and as much standard training."""
    found = []
    others = {"freelb": "FreeLB (3 passes)", "pgd": "PGD (4 passes)", "equal-compute": "thrice the epochs, no attack"}
    for dataset, file, runs in studies(results, "runs.csv"):
        for other, told in others.items():
            if {FULL, other} <= set(runs["method"]):
                names = ("DropAttack-(I&W) (3 passes)", told)
                found.append(_difference(dataset, file, runs, FULL, other, names, -MARGIN))
    return found


def _difference(
    dataset: str, file: str, runs: pd.DataFrame, a: str, b: str, told: Sequence[str] | None = None, beyond: float = 0.0
) -> Finding:
    interval = paired(points(runs, a), points(runs, b))
    of_a, of_b = told or (_NAMES.get(a, a), _NAMES.get(b, b))
    verdict = judge_interval(interval.low, interval.high, beyond)
    return Finding(dataset, verdict, file, f"{of_a} minus {of_b}", *interval[:3], n=interval.n)


def _sizes(results: Path) -> Iterator[tuple[int, tuple[str, pd.DataFrame]]]:
    for size in _SIZES:
        file = "table2-imdb/runs.csv" if size == 5000 else f"imdb-size-{size}/runs.csv"
        runs = table(results, file)
        if runs is not None and {FULL, "original"} <= set(runs["method"]):
            yield size, (file, runs)


def _ablations(results: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    file = "ablations-mnist/runs.csv"
    if (runs := table(results, file)) is not None:
        yield file, runs


def _mean_over(runs: pd.DataFrame, methods: Sequence[str]) -> pd.Series:
    return pd.DataFrame({method: points(runs, method) for method in methods}).mean(axis=1)
