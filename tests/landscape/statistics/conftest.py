"""Flatness tables by hand."""

import json

import pandas as pd
import pytest

ROW = {
    "checkpoint": "selected",
    "split": "train",
    "metric": "sharpness",
    "setting": "rho=0.05",
    "standard_error": float("nan"),
    "converged": True,
    "draws": "",
    "detail": "{}",
    "loss": 0.1,
    "accuracy": 0.95,
    "examples": 100,
    "seed": 0,
}


@pytest.fixture
def flatness():
    """Makes a table from rows ``(method, training seed, value or draws)``, and columns that replace those of ROW."""

    def make(*rows, **columns):
        table = []
        for method, training_seed, value in rows:
            row = ROW | {"method": method, "training_seed": training_seed} | columns
            if isinstance(value, list):
                row |= {"value": sum(value) / len(value), "draws": json.dumps(value)}
            else:
                row["value"] = value
            table.append(row)
        return pd.DataFrame(table).astype({"training_seed": "Int64"})

    return make


@pytest.fixture
def through_csv(tmp_path):
    """A table as it is read back from a file."""

    def make(table):
        table.to_csv(tmp_path / "table.csv", index=False)
        return pd.read_csv(tmp_path / "table.csv")

    return make
