"""What a study has found so far, read from the folders of its runs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.study.settings import Study, run_folder, trial_folder

__all__ = ["chosen_trials", "histories", "results", "status", "time_left", "trials", "with_choices"]

_VALIDATION = ("best_validation_accuracy", "best_validation_loss")


def trials(study: Study, folder: str | Path) -> pd.DataFrame:
    """One row for each finished trial: method, trial, seed, setting (JSON), and what validation data said of it.

    Args:
        study: tells which trials belong to it.
        folder: where they are.
    """
    rows = []
    for method, row in study.methods.items():
        for number, setting in enumerate(row.tried()):
            for seed in study.tuning_seeds:
                if (found := _metrics(Path(folder) / trial_folder(method, number, seed))) is not None:
                    about = {"study": study.name, "method": method, "trial": number, "seed": seed}
                    rows.append({**about, "setting": setting.text(), **found})
    return pd.DataFrame(rows)


def chosen_trials(study: Study, folder: str | Path) -> dict[str, int]:
    """For each row whose trials are all finished, the one with the best mean validation accuracy.

    Of equal ones, the one with the lower validation loss, and then the first.

    Args:
        study: tells which trials belong to it.
        folder: where they are.
    """
    table = trials(study, folder)
    chosen: dict[str, int] = {}
    for method, row in study.methods.items():
        mine = table[table["method"] == method] if len(table) else table
        if row.trials and len(mine) == len(row.trials) * len(study.tuning_seeds):
            means = mine.groupby("trial")[list(_VALIDATION)].mean()
            order = means.sort_values(list(_VALIDATION), ascending=[False, True], kind="stable")
            chosen[method] = int(order.index[0])
    return chosen


def with_choices(study: Study, folder: str | Path) -> pd.DataFrame:
    """The table of :func:`trials`, with a column ``chosen``.

    Args:
        study: tells which trials belong to it.
        folder: where they are.
    """
    table, chosen = trials(study, folder), chosen_trials(study, folder)
    if len(table):
        pairs = zip(table["method"], table["trial"], strict=True)
        table["chosen"] = [chosen.get(method) == trial for method, trial in pairs]
    return table


def results(study: Study, folder: str | Path) -> pd.DataFrame:
    """One row for each finished final run: study, method, seed, setting (JSON), its metrics, seconds and passes.

    Args:
        study: tells which runs belong to it.
        folder: where they are.
    """
    chosen = chosen_trials(study, folder)
    rows = []
    for method in study.methods:
        setting = study.setting(method, chosen)
        for seed in study.seeds_of(method):
            found = _metrics(Path(folder) / run_folder(method, seed))
            if setting is not None and found is not None:
                rows.append({"study": study.name, "method": method, "seed": seed, "setting": setting.text(), **found})
    return pd.DataFrame(rows)


def histories(study: Study, folder: str | Path) -> pd.DataFrame:
    """The epochs of each finished final run: study, method, seed, and the columns of ``history.csv``.

    Args:
        study: tells which runs belong to it.
        folder: where they are.
    """
    found = []
    for method in study.methods:
        for seed in study.seeds_of(method):
            run = Path(folder) / run_folder(method, seed)
            if (run / "metrics.json").is_file():
                about = pd.DataFrame({"study": [study.name], "method": [method], "seed": [seed]})
                found.append(about.merge(pd.read_csv(run / "history.csv"), how="cross"))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def status(study: Study, folder: str | Path) -> dict[str, str]:
    """For each trial and run ``"finished"``, ``"3 of 10 epochs"``, ``"not begun"`` or ``"waits for its trials"``.

    Args:
        study: tells which runs belong to it.
        folder: where they are.
    """
    known = study.trials() | study.runs(chosen_trials(study, folder))
    states = {name: _state(Path(folder) / name, config.training.epochs) for name, config in known.items()}
    for method in study.methods:
        for seed in study.seeds_of(method):
            states.setdefault(run_folder(method, seed), "waits for its trials")
    return states


def time_left(study: Study, folder: str | Path, workers: int = 1) -> float | None:
    """Seconds until the study is finished, estimated from the runs that are; None: no run is.

    A run takes as long as the finished ones of its row did in the median, or of all rows where its own has none.

    Args:
        study: tells which runs belong to it.
        folder: where they are.
        workers: runs that are trained side by side.
    """
    seconds: dict[str, list[float]] = {}
    missing: list[str] = []
    for method, row in study.methods.items():
        folders = [run_folder(method, seed) for seed in study.seeds_of(method)]
        folders += [
            trial_folder(method, number, seed) for number in range(len(row.trials)) for seed in study.tuning_seeds
        ]
        for name in folders:
            found = _metrics(Path(folder) / name)
            if found is None:
                missing.append(method)
            else:
                seconds.setdefault(method, []).append(found["training_seconds"])
    if not seconds:
        return None
    medians = {method: statistics.median(values) for method, values in seconds.items()}
    typical = statistics.median(medians.values())
    return sum(medians.get(method, typical) for method in missing) / workers


def _state(run: Path, epochs: int) -> str:
    if (run / "metrics.json").is_file():
        return "finished"
    if (run / "history.csv").is_file():
        return f"{len(pd.read_csv(run / 'history.csv'))} of {epochs} epochs"
    return "not begun"


def _metrics(run: Path) -> dict[str, Any] | None:
    file = run / "metrics.json"
    return _flat(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """``{"best": {"epoch": 3}}`` to ``{"best_epoch": 3}``."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        flat |= {f"{key}_{inner}": x for inner, x in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat
