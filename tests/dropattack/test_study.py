"""Studies: what is read, what is trained, what is collected, and what the committed ones name."""

import concurrent.futures
import inspect
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from dropattack.cli import app
from dropattack.config import Named
from dropattack.data import DATASETS
from dropattack.methods import build_method
from dropattack.models import MODELS, build_model
from dropattack.study import Study, results, run_study, status

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))

SHAPES = {"lenet5": (1, 28, 28), "vgg16": (3, 32, 32)}

TOML = """
seeds = [0, 1]
data = "mnist-5k"

[training]
epochs = 1

[methods]
standard = "standard"

[methods.gentle]
name = "sam"
rho = 0.01
"""


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(TOML.replace('data = "mnist-5k"', 'data = {name = "mnist-5k", examples = 100}'))
    return Study.from_toml(file)


def one_thread():
    return concurrent.futures.ThreadPoolExecutor(1)


def test_a_study_is_every_method_with_every_seed(tmp_path):
    (tmp_path / "digits.toml").write_text(TOML)
    study = Study.from_toml(tmp_path / "digits.toml")
    assert study.name == "digits"
    runs = study.runs()
    assert list(runs) == ["standard-seed0", "gentle-seed0", "standard-seed1", "gentle-seed1"]
    gentle = runs["gentle-seed1"]
    assert gentle.method == Named("sam", {"rho": 0.01})
    assert (gentle.training.seed, gentle.training.epochs, gentle.data.name) == (1, 1, "mnist-5k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('seed = 3\n[methods]\nstandard = "standard"', r"study\.toml: unknown study key 'seed'; known: seeds"),
        ("seeds = [0]", r"\[methods\]: expected a table for each method"),
        ('seeds = 3\n[methods]\nstandard = "standard"', "seeds: expected a list of whole numbers, got 3"),
        ("[methods.mine]\nrho = 1", r"\[methods\.mine\]: expected a `name`, got rho"),
        ('[training]\nepoch = 1\n[methods]\ns = "standard"', r"unknown config key 'training\.epoch'"),
        ("methods = = 3", r"study\.toml: .*line 1"),
    ],
)
def test_a_bad_study_names_the_file_and_the_key(tmp_path, text, message):
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Study.from_toml(tmp_path / "study.toml")


def test_what_is_missing_is_trained_and_collected(small, tmp_path, monkeypatch):
    table = run_study(small, tmp_path / "runs", executor=one_thread(), progress=False)
    assert list(zip(table["method"], table["seed"], strict=True)) == [
        ("standard", 0),
        ("gentle", 0),
        ("standard", 1),
        ("gentle", 1),
    ]
    assert list(table["passes_per_step"]) == [1, 2, 1, 2]
    assert table["best_test_accuracy"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "runs" / "results.csv"), table)

    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("metrics.json")}
    (tmp_path / "runs" / "gentle-seed1" / "metrics.json").unlink()
    assert len(results(small, tmp_path / "runs")) == 3
    (tmp_path / "runs" / "standard-seed1" / "history.csv").unlink()
    (tmp_path / "runs" / "standard-seed1" / "metrics.json").rename(tmp_path / "aside")
    states = {"standard-seed0": "finished", "gentle-seed0": "finished", "standard-seed1": "not begun"}
    assert status(small, tmp_path / "runs") == states | {"gentle-seed1": "1 of 1 epochs"}
    (tmp_path / "aside").rename(tmp_path / "runs" / "standard-seed1" / "metrics.json")
    trained = []
    monkeypatch.setattr("dropattack.study._train", lambda tables, folder, data_dir: trained.append(Path(folder).name))
    run_study(small, tmp_path / "runs", executor=one_thread(), progress=False)
    assert trained == ["gentle-seed1"]
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items() if path.exists())


def test_a_run_that_fails_stops_no_other(small, tmp_path):
    methods = {"broken": Named("sam", {"rho": -1.0}), **small.methods}
    study = Study("broken", small.base, methods)
    with pytest.raises(ValueError, match="rho: expected a finite number of at least 0"):
        run_study(study, tmp_path, executor=one_thread(), progress=False)
    assert list(results(study, tmp_path)["method"]) == ["standard", "gentle"]


def test_processes_train_as_the_caller_does(small, tmp_path):
    study = Study("one", small.base, {"standard": Named("standard"), "again": Named("standard")})
    table = run_study(study, tmp_path, progress=False)
    standard, again = table["best_train_loss"]
    assert standard == again


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_studies_name_models_methods_and_sites_that_exist(file):
    study = Study.from_toml(file)
    options = {"hidden": 4, "embedding_size": 4, "vocabulary": 20, "classes": 4, "width": 0.0625}
    base = study.base.model
    assert study.base.data.name in DATASETS
    taken = inspect.signature(MODELS[base.name]).parameters
    model = build_model(base.name, **{**base.options, **{k: v for k, v in options.items() if k in taken}})
    assert "standard" in study.methods
    for method in study.methods.values():
        build_method(method.name, model, **method.options)
    inputs = torch.randn(2, *SHAPES[base.name]) if base.name in SHAPES else torch.ones(2, 5, dtype=torch.int64)
    assert model(inputs).shape == (2, 4)


@pytest.mark.skipif("DROPATTACK_DATA" not in os.environ, reason="needs a data folder with all data sets")
@pytest.mark.parametrize("name", ["imdb", "pheme", "ag-news", "mnist", "cifar10"])
def test_every_data_set_trains_at_smoke_scale(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DROPATTACK_CACHE", str(tmp_path))
    study = Study.from_toml(next(file for file in STUDIES if file.stem == f"{name}-smoke"))
    table = run_study(study, tmp_path / "runs", executor=one_thread(), progress=False)
    assert list(table["method"]) == list(study.methods)
    assert np.isfinite(table["best_test_loss"]).all()


def test_the_command_line_runs_a_study_and_tells_how_far_it_is(tmp_path):
    runner = CliRunner()
    file, folder = tmp_path / "small.toml", tmp_path / "runs"
    file.write_text('data = {name = "mnist-5k", examples = 50}\n[training]\nepochs = 1\n[methods]\nplain = "standard"')
    before = runner.invoke(app, ["study", "status", str(file), "-o", str(folder)])
    assert before.output == "plain-seed0: not begun\n"
    table = tmp_path / "tables" / "small.csv"
    run = runner.invoke(app, ["study", "run", str(file), "-o", str(folder), "--table", str(table)])
    assert run.exit_code == 0
    assert table.read_text() == (folder / "results.csv").read_text()
    assert "results.csv" in run.output
    after = runner.invoke(app, ["study", "status", str(file), "-o", str(folder)])
    assert after.output == "plain-seed0: finished\n"
    missing = runner.invoke(app, ["study", "run", str(tmp_path / "no.toml")])
    assert missing.exit_code == 2
    assert "no.toml" in missing.output
