"""Points of one result: those that are known from an earlier start, and a way to the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import xarray as xr
from tqdm.auto import tqdm

from landscape.datasets import attributes_of, center_of, open_surface, write
from landscape.evaluation.journal import Journal, check_same
from landscape.evaluation.values import Node, Values
from landscape.evaluation.walk import Walk, as_they_come
from landscape.evaluation.workers import Parcel
from landscape.parameters import fingerprint

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
        self._parcel: Parcel | None = None
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
        if missing and self._executor is not None and self._parcel is None:
            self._parcel = Parcel(self._walk)
        with contextlib.closing(as_they_come(self._walk, missing, self._executor, self._parcel)) as arriving:
            for node, values in arriving:
                self._journal.add(node, values)
                self._bar.update()
        return {node: known[node] for node in nodes}

    @property
    def known(self) -> Mapping[Node, Values]:
        """All points that are known."""
        return self._journal.values

    def check_center(self, center: Node) -> None:
        """Compare what is known of the center with what is found there now: functions have no fingerprints.

        Raises:
            ValueError: they differ.
        """
        known = self._journal.values.get(center, {} if self.finished is None else center_of(self.finished))
        if not known:
            return
        with self._walk.begun() as values:
            here = values([center])[0]
        for split, columns in known.items():
            for column, there in columns.items():
                now = here[split][column]
                same = math.isclose(there, now, rel_tol=1e-4, abs_tol=1e-9) or (math.isnan(there) and math.isnan(now))
                if not same:
                    what = "another loss function" if column.startswith("loss") else "other metrics"
                    raise ValueError(
                        f"{self._journal.path if self.finished is None else self._path} belongs to {what}: its "
                        f"{column} at the center is {there:.8g}, and {now:.8g} now; delete it, or choose another path"
                    )
        self._journal.values.setdefault(center, here)

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
    model = walk.first.eager
    state = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    return {
        "options": {split: risk.options for split, risk in walk.risks.items()},
        "weights": fingerprint(state | dict(walk.center or {})),
        "data": {split: risk.fingerprint() for split, risk in walk.risks.items()},
        "directions": [fingerprint(direction) for direction in walk.directions],
        "metrics": {split: risk.metric_names for split, risk in walk.risks.items()},
    }
