"""The one training loop."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm.auto import tqdm

from dropattack import checkpoint
from dropattack.checkpoint import Run, load_run
from dropattack.config import Config
from dropattack.data import Dataset, load_dataset
from dropattack.gradient_norms import GradientNorms
from dropattack.methods import build_method
from dropattack.models import MODELS, build_model
from dropattack.passes import Closure
from dropattack.undisturbed import evaluation_mode

__all__ = ["build_for", "check_same_data", "evaluate", "train"]

_GRADIENT_NORM_EXAMPLES = 500  # of the validation split; it is stored in shuffled order


def train(
    config: Config,
    path: str | Path,
    *,
    dataset: Dataset | None = None,
    data_dir: str | Path | None = None,
    reads_test: bool = True,
    progress: bool = True,
) -> Run:
    """Train, or go on where an earlier call with the same configuration was stopped.

    The folder receives ``config.json`` (with what the data set was found to hold), and after each epoch
    ``history.csv``, ``last.safetensors`` and, when validation accuracy rose, ``best.safetensors``; at the end
    ``metrics.json``, whose presence means finished. With ``average_from`` it also receives ``averaged.safetensors``:
    the mean of the weights, with BatchNorm's statistics computed anew over the training data; with ``keep_epochs``,
    ``epochs/0000.safetensors`` (the initial weights), ``0001``, and so on. A run that is killed and started again ends
    with the same bits on the same machine: weights, optimizer, random streams and data order are all in the checkpoint.

    With ``gradient_norms``, each row of ``history.csv`` also has ``gradient_norm`` (all parameters together) and
    ``gradient_norm_<site>`` for each site, as :class:`~dropattack.gradient_norms.GradientNorms` defines them, on the
    first 500 validation examples, in evaluation mode. They change nothing in the training.

    Args:
        config: what to train.
        path: the run's folder, made if needed.
        dataset: the data, if it is in memory already; otherwise loaded by ``config.data``.
        data_dir: as for :func:`dropattack.data.load_dataset`.
        reads_test: evaluate on test data at the end, once. A trial of hyperparameters must not: its ``metrics.json``
            then has nothing on test data.
        progress: show a progress bar on standard error.

    Returns:
        The best model on validation data, with configuration and metrics.

    Raises:
        ValueError: the folder belongs to another configuration or other data, a checkpoint is broken, or the model has
            no site of a name in ``gradient_norms``.
    """
    folder = Path(path)
    dataset = dataset or load_dataset(config.data.name, data_dir, **config.data.options)
    if (folder / "config.json").is_file():
        _check_same_config(folder, config)
        check_same_data(folder, dataset)
    if (folder / "metrics.json").is_file():
        return load_run(folder)
    device = torch.device(config.training.device)
    with torch.random.fork_rng():  # the caller's random stream is left alone
        state = _State(config, folder, dataset)  # refuses a wrong configuration before anything is written
        _claim(folder, config, dataset)
        if not state.history:
            state.keep_epoch()
        steps = -(-len(dataset.train) // config.training.batch_size)
        bar = tqdm(
            total=config.training.epochs * steps,
            initial=len(state.history) * steps,
            desc=f"training {config.method.name}",
            unit="step",
            disable=not progress,
        )
        with bar:
            for epoch in range(len(state.history) + 1, config.training.epochs + 1):
                start, passes = time.perf_counter(), state.passes
                state.begin_epoch(epoch)
                for batch in dataset.train.shuffled(config.training.batch_size, state.data_order):
                    inputs, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
                    for _ in state.method.steps(functools.partial(state.loss, inputs, labels)):
                        state.optimizer.step()
                        state.optimizer.zero_grad()
                    bar.update()
                row: dict[str, float] = {"epoch": epoch, "seconds": time.perf_counter() - start}
                row["passes"] = state.passes - passes
                for split in ("train", "validation"):
                    found = evaluate(state.model, dataset[split].ordered())
                    row |= {f"{split}_{key}": value for key, value in found.items()}
                if state.gradient_norms is not None:
                    row |= state.gradient_norms()
                bar.set_postfix_str(f"validation accuracy {row['validation_accuracy']:.2%}")
                state.finish_epoch(row)
    return _finish(folder, config, dataset, state, reads_test)


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean cross-entropy (nats), accuracy and F1 over all examples, in evaluation mode; training flags are put back.

    Args:
        model: maps inputs to logits ``(n, classes)``.
        batches: inputs and labels ``(n,)``, of any sizes.

    Returns:
        ``loss``; ``accuracy``; ``macro_f1``, the mean of the classes' F1; with two classes also ``f1``, that of class
        1. A class that is neither there nor predicted has an F1 of 0.
    """
    device = next(model.parameters()).device
    loss, confusion = 0.0, torch.zeros(0, 0, dtype=torch.int64)
    with evaluation_mode(model), torch.no_grad():
        for inputs, labels in batches:
            logits, targets = model(inputs.to(device)), labels.to(device)
            loss += nn.functional.cross_entropy(logits, targets, reduction="none").double().sum().item()
            classes = logits.shape[1]
            pairs = torch.bincount(targets * classes + logits.argmax(1), minlength=classes**2)
            confusion = pairs.reshape(classes, classes).cpu() + (confusion if len(confusion) else 0)
    count, correct = int(confusion.sum()), confusion.diagonal()
    f1 = 2 * correct / (confusion.sum(0) + confusion.sum(1)).clamp(min=1)
    found = {"loss": loss / count, "accuracy": int(correct.sum()) / count, "macro_f1": float(f1.mean())}
    return found | ({"f1": float(f1[1])} if len(f1) == 2 else {})


def build_for(config: Config, dataset: Dataset) -> nn.Module:
    """The network of a configuration, told what it must know of the data, initialized from the global random stream.

    Raises:
        ValueError: an unknown model or option.
    """
    return build_model(config.model.name, **{**_model_options(config, dataset), **config.model.options})


def check_same_data(folder: Path, dataset: Dataset) -> None:
    """Compare a data set with the one that a run found.

    Raises:
        ValueError: they differ in counts, labels or checksums.
    """
    file = folder / "config.json"
    if json.loads(file.read_text(encoding="utf-8"))["data"] != dataset.description():
        raise ValueError(f"{folder} was trained on other data (see {file}); give that data, or choose another folder")


def _loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(inputs), labels)


class _State:
    """All that changes during training, and its checkpoint."""

    def __init__(self, config: Config, folder: Path, dataset: Dataset) -> None:
        seed, device = config.training.seed, torch.device(config.training.device)
        torch.manual_seed(_stream(seed, "weights and dropout"))
        self.folder = folder
        self.training = config.training
        self.model = build_for(config, dataset).to(device)
        rate = config.training.learning_rate
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, fused=True)  # embeddings are large
        self.data_order = torch.Generator().manual_seed(_stream(seed, "data order"))
        self.masks = torch.Generator(device).manual_seed(_stream(seed, "masks"))
        self.examples = torch.Generator().manual_seed(_stream(seed, "single examples"))
        self.method = build_method(
            config.method.name,
            self.model,
            **config.method.options,
            generator=self.masks,
            examples=functools.partial(_single_examples, self.model, dataset, self.examples, device),
        )
        self.average = None if config.training.average_from is None else AveragedModel(self.model)
        self.gradient_norms = _gradient_norms(config, self.model, dataset)
        self.passes = 0  # forward passes over batches, counted where they are made, as a method's cost may vary
        self.history: list[dict[str, float]] = []
        if (folder / "last.safetensors").is_file():
            self._restore(*checkpoint.load(folder / "last.safetensors"))

    def keep_epoch(self) -> None:
        """Keep the present weights for the run's trajectory, if that was asked for."""
        if self.training.keep_epochs:
            (self.folder / "epochs").mkdir(exist_ok=True)
            file = self.folder / "epochs" / f"{len(self.history):04}.safetensors"
            checkpoint.save(file, checkpoint.model_tensors(self.model), {"epoch": len(self.history)})

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The closure of a batch."""
        self.passes += 1
        return _loss(self.model, inputs, labels)

    def begin_epoch(self, epoch: int) -> None:
        """Training mode, and the learning rate of the epoch."""
        self.model.train()
        if self.training.averages(epoch) and self.training.average_learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.training.average_learning_rate

    def finish_epoch(self, row: dict[str, float]) -> None:
        """Add a row to the history and write the checkpoints; a kill between any two lines loses nothing."""
        best = max((earlier["validation_accuracy"] for earlier in self.history), default=-1.0)
        self.history.append(row)
        if self.average is not None and self.training.averages(len(self.history)):
            self.average.update_parameters(self.model)
        if row["validation_accuracy"] > best:
            checkpoint.save(self.folder / "best.safetensors", checkpoint.model_tensors(self.model), {"row": row})
        self.keep_epoch()
        checkpoint.save(self.folder / "last.safetensors", self._tensors(), {"history": self.history})
        self.write_history()

    def write_history(self) -> None:
        """Write ``history.csv``, a view of what the last checkpoint holds."""
        checkpoint.write_text(self.folder / "history.csv", pd.DataFrame(self.history).to_csv(index=False))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = checkpoint.model_tensors(self.model)
        for index, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entries.items()}
        tensors |= {f"method.{name}": tensor for name, tensor in self.method.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        return tensors | {f"random.{name}": state for name, state in self._random_states().items()}

    def _random_states(self) -> dict[str, Tensor]:
        states = {
            "global": torch.get_rng_state(),
            "data_order": self.data_order.get_state(),
            "examples": self.examples.get_state(),
        }
        if self.masks.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.masks.device)
        return states

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        groups: dict[str, dict[str, Tensor]] = {
            group: {} for group in ("model", "optimizer", "method", "average", "random")
        }
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self.model.load_state_dict(groups["model"])
        self.method.load_state_dict(groups["method"])
        if self.average is not None:
            self.average.load_state_dict(groups["average"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        torch.set_rng_state(groups["random"]["global"])
        self.data_order.set_state(groups["random"]["data_order"])
        self.examples.set_state(groups["random"]["examples"])
        if "cuda" in groups["random"]:
            torch.cuda.set_rng_state(groups["random"]["cuda"], self.masks.device)
        self.history = state["history"]
        self.write_history()


def _gradient_norms(config: Config, model: nn.Module, dataset: Dataset) -> GradientNorms | None:
    """What measures gradient norms after each epoch, in batches that training can hold in memory; None: not asked."""
    if not config.training.gradient_norms:
        return None
    batches = dataset.validation.batches(config.training.batch_size, limit=_GRADIENT_NORM_EXAMPLES)
    return GradientNorms(model, batches, config.training.gradient_norms)


def _model_options(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What the model must know of the data and its configuration does not say: classes, vocabulary, word vectors."""
    taken = inspect.signature(MODELS[config.model.name]).parameters if config.model.name in MODELS else ()
    facts = dict(dataset.model_options)
    if (vectors := facts.get("vectors")) is not None:
        facts["embedding_size"] = vectors.shape[1]
    return {key: value for key, value in facts.items() if key in taken}


def _claim(folder: Path, config: Config, dataset: Dataset) -> None:
    """Write ``config.json``, unless the run is being resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").is_file():
        versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
        model = {key: v for key, v in _model_options(config, dataset).items() if not isinstance(v, Tensor)}
        about = {"config": config.to_tables(), "data": dataset.description(), "model": model, "versions": versions}
        checkpoint.write_text(folder / "config.json", json.dumps(about, indent=2) + "\n")


def _check_same_config(folder: Path, config: Config) -> None:
    found = Config.from_tables(json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"])
    if differing := found.differences(config):
        raise ValueError(
            f"{folder} belongs to another configuration: {'; '.join(differing)}; choose another folder or delete it"
        )


def _finish(folder: Path, config: Config, dataset: Dataset, state: _State, reads_test: bool) -> Run:
    """Evaluate the best and the last checkpoint on test data, once, and write ``metrics.json`` last of all."""
    tensors, about = checkpoint.load(folder / "best.safetensors")
    metrics = {"best": about["row"], "last": state.history[-1]}
    if reads_test:
        metrics["last"] = metrics["last"] | _on_test(state.model, dataset)
    state.model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    if reads_test:
        metrics["best"] = metrics["best"] | _on_test(state.model, dataset)
    if state.average is not None:
        metrics["averaged"] = _averaged_metrics(folder, dataset, state.average, reads_test)
    steps = len(state.history) * -(-len(dataset.train) // config.training.batch_size) * state.method.optimizer_steps
    metrics |= {
        "passes_per_step": sum(row["passes"] for row in state.history) / steps,
        "training_seconds": sum(row["seconds"] for row in state.history),
    }
    checkpoint.write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return Run(state.model.eval(), config, metrics)


def _stream(seed: int, purpose: str) -> int:
    """A seed for one of the run's random streams, so that they do not repeat one another."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=7).digest(), "big")


def _on_test(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    return {f"test_{key}": value for key, value in evaluate(model, dataset.test.ordered()).items()}


def _averaged_metrics(folder: Path, dataset: Dataset, average: AveragedModel, reads_test: bool) -> dict[str, float]:
    """Put BatchNorm's statistics right for the averaged weights, keep them, and evaluate them on every split."""
    device = next(average.parameters()).device
    update_bn(((inputs.to(device), labels) for inputs, labels in dataset.train.ordered()), average)
    checkpoint.save(folder / "averaged.safetensors", checkpoint.model_tensors(average.module), {"row": {}})
    found: dict[str, float] = {"epochs": int(average.n_averaged)}
    for split in ("train", "validation"):
        found |= {f"{split}_{key}": value for key, value in evaluate(average, dataset[split].ordered()).items()}
    return found | (_on_test(average, dataset) if reads_test else {})


def _single_examples(
    model: nn.Module, dataset: Dataset, generator: torch.Generator, device: torch.device
) -> Iterator[Closure]:
    """Closures that each return the loss of one training example, in random order."""
    for inputs, labels in dataset.train.shuffled(1, generator):
        yield functools.partial(_loss, model, inputs.to(device), labels.to(device))
