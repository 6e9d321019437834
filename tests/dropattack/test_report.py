"""Reports on folders that are written here: a results folder with two studies, one study, one run."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure
from typer.testing import CliRunner

from dropattack.cli import app
from dropattack.report import Detail, report_on, sections_on
from landscape.report import Badge, Cell, Code, Facts, Interactive, Link, Picture, Section, Table, TooLargeError

EVIL = "<script>window.hacked=1<"  # a name of a folder has no slash
METHODS = ("original", "dropattack-iw", f"<img src=x onerror='window.hacked=1'>{EVIL}/script>")


def parts(section, kind):
    """All parts of a kind, in sections inside as well."""
    found = [part for part in section.parts if isinstance(part, kind)]
    return found + [one for part in section.parts if isinstance(part, Section) for one in parts(part, kind)]


def titles(section):
    return [part.title for part in section.parts if isinstance(part, Section)]


def write_png(path):
    Figure(figsize=(1, 1)).savefig(path)


def comparison():
    rows = [
        {"metric": metric, "method": method, "mean": 97 + place, "sd": 0.25, "n": 3,
         "difference": place or math.nan, "low": place - 0.5 if place else math.nan,
         "high": place + 0.5 if place else math.nan, "pairs": 3 if place else math.nan,
         "p_value": 1e-5 if place else math.nan, "passes": 1 + 2 * place, "paper": 98.95 if place == 0 else math.nan}
        for metric in ("accuracy", "F1")
        for place, method in enumerate(METHODS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def runs():
    rows = [
        {"study": "table2-mnist", "method": method, "seed": seed, "setting": '{"name": "x"}', "best_epoch": 3,
         "best_train_accuracy": 0.99, "best_validation_accuracy": 0.97 + 0.001 * seed, "best_test_loss": 0.1,
         "best_test_accuracy": 0.96 + 0.01 * place + 0.001 * seed, "training_seconds": 1200.0}
        for place, method in enumerate(METHODS)
        for seed in (0, 1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def differences():
    rows = [
        {"checkpoint": checkpoint, "split": split, "metric": metric, "setting": setting, "method": METHODS[1],
         "baseline": "original", "difference": -0.2, "low": -0.3, "high": high, "n": 3, "ratio": 0.8, "p_value": 0.25,
         "p_holm": 1.0, "smallest_p": 0.25, "effect_size": -0.9, "converged": True}
        for checkpoint in ("selected", "matched")
        for split in ("train", "test")
        for metric, setting, high in (("hessian_trace", math.nan, 0.1), ("filter_normalized_rise", "radius=0.25", -0.1),
                                      ("input_gradient_norm", "site=input", -0.1),
                                      ("weight_gradient_norm", "site=fc.weight", -0.1),
                                      ("weight_gradient_norm", "site=*", -0.1))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def surfaces(methods=METHODS, seeds=(4, 7), pairs=(0, 1)):
    """Bowls, the deeper the later the method; seeds and pairs differ, so that the shown one can be told."""
    axis = np.linspace(-1, 1, 9)
    alpha, beta = np.meshgrid(axis, axis, indexing="ij")
    dims = ("training_seed", "model", "pair", "split")
    shape = (len(seeds), len(methods), len(pairs), 2)
    scale = 1 + np.arange(np.prod(shape)).reshape(shape)
    loss = scale[..., None, None] * (0.1 + alpha**2 + 0.5 * beta**2)
    return xr.Dataset(
        {
            "loss": ((*dims, "alpha", "beta"), loss.astype("float32")),
            "accuracy": ((*dims, "alpha", "beta"), (1 / (1 + loss)).astype("float32")),
            "center_loss": (dims, 0.1 * scale),
            "center_accuracy": (dims, 1 / (1 + 0.1 * scale)),
            "evaluations": (dims[:3], np.full(shape[:3], 81)),
            "converged": (dims[:3], np.ones(shape[:3], int)),
        },
        coords={"training_seed": list(seeds), "model": list(methods), "pair": list(pairs), "split": ["train", "test"],
                "alpha": axis, "beta": axis},
        attrs={"study": "table2-mnist", "examples": 200, "seed": 0, "tolerance": 0.02, "normalization": "filter",
               "ignored": "fc.bias", "method": "adaptive", "torch": "2.13.0", "landscape": "0.1.0"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "results"
    study = folder / "table2-mnist"
    (study / "flatness").mkdir(parents=True)
    comparison().to_csv(study / "comparison.csv", index=False)
    runs().to_csv(study / "runs.csv", index=False)
    (study / "study.toml").write_text(f"# {METHODS[2]}\nseeds = [0, 1, 2]\n")
    write_png(study / "curves.png")
    differences().to_csv(study / "flatness" / "differences.csv", index=False)
    surfaces().to_netcdf(study / "surfaces.nc", engine="h5netcdf")
    checks = folder / EVIL / "checks"
    checks.mkdir(parents=True)
    fair = [{"model": METHODS[2], "site": site, "description": what, "epsilon": epsilon}
            for site in ("input", "fc") for what, epsilon in (("first_order", 0.1), ("eq_12", math.nan))]  # fmt: skip
    pd.DataFrame(fair).to_csv(checks / "fair.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / f"run {EVIL}"
    folder.mkdir()
    about = {
        "config": {
            "data": {"name": "mnist-5k"},
            "model": {"name": EVIL},
            "method": {"name": "dropattack", "epsilon": 5.0},
            "training": {"seed": 3, "epochs": 2, "batch_size": 64},
        },
        "data": {"train": {"examples": 3000}, "test": {"examples": 1000}},
        "versions": {"python": "3.11", "torch": "2.13.0"},
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(
        json.dumps({"best": {"epoch": 2, "test_accuracy": 0.9}, "training_seconds": 1.0})
    )
    columns = [f"{split}_{quantity}" for split in ("train", "validation") for quantity in ("accuracy", "loss")]
    history = pd.DataFrame({"epoch": [1, 2]} | {column: [0.5, 0.75] for column in columns})
    history.to_csv(folder / "history.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def found(results):
    return sections_on([results], detail=Detail(9))


def test_results_begin_with_the_claims(found):
    sections, lead = found
    assert [section.title for section in sections] == ["Claims of the paper", f"Study {EVIL}", "Study table2-mnist"]
    assert lead.startswith("15 claims: ")
    head = parts(sections[0], Table)[0].frame
    assert [link.text for link in head["claim"]][:2] == ["C1", "C2"]
    assert {link.anchor for link in head["claim"]} <= {
        part.anchor for part in sections[0].parts if isinstance(part, Section)
    }
    # C9, the test loss: paired over three seeds, no file of it beyond this folder's.
    rows = pd.concat([table.frame for table in parts(sections[0], Table)[1:]])
    links = [cell for cell in rows["evidence"] if isinstance(cell, Link)]
    assert Link("table2-mnist/runs.csv", "study-1-2") in links
    assert all(isinstance(verdict, Badge) for verdict in rows["verdict"])


def test_a_verdict_has_the_tone_of_its_words(found):
    tones = {badge.text: badge.tone for badge in parts(found[0][0], Table)[0].frame["verdict"]}
    known = {
        "supported": "for",
        "not supported": "against",
        "inconclusive at this scale": "open",
        "not yet tested": "none",
    }
    assert tones
    assert all(known[text] == tone for text, tone in tones.items())


def test_a_study_has_what_its_folder_holds_and_no_more(found):
    whole, bare = found[0][2], found[0][1]
    assert titles(whole) == ["Test accuracy", "Loss surfaces", "Flatness of the minima", "How it was made"]
    assert titles(bare) == ["Is it gradient regularization?"]


def test_the_comparison(found):
    accuracy, f1 = parts(found[0][2].parts[0], Table)
    assert (accuracy.folded, f1.folded) == (False, True)
    assert "difference from original" in accuracy.caption
    rows = accuracy.frame.set_index("method")
    assert rows.loc["original", "shown"] == Cell("97.00 ± 0.25", 97.0)
    assert rows.loc["dropattack-iw", "change"] == Cell("+1.00", 1.0)
    assert rows.loc["dropattack-iw", "interval"] == Cell("+0.50 to +1.50", 0.5)
    assert rows.loc["original", "change"].text == "–"
    assert "p_exact" not in [column.name for column in accuracy.columns]  # the file has none


def test_the_surfaces_are_of_the_first_seed_and_pair(found):
    section = found[0][2].parts[1]
    beside, over = parts(section, Interactive)
    # scale of (seed 4, method k, pair 0, train) is 1 + 4 k, and the loss at the center a tenth of it.
    for place in range(3):
        assert f"{0.1 * (1 + 4 * place):.4g} at the center" in beside.words
    assert "training seed 4, direction pair 0" in beside.caption
    assert beside.still is not None
    assert over.words == beside.words


def test_the_flatness_table(found):
    gradients, every = parts(found[0][2].parts[2], Table)
    of_all = ["input_gradient_norm (site=input)", "weight_gradient_norm (site=*)"]  # not that of each weight
    assert list(gradients.frame["quantity"]) == of_all * 2
    assert every.folded
    assert len(every.frame) == 20
    assert list(every.frame["quantity"][:2]) == ["hessian_trace", "filter_normalized_rise (radius=0.25)"]
    assert list(every.frame["side"][:2]) == ["around zero", "below zero"]
    assert list(every.frame["rescaling"][:2]) == ["yes", "no"]


def test_the_checks_of_gradients(found):
    (fair,) = parts(found[0][1], Table)
    assert fair.frame["first order, ⟨g, r⟩"].tolist() == [0.1, 0.1]
    assert fair.frame["equation 12, ε‖M∘g‖"].isna().all()


def test_how_it_was_made(found):
    section = found[0][2].parts[3]
    (facts,) = parts(section, Facts)
    assert facts.facts["Training seeds"] == [f"0, 1, 2: {', '.join(METHODS)}"]
    assert facts.facts["Time of training"].startswith("3.0 hours")  # 9 runs of 1,200 s
    assert facts.facts["Versions"] == "torch 2.13.0, landscape 0.1.0"
    commands, toml = parts(section, Code)
    assert commands.text.splitlines()[0] == (
        "$ dropattack study run studies/table2-mnist.toml --results results/table2-mnist"
    )
    assert "--seeds 2 --pairs 2 --points 9 --tolerance 0.02 --examples 200 --seed 0" in commands.text
    assert toml.text.endswith("seeds = [0, 1, 2]\n")


def test_a_classifier_that_is_no_network_and_the_commands_for_it_and_for_flatness(tmp_path):
    study = tmp_path / "mine"
    (study / "flatness").mkdir(parents=True)
    comparison().to_csv(study / "comparison.csv", index=False)
    runs().to_csv(study / "runs.csv", index=False)
    linear = {"method": ["tf-idf"], "best_validation_accuracy": [0.875], "best_test_accuracy": [0.75]}
    pd.DataFrame(linear).to_csv(study / "classical.csv", index=False)
    rows = [
        {"method": method, "training_seed": 0, "checkpoint": "selected", "split": "train", "metric": "hessian_trace",
         "setting": "", "value": 1.0, "loss": 0.1, "examples": 250, "seed": 3}
        for method in METHODS[:2]
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(study / "flatness" / "flatness.csv", index=False)
    accuracy, *_, making = sections_on([study])[0][0].parts
    table = parts(accuracy, Table)[-1]
    assert table.frame.loc[0, ["method", "best_validation_accuracy", "best_test_accuracy"]].to_list() == [
        "tf-idf",
        87.5,
        75.0,
    ]
    assert parts(making, Code)[0].text.splitlines()[1:] == [
        "$ dropattack study classical studies/table2-mnist.toml --table results/mine/classical.csv",
        f"$ dropattack study flatness studies/table2-mnist.toml --method {METHODS[0]} --method {METHODS[1]} "
        "--metric hessian_trace --examples 250 --seed 3 --results results/mine/flatness",
    ]


def test_a_column_that_is_nowhere_filled_is_left_out(tmp_path):
    comparison().assign(paper=math.nan).to_csv(tmp_path / "comparison.csv", index=False)
    accuracy = parts(sections_on([tmp_path])[0][0], Table)[0]
    assert "paper" in accuracy.frame
    assert "paper" not in [column.name for column in accuracy.columns]


@pytest.mark.parametrize("fits", [1, 3, None])
def test_a_page_that_is_too_large_is_written_with_less(tmp_path, monkeypatch, fits):
    """Each time with fewer details, and never with more than the page may hold."""
    seen = []

    def written(path, title, sections, *, widest, **options):
        seen.append(widest)
        if len(seen) != fits:
            raise TooLargeError("too large")
        return 1_000_000

    monkeypatch.setattr("dropattack.report.writing.write_report", written)
    comparison().to_csv(tmp_path / "comparison.csv", index=False)
    if fits is None:
        with pytest.raises(TooLargeError, match="too large"):
            report_on([tmp_path], tmp_path / "r.html")
        assert len(seen) == 5
    else:
        assert "1 sections, 1.0 MB" in report_on([tmp_path], tmp_path / "r.html")
        assert len(seen) == fits
    assert seen == sorted(seen, reverse=True)


def test_a_run(run):
    (section,), lead = sections_on([run])
    assert lead == ""
    assert section.title == f"Run run {EVIL}"
    facts = parts(section, Facts)[0].facts
    assert facts["Method"] == "dropattack, epsilon = 5.0"
    assert facts["Model"] == EVIL
    assert facts["Seed"] == 3
    assert facts["Examples"] == "3,000 train, 1,000 test"
    assert "Best validation accuracy 75.00%, epoch 2" in parts(section, Picture)[0].alt
    assert json.loads(parts(section, Code)[0].text)["config"]["data"]["name"] == "mnist-5k"


def test_folders_that_hold_nothing(tmp_path, results):
    with pytest.raises(ValueError, match="paths: expected at least one folder, got none"):
        report_on([], tmp_path / "r.html")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        report_on([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(ValueError, match=r"expected a run \(config.json, history.csv\), results of a study .*got none"):
        report_on([tmp_path], tmp_path / "r.html")
    with pytest.raises(ValueError, match="expected one folder of several studies, got two"):
        sections_on([results, results], detail=Detail(5))
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "empty": ("", "comparison.csv: expected a table, got No columns"),
    "a column less": (
        "metric,method,mean\naccuracy,a,1\n",
        "comparison.csv: expected the column sd, got metric, method",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_tables_are_named(case, tmp_path):
    text, message = BROKEN[case]
    (tmp_path / "comparison.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        sections_on([tmp_path])


def test_broken_surfaces_are_named(tmp_path):
    surfaces().isel(pair=0).to_netcdf(tmp_path / "surfaces.nc", engine="h5netcdf")
    with pytest.raises(
        ValueError, match=r"surfaces\.nc: expected the dimension pair; write it with dropattack study surf"
    ):
        sections_on([tmp_path])


def test_pictures_are_taken_from_the_folder_of_pictures(tmp_path, results):
    stored = tmp_path / "table2-mnist"
    stored.mkdir()
    Figure(figsize=(3, 1)).savefig(stored / "profiles.png")
    Figure(figsize=(3, 1)).savefig(stored / "relief.png")
    section = sections_on([results / "table2-mnist"], tmp_path, detail=Detail(5))[0][0]
    still = parts(section, Interactive)[0].still
    assert still.image == (stored / "relief.png").read_bytes()
    assert "0.1 at the center" in still.alt
    # Without a table of profiles there is no number to describe the picture with.
    assert not any(picture.image == (stored / "profiles.png").read_bytes() for picture in parts(section, Picture))


def test_of_many_methods_the_first_are_drawn(tmp_path):
    surfaces([f"m{place}" for place in range(6)], (0,), (0,)).to_netcdf(tmp_path / "surfaces.nc", engine="h5netcdf")
    section = sections_on([tmp_path], detail=Detail(5))[0][0].parts[0]
    assert "Of 6 methods the first 4 are shown: m0, m1, m2, m3." in section.parts
    assert "m4" not in parts(section, Interactive)[0].words


@pytest.fixture(scope="module")
def page(results, run, chromium, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    done = CliRunner().invoke(app, ["report", str(results), str(run), "-o", str(path)])
    assert done.exit_code == 0, done.output
    assert "wrote" in done.output
    assert path.stat().st_size < 10_000_000
    return chromium(path, viewport={"width": 1280, "height": 900})


def test_the_page_opens_without_an_error(page):
    assert page.evaluate("window.hacked") is None
    text = page.inner_text("main")
    assert METHODS[2] in text
    assert f"Run run {EVIL}" in text
    assert page.locator("main h2").count() == 4
    page.locator("figure.interactive").first.scroll_into_view_if_needed()
    page.wait_for_selector("figure[data-state=drawn]")
    assert METHODS[2] in page.locator("#plot-1").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.errors == []


def test_its_links_lead_somewhere(page):
    missing = page.eval_on_selector_all(
        "a[href^='#']", "all => all.map(a => a.hash.slice(1)).filter(id => !document.getElementById(id))"
    )
    assert missing == []


def test_no_element_is_wider_than_a_telephone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    wide = page.evaluate(
        """() => {
            const scrolls = (element) => getComputedStyle(element).overflowX !== "visible";
            const inside = (element) => element && (scrolls(element) || inside(element.parentElement));
            return [...document.body.querySelectorAll("*")]
                .filter((one) => one.getBoundingClientRect().right > 390 && !inside(one.parentElement))
                .map((one) => `${one.tagName}.${one.className}: ${one.textContent.slice(0, 40)}`);
        }"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_command_says_what_is_wrong(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 2
    assert "expected a run" in done.output
