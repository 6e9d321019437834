"""A figure as files for a journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from landscape.files import replaced

__all__ = ["save"]


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ("pdf", "png"), dpi: int = 300) -> list[Path]:
    """Write a figure as vector graphics and as pixels, each file atomically.

    Args:
        figure: what to write.
        path: without an ending; its folder is made if needed.
        formats: what Matplotlib can write, such as ``"pdf"``, ``"svg"`` and ``"png"``.
        dpi: dots per inch of pixels, and of what is drawn as pixels in vector graphics.

    Returns:
        The files.

    Raises:
        ValueError: a format that Matplotlib cannot write.
    """
    stem = Path(path)
    files = []
    for ending in formats:
        if ending not in figure.canvas.get_supported_filetypes():
            known = ", ".join(sorted(figure.canvas.get_supported_filetypes()))
            raise ValueError(f"formats: expected some of {known}, got {ending!r}")
        file = stem.with_name(f"{stem.name}.{ending}")
        with replaced(file) as temporary:
            figure.savefig(temporary, dpi=dpi, format=ending)
        files.append(file)
    return files
