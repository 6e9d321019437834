"""The commands beyond surface and flatness, on someone's own module in the current folder."""

import sys

import pandas as pd
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from typer.testing import CliRunner

from landscape import loss_surface, open_surface, random_directions
from landscape.cli import app

MODULE = """
import torch
from landscape import EmpiricalRisk

class Net(torch.nn.Sequential):
    pass  # a class of this folder, which no worker has installed

def _risk(seed, part=slice(None), model=None):
    generator = torch.Generator().manual_seed(seed)
    model = model or Net(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(8, 2, generator=torch.Generator().manual_seed(9))
    return EmpiricalRisk(model, [(inputs[part], torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])[part])])

def standard():
    return _risk(0)

def other():
    return _risk(1)

def splits():
    train = _risk(0, slice(5))
    return {"train": train, "test": _risk(0, slice(5, 8), train.model)}

def cached():
    class Cached(torch.nn.Linear):
        def forward(self, inputs):
            if not hasattr(self, "kept"):
                self.kept = self.weight.detach().clone().requires_grad_()
            return inputs @ self.kept.T

    return EmpiricalRisk(Cached(2, 2).eval(), [(torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0]))])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "ones_own_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("ones_own_models", None)


def run(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def weights(name):
    """A checkpoint, as the library of safetensors writes it."""
    model = getattr(sys.modules["ones_own_models"], name)().model
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, f"{name}.safetensors")
    return f"{name}.safetensors"


def test_worker_processes_have_the_classes_of_the_current_folder(folder):
    run("surface", "ones_own_models:standard", "-o", "out", "--workers", 2, "--span", 0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        risk = sys.modules["ones_own_models"].standard()
        here = loss_surface(risk, random_directions(risk.parameters()), span=0.5, progress=False)
    finally:
        torch.set_num_threads(threads)
    xr.testing.assert_equal(open_surface(folder / "out" / "standard.nc"), here)


def test_a_second_start_finds_everything_there(folder):
    first = run("surface", "ones_own_models:standard", "-o", "out")
    stamp = (folder / "out" / "standard.nc").read_bytes()
    again = run("surface", "ones_own_models:standard", "-o", "out")
    assert "points evaluated, largest error about" in first.stdout
    assert first.stdout == again.stdout
    assert len(stamp) == len((folder / "out" / "standard.nc").read_bytes())


def test_a_file_of_another_model_is_refused_in_one_line(folder):
    run("surface", "a=ones_own_models:standard", "-o", "out")
    refused = run("surface", "a=ones_own_models:other", "-o", "out", code=2)
    assert "belongs to other weights, directions" in refused.stderr.splitlines()[-1]


def test_splits_are_drawn_side_by_side(folder):
    done = run("surface", "ones_own_models:splits", "-o", "out")
    assert list(open_surface(folder / "out" / "splits.nc")["split"].values) == ["train", "test"]
    assert "splits: train loss" in done.stdout
    assert "splits: test loss" in done.stdout


def test_check_passes_a_good_model_and_fails_loudly_otherwise(folder):
    good = run("check", "ones_own_models:standard")
    assert "all 10 checks passed" in good.stdout
    bad = run("check", "ones_own_models:standard", "ones_own_models:cached", code=1)
    assert "FAIL  loss follows weights" in bad.stdout
    assert bad.stderr.splitlines()[-1] == "failed: cached"


def test_compare_writes_differences_with_intervals(folder):
    done = run("compare", "ones_own_models:standard", "ones_own_models:other", "--pairs", 2, "-o", "out")
    table = pd.read_csv(folder / "out" / "other-minus-standard.csv")
    assert list(table.columns)[1:] == ["readout", "difference", "low", "high", "n"]
    assert set(table["n"]) == {2}
    assert "other minus standard" in done.stdout
    readouts = pd.read_csv(folder / "out" / "readouts.csv").set_index(["model", "pair", "readout"])["value"]
    of_pairs = [
        readouts["other", pair, "curvature_trace"] - readouts["standard", pair, "curvature_trace"] for pair in (0, 1)
    ]
    assert table.set_index("readout")["difference"]["curvature_trace"] == pytest.approx(sum(of_pairs) / 2)
    assert (folder / "out" / "readouts.png").read_bytes().startswith(b"\x89PNG")


def test_between_two_checkpoints(folder):
    run("check", "ones_own_models:standard")  # imports the module
    a, b = weights("standard"), weights("other")
    done = run("between", "ones_own_models:standard", a, b, "--points", 5, "--steps", 20, "-o", "out")
    models = sys.modules["ones_own_models"]
    line = open_surface(folder / "out" / "line.nc")["loss"]
    assert float(line[0]) == pytest.approx(models.standard()().loss, rel=1e-6)
    assert float(line[-1]) == pytest.approx(models.other()().loss, rel=1e-6)
    assert "on the straight line" in done.stdout
    assert (folder / "out" / "curve.png").exists()


def test_the_trajectory_of_a_run(folder):
    run("check", "ones_own_models:standard")
    files = []
    model = sys.modules["ones_own_models"].standard().model
    for step in range(4):
        with torch.no_grad():
            for index, parameter in enumerate(model.parameters()):
                parameter.add_(
                    0.1 * (step + index) ** 2 * torch.sin(torch.arange(parameter.numel()) + step).view_as(parameter)
                )
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, f"{step}.safetensors")
        files.append(f"{step}.safetensors")
    done = run("trajectory", "ones_own_models:standard", *files, "-o", "out")
    assert open_surface(folder / "out" / "path.nc").sizes["checkpoint"] == 4
    assert "explained variance" in done.stdout
    assert (folder / "out" / "trajectory.png").exists()


def test_the_map_of_eigenvalue_ratios(folder):
    run("eigenvalue-ratio", "ones_own_models:standard", "--points", 3, "-o", "out")
    assert open_surface(folder / "out" / "eigenvalue-ratio.nc")["ratio"].shape == (3, 3)


@pytest.mark.parametrize("suffix", ["csv", "vts"])
def test_export(folder, suffix):
    run("surface", "ones_own_models:standard", "-o", "out")
    run("export", "out/standard.nc", f"out/standard.{suffix}")
    assert (folder / "out" / f"standard.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--workers", 2, "--scheduler", "tcp://127.0.0.1:1"],
            "workers and scheduler: expected one of the two, got both",
        ),
        (["--workers", -1], "workers: expected at least 0, got -1"),
        (["--tolerance", 0], "tolerance: expected a positive number, got 0.0"),
        (["--method", "guess"], "method: expected 'adaptive' or 'grid', got 'guess'"),
    ],
)
def test_wrong_options(folder, words, message):
    done = run("surface", "ones_own_models:standard", *words, code=2)
    assert message in done.stderr.splitlines()[-1]
