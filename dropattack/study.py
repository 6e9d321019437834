"""A study: the runs that answer one question, from one TOML file, trained side by side."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from dropattack.checkpoint import write_text
from dropattack.config import Config, Named
from dropattack.names import unknown
from landscape.evaluation.executors import process_pool

__all__ = ["Study", "results", "run_study", "status"]


@dataclasses.dataclass(frozen=True)
class Study:
    """Every method with every seed, on one data set and one model.

    Attributes:
        name: the file's, without its ending.
        base: data, model and training of every run.
        methods: rows of the result, by the name they are to have there.
        seeds: of the runs.
    """

    name: str
    base: Config
    methods: Mapping[str, Named]
    seeds: tuple[int, ...] = (0,)

    @classmethod
    def from_toml(cls, path: str | Path) -> Study:
        """Read ``seeds``, ``[data]``, ``[model]``, ``[training]`` and a ``[methods.NAME]`` for each method.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not TOML, an unknown key, or a value out of range; the message names the file.
        """
        path = Path(path)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
            known = ["seeds", "data", "model", "training", "methods"]
            for key in tables:
                if key not in known:
                    raise ValueError(unknown("study key", key, known))
            methods = tables.pop("methods", {})
            seeds = tables.pop("seeds", [0])
            if not isinstance(methods, Mapping) or not methods:
                raise ValueError("[methods]: expected a table for each method, such as [methods.standard]")
            if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) for seed in seeds):
                raise ValueError(f"seeds: expected a list of whole numbers, got {seeds!r}")
            rows = {name: Named.from_table(f"methods.{name}", table) for name, table in methods.items()}
            return cls(path.stem, Config.from_tables(tables), rows, tuple(seeds))
        except ValueError as error:  # tomllib.TOMLDecodeError is one
            raise ValueError(f"{path}: {error}") from error

    def runs(self) -> dict[str, Config]:
        """The configuration of each run, by the name of its folder."""
        return {
            f"{name}-seed{seed}": dataclasses.replace(
                self.base, method=method, training=dataclasses.replace(self.base.training, seed=seed)
            )
            for seed in self.seeds
            for name, method in self.methods.items()
        }


def run_study(
    study: Study,
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train what is missing, and collect what is there.

    Each run has a folder of its own, resumes after a kill, and is left alone when it is finished.

    Args:
        study: what to train.
        folder: for the runs, and ``results.csv``, written anew when a run has finished.
        data_dir: as for :func:`dropattack.data.load_dataset`.
        executor: where runs are trained; None: one process for each core, one thread each.
        progress: show a progress bar on standard error.

    Returns:
        As :func:`results`.

    Raises:
        ValueError: a folder belongs to another configuration; the other runs are finished first.
    """
    folder = Path(folder)
    missing = {name: config for name, config in study.runs().items() if not (folder / name / "metrics.json").is_file()}
    failed: list[BaseException] = []
    with executor or process_pool(max(1, min(len(missing), os.cpu_count() or 1))) as pool:
        waiting = {
            pool.submit(_train, config.to_tables(), str(folder / name), None if data_dir is None else str(data_dir))
            for name, config in missing.items()
        }
        bar = tqdm(total=len(waiting), desc=f"training {study.name}", unit="run", disable=not progress)
        with bar:
            for done in concurrent.futures.as_completed(waiting):
                bar.update()
                if (error := done.exception()) is not None:
                    failed.append(error)
                else:
                    write_text(folder / "results.csv", results(study, folder).to_csv(index=False))
    if failed:
        raise failed[0]
    table = results(study, folder)
    write_text(folder / "results.csv", table.to_csv(index=False))
    return table


def results(study: Study, folder: str | Path) -> pd.DataFrame:
    """One row for each finished run: study, method, seed, its metrics, seconds and passes.

    Args:
        study: tells which runs belong to it.
        folder: where they are.
    """
    rows = []
    for seed in study.seeds:
        for name in study.methods:
            file = Path(folder) / f"{name}-seed{seed}" / "metrics.json"
            if file.is_file():
                metrics = json.loads(file.read_text(encoding="utf-8"))
                rows.append({"study": study.name, "method": name, "seed": seed, **_flat(metrics)})
    return pd.DataFrame(rows)


def status(study: Study, folder: str | Path) -> dict[str, str]:
    """For each run ``"finished"``, ``"3 of 10 epochs"`` or ``"not begun"``.

    Args:
        study: tells which runs belong to it.
        folder: where they are.
    """
    states = {}
    for name, config in study.runs().items():
        run = Path(folder) / name
        if (run / "metrics.json").is_file():
            states[name] = "finished"
        elif (run / "history.csv").is_file():
            states[name] = f"{len(pd.read_csv(run / 'history.csv'))} of {config.training.epochs} epochs"
        else:
            states[name] = "not begun"
    return states


def _flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """``{"best": {"epoch": 3}}`` to ``{"best_epoch": 3}``."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        flat |= {f"{key}_{inner}": x for inner, x in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def _train(tables: Mapping[str, Any], folder: str, data_dir: str | None) -> None:
    from dropattack.training import train

    train(Config.from_tables(tables), folder, data_dir=data_dir, progress=False)
