"""The classical baseline: its rows are the networks', validation data chooses, and test data is read once."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from dropattack import classical
from dropattack.classical import classical_baseline
from dropattack.cli import app
from dropattack.config import Config, Named
from dropattack.data import SPLITS, load_dataset, load_texts
from dropattack.data.tokens import tokenize
from dropattack.study import Row, Setting, Study
from dropattack.training import evaluate

# Two optimizers may stop on different sides of the boundary next to one image of 999 or more.
ONE_IMAGE = 1.01 / 999


def study_of(name, **options):
    return Study("small", Config(data=Named(name, options)), {"standard": Row(Setting(Named("standard")))})


def setting_of(table):
    return json.loads(table["setting"].item())


@pytest.fixture(scope="module")
def every_fourth_pixel():
    """Digits of 7 x 7 pixels, so that fits take a fraction of a second: 2,000 / 1,000 / 999."""
    dataset = load_dataset("mnist-5k", examples=2000, test_examples=999)

    def small(images):
        return dataclasses.replace(images, pixels=images.pixels[:, :, ::4, ::4])

    return dataclasses.replace(dataset, **{split: small(dataset[split]) for split in SPLITS})


@pytest.fixture
def digits(every_fourth_pixel, monkeypatch):
    """What the baseline reads instead of whole digits."""
    monkeypatch.setattr(classical, "load_dataset", lambda *arguments, **options: every_fourth_pixel)
    return every_fourth_pixel


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Writes ``<data folder>/<name>/<part>.parquet`` of texts and labels; ``DROPATTACK_DATA`` is the data folder."""
    monkeypatch.setenv("DROPATTACK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DROPATTACK_CACHE", str(tmp_path / "cache"))

    def write(name, part, texts, labels):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "data" / name / f"{part}.parquet")

    return write


def review(number, words=("good", "bad")):
    """Reviews of odd numbers have the second word; each has a name and a length of its own."""
    return f"I didn't say it's {words[number % 2]}: name{number}<br />" + " and so on" * (number % 7)


@pytest.fixture
def imdb(folder):
    for part, numbers in {"train": range(200), "test": range(200, 400)}.items():
        folder("imdb", part, [review(number) for number in numbers], [number % 2 for number in numbers])


@pytest.fixture
def pheme(folder):
    for place, part in enumerate(SPLITS):
        numbers = range(100 * place, 100 * place + 60)
        folder("pheme", part, [review(number) for number in numbers], [number % 2 for number in numbers])


@pytest.fixture
def ag_news(folder):
    words = ("war", "goal", "shares", "chip")
    for part, numbers in {"train": range(200), "test": range(200, 280)}.items():
        texts = [f"{words[number % 4]} {words[number % 4]} name{number}" for number in numbers]
        folder("ag_news", part, texts, [number % 4 for number in numbers])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("imdb", {}),
        ("imdb", {"examples": 50, "validation_examples": 20, "test_examples": 10}),
        ("pheme", {"test_examples": 33}),
        ("ag-news", {"examples": 101, "validation_examples": 7}),
    ],
)
def test_texts_are_the_rows_of_the_data_set_in_its_order(name, options, request):
    request.getfixturevalue(name.replace("-", "_"))
    every_token = {"max_length": None, "vocabulary": None, "vocabulary_from": "all"}
    dataset, texts = load_dataset(name, **options, **every_token), load_texts(name, **options)
    assert tuple(texts) == SPLITS
    for split in SPLITS:
        written, labels = texts[split]
        ids, expected = dataset[split].batch(slice(0, len(dataset[split])))
        assert torch.equal(torch.tensor(labels), expected)
        decoded = [dataset.vocabulary.decode(row[row != 0].tolist()) for row in ids]
        assert [tokenize(text) for text in written] == decoded
        assert len(set(written)) == len(written)  # so that equal tokens mean equal rows


def test_texts_of_the_raw_release_are_the_rows_of_the_data_set(tmp_path):
    for number in range(40):
        kind = "rumours" if number % 2 else "non-rumours"
        place = tmp_path / "pheme" / "event-all-rnr-threads" / kind / str(number) / "source-tweets"
        place.mkdir(parents=True)
        (place / f"{number}.json").write_text(json.dumps({"text": review(number)}))
    dataset = load_dataset("pheme", tmp_path, cache=False, max_length=None, vocabulary=None, vocabulary_from="all")
    for split, (written, labels) in load_texts("pheme", tmp_path).items():
        ids, expected = dataset[split].batch(slice(0, len(labels)))
        assert labels == expected.tolist()
        assert [tokenize(text) for text in written] == [
            dataset.vocabulary.decode(row[row != 0].tolist()) for row in ids
        ]
        assert [int(text.partition("name")[2].partition("<")[0]) % 2 for text in written] == labels


def test_neither_length_nor_stop_words_of_the_networks_shorten_a_text(imdb):
    plain, short = load_texts("imdb"), load_texts("imdb", max_length=2, stop_words="all", vocabulary=3)
    assert short == plain
    assert any(text.count(" and so on") == 6 for text in plain["train"][0])
    one, other = classical_baseline(study_of("imdb")), classical_baseline(study_of("imdb", max_length=1))
    pd.testing.assert_frame_equal(one.drop(columns="training_seconds"), other.drop(columns="training_seconds"))


def test_what_goes_into_the_fit_is_what_the_networks_get(monkeypatch, digits):
    given = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, *args: given.append(args) or fit(self, *args))
    classical_baseline(study_of("mnist-5k"))
    images, labels = digits.train.batch(slice(0, 2000))
    assert len(given) == 3
    for features, targets in given:
        np.testing.assert_array_equal(features, images.flatten(1).double().numpy())
        np.testing.assert_array_equal(targets, labels.numpy())


def test_the_sizes_of_the_study_are_the_sizes_of_the_fit(monkeypatch):
    asked = []

    def stopped(*arguments, **options):
        asked.append((arguments, options))
        raise ValueError("seen")

    monkeypatch.setattr(classical, "load_dataset", stopped)
    sizes = {"examples": 40, "validation_examples": 30, "test_examples": 20}
    with pytest.raises(ValueError, match="seen"):
        classical_baseline(study_of("mnist-5k", **sizes), data_dir="here")
    assert asked == [(("mnist-5k", "here"), sizes)]


def test_a_separable_corpus_is_classified_without_an_error(imdb, pheme, ag_news):
    # One word decides, and words that are in one text only are no features.
    for name in ("imdb", "pheme", "ag-news"):
        table = classical_baseline(study_of(name))
        for split in SPLITS:
            assert table[f"best_{split}_accuracy"].item() == table[f"best_{split}_macro_f1"].item() == 1
        assert ("best_test_f1" in table) == (name != "ag-news")
        # All trials have accuracy 1, so the loss decides: the less the weights are held back, the lower it is.
        setting = setting_of(table)
        assert [trial["validation_accuracy"] for trial in setting["tried"]] == [1, 1, 1]
        assert setting["C"] == 100


def test_f1_is_that_of_class_1_and_macro_f1_the_mean_of_both(pheme, folder):
    # The word decides what is predicted, 30 times each class; ten texts with the word of class 0 are labelled 1.
    # Class 1: 30 found, 10 missed, none wrongly: 2 · 30 / (30 + 40). Class 0: 20 found, 10 wrongly: 2 · 20 / (30 + 20).
    numbers = range(500, 560)
    labels = [1 if number < 520 else number % 2 for number in numbers]
    folder("pheme", "test", [review(number) for number in numbers], labels)
    table = classical_baseline(study_of("pheme"))
    assert table["best_test_accuracy"].item() == pytest.approx(50 / 60)
    assert table["best_test_f1"].item() == pytest.approx(6 / 7)
    assert table["best_test_macro_f1"].item() == pytest.approx((6 / 7 + 4 / 5) / 2)


def test_pairs_of_words_are_features(folder):
    # Both classes have the same words; only which of two follows the first tells them apart.
    def both(start, count):
        texts = ["red apple blue pear", "red pear blue apple"]
        return [f"{texts[number % 2]} name{start + number}" for number in range(count)], [0, 1] * (count // 2)

    folder("imdb", "train", *both(0, 100))
    folder("imdb", "test", *both(100, 100))
    table = classical_baseline(study_of("imdb"))
    assert table["best_test_accuracy"].item() == 1


def test_the_table_has_one_row_with_the_columns_of_a_study(imdb):
    table = classical_baseline(study_of("imdb", examples=100))
    metrics = [f"best_{split}_{name}" for split in SPLITS for name in ("loss", "accuracy", "macro_f1", "f1")]
    assert list(table) == ["study", "method", "seed", "setting", *metrics, "training_seconds"]
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["study"], row["method"], row["seed"]) == ("small", "tf-idf + logistic regression", 0)
    assert row["training_seconds"] > 0
    setting = json.loads(row["setting"])
    assert [trial["C"] for trial in setting["tried"]] == [1, 10, 100]
    assert (setting["ngram_range"], setting["min_df"], setting["sublinear_tf"]) == ([1, 2], 2, True)


def minimized(images, labels, strength):
    """A linear network that minimizes |W|² / 2 + C Σ loss, by another optimizer."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10, dtype=torch.float64))
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, tolerance_grad=1e-8, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def objective():
        optimizer.zero_grad()
        value = model[1].weight.square().sum() / 2 + strength * cross_entropy(model(images), labels, reduction="sum")
        value.backward()
        return value

    optimizer.step(objective)
    return model


def test_the_numbers_are_those_of_a_linear_network_at_the_minimum(digits):
    table = classical_baseline(study_of("mnist-5k"))
    images, labels = digits.train.batch(slice(0, 2000))
    found = {}
    for trial in setting_of(table)["tried"]:
        model = minimized(images.double(), labels, trial["C"])
        found[trial["C"]] = {
            split: evaluate(model, ((inputs.double(), labels) for inputs, labels in digits[split].ordered()))
            for split in SPLITS
        }
        validation = found[trial["C"]]["validation"]
        assert trial["validation_accuracy"] == pytest.approx(validation["accuracy"], abs=ONE_IMAGE)
        assert trial["validation_loss"] == pytest.approx(validation["loss"], rel=1e-4)
    best = max(found, key=lambda strength: found[strength]["validation"]["accuracy"])
    assert setting_of(table)["C"] == best
    for split in SPLITS:
        assert table[f"best_{split}_loss"].item() == pytest.approx(found[best][split]["loss"], rel=1e-4)
        for metric in ("accuracy", "macro_f1"):
            assert table[f"best_{split}_{metric}"].item() == pytest.approx(found[best][split][metric], abs=ONE_IMAGE)


def test_validation_data_chooses_and_not_test_data(monkeypatch, digits):
    # Validation images that only the least C gets right and test images that only the largest does, and the other way
    # around: the choice must follow the first.
    images, labels = digits.train.batch(slice(0, 2000))
    pool, targets = digits.validation.batch(slice(0, 1000))
    is_right = {}
    for strength in (0.0001, 0.01):
        model = LogisticRegression(C=strength, max_iter=5000).fit(images.flatten(1).double().numpy(), labels.numpy())
        is_right[strength] = model.predict(pool.flatten(1).double().numpy()) == targets.numpy()

    def only(strength, other):
        rows = torch.from_numpy(np.flatnonzero(is_right[strength] & ~is_right[other]))
        assert len(rows) > 3
        return dataclasses.replace(digits.validation, pixels=digits.validation.pixels[rows], labels=targets[rows])

    least, most = only(0.0001, 0.01), only(0.01, 0.0001)
    for validation, test, chosen in ((least, most, 0.0001), (most, least, 0.01)):
        made = dataclasses.replace(digits, validation=validation, test=test)
        monkeypatch.setattr(classical, "load_dataset", lambda *args, made=made, **options: made)
        table = classical_baseline(study_of("mnist-5k"))
        assert setting_of(table)["C"] == chosen
        assert table["best_validation_accuracy"].item() == 1
        assert table["best_test_accuracy"].item() == 0


def test_test_data_is_read_once(monkeypatch, digits):
    read = []
    predict = LogisticRegression.predict_proba
    monkeypatch.setattr(
        LogisticRegression, "predict_proba", lambda self, rows: read.append(len(rows)) or predict(self, rows)
    )
    classical_baseline(study_of("mnist-5k"))
    # Three trials on validation data, then the chosen one on training and test data.
    assert read == [1000, 1000, 1000, 2000, 999]


def test_digits_are_mostly_recognized():
    table = classical_baseline(study_of("mnist-5k", test_examples=500))
    assert table["method"].item() == "logistic regression on pixels"
    # Chance is 10 %.
    assert table["best_test_accuracy"].item() > 0.8
    assert "best_test_f1" not in table


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnits", {}, "unknown dataset 'mnits'; known: mnist"),
        ("mnist-5k", {"exmples": 3}, "unknown data option 'exmples'; mnist-5k has examples"),
        (
            "mnist-5k",
            {"examples": 5},
            "examples: expected training examples of every class of mnist-5k, got none of .*5",
        ),
        ("imdb", {"examples": 10**6}, "examples: expected at most 320, the train split of imdb, got 1000000"),
    ],
)
def test_data_that_cannot_be_classified_is_refused(imdb, name, options, message):
    with pytest.raises(ValueError, match=message):
        classical_baseline(study_of(name, **options))


def test_images_have_no_texts():
    with pytest.raises(ValueError, match="unknown dataset of texts 'mnist'; known: imdb, pheme, ag-news"):
        load_texts("mnist")


def test_the_command_writes_the_table(tmp_path, imdb):
    file, table = tmp_path / "reviews.toml", tmp_path / "tables" / "reviews.csv"
    file.write_text('data = "imdb"\n[methods]\nplain = "standard"')
    arguments = ["study", "classical", str(file), "--data-dir", str(tmp_path / "data"), "--table", str(table)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "tf-idf + logistic regression" in result.output
    found = pd.read_csv(table)
    assert (found["study"].item(), found["best_test_accuracy"].item()) == ("reviews", 1)
    missing = CliRunner().invoke(app, [*arguments[:3], "--data-dir", str(tmp_path / "nowhere")])
    assert missing.exit_code == 2
    assert "no file" in missing.output
    assert "imdb/train.parquet" in missing.output.replace("\n", "")
