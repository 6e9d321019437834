"""Nested lattices on a box, and their cells.

Points and cells are counted in halves of the finest cells, so that these have a middle too. A level's lattice has every
``stride``-th point, and each level's stride is half of that of the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from landscape.evaluation.values import Node

__all__ = ["Cell", "Index", "Lattice"]

Index = tuple[int, ...]  # of a point
Cell = tuple[int, Index]  # level, and the index of the lowest corner

# Points a side of the first lattice and of the finest one. A volume starts coarser: its points grow with the cube.
_COARSEST = {1: 9, 2: 9, 3: 5}
_FINEST = {1: 257, 2: 65, 3: 17}


class Lattice:
    """Lattices from minus to plus each span.

    Args:
        spans: half the length of the box along each dimension.
        finest: points a side of the finest lattice; None: 257, 65 and 17 in one, two and three dimensions.

    Attributes:
        dimensions: their number.
        size: the largest index.
        strides: of each level, the coarsest first.

    Raises:
        ValueError: a finest lattice that is not nested in the first one.
    """

    def __init__(self, spans: Sequence[float], finest: int | None = None) -> None:
        self._spans = tuple(spans)
        self.dimensions = len(self._spans)
        coarsest = _COARSEST[self.dimensions]
        finest = _FINEST[self.dimensions] if finest is None else finest
        self.size = 2 * (finest - 1)
        ratio, remainder = divmod(self.size, coarsest - 1)
        if not isinstance(finest, int) or finest < coarsest or remainder or ratio & (ratio - 1):
            raise ValueError(
                f"finest: expected {coarsest - 1} times a power of two, plus one, such as {_FINEST[self.dimensions]}, "
                f"got {finest}"
            )
        self.strides = [ratio >> level for level in range(ratio.bit_length() - 1)]

    def node(self, index: Index) -> Node:
        """The coordinates of a point, exactly symmetric around the center."""
        half = self.size // 2
        return tuple(span * ((i - half) / half) for span, i in zip(self._spans, index, strict=True))

    def axes(self, stride: int) -> tuple[np.ndarray, ...]:
        """The coordinates of a lattice along each dimension."""
        half = self.size // 2
        steps = (np.arange(0, self.size + 1, stride) - half) / half
        return tuple(span * steps for span in self._spans)

    def points(self, stride: int) -> Iterable[Index]:
        """All points of a lattice."""
        return itertools.product(range(0, self.size + 1, stride), repeat=self.dimensions)

    def coarsest_cells(self) -> Iterable[Cell]:
        """Those that fill the box before any is split."""
        lowest = itertools.product(range(0, self.size, self.strides[0]), repeat=self.dimensions)
        return ((0, lower) for lower in lowest)

    def corners(self, cell: Cell) -> list[Index]:
        """The corners of a cell."""
        level, lower = cell
        return list(itertools.product(*[(i, i + self.strides[level]) for i in lower]))

    def points_of_halves(self, cell: Cell) -> list[Index]:
        """The corners of the cells that a cell is split into, its own among them."""
        level, lower = cell
        half = self.strides[level] // 2
        return list(itertools.product(*[(i, i + half, i + 2 * half) for i in lower]))

    def halves(self, cell: Cell) -> list[Cell]:
        """The cells that a cell is split into."""
        level, lower = cell
        half = self.strides[level] // 2
        return [(level + 1, child) for child in itertools.product(*[(i, i + half) for i in lower])]

    def can_split(self, cell: Cell) -> bool:
        """Whether there is a finer level."""
        return cell[0] + 1 < len(self.strides)

    def is_in_a_corner(self, cell: Cell) -> bool:
        """Whether the cell lies in a corner of the box."""
        level, lower = cell
        return all(i in (0, self.size - self.strides[level]) for i in lower)

    def beside(self, cell: Cell) -> Iterable[Index]:
        """A place in the next cell on each side; some are outside the box."""
        level, lower = cell
        for dimension, side in itertools.product(range(self.dimensions), (-1, self.strides[level])):
            yield (*lower[:dimension], lower[dimension] + side, *lower[dimension + 1 :])

    def holding(self, index: Index, level: int) -> Iterable[Cell]:
        """The cells that hold a place, from this level to the coarsest."""
        for coarser in range(level, -1, -1):
            stride = self.strides[coarser]
            yield coarser, tuple(i // stride * stride for i in index)

    def test_points(self, cell: Cell) -> list[Index]:
        """Where a cell is tested: in its middle, and in the middle of an edge along each dimension but one.

        An error that is a sum over dimensions, as a tensor spline's nearly is, can cancel in the middle of the cell but
        not there too. Edges on the border of the box come first, as splines are worst there; all of them are tested.
        """
        level, lower = cell
        stride = self.strides[level]
        middle = tuple(i + stride // 2 for i in lower)
        corner = tuple(i + stride if i + stride == self.size else i for i in lower)
        on_border = [
            d
            for d in range(self.dimensions)
            if any(corner[k] in (0, self.size) for k in range(self.dimensions) if k != d)
        ]
        inside = [d for d in range(self.dimensions) if d not in on_border]
        along = on_border + inside[: max(0, self.dimensions - 1 - len(on_border))]
        return [middle, *((*corner[:d], middle[d], *corner[d + 1 :]) for d in along)]
