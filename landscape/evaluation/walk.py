"""A walk over points in weight space: here, or on the workers of an executor, with points kept as they come."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from landscape.evaluation import workers
from landscape.evaluation.values import Node, Values
from landscape.risk import EmpiricalRisk

__all__ = ["Measure", "Risks", "Walk", "as_they_come", "evaluate", "named"]

Measure = Callable[[EmpiricalRisk], Mapping[str, float]]
Risks = EmpiricalRisk | Mapping[str, EmpiricalRisk]

# Positions that share one reading of batches that are made anew at each reading (a data loader's).
_POINTS_A_READING = 16
_SECONDS_A_TASK = 0.2  # long beside what sending a task costs, short beside what a kill may lose
_MOST_POINTS_A_TASK = 64

_Task = concurrent.futures.Future[workers.Answer | None]


@dataclasses.dataclass(frozen=True)
class Walk:
    """What is evaluated, and along what.

    Attributes:
        risks: split to risk; all of one model. A single risk without a name has the split ``""``.
        directions: the coordinates of a point count along these.
        center: the point with coordinates 0; None: the model's weights.
        measure: from a risk whose model has been moved to a named row of numbers; None: mean loss, its standard error,
            and the means of the metrics.
    """

    risks: Mapping[str, EmpiricalRisk]
    directions: Sequence[Mapping[str, Tensor]]
    center: Mapping[str, Tensor] | None = None
    measure: Measure | None = None

    def __post_init__(self) -> None:
        if not self.risks:
            raise ValueError("risk: expected at least one, got an empty dictionary")
        for split, risk in self.risks.items():
            if risk.model is not self.first.model:
                raise ValueError(f"risk {split!r} has another model: one walk over the points moves one model")

    @property
    def first(self) -> EmpiricalRisk:
        """Any of the risks: they share the model."""
        return next(iter(self.risks.values()))

    @contextlib.contextmanager
    def begun(self) -> Iterator[Callable[[Sequence[Node]], list[Values]]]:
        """Inside the block, a function from points to their values; after it, the model is as it was."""
        with contextlib.ExitStack() as stack:
            move = stack.enter_context(self.first.along(self.directions, self.center))
            if self.measure is None:
                stack.enter_context(self.first.evaluation())

            def values(nodes: Sequence[Node]) -> list[Values]:
                found: list[Values] = [{} for _ in nodes]
                for split, risk in self.risks.items():
                    if self.measure is None:
                        moves = [functools.partial(move, node) for node in nodes]
                        rows = [value.columns() for value in risk.at_each(moves)]
                    else:
                        rows = [_measured(move, node, self.measure, risk) for node in nodes]
                    for columns, row in zip(found, rows, strict=True):
                        columns[split] = row
                return found

            yield values

    @property
    def points_a_reading(self) -> int:
        """How many points share one reading of the batches."""
        readings_are_free = self.measure is not None or all(risk.rereading_is_free for risk in self.risks.values())
        return 1 if readings_are_free else _POINTS_A_READING


def named(risk: Risks) -> dict[str, EmpiricalRisk]:
    """Risks by split; a single one has the split ``""``."""
    return dict(risk) if isinstance(risk, Mapping) else {"": risk}


def evaluate(
    walk: Walk,
    nodes: Sequence[Node],
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
    description: str = "points",
) -> dict[Node, Values]:
    """The values at each point, in the order of the points.

    Args:
        walk: what to evaluate.
        nodes: coordinates along the walk's directions.
        executor: where; None: in this process, on the model itself. Workers get copies.
        progress: show a progress bar on standard error.
        description: of the bar.

    Raises:
        RuntimeError: a worker died.
        TypeError: the model, the data or the loss cannot be sent to another process.
    """
    with tqdm(total=len(set(nodes)), desc=description, unit="point", disable=not progress) as bar:
        found = {}
        for node, values in as_they_come(walk, nodes, executor):
            found[node] = values
            bar.update()
    return {node: found[node] for node in nodes}


def as_they_come(
    walk: Walk,
    nodes: Sequence[Node],
    executor: concurrent.futures.Executor | None = None,
    parcel: workers.Parcel | None = None,
) -> Generator[tuple[Node, Values], None, None]:
    """Points and their values, in the order in which they are finished.

    Args:
        walk: as for :func:`evaluate`.
        nodes: as for :func:`evaluate`.
        executor: as for :func:`evaluate`.
        parcel: the walk, packed, if it is evaluated more than once: workers that hold it need not be sent it again.
    """
    nodes = list(dict.fromkeys(nodes))
    if executor is None or not nodes:
        return _here(walk, nodes)
    return _elsewhere(walk, nodes, executor, parcel or workers.Parcel(walk))


def _measured(move: Callable[[Node], None], node: Node, measure: Measure, risk: EmpiricalRisk) -> dict[str, float]:
    move(node)
    return dict(measure(risk))


def _here(walk: Walk, nodes: Sequence[Node]) -> Generator[tuple[Node, Values], None, None]:
    if nodes:
        with walk.begun() as values:
            for chunk in _chunks(nodes, walk.points_a_reading):
                yield from zip(chunk, values(chunk), strict=True)


def _elsewhere(
    walk: Walk, nodes: Sequence[Node], executor: concurrent.futures.Executor, parcel: workers.Parcel
) -> Generator[tuple[Node, Values], None, None]:
    crew = _Crew(executor, parcel)
    random_state = torch.get_rng_state()  # threads of this process share its random stream
    # A few small tasks first; the first answer says how many points make a task of a good length.
    first = 2 * (os.cpu_count() or 1) * walk.points_a_reading
    rest = nodes[first:]
    try:
        crew.submit(_chunks(nodes[:first], walk.points_a_reading))
        while crew.waiting:
            answers, error = crew.next_answers()
            for chunk, answer in answers:
                if rest:
                    long_enough = round(_SECONDS_A_TASK * len(chunk) / max(answer.seconds, 1e-9))
                    evenly = len(rest) // (2 * first)  # several tasks for each worker, so that all end together
                    a_task = min(long_enough, evenly, _MOST_POINTS_A_TASK)
                    crew.submit(_chunks(rest, max(a_task, walk.points_a_reading)))
                    rest = []
                yield from zip(chunk, answer.values, strict=True)
            if error is not None:
                raise error
    except concurrent.futures.BrokenExecutor as error:
        raise RuntimeError(
            f"a worker died ({error}): out of memory, or killed; points that were finished are kept if there is a "
            "path, and a new start with a new executor goes on from there"
        ) from error
    finally:
        crew.dismiss()
        torch.set_rng_state(random_state)


class _Crew:
    """Tasks under way on an executor, and which of them carry the walk.

    A task that finds a worker without the walk is sent again, with it. While others with it are under way (as many as
    have equipped a worker before), it waits for an answer: or a worker without the walk would be handed task after
    task, and each of them the walk.
    """

    def __init__(self, executor: concurrent.futures.Executor, parcel: workers.Parcel) -> None:
        self._executor = executor
        self._parcel = parcel
        self._carrying: set[_Task] = set()
        self._equipped = 0
        self._parked: list[Sequence[Node]] = []
        self.waiting: dict[_Task, Sequence[Node]] = {}

    def submit(self, chunks: Iterable[Sequence[Node]], packed: bytes | None = None) -> None:
        """Send tasks, without the walk unless it is given."""
        for chunk in chunks:
            with warnings.catch_warnings():
                # Dask's, about large arguments: each worker is sent this one about once.
                warnings.filterwarnings("ignore", message="Sending large graph")
                task = self._executor.submit(workers.work, self._parcel.key, packed, chunk)
            self.waiting[task] = chunk
            if packed is not None:
                self._carrying.add(task)

    def next_answers(self) -> tuple[list[tuple[Sequence[Node], workers.Answer]], BaseException | None]:
        """What has been answered since; and the first error, if there was one."""
        done, _ = concurrent.futures.wait(self.waiting, return_when=concurrent.futures.FIRST_COMPLETED)
        answers: list[tuple[Sequence[Node], workers.Answer]] = []
        first_error: BaseException | None = None
        for task in done:
            chunk = self.waiting.pop(task)
            carried = task in self._carrying
            self._carrying.discard(task)
            error = task.exception()
            if error is not None:
                first_error = first_error or error
            elif (answer := task.result()) is None:
                self._parked.append(chunk)
            else:
                self._equipped += carried
                answers.append((chunk, answer))
        if first_error is None:
            while self._parked and len(self._carrying) < max(1, self._equipped):
                self.submit([self._parked.pop()], self._parcel.packed)
            if answers:
                self.submit(self._parked)
                self._parked = []
        return answers, first_error

    def dismiss(self) -> None:
        """Cancel what has not begun, and wait for what has: a thread would go on moving its model."""
        # Only for those that run: whether one that was cancelled ever counts as done is up to the executor, and Dask's
        # never does.
        concurrent.futures.wait([task for task in self.waiting if not task.cancel()])


def _chunks(nodes: Sequence[Node], size: int) -> Iterator[Sequence[Node]]:
    return (nodes[start : start + size] for start in range(0, len(nodes), size))
