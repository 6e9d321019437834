"""One row of a study's table: a method, what is tried on validation data, and how many seeds it gets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from dropattack.config import Config, Named
from dropattack.methods.controls import controls
from dropattack.names import unknown

__all__ = ["Row", "Setting"]

# Keys of a [methods.NAME] table that are the study's; all others are hyperparameters of the method.
_OURS = ("seeds", "trials", "follows", "control", "model", "training")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A method with its hyperparameters, and what it changes in the model and the training of the study.

    Attributes:
        method: what replaces the backward pass.
        model: options of the model, such as ``dropout``.
        training: keys of ``[training]``, such as ``epochs`` for more passes.
    """

    method: Named
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_changes(self, changes: Mapping[str, Any]) -> Setting:
        """Hyperparameters replaced by ``changes``, whose tables ``model`` and ``training`` go where they belong."""
        options = {key: value for key, value in changes.items() if key not in ("model", "training")}
        return Setting(
            Named(self.method.name, {**self.method.options, **options}),
            {**self.model, **changes.get("model", {})},
            {**self.training, **changes.get("training", {})},
        )

    def config(self, base: Config, seed: int) -> Config:
        """The run of this setting with one seed.

        Raises:
            ValueError: an unknown key of ``training``, or a value out of range.
        """
        tables = base.to_tables()
        tables["method"] = self.method.to_table()
        tables["model"] |= self.model
        tables["training"] |= {**self.training, "seed": seed}
        return Config.from_tables(tables)

    def text(self) -> str:
        """As JSON, for a cell of a table: the same text for the same setting."""
        changes = {key: value for key, value in (("model", self.model), ("training", self.training)) if value}
        options = dict(sorted(self.method.options.items()))
        return json.dumps({"name": self.method.name, **options, **changes})


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        setting: the method as it is written in the file, before any trial.
        trials: changes to try on validation data; empty: the setting is fixed.
        seeds: of the final runs; None: the study's.
        follows: name of the row whose chosen setting this one takes, before its own changes; None: none.
        control: which of :func:`dropattack.methods.controls.controls` of that setting this row is; None: itself.
    """

    setting: Setting
    trials: tuple[Mapping[str, Any], ...] = ()
    seeds: tuple[int, ...] | None = None
    follows: str | None = None
    control: str | None = None

    @classmethod
    def from_table(cls, section: str, table: Any) -> Row:
        """Read a ``[methods.NAME]`` table, or a method's name alone.

        Raises:
            ValueError: neither, a key of the wrong type, or a row that follows another and names a method or trials.
        """
        if not isinstance(table, Mapping):
            return cls(Setting(Named.from_table(section, table)))
        ours = {key: table[key] for key in _OURS if key in table}
        rest = {key: value for key, value in table.items() if key not in ours}
        follows, control, trials = ours.get("follows"), ours.get("control"), ours.get("trials", [])
        if control is not None and follows is None:
            raise ValueError(f"[{section}]: control: needs follows, the row that it is a control of")
        if follows is not None and ("name" in rest or trials):
            raise ValueError(f"[{section}]: a row that follows another has its method and trials: drop name and trials")
        for key in ("model", "training"):
            if not isinstance(ours.get(key, {}), Mapping):
                raise ValueError(f"[{section}]: {key}: expected a table, got {ours[key]!r}")
        if not isinstance(trials, list) or not all(isinstance(trial, Mapping) for trial in trials):
            raise ValueError(f"[{section}]: trials: expected a list of tables, got {trials!r}")
        seeds = ours.get("seeds")
        return cls(
            Setting(
                Named(follows, rest) if follows is not None else Named.from_table(section, rest),
                ours.get("model", {}),
                ours.get("training", {}),
            ),
            tuple(trials),
            None if seeds is None else seed_list(f"[{section}]: seeds", seeds),
            follows,
            control,
        )

    def tried(self) -> tuple[Setting, ...]:
        """The setting of each trial."""
        return tuple(self.setting.with_changes(trial) for trial in self.trials)

    def following(self, chosen: Setting) -> Setting:
        """This row's setting, given the one that was chosen for the row it follows.

        Raises:
            ValueError: the row followed is none of DropAttack, or there is no such control.
        """
        if self.control is not None:
            known = controls(chosen.method.to_table())
            if self.control not in known:
                raise ValueError(unknown("control", self.control, known))
            chosen = dataclasses.replace(chosen, method=Named.from_table("control", known[self.control]))
        own = self.setting
        return chosen.with_changes({**own.method.options, "model": own.model, "training": own.training})


def seed_list(key: str, value: Any) -> tuple[int, ...]:
    """Check a list of seeds.

    Raises:
        ValueError: no list, empty, or something in it that is no whole number.
    """
    whole = isinstance(value, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value)
    if not whole or not value:
        raise ValueError(f"{key}: expected a list of whole numbers, got {value!r}")
    return tuple(value)
