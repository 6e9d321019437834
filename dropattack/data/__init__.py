"""The data sets, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropattack.data.catalog import CATALOG
from dropattack.data.corpora import ag_news, imdb, pheme, raw_texts
from dropattack.data.corpus import Labelled
from dropattack.data.dataset import SPLITS, Dataset, Examples, Split
from dropattack.data.images import Images, cifar10, mnist, mnist_5k
from dropattack.data.text import Texts
from dropattack.data.vocabulary import Vocabulary
from dropattack.names import unknown

__all__ = [
    "CATALOG",
    "DATASETS",
    "DATA_DIR_VARIABLE",
    "SPLITS",
    "Dataset",
    "Examples",
    "Images",
    "Split",
    "Texts",
    "Vocabulary",
    "load_dataset",
    "load_texts",
]

DATA_DIR_VARIABLE = "DROPATTACK_DATA"

DATASETS: dict[str, Callable[..., Dataset]] = {
    "imdb": imdb,
    "pheme": pheme,
    "ag-news": ag_news,
    "mnist-5k": mnist_5k,
    "mnist": mnist,
    "cifar10": cifar10,
}


def load_dataset(name: str, data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """The data set called ``name``.

    Args:
        name: a key of ``DATASETS``; ``"mnist-5k"`` needs neither a folder nor a network.
        data_dir: folder of Parquet files, one sub-folder a data set, in the schema of the Hugging Face hub. None: the
            folder that the environment variable ``DROPATTACK_DATA`` names, and without it the hub.
        options: how many examples to keep and, for text, how to make ids of words; see
            :class:`~dropattack.data.options.Options` and :class:`~dropattack.data.options.TextOptions`.

    Raises:
        ValueError: an unknown name or option, or broken files (the message says which file and row).
        FileNotFoundError: the folder or a file in it is missing.

    Example:
        >>> load_dataset("mnist-5k", examples=100).train.batch(slice(0, 2))[0].shape
        torch.Size([2, 1, 28, 28])
    """
    if name not in DATASETS:
        raise ValueError(unknown("dataset", name, DATASETS))
    return DATASETS[name](_folder(data_dir), **options)


def load_texts(name: str, data_dir: str | Path | None = None, **options: Any) -> dict[Split, Labelled]:
    """The texts of a data set as they were written, and their labels: the rows of :func:`load_dataset`, in its order.

    Args:
        name: a key of ``DATASETS`` that is text.
        data_dir: as for :func:`load_dataset`.
        options: as for :func:`load_dataset`. Sizes count here; length, vocabulary, stop words and vectors do not.

    Raises:
        ValueError: an unknown name or option, a data set of images, or broken files.
        FileNotFoundError: the folder or a file in it is missing.
    """
    texts = [known for known, entry in CATALOG.items() if entry.shape is None]
    if name not in texts:
        raise ValueError(unknown("dataset of texts", name, texts))
    return raw_texts(name, _folder(data_dir), **options)


def _folder(data_dir: str | Path | None) -> Path | None:
    folder = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE) or None
    return None if folder is None else Path(folder)
