"""Points of one result: those that are known from an earlier start, and a way to the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from landscape.datasets import attributes_of, open_surface, write
from landscape.journal import Journal, check_same
from landscape.parameters import fingerprint
from landscape.totals import Node, Values
from landscape.walk import Walk, as_they_come

__all__ = ["Points"]


class Points(contextlib.AbstractContextManager["Points"]):
    """Evaluates what is not known yet, and keeps points as they come.

    Args:
        walk: what is evaluated.
        path: of the result's file; None: nothing is kept.
        settings: what else the points depend on, by a word for each.
        executor: where; None: in this process.
        progress: show a progress bar on standard error.
        description: of the bar.

    Attributes:
        finished: what an earlier start has written to the path, or None.

    Raises:
        ValueError: the file or its journal belongs to other weights, data, directions or settings.
    """

    def __init__(
        self,
        walk: Walk,
        path: str | Path | None,
        settings: Mapping[str, Any],
        executor: concurrent.futures.Executor | None,
        progress: bool,
        description: str,
    ) -> None:
        self._walk = walk
        self._path = None if path is None else Path(path)
        self._executor = executor
        self._identity: dict[str, Any] = {}
        self._attributes = attributes_of(walk)
        self.finished: xr.Dataset | None = None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)  # before the long part, not after it
            self._identity = _identity(walk) | dict(settings)
            if self._path.exists():
                self.finished = self._read(self._path)
        self._journal = Journal(self._path, self._identity)
        self._bar = tqdm(desc=description, unit="point", disable=not progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        self._bar.close()

    def know(self, values: Mapping[Node, Values]) -> None:
        """Take points from the finished file."""
        self._journal.values |= values

    def at(self, nodes: Iterable[Node]) -> dict[Node, Values]:
        """The values at points; those that are not known yet are evaluated, and kept as they come."""
        nodes = list(nodes)
        known = self._journal.values
        missing = [node for node in nodes if node not in known]
        with contextlib.closing(as_they_come(self._walk, missing, self._executor)) as arriving:
            for node, values in arriving:
                self._journal.add(node, values)
                self._bar.update()
        return {node: known[node] for node in nodes}

    def check_loss(self, node: Node) -> None:
        """Compare what is known of a point with what is found there now: a loss function has no fingerprint.

        Raises:
            ValueError: they differ.
        """
        if node not in self._journal.values:
            return
        with self._walk.begun() as values:
            here = values([node])[0]
        for split, columns in self._journal.values[node].items():
            if not math.isclose(columns["loss"], here[split]["loss"], rel_tol=1e-4, abs_tol=1e-9):
                raise ValueError(
                    f"{self._path} belongs to another loss function: it has the loss {columns['loss']:.8g} at the "
                    f"center, where it is {here[split]['loss']:.8g} now; delete it, or choose another path"
                )

    def finish(self, result: xr.Dataset) -> xr.Dataset:
        """Add what every result says of its making; write it, and delete the journal."""
        result.attrs = self._attributes | result.attrs
        if self._path is not None:
            result.attrs["identity"] = json.dumps(self._identity)
            write(result, self._path)
        self._journal.delete()
        return result

    def _read(self, path: Path) -> xr.Dataset:
        result = open_surface(path)
        if "identity" not in result.attrs:
            raise ValueError(f"{path} does not say which weights and data it belongs to; choose another path")
        check_same(path, json.loads(result.attrs["identity"]), self._identity)
        return result


def _identity(walk: Walk) -> dict[str, Any]:
    model = {name: value for name, value in walk.first.model.state_dict().items() if isinstance(value, Tensor)}
    return {
        "weights": fingerprint(model | dict(walk.center or {})),
        "data": {split: risk.fingerprint() for split, risk in walk.risks.items()},
        "directions": [fingerprint(direction) for direction in walk.directions],
        "metrics": {split: risk.metric_names for split, risk in walk.risks.items()},
        "options": {split: risk.options for split, risk in walk.risks.items()},
    }
