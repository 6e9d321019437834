"""Scheduled: any method, warmed up, or at every n-th step only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dropattack.arguments import check_count
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.names import unknown
from dropattack.passes import Step

__all__ = ["Scheduled"]


class Scheduled(Method):
    """A method whose hyperparameters grow from 0 over the first steps, or that rests between its steps.

    During a warm-up of n steps a hyperparameter (an epsilon, a rho, an attack probability, a coefficient) has 1/n, 2/n,
    … of its value, and all of it from the n-th step on. Zhao, Zhang and Hu ("When will gradient regularization be
    harmful?", ICML 2024) found that with adaptive optimizers and a warm-up of the learning rate gradient penalties do
    harm unless they are warmed up too. With ``every=n`` the method runs at the first of each n steps, and the others
    take the plain gradient. A step is one call of ``backward``, also where several accumulate into one optimizer step.

    Cost: the method's, or 1 pass at a step between.

    Args:
        model: the network.
        method: what to schedule.
        warmup: hyperparameter's name to its number of steps, each at least 1; in a composition with the part before it,
            such as ``"inputs.epsilon"``.
        every: n; at least 1.

    Raises:
        ValueError: the method has no such hyperparameter, or it is not a number; a count less than 1.

    Example:
        >>> from dropattack.methods import SAM
        >>> model = nn.Linear(2, 1)
        >>> method = Scheduled(model, SAM(model, rho=0.1), warmup={"rho": 100}, every=2)
        >>> loss = method.backward(lambda: model(torch.ones(1, 2)).sum())
        >>> method.method.rho
        0.001
    """

    def __init__(
        self, model: nn.Module, method: Method, *, warmup: Mapping[str, int] | None = None, every: int = 1
    ) -> None:
        super().__init__(model)
        if method.model is not self.model:
            raise ValueError(f"{type(method).__name__} was built on another model")
        self.method = method
        self.warmup = {name: check_count(f"warmup.{name}", steps) for name, steps in (warmup or {}).items()}
        self.every = check_count("every", every)
        self._full = {name: float(getattr(*self._found(name))) for name in self.warmup}
        self._count = 0

    @property
    def cost(self) -> Cost:
        """The method's passes, or one at a step between."""
        if not self._is_attacked():
            return Cost(forwards=1, backwards=1)
        self._warm_up()  # a weight that is 0 may save a pass
        return self.method.cost

    @property
    def optimizer_steps(self) -> int:
        """The method's."""
        return self.method.optimizer_steps

    def _carried(self) -> dict[str, Tensor]:
        """The number of steps made, and what the method carries."""
        return {"count": torch.tensor(self._count)} | {f"method.{k}": v for k, v in self.method.state_dict().items()}

    def _take_up(self, state: dict[str, Tensor]) -> None:
        self._count = int(state["count"])
        self.method.load_state_dict({k.removeprefix("method."): v for k, v in state.items() if k != "count"})

    def _found(self, name: str) -> tuple[Method, str]:
        """The method that has the hyperparameter, and its name there."""
        *parts, last = name.split(".")
        owner: Any = self.method
        for part in parts:
            owner = getattr(owner, part, None)
        known = [key for key, value in vars(owner).items() if isinstance(value, float)] if owner is not None else []
        if last not in known:
            raise ValueError(unknown("hyperparameter", name, known, owner=type(owner or self.method).__name__))
        return owner, last

    def _begin_batch(self) -> None:
        self.method._begin_batch()

    def _is_attacked(self) -> bool:
        return self._count % self.every == 0

    def _warm_up(self) -> None:
        """Give the hyperparameters the values of the next step."""
        for name, steps in self.warmup.items():
            setattr(*self._found(name), self._full[name] * min(1.0, (self._count + 1) / steps))

    def _step(self, step: Step) -> StepRecord:
        self._warm_up()
        record = self.method._step(step) if self._is_attacked() else StepRecord(step.run(clean=True))
        self._count += 1
        return record
