"""Is DropAttack implicit gradient regularization? Equations 8 to 13 of its paper, checked at the weights of runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from dropattack.checkpoint import Run, load, load_run, write_text
from dropattack.data import Dataset, load_dataset
from dropattack.training import check_same_data
from dropattack.updates import explicit_against_implicit, mask_effects, reading_effects
from landscape import EmpiricalRisk, penalty_check
from landscape.cli import write_penalty

__all__ = ["EPSILONS", "check_runs", "setting_of", "updates_through_training"]

EPSILONS = (0.01, 0.1, 1.0, 5.0)
_STAGES = 6  # of a training, at which updates are compared


def check_runs(
    runs: Sequence[str | Path],
    folder: str | Path,
    *,
    setting: Mapping[str, Any] | None = None,
    split: str = "validation",
    examples: int = 500,
    batch_size: int = 128,
    draws: int = 16,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> str:
    """Check the paper's derivation at the weights of finished runs of one data set.

    Writes ``penalty.csv`` (the rise of the loss under masked perturbations beside each term of its expansion, on
    held-out examples), ``summary.csv``, ``fair.csv`` (up to which epsilon each description holds) and pictures; and on
    one training batch ``updates.csv`` (DropAttack's update against the explicit penalty's gradient, also at stages of
    the training if the run kept its epochs), ``readings.csv`` (what each reading of the paper changes) and
    ``masks.csv`` (what the mask does).

    Args:
        runs: their folders; the last part of each is its name.
        folder: for the results.
        setting: of DropAttack: ``inputs``, ``weights``, ``attack_probability`` … None: that of the first run that was
            trained with it.
        split: whose examples the penalty is checked on.
        examples: of that split, its first so many.
        batch_size: of the training batch.
        draws: masks for each update.
        seed: of masks and random directions.
        data_dir: as for :func:`dropattack.data.load_dataset`.

    Returns:
        Up to which epsilon the expansions hold, as text.

    Raises:
        ValueError: no run, runs of different data, no setting, or what the checks refuse.
    """
    loaded = {Path(run).name: (Path(run), load_run(run)) for run in runs}
    if not loaded:
        raise ValueError("runs: expected at least one folder, got none")
    chosen = dict(setting or setting_of([run for _, run in loaded.values()]))
    base = next(iter(loaded.values()))[1].config.data
    dataset = load_dataset(base.name, data_dir, **base.options)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sites = tuple(filter(None, (chosen.get("inputs"), *chosen.get("weights", ()))))
    checks: list[pd.DataFrame] = []
    tables: dict[str, list[pd.DataFrame]] = {"updates": [], "readings": [], "masks": []}
    for name, (path, run) in loaded.items():
        check_same_data(path, dataset)
        held_out = dataset[split].batches(limit=examples)  # type: ignore[index]
        risk = EmpiricalRisk(run.model, held_out)
        probability = chosen.get("attack_probability", 0.5)
        checks.append(penalty_check(risk, sites, attack_probability=probability, seed=seed).assign(model=name))
        closure = _closure(run.model, next(dataset.train.ordered(batch_size)))
        tables["updates"].append(updates_through_training(path, run, dataset, chosen, batch_size, draws, seed))
        tables["readings"].append(reading_effects(run.model, closure, chosen, draws, seed).assign(model=name))
        tables["masks"].append(mask_effects(run.model, closure, chosen, draws=draws, seed=seed).assign(model=name))
    for table, parts in tables.items():
        write_text(folder / f"{table}.csv", pd.concat(parts, ignore_index=True).to_csv(index=False))
    return write_penalty(pd.concat(checks, ignore_index=True), folder, mark=chosen.get("epsilon", 5.0))


def updates_through_training(
    path: Path,
    run: Run,
    dataset: Dataset,
    setting: Mapping[str, Any],
    batch_size: int = 128,
    draws: int = 16,
    seed: int = 0,
    epsilons: Sequence[float] = EPSILONS,
) -> pd.DataFrame:
    """DropAttack's update against the explicit penalty's gradient, at the selected weights and on the way there.

    Args:
        path: the run's folder; where it kept its epochs, up to six of them are looked at, the initial weights first.
        run: what was loaded from it.
        dataset: of the run; its first batch of training examples is used.
        setting: of DropAttack.
        batch_size: of that batch.
        draws: masks.
        seed: of the masks.
        epsilons: of both sides.

    Returns:
        As :func:`dropattack.updates.explicit_against_implicit`, with ``model`` (the folder's name) and ``epoch``
        (missing for the selected checkpoint).
    """
    closure = _closure(run.model, next(dataset.train.ordered(batch_size)))
    tables = []
    for epoch, state in _stages(path):
        with _weights(run.model, state):
            found = explicit_against_implicit(run.model, closure, setting, epsilons, draws, seed)
        tables.append(found.assign(model=path.name, epoch=epoch))
    return pd.concat(tables, ignore_index=True).astype({"epoch": "Int64"})


def setting_of(runs: Sequence[Run]) -> Mapping[str, Any]:
    """The hyperparameters of the first run that was trained with DropAttack.

    Raises:
        ValueError: there is none.
    """
    for run in runs:
        if run.config.method.name == "dropattack":
            return run.config.method.options
    names = ", ".join(dict.fromkeys(run.config.method.name for run in runs))
    raise ValueError(f"setting: no run was trained with dropattack (but {names}); say what is attacked")


def _closure(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Callable[[], Tensor]:
    inputs, labels = batch
    return functools.partial(_loss, model, inputs, labels)


def _loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(inputs), labels)


def _stages(path: Path) -> Iterator[tuple[int | None, Mapping[str, Tensor] | None]]:
    """The selected weights, and those of some epochs."""
    yield None, None
    files = sorted((path / "epochs").glob("*.safetensors"))
    last = len(files) - 1
    for index in sorted({round(last * (share / (_STAGES - 1)) ** 2) for share in range(_STAGES)} if files else ()):
        tensors, _ = load(files[index])
        yield index, {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


@contextlib.contextmanager
def _weights(model: nn.Module, state: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Other weights and buffers inside the block."""
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        if state is not None:
            model.load_state_dict(dict(state))
        yield
    finally:
        model.load_state_dict(saved)
