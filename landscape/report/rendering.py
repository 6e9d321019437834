"""From sections to one HTML file."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

from landscape.files import replaced
from landscape.interactive import LINKED_CAMERAS
from landscape.report.cells import ShownCell, shown_cell, shown_columns, shown_rows
from landscape.report.packing import SharedArrays, data_address, packed
from landscape.report.parts import Facts, Interactive, Link, Part, Section, Table

__all__ = ["MAXIMUM_SIZE", "WIDEST_PICTURE", "TooLargeError", "render", "write_report"]

MAXIMUM_SIZE = 10_000_000  # bytes, of a file that is sent by mail and opens at once
WIDEST_PICTURE = 1800  # pixels: nearly twice the width of a page's column

_ANCHOR = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# Nothing may be loaded: what the page needs is in it. plotly.js writes styles, and copies a figure into a blob to save
# it as a picture.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "font-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)


class TooLargeError(ValueError):
    """The page would be larger than it may be."""


def render(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    made_with: Mapping[str, str] | None = None,
    widest: int = WIDEST_PICTURE,
) -> str:
    """The report as HTML; the same input gives the same text.

    Args:
        title: of the page.
        sections: each with an entry in the table of contents, as have the sections in them.
        lead: paragraphs below the title, divided by empty lines.
        made_with: for the last line: program to version.
        widest: pixels, to which wider pictures are shrunk.

    Returns:
        A page without references to other files or to the network.

    Raises:
        ValueError: an anchor that is none or stands twice, a link to nowhere, a picture or figure without words, or a
            column that a table does not have.
    """
    sections = _anchored(sections)
    anchors = {section.anchor for section in _all_sections(sections)}
    for link in _links(sections):
        if link.anchor not in anchors:
            raise ValueError(f"link {link.text!r}: no section has the anchor {link.anchor!r}")
    figures = _Figures()
    page = _environment().get_template("page.html")
    body = page.render(
        title=title,
        lead=lead,
        sections=sections,
        made_with=dict(made_with or {}),
        most_columns=max((len(shown_columns(table, [])) for table in _tables(sections)), default=0),
        policy=_POLICY,
        style=_packaged("style.css"),
        script=_packaged("script.js"),
        figures=figures,
        plotly=_plotly,
        cameras=lambda: packed(LINKED_CAMERAS),
        address=functools.partial(data_address, widest=widest),
    )
    return body + "\n"


def write_report(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    made_with: Mapping[str, str] | None = None,
    widest: int = WIDEST_PICTURE,
    maximum_size: int = MAXIMUM_SIZE,
) -> int:
    """Write the report; an existing file is replaced when the new one is complete.

    Args:
        path: ends in ``.html``; its folder is made.
        title: as for :func:`render`.
        sections: likewise.
        lead: likewise.
        made_with: likewise.
        widest: likewise.
        maximum_size: bytes.

    Returns:
        The size of the file in bytes.

    Raises:
        TooLargeError: the page is too large.
        ValueError: another suffix, or as for :func:`render`.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"path: a report is written to a .html file, got {path.name!r}")
    content = render(title, sections, lead=lead, made_with=made_with, widest=widest).encode()
    if len(content) > maximum_size:
        raise TooLargeError(
            f"expected a report of at most {maximum_size:,} bytes, got {len(content):,}; leave out pictures, or draw "
            "figures at a lower resolution"
        )
    with replaced(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


class _Figures:
    """Numbers and packs the interactive figures while the page is written, and tells at the end if there were any."""

    def __init__(self) -> None:
        self.count = 0
        self._arrays = SharedArrays()

    def number(self) -> int:
        self.count += 1
        return self.count

    def packed(self, part: Interactive) -> str:
        return packed(json.dumps(self._arrays.shared(json.loads(str(part.figure.to_json(validate=False))))))

    def new_arrays(self) -> list[tuple[str, str]]:
        return self._arrays.new()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_packaged),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"rows_of": shown_rows, "columns_of": shown_columns, "facts_of": _facts}
    environment.filters |= {"paragraphs": _paragraphs}
    return environment


def _packaged(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    return packed(get_plotlyjs())


def _paragraphs(text: str) -> list[str]:
    return [paragraph.strip() for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def _facts(part: Facts) -> list[tuple[str, list[ShownCell]]]:
    return [
        (str(name), [shown_cell(one) for one in (value if isinstance(value, list) else [value])])
        for name, value in part.facts.items()
    ]


def _anchored(sections: Sequence[Section]) -> list[Section]:
    """The sections, each with an anchor of its own."""
    given = [section.anchor for section in _all_sections(sections) if section.anchor is not None]
    for anchor in given:
        if not _ANCHOR.fullmatch(anchor):
            raise ValueError(f"anchor: expected a letter, then letters, digits, - or _, got {anchor!r}")
        if given.count(anchor) > 1:
            raise ValueError(f"anchor {anchor!r}: expected one section with it, got {given.count(anchor)}")
    taken = set(given)

    def anchored(part: Part) -> Part:
        if not isinstance(part, Section):
            return part
        anchor = part.anchor or _free(part.title, taken)
        taken.add(anchor)
        return dataclasses.replace(part, anchor=anchor, parts=[anchored(inner) for inner in part.parts])

    return [section for section in map(anchored, sections) if isinstance(section, Section)]


def _free(title: str, taken: set[str]) -> str:
    stem = "s-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    anchor, number = stem, 1
    while anchor in taken:
        number += 1
        anchor = f"{stem}-{number}"
    return anchor


def _all_sections(parts: Sequence[Part]) -> Iterator[Section]:
    for part in parts:
        if isinstance(part, Section):
            yield part
            yield from _all_sections(part.parts)


def _leaves(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, Section):
            yield from _leaves(part.parts)
        else:
            yield part


def _tables(parts: Sequence[Part]) -> Iterator[Table]:
    yield from (part for part in _leaves(parts) if isinstance(part, Table))


def _links(parts: Sequence[Part]) -> Iterator[Link]:
    for part in _leaves(parts):
        values: list[object] = []
        if isinstance(part, Table):
            values = part.frame.to_numpy(dtype=object).ravel().tolist()
        elif isinstance(part, Facts):
            values = [one for value in part.facts.values() for one in (value if isinstance(value, list) else [value])]
        yield from (value for value in values if isinstance(value, Link))
