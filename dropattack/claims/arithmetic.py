"""What the paper's own numbers say, without any training."""

from __future__ import annotations

from typing import Any

from dropattack import paper
from dropattack.claims.evidence import records
from dropattack.claims.verdicts import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Finding, judge_interval

__all__ = [
    "effect_of_epsilon",
    "effect_of_probability",
    "means_of_five_runs",
    "printed_ascent_steps",
    "printed_depth",
    "printed_gains",
    "printed_half",
    "printed_input_and_weights",
    "printed_probability",
]

_COMMAND = "dropattack claims --checks"


def means_of_five_runs() -> list[Finding]:
    """The granularity test: can the printed accuracies be means of five runs over the test set?"""
    found = []
    for row in records(paper.even_last_digits()):
        verdict = NOT_SUPPORTED if row.p_value < 0.05 else INCONCLUSIVE
        what = (
            f"even last digits, {row.even} of {row.numbers} (of single runs all, of means of five 60 %; runs stated: "
            f"{row.runs_stated})"
        )
        found.append(Finding(row.place, verdict, _COMMAND, what, 100 * row.even / row.numbers, unit="%", n=row.numbers))
    rows = paper.granularity()
    for row in records(rows[(rows["dataset"] == "pheme") & (rows["runs"] == 5) & (rows["slack"] == 0)]):
        what = (
            f"numbers that no five runs over {row.test_examples} tweets average to "
            f"(of numbers drawn at random: {row.impossible_by_chance:.1f})"
        )
        verdict = NOT_SUPPORTED if row.impossible else INCONCLUSIVE
        where = f"{row.place}, PHEME"
        found.append(Finding(where, verdict, _COMMAND, what, row.impossible, unit="numbers", n=row.numbers))
    return found


def printed_gains() -> list[Finding]:
    """Table 3: gains recomputed, and whether they exceed two points beyond sampling error."""
    found = []
    for row in records(paper.gains()):
        misprint = f", printed as {row.printed_gain:.2f}" if row.misprinted else ""
        what = f"gain with {row.examples:,} reviews{misprint}"
        verdict = judge_interval(row.low, row.high, 2.0)
        found.append(Finding("Table 3", verdict, _COMMAND, what, row.gain, row.low, row.high, n=1))
    return found


def printed_half() -> list[Finding]:
    """Table 3: DropAttack on half of the data against standard training on all."""
    found = []
    for row in records(paper.half_the_data()):
        half = 1.96 * row.standard_error
        what = f"DropAttack on {row.half:,} reviews minus standard training on {row.examples:,}"
        low, high = row.difference - half, row.difference + half
        found.append(Finding("Table 3", judge_interval(low, high), _COMMAND, what, row.difference, low, high, n=1))
    return found


def printed_input_and_weights() -> list[Finding]:
    """Table 2: (I&W) above (I)."""
    found = []
    for row in records(paper.input_and_weights()):
        half = 1.96 * row.standard_error
        low, high = row.difference - half, row.difference + half
        verdict = NOT_SUPPORTED if not row.holds else judge_interval(low, high)
        what = f"(I&W) minus (I), {row.measure}, {row.dataset}"
        found.append(Finding("Table 2", verdict, _COMMAND, what, row.difference, low, high, n=1))
    return found


def printed_ascent_steps() -> list[Finding]:
    """Table 4: the best K against K = 1, in standard errors of a run."""
    found = []
    for row in records(paper.ascent_steps().query("measure == 'accuracy'")):
        gain, half = row.best - row.one_step, 1.96 * 2**0.5 * row.standard_error_of_one_run
        what = f"best K ({row.best_ascent_steps}) minus K = 1, {row.dataset}"
        verdict = judge_interval(gain - half, gain + half)
        found.append(Finding("Table 4", verdict, _COMMAND, what, gain, gain - half, gain + half, n=1))
    return found


def printed_probability() -> list[Finding]:
    """Table 10: where the best probability lies for each epsilon."""
    found = []
    for row in records(paper.best_attack_probability()):
        best = float(row.best_attack_probability)
        verdict = INCONCLUSIVE if 0.5 <= best <= 0.7 else NOT_SUPPORTED
        what = f"best p at epsilon {row.epsilon:g} is {best:g}; its lead over the runner-up outside, in points"
        found.append(Finding("Table 10", verdict, _COMMAND, what, row.lead, n=1))
    return found


def printed_depth() -> list[Finding]:
    """Tables 5 to 9: pairs of attacked layers, the nearer to the input first."""
    rows = paper.depth().query("measure == 'accuracy'")
    against = int((~rows["holds"]).sum())
    verdict = NOT_SUPPORTED if against else SUPPORTED
    what = f"of {len(rows)} pairs of attacked layers, those in which the one nearer to the input is worse"
    return [Finding("Tables 5-9", verdict, _COMMAND, what, against, unit="pairs", n=len(rows))]


def effect_of_probability() -> list[Finding]:
    """Table 10: the two-way analysis, p."""
    return [_two_way("attack_probability", "attack probability")]


def effect_of_epsilon() -> list[Finding]:
    """Table 10: the two-way analysis, epsilon."""
    return [_two_way("epsilon", "epsilon")]


def _two_way(source: str, told: str) -> Finding:
    rows = paper.two_way_anova().set_index("source")
    row: dict[Any, Any] = rows.loc[source].to_dict()
    freedom = (int(row["degrees_of_freedom"]), int(rows["degrees_of_freedom"].to_numpy()[-1]))
    verdict = SUPPORTED if row["p_value"] < 0.05 else NOT_SUPPORTED
    what = f"F({freedom[0]}, {freedom[1]}) of {told} over the cells with p > 0; p-value {row['p_value']:.2g}"
    return Finding("Table 10", verdict, _COMMAND, what, float(row["F"]), unit="F", n=42)
