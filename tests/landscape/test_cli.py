"""The command line on someone's own module in the current folder."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from landscape import flatness_table, loss_surface, open_surface, random_directions
from landscape.cli import app
from landscape.flatness.table import with_types

MODULE = """
import torch
from landscape import EmpiricalRisk

NUMBER = 3

def _risk(seed):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(6, 2, generator=torch.Generator().manual_seed(9))
    return EmpiricalRisk(model, [(inputs, torch.tensor([0, 1, 1, 0, 1, 0]))])

def standard():
    return _risk(0)

def other():
    return _risk(1)

def nothing():
    return None

def dropped():
    return EmpiricalRisk(torch.nn.Dropout(), [])

def picky(which):
    return _risk(which)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a module, under names that no other test and no installed package has."""
    (tmp_path / "someones_models.py").write_text(MODULE)
    (tmp_path / "someones_script.py").write_text("import no_such_package_anywhere\n")
    (tmp_path / "someones_crash.py").write_text("from torch import no_such_function\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in [name for name in sys.modules if name.startswith("someones_")]:
        del sys.modules[name]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_surfaces_of_two_models(folder):
    done = run(
        "surface", "someones_models:standard", "mine=someones_models:other", "-o", "out",
        "--points", 3, "--span", 0.5, "--seed", 4, "--normalization", "layer",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in (folder / "out").iterdir()) == [
        "contours.png", "mine.nc", "relief.png", "standard.nc",
    ]  # fmt: skip
    for picture in ("contours.png", "relief.png"):
        assert (folder / "out" / picture).read_bytes().startswith(b"\x89PNG")
    models = sys.modules["someones_models"]
    for name, risk in (("standard", models.standard()), ("mine", models.other())):
        directions = random_directions(risk.parameters(), seed=4, normalization="layer")
        expected = loss_surface(risk, directions, span=0.5, points=3, progress=False)
        surface = open_surface(folder / "out" / f"{name}.nc")
        xr.testing.assert_equal(surface, expected)
        assert surface.attrs["seed"] == 4
        assert f"{name}: loss {risk().loss:.6g} over 6 examples" in done.output


def test_flatness_of_two_models(folder):
    chosen = ["filter_normalized_rise", "hessian_trace", "largest_eigenvalue"]
    words = [word for metric in chosen for word in ("--metric", metric)]
    done = run(
        "flatness", "someones_models:standard", "mine=someones_models:other", *words, "-o", "new/table.csv",
        "--seed", 2, "--workers", 1,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    models = sys.modules["someones_models"]
    risks = {"standard": models.standard(), "mine": models.other()}
    expected = flatness_table(risks, chosen, seed=2, progress=False)
    written = with_types(pd.read_csv(folder / "new" / "table.csv"))
    pd.testing.assert_frame_equal(written, expected, rtol=1e-6)
    for name in ("standard", "mine", *chosen, "sharper"):
        assert name in done.output


def test_chosen_metrics(folder):
    done = run("flatness", "someones_models:standard", "--metric", "sam_sharpness", "--metric", "hessian_trace")
    assert done.exit_code == 0, done.output
    assert "sam_sharpness" in done.output
    assert "hessian_trace" in done.output
    assert "isotropic_rise" not in done.output
    assert [file.suffix for file in folder.iterdir() if file.is_file()] == [".py"] * 3  # nothing written


def test_one_seed_prints_one_table(folder):
    words = ("flatness", "someones_models:standard", "--metric", "isotropic_rise", "--seed")
    first, second = (run(*words, 5).stdout for _ in range(2))
    assert first == second
    assert first != run(*words, 6).stdout


MODELS = "someones_models"
WRONG = {
    "no module": (["someones_modles:standard"], "no module 'someones_modles' here or installed"),
    "no package": (["someones_nothing.part:standard"], "someones_nothing"),
    "no function": ([f"{MODELS}:standrad"], f"{MODELS} has no 'standrad'; it has .*standard, other"),
    "not a function": ([f"{MODELS}:NUMBER"], f"target '{MODELS}:NUMBER': .*callable"),
    "wrong type": ([f"{MODELS}:nothing"], "expected a landscape.EmpiricalRisk, got NoneType"),
    "arguments": ([f"{MODELS}:picky"], "picky.* missing 1 required positional argument"),
    "no colon": ([MODELS], "expected MODULE:FUNCTION"),
    "no function name": ([f"{MODELS}:"], "expected MODULE:FUNCTION"),
    "no module name": ([":standard"], "expected MODULE:FUNCTION"),
    "name alone": (["mine="], "expected MODULE:FUNCTION"),
    "a file": (["someones_models.py:standard"], "no module 'someones_models.py' here"),
    "one name twice": ([f"{MODELS}:standard", f"{MODELS}:standard"], "two targets are called 'standard'"),
    "given name twice": ([f"a={MODELS}:standard", f"a={MODELS}:other"], "two targets are called 'a'"),
    "a risk that is refused": ([f"{MODELS}:dropped"], "no parameter of the model requires a gradient"),
    "an import of its own": (["someones_script:standard"], "someones_script cannot be imported .*no_such_package"),
    "a failing import of its own": (["someones_crash:standard"], "someones_crash cannot be imported .*no_such_func"),
}


@pytest.mark.parametrize("command", ["surface", "flatness"])
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_target_is_one_clear_line(folder, case, command):
    targets, message = WRONG[case]
    done = run(command, *targets)
    assert done.exit_code == 2, done.exception
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert not (folder / "surfaces").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["flatness", "--metric", "depth"], "unknown metric 'depth'; known: largest_eigenvalue"),
        (["surface", "--normalization", "filters"], "normalization: expected 'filter', 'layer' or 'none'"),
        (["surface", "--points", "1"], "points: expected a whole number of at least 2 along alpha, got 1"),
        (["surface", "--span", "-1"], "span: expected a positive number for alpha, got -1.0"),
        (["surface", "-o", "someones_models.py"], "someones_models.py"),
    ],
    ids=["metric", "normalization", "points", "span", "output is a file"],
)
def test_a_wrong_option_is_one_clear_line(folder, words, message):
    done = run(*words, f"{MODELS}:standard")
    assert done.exit_code == 2, done.exception
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_an_error_that_the_user_cannot_mend_keeps_its_traceback(folder, monkeypatch):
    monkeypatch.setattr("landscape.flatness.curvature.extreme_ritz", lambda *_, **__: 1 / 0)
    done = run("flatness", f"{MODELS}:standard", "--metric", "hessian_trace")
    assert done.exit_code == 1
    assert isinstance(done.exception, ZeroDivisionError)


def test_an_interruption_is_not_an_error(folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("landscape.flatness.curvature.extreme_ritz", interrupt)
    done = run("flatness", f"{MODELS}:standard", "--metric", "hessian_trace")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (130, "stopped")


def test_spectrum_of_a_model(folder):
    done = run("spectrum", "someones_models:standard", "-o", "out", "--matrix", "gauss-newton", "--steps", 5)
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["spectrum.png", "standard.nc"]
    with xr.open_dataset(folder / "out" / "standard.nc", engine="h5netcdf") as found:
        assert found.attrs["matrix"] == "Gauss-Newton"
        np.testing.assert_allclose(found["weight"].sum("step"), 1)


def test_scale_check_of_a_model(folder):
    done = run("scale-check", "someones_models:standard", "--metric", "hessian_trace", "-o", "new/scale.csv")
    assert done.exit_code == 0, done.output
    assert (folder / "new" / "scale.csv").is_file()


@pytest.mark.parametrize("words", [[], ["surface"], ["flatness"]], ids=["nothing", "surface", "flatness"])
def test_a_command_without_targets_says_what_it_wants(words):
    done = run(*words)
    assert done.exit_code == 2
    assert "Usage" in done.output
