"""Error messages for names that are not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["unknown"]


def unknown(kind: str, name: str, known: Iterable[str], owner: str | None = None) -> str:
    """One line that names the unknown word and the nearest known ones first.

    Example:
        >>> unknown("dataset", "mnsit", ["mnist", "imdb"])
        "unknown dataset 'mnsit'; known: mnist, imdb"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    listed = near + [word for word in known if word not in near]
    shown = ", ".join(listed[:12]) + (f", … ({len(listed) - 12} more)" if len(listed) > 12 else "")
    return f"unknown {kind} {name!r}; {f'{owner} has' if owner else 'known:'} {shown or 'none'}"
