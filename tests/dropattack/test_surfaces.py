"""Surfaces of a study's runs, at smoke scale, through the command line and against surfaces drawn by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from dropattack.checkpoint import load, load_run
from dropattack.cli import app
from dropattack.data import load_dataset
from dropattack.study import Study
from dropattack.surfaces import AUTHORS_WAY, COMMON_PLANES, one_surface, study_surfaces
from landscape import EmpiricalRisk, plots, random_directions

STUDY = """
seeds = [0, 1]
data = {name = "mnist-5k", examples = 200}

[training]
epochs = 1
keep_epochs = true

[methods.standard]
name = "standard"

[methods.sam]
name = "sam"
seeds = [1, 2, 0]
"""
HOW = ["--pairs", "2", "--points", "9", "--examples", "40", "--tolerance", "0.5", "--workers", "1"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surfaces")
    (folder / "tiny.toml").write_text(STUDY)
    runner, runs = CliRunner(), str(folder / "runs")
    words = ["study", "run", str(folder / "tiny.toml"), "-o", runs, "--workers", "1"]
    assert runner.invoke(app, words).exit_code == 0
    words = ["study", "surfaces", str(folder / "tiny.toml"), "-o", runs, "--method", "standard", "--method", "sam"]
    result = runner.invoke(app, [*words, *HOW, "--results", str(folder / "kept")])
    assert result.exit_code == 0, result.output
    return folder, result


def test_tables_pictures_and_surfaces_are_written(drawn):
    folder, result = drawn
    kept = {file.name for file in (folder / "kept").iterdir()}
    assert kept == {
        "authors_way.png", "contours.png", "profiles.png", "relief.png", "surface_differences.csv",
        "surface_profiles.csv", "surface_readouts.csv", "surfaces.nc", "surfaces_authors_way.nc",
    }  # fmt: skip
    assert "mean_radius_of_rise" in result.output
    readouts = pd.read_csv(folder / "kept" / "surface_readouts.csv")
    # two methods, the two seeds that both have, two planes, two splits
    assert len(readouts[readouts["readout"] == "center_loss"]) == 2 * 2 * 2 * 2
    differences = pd.read_csv(folder / "kept" / "surface_differences.csv")
    assert set(differences["n"]) == {2}
    assert set(differences["baseline"]) == {"standard"}
    profiles = pd.read_csv(folder / "kept" / "surface_profiles.csv")
    assert set(profiles["protocol"]) == {COMMON_PLANES, AUTHORS_WAY}
    assert (profiles["loss_rise"][profiles["radius"] == 0] == 0).all()


def test_common_planes_are_the_same_draws_and_the_authors_are_not(drawn):
    folder, _ = drawn
    with xr.open_dataset(folder / "kept" / "surfaces.nc") as common:
        assert dict(common.sizes) == {"training_seed": 2, "model": 2, "pair": 2, "split": 2, "alpha": 9, "beta": 9}
        about = [json.loads(str(text)) for text in common["directions"].values.flat]
    seeds = {tuple((one["seed"], one["index"]) for one in each) for each in about}
    assert seeds == {((0, 0), (0, 1)), ((1, 0), (1, 1))}  # two pairs, the same for both models and training seeds
    with xr.open_dataset(folder / "kept" / "surfaces_authors_way.nc") as authors:
        assert authors.sizes["pair"] == 1
        about = [json.loads(str(text)) for text in authors["directions"].sel(training_seed=0).values.flat]
    assert about[0][0]["seed"] != about[1][0]["seed"]
    assert all(one["ignored"] == [] and one["reference"] != "center" for each in about for one in each)


@pytest.mark.parametrize("protocol", [COMMON_PLANES, AUTHORS_WAY])
def test_a_corner_is_the_loss_at_weights_moved_by_hand(drawn, protocol):
    folder, _ = drawn
    name = "surfaces.nc" if protocol == COMMON_PLANES else "surfaces_authors_way.nc"
    with xr.open_dataset(folder / "kept" / name) as surfaces:
        corner = float(surfaces["loss"].sel(model="sam", training_seed=1, pair=0, split="test", alpha=1, beta=-1))
    model = load_run(folder / "runs" / "sam-seed1").model
    batches = load_dataset("mnist-5k", examples=200).test.batches(limit=40)
    center = EmpiricalRisk(model, batches).parameters()
    if protocol == COMMON_PLANES:
        first, second = random_directions(center, seed=0)
    else:
        tensors, _ = load(folder / "runs" / "sam-seed1" / "epochs" / "0000.safetensors")
        untrained = {name: tensors[f"model.{name}"] for name in center}
        first, second = random_directions(center, seed=2000, ignore=(), reference=untrained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in first:
                parameter += first[name] - second[name]
        inputs, labels = batches[0]
        expected = float(torch.nn.functional.cross_entropy(model(inputs), labels))
    # The corners of the plane are always evaluated, so nothing is interpolated there.
    assert corner == pytest.approx(expected, rel=1e-4)


def test_a_chosen_surface_says_how_it_was_made(drawn):
    folder, _ = drawn
    with xr.open_dataset(folder / "kept" / "surfaces.nc") as surfaces:
        one = one_surface(surfaces.load(), "standard", "train", training_seed=1, pair=1)
    assert set(one.dims) == {"alpha", "beta"}
    assert json.loads(one.attrs["directions"])[0]["seed"] == 1
    assert np.isfinite(one.attrs["error_estimate"])
    figure = plots.contour_panels({"standard": one})
    assert "seed 1" in figure.get_supxlabel()


def test_started_again_it_evaluates_nothing(drawn, monkeypatch):
    folder, _ = drawn
    study = Study.from_toml(folder / "tiny.toml")
    monkeypatch.setattr("landscape.risk.EmpiricalRisk.__call__", lambda *_: pytest.fail("evaluated again"))
    how = {"pairs": 2, "points": 9, "examples": 40, "tolerance": 0.5, "progress": False}
    found, _ = study_surfaces(study, folder / "runs", ["standard", "sam"], **how)
    assert set(found) == {COMMON_PLANES, AUTHORS_WAY}


def test_unknown_methods_and_no_common_seed_are_refused(drawn):
    folder, _ = drawn
    study = Study.from_toml(folder / "tiny.toml")
    with pytest.raises(ValueError, match="unknown method 'fgm'; the study has standard, sam"):
        study_surfaces(study, folder / "runs", ["standard", "fgm"], progress=False)
    (folder / "apart.toml").write_text(STUDY.replace("[1, 2, 0]", "[5]"))
    apart = Study.from_toml(folder / "apart.toml")
    with pytest.raises(ValueError, match="expected a training seed that all of standard, sam have, got none"):
        study_surfaces(apart, folder / "runs", ["standard", "sam"], progress=False)
