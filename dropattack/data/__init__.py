"""The data sets, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dropattack.data.images import Dataset, Images, Split, mnist, mnist_5k
from dropattack.names import unknown

__all__ = ["DATASETS", "DATA_DIR_VARIABLE", "Dataset", "Images", "Split", "load_dataset"]

DATA_DIR_VARIABLE = "DROPATTACK_DATA"

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "mnist-5k": mnist_5k,
    "mnist": mnist,
}


def load_dataset(name: str, data_dir: str | Path | None = None) -> Dataset:
    """The data set called ``name``.

    Args:
        name: a key of ``DATASETS``; ``"mnist-5k"`` needs neither a folder nor a network.
        data_dir: folder of Parquet files, one sub-folder a data set, in the schema of the Hugging Face hub. None: the
            folder that the environment variable ``DROPATTACK_DATA`` names, and without it the hub.

    Raises:
        ValueError: unknown name, or broken files (the message says which file and row).
        FileNotFoundError: the folder or a file in it is missing.
    """
    if name not in DATASETS:
        raise ValueError(unknown("dataset", name, DATASETS))
    folder = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE) or None
    return DATASETS[name](None if folder is None else Path(folder))
