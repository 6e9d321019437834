"""One training run: its curve, its metrics, its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.report.files import read
from landscape import plots
from landscape.report import Code, Facts, Part, Picture, Section, Table

__all__ = ["run_section"]

_CURVES = [f"{split}_{quantity}" for split in ("train", "validation") for quantity in ("accuracy", "loss")]


def run_section(folder: Path, anchor: str) -> Section:
    """What a run's folder says.

    Args:
        folder: of the run.
        anchor: of the section.

    Raises:
        ValueError: a broken file.
    """
    about = _json(folder / "config.json")
    config = about.get("config", {})
    parts: list[Part] = [Facts(_facts(about, config))]
    if (folder / "metrics.json").is_file():
        parts.append(_metrics(_json(folder / "metrics.json")))
    else:
        parts.append("The run is not finished: there is no metrics.json yet.")
    history = read(folder / "history.csv", ("epoch",))
    if history is not None and set(_CURVES) <= set(history):
        parts.append(_curve(history, folder.name))
    if history is not None:
        parts.append(Table(history, "Every epoch", folded=True))
    parts.append(Code(json.dumps(about, indent=2, ensure_ascii=False), "How it was made: config.json", folded=True))
    return Section(f"Run {folder.name}", parts, anchor)


def _facts(about: dict[str, Any], config: dict[str, Any]) -> dict[str, object]:
    data, training = about.get("data", {}), config.get("training", {})
    facts: dict[str, object] = {}
    for heading, name in (("Data", "data"), ("Model", "model"), ("Method", "method")):
        if name in config:
            options = [f"{key} = {json.dumps(value)}" for key, value in config[name].items() if key != "name"]
            facts[heading] = ", ".join([str(config[name].get("name", "")), *options])
    sizes = [f"{data[split]['examples']:,} {split}" for split in ("train", "validation", "test") if split in data]
    if sizes:
        facts["Examples"] = ", ".join(sizes)
    facts |= {
        name.replace("_", " ").capitalize(): training[name]
        for name in ("seed", "epochs", "batch_size")
        if name in training
    }
    if "versions" in about:
        facts["Versions"] = ", ".join(f"{program} {version}" for program, version in about["versions"].items())
    return facts


def _metrics(metrics: dict[str, Any]) -> Table:
    rows = [
        {"checkpoint": name, **{key: value for key, value in values.items() if key != "seconds"}}
        for name, values in metrics.items()
        if isinstance(values, dict)
    ]
    return Table(pd.DataFrame(rows), "Metrics at the best epoch on validation data, and at the last")


def _curve(history: pd.DataFrame, name: str) -> Picture:
    accuracy = history["validation_accuracy"]
    best = int(accuracy.fillna(-1.0).to_numpy().argmax())
    told = f"Best validation accuracy {accuracy.iloc[best]:.2%}, epoch {history['epoch'].iloc[best]}."
    words = f"Accuracy and loss over {len(history)} epochs, training and validation data. {told}"
    return Picture(plots.curve_panels({name: history}), words, "Training curve.")


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected JSON, got {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(found).__name__}")
    return found
