"""What the checks found, in one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from landscape.directions import random_directions
from landscape.risk import EmpiricalRisk
from landscape.selfcheck.checks import CHECKS
from landscape.selfcheck.filters import filters_of
from landscape.selfcheck.subject import State, Subject

__all__ = ["CheckReport", "CheckResult", "check"]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it passed, and the numbers."""

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.detail}"


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found.

    Attributes:
        results: one for each check.
        moved: one row a parameter: ``parameter``, ``kind``, ``shape``, ``filters``, ``weight_norm``,
            ``direction_norm_0`` … (one for each direction), ``moved``, ``why_not``, and ``share`` of all the model's
            weights.
    """

    results: tuple[CheckResult, ...]
    moved: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(result.passed for result in self.results)

    def __str__(self) -> str:
        failed = [result.name for result in self.results if not result.passed]
        share = self.moved.loc[self.moved["moved"], "share"].sum()
        return "\n".join(
            [
                *map(str, self.results),
                "",
                self.moved.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="-"),
                "",
                f"{share:.1%} of the weights move",
                f"failed: {', '.join(failed)}" if failed else f"all {len(self.results)} checks passed",
            ]
        )


def check(risk: EmpiricalRisk, directions: Sequence[Mapping[str, Tensor]] | None = None, seed: int = 0) -> CheckReport:
    """Test whether a surface of this risk along these directions can be trusted.

    Costs about a dozen passes over the data, and for each tensor that moves a few passes over the first batch. An
    error that a check runs into is a failure of that check. The model is bit for bit the same afterwards, also where
    a check found that something had changed it.

    A parameter that moves though no loss depends on it fails too, as it cannot be told from one that the model keeps a
    copy of: leave it out with ``EmpiricalRisk(parameters=…)`` or ``random_directions(ignore=…)``.

    Args:
        risk: what would be drawn.
        directions: along what, filter-normalized; None: two random ones.
        seed: of random directions, and of what the checks draw.

    Raises:
        ValueError: no direction, or one that does not fit the risk.
    """
    if directions is None:
        directions = random_directions(risk.parameters(), seed=seed)
    if not directions:
        raise ValueError("directions: expected at least one, got none")
    before = State(risk.model)
    subject = Subject(risk, directions, seed, before)
    random_state = torch.get_rng_state()
    results = []
    try:
        with risk.along(directions):  # raises for what does not fit
            pass
        before.put_back()
        table = moved_table(subject)
        for name, one in CHECKS.items():
            if name == "cosine" and len(directions) < 2:
                continue
            try:
                passed, detail = one(subject)
            except Exception as error:  # whatever the model raises is a finding, and the other checks go on
                passed, detail = False, f"stopped by {type(error).__name__}: {error}"
            results.append(CheckResult(name, passed, detail))
            before.put_back()
    finally:
        before.put_back()
        torch.set_rng_state(random_state)
    return CheckReport(tuple(results), table)


def moved_table(subject: Subject) -> pd.DataFrame:
    point = subject.risk.parameters()
    ignored = {name for d in subject.directions for name in getattr(d, "about", {}).get("ignored", ())}
    everything = dict(subject.root.named_parameters())
    total = sum(tensor.numel() for tensor in everything.values())
    rows = []
    for name, tensor in everything.items():
        norms = [float(d[name].double().norm()) if name in d else 0.0 for d in subject.directions]
        moves = any(norm > 0 for norm in norms)
        if moves:
            reason = ""
        elif name in subject.names:
            reason = "the direction is zero, as the weights are" if not tensor.any() else "the direction is zero"
        elif name in ignored:
            reason = f"ignored ({point.roles[name].kind})" if name in point else "ignored"
        elif name not in point:
            reason = "not among the risk's parameters" if tensor.requires_grad else "requires no gradient"
        else:
            reason = "no direction names it"
        rows.append(
            {
                "parameter": name,
                "kind": point.roles[name].kind if name in point else "-",
                "shape": "×".join(map(str, tensor.shape)) or "scalar",
                "filters": len(filters_of(subject.root, name, tensor)),
                "weight_norm": float(tensor.detach().double().norm()),
            }
            | {f"direction_norm_{index}": norm for index, norm in enumerate(norms)}
            | {"moved": moves, "why_not": reason, "share": tensor.numel() / total}
        )
    return pd.DataFrame(rows)
