"""What a study is, read from its TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path

from dropattack.config import Config
from dropattack.names import unknown
from dropattack.study.rows import Row, Setting, seed_list

__all__ = ["Study"]

_KEYS = ["seeds", "tuning_seeds", "data", "model", "training", "methods"]


@dataclasses.dataclass(frozen=True)
class Study:
    """Methods on one data set and one model: each tuned by as many trials, then trained with new seeds.

    Attributes:
        name: the file's, without its ending.
        base: data, model and training of every run, unless its row changes them.
        methods: rows of the result, by the name they are to have there.
        seeds: of the final runs of rows that have none of their own.
        tuning_seeds: of every trial; none of them is a seed of a final run.
    """

    name: str
    base: Config
    methods: Mapping[str, Row]
    seeds: tuple[int, ...] = (0,)
    tuning_seeds: tuple[int, ...] = (100,)

    @classmethod
    def from_toml(cls, path: str | Path) -> Study:
        """Read ``seeds``, ``tuning_seeds``, ``[data]``, ``[model]``, ``[training]`` and a ``[methods.NAME]`` for each row.

        A row has the method's ``name`` and hyperparameters, and may have ``seeds`` of its own, changes to ``model`` and
        ``training``, and ``trials``: a list of changes to try on validation data, such as
        ``[{epsilon = 0.1}, {epsilon = 1.0}]``. A row with ``follows = "OTHER"`` has the setting chosen for that row, with
        its own changes; with ``control`` too, it is that control of it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not TOML, an unknown key, a value out of range, rows with different numbers of trials, or a seed
                that is used both for tuning and for the final runs; the message names the file.
        """  # noqa: E501 - the first line is a list of keys
        path = Path(path)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
            for key in tables:
                if key not in _KEYS:
                    raise ValueError(unknown("study key", key, _KEYS))
            methods = tables.pop("methods", {})
            if not isinstance(methods, Mapping) or not methods:
                raise ValueError("[methods]: expected a table for each method, such as [methods.standard]")
            seeds = seed_list("seeds", tables.pop("seeds", [0]))
            tuning_seeds = seed_list("tuning_seeds", tables.pop("tuning_seeds", [100]))
            rows = {name: Row.from_table(f"methods.{name}", table) for name, table in methods.items()}
            study = cls(path.stem, Config.from_tables(tables), rows, seeds, tuning_seeds)
            study.check()
        except ValueError as error:  # tomllib.TOMLDecodeError is one
            raise ValueError(f"{path}: {error}") from error
        return study

    def check(self) -> None:
        """Refuse what would make the comparison unfair or could not run.

        Raises:
            ValueError: see :meth:`from_toml`.
        """
        counts = {name: len(row.trials) for name, row in self.methods.items() if row.trials}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"trials: expected the same number for every method that has any, got {told}")
        for name, row in self.methods.items():
            if counts and (both := set(self.seeds_of(name)) & set(self.tuning_seeds)):
                raise ValueError(f"seeds: {min(both)} is a tuning seed, too; the final runs need new ones")
            if row.follows is not None:
                if row.follows not in self.methods:
                    raise ValueError(unknown("row to follow", row.follows, self.methods))
                if self.methods[row.follows].follows is not None:
                    raise ValueError(f"[methods.{name}]: {row.follows} follows a row itself: follow that one")
        for config in (*self.trials().values(), *self.runs(dict.fromkeys(counts, 0)).values()):
            config.differences(self.base)  # all are built: an unknown key of training shows here, not after hours

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """The seeds of a row's final runs."""
        seeds = self.methods[method].seeds
        return self.seeds if seeds is None else seeds

    def trials(self) -> dict[str, Config]:
        """The configuration of each trial, by the name of its folder."""
        return {
            trial_folder(name, number, seed): setting.config(self.base, seed)
            for name, row in self.methods.items()
            for number, setting in enumerate(row.tried())
            for seed in self.tuning_seeds
        }

    def setting(self, method: str, chosen: Mapping[str, int]) -> Setting | None:
        """What a row's final runs are trained with; None while that is not known.

        Args:
            method: the row.
            chosen: number of the chosen trial, for each row where it is known.
        """
        row = self.methods[method]
        if row.follows is not None:
            followed = self.setting(row.follows, chosen)
            return None if followed is None else row.following(followed)
        if not row.trials:
            return row.setting
        return row.tried()[chosen[method]] if method in chosen else None

    def runs(self, chosen: Mapping[str, int] | None = None) -> dict[str, Config]:
        """The configuration of each final run that can be trained, by the name of its folder.

        Args:
            chosen: as for :meth:`setting`; None: no trial is known, so only rows with a fixed setting.
        """
        settings = {name: self.setting(name, chosen or {}) for name in self.methods}
        most = max(len(self.seeds_of(name)) for name in self.methods)
        return {  # the first seed of every row comes first, so that an early look shows all rows
            run_folder(name, self.seeds_of(name)[place]): setting.config(self.base, self.seeds_of(name)[place])
            for place in range(most)
            for name, setting in settings.items()
            if setting is not None and place < len(self.seeds_of(name))
        }


def run_folder(method: str, seed: int) -> str:
    """Where a final run is, in the folder of the study's runs."""
    return f"{method}-seed{seed}"


def trial_folder(method: str, number: int, seed: int) -> str:
    """Where a trial is, in the folder of the study's runs."""
    return f"tuning/{method}-{number}-seed{seed}"
