"""What was found about gradient regularization: the checks of equations 8 to 13."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from dropattack.report.columns import filled
from dropattack.report.files import picture, read
from landscape.report import Column, Section, Table

__all__ = ["gradients_section"]

_ABOUT = """DropAttack adds the loss at a perturbed point. To first order in epsilon that is a penalty on the norm of \
the gradient (equations 8 to 13 of the paper). How far that description holds is measured at the weights of finished \
runs: the rise of the loss under masked perturbations, beside each term of its expansion."""
_DESCRIPTIONS = {
    "first_order": "first order, ⟨g, r⟩",
    "first_and_second_order": "first and second order",
    "eq_12": "equation 12, ε‖M∘g‖",
    "expected_first_order": "first order, its expected value",
}


def gradients_section(folder: Path, places: Sequence[Path]) -> Section | None:
    """The penalty checks of some runs; None if there are none.

    Args:
        folder: that ``dropattack penalty`` wrote into.
        places: folders of its pictures.
    """
    tables = list(_tables(folder))
    pictures = [
        one
        for place in places
        for file in sorted(place.glob("penalty-*.png"))
        for one in picture(
            [place],
            file.name,
            f"Rise of the loss over epsilon at the weights of {_run(file)}, one panel a site, beside the terms of its "
            "expansion; the numbers are in summary.csv.",
            f"At the weights of {_run(file)}.",
        )
    ]
    if not tables and not pictures:
        return None
    return Section("Is it gradient regularization?", [_ABOUT, *tables, *pictures])


def _tables(folder: Path) -> Iterator[Table]:
    if (fair := read(folder / "fair.csv", ("model", "site", "description", "epsilon"))) is not None:
        fair = fair.assign(description=fair["description"].replace(_DESCRIPTIONS))
        wide = fair.pivot_table(
            index=["model", "site"], columns="description", values="epsilon", sort=False, dropna=False
        )
        columns = [Column("model", "Run"), Column("site", "Site"), *(Column(str(name), str(name)) for name in wide)]
        caption = "Largest epsilon up to which the rise is described within a tenth; –: at none of those looked at"
        yield Table(wide.reset_index(), caption, columns)
    if (updates := read(folder / "updates.csv", ("model", "epsilon", "of", "cosine", "norm_ratio"))) is not None:
        yield _updates(updates)
    if (readings := read(folder / "readings.csv", ("switch", "value", "of", "cosine", "norm_ratio"))) is not None:
        columns = [
            Column("model", "Run"),
            Column("switch", "Reading of"),
            Column("value", "Read as"),
            Column("norm_ratio", "Norm, ratio", format=".3g"),
            Column("cosine", "Cosine", format=".3f"),
            Column("distance", "Distance", format=".3g"),
            Column("draws", "Draws"),
        ]
        mine = readings[readings["of"] == "beyond"]
        caption = "What each reading of the paper changes in the update, beyond the clean gradient"
        yield Table(mine, caption, filled(mine, columns), folded=True)
    if (masks := read(folder / "masks.csv", ("attack_probability", "of", "quantity", "value"))) is not None:
        columns = [
            Column("model", "Run"),
            Column("of", "Attacked"),
            Column("fixed", "Held fixed"),
            Column("attack_probability", "P(attacked)"),
            Column("epsilon", "Epsilon"),
            Column("quantity", "Quantity"),
            Column("value", "Mean", format=".3g"),
            Column("sd", "sd", format=".2g"),
            Column("draws", "Draws"),
        ]
        caption = "What the mask does to perturbations and updates"
        yield Table(masks, caption, filled(masks, columns), folded=True)


def _updates(updates: pd.DataFrame) -> Table:
    mine = updates[updates["of"] == "beyond"]
    if "epoch" in mine:
        mine = mine[mine["epoch"].isna()]  # the selected checkpoint
    keys = [key for key in ("model", "implicit", "explicit", "epsilon") if key in mine]
    means = mine.groupby(keys, sort=False, dropna=False)[["norm_ratio", "cosine"]].mean().reset_index()
    columns = [
        Column("model", "Run"),
        Column("implicit", "DropAttack"),
        Column("explicit", "Penalty"),
        Column("epsilon", "Epsilon"),
        Column("norm_ratio", "Norm, ratio", format=".3g"),
        Column("cosine", "Cosine", format=".3f"),
    ]
    caption = (
        "DropAttack's update against the gradient of the explicit penalty, both beyond the clean gradient, at the "
        "selected checkpoint: mean over masks"
    )
    return Table(means, caption, filled(means, columns))


def _run(file: Path) -> str:
    return file.stem.removeprefix("penalty-")
