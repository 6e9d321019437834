"""Figures as files that need no network."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from landscape.files import replaced
from landscape.interactive.cameras import LINKED_CAMERAS

__all__ = ["write_html"]

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
</head>
<body>
<figure style="margin: 0">
{plot}
<figcaption style="font: 13px sans-serif; color: #444; max-width: 70em">{description}</figcaption>
</figure>
</body>
</html>
"""


def write_html(figure: go.Figure, path: str | Path, *, title: str = "Loss surfaces") -> None:
    """Write a page of a figure whose scenes turn together, with its description in words below it.

    plotly.js is in the page (5 MB), which opens without a network. For several figures on one page:
    :mod:`landscape.report`.

    Args:
        figure: from :func:`landscape.interactive.surfaces` or :func:`landscape.interactive.overlay`.
        path: ends in ``.html``; its folder is made. An existing file is replaced when the new one is complete.
        title: of the page.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"path: a page is written to a .html file, got {path.name!r}")
    plot = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        include_mathjax=False,
        post_script=LINKED_CAMERAS,
        div_id="loss-surfaces",
        config={"displaylogo": False, "responsive": True},  # the logo is a link to a web site
    )
    description = figure.layout.meta["description"] if isinstance(figure.layout.meta, Mapping) else ""
    content = _PAGE.format(title=html.escape(title), plot=plot, description=html.escape(description))
    with replaced(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
