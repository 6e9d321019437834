"""What a run is: frozen dataclasses, read from TOML, written as JSON."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropattack.names import unknown

__all__ = ["Config", "Named", "Training"]


@dataclasses.dataclass(frozen=True)
class Named:
    """Something chosen by name, with its options (a ``[data]``, ``[model]`` or ``[method]`` table of the TOML file)."""

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_table(cls, section: str, table: Any) -> Named:
        """Read ``{name = "…", option = …}``, or a name alone.

        Raises:
            ValueError: neither a table nor a name, or the name is missing.
        """
        if isinstance(table, str):
            return cls(table)
        if not isinstance(table, Mapping):
            raise ValueError(f"[{section}]: expected a table or a name, got {table!r}")
        if not isinstance(table.get("name"), str):
            raise ValueError(f"[{section}]: expected a `name`, got {', '.join(table) or 'an empty table'}")
        return cls(table["name"], {key: value for key, value in table.items() if key != "name"})

    def to_table(self) -> dict[str, Any]:
        """The inverse of :meth:`from_table`."""
        return {"name": self.name, **self.options}


@dataclasses.dataclass(frozen=True)
class Training:
    """The training loop. The defaults of batch size and learning rate are the paper's (section 4.2).

    Attributes:
        epochs: passes over the training data; the paper does not say how many.
        batch_size: examples a step; the last batch of an epoch may be smaller.
        learning_rate: Adam's.
        seed: of initial weights, data order, dropout and masks; each has a stream of its own, so that two methods with
            one seed start from the same weights and see the same batches.
        device: where to train, such as ``"cpu"`` or ``"cuda"``.
        average_from: share of the epochs after which the weights of all further epochs are averaged (stochastic weight
            averaging, Izmailov et al. 2018, who begin at 0.75); None: no average is kept.
        average_learning_rate: Adam's while averaging; None: as ``learning_rate``.
        keep_epochs: keep the initial weights and those after each epoch, in ``epochs/``, for the trajectory of the run.
        gradient_norms: where the gradient's norm is measured after each epoch, for ``history.csv``: ``"input"``, module
            names (their outputs), parameter names and patterns, ``"*"`` for every parameter; empty: nowhere.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "cpu"
    average_from: float | None = None
    average_learning_rate: float | None = None
    keep_epochs: bool = False
    gradient_norms: tuple[str, ...] = ()

    def averages(self, epoch: int) -> bool:
        """Whether the weights after this epoch (the first is 1) go into the average."""
        return self.average_from is not None and epoch > self.average_from * self.epochs

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"training.{name}: expected a whole number of at least 1, got {value!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"training.seed: expected a whole number of at least 0, got {self.seed!r}")
        for name in ("learning_rate", "average_learning_rate"):
            value = getattr(self, name)
            is_unset = value is None and name == "average_learning_rate"
            if not is_unset and (not isinstance(value, int | float) or not value > 0):
                raise ValueError(f"training.{name}: expected a positive number, got {value!r}")
        share = self.average_from
        if share is not None and (not isinstance(share, int | float) or not 0 <= share < 1):
            raise ValueError(f"training.average_from: expected a share of the epochs in [0, 1), got {share!r}")
        if not isinstance(self.keep_epochs, bool):
            raise ValueError(f"training.keep_epochs: expected true or false, got {self.keep_epochs!r}")
        sites: object = self.gradient_norms
        if isinstance(sites, str) or not isinstance(sites, Sequence) or not all(isinstance(s, str) for s in sites):
            raise ValueError(f'training.gradient_norms: expected a list such as ["input", "*"], got {sites!r}')
        object.__setattr__(self, "gradient_norms", tuple(sites))  # TOML and JSON have lists
        if share is None and self.average_learning_rate is not None:
            raise ValueError("training.average_learning_rate: needs training.average_from, the share to average from")


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run."""

    data: Named = Named("mnist-5k")
    model: Named = Named("lenet5")
    method: Named = Named("standard")
    training: Training = Training()

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Config:
        """Read nested tables, as TOML and JSON give them.

        Raises:
            ValueError: an unknown key (the message names the nearest known ones), or a value out of range.
        """
        for key in tables:
            if key not in (known := [field.name for field in dataclasses.fields(cls)]):
                raise ValueError(unknown("config key", key, known))
        training = _table("training", tables.get("training", {}))
        for key in training:
            if key not in (known := [field.name for field in dataclasses.fields(Training)]):
                raise ValueError(unknown("config key", f"training.{key}", [f"training.{name}" for name in known]))
        defaults = cls()
        return cls(
            data=Named.from_table("data", tables["data"]) if "data" in tables else defaults.data,
            model=Named.from_table("model", tables["model"]) if "model" in tables else defaults.model,
            method=Named.from_table("method", tables["method"]) if "method" in tables else defaults.method,
            training=Training(**training),
        )

    @classmethod
    def from_toml(cls, path: str | Path) -> Config:
        """Read a TOML file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not TOML, an unknown key, or a value out of range; the message names the file.
        """
        try:
            return cls.from_tables(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:  # tomllib.TOMLDecodeError is one
            raise ValueError(f"{path}: {error}") from error

    def to_tables(self) -> dict[str, Any]:
        """The inverse of :meth:`from_tables`, in types that JSON has."""
        tables = {
            "data": self.data.to_table(),
            "model": self.model.to_table(),
            "method": self.method.to_table(),
            "training": dataclasses.asdict(self.training),
        }
        plain: dict[str, Any] = json.loads(json.dumps(tables))
        return plain

    def differences(self, other: Config) -> list[str]:
        """The keys in which two configurations differ, such as ``training.epochs``, with both values."""
        mine, theirs = _flat(self.to_tables()), _flat(other.to_tables())
        return [
            f"{key} ({mine.get(key)!r} and {theirs.get(key)!r})"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]


def _table(section: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"[{section}]: expected a table, got {value!r}")
    return value


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
