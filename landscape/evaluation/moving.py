"""Weights that move along directions, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["Mover"]


class Mover:
    r"""Puts weights at :math:`\theta + \sum_i \alpha_i d_i`, always from the center: no rounding error builds up.

    Only what a direction names is touched. The sum without its last term is kept while the other coordinates stay the
    same, as they do along a row of a grid: a move is then one pass over the weights. The bits do not depend on where
    the weights were before.

    Args:
        targets: the tensors to write to, by parameter name.
        center: where the weights are at coordinates 0, for each target.
        directions: offsets by parameter name.
    """

    def __init__(
        self, targets: Mapping[str, Tensor], center: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self._dimensions = len(directions)
        self._at: tuple[float, ...] | None = None
        memory = {target.untyped_storage().data_ptr() for target in targets.values()}

        def own(tensor: Tensor, target: Tensor) -> Tensor:
            """On the target's device and in its type; a copy, if it is one of the weights that move."""
            there = tensor.detach().to(target)
            return there.clone() if there.untyped_storage().data_ptr() in memory else there

        starts = {name: own(center[name], target) for name, target in targets.items()}
        self._fixed = [(target, starts[name]) for name, target in targets.items()]
        # For each moved tensor: itself, the center, and its offset in each direction that moves it.
        steps = {
            name: [(i, own(d[name], target)) for i, d in enumerate(directions) if name in d]
            for name, target in targets.items()
        }
        self._parts = [
            (target, starts[name], steps[name], torch.empty_like(target) if len(steps[name]) > 1 else None)
            for name, target in targets.items()
            if steps[name]
        ]

    def __call__(self, coordinates: Sequence[float]) -> None:
        """Move the weights; nothing happens if they are there.

        Raises:
            ValueError: not one coordinate for each direction.
        """
        at = tuple(float(coordinate) for coordinate in coordinates)
        if len(at) != self._dimensions:
            raise ValueError(f"coordinates: expected {self._dimensions}, one for each direction, got {len(at)}")
        if at == self._at:
            return
        with torch.no_grad():
            if self._at is None:
                for target, start in self._fixed:
                    target.copy_(start)
            row_has_changed = self._at is None or at[:-1] != self._at[:-1]
            self._at = None  # a move that is interrupted leaves the weights nowhere
            for target, start, steps, kept in self._parts:
                base = start
                if kept is not None:
                    base = kept
                    if row_has_changed:
                        (first, step), *between = steps[:-1]
                        torch.add(start, step, alpha=at[first], out=kept)
                        for index, step in between:
                            kept.add_(step, alpha=at[index])
                last, step = steps[-1]
                torch.add(base, step, alpha=at[last], out=target)
        torch.clear_autocast_cache()  # an autocast block around us does not see that weights have changed in place
        self._at = at
