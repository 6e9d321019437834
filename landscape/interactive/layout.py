"""What the layouts of both figures have in common."""

from __future__ import annotations

from typing import Any

from landscape.interactive.text import shown

__all__ = ["BOTTOM", "TOP", "note", "plain_layout"]

TOP, BOTTOM = 150, 90  # pixels: heading, menu and titles above; how it was made below


def plain_layout(heading: str | None, description: str) -> dict[str, Any]:
    """White ground, margins, the heading, and the description for those who cannot see the figure.

    Args:
        heading: None for none.
        description: kept in ``meta``, from where :func:`landscape.interactive.write_html` takes it.
    """
    return {
        "template": "plotly_white",
        "title": {"text": shown(heading or ""), "x": 0.5, "xanchor": "center"},
        "margin": {"l": 10, "r": 10, "t": TOP, "b": BOTTOM},
        "meta": {"description": description},
    }


def note(text: str, x: float, y: float, size: int, above: bool = False) -> dict[str, Any]:
    """A piece of text at a place of the figure, centered above it, or below and to its right."""
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "center" if above else "left",
        "yanchor": "bottom" if above else "top",
        "align": "center" if above else "left",
        "showarrow": False,
        "font": {"size": size},
    }
