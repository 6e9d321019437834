"""Findings as one HTML file that needs no network: tables that sort, pictures, surfaces to turn, how it was made.

A report is a list of sections; a section is a list of parts. All text is data: it is escaped, never read as HTML.
"""

from landscape.report.cells import shown_number
from landscape.report.parts import (
    Badge,
    Cell,
    Code,
    Column,
    Facts,
    Interactive,
    Link,
    Part,
    Picture,
    Section,
    Table,
    Tone,
)
from landscape.report.rendering import MAXIMUM_SIZE, WIDEST_PICTURE, TooLargeError, render, write_report

__all__ = [
    "MAXIMUM_SIZE",
    "WIDEST_PICTURE",
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
    "TooLargeError",
    "render",
    "shown_number",
    "write_report",
]
