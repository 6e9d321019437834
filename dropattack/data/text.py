"""Text classification: labelled texts in memory, as ids of a vocabulary."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropattack.data.catalog import CATALOG
from dropattack.data.corpus import Corpus
from dropattack.data.dataset import SPLITS, Dataset, Examples
from dropattack.data.duplicates import overlaps
from dropattack.data.options import TextOptions
from dropattack.data.tokens import stop_list
from dropattack.data.vectors import Vectors, find_vectors
from dropattack.data.vocabulary import PADDING, UNKNOWN, Vocabulary

__all__ = ["Texts", "text_dataset"]

# Vectors of another language or with capitals cover less; GloVe covers nearly all English tokens.
_LOW_COVERAGE = 0.5

_log = logging.getLogger(__name__)

# Tokens of some texts, one after the other, and where each text begins.
_Tokens = tuple[NDArray[np.int32], NDArray[np.int64]]
_DEFAULTS = TextOptions()


@dataclasses.dataclass(frozen=True)
class Texts(Examples):
    """Labelled texts of one split, one after the other.

    Attributes:
        tokens: ids of a vocabulary, int32.
        offsets: where each text begins in ``tokens``, and the end: ``(n + 1,)``, int64.
        labels: ``(n,)``, int64.
        empty: how many texts had no token left; each is one unknown token.
    """

    tokens: Tensor
    offsets: Tensor
    labels: Tensor
    empty: int = 0

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Ids ``(n, longest text)``, int64, padded with 0 on the right; and labels ``(n,)``."""
        starts = self.offsets[:-1][indices]
        lengths = self.offsets[1:][indices] - starts
        places = torch.arange(int(lengths.max()) if len(lengths) else 0)
        inside = places < lengths[:, None]
        ids = self.tokens[torch.where(inside, starts[:, None] + places, 0)].to(torch.int64)
        return ids.masked_fill_(~inside, PADDING), self.labels[indices]

    def description(self) -> dict[str, Any]:
        """Texts, texts of each class, tokens, empty texts, and the SHA-256 of ids, offsets and labels."""
        digest = hashlib.sha256()
        for tensor in (self.tokens, self.offsets, self.labels):
            digest.update(tensor.contiguous().numpy().data)
        return {
            "examples": len(self),
            "labels": torch.bincount(self.labels).tolist(),
            "tokens": len(self.tokens),
            "longest": int(self.offsets.diff().max()) if len(self) else 0,
            "unknown_tokens": int((self.tokens == UNKNOWN).sum()),
            "empty": self.empty,
            "sha256": digest.hexdigest(),
        }


def text_dataset(
    name: str, source: str, corpus: Corpus, options: TextOptions = _DEFAULTS, data_dir: Path | None = None
) -> Dataset:
    """Apply the options to tokenized splits.

    Args:
        name: a key of ``CATALOG``.
        source: in words, where the texts were read from.
        corpus: the tokenized splits.
        options: sizes, length, vocabulary, stop words and vectors.
        data_dir: where the file of vectors is looked for first.

    Raises:
        ValueError: more examples are asked for than there are, or the file of vectors is broken.
        FileNotFoundError: the file of vectors is missing.
    """
    path = None if options.vectors is None else find_vectors(options.vectors, data_dir)
    options.check_sizes(name, dict(zip(SPLITS, corpus.sizes, strict=True)))
    rows = {split: slice(*_limited(corpus.slice(split), options.limit(split))) for split in SPLITS}
    kept = {split: _kept(corpus, rows[split], options.stop_words) for split in SPLITS}
    counted = SPLITS if options.vocabulary_from == "all" else ("train",)
    vocabulary = _vocabulary(corpus, [kept[split][0] for split in counted], options.vocabulary)
    ids = np.array([vocabulary.ids.get(token, UNKNOWN) for token in corpus.types], dtype=np.int32)
    splits = {
        split: _texts(ids[tokens], offsets, corpus.labels[rows[split]], options.max_length)
        for split, (tokens, offsets) in kept.items()
    }
    groups = {"exact": corpus.exact, "near": corpus.near}
    notes: dict[str, Any] = {
        "vocabulary": {"words": len(vocabulary.words), "counted_in": options.vocabulary_from},
        "duplicates": overlaps({kind: {split: of[rows[split]] for split in SPLITS} for kind, of in groups.items()}),
        "repeated_texts": _repeated([corpus.exact[rows[split]] for split in SPLITS]),
        "sha256_of_all_texts": dict(zip(SPLITS, corpus.sha256, strict=True)),
    }
    values = None
    if path is not None:
        vectors = Vectors.of(vocabulary, path)
        notes["vectors"] = vectors.description(path, splits["train"].tokens.numpy())
        _tell_coverage(notes["vectors"])
        values = vectors.values
    if given := options.given():
        notes["options"] = given
    classes = CATALOG[name].classes
    about = {"classes": len(classes), "vocabulary": len(vocabulary), "vectors": values}
    return Dataset(
        name,
        source,
        splits["train"],
        splits["validation"],
        splits["test"],
        classes=classes,
        model_options=about,
        notes=notes,
        vocabulary=vocabulary,
    )


def _repeated(groups: list[NDArray[np.int32]]) -> int:
    every = np.concatenate(groups)
    return len(every) - len(np.unique(every))


def _limited(rows: slice, limit: int | None) -> tuple[int, int]:
    return rows.start, rows.stop if limit is None else rows.start + limit


def _kept(corpus: Corpus, rows: slice, stop_words: bool | str) -> _Tokens:
    """Tokens and offsets of some texts, without stop words."""
    offsets = corpus.offsets[rows.start : rows.stop + 1]
    tokens = corpus.tokens[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    if stopped := stop_list(stop_words):
        is_kept = np.array([token not in stopped for token in corpus.types], dtype=np.bool_)
        tokens, offsets = _filtered(tokens, offsets, is_kept[tokens])
    return tokens, offsets


def _vocabulary(corpus: Corpus, pieces: list[NDArray[np.int32]], size: int | None) -> Vocabulary:
    counts = sum(np.bincount(piece, minlength=len(corpus.types)) for piece in pieces)
    return Vocabulary.from_counts(dict(zip(corpus.types, np.asarray(counts).tolist(), strict=True)), size)


def _texts(
    tokens: NDArray[np.int32], offsets: NDArray[np.int64], labels: NDArray[np.int64], max_length: int | None
) -> Texts:
    lengths = np.diff(offsets)
    if max_length is not None and len(lengths) and lengths.max() > max_length:
        places = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)
        tokens, offsets = _filtered(tokens, offsets, places < max_length)
    empty = np.diff(offsets) == 0
    tokens = np.insert(tokens, offsets[:-1][empty], UNKNOWN)
    offsets = offsets + np.concatenate([[0], np.cumsum(empty)])
    return Texts(torch.from_numpy(tokens), torch.from_numpy(offsets), torch.from_numpy(labels), int(empty.sum()))


def _filtered(tokens: NDArray[np.int32], offsets: NDArray[np.int64], is_kept: NDArray[np.bool_]) -> _Tokens:
    before = np.concatenate([[0], np.cumsum(is_kept)])
    return tokens[is_kept], before[offsets]


def _tell_coverage(about: dict[str, Any]) -> None:
    words, tokens = about["coverage_of_words"], about["coverage_of_training_tokens"]
    told = f"{about['file']} has vectors for {words:.1%} of the vocabulary and {tokens:.1%} of the training tokens"
    _log.info(told)
    if tokens < _LOW_COVERAGE:
        warnings.warn(f"{told}; the others are drawn at random", stacklevel=2)
