"""The raw release of PHEME: a folder for each event, and in it one for each thread."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from dropattack.data.parquet import stop

__all__ = ["Thread", "is_raw_release", "raw_threads"]

LABELS = {"non-rumours": 0, "rumours": 1}


@dataclasses.dataclass(frozen=True)
class Thread:
    """The tweet that began a conversation.

    Attributes:
        id: the tweet's, and the thread's.
        event: such as ``charliehebdo``.
        text: as tweeted.
        label: 0 non-rumor, 1 rumor.
    """

    id: str
    event: str
    text: str
    label: int


def is_raw_release(folder: Path) -> bool:
    """Whether folders of events are in a folder, or in the only level below it."""
    return bool(_events(folder))


def raw_threads(folder: Path, on_problem: Callable[[str], object] = stop) -> list[Thread]:
    """All threads below a folder, in the order of event and id.

    The layout is that of "PHEME dataset for Rumour Detection and Veracity Classification" (figshare 6392078):
    ``all-rnr-annotated-threads/<event>-all-rnr-threads/{rumours,non-rumours}/<id>/source-tweets/<id>.json``. The
    five-event release before it names the folder ``source-tweet``. Files that begin with ``._`` are left out: macOS put
    them into the archive.

    Args:
        folder: holds the folders of events, or one folder with them.
        on_problem: is told about each thread without a readable source tweet; the default raises.

    Raises:
        ValueError: a source tweet is missing or is not JSON with a text.
    """
    threads = []
    for event in _events(folder):
        name = event.name.removesuffix("-all-rnr-threads")
        for kind, label in LABELS.items():
            for place in _folders(event / kind):
                files = [file for file in place.glob("source-tweet*/*.json") if not file.name.startswith(".")]
                if len(files) != 1:
                    on_problem(f"{place}: expected one source-tweets/<id>.json, got {len(files)}")
                    continue
                text = _text(files[0], on_problem)
                if text is not None:
                    threads.append(Thread(place.name, name, text, label))
    return threads


def _events(folder: Path) -> list[Path]:
    for level in ([folder], _folders(folder)):
        found = [
            event for above in level for event in _folders(above) if any((event / kind).is_dir() for kind in LABELS)
        ]
        if found:
            return found
    return []


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _text(file: Path, on_problem: Callable[[str], object]) -> str | None:
    try:
        tweet = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are
        on_problem(f"{file}: expected JSON ({error})")
        return None
    text = tweet.get("full_text", tweet.get("text")) if isinstance(tweet, dict) else None
    if not isinstance(text, str):
        on_problem(f"{file}: expected a tweet with a `text`, got {text!r}")
        return None
    return text
