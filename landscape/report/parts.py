"""What a report is made of. Nothing here knows HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, TypeAlias

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

__all__ = [
    "Badge",
    "Cell",
    "Code",
    "Column",
    "Facts",
    "Interactive",
    "Link",
    "Part",
    "Picture",
    "Section",
    "Table",
    "Tone",
]


Tone: TypeAlias = Literal["for", "against", "open", "none"]


@dataclasses.dataclass(frozen=True)
class Badge:
    """A verdict: words on a colored ground, with a mark, so that nobody has to see the color.

    Attributes:
        text: the verdict.
        tone: ``"for"``, ``"against"``, ``"open"`` (looked at, undecided) or ``"none"`` (not looked at).
    """

    text: str
    tone: Tone


@dataclasses.dataclass(frozen=True)
class Link:
    """A link to a section of the same report; there are no others.

    Attributes:
        text: what is shown.
        anchor: of the section.
    """

    text: str
    anchor: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """Text in a table that is sorted by a number: ``Cell("98.1 ± 0.2", 98.1)``.

    Attributes:
        text: what is shown.
        sort: the number; NaN goes last.
    """

    text: str
    sort: float


@dataclasses.dataclass(frozen=True)
class Column:
    """How one column of a table is shown.

    Attributes:
        name: in the DataFrame.
        heading: in the report; None: the name, with spaces.
        unit: of its numbers.
        format: of its numbers, as :func:`format` takes it.
    """

    name: str
    heading: str | None = None
    unit: str = ""
    format: str = ".4g"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that can be sorted by each of its columns.

    Attributes:
        frame: cells may be numbers, text, booleans, missing, :class:`Badge`, :class:`Link` or :class:`Cell`.
        caption: what the table holds.
        columns: which, in this order; None: all.
        folded: only its caption is seen at first.
    """

    frame: pd.DataFrame
    caption: str
    columns: Sequence[Column] | None = None
    folded: bool = False
    kind: ClassVar[str] = "table"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A still picture.

    Attributes:
        image: bytes of a PNG or SVG file, or a figure.
        alt: what it shows, for those who cannot see it.
        caption: below it.
        folded: only its caption is seen at first.
    """

    image: bytes | Figure
    alt: str
    caption: str = ""
    folded: bool = False
    kind: ClassVar[str] = "picture"

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("alt: expected words that say what the picture shows, got none")


@dataclasses.dataclass(frozen=True)
class Interactive:
    """A plotly figure, drawn when it comes into view.

    A menu and a slider of the figure become a list and a slider of the page, which a keyboard can reach; scenes turn
    together, also by buttons.

    Attributes:
        figure: such as :func:`landscape.interactive.surfaces` makes.
        description: in words; None: that of the figure, ``layout.meta["description"]``.
        caption: below it.
        still: seen before the figure is drawn, where it cannot be, and on paper.
    """

    figure: go.Figure
    description: str | None = None
    caption: str = ""
    still: Picture | None = None
    kind: ClassVar[str] = "interactive"

    @property
    def words(self) -> str:
        """The description.

        Raises:
            ValueError: there is none.
        """
        meta = self.figure.layout.meta
        found = self.description or (meta.get("description", "") if isinstance(meta, Mapping) else "")
        if not found:
            raise ValueError("description: expected words for those who cannot see the figure, got none")
        return str(found)


@dataclasses.dataclass(frozen=True)
class Facts:
    """Names and what they are: settings, seeds, versions.

    Attributes:
        facts: name to text, number, :class:`Badge` or :class:`Link`, or a list of these.
    """

    facts: Mapping[str, object]
    kind: ClassVar[str] = "facts"


@dataclasses.dataclass(frozen=True)
class Code:
    """Text that is shown as it is: a configuration, commands.

    Attributes:
        text: its lines.
        caption: what it is.
        folded: only its caption is seen at first.
    """

    text: str
    caption: str
    folded: bool = False
    kind: ClassVar[str] = "code"


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        title: the heading.
        parts: in their order; a string is text, its paragraphs divided by empty lines.
        anchor: for :class:`Link`; None: made from the title.
        short: what the table of contents says; None: the title.
    """

    title: str
    parts: Sequence[Part]
    anchor: str | None = None
    short: str | None = None
    kind: ClassVar[str] = "section"


Part: TypeAlias = str | Table | Picture | Interactive | Facts | Code | Section
