"""Checkpoints: one safetensors file each, with everything that is not a tensor as JSON in its header.

One file, written beside its place and renamed into it, is either the old or the new checkpoint whenever the job is
killed. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dropattack.config import Config
from dropattack.models import build_model

__all__ = ["Run", "load", "load_run", "model_tensors", "save", "write_text"]

_HEADER_KEY = "dropattack"
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: where to.
        tensors: by name; each gets memory of its own in the file.
        state: anything that JSON holds.
    """
    temporary = path.with_name(f".{path.name}.part")
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(owned, temporary, metadata={_HEADER_KEY: json.dumps(state)})
    temporary.replace(path)


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint: tensors on the CPU, and the state that was saved with them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, a pickle (which could run code and is never opened), or not ours.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    with path.open("rb") as stream:
        start = stream.read(9)
        # Safetensors: eight bytes of length, which may look like anything, and then the brace of a JSON header.
        if start.startswith(_PICKLE_STARTS) and start[8:] != b"{":
            raise ValueError(
                f"{path} is a pickle (torch.save), which could run code when opened: refused; write the weights with "
                "safetensors.torch.save_file instead"
            )
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not a safetensors file ({error}); delete it and train again, or copy it anew"
        ) from error
    if header is None:
        raise ValueError(
            f"{path} is a safetensors file, but not a checkpoint of this package: its header lacks our state"
        )
    return tensors, json.loads(header)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What ``model.state_dict()`` holds, under ``model.`` names."""
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


class Run(NamedTuple):
    """A training run on disk."""

    model: nn.Module
    config: Config
    metrics: dict[str, Any]


def load_run(path: str | Path, checkpoint: str = "best") -> Run:
    """The model of a finished run, in evaluation mode on the CPU, with its configuration and metrics.

    Args:
        path: the run's folder.
        checkpoint: ``"best"`` (highest validation accuracy), ``"last"``, or ``"averaged"`` (a run with
            ``training.average_from``).

    Raises:
        FileNotFoundError: not a run's folder, the run is not finished, or it kept no average.
        ValueError: a broken file.
    """
    folder = Path(path)
    if not (folder / "metrics.json").is_file():
        hint = "train it to the end first" if (folder / "config.json").is_file() else "expected a run's folder"
        raise FileNotFoundError(f"no {folder / 'metrics.json'}: {hint}")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = Config.from_tables(about["config"])
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    tensors, _ = load(folder / f"{checkpoint}.safetensors")
    with torch.random.fork_rng():  # initial weights are drawn and overwritten; the caller's stream stays put
        model = build_model(config.model.name, **{**about["model"], **config.model.options})
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    return Run(model.eval(), config, metrics)
