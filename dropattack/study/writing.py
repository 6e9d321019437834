"""The files of a study that are worth keeping when its checkpoints are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from dropattack.checkpoint import write_text
from dropattack.paper import paper_table
from dropattack.study.comparison import compare_results
from dropattack.study.settings import Study
from dropattack.study.tables import histories, results, with_choices
from landscape import plots

__all__ = ["baseline_of", "write_results"]


def write_results(
    study: Study, folder: str | Path, file: str | Path, where: str | Path, figures: str | Path | None = None
) -> pd.DataFrame:
    """Write what is finished: tables, curves, and the study itself.

    ``study.toml``, ``runs.csv`` (one row a run), ``tuning.csv`` (one row a trial), ``comparison.csv`` (one row a
    method, see :func:`compare_results`), ``epochs.csv`` (one row an epoch of a run) and ``curves.png``.

    Args:
        study: what was trained.
        folder: of its runs.
        file: its TOML file.
        where: folder for the files, made if needed.
        figures: folder for the picture; None: the same.

    Returns:
        The comparison; empty while the baseline or all others are missing.
    """
    where = Path(where)
    pictures = where if figures is None else Path(figures)
    for made in (where, pictures):
        made.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, where / "study.toml")
    found, tuned, epochs = results(study, folder), with_choices(study, folder), histories(study, folder)
    for name, table in (("runs", found), ("tuning", tuned), ("epochs", epochs)):
        if len(table):
            write_text(where / f"{name}.csv", table.to_csv(index=False))
    if not len(epochs):
        return pd.DataFrame()
    curves = {name: epochs[epochs["method"] == name] for name in _with_curves(found)}
    plots.curve_panels(curves, f"{study.name}: mean and standard deviation over seeds").savefig(pictures / "curves.png")
    baseline = baseline_of(study)
    if baseline not in set(found["method"]) or found["method"].nunique() < 2:
        return pd.DataFrame()
    compared = compare_results(found, baseline, _printed(study.base.data.name))
    write_text(where / "comparison.csv", compared.to_csv(index=False))
    return compared


def baseline_of(study: Study) -> str:
    """The row that others are compared with: ``original`` or, without one, the first."""
    return "original" if "original" in study.methods else next(iter(study.methods))


def _with_curves(results: pd.DataFrame) -> list[str]:
    """The rows of Figure 2, one of each setting; where there are no two of them, the first four."""
    settings = results.drop_duplicates("method").drop_duplicates("setting").set_index("method")["setting"]
    wanted = [name for name in ("original", "epsilon-0", "dropattack-iw", "dropattack-iw-paper") if name in settings]
    return wanted if len(wanted) > 1 else list(settings.index[:4])


def _printed(dataset: str) -> dict[tuple[str, str], float]:
    """The paper's Table 2 for one data set; the paper's best rows are the paper's own settings, tuned or not."""
    table = paper_table(2)
    table = table[table["dataset"] == dataset]
    printed: dict[tuple[str, str], float] = {}
    for method, accuracy, f1 in zip(table["method"], table["accuracy"], table["f1"], strict=True):
        names = [method, f"{method}-paper"] if method.startswith("dropattack") else [method]
        for name in names:
            printed |= {(name, "accuracy"): float(accuracy), (name, "F1"): float(f1)}
    return printed
