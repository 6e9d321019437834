"""Word vectors as the first values of an embedding."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropattack.data.dataset import SPLIT_SEED
from dropattack.data.vocabulary import PADDING, Vocabulary

__all__ = ["Vectors", "find_vectors", "read_vectors"]


@dataclasses.dataclass(frozen=True)
class Vectors:
    """First values of an embedding.

    Attributes:
        values: ``(vocabulary, dimensions)``, float32. Padding is zeros; words that the file lacks, and the unknown
            word, are drawn from a normal distribution with mean 0 and the standard deviation of the values found.
        found: ``(vocabulary,)``, bool: which ids have a vector from the file.
    """

    values: Tensor
    found: NDArray[np.bool_]

    @classmethod
    def of(cls, vocabulary: Vocabulary, path: Path) -> Vectors:
        """The vectors of a vocabulary, from a file that :func:`read_vectors` reads.

        Raises:
            ValueError: a broken file, or none of the words is in it.
        """
        read = read_vectors(path, vocabulary.ids)
        if not read:
            raise ValueError(f"{path}: none of the {len(vocabulary.words)} words of the vocabulary has a vector there")
        rows = np.array([vocabulary.ids[word] for word in read])
        known = np.stack(list(read.values()))
        # Drawn for all ids, so that what an id gets does not depend on which others were found.
        draws = np.random.default_rng(SPLIT_SEED).standard_normal((len(vocabulary), known.shape[1]), dtype=np.float32)
        values = draws * known.std(dtype=np.float64).astype(np.float32)
        values[rows] = known
        values[PADDING] = 0
        found = np.zeros(len(vocabulary), dtype=np.bool_)
        found[rows] = True
        return cls(torch.from_numpy(values), found)

    def description(self, path: Path, tokens: NDArray[np.int32]) -> dict[str, Any]:
        """The file's name and SHA-256, and which share of the vocabulary and of some tokens it covers.

        Args:
            path: the file.
            tokens: ids of all training tokens; unknown words count as not covered.
        """
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {
            "file": path.name,
            "sha256": digest,
            "dimensions": self.values.shape[1],
            "coverage_of_words": round(float(self.found[2:].mean()), 4),
            "coverage_of_training_tokens": round(float(self.found[tokens].mean()), 4),
        }


def find_vectors(name: str | Path, data_dir: Path | None) -> Path:
    """The file that the option ``vectors`` names, in the data folder or else as a path of its own.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    places = [Path(name).expanduser()] if data_dir is None else [data_dir / name, Path(name).expanduser()]
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"vectors: no file {' or '.join(dict.fromkeys(map(str, places)))}")


def read_vectors(path: Path, words: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The vectors of some words.

    Args:
        path: ``.npz`` with ``words`` ``(n,)`` and ``vectors`` ``(n, dimensions)``, or text with a word and its numbers
            in each line, as GloVe has it; a first line with two whole numbers, as word2vec has it, is passed over.
        words: the words that are wanted.

    Raises:
        ValueError: the file is broken; the message says where.
    """
    return _from_npz(path, words) if path.suffix == ".npz" else _from_text(path, words)


def _from_npz(path: Path, words: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            listed, vectors = stored["words"], stored["vectors"]
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected arrays `words` and `vectors` of text and numbers ({error})") from error
    if vectors.ndim != 2 or listed.shape != vectors.shape[:1]:
        raise ValueError(
            f"{path}: expected words (n,) and vectors (n, dimensions), got {listed.shape} and {vectors.shape}"
        )
    chosen = {str(word): row for row, word in enumerate(listed) if str(word) in words}
    found = {word: vectors[row].astype(np.float32) for word, row in chosen.items()}
    for word, vector in found.items():
        if not np.isfinite(vector).all():
            raise ValueError(f"{path}, row {chosen[word]}: expected finite numbers for {word!r}")
    return found


def _from_text(path: Path, words: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    dimensions = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                    continue
                dimensions = dimensions or len(fields) - 1
                # Some words of the larger GloVe files hold spaces, so the word is what stands before the numbers.
                spelled, numbers = fields[: len(fields) - dimensions], fields[len(fields) - dimensions :]
                word = " ".join(spelled)
                is_wanted = word in words and word not in found
                vector = _numbers(numbers) if is_wanted else None
                is_whole = bool(numbers and spelled) and (len(spelled) == 1 or _numbers(spelled[-1:]) is None)
                if not is_whole or (is_wanted and vector is None):
                    raise ValueError(
                        f"{path}, line {number}: expected a word and {dimensions or 'its'} finite numbers, "
                        f"got {len(fields)} fields that begin with {' '.join(fields[:2])!r}"
                    )
                if vector is not None:
                    found[word] = vector
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8 or an .npz file ({error})") from error
    return found


def _numbers(fields: list[str]) -> NDArray[np.float32] | None:
    """Finite numbers, or None."""
    try:
        values = np.array(fields, dtype=np.float32)
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None
