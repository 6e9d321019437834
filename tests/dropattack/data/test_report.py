"""The `data` commands: what they show, what they find, and how they end."""

import json

import pytest
from typer.testing import CliRunner

from dropattack.cli import app
from dropattack.data import CATALOG, DATASETS
from dropattack.data.report import KNOWN


def run(*arguments):
    return CliRunner().invoke(app, ["data", *(str(argument) for argument in arguments)])


@pytest.fixture
def folder(write, monkeypatch):
    monkeypatch.delenv("DROPATTACK_DATA", raising=False)
    write.texts("pheme", "train", [f"tweet number {index} of a kind" for index in range(6)] + ["?"])
    write.texts("pheme", "validation", ["a tweet of number five", "Tweet, number 3 of a kind"])
    write.texts("pheme", "test", ["never met before"])
    return write.folder


def test_the_catalog_has_every_data_set():
    assert list(CATALOG) == list(DATASETS) == list(KNOWN)


def test_list_shows_the_papers_sizes():
    result = run("list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines()}
    assert lines["imdb"][:6] == ["imdb", "sentiment", "2", "40,000", "5,000", "5,000"]
    assert lines["mnist-5k"][3:6] == ["-", "-", "-"]


def test_describe_puts_what_was_found_beside_the_paper(folder):
    result = run("describe", "pheme", "--data-dir", folder)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines()[2:5]}
    assert rows["train"][:7] == ["train", "7", "5,145", "5,138", "fewer", "57.1%", "/"]
    assert rows["train"][8] == "1"  # one text without a token
    assert "1 exact and 1 near of validation in train" in result.stdout
    assert "note: the paper prints the sizes of validation and test swapped" in result.stdout
    assert str(folder) not in result.stdout


def test_describe_without_names_takes_what_is_there(folder):
    result = run("describe", "--data-dir", folder)
    assert [line.split(":")[0] for line in result.stdout.splitlines() if line[0] != " "] == ["pheme", "mnist-5k"]
    assert "not in the paper" in result.stdout


def test_describe_measures_vectors_and_writes_json(folder):
    (folder / "v.txt").write_text("tweet 1 2\nnumber 3 4\nof 0 1\na 2 2\nkind 1 1\n")
    result = run("describe", "pheme", "mnist-5k", "--data-dir", folder, "--vectors", "v.txt", "--json")
    about = json.loads(result.stdout)
    # Words are tweet, number, of, a, kind and the digits 0 to 5; each of six tweets has one digit; "?" is unknown.
    assert about["pheme"]["vectors"]["coverage_of_words"] == round(5 / 11, 4)
    assert about["pheme"]["vectors"]["coverage_of_training_tokens"] == round(30 / 37, 4)
    assert about["mnist-5k"]["train"]["examples"] == 3000
    shown = run("describe", "pheme", "--data-dir", folder, "--vectors", "v.txt").stdout
    assert "vectors: v.txt (2 dimensions) covers 45.5% of the vocabulary" in shown


def test_verify_is_silent_about_no_problem(folder):
    result = run("verify", "--data-dir", folder)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "pheme: 7 / 2 / 1 examples readable; another copy than the known",
        "mnist-5k: 3,000 / 1,000 / 1,000 examples readable; the copy that results here were made with",
    ]


def test_verify_has_a_line_for_each_problem(folder, write, png):
    write.texts("pheme", "train", ["a", None, "b", "c"], [0, 1, 7, None])
    write.table("pheme", "validation", text=["a"])
    (folder / "pheme" / "test.parquet").write_bytes(b"PAR1")
    write.images("mnist", "train", [png(0), b"x", png(0, (3, 3))], [0, 1, 11])
    result = run("verify", "--data-dir", folder)
    assert result.exit_code == 1
    expected = [
        "pheme: *train.parquet, row 1: expected a text, got null",
        "pheme: *train.parquet, row 2: expected a label from 0 to 1, got 7",
        "pheme: *train.parquet, row 3: expected a label from 0 to 1, got None",
        "pheme: *validation.parquet: expected a column 'label'",
        "pheme: *test.parquet: expected a Parquet file",
        "mnist-5k: 3,000",
        "mnist: *train.parquet, row 2: expected a label from 0 to 9, got 11",
        "mnist: *train.parquet, row 1: the image cannot be decoded",
        "mnist: *train.parquet, row 2: expected 28 x 28 pixels, got 3 x 3",
        "mnist: *to hold mnist/test.parquet",
    ]
    lines = result.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        start, _, rest = pattern.partition("*")
        assert line.startswith(start)
        assert rest in line


BAD = {
    "unknown name to describe": (["describe", "mnits"], "unknown dataset 'mnits'; known: mnist"),
    "unknown name to verify": (["verify", "mnits"], "unknown dataset 'mnits'; known: mnist"),
    "no such folder": (["describe", "imdb", "--data-dir", "nowhere"], "no file nowhere/imdb/train.parquet"),
    "no such vectors": (["describe", "pheme", "--vectors", "none.txt"], "vectors: no file"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, folder):
    result = run(*arguments, *([] if "--data-dir" in arguments else ["--data-dir", folder]))
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
