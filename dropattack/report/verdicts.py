"""The paper's claims, and what was found about each."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from dropattack.claims import CLAIMS, INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, judge
from dropattack.claims.evidence import records
from dropattack.report.columns import interval_cell
from landscape.report import Badge, Column, Facts, Link, Section, Table, Tone

__all__ = ["badge", "claims_section", "told"]

_TONES: Mapping[str, Tone] = {SUPPORTED: "for", NOT_SUPPORTED: "against", INCONCLUSIVE: "open"}
_ABOUT = """Claims of “DropAttack: a masked weight adversarial training method to improve generalization of neural \
networks” (arXiv:2108.12805), each tested on data. A verdict says supported or not supported only where the 95 % \
interval of the effect lies on one side: in every case that the claim speaks of, or against it in one of them.

Verdicts hold for the networks, sizes and epochs of the studies below, which are smaller than the paper's. Intervals \
are not corrected for the number of claims."""
_SPEC = ".3g"


def claims_section(results: Path, anchors: Mapping[str, str]) -> tuple[Section, pd.DataFrame]:
    """All claims judged on a folder of results.

    Args:
        results: the folder.
        anchors: name of a study's folder in it to the anchor of its section.

    Returns:
        The section, and the table of :func:`dropattack.claims.judge`.
    """
    found = judge(results)
    heads = found[found["kind"] == "claim"].set_index("claim")
    rows = [
        {
            "claim": Link(name, f"claim-{name}"),
            "statement": claim.statement,
            "place": claim.place,
            "verdict": badge(str(heads.loc[name, "verdict"])),
            "cases": _counted(found[(found["claim"] == name) & (found["kind"] == "measured")]),
        }
        for name, claim in CLAIMS.items()
    ]
    columns = [
        Column("claim"),
        Column("statement", "What the paper says"),
        Column("verdict"),
        Column("cases"),
        Column("place", "Where"),
    ]
    table = Table(pd.DataFrame(rows), "Every claim and the verdict on it", _capitalized(columns))
    return Section("Claims of the paper", [_ABOUT, table, *_details(found, heads, anchors)], "claims"), found


def told(found: pd.DataFrame) -> str:
    """How many claims have which verdict, in one sentence."""
    verdicts = found.loc[found["kind"] == "claim", "verdict"]
    counts = collections.Counter(verdicts)
    parts = [f"{counts[verdict]} {verdict}" for verdict in dict.fromkeys([*_TONES, *verdicts]) if counts[verdict]]
    return f"{len(verdicts)} claims: {', '.join(parts)}."


def badge(verdict: str) -> Badge:
    """A verdict on a claim or in a case."""
    return Badge(verdict, _TONES.get(verdict, "none"))


def _details(found: pd.DataFrame, heads: pd.DataFrame, anchors: Mapping[str, str]) -> Iterator[Section]:
    for name, claim in CLAIMS.items():
        facts = {
            "Verdict": badge(str(heads.loc[name, "verdict"])),
            "In the paper": claim.place,
            "Would count as support": claim.support,
            "Test": claim.test,
        }
        tables = []
        for kind, caption in (("measured", "Measured"), ("printed", "On the numbers that the paper prints")):
            mine = found[(found["claim"] == name) & (found["kind"] == kind)]
            if len(mine):
                tables.append(_findings(mine, f"{name}: {caption[0].lower()}{caption[1:]}", anchors))
        yield Section(f"{name}: {claim.statement}", [Facts(facts), *tables], f"claim-{name}", short=name)


def _findings(mine: pd.DataFrame, caption: str, anchors: Mapping[str, str]) -> Table:
    rows = [
        {
            "where": row.where,
            "what": row.what,
            "effect": row.effect,
            "unit": None if math.isnan(row.effect) else row.unit,
            "interval": interval_cell(row.low, row.high, _SPEC),
            "n": row.n,
            "verdict": badge(str(row.verdict)),
            "evidence": _evidence(str(row.evidence), anchors),
        }
        for row in records(mine)
    ]
    columns = [
        Column("where"),
        Column("verdict"),
        Column("what", "Effect"),
        Column("effect", "Size", format=_SPEC),
        Column("unit"),
        Column("interval", "95 % interval"),
        Column("n", "n"),
        Column("evidence"),
    ]
    return Table(pd.DataFrame(rows), caption, _capitalized(columns))


def _evidence(evidence: str, anchors: Mapping[str, str]) -> object:
    """A link to the section of the study that the file belongs to, if the report has it."""
    anchor = anchors.get(evidence.partition("/")[0])
    return evidence if anchor is None else Link(evidence, anchor)


def _counted(mine: pd.DataFrame) -> str:
    counts = collections.Counter(mine["verdict"])
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "none"


def _capitalized(columns: list[Column]) -> list[Column]:
    return [Column(one.name, one.heading or one.name.capitalize(), one.unit, one.format) for one in columns]
