"""The table that compares minima: methods × training seeds × splits × metrics, one number a row."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from landscape.evaluation import workers
from landscape.evaluation.walk import Risks, named
from landscape.files import replaced
from landscape.flatness.measurement import Measurement, Measurements, Metric
from landscape.flatness.metrics import METRICS
from landscape.matching import Match, match_training_loss
from landscape.parameters import fingerprint
from landscape.risk import EmpiricalRisk
from landscape.trajectories import Checkpoint

__all__ = ["COLUMNS", "Label", "chosen_metrics", "flatness_table", "measured", "with_types"]

COLUMNS = (
    "method", "training_seed", "checkpoint", "split", "metric", "setting", "value", "standard_error", "converged",
    "draws", "detail", "loss", "examples", "seed",
)  # fmt: skip

Label = str | tuple[str, int]  # a model's name, or a method and the seed it was trained with
AnyLabel = TypeVar("AnyLabel", bound=Label)
Rows = list[dict[str, Any]]
Chosen = Mapping[str, Metric | Callable[[EmpiricalRisk, int], Measurements]]


def flatness_table(
    models: Mapping[AnyLabel, Risks],
    metrics: Sequence[str] | Chosen | None = None,
    seed: int = 0,
    checkpoints: Mapping[AnyLabel, Sequence[Checkpoint]] | None = None,
    matched_loss: float | None = None,
    executor: concurrent.futures.Executor | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every model by every metric, with the same random draws.

    Args:
        models: a name, or a pair of method and training seed, to the risk, or to risks of that model by split
            (``{"train": …, "test": …}``).
        metrics: keys of ``METRICS``; or name to one of its values with other settings
            (``METRICS["sam_sharpness"].with_options(radii=(0.1,))``), or to a function ``(risk, seed) -> Measurement``.
            None: all of ``METRICS``.
        seed: of all draws.
        checkpoints: of each run, its weights in the order of training, or functions that load them. Then every metric
            is also measured where the runs have a common training loss (see :func:`landscape.match_training_loss`), on
            the split ``"train"`` (or the first one).
        matched_loss: the common training loss; None: the lowest that every run reaches.
        executor: measure there, one task for each model, split and checkpoint; None: in this process.
        folder: keep the rows of each task there as JSON; what is there already, of the same weights, data, metrics
            and seed, is not measured again.
        progress: show a progress bar on standard error.

    Returns:
        One number a row: ``method``, ``training_seed`` (missing for models that are only named), ``checkpoint``
        (``"selected"``: the model's weights as given, or ``"matched"``), ``split`` (``""`` if risks were not named),
        ``metric``, ``setting`` (``"rho=0.05, steps=1"``: numbers of one metric and setting can be compared), ``value``,
        ``standard_error``, ``converged``, ``draws`` (the value of each random draw, JSON), ``detail`` (what was found
        on the way, JSON), ``loss`` and the risk's metrics at these weights, ``examples``, ``seed``. A run that was
        refused at the common loss has one row for each metric and split, with a missing value and the reason as detail.

    Raises:
        ValueError: no models, an unknown metric, splits that differ between models, or what
            :func:`landscape.match_training_loss` refuses.
        TypeError: metrics that are one string.
    """
    chosen = chosen_metrics(metrics)
    by_split = {label: named(risks) for label, risks in models.items()}
    _check(by_split)
    matches: Mapping[AnyLabel, Match] = {}
    if checkpoints is not None:
        trained_on = {label: risks.get("train", next(iter(risks.values()))) for label, risks in by_split.items()}
        matches = match_training_loss(trained_on, checkpoints, matched_loss, progress=progress)
    tasks = [
        _Task(label, checkpoint, split, risk, chosen, seed, point)
        for label, risks in by_split.items()
        for checkpoint, point in _points(matches.get(label))
        for split, risk in risks.items()
    ]
    place = None if folder is None else Path(folder)
    with tqdm(total=len(tasks), desc="flatness", unit="model", disable=not progress) as bar:
        rows = _rows(tasks, executor, place, bar)
    for label, match in matches.items():
        rows += _refused(label, match, by_split[label], chosen, seed)
    return with_types(pd.DataFrame(rows))


def measured(risk: EmpiricalRisk, metrics: Chosen, seed: int, point: Mapping[str, Tensor] | None = None) -> Rows:
    """The rows of one risk, without its labels.

    Args:
        risk: what to measure.
        metrics: by name. Metrics that come from one function with the same options are computed in one go.
        seed: of the draws.
        point: other weights than the model's.
    """
    with contextlib.nullcontext() if point is None else risk.at(point):
        center = risk()
        about = {"loss": center.loss, **center.metrics, "examples": center.count, "seed": seed}
        found: dict[tuple[object, str], Measurements] = {}
        rows = []
        for name, metric in metrics.items():
            if isinstance(metric, Metric):
                call = metric.measure, json.dumps(metric.options, default=repr, sort_keys=True)
                if call not in found:
                    found[call] = metric.measure(risk, seed, **metric.options)
                measurements = _part(name, metric, found[call])
            else:
                measurements = _listed(name, metric(risk, seed))
            rows += [{"metric": name} | _columns(one) | about for one in measurements]
    return rows


def with_types(table: pd.DataFrame) -> pd.DataFrame:
    """A table in its columns' order and types: also what was read from a CSV file.

    Args:
        table: with the columns of :func:`flatness_table`.
    """
    texts = ["split", "setting", "draws", "detail"]  # an empty one is missing after a CSV file
    table = table.assign(**{column: table[column].astype(object).fillna("") for column in texts})
    table = table.astype({"training_seed": "Int64", "converged": "bool", **dict.fromkeys(texts, "str")})
    others = [column for column in table if column not in COLUMNS]
    place = COLUMNS.index("examples")
    return table[[*COLUMNS[:place], *others, *COLUMNS[place:]]]


def chosen_metrics(metrics: Sequence[str] | Chosen | None) -> Chosen:
    """Metrics by name.

    Raises:
        TypeError: a string instead of a sequence of them.
        ValueError: an unknown name, or none at all.
    """
    if isinstance(metrics, str):
        raise TypeError(f"metrics: expected a sequence, got the string {metrics!r}; write [{metrics!r}]")
    if isinstance(metrics, Mapping):
        return metrics
    for name in metrics or ():
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return {name: METRICS[name] for name in (METRICS if metrics is None else metrics)}


@dataclasses.dataclass(frozen=True)
class _Task:
    """What one worker measures in one go."""

    label: Label
    checkpoint: str
    split: str
    risk: EmpiricalRisk
    metrics: Chosen
    seed: int
    point: Mapping[str, Tensor] | None

    def __call__(self) -> Rows:
        return [self.labels() | row for row in measured(self.risk, self.metrics, self.seed, self.point)]

    def labels(self) -> dict[str, Any]:
        return _labels(self.label) | {"checkpoint": self.checkpoint, "split": self.split}

    def file(self) -> str:
        parts = [str(value) for value in self.labels().values() if value not in ("", None)]
        return quote("-".join(parts), safe=" ") + ".json"

    def identity(self) -> str:
        """A hash of all that the rows depend on."""
        weights = self.risk.parameters() if self.point is None else self.point
        settings = {
            name: [metric.measure.__qualname__, metric.part, dict(metric.options)]
            if isinstance(metric, Metric)
            else getattr(metric, "__qualname__", repr(metric))
            for name, metric in self.metrics.items()
        }
        parts = [self.labels(), fingerprint(weights), self.risk.fingerprint(), self.risk.options, settings, self.seed]
        return hashlib.blake2b(json.dumps(parts, default=repr).encode(), digest_size=16).hexdigest()


def _rows(tasks: Sequence[_Task], executor: concurrent.futures.Executor | None, folder: Path | None, bar: Any) -> Rows:
    """The rows of all tasks, in their order."""
    found: dict[int, Rows] = {}
    identities: dict[int, str] = {}
    for index, task in enumerate(tasks if folder is not None else ()):
        identities[index] = task.identity()
        if (kept := _read(Path(folder or ".") / task.file(), identities[index])) is not None:
            found[index] = kept
            bar.update()

    def keep(index: int, rows: Rows) -> None:
        found[index] = rows
        if folder is not None:
            _write(folder / tasks[index].file(), identities[index], rows)
        bar.update()

    missing = [index for index in range(len(tasks)) if index not in found]
    if executor is None:
        for index in missing:
            bar.set_postfix_str(" ".join(str(value) for value in tasks[index].labels().values() if value is not None))
            keep(index, tasks[index]())
    else:
        waiting = {executor.submit(workers.call, workers.packed(tasks[index])): index for index in missing}
        for done in concurrent.futures.as_completed(waiting):
            keep(waiting[done], done.result())
    return [row for index in range(len(tasks)) for row in found[index]]


def _read(file: Path, identity: str) -> Rows | None:
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None  # not ours, or torn: it is measured anew
    if not isinstance(kept, Mapping) or kept.get("identity") != identity:
        return None
    rows: Rows = [
        {key: math.nan if value is None and key != "training_seed" else value for key, value in row.items()}
        for row in kept["rows"]
    ]
    return rows


def _write(file: Path, identity: str, rows: Rows) -> None:
    plain = [{key: None if _is_missing(value) else value for key, value in row.items()} for row in rows]
    with replaced(file) as temporary:
        temporary.write_text(json.dumps({"identity": identity, "rows": plain}), encoding="utf-8")


def _is_missing(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _points(match: Match | None) -> list[tuple[str, Mapping[str, Tensor] | None]]:
    matched = [("matched", match.point)] if match is not None and match.point is not None else []
    return [("selected", None), *matched]


def _refused(label: Label, match: Match, risks: Mapping[str, EmpiricalRisk], metrics: Chosen, seed: int) -> Rows:
    if match.point is not None:
        return []
    nothing = _columns(Measurement(math.nan, converged=False, detail={"refused": match.refused}))
    return [
        _labels(label)
        | {"checkpoint": "matched", "split": split, "metric": name}
        | nothing
        | {"loss": math.nan, "examples": risk.count, "seed": seed}
        for split, risk in risks.items()
        for name in metrics
    ]


def _labels(label: Label) -> dict[str, Any]:
    method, training_seed = (label, None) if isinstance(label, str) else label
    return {"method": method, "training_seed": training_seed}


def _columns(found: Measurement) -> dict[str, Any]:
    return {
        "setting": ", ".join(f"{key}={_plain(value)}" for key, value in found.setting.items()),
        "value": float(found.value),
        "standard_error": float(found.standard_error),
        "converged": bool(found.converged),
        "draws": json.dumps([float(f"{draw:.9g}") for draw in found.draws]) if len(found.draws) else "",
        "detail": json.dumps(dict(found.detail)) if found.detail else "",
    }


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return str(value)


def _part(name: str, metric: Metric, found: Measurements) -> list[Measurement]:
    if metric.part:
        if not isinstance(found, Mapping) or metric.part not in found:
            raise TypeError(f"metric {name!r}: expected its function to return a dictionary with {metric.part!r}")
        return _listed(name, found[metric.part])
    return _listed(name, found)


def _listed(name: str, found: Measurements) -> list[Measurement]:
    if isinstance(found, Measurement):
        return [found]
    if not isinstance(found, list | tuple) or not all(isinstance(one, Measurement) for one in found):
        raise TypeError(f"metric {name!r}: expected a Measurement or a list of them, got {type(found).__name__}")
    return list(found)


def _check(models: Mapping[AnyLabel, Mapping[str, EmpiricalRisk]]) -> None:
    if not models:
        raise ValueError("models: expected at least one, got none")
    first_label, first = next(iter(models.items()))
    for label, risks in models.items():
        if list(risks) != list(first):
            raise ValueError(
                f"model {label!r}: expected the splits of {first_label!r}, {list(first)}, got {list(risks)}"
            )
