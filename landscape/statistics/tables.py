"""Reading a tidy flatness table: the columns that are needed, with their types, also after a round trip through CSV."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

__all__ = ["QUANTITY", "choose", "one_each", "tidy"]

QUANTITY = ["checkpoint", "split", "metric", "setting"]  # what identifies a number that models can be compared by

_TEXT = ("method", "checkpoint", "split", "metric", "setting", "draws", "detail")


def tidy(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A copy with text where CSV leaves a gap, whole seeds, and true or false.

    Args:
        table: as ``flatness_table`` returns it.
        columns: those that must be there.

    Raises:
        ValueError: a column is missing, there is no row, or a training seed or ``converged`` is not what it should be.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"table: expected the columns {', '.join(columns)}, but {', '.join(missing)} is missing; "
            f"it has {', '.join(map(str, table.columns)) or 'none'}"
        )
    if table.empty:
        raise ValueError("table: expected at least one row, got none")
    table = table.reset_index(drop=True)
    for column in _TEXT:
        if column in table:
            table[column] = table[column].astype(object).where(table[column].notna(), "").astype(str)
    if "training_seed" in table:
        try:
            table["training_seed"] = table["training_seed"].astype("Int64")
        except (TypeError, ValueError) as error:
            raise ValueError(f"training_seed: expected whole numbers or <NA>, got {error}") from error
    if "converged" in table:
        table["converged"] = table["converged"].map(_truth).astype(bool)
    return table


def choose(table: pd.DataFrame, baseline: str, methods: Sequence[str] | None) -> list[str]:
    """The methods to compare with the baseline, in the table's order unless they are given.

    Raises:
        ValueError: a method that the table does not have, or none that is left.
    """
    known = list(dict.fromkeys(table["method"]))
    if isinstance(methods, str):
        raise ValueError(f"methods: expected a sequence, got the string {methods!r}; write [{methods!r}]")
    for what, name in [("baseline", baseline), *(("methods", name) for name in methods or ())]:
        if name not in known:
            raise ValueError(f"{what}: expected one of the table's methods, {', '.join(known)}, got {name!r}")
    chosen = [name for name in dict.fromkeys(known if methods is None else methods) if name != baseline]
    if not chosen:
        raise ValueError(f"methods: expected at least one besides the baseline {baseline!r}, got none")
    return chosen


def one_each(table: pd.DataFrame) -> None:
    """Check that no model has two values of one quantity.

    Raises:
        ValueError: it has.
    """
    keys = ["method", "training_seed", *QUANTITY]
    twice = table[table.duplicated(keys, keep=False)]
    if twice.empty:
        return
    first = ", ".join(f"{key} {twice[key].iloc[0]}" for key in keys)
    raise ValueError(
        f"table: expected one row for each model and quantity, got {len(twice)} that repeat, such as {first}; "
        "drop all but one, or give them different settings"
    )


def _truth(value: object) -> bool:
    if isinstance(value, str):
        if value not in ("True", "False"):
            raise ValueError(f"converged: expected True or False, got {value!r}")
        return value == "True"
    return bool(value) and not pd.isna(value)  # type: ignore[call-overload]
