"""Table 2 beside Tables 5-9: was the number in the comparison chosen as the best of several?"""

from __future__ import annotations

import pandas as pd

from dropattack.paper.printed import TARGET_TABLES, paper_table

__all__ = ["selection"]


def selection() -> pd.DataFrame:
    """Whether Table 2 reports, as DropAttack-(I&W), the best setting of the table that tries targets.

    If it does, the setting was chosen by the numbers that are reported, and the largest of several is too large by what
    chance has added to it, while a method with one setting has none of that.

    Returns:
        One row for each data set and measure: ``place``, ``dataset``, ``measure``, ``in_table_2``, ``highest`` (of the
        other table), ``equal``, ``target``, ``attack_probability`` and ``epsilon`` of the highest (the first, of
        equal ones), ``settings_tried`` and ``targets_tried`` in that table, standard training aside.
    """
    reported = paper_table(2)
    reported = reported[reported["method"] == "dropattack-iw"].set_index("dataset")
    rows = []
    for number, dataset in TARGET_TABLES.items():
        tried = paper_table(number).dropna(subset=["epsilon"])
        for measure in ("accuracy", "f1"):
            if tried[measure].notna().any():
                best = tried.iloc[tried[measure].argmax()]
                printed = reported.loc[dataset, measure]
                row: dict[str, object] = {"place": f"Table 2, Table {number}", "dataset": dataset, "measure": measure}
                row |= {"in_table_2": printed, "highest": best[measure], "equal": printed == best[measure]}
                row |= {name: best[name] for name in ("target", "attack_probability", "epsilon")}
                rows.append(row | {"settings_tried": len(tried), "targets_tried": tried["target"].nunique()})
    return pd.DataFrame(rows)
