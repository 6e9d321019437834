"""Adaptive sampling: few evaluations where a function is smooth, more where a prediction missed.

The box is divided into cells whose corners lie on a uniform lattice. The interpolant predicts values in the middle of a
cell and on an edge *before* they are evaluated. Where a prediction misses, the cell is split, its neighbors come under
suspicion, and the finer lattice is filled: with what was evaluated where it was, with what the coarser lattice predicts
elsewhere. Points that were predicted well do not enter the fit. They are held out, and the error that is reported is
the largest of theirs, times a factor for those that nobody looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from landscape.evaluation.values import Node
from landscape.interpolation import Form, Interpolant, bounds_of, range_of
from landscape.lattice import Cell, Index, Lattice

__all__ = ["Fit", "Refined", "Tolerance", "refine"]

Rows = Mapping[str, float]

_LOSS_FORMS = (Form("none"), Form("root"), Form("logarithm"))
_OTHER_FORMS = (Form("none", 1), Form("none", 3))  # accuracy is a step function: straight lines are a candidate

_AUDITED = 8  # cells chosen by chance that must also be predicted well, and as many of which most is expected
_SUSPECT = 0.5  # share of the allowed error from which a cell is tested
# Of errors from one lattice to the next finer one, at best, by which they are expected; cubic splines reach 1/16.
_DECAY = 0.25
_SLOWEST = 0.95  # quantile of the decays that were seen, which is taken for all
_SAFETY = 1.5  # held-out points sample some cells, and these in few places: the largest error is larger than theirs
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
        held_out: points that were evaluated to test predictions, and are not in the fit.
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
    return _Refinement(evaluate, Lattice(spans, finest), tolerance, must_converge, seed).run()


class _Refinement:
    """The state of one refinement: what was measured, which of it is in the fit, and the cells that are not split."""

    def __init__(
        self,
        evaluate: Callable[[Sequence[Node]], Mapping[Node, Rows]],
        lattice: Lattice,
        tolerance: Tolerance,
        must_converge: Callable[[str], bool],
        seed: int,
    ) -> None:
        self._evaluate = evaluate
        self._lattice = lattice
        self._tolerance = tolerance
        self._must_converge = must_converge
        self._chance = np.random.default_rng(seed)
        self._rows: dict[Index, Rows] = {}
        self._fitted: set[Index] = set()
        # Misfits are errors over allowed errors.
        self._expected: dict[Cell, float] = {}  # of every cell
        self._found: dict[Cell, float] = {}  # of those that were tested, by the present fit
        self._before: dict[Cell, float] = {}  # on the lattice before
        self._decay = _DECAY
        self._forms: dict[str, Form] = {}

    def run(self) -> Refined:
        self._fit(self._lattice.points(self._lattice.strides[0]))
        self._look_back()
        while True:
            cells = self._suspects()
            audit = not cells
            cells = cells or self._audited()
            self._ask(index for cell in cells for index in self._lattice.test_points(cell))
            self._found |= dict.fromkeys(cells, 0.0)
            self._judge()
            self._learn(cells)
            missed = [cell for cell in self._missed() if self._lattice.can_split(cell)]
            if audit and not missed:
                return self._result()
            self._split(missed)

    def _look_back(self) -> None:
        """A first idea of forms and errors: how well every other point of the first lattice tells the ones between."""
        first = self._lattice.strides[0]
        misfits = np.zeros([len(axis) for axis in self._lattice.axes(first)])
        for variable in self._variables:
            values, _ = self._measured(variable, first)
            every_other = values[(slice(None, None, 2),) * values.ndim]
            if np.isfinite(every_other).any():
                predicted = {
                    form: Interpolant(self._lattice.axes(2 * first), every_other, form).on_grid(
                        *self._lattice.axes(first)
                    )
                    for form in self._possible_forms(variable)
                }
                misfits = np.maximum(misfits, self._choose(variable, values, predicted, values))
            else:
                self._forms[variable] = self._possible_forms(variable)[0]
        for cell in self._lattice.coarsest_cells():
            corners = tuple(np.array(self._lattice.corners(cell)).T // first)
            self._before[cell] = float(misfits[corners].max())
            self._expected[cell] = _DECAY * self._before[cell]

    def _suspects(self) -> list[Cell]:
        """Cells in which a miss is to be expected."""
        return [cell for cell, misfit in self._expected.items() if misfit > _SUSPECT and cell not in self._found]

    def _audited(self) -> list[Cell]:
        """Cells in which none is: those of which most is expected, as many by chance, and the corners of the box."""
        untested = [cell for cell in self._expected if cell not in self._found]
        untested.sort(key=self._expected.__getitem__, reverse=True)
        rest = untested[_AUDITED:]
        chosen = self._chance.choice(len(rest), min(_AUDITED, len(rest)), replace=False)
        corners = filter(self._lattice.is_in_a_corner, untested)
        return list(dict.fromkeys([*untested[:_AUDITED], *(rest[i] for i in sorted(chosen)), *corners]))

    def _judge(self) -> None:
        """Fit anew, choose forms, and compare with what was measured where cells are tested, which is held out."""
        held_out = self._held_out()
        if not held_out:
            return
        misfits = np.zeros(len(held_out))
        for variable in self._variables:
            measured = np.array([self._rows[index][variable] for _, index in held_out])
            predicted = {form: self._predicted(variable, form, held_out) for form in self._possible_forms(variable)}
            highest = self._highest_corners(variable, held_out)
            misfits = np.maximum(misfits, self._choose(variable, measured, predicted, highest))
        self._found = dict.fromkeys(self._found, 0.0)
        for (cell, _), misfit in zip(held_out, misfits.tolist(), strict=True):
            self._found[cell] = max(self._found[cell], misfit)

    def _learn(self, cells: Sequence[Cell]) -> None:
        """How errors decay from one lattice to the next: slowly where the function is rough."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.divide([self._found[cell] for cell in cells], [self._before[cell] for cell in cells])
        ratios = ratios[np.isfinite(ratios)]
        if len(ratios) >= _AUDITED:
            self._decay = float(np.clip(np.quantile(ratios, _SLOWEST), _DECAY, 1.0))

    def _held_out(self) -> list[tuple[Cell, Index]]:
        """Where cells were tested, but for places that have since become part of the fit with a neighbor's split."""
        return [
            (cell, index)
            for cell in self._found
            for index in self._lattice.test_points(cell)
            if index not in self._fitted
        ]

    def _missed(self) -> list[Cell]:
        """Cells in which a prediction missed, or through which the border of what is finite goes."""
        deciding = [name for name in self._variables if self._must_converge(name)]
        holes = {index for index, row in self._rows.items() if not all(np.isfinite(row[name]) for name in deciding)}

        def is_on_a_border(cell: Cell) -> bool:
            return len({corner in holes for corner in self._lattice.corners(cell)}) == 2

        return [cell for cell in self._expected if self._found.get(cell, 0.0) > 1 or (holes and is_on_a_border(cell))]

    def _split(self, cells: Sequence[Cell]) -> None:
        """Replace cells by their halves, and suspect these and the neighbors."""
        self._fit({index for cell in cells for index in self._lattice.points_of_halves(cell)})
        for cell in cells:
            del self._expected[cell]
            misfit = self._found.pop(cell, np.inf)
            self._before |= dict.fromkeys(self._lattice.halves(cell), misfit)
            self._expected |= dict.fromkeys(self._lattice.halves(cell), self._decay * misfit)
        for cell in cells:
            for place in self._lattice.beside(cell):
                neighbors = (found for found in self._lattice.holding(place, cell[0]) if found in self._expected)
                for neighbor in neighbors:
                    self._expected[neighbor] = max(self._expected[neighbor], 1.0)

    def _result(self) -> Refined:
        self._judge()
        stride = self._lattice.strides[self._depth]
        held_out = self._held_out()
        fits, relative = {}, 0.0
        for variable in self._variables:
            form = self._forms[variable]
            measured = np.array([self._rows[index][variable] for _, index in held_out])
            errors = _differences(self._predicted(variable, form, held_out), measured)
            in_cell = errors * _growth(form, measured, self._highest_corners(variable, held_out))
            values = self._interpolants(variable, form)[-1].values
            fits[variable] = Fit(values, form, _SAFETY * _largest(in_cell))
            if self._must_converge(variable):
                relative = max(relative, _SAFETY * _largest(errors / self._size_of(variable, measured)))
        return Refined(
            axes=self._lattice.axes(stride),
            evaluated=self._measured(self._variables[0], stride)[1],
            fits=fits,
            held_out=[self._lattice.node(index) for _, index in held_out],
            relative_error=relative,
            converged=not self._missed(),
        )

    def _interpolants(self, variable: str, form: Form) -> list[Interpolant]:
        """One for each level: through what was measured, and elsewhere through what the level before predicts."""
        found: list[Interpolant] = []
        for stride in self._lattice.strides[: self._depth + 1]:
            axes = self._lattice.axes(stride)
            values, known = self._measured(variable, stride)
            if found:
                values = np.where(known, values, found[-1].on_grid(*axes))
            found.append(Interpolant(axes, values, form, bounds_of(variable, values)))
        return found

    def _predicted(self, variable: str, form: Form, places: Sequence[tuple[Cell, Index]]) -> np.ndarray:
        """Values at places in cells, each from the level of the cell's own corners."""
        found = np.empty(len(places))
        for level, interpolant in enumerate(self._interpolants(variable, form)):
            mine = [i for i, ((of_cell, _), _) in enumerate(places) if of_cell == level]
            if mine:
                found[mine] = interpolant(np.array([self._lattice.node(places[i][1]) for i in mine]))
        return found

    def _choose(
        self, variable: str, measured: np.ndarray, predicted: Mapping[Form, np.ndarray], highest: np.ndarray
    ) -> np.ndarray:
        """Take the form whose predictions are best; return its misfits, 0 for a variable that need not converge."""
        misfits = {form: self._misfits(variable, form, measured, found, highest) for form, found in predicted.items()}
        scores = {form: _root_mean_square(found) for form, found in misfits.items()}
        best = min(scores, key=scores.__getitem__)
        present = self._forms.get(variable)
        if present not in scores or scores[best] < _SWITCH * scores[present]:
            self._forms[variable] = best
        chosen = misfits[self._forms[variable]]
        return chosen if self._must_converge(variable) else np.zeros_like(chosen)

    def _misfits(
        self, variable: str, form: Form, measured: np.ndarray, predicted: np.ndarray, highest: np.ndarray
    ) -> np.ndarray:
        """Errors over allowed errors; infinite where one is finite and the other is not."""
        errors = _differences(predicted, measured)
        in_cell = errors * _growth(form, measured, highest) / (self._tolerance.of_range * self._range(variable))
        here = errors / (self._tolerance.of_value * self._size_of(variable, measured))
        misfits = _SAFETY * np.fmax(in_cell, here)
        differ = np.isfinite(measured) != np.isfinite(predicted)
        return np.where(differ, np.inf, np.nan_to_num(misfits, nan=0.0))

    def _size_of(self, variable: str, values: np.ndarray) -> np.ndarray:
        """What relative errors are relative to."""
        return np.asarray(np.maximum(np.abs(values), _NEGLIGIBLE * self._range(variable)))

    def _highest_corners(self, variable: str, places: Sequence[tuple[Cell, Index]]) -> np.ndarray:
        """The highest value at the corners of each place's cell."""
        return np.array(
            [max(self._rows[corner][variable] for corner in self._lattice.corners(cell)) for cell, _ in places]
        )

    def _possible_forms(self, variable: str) -> list[Form]:
        values = np.array([self._rows[index][variable] for index in self._fitted])
        forms = _LOSS_FORMS if self._must_converge(variable) else _OTHER_FORMS
        return [form for form in forms if form.fits(values)]

    def _range(self, variable: str) -> float:
        return range_of(np.array([row[variable] for row in self._rows.values()]))

    @property
    def _variables(self) -> list[str]:
        """Those with something to interpolate: the standard error of one example is nowhere a number."""
        rows = [self._rows[index] for index in self._fitted]
        found = [name for name in rows[0] if any(np.isfinite(row[name]) for row in rows)]
        if not any(map(self._must_converge, found)):
            raise ValueError(f"none of {len(rows)} points is finite: nothing to interpolate; take a smaller span")
        return found

    @property
    def _depth(self) -> int:
        return max(level for level, _ in self._expected)

    def _measured(self, variable: str, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """On the lattice of this stride: values, and where they are in the fit."""
        values = np.zeros([len(axis) for axis in self._lattice.axes(stride)])
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
        if new:
            nodes = [self._lattice.node(index) for index in new]
            rows = self._evaluate(nodes)
            self._rows.update((index, rows[node]) for index, node in zip(new, nodes, strict=True))


def _growth(form: Form, measured: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """How much larger the same error of the transformed values is at the highest corner of a cell; at least 1."""
    if form.transform == "none":
        return np.ones(measured.shape)
    with np.errstate(all="ignore"):
        ratio = np.fmax(highest / measured, 1.0)
    return np.asarray(np.sqrt(ratio) if form.transform == "root" else ratio)


def _differences(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Absolute errors; NaN where one of the two is not finite."""
    both = np.isfinite(predicted) & np.isfinite(measured)
    errors = np.full(measured.shape, np.nan)
    errors[both] = np.abs(predicted[both] - measured[both])
    return errors


def _root_mean_square(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


def _largest(errors: np.ndarray) -> float:
    finite = errors[np.isfinite(errors)]
    return float(finite.max()) if finite.size else 0.0
