"""Tables 5-9: are weights near the input better to attack than weights near the output?"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dropattack.paper.printed import TARGET_TABLES, paper_table
from dropattack.paper.sampling import binomial_standard_error, examples_tested

__all__ = ["depth"]


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of a layer, from its printed name such as ``"Conv.2.w"``.

    Attributes:
        kind: layer and tensor without the layer's number, such as ``"Conv.w"``.
        depth: grows from the input to the output. The recurrent layers that are attacked are the first ones. A
            BatchNorm has the depth of the convolution before it. Fully connected layers come last.
    """

    kind: str
    depth: tuple[bool, int]

    @classmethod
    def named(cls, target: str) -> _Tensor | None:
        """None for the input and the embedding, which are no hidden weights."""
        if target in ("Input", "Embedding"):
            return None
        found = re.fullmatch(r"(Conv|BatchNorm|Fc|Lstm|Gru)\.?(\d*)((?:\.[a-z]+)*)", target, re.IGNORECASE)
        assert found is not None, f"a target of another form: {target}"
        layer, number, rest = found.groups()
        # Table 8 prints "Fc.1" without "w".
        return cls(layer + (rest or ".w"), (layer == "Fc", int(number or 1)))


def depth() -> pd.DataFrame:
    """The claim that, of hidden weights, "being close to the input layer will be better", pair by pair.

    Two rows of a table are compared if they differ in one hidden tensor only, that lies deeper in one of them, and have
    attack probability and epsilon in common. Weights of one layer (ih and hh, say) are at the same depth, and not
    compared.

    A size of 5 is a larger share of a small tensor than of a large one, and an attack on a BatchNorm is another thing
    than one on a convolution, so that the pairs differ in more than depth; pairs of the same kind of tensor the least.

    Returns:
        One row for each pair and measure: ``place``, ``dataset``, ``attack_probability``, ``epsilon``,
        ``also_attacked`` (what the two rows have in common; empty: nothing), ``nearer`` and ``farther`` (from the
        input; names of tensors), ``same_kind``, ``measure``, ``of_nearer``, ``of_farther``, ``difference`` (nearer
        minus farther), ``standard_error`` (of a difference of two single runs, binomial; NaN for F1) and ``holds``
        (nearer is higher; a tie is not).
    """
    rows = []
    for number, dataset in TARGET_TABLES.items():
        table = paper_table(number).dropna(subset=["epsilon"])
        records = table.to_dict("records")
        for a, b in itertools.combinations(records, 2):
            same_setting = all(a[name] == b[name] for name in ("attack_probability", "epsilon"))
            if same_setting and (pair := _one_apart(a["target"], b["target"])) is not None:
                nearer, farther = (a, b) if pair["nearer"] in a["target"].split(", ") else (b, a)
                about: dict[str, object] = {"place": f"Table {number}", "dataset": dataset}
                about |= {"attack_probability": a["attack_probability"], "epsilon": a["epsilon"], **pair}
                rows += [about | row for row in _compared(nearer, farther, examples_tested(dataset))]
    return pd.DataFrame(rows)


def _one_apart(a: str, b: str) -> dict[str, str | bool] | None:
    """Names of the tensors in which two targets differ; None if they do so in another way than by depth."""
    first, second = a.split(", "), b.split(", ")
    only_a, only_b = [x for x in first if x not in second], [x for x in second if x not in first]
    if len(only_a) != 1 or len(only_b) != 1:
        return None
    found = {name: _Tensor.named(name) for name in (*only_a, *only_b)}
    tensors = sorted(((name, t) for name, t in found.items() if t is not None), key=lambda item: item[1].depth)
    if len(tensors) < 2 or tensors[0][1].depth == tensors[1][1].depth:
        return None
    (nearer, near), (farther, far) = tensors
    common = ", ".join(name for name in first if name in second)
    return {"also_attacked": common, "nearer": nearer, "farther": farther, "same_kind": near.kind == far.kind}


def _compared(nearer: Mapping[Any, Any], farther: Mapping[Any, Any], examples: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for measure in ("accuracy", "f1"):
        if not math.isnan(nearer[measure]):
            both = nearer[measure], farther[measure]
            difference = round(both[0] - both[1], 2)
            error = math.hypot(*binomial_standard_error(both, examples)) if measure == "accuracy" else math.nan
            row = {"measure": measure, "of_nearer": both[0], "of_farther": both[1], "difference": difference}
            rows.append(row | {"standard_error": error, "holds": difference > 0})
    return rows
