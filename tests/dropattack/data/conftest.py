"""Small folders of Parquet files, and a cache folder that is not the user's."""

import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DROPATTACK_CACHE", str(folder))
    return folder


@pytest.fixture
def write(tmp_path):
    """Writes ``<data folder>/<folder>/<part>.parquet``; ``write.folder`` is the data folder."""
    data = tmp_path / "data"

    def table(folder, part, **columns):
        (data / folder).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), data / folder / f"{part}.parquet")

    def texts(folder, part, texts, labels=None):
        table(folder, part, text=texts, label=[index % 2 for index in range(len(texts))] if labels is None else labels)

    def images(folder, part, images, labels, column="image"):
        table(folder, part, **{column: [{"bytes": image, "path": None} for image in images], "label": labels})

    return SimpleNamespace(folder=data, table=table, texts=texts, images=images)


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def png():
    """Makes an encoded image of one gray value."""
    return lambda value, size=(28, 28): encoded(np.full(size, value))


@pytest.fixture
def encode():
    """Encodes an array of pixels."""
    return encoded
