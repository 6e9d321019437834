"""The minima of a study's runs, measured: flatness by every metric, on training and test data, at matched loss."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from dropattack.checkpoint import load, load_run, write_text
from dropattack.data import Dataset, load_dataset
from dropattack.names import unknown
from dropattack.study import Study
from dropattack.training import check_same_data
from landscape import METRICS, EmpiricalRisk, Metric, flatness_table, flatness_verdicts, plots
from landscape.statistics import compare_methods, rank_correlations

__all__ = ["SPLITS_MEASURED", "epoch_weights", "measure_runs", "risks_of_run", "summarize", "without_single_weights"]

SPLITS_MEASURED = ("train", "test")


def measure_runs(
    study: Study,
    folder: str | Path,
    *,
    methods: Sequence[str] | None = None,
    metrics: Sequence[str] | Mapping[str, Metric] | None = None,
    examples: int = 500,
    seed: int = 0,
    data_dir: str | Path | None = None,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Flatness of the finished runs of a study, at the checkpoint that validation chose and at matched training loss.

    Rows are kept in ``folder/flatness/measured`` as they come: started again after a kill, it goes on.

    Args:
        study: which runs; matched training loss needs their ``[training] keep_epochs = true``.
        folder: where they are.
        methods: rows of the study; None: all.
        metrics: as for :func:`landscape.flatness_table`.
        examples: of each split, its first so many: the same ones for all runs.
        seed: of the metrics' random draws.
        data_dir: as for :func:`dropattack.data.load_dataset`.
        executor: as for :func:`landscape.flatness_table`.
        progress: show progress bars on standard error.

    Returns:
        As :func:`landscape.flatness_table`: ``method`` is the row of the study, ``training_seed`` the run's seed.

    Raises:
        FileNotFoundError: a run is not finished.
        ValueError: a run was trained on other data, or the study has no such row.
    """
    folder = Path(folder)
    dataset = load_dataset(study.base.data.name, data_dir, **study.base.data.options)
    risks: dict[str | tuple[str, int], dict[str, EmpiricalRisk]] = {}
    checkpoints: dict[str | tuple[str, int], list[Callable[[], Mapping[str, Tensor]]]] = {}
    for method in _known(study, methods):
        for training_seed in study.seeds_of(method):
            run = folder / f"{method}-seed{training_seed}"
            check_same_data(run, dataset)
            label = (method, training_seed)
            risks[label] = risks_of_run(run, dataset, examples)
            checkpoints[label] = [
                functools.partial(epoch_weights, file, list(risks[label]["train"].parameters()))
                for file in sorted((run / "epochs").glob("*.safetensors"))
            ]
    return flatness_table(
        risks,
        metrics,
        seed,
        checkpoints if all(checkpoints.values()) else None,
        executor=executor,
        folder=folder / "flatness" / "measured",
        progress=progress,
    )


def summarize(table: pd.DataFrame, baseline: str, folder: str | Path, figures: str | Path | None = None) -> str:
    """Compare the methods of a flatness table, and write tables and pictures.

    ``flatness.csv`` (the table), ``differences.csv`` (every method against the baseline, paired by training seed),
    ``verdicts.csv``, ``correlations.csv`` (of each metric with the generalization gap), ``flatness.png`` (each seed and
    intervals), ``differences.png`` (metrics × methods) and ``gap.png``.

    Args:
        table: from :func:`measure_runs`, with several training seeds.
        baseline: the method that others are compared with.
        folder: for the files, made if needed.
        figures: folder for the pictures; None: the same.

    Returns:
        The verdicts in words.
    """
    folder = Path(folder)
    pictures = folder if figures is None else Path(figures)
    for made in (folder, pictures):
        made.mkdir(parents=True, exist_ok=True)
    differences = compare_methods(table, baseline)
    verdicts = flatness_verdicts(differences)
    correlations = rank_correlations(table)
    for name, found in {
        "flatness": table,
        "differences": differences,
        "verdicts": verdicts,
        "correlations": correlations,
    }.items():
        write_text(folder / f"{name}.csv", found.to_csv(index=False))
    seeds = table["training_seed"].nunique()
    selected = without_single_weights(table[table["checkpoint"] == "selected"])
    heading = f"On training data, {seeds} training seeds a method"
    plots.flatness_panels(selected[selected["split"] == "train"], heading=heading).savefig(pictures / "flatness.png")
    rescaling = {name: metric.rescaling for name, metric in METRICS.items()}
    plots.metric_heat_map_panels(without_single_weights(differences), rescaling=rescaling).savefig(
        pictures / "differences.png"
    )
    plots.gap_panels(selected, heading=heading).savefig(pictures / "gap.png")
    return "\n".join(
        f"{row.method} against {row.baseline}, {row.checkpoint} checkpoint, {row.split} data: {row.sentence}"
        for row in verdicts.itertuples()
    )


def without_single_weights(table: pd.DataFrame) -> pd.DataFrame:
    """What a reader can take in: not the gradient norm of each weight, where that of all of them is there."""
    single = table["metric"].eq("weight_gradient_norm")
    if "setting" not in table or not (single & table["setting"].eq("site=*")).any():
        return table
    return table[~single | table["setting"].eq("site=*")]


def risks_of_run(run: Path, dataset: Dataset, examples: int) -> dict[str, EmpiricalRisk]:
    """The risk of a run's selected checkpoint on the first examples of each split."""
    model = load_run(run).model
    has_statistics = any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    statistics = dataset.train.batches(limit=examples) if has_statistics else None
    return {
        split: EmpiricalRisk(model, dataset[split].batches(limit=examples), statistics=statistics)  # type: ignore[index]
        for split in SPLITS_MEASURED
    }


def _known(study: Study, methods: Sequence[str] | None) -> Sequence[str]:
    for method in methods or ():
        if method not in study.methods:
            raise ValueError(unknown("method", method, study.methods))
    return list(study.methods) if methods is None else methods


def epoch_weights(file: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The parameters of one epoch; buffers stay out."""
    tensors, _ = load(file)
    return {name: tensors[f"model.{name}"] for name in names}
