"""The texts of the paper: IMDB, PHEME and AG News, and how each is split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dropattack.data.cache import Arrays, cached, key_of
from dropattack.data.catalog import CATALOG
from dropattack.data.corpus import FORMAT, Corpus, Labelled
from dropattack.data.dataset import SPLIT_SEED, SPLITS, Dataset, Split
from dropattack.data.duplicates import normalized
from dropattack.data.options import TextOptions
from dropattack.data.parquet import Part, checked_labels, open_part, stop
from dropattack.data.pheme import Thread, is_raw_release, raw_threads
from dropattack.data.splits import drawn
from dropattack.data.text import text_dataset

__all__ = ["ag_news", "imdb", "labelled", "pheme", "raw_texts"]


def imdb(data_dir: Path | None = None, **options: Any) -> Dataset:
    """IMDB reviews (Maas et al. 2011), all 50,000 drawn anew into 40,000 / 5,000 / 5,000 as in the paper's Table 1.

    Copies of one review are all in the same split: the published training and test files have 123 texts in common.

    Args:
        data_dir: a folder with ``imdb/train.parquet`` and ``imdb/test.parquet`` (``text``; ``label``: 0 negative, 1
            positive). None: download ``stanfordnlp/imdb``.
        options: see :class:`~dropattack.data.options.TextOptions`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not Parquet, lacks a column, or holds a null text or an unknown label.
    """
    return _read("imdb", data_dir, options)


def ag_news(data_dir: Path | None = None, **options: Any) -> Dataset:
    """AG News (Zhang, Zhao and LeCun 2015): 110,000 / 10,000 (from the training file) and the 7,600 test texts.

    From a smaller training file a fifth is drawn for validation, at most 10,000.

    Args:
        data_dir: a folder with ``ag_news/train.parquet`` and ``ag_news/test.parquet`` (``text``; ``label``: 0 World, 1
            Sports, 2 Business, 3 Sci/Tech). None: download ``fancyzhx/ag_news``.
        options: see :class:`~dropattack.data.options.TextOptions`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not Parquet, lacks a column, or holds a null text or an unknown label.
    """
    return _read("ag-news", data_dir, options)


def pheme(data_dir: Path | None = None, **options: Any) -> Dataset:
    """PHEME's nine events (Kochkina, Liakata and Zubiaga 2018): is the source tweet a rumor? 5,145 / 637 / 643.

    The replies are left out: some threads have none in the Parquet copy, and all of these are non-rumors.

    Args:
        data_dir: a folder with ``pheme/train.parquet``, ``validation.parquet`` and ``test.parquet`` (``text``;
            ``label``: 0 non-rumor, 1 rumor), whose splits are kept; or with the raw release below ``pheme/`` (see
            :func:`~dropattack.data.pheme.raw_threads`), which is drawn into splits of the same proportions. There is no
            canonical copy on the hub.
        options: see :class:`~dropattack.data.options.TextOptions`.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: a file is broken, or lacks a column, or holds a null text or an unknown label.
    """
    if (folder := _raw_release_of_pheme(data_dir)) is not None:
        return _raw_pheme(folder, data_dir, TextOptions.read("pheme", options))
    return _read("pheme", data_dir, options)


def raw_texts(name: str, data_dir: Path | None = None, **options: Any) -> dict[Split, Labelled]:
    """Texts as they were written, and labels: the rows that the data set of that name has, in its order.

    Args:
        name: ``"imdb"``, ``"ag-news"`` or ``"pheme"``.
        data_dir: as for the data set.
        options: as for the data set; those that say how ids are made of words change nothing here.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: an unknown option, more examples than there are, or a broken file.
    """
    chosen = TextOptions.read(name, options)
    folder = _raw_release_of_pheme(data_dir) if name == "pheme" else None
    found = _splits_of_threads(raw_threads(folder)) if folder else _SPLITS_OF[name](_parts(name, data_dir))
    chosen.check_sizes(name, {split: len(found[split][0]) for split in SPLITS})
    return {
        split: (texts[: chosen.limit(split)], labels[: chosen.limit(split)]) for split, (texts, labels) in found.items()
    }


def labelled(name: str, part: Part, on_problem: Callable[[str], object] = stop) -> Labelled:
    """The texts and labels of a part.

    Args:
        name: a key of ``CATALOG``: which column, which classes.
        part: what to read.
        on_problem: is told about each broken row, with file and row; the default raises.

    Raises:
        ValueError: a missing column, a null text, or a label outside the classes.
    """
    entry = CATALOG[name]
    columns = part.columns((entry.column, "label"))
    texts = []
    for row, text in enumerate(columns[entry.column]):
        if not isinstance(text, str):
            on_problem(f"{part.origin}, row {row}: expected a text, got {'null' if text is None else repr(text)}")
        texts.append(text if isinstance(text, str) else "")
    return texts, checked_labels(columns["label"], len(entry.classes), part.origin, on_problem)


def _splits_of_imdb(parts: Mapping[str, Part]) -> dict[Split, Labelled]:
    read = [labelled("imdb", part) for part in parts.values()]
    texts = [text for part, _ in read for text in part]
    labels = [label for _, part in read for label in part]
    tenth = round(len(texts) / 10)
    return _drawn(texts, labels, (len(texts) - 2 * tenth, tenth, tenth))


def _splits_of_ag_news(parts: Mapping[str, Part]) -> dict[Split, Labelled]:
    texts, labels = labelled("ag-news", parts["train"])
    validation = min(10_000, len(texts) // 5)
    test = labelled("ag-news", parts["test"])
    return _drawn(texts, labels, (len(texts) - validation, validation)) | {
        "test": _drawn(*test, (len(test[0]),))["train"]
    }


def _splits_of_pheme(parts: Mapping[str, Part]) -> dict[Split, Labelled]:
    found: dict[Split, Labelled] = {}
    for split in SPLITS:
        texts, labels = labelled("pheme", parts[split])
        found[split] = _drawn(texts, labels, (len(texts),))["train"]
    return found


_SPLITS_OF: dict[str, Callable[[Mapping[str, Part]], dict[Split, Labelled]]] = {
    "imdb": _splits_of_imdb,
    "ag-news": _splits_of_ag_news,
    "pheme": _splits_of_pheme,
}


def _splits_of_threads(threads: Sequence[Thread]) -> dict[Split, Labelled]:
    texts, labels = [thread.text for thread in threads], [thread.label for thread in threads]
    validation, test = (round(len(threads) * share / 6_425) for share in (637, 643))
    return _drawn(texts, labels, (len(threads) - validation - test, validation, test))


def _raw_release_of_pheme(data_dir: Path | None) -> Path | None:
    """The folder with PHEME's raw release; None where Parquet files are to be read."""
    folder = None if data_dir is None else data_dir / CATALOG["pheme"].folder
    is_raw = folder is not None and not (folder / "train.parquet").is_file() and is_raw_release(folder)
    return folder if is_raw else None


def _raw_pheme(folder: Path, data_dir: Path | None, options: TextOptions) -> Dataset:
    threads = raw_threads(folder)

    def make() -> Arrays:
        return Corpus.tokenized(_splits_of_threads(threads)).to_arrays()

    key = key_of("texts", FORMAT, SPLIT_SEED, [(thread.id, thread.text, thread.label) for thread in threads])
    corpus = Corpus.from_arrays(cached("pheme-raw", key, make, use=options.cache))
    return text_dataset("pheme", "raw release, splits drawn anew", corpus, options, data_dir)


def _parts(name: str, data_dir: Path | None) -> dict[str, Part]:
    entry = CATALOG[name]
    return {place: open_part(entry, place, data_dir) for place in entry.parts}


def _read(name: str, data_dir: Path | None, options: Mapping[str, Any]) -> Dataset:
    chosen = TextOptions.read(name, options)
    parts = _parts(name, data_dir)
    key = key_of("texts", FORMAT, SPLIT_SEED, *(part.checksum() for part in parts.values()))
    arrays = cached(name, key, lambda: Corpus.tokenized(_SPLITS_OF[name](parts)).to_arrays(), use=chosen.cache)
    source = f"Hugging Face hub ({CATALOG[name].hub})" if data_dir is None else "local Parquet folder"
    return text_dataset(name, source, Corpus.from_arrays(arrays), chosen, data_dir)


def _drawn(texts: Sequence[str], labels: Sequence[int], sizes: Sequence[int]) -> dict[Split, Labelled]:
    rows = drawn([normalized(text) for text in texts], sizes, ties=list(zip(texts, labels, strict=True)))
    return {
        split: ([texts[row] for row in chosen.tolist()], [labels[row] for row in chosen.tolist()])
        for split, chosen in zip(SPLITS, rows, strict=False)
    }
