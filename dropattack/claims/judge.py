"""All claims judged: a table, one row a finding, and a page for someone who has only the paper in hand."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dropattack.claims.statements import CLAIMS
from dropattack.claims.verdicts import NOT_TESTED, Claim, Finding, together

__all__ = ["judge", "verdict_page"]

_COLUMNS = ["claim", "kind", "where", "what", "effect", "low", "high", "unit", "n", "verdict", "evidence"]


def judge(results: str | Path, claims: Mapping[str, Claim] = CLAIMS) -> pd.DataFrame:
    """Test every claim on the tables of a folder of results.

    Args:
        results: folder that ``dropattack study … --results`` wrote into, one sub-folder a study.
        claims: which ones, by name.

    Returns:
        One row for each finding: ``claim``; ``kind``, ``"measured"`` or ``"printed"`` (on the paper's own numbers);
        ``where``; ``what`` (the effect, in words); ``effect``, ``low``, ``high``, ``unit``, ``n``; ``verdict``;
        ``evidence`` (a file in the folder, or a command). Before the findings of a claim stands one row with the kind
        ``"claim"``: its statement, and the verdict on what was measured, "not yet tested" where there is nothing.

    Raises:
        FileNotFoundError: no such folder.
    """
    folder = Path(results)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; write one with dropattack study run FILE --results {folder}/NAME")
    rows: list[dict[str, object]] = []
    for name, claim in claims.items():
        measured = list(claim.find(folder))
        printed = [] if claim.printed is None else list(claim.printed())
        verdict = together(finding.verdict for finding in measured)
        about = {"claim": name, "kind": "claim", "where": claim.place, "what": claim.statement, "verdict": verdict}
        rows.append(about | {"n": len(measured)})
        rows += [_row(name, "measured", finding) for finding in measured]
        rows += [_row(name, "printed", finding) for finding in printed]
    return pd.DataFrame(rows, columns=_COLUMNS)


def verdict_page(table: pd.DataFrame, claims: Mapping[str, Claim] = CLAIMS) -> str:
    """The claims and what was found, as Markdown; every number is followed by a link to its file.

    Args:
        table: from :func:`judge`.
        claims: the same ones.
    """
    claimed = table[table["kind"] == "claim"]
    heads: dict[str, str] = dict(zip(claimed["claim"], claimed["verdict"], strict=True))
    lines = [
        "# Does DropAttack do what its paper says?",
        "",
        'Claims of "DropAttack: a masked weight adversarial training method to improve generalization of neural '
        'networks" (arXiv:2108.12805), each tested on data. A verdict says *supported* or *not supported* only where '
        "the 95 % interval of the effect lies on one side, in every case that the claim speaks of (for *supported*) or "
        "in one of them (for *not supported*). It holds for the networks, sizes and epochs of the studies named here, "
        "which are smaller than the paper's. Intervals are not corrected for the number of claims.",
        "",
        "| Claim | In the paper | Verdict | Cases |",
        "| --- | --- | --- | --- |",
    ]
    for name, claim in claims.items():
        found = table[(table["claim"] == name) & (table["kind"] == "measured")]
        lines.append(
            f"| [{name}](#{name.lower()}) {claim.statement} | {claim.place} | **{heads[name]}** | {_counted(found)} |"
        )
    for name, claim in claims.items():
        lines += ["", f"## {name}", "", f"**{claim.statement}** ({claim.place})", ""]
        lines += [f"- Would count as support: {claim.support}", f"- Test: {claim.test}"]
        lines.append(f"- Verdict: **{heads[name]}**")
        for kind, heading in (("measured", "Measured"), ("printed", "The paper's own numbers")):
            found = table[(table["claim"] == name) & (table["kind"] == kind)]
            if len(found):
                lines += ["", f"{heading}:", "", "| Where | Effect | 95 % interval | n | Verdict | Evidence |"]
                lines += ["| --- | --- | --- | --- | --- | --- |"]
                lines += [_line(row) for _, row in found.iterrows()]
    return "\n".join(lines) + "\n"


def _row(claim: str, kind: str, finding: Finding) -> dict[str, object]:
    return {"claim": claim, "kind": kind} | {
        column: getattr(finding, column) for column in _COLUMNS if hasattr(finding, column)
    }


def _counted(found: pd.DataFrame) -> str:
    counts = collections.Counter(found["verdict"])
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or NOT_TESTED


def _line(row: pd.Series) -> str:
    evidence = str(row["evidence"])
    link = f"[{evidence}]({evidence})" if evidence.endswith(".csv") else f"`{evidence}`"
    interval = "" if math.isnan(row["low"]) else f"{_signed(row['low'])} to {_signed(row['high'])}"
    effect = f"{row['what']}: {_signed(row['effect'])} {row['unit']}"
    return f"| {row['where']} | {effect} | {interval} | {row['n']} | {row['verdict']} | {link} |"


def _signed(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
