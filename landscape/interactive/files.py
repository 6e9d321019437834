"""Figures as files that need no network."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

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
{figure}
</body>
</html>
"""
_FIGURE = """<figure style="margin: 0">
{plot}
<figcaption style="font: 13px sans-serif; color: #444; max-width: 70em">{description}</figcaption>
</figure>"""


def write_html(
    figure: go.Figure,
    path: str | Path,
    *,
    plotly_js: Literal["inline", "none"] = "inline",
    title: str = "Loss surfaces",
) -> None:
    """Write a figure whose scenes turn together, with its description in words below it.

    Args:
        figure: from :func:`landscape.interactive.surfaces` or :func:`landscape.interactive.overlay`.
        path: ends in ``.html``; its folder is made. An existing file is replaced when the new one is complete.
        plotly_js: ``"inline"``: a page of its own with plotly.js inside (5 MB), which opens without a network.
            ``"none"``: a part of a page, for one that has loaded plotly.js already.
        title: of the page.

    Raises:
        ValueError: another suffix, or another ``plotly_js``.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"path: a page is written to a .html file, got {path.name!r}")
    if plotly_js not in ("inline", "none"):
        raise ValueError(f"plotly_js: expected 'inline' or 'none', got {plotly_js!r}")
    plot = figure.to_html(
        full_html=False,
        include_plotlyjs=plotly_js == "inline",
        include_mathjax=False,
        post_script=LINKED_CAMERAS,
        div_id="loss-surfaces" if plotly_js == "inline" else None,  # one to a page; parts of one page need their own
        config={"displaylogo": False, "responsive": True},  # the logo is a link to a web site
    )
    description = figure.layout.meta["description"] if isinstance(figure.layout.meta, Mapping) else ""
    content = _FIGURE.format(plot=plot, description=html.escape(description))
    if plotly_js == "inline":
        content = _PAGE.format(title=html.escape(title), figure=content)
    with replaced(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
