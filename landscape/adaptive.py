"""Adaptive sampling: few evaluations where a function is smooth, more where a prediction missed.

The box is divided into cells whose corners lie on a uniform lattice. The interpolant predicts values in the middle of a
cell and on an edge *before* they are evaluated. Where a prediction misses, the cell is split, its neighbors come under
suspicion, and the finer lattice is filled: with what was evaluated where it was, with what the coarser lattice predicts
elsewhere. Points that were predicted well do not enter the fit. They are held out, and the error that is reported is
the largest of theirs, times a factor for those that nobody looked at.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from landscape.interpolation import Form, Interpolant, bounds_of, range_of
from landscape.totals import Node

__all__ = ["Fit", "Refined", "Tolerance", "refine"]

Rows = Mapping[str, float]
Index = tuple[int, ...]  # of a point, or of the lowest corner of a cell
Key = tuple[int, Index]  # level of a cell and its lowest corner

_LOSS_FORMS = (Form("none"), Form("root"), Form("logarithm"))
_OTHER_FORMS = (Form("none", 1), Form("none", 3))  # accuracy is a step function: straight lines are a candidate

# Points a side of the first lattice and of the finest one. A volume starts coarser: its points grow with the cube.
_COARSEST = {1: 9, 2: 9, 3: 5}
_FINEST = {1: 257, 2: 65, 3: 17}
_AUDITED = 8  # cells chosen by chance that must also be predicted well, in each round
_SUSPECT = 0.5  # share of the allowed error from which a cell is tested
_DECAY = 0.25  # of the error from a cell to its children, where nothing is known yet; cubic splines reach 1/16
_SAFETY = 1.5  # held-out points sample some cells, and those in their middles: the largest error is larger than theirs
_SWITCH = 0.8  # another form must be better by this factor
_NEGLIGIBLE = 1e-4  # of the range: smaller values count as this much where errors are relative to values


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a prediction may be off.

    Attributes:
        of_range: as a share of the function's range.
        of_value: as a share of the value itself, so that a basin is resolved although a wall beside it decides the
            range. Values below 1/10,000 of the range count as that much.
    """

    of_range: float
    of_value: float

    def allowed(self, value: np.ndarray, value_range: float) -> np.ndarray:
        """The largest allowed error at places with these values."""
        local = self.of_value * np.maximum(np.abs(value), _NEGLIGIBLE * value_range)
        return np.minimum(self.of_range * value_range, local)


@dataclasses.dataclass(frozen=True)
class Fit:
    """One variable on the lattice.

    Attributes:
        values: on the lattice, evaluated or predicted.
        form: how it is interpolated.
        error: the largest error at the points that were held out, in the variable's unit.
    """

    values: np.ndarray
    form: Form
    error: float


@dataclasses.dataclass(frozen=True)
class Refined:
    """What refinement ends with.

    Attributes:
        axes: the lattice.
        evaluated: where on it the function was evaluated.
        fits: variable to its fit.
        held_out: points beside the lattice that were evaluated to test predictions.
        relative_error: the largest error at those, as a share of the value (of the variables that must converge).
        converged: every cell that was tested is predicted within the tolerance, and so were those chosen by chance.
    """

    axes: tuple[np.ndarray, ...]
    evaluated: np.ndarray
    fits: dict[str, Fit]
    held_out: list[Node]
    relative_error: float
    converged: bool


def refine(
    evaluate: Callable[[Sequence[Node]], Mapping[Node, Rows]],
    spans: Sequence[float],
    tolerance: Tolerance,
    must_converge: Callable[[str], bool],
    seed: int = 0,
    finest: int | None = None,
) -> Refined:
    """Sample a function on a box until predictions hold.

    Args:
        evaluate: from points to named values at each.
        spans: half the length of the box along each dimension.
        tolerance: when a prediction is good enough.
        must_converge: which variables decide; the others are interpolated beside them, and their error is reported.
        seed: of the cells that are audited.
        finest: points a side of the finest lattice; None: 257, 65 and 17 in one, two and three dimensions.
    """
    return _Refinement(evaluate, spans, tolerance, must_converge, seed, finest).run()


@dataclasses.dataclass
class _Cell:
    """A cell that is not split.

    Attributes:
        expected: the misfit, error over allowed error, that is expected in its middle.
        before: the misfit in the middle of the cell that it is a part of.
        misfit: in its middle, by the present fit; None until it is tested.
    """

    expected: float
    before: float = np.nan
    misfit: float | None = None


class _Refinement:
    """The state of one refinement. Indices count in halves of the finest cells, so that these have a middle too."""

    def __init__(
        self,
        evaluate: Callable[[Sequence[Node]], Mapping[Node, Rows]],
        spans: Sequence[float],
        tolerance: Tolerance,
        must_converge: Callable[[str], bool],
        seed: int,
        finest: int | None,
    ) -> None:
        self._evaluate = evaluate
        self._spans = tuple(spans)
        self._tolerance = tolerance
        self._must_converge = must_converge
        self._chance = np.random.default_rng(seed)
        self._dimensions = range(len(self._spans))
        coarsest = _COARSEST[len(self._spans)]
        finest = _FINEST[len(self._spans)] if finest is None else finest
        self._size = 2 * (finest - 1)
        ratio, remainder = divmod(self._size, coarsest - 1)
        if finest < coarsest or remainder or ratio & (ratio - 1):
            raise ValueError(
                f"finest: expected {coarsest - 1} times a power of two, plus one, such as {_FINEST[len(self._spans)]}, "
                f"got {finest}"
            )
        self._strides = [ratio >> level for level in range(ratio.bit_length() - 1)]
        self._rows: dict[Index, Rows] = {}
        self._fitted: set[Index] = set()
        self._cells: dict[Key, _Cell] = {}
        self._forms: dict[str, Form] = {}
        self._decay = _DECAY

    def run(self) -> Refined:
        first = self._strides[0]
        self._fit(itertools.product(range(0, self._size + 1, first), repeat=len(self._dimensions)))
        self._look_back()
        while True:
            keys = self._suspects()
            audit = not keys
            if audit and not (keys := self._audited()):
                break
            self._test(keys)
            missed = [key for key, cell in self._cells.items() if (cell.misfit or 0) > 1 and self._can_split(key)]
            if audit and not missed:
                break
            self._split(missed)
        self._judge()
        return self._result()

    def _look_back(self) -> None:
        """A first idea of forms and errors: how well every other point of the first lattice tells the ones between."""
        first = self._strides[0]
        finer, coarser = self._axes(first), self._axes(2 * first)
        misfits = np.zeros([len(axis) for axis in finer])
        for variable in self._variables:
            values, _ = self._measured(variable, first)
            every_other = values[tuple(slice(None, None, 2) for _ in self._dimensions)]
            forms = self._possible_forms(variable)
            predicted = {form: Interpolant(coarser, every_other, form).on_grid(*finer) for form in forms}
            misfits = np.maximum(misfits, self._choose(variable, values, predicted))
        for lower in itertools.product(range(0, self._size, first), repeat=len(self._dimensions)):
            corners = tuple(slice(i // first, i // first + 2) for i in lower)
            self._cells[0, lower] = _Cell(expected=_DECAY * float(misfits[corners].max()))

    def _suspects(self) -> list[Key]:
        """Cells in which a miss is to be expected."""
        return [key for key, cell in self._cells.items() if cell.misfit is None and cell.expected > _SUSPECT]

    def _audited(self) -> list[Key]:
        """Cells in which none is: those where most is expected, and as many by chance."""
        untested = [key for key, cell in self._cells.items() if cell.misfit is None]
        untested.sort(key=lambda key: self._cells[key].expected, reverse=True)
        rest = untested[_AUDITED:]
        chosen = self._chance.choice(len(rest), min(_AUDITED, len(rest)), replace=False)
        return untested[:_AUDITED] + [rest[i] for i in sorted(chosen)]

    def _test(self, keys: Sequence[Key]) -> None:
        self._ask(itertools.chain.from_iterable(map(self._places, keys)))
        for key in keys:
            self._cells[key].misfit = 0.0
        self._judge()
        decays = [cell.misfit / cell.before for cell in map(self._cells.__getitem__, keys) if cell.before > 0]  # type: ignore[operator]
        if decays:
            self._decay = float(np.clip(np.quantile(decays, 0.9), 1 / 16, 1.0))

    def _judge(self) -> None:
        """Fit anew, choose forms, and compare with what was measured in the middles of cells, which is held out."""
        held_out = self._held_out()
        if not held_out:
            return
        misfits = np.zeros(len(held_out))
        for variable in self._variables:
            measured = np.array([self._rows[index][variable] for _, index in held_out])
            predicted = {form: self._predicted(variable, form, held_out) for form in self._possible_forms(variable)}
            misfits = np.maximum(misfits, self._choose(variable, measured, predicted))
        worst: dict[Key, float] = collections.defaultdict(float)
        for (key, _), misfit in zip(held_out, misfits, strict=True):
            worst[key] = max(worst[key], float(misfit))
        for key, cell in self._cells.items():
            cell.misfit = None if cell.misfit is None else worst[key]

    def _held_out(self) -> list[tuple[Key, Index]]:
        """Where cells were tested, but for places that have since become part of the fit with a neighbor's split."""
        return [
            (key, index)
            for key, cell in self._cells.items()
            if cell.misfit is not None
            for index in self._places(key)
            if index not in self._fitted
        ]

    def _split(self, keys: Sequence[Key]) -> None:
        """Replace cells by their halves, and suspect their neighbors."""
        added: set[Index] = set()
        for level, lower in keys:
            half = self._strides[level] // 2
            added.update(itertools.product(*[(i, i + half, i + 2 * half) for i in lower]))
        self._fit(added)
        for level, lower in keys:
            cell = self._cells.pop((level, lower))
            half = self._strides[level] // 2
            before = float(cell.misfit or 0)
            for child in itertools.product(*[(i, i + half) for i in lower]):
                self._cells[level + 1, child] = _Cell(1.0, before)
        for level, lower in keys:
            for dimension, side in itertools.product(self._dimensions, (-1, self._strides[level])):
                beside = list(lower)
                beside[dimension] += side
                neighbor = self._cell_at(tuple(beside), level)
                if neighbor is not None:
                    neighbor.expected = max(neighbor.expected, 1.0)

    def _cell_at(self, index: Index, level: int) -> _Cell | None:
        """The cell of this level or a coarser one that holds a place."""
        for coarser in range(level, -1, -1):
            stride = self._strides[coarser]
            found = self._cells.get((coarser, tuple(i // stride * stride for i in index)))
            if found is not None:
                return found
        return None

    def _result(self) -> Refined:
        stride = self._strides[self._depth]
        held_out = self._held_out()
        fits, relative = {}, 0.0
        for variable in self._variables:
            form = self._forms[variable]
            values = self._interpolants(variable, form)[-1].values
            measured = np.array([self._rows[index][variable] for _, index in held_out])
            errors = np.abs(self._predicted(variable, form, held_out) - measured)
            fits[variable] = Fit(values, form, _SAFETY * _largest(errors))
            if self._must_converge(variable):
                scale = np.maximum(np.abs(measured), _NEGLIGIBLE * self._range(variable))
                relative = max(relative, _SAFETY * _largest(errors / scale))
        return Refined(
            axes=self._axes(stride),
            evaluated=self._measured(self._variables[0], stride)[1],
            fits=fits,
            held_out=[self._node(index) for _, index in held_out],
            relative_error=relative,
            converged=all((cell.misfit or 0) <= 1 for cell in self._cells.values()),
        )

    def _interpolants(self, variable: str, form: Form) -> list[Interpolant]:
        """One for each level: through what was measured, and elsewhere through what the level before predicts."""
        found: list[Interpolant] = []
        for stride in self._strides[: self._depth + 1]:
            axes = self._axes(stride)
            values, known = self._measured(variable, stride)
            if found:
                values = np.where(known, values, found[-1].on_grid(*axes))
            found.append(Interpolant(axes, values, form, bounds_of(variable, values)))
        return found

    def _predicted(self, variable: str, form: Form, places: Sequence[tuple[Key, Index]]) -> np.ndarray:
        """Values at places in cells, each from the level of the cell's own corners."""
        found = np.empty(len(places))
        for level, interpolant in enumerate(self._interpolants(variable, form)):
            mine = [i for i, ((of_cell, _), _) in enumerate(places) if of_cell == level]
            if mine:
                found[mine] = interpolant(np.array([self._node(places[i][1]) for i in mine]))
        return found

    def _choose(self, variable: str, measured: np.ndarray, predicted: Mapping[Form, np.ndarray]) -> np.ndarray:
        """Take the form whose predictions are best; return its misfits, 0 for a variable that need not converge."""
        allowed = self._tolerance.allowed(measured, self._range(variable))
        misfits = {form: _misfits(measured, values, allowed) for form, values in predicted.items()}
        scores = {form: _root_mean_square(found) for form, found in misfits.items()}
        best = min(scores, key=scores.__getitem__)
        present = self._forms.get(variable)
        if present not in scores or scores[best] < _SWITCH * scores[present]:
            self._forms[variable] = best
        return misfits[self._forms[variable]] * self._must_converge(variable)

    def _possible_forms(self, variable: str) -> list[Form]:
        values = np.array([self._rows[index][variable] for index in self._fitted])
        forms = _LOSS_FORMS if self._must_converge(variable) else _OTHER_FORMS
        return [form for form in forms if form.fits(values)]

    def _range(self, variable: str) -> float:
        return range_of(np.array([row[variable] for row in self._rows.values()]))

    @property
    def _variables(self) -> list[str]:
        """Those with something to interpolate: the standard error of one example is nowhere a number."""
        rows = self._rows.values()
        return [name for name in next(iter(rows)) if any(np.isfinite(row[name]) for row in rows)]

    @property
    def _depth(self) -> int:
        return max(level for level, _ in self._cells)

    def _measured(self, variable: str, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """On the lattice of this stride: values, and where they are in the fit."""
        values = np.zeros([len(axis) for axis in self._axes(stride)])
        known = np.zeros(values.shape, dtype=bool)
        indices = [index for index in self._fitted if all(i % stride == 0 for i in index)]
        places = tuple(np.array(indices).T // stride)
        values[places] = [self._rows[index][variable] for index in indices]
        known[places] = True
        return values, known

    def _fit(self, indices: Iterable[Index]) -> None:
        indices = list(indices)
        self._ask(indices)
        self._fitted.update(indices)

    def _ask(self, indices: Iterable[Index]) -> None:
        new = [index for index in dict.fromkeys(indices) if index not in self._rows]
        nodes = [self._node(index) for index in new]
        rows = self._evaluate(nodes)
        self._rows.update((index, rows[node]) for index, node in zip(new, nodes, strict=True))

    def _can_split(self, key: Key) -> bool:
        return key[0] + 1 < len(self._strides)

    def _places(self, key: Key) -> list[Index]:
        """Where a cell is tested: in its middle, and in the middle of an edge along each dimension but the last.

        An error that is a sum over dimensions, as a tensor spline's nearly is, can cancel in the middle of the cell but
        not there too. Edges on the border of the box are preferred: splines are worst there.
        """
        level, lower = key
        stride = self._strides[level]
        middle = tuple(i + stride // 2 for i in lower)
        corner = tuple(i + stride if i + stride == self._size else i for i in lower)
        edges = [(*corner[:d], middle[d], *corner[d + 1 :]) for d in list(self._dimensions)[:-1]]
        return [middle, *edges]

    def _node(self, index: Index) -> Node:
        half = self._size // 2
        return tuple(span * ((i - half) / half) for span, i in zip(self._spans, index, strict=True))

    def _axes(self, stride: int) -> tuple[np.ndarray, ...]:
        half = self._size // 2
        steps = (np.arange(0, self._size + 1, stride) - half) / half
        return tuple(span * steps for span in self._spans)


def _misfits(measured: np.ndarray, predicted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Errors in units of the allowed error; infinite where one is finite and the other is not."""
    finite = np.isfinite(measured)
    both = finite & np.isfinite(predicted)
    misfits = np.where(finite == np.isfinite(predicted), 0.0, np.inf)
    misfits[both] = _SAFETY * np.abs(predicted[both] - measured[both]) / allowed[both]
    return misfits


def _root_mean_square(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


def _largest(errors: np.ndarray) -> float:
    finite = errors[np.isfinite(errors)]
    return float(finite.max()) if finite.size else 0.0
