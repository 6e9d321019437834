"""Which runs of a study can be trained now, and training them side by side."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from dropattack.checkpoint import write_text
from dropattack.config import Config
from dropattack.study.settings import Study
from dropattack.study.tables import chosen_trials, results, status, time_left, with_choices
from landscape.evaluation.executors import process_pool

__all__ = ["run_study", "spoken"]


def run_study(
    study: Study,
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train what is missing, and collect what is there.

    Trials come first; as soon as those of a row are finished, its final runs are trained with the setting that was best
    on validation data. Trials never look at test data; a final run does once, at its end. Each run has a folder of its
    own, resumes after a kill, and is left alone when it is finished; one that another row has already is copied.
    ``results.csv`` and ``tuning.csv`` are written anew after each run.

    Args:
        study: what to train.
        folder: for the runs and the tables.
        data_dir: as for :func:`dropattack.data.load_dataset`.
        executor: where runs are trained; None: one process for each core, one thread each.
        progress: show a progress bar on standard error, with an estimate of the time left.

    Returns:
        As :func:`dropattack.study.results`.

    Raises:
        ValueError: a folder belongs to another configuration; the other runs are finished first.
    """
    folder = Path(folder)
    states = status(study, folder)
    missing = sum(state != "finished" for state in states.values())
    workers = os.cpu_count() or 1
    failed: list[BaseException] = []
    running: dict[concurrent.futures.Future[None], Config] = {}
    begun: set[str] = set()
    where = None if data_dir is None else str(data_dir)
    bar = tqdm(
        total=len(states), initial=len(states) - missing, desc=study.name, unit="run", disable=not progress,
        bar_format="{desc}: {n_fmt} of {total_fmt} runs |{bar}| {elapsed}{postfix}",
    )  # fmt: skip
    with executor or process_pool(max(1, min(missing, workers))) as pool, bar:
        while True:
            bar.update(_copy_repeated(study, folder))
            for name, (config, reads_test) in _trainable(study, folder).items():
                if name not in begun and config not in running.values():  # if it is, its result will be copied
                    begun.add(name)
                    running[pool.submit(_train, config.to_tables(), str(folder / name), where, reads_test)] = config
            if not running:
                break
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            bar.update(len(done))
            for future in done:
                del running[future]
                if (error := future.exception()) is not None:
                    failed.append(error)
            _write_tables(study, folder)
            if (left := time_left(study, folder, workers)) is not None:
                bar.set_postfix_str(f"about {spoken(left)} left")
    if failed:
        raise failed[0]
    return _write_tables(study, folder)


def _trainable(study: Study, folder: Path) -> dict[str, tuple[Config, bool]]:
    """What is not finished and has all it needs: the configuration, and whether the run reads test data."""
    found = {name: (config, False) for name, config in study.trials().items()}
    found |= {name: (config, True) for name, config in study.runs(chosen_trials(study, folder)).items()}
    return {name: value for name, value in found.items() if not (folder / name / "metrics.json").is_file()}


def _copy_repeated(study: Study, folder: Path) -> int:
    """Copy finished runs to rows with the same setting, such as the paper's, if that was the best trial, too."""
    runs = study.runs(chosen_trials(study, folder))
    finished = {name: config for name, config in runs.items() if (folder / name / "metrics.json").is_file()}
    copied = 0
    for name in runs.keys() - finished.keys():
        if (twin := next((other for other, config in finished.items() if config == runs[name]), None)) is not None:
            part = folder / f".{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(folder / twin, part)
            part.replace(folder / name)
            copied += 1
    return copied


def _write_tables(study: Study, folder: Path) -> pd.DataFrame:
    folder.mkdir(parents=True, exist_ok=True)
    table, tuned = results(study, folder), with_choices(study, folder)
    write_text(folder / "results.csv", table.to_csv(index=False))
    if len(tuned):
        write_text(folder / "tuning.csv", tuned.to_csv(index=False))
    return table


def spoken(seconds: float) -> str:
    """A duration in words, such as ``12 min``."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _train(tables: Mapping[str, Any], folder: str, data_dir: str | None, reads_test: bool) -> None:
    from dropattack.training import train

    config = Config.from_tables(tables)
    dataset = _dataset(config.data.name, data_dir, tuple(config.data.options.items()))
    train(config, folder, dataset=dataset, data_dir=data_dir, reads_test=reads_test, progress=False)


@functools.lru_cache(maxsize=1)
def _dataset(name: str, data_dir: str | None, options: tuple[tuple[str, Any], ...]) -> Any:
    """The data of the last run, which most often is that of the next."""
    from dropattack.data import load_dataset

    return load_dataset(name, data_dir, **dict(options))
