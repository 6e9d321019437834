"""Images: what is embedded, what is read from a folder, and what broken files say."""

import numpy as np
import pytest
import torch

from dropattack.data import load_dataset
from dropattack.data.images import CIFAR10_MEAN, CIFAR10_STD, MNIST_MEAN, MNIST_STD


@pytest.fixture
def folder(write, png):
    write.images("mnist", "train", [png(value) for value in range(60)], [value % 10 for value in range(60)])
    write.images("mnist", "test", [png(200 + value) for value in range(10)], list(range(10)))
    return write.folder


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
    "a missing file": (
        lambda w, png: (w.folder / "mnist" / "test.parquet").unlink(),
        FileNotFoundError,
        "to hold mnist/test",
    ),
    "a truncated file": (
        lambda w, png: (w.folder / "mnist" / "test.parquet").write_bytes(
            (w.folder / "mnist" / "test.parquet").read_bytes()[:-9]
        ),
        ValueError,
        r"test\.parquet: expected a Parquet file",
    ),
    "damage inside a file": (
        # The footer with the schema is whole; a page of data is not.
        lambda w, png: (w.folder / "mnist" / "test.parquet").write_bytes(
            b"PAR1" + bytes(80) + (w.folder / "mnist" / "test.parquet").read_bytes()[84:]
        ),
        ValueError,
        r"test\.parquet: expected a Parquet file",
    ),
    "no image column": (
        lambda w, png: w.images("mnist", "test", [png(0)], [0], column="img"),
        ValueError,
        r"test\.parquet: expected a column 'image', got img, label",
    ),
    "a label outside the classes": (
        lambda w, png: w.images("mnist", "test", [png(0)] * 3, [0, 1, 10]),
        ValueError,
        r"test\.parquet, row 2: expected a label from 0 to 9, got 10",
    ),
    "no label": (
        lambda w, png: w.images("mnist", "test", [png(0)] * 2, [0, None]),
        ValueError,
        r"test\.parquet, row 1: expected a label from 0 to 9, got None",
    ),
    "an undecodable image": (
        lambda w, png: w.images("mnist", "test", [png(0), b"no image"], [0, 1]),
        ValueError,
        r"test\.parquet, row 1: the image cannot be decoded",
    ),
    "no image": (
        lambda w, png: w.images("mnist", "test", [png(0), None], [0, 1]),
        ValueError,
        r"test\.parquet, row 1: the image cannot be decoded",
    ),
    "a truncated image": (
        lambda w, png: w.images("mnist", "test", [png(0)[:-40]], [0]),
        ValueError,
        r"test\.parquet, row 0: the image cannot be decoded",
    ),
    "an image of another size": (
        lambda w, png: w.images("mnist", "test", [png(0, (28, 20))], [0]),
        ValueError,
        r"test\.parquet, row 0: expected 28 x 28 pixels, got 20 x 28",
    ),
}


@pytest.mark.parametrize(("breaking", "error", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_name_the_file_and_the_row(breaking, error, message, folder, write, png):
    breaking(write, png)
    with pytest.raises(error, match=message):
        load_dataset("mnist", folder)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(ValueError, match=r"unknown dataset 'mnsit'; known: mnist, mnist-5k"):
        load_dataset("mnsit")


def test_an_unknown_option_lists_those_of_the_data_set():
    with pytest.raises(ValueError, match=r"unknown data option 'exampels'; mnist-5k has examples, test_examples"):
        load_dataset("mnist-5k", exampels=3)
    with pytest.raises(ValueError, match=r"unknown data option 'max_length'; mnist-5k has"):
        load_dataset("mnist-5k", max_length=3)  # an option of texts


def test_smaller_samples_are_prefixes_of_larger_ones(digits):
    small = load_dataset("mnist-5k", examples=100, validation_examples=20, test_examples=30)
    assert [len(small[split]) for split in ("train", "validation", "test")] == [100, 20, 30]
    assert torch.equal(small.train.pixels, digits.train.pixels[:100])
    assert small.description()["options"] == {"examples": 100, "validation_examples": 20, "test_examples": 30}
    assert "options" not in digits.description()
    with pytest.raises(ValueError, match="examples: expected at most 3000, the train split of mnist-5k, got 3001"):
        load_dataset("mnist-5k", examples=3001)


@pytest.fixture
def colors(write, encode):
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (50, 32, 32, 3))
    images[7] = images[3]  # twins
    write.images("cifar10", "train", [encode(image) for image in images], [i % 10 for i in range(50)], column="img")
    test = [*draws.integers(0, 256, (9, 32, 32, 3)), images[0]]
    write.images("cifar10", "test", [encode(image) for image in test], list(range(10)), column="img")
    return images


def test_colored_images_keep_channels_proportions_and_twins_together(colors, write):
    dataset = load_dataset("cifar10", write.folder)
    # Table 1: 40,000 / 10,000 out of the training file, so four to one.
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (40, 10, 10)
    assert dataset.classes[3] == "cat"
    assert dataset.model_options == {"classes": 10}
    rows = {
        image.transpose(2, 0, 1).tobytes(): row for row, image in reversed(list(enumerate(colors.astype(np.uint8))))
    }
    found = {split: [rows[i.numpy().tobytes()] for i in dataset[split].pixels] for split in ("train", "validation")}
    assert not set(found["train"]) & set(found["validation"])
    assert sorted(found["train"] + found["validation"]) == sorted([*range(7), 3, *range(8, 50)])
    duplicates = dataset.description()["duplicates"]
    assert duplicates["train/validation"] == {"exact": 0}
    assert duplicates["train/test"]["exact"] + duplicates["validation/test"]["exact"] == 1
    inputs, _ = dataset.train.batch(torch.tensor([5]))
    for channel in range(3):
        expected = (dataset.train.pixels[5, channel].double() / 255 - CIFAR10_MEAN[channel]) / CIFAR10_STD[channel]
        assert torch.allclose(inputs[0, channel].double(), expected, atol=1e-6)


def test_the_split_does_not_depend_on_the_order_of_rows(colors, write, encode):
    first = load_dataset("cifar10", write.folder)
    order = np.random.default_rng(1).permutation(50)
    images, labels = [encode(colors[row]) for row in order], [int(row % 10) for row in order]
    write.images("cifar10", "train", images, labels, column="img")
    again = load_dataset("cifar10", write.folder)
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert torch.equal(first.validation.pixels, again.validation.pixels)


def test_jpeg_is_read_too(write, encode):
    gray = encode(np.full((32, 32, 3), 90), "JPEG")
    write.images("cifar10", "train", [gray] * 5, [0] * 5, column="img")
    write.images("cifar10", "test", [gray], [0], column="img")
    assert load_dataset("cifar10", write.folder).test.pixels.float().mean() == pytest.approx(90, abs=1)


def test_decoded_images_come_from_the_cache_bit_for_bit(folder, cache, monkeypatch):
    first = load_dataset("mnist", folder)
    assert sorted(path.name.split("-")[1] for path in cache.iterdir()) == ["test", "train"]
    monkeypatch.setattr("dropattack.data.images.decoded", lambda *_: pytest.fail("decoded again"))
    again = load_dataset("mnist", folder)
    assert again.description() == first.description()
    assert torch.equal(again.train.pixels, first.train.pixels)
