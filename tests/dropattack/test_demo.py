"""The main job at smoke scale, through its command line: all files are there and agree with what is said."""

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import landscape
from dropattack.checkpoint import load_run
from dropattack.cli import app
from dropattack.demo import SCALES, metrics_of, one_thread


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "results"
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, ["demo", "--scale", "smoke", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    assert torch.get_num_threads() == threads
    return folder, result


def test_every_result_is_in_the_folder_and_the_folder_is_named_last(demo):
    folder, result = demo
    expected = {
        "curves.png", "contours.png", "relief.png", "flatness.csv",
        "gradient_norms.csv", "findings.txt", "runs",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == expected
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(folder) in result.stdout.strip().splitlines()[-1]
    for step in range(1, 6):
        assert f"{step}/5" in result.stdout


def test_flatness_table_has_one_number_a_row_for_both_methods(demo):
    folder, _ = demo
    table = pd.read_csv(folder / "flatness.csv")
    assert set(table["method"]) == {"standard", "dropattack"}
    metrics = set(metrics_of(SCALES["smoke"]))
    assert set(table["metric"]) == metrics <= set(landscape.METRICS)
    assert {landscape.METRICS[metric].rescaling for metric in metrics} == {"changes", "unchanged"}
    assert {landscape.METRICS[metric].larger for metric in metrics} == {"sharper"}  # as the findings take them
    assert len(table) == 12
    assert table["value"].notna().all()
    for value in table["value"]:
        assert f"{value:.4g}" in demo[1].stdout


def test_surfaces_share_the_draws_and_meet_their_networks(demo):
    folder, _ = demo
    for name in ("standard", "dropattack"):
        run_folder = folder / "runs" / f"smoke-{name}-seed0"
        surface, run = landscape.open_surface(run_folder / "surface.nc"), load_run(run_folder)
        weights = dict(run.model.named_parameters())
        from landscape.parameters import fingerprint

        assert surface.attrs["center_fingerprint"] == fingerprint(weights)
        assert surface.attrs["seed"] == 0
        center = float(surface["loss"].sel(alpha=0, beta=0))
        assert center == pytest.approx(float(surface["center_loss"]), rel=1e-6)


def test_findings_say_what_one_seed_is_worth_and_repeat_measured_numbers(demo):
    folder, result = demo
    text = (folder / "findings.txt").read_text()
    assert "One seed proves nothing" in text
    assert "training loss" in text
    assert text.strip() in result.stdout
    run = load_run(folder / "runs" / "smoke-dropattack-seed0")
    assert f"DropAttack {run.metrics['best']['test_accuracy'] * 1000:.0f}," in text


def test_one_thread_is_put_back_after_an_error():
    threads = torch.get_num_threads()

    def stopped():
        with one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        stopped()
    assert torch.get_num_threads() == threads
