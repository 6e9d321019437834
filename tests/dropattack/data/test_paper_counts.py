"""The real data sets against Table 1 of the paper, where a folder with them is named."""

import os

import pyarrow.parquet as pq
import pytest
import torch

from dropattack.data import load_dataset
from dropattack.data.images import CIFAR10_MEAN, CIFAR10_STD
from dropattack.data.report import KNOWN, checksums

pytestmark = pytest.mark.skipif("DROPATTACK_DATA" not in os.environ, reason="needs a data folder with all data sets")

SPLITS = ("train", "validation", "test")
# Table 1 of the paper; for PHEME with validation and test in the order of the authors' files. AG News may be partial.
COUNTS = {
    "imdb": (40_000, 5_000, 5_000),
    "pheme": (5_145, 637, 643),
    "ag-news": (None, 10_000, 7_600),
    "mnist": (50_000, 10_000, 10_000),
    "cifar10": (40_000, 10_000, 10_000),
}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads each data set with one cache for all tests of this file."""
    folder = tmp_path_factory.mktemp("cache")

    def loaded(name, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DROPATTACK_CACHE", str(folder))
            return load_dataset(name, **options)

    return loaded


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_papers(name, load):
    dataset = load(name)
    for split, expected in zip(SPLITS, COUNTS[name], strict=True):
        assert expected is None or len(dataset[split]) == expected
    again = load(name)  # from the cache
    assert again.description() == dataset.description()
    if name in ("mnist", "pheme"):  # the copies of these are lossless and whole
        assert tuple(checksums(dataset).values()) == KNOWN[name]


def test_official_test_labels(load):
    # The ten class counts of MNIST's official test file are well known; AG News and CIFAR-10 are balanced.
    assert load("mnist").description()["test"]["labels"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert load("ag-news").description()["test"]["labels"] == [1900] * 4
    assert load("cifar10").description()["test"]["labels"] == [1000] * 10
    assert [split["labels"][1] for split in map(load("pheme").description().get, SPLITS)] == [1931, 228, 243]


def test_reviews_are_in_one_split_though_the_published_files_share_some(load):
    folder = os.environ["DROPATTACK_DATA"]
    files = [set(pq.read_table(f"{folder}/imdb/{part}.parquet")["text"].to_pylist()) for part in ("train", "test")]
    assert len(files[0] & files[1]) == 123
    about = load("imdb").description()
    assert {kinds["exact"] for kinds in about["duplicates"].values()} == {0}
    assert about["repeated_texts"] >= 50_000 - len(files[0] | files[1])


def test_near_duplicates_of_tweets_cross_the_given_splits(load):
    duplicates = load("pheme").description()["duplicates"]
    assert duplicates["train/test"]["near"] > duplicates["train/test"]["exact"] > 0


def test_published_constants_are_those_of_the_images(load):
    dataset = load("cifar10")
    pixels = torch.cat([dataset.train.pixels, dataset.validation.pixels]).float().div(255)
    # JPEG copies smooth the colors a little: up to 0.002 in the standard deviation.
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(CIFAR10_MEAN, abs=5e-4)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(CIFAR10_STD, abs=3e-3)


def test_small_samples_are_prefixes_and_nearly_balanced(load):
    whole, small = load("imdb", max_length=64), load("imdb", max_length=64, examples=1000)
    assert torch.equal(small.train.labels, whole.train.labels[:1000])
    # A fair coin a thousand times: 500, standard deviation 16.
    assert abs(int(small.train.labels.sum()) - 500) < 64
