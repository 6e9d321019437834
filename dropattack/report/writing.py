"""From folders to a report."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dropattack.report.accuracy import accuracy_section
from dropattack.report.files import kind_of, studies_in
from dropattack.report.gradients import gradients_section
from dropattack.report.making import making_section
from dropattack.report.minima import flatness_section
from dropattack.report.runs import run_section
from dropattack.report.surfaces import surfaces_section
from dropattack.report.verdicts import claims_section, told
from landscape.report import WIDEST_PICTURE, Section, TooLargeError, write_report

__all__ = ["Detail", "report_on", "sections_on"]


class Detail(NamedTuple):
    """How much is shown, for a page of bounded size.

    Attributes:
        resolution: points a side of interactive surfaces.
        with_gap: whether pictures of the generalization gap are shown.
        widest: pixels of pictures.
    """

    resolution: int = 41
    with_gap: bool = True
    widest: int = WIDEST_PICTURE


# Each is tried if the page of the one before is too large.
_DETAILS = (
    *(Detail(), Detail(with_gap=False), Detail(with_gap=False, widest=1400), Detail(31, False, 1200)),
    Detail(21, False, 1000),
)


def report_on(
    paths: Sequence[str | Path], output: str | Path, *, figures: str | Path | None = None, title: str | None = None
) -> str:
    """Write one HTML file about runs, studies, or a folder of results; it opens without a network.

    Args:
        paths: folders of runs, of a study's results, or of several studies' results, on which claims are judged.
        output: the file.
        figures: folder of stored pictures, one sub-folder a study, beside those that lie with the tables; what is not
            there is drawn from the tables.
        title: of the page; None: the names of the folders.

    Returns:
        What was written, in words.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a folder that holds nothing to report, a broken file, or a page that is too large.
    """
    folders = [Path(path) for path in paths]
    if not folders:
        raise ValueError("paths: expected at least one folder, got none")
    title = title or f"DropAttack: {', '.join(folder.resolve().name for folder in folders)}"
    versions = {name: importlib.metadata.version(name) for name in ("dropattack", "torch", "plotly")}
    made_with = {"Python": platform.python_version(), **versions}
    for detail in _DETAILS:
        sections, lead = sections_on(folders, figures, detail)
        try:
            size = write_report(output, title, sections, lead=lead, made_with=made_with, widest=detail.widest)
            break
        except TooLargeError:
            if detail is _DETAILS[-1]:
                raise
    return f"wrote {output}: {len(sections)} sections, {size / 1e6:.1f} MB. {lead}".rstrip()


def sections_on(
    folders: Sequence[Path], figures: str | Path | None = None, detail: Detail = _DETAILS[0]
) -> tuple[list[Section], str]:
    """The sections about each folder, and a sentence that sums up.

    Args:
        folders: as for :func:`report_on`.
        figures: likewise.
        detail: how much is shown.

    Raises:
        ValueError: as for :func:`report_on`.
    """
    sections: list[Section] = []
    lead: list[str] = []
    pictures = None if figures is None else Path(figures)
    for number, folder in enumerate(folders, 1):
        kind = kind_of(folder)
        if kind == "run":
            sections.append(run_section(folder, f"run-{number}"))
        elif kind == "study":
            sections.append(_study(folder, pictures, f"study-{number}", detail))
        else:
            if lead:
                raise ValueError(
                    f"{folder}: expected one folder of several studies, got two; their claims are one page each"
                )
            anchors = {inner.name: f"study-{number}-{place}" for place, inner in enumerate(studies_in(folder), 1)}
            claims, found = claims_section(folder, anchors)
            sections.append(claims)
            lead.append(told(found))
            sections += [_study(folder / name, pictures, anchor, detail) for name, anchor in anchors.items()]
    return sections, " ".join(lead)


def _study(folder: Path, figures: Path | None, anchor: str, detail: Detail) -> Section:
    name = folder.resolve().name

    def places(room: str) -> list[Path]:
        """Where pictures may be: with the tables, or in the folder of pictures, which has no rooms."""
        return [folder / room, *([] if figures is None else [figures / name / room, figures / name])]

    found = [
        accuracy_section(folder, places("")),
        *(surfaces_section(folder / room, places(room), detail.resolution) for room in ("", "surfaces")),
        *(flatness_section(folder / room, places(room), detail.with_gap) for room in ("", "flatness")),
        *(gradients_section(folder / room, places(room)[:2]) for room in ("", "checks")),
        making_section(folder),
    ]
    return Section(f"Study {name}", [section for section in found if section is not None], anchor)
