"""How the numbers of a study were made: its configuration, seeds, commands, versions; and its runs one by one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd
import xarray as xr

from dropattack.report.columns import filled, per_cent
from dropattack.report.files import read
from landscape import open_surface
from landscape.report import Code, Column, Facts, Part, Section, Table

__all__ = ["making_section"]


def making_section(folder: Path) -> Section | None:
    """What is stored of the making; nothing is guessed.

    Args:
        folder: of the study's results.
    """
    runs, tuning = read(folder / "runs.csv", ("study", "method", "seed")), read(folder / "tuning.csv", ("method",))
    surfaces = _stored_surfaces(folder)
    facts: dict[str, object] = {}
    commands = []
    name = None if runs is None else str(runs["study"].iloc[0])
    if runs is not None:
        facts |= _about_runs(runs, tuning)
        commands.append(["dropattack", "study", "run", f"studies/{name}.toml", "--results", f"results/{folder.name}"])
    if (folder / "classical.csv").is_file() and name is not None:
        table = f"results/{folder.name}/classical.csv"
        commands.append(["dropattack", "study", "classical", f"studies/{name}.toml", "--table", table])
    for room in ("", "flatness"):
        if (flatness := _flatness(folder / room)) is not None:
            facts["Flatness"] = _about_flatness(flatness)
            commands.append([*_flatness_command(flatness, name), "--results", str(Path("results", folder.name, room))])
    if surfaces is not None:
        facts["Surfaces"] = _about_surfaces(surfaces)
        commands.append(_surface_command(surfaces, folder))
        if "torch" in surfaces.attrs:
            facts["Versions"] = ", ".join(
                f"{program} {surfaces.attrs[program]}"
                for program in ("torch", "landscape")
                if program in surfaces.attrs
            )
    parts: list[Part] = [Facts(facts)] if facts else []
    if commands:
        parts.append(Code("\n".join(f"$ {shlex.join(command)}" for command in commands), "Commands"))
    if (folder / "study.toml").is_file():
        parts.append(Code((folder / "study.toml").read_text(encoding="utf-8"), "The study: study.toml", folded=True))
    if runs is not None:
        parts.append(_runs(runs))
    if tuning is not None:
        parts.append(_trials(tuning))
    return Section("How it was made", parts) if parts else None


def _about_runs(runs: pd.DataFrame, tuning: pd.DataFrame | None) -> dict[str, object]:
    by_seeds: dict[str, list[str]] = {}
    for method, mine in runs.groupby("method", sort=False):
        by_seeds.setdefault(", ".join(map(str, sorted(mine["seed"]))), []).append(str(method))
    facts: dict[str, object] = {"Study": str(runs["study"].iloc[0]), "Runs": len(runs)}
    facts["Training seeds"] = [f"{seeds}: {', '.join(methods)}" for seeds, methods in by_seeds.items()]
    if tuning is not None:
        seeds = ", ".join(map(str, sorted(tuning["seed"].unique()))) if "seed" in tuning else "unknown"
        facts["Tuning"] = f"{len(tuning)} trials on validation data, seed {seeds}"
    seconds = [
        table["training_seconds"].sum() for table in (runs, tuning) if table is not None and "training_seconds" in table
    ]
    if seconds:
        facts["Time of training"] = f"{sum(seconds) / 3600:.1f} hours of one process, all runs and trials together"
    return facts


def _about_flatness(flatness: pd.DataFrame) -> str:
    methods, metrics, seeds = (flatness[name].nunique() for name in ("method", "metric", "training_seed"))
    told = f"{metrics} metrics, {methods} methods, {seeds} training seeds"
    for column, words in (("examples", "{} examples of each split"), ("seed", "seed of the random draws {}")):
        if column in flatness and len(values := flatness[column].unique()) == 1:
            told += f", {words.format(values[0])}"
    return told


def _flatness_command(flatness: pd.DataFrame, study: str | None) -> list[str]:
    command = ["dropattack", "study", "flatness", f"studies/{study or 'STUDY'}.toml"]
    for option in ("method", "metric"):
        command += [word for value in flatness[option].unique() for word in (f"--{option}", str(value))]
    for option in ("examples", "seed"):
        if option in flatness and len(values := flatness[option].unique()) == 1:
            command += [f"--{option}", str(values[0])]
    return command


def _about_surfaces(surfaces: xr.Dataset) -> str:
    sizes = surfaces.sizes
    told = [f"{sizes['model']} methods, {sizes['training_seed']} training seeds, {sizes['pair']} direction pairs each"]
    attributes = {
        "normalization": "{}-normalized directions",
        "examples": "{} examples of each split",
        "seed": "seed of the first pair {}",
        "tolerance": "tolerance {}",
    }
    told += [words.format(surfaces.attrs[name]) for name, words in attributes.items() if name in surfaces.attrs]
    if "evaluations" in surfaces:
        counts = surfaces["evaluations"].values
        told.append(f"{counts.min()} to {counts.max()} points evaluated of each, the others interpolated")
    if "converged" in surfaces and not surfaces["converged"].values.all():
        told.append(f"{int((surfaces['converged'].values == 0).sum())} not converged")
    return ", ".join(told)


def _surface_command(surfaces: xr.Dataset, folder: Path) -> list[str]:
    about = surfaces.attrs
    command = ["dropattack", "study", "surfaces", f"studies/{about.get('study', 'STUDY')}.toml"]
    for model in surfaces["model"].values:
        command += ["--method", str(model)]
    options = {"--seeds": surfaces.sizes["training_seed"], "--pairs": surfaces.sizes["pair"]}
    options |= {"--points": surfaces.sizes["alpha"]}
    options |= {f"--{name}": about[name] for name in ("tolerance", "examples", "seed") if name in about}
    for name, value in options.items():
        command += [name, str(value)]
    return [*command, "--results", f"results/{folder.name}"]


def _stored_surfaces(folder: Path) -> xr.Dataset | None:
    for room in ("", "surfaces"):
        if (folder / room / "surfaces.nc").is_file():
            return open_surface(folder / room / "surfaces.nc")
    return None


def _flatness(folder: Path) -> pd.DataFrame | None:
    return read(folder / "flatness.csv", ("method", "training_seed", "metric"))


def _runs(runs: pd.DataFrame) -> Table:
    columns = [
        Column("method", "Method"),
        Column("seed", "Seed"),
        Column("setting", "Setting"),
        Column("best_epoch", "Best epoch"),
        Column("best_validation_accuracy", "Validation accuracy", "%", ".2f"),
        Column("best_test_accuracy", "Test accuracy", "%", ".2f"),
        Column("best_test_loss", "Test loss", "nats", ".4f"),
        Column("training_seconds", "Training", "s", ".0f"),
    ]
    return Table(per_cent(runs), "Every run", filled(runs, columns), folded=True)


def _trials(tuning: pd.DataFrame) -> Table:
    columns = [
        Column("method", "Method"),
        Column("trial", "Trial"),
        Column("seed", "Seed"),
        Column("setting", "Setting"),
        Column("best_validation_accuracy", "Validation accuracy", "%", ".2f"),
        Column("best_validation_loss", "Validation loss", "nats", ".4f"),
        Column("chosen", "Chosen"),
    ]
    return Table(per_cent(tuning), "Every trial of the tuning", filled(tuning, columns), folded=True)
