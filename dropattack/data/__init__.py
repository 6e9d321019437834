"""The data sets, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropattack.data.catalog import CATALOG
from dropattack.data.corpora import ag_news, imdb, pheme
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
    folder = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE) or None
    return DATASETS[name](None if folder is None else Path(folder), **options)
