"""Data sets: what is embedded, what is read from a folder, and what broken files say."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dropattack.data import load_dataset
from dropattack.data.images import MNIST_MEAN, MNIST_STD


def png(value: int, size: tuple[int, int] = (28, 28)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full(size, value, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write(folder: Path, part: str, images: list[bytes], labels: list[int], column: str = "image") -> None:
    (folder / "mnist").mkdir(exist_ok=True)
    table = pa.table({column: [{"bytes": image, "path": None} for image in images], "label": labels})
    pq.write_table(table, folder / "mnist" / f"{part}.parquet")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", [png(value) for value in range(60)], [value % 10 for value in range(60)])
    write(tmp_path, "test", [png(200 + value) for value in range(10)], list(range(10)))
    return tmp_path


@pytest.fixture(scope="module")
def digits():
    return load_dataset("mnist-5k")


def test_embedded_digits_are_balanced_disjoint_and_real(digits):
    sizes = {split: len(digits[split]) for split in ("train", "validation", "test")}
    assert sizes == {"train": 3000, "validation": 1000, "test": 1000}
    for split in sizes:
        assert digits[split].description()["labels"] == [sizes[split] // 10] * 10
        assert digits[split].pixels.shape[1:] == (1, 28, 28)
    images = torch.cat([digits[split].pixels for split in sizes]).flatten(1)
    assert len({image.numpy().tobytes() for image in images}) == 5000
    # MNIST's overall pixel mean is 0.1307 of 255 (LeCun et al.); five thousand digits come near it.
    assert images.double().mean().item() / 255 == pytest.approx(MNIST_MEAN, abs=0.005)


def test_embedded_splits_are_the_same_every_time_and_shuffled(digits):
    again = load_dataset("mnist-5k", data_dir="/no/such/folder")  # needs none
    assert again.description() == digits.description()
    assert len(set(digits.train.labels[:50].tolist())) > 5


def test_batches_are_normalized_complete_and_repeatable(digits):
    batches = digits.test.batches(300)
    assert [len(labels) for _, labels in batches] == [300, 300, 300, 100]
    expected = (digits.test.pixels[300].double() / 255 - MNIST_MEAN) / MNIST_STD
    assert torch.allclose(batches[1][0][0].double(), expected, atol=1e-6)
    assert sum(len(labels) for _, labels in digits.test.batches(300, limit=450)) == 450
    assert digits.test.pixels.dtype == torch.uint8  # normalizing a batch in place must not reach the stored pixels


def test_an_epoch_has_every_example_once_in_the_generators_order(digits):
    def epoch(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([images.flatten(1) for images, _ in digits.test.shuffled(128, generator)])

    first, again, other = epoch(0), epoch(0), epoch(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert {row.numpy().tobytes() for row in first} == {row.numpy().tobytes() for row in other}
    assert len(first) == 1000


def test_a_local_folder_gives_the_papers_proportions_without_overlap(folder):
    dataset = load_dataset("mnist", folder)
    # Table 1: 50,000 / 10,000 out of the training file, so five to one; every pixel value here is one example.
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (50, 10, 10)
    values = [dataset[split].pixels[:, 0, 0, 0].tolist() for split in ("train", "validation")]
    assert sorted(values[0] + values[1]) == list(range(60))
    for images, labels in zip(dataset.train.pixels, dataset.train.labels, strict=True):
        assert int(images[0, 0, 0]) % 10 == int(labels)
    assert dataset.description() == load_dataset("mnist", folder).description()
    assert str(folder) not in str(dataset.description())


def test_the_environment_variable_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv("DROPATTACK_DATA", str(folder))
    assert len(load_dataset("mnist").test) == 10


def test_the_hub_is_asked_when_no_folder_is_given(folder, monkeypatch):
    monkeypatch.delenv("DROPATTACK_DATA", raising=False)
    import datasets

    real = datasets.load_dataset
    asked = []

    def from_files(name, split):
        asked.append((name, split))
        return real("parquet", data_files=str(folder / "mnist" / f"{split}.parquet"), split="train").cast_column(
            "image", datasets.Image()
        )

    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", from_files)
    found = load_dataset("mnist")
    assert asked == [("ylecun/mnist", "train"), ("ylecun/mnist", "test")]
    local = load_dataset("mnist", folder)
    assert found.train.description() == local.train.description()
    assert found.source == "Hugging Face hub (ylecun/mnist)"


BROKEN = {
    "a missing file": (lambda f: (f / "mnist" / "test.parquet").unlink(), FileNotFoundError, "to hold mnist/test"),
    "a truncated file": (
        lambda f: (f / "mnist" / "test.parquet").write_bytes((f / "mnist" / "test.parquet").read_bytes()[:-9]),
        ValueError,
        r"test\.parquet: expected a Parquet file",
    ),
    "no image column": (
        lambda f: write(f, "test", [png(0)], [0], column="img"),
        ValueError,
        r"test\.parquet: expected a column 'image', got img, label",
    ),
    "a label outside the classes": (
        lambda f: write(f, "test", [png(0)] * 3, [0, 1, 10]),
        ValueError,
        r"test\.parquet, row 2: expected a label from 0 to 9, got 10",
    ),
    "an undecodable image": (
        lambda f: write(f, "test", [png(0), b"no image"], [0, 1]),
        ValueError,
        r"test\.parquet, row 1: the image cannot be decoded",
    ),
    "a truncated image": (
        lambda f: write(f, "test", [png(0)[:-40]], [0]),
        ValueError,
        r"test\.parquet, row 0: the image cannot be decoded",
    ),
    "an image of another size": (
        lambda f: write(f, "test", [png(0, (28, 20))], [0]),
        ValueError,
        r"test\.parquet, row 0: expected 28 x 28 pixels, got 20 x 28",
    ),
}


@pytest.mark.parametrize(("breaking", "error", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_name_the_file_and_the_row(breaking, error, message, folder):
    breaking(folder)
    with pytest.raises(error, match=message):
        load_dataset("mnist", folder)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(ValueError, match=r"unknown dataset 'mnsit'; known: mnist, mnist-5k"):
        load_dataset("mnsit")


@pytest.mark.skipif("DROPATTACK_DATA" not in os.environ, reason="needs a data folder with all of MNIST")
def test_all_of_mnist_has_the_papers_counts():
    dataset = load_dataset("mnist")
    # Table 1 of the paper; the ten class counts of the official test file are well known.
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (50_000, 10_000, 10_000)
    assert dataset.test.description()["labels"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
