"""What a study says of its minima: flatness by every metric, and gradient norms."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dropattack.minima import without_single_weights
from dropattack.report.columns import cells, filled, interval_cells
from dropattack.report.files import picture, read
from landscape import METRICS, plots
from landscape.report import Badge, Column, Part, Picture, Section, Table, Tone

__all__ = ["differences_table", "flatness_section", "quantities"]

_ABOUT = """Every metric is measured at the checkpoint that validation data chose and, where runs kept their epochs, \
at a training loss that all of them had: an under-fitted model looks flat. A metric that moves when layers are \
rescaled, though the function stays the same, can differ by scale alone; a verdict that rests on such metrics only \
says so."""
_NEEDED = (
    *("checkpoint", "split", "metric", "setting", "method", "baseline", "difference", "low", "high", "n", "ratio"),
    *("p_holm", "smallest_p", "effect_size", "converged"),
)
_GRADIENTS = ("input_gradient_norm", "weight_gradient_norm")


def flatness_section(folder: Path, places: Sequence[Path], with_gap: bool = True) -> Section | None:
    """Flatness metrics with intervals; None if there are none.

    Args:
        folder: that ``dropattack study flatness`` wrote into.
        places: folders of its pictures.
        with_gap: show the picture of the generalization gap, the largest of all, and not only the correlations.
    """
    differences = read(folder / "differences.csv", _NEEDED)
    verdicts = read(folder / "verdicts.csv", ("checkpoint", "split", "method", "baseline", "verdict", "sentence"))
    if differences is None and verdicts is None:
        return None
    parts: list[Part] = [_ABOUT]
    if verdicts is not None:
        parts.append(_verdicts(verdicts))
    if differences is not None:
        gradients = without_single_weights(differences)
        gradients = gradients[gradients["metric"].isin(_GRADIENTS) & (gradients["checkpoint"] == "selected")]
        if len(gradients):
            parts.append(differences_table(gradients, "Gradient norms at the selected checkpoint"))
        parts.append(
            differences_table(differences, "Every metric: each method minus the baseline, paired by seed", folded=True)
        )
    table = read(folder / "flatness.csv", ("method", "training_seed", "checkpoint", "split", "metric", "value"))
    return Section(
        "Flatness of the minima",
        [*parts, *_pictures(places, table, differences), *_gap(folder, places, table, with_gap)],
    )


def differences_table(differences: pd.DataFrame, caption: str, folded: bool = False) -> Table:
    """A table of :func:`landscape.statistics.compare_methods`.

    Args:
        differences: its rows.
        caption: of the table.
        folded: as for :class:`landscape.report.Table`.
    """
    rows = differences.assign(
        quantity=quantities(differences),
        pair=differences["method"].astype(str) + " − " + differences["baseline"].astype(str),
        interval=interval_cells(differences, ".3g"),
        side=cells(differences, map(_side, differences["low"], differences["high"])),
    )
    if "metric" in rows and rows["metric"].isin(METRICS).all():
        rows["rescaling"] = [
            "no" if METRICS[metric].rescaling == "unchanged" else "yes" for metric in differences["metric"]
        ]
    columns = [
        Column("quantity", "Metric"),
        Column("split", "Data"),
        Column("checkpoint", "Checkpoint"),
        Column("pair", "Methods"),
        Column("difference", "Difference", format=".3g"),
        Column("interval", "95 % interval"),
        Column("side", "Interval lies"),
        Column("ratio", "Ratio", format=".3g"),
        Column("n", "Pairs"),
        Column("p_value", "p", "exact", ".2g"),
        Column("p_holm", "p", "Holm", ".2g"),
        Column("rescaling", "Moved by rescaling"),
        Column("converged", "Converged"),
    ]
    known = filled(rows, columns)
    if len(rows["checkpoint"].unique()) == 1:
        known = [column for column in known if column.name != "checkpoint"]
    return Table(rows, caption, known, folded)


def quantities(table: pd.DataFrame) -> list[str]:
    """Each row's metric with its setting."""
    return [
        f"{metric} ({setting})" if isinstance(setting, str) and setting else str(metric)
        for metric, setting in zip(table["metric"], table["setting"], strict=True)
    ]


def _side(low: float, high: float) -> str | None:
    if math.isnan(low + high):
        return None
    return "above zero" if low > 0 else "below zero" if high < 0 else "around zero"


def _verdicts(verdicts: pd.DataFrame) -> Table:
    rows = verdicts.assign(
        shown=cells(verdicts, (Badge(str(verdict), _tone(str(verdict))) for verdict in verdicts["verdict"]))
    )
    rows["told"] = [str(sentence).partition(". ")[2] or str(sentence) for sentence in verdicts["sentence"]]
    columns = [
        Column("method", "Method"),
        Column("shown", "Verdict"),
        Column("baseline", "Against"),
        Column("split", "Data"),
        Column("checkpoint", "Checkpoint"),
        Column("told", "Metrics whose interval excludes zero"),
    ]
    return Table(rows, "Flatter, or not, by all metrics together", columns)


def _tone(verdict: str) -> Tone:
    if verdict.startswith("flatter by"):
        return "for"
    return "against" if verdict.startswith("sharper by") else "open"


def _pictures(places: Sequence[Path], table: pd.DataFrame | None, differences: pd.DataFrame | None) -> list[Picture]:
    selected = None if table is None else without_single_weights(table[table["checkpoint"] == "selected"])
    on_train = None if selected is None else selected[selected["split"] == "train"]
    rescaling = {name: metric.rescaling for name, metric in METRICS.items()}
    return [
        *picture(
            places,
            "flatness.png",
            "One panel a metric: a dot for each training seed of each method, the mean, and a bar for its 95 % "
            "interval, on training data. The table of every metric above has the differences as numbers.",
            "Each training seed, the mean and its 95 % interval, on training data at the selected checkpoint.",
            None if on_train is None else functools.partial(plots.flatness_panels, on_train),
        ),
        *picture(
            places,
            "differences.png",
            "A heat map, metrics by methods: the ratio to the baseline, framed where the interval excludes zero. The "
            "table of every metric above has the same numbers.",
            "Ratio to the baseline of every metric, at each checkpoint and on each split.",
            None
            if differences is None
            else functools.partial(
                plots.metric_heat_map_panels, without_single_weights(differences), rescaling=rescaling
            ),
        ),
    ]


def _gap(folder: Path, places: Sequence[Path], table: pd.DataFrame | None, with_gap: bool) -> list[Part]:
    """Whether flatness goes with a small generalization gap."""
    found: list[Part] = []
    correlations = read(folder / "correlations.csv", ("checkpoint", "split", "metric", "setting", "gap", "tau", "n"))
    if correlations is not None:
        rows = correlations.assign(quantity=quantities(correlations), interval=interval_cells(correlations, ".2f"))
        columns = [
            Column("quantity", "Metric"),
            Column("split", "Data"),
            Column("checkpoint", "Checkpoint"),
            Column("gap", "Gap in"),
            Column("tau", "Kendall's τ", format=".2f"),
            Column("interval", "95 % interval"),
            Column("n", "Runs"),
            Column("p_holm", "p after Holm's correction", format=".2g"),
        ]
        caption = "Does flatness go with a small generalization gap? Rank correlation over all runs"
        found.append(Table(rows, caption, filled(rows, columns), folded=True))
    selected = None if table is None else without_single_weights(table[table["checkpoint"] == "selected"])
    if with_gap:
        found += picture(
            places,
            "gap.png",
            "One panel a metric: the generalization gap of every run over the metric, with rank correlations, which "
            "are also in the table above.",
            "the generalization gap of every run over each metric",
            None if selected is None else functools.partial(plots.gap_panels, selected),
            folded=True,
        )
    return found
