"""Verdicts on made-up differences, whose answers are known."""

import io
import math

import pandas as pd
import pytest

from landscape.flatness.measurement import Metric
from landscape.flatness.verdict import flatness_verdicts


def metric(rescaling, larger="sharper"):
    return Metric(lambda risk, seed: None, "", "", larger, "", rescaling)


METRICS = {
    "adaptive": metric("unchanged"),
    "radius": metric("unchanged", "flatter"),
    "trace": metric("changes"),
    "sigma": metric("changes", "flatter"),
}
BELOW, ABOVE, ACROSS, NOTHING = (-2.0, -1.0), (1.0, 2.0), (-1.0, 2.0), (math.nan, math.nan)


def differences(*rows, **columns):
    """Rows of (metric, interval), as ``compare_methods`` makes them."""
    return pd.DataFrame(
        [
            {
                "checkpoint": "selected",
                "split": "train",
                "method": "sam",
                "baseline": "standard",
                "metric": name,
                "setting": str(index),
                "low": low,
                "high": high,
                "difference": (low + high) / 2,
                **columns,
            }
            for index, (name, (low, high)) in enumerate(rows)
        ]
    )


ONLY_MOVED = "only by metrics that a rescaling moves: this may be a difference of scale only"
CASES = {
    # larger adaptive sharpness and trace are sharper, larger radius and sigma flatter
    "both kinds": ([("adaptive", BELOW), ("trace", BELOW)], "flatter by both kinds"),
    "both kinds, larger is flatter": ([("radius", ABOVE), ("sigma", ABOVE)], "flatter by both kinds"),
    "both kinds, sharper": ([("radius", BELOW), ("trace", ABOVE)], "sharper by both kinds"),
    "scale only": ([("adaptive", ACROSS), ("trace", BELOW), ("sigma", ABOVE)], f"flatter {ONLY_MOVED}"),
    "scale only, none measured": ([("sigma", BELOW)], f"sharper {ONLY_MOVED}"),
    "unmoved only": ([("adaptive", BELOW), ("trace", ACROSS)], "flatter only by metrics that no rescaling moves"),
    "nothing": ([("adaptive", ACROSS), ("trace", NOTHING)], "no difference shown"),
    "kinds disagree": ([("adaptive", BELOW), ("trace", ABOVE)], "contradictory"),
    "one kind disagrees": ([("adaptive", BELOW), ("radius", BELOW), ("trace", BELOW)], "contradictory"),
    "settings disagree": ([("adaptive", BELOW), ("adaptive", ABOVE), ("trace", BELOW)], "contradictory"),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case):
    rows, verdict = CASES[case]
    (found,) = flatness_verdicts(differences(*rows), METRICS).to_dict("records")
    assert found["verdict"] == verdict
    assert found["sentence"].startswith(f"sam against standard: {verdict}. Metrics that no rescaling moves: ")


def test_a_metric_counts_once_whatever_its_settings():
    rows = [("adaptive", BELOW), ("adaptive", ACROSS), ("radius", ACROSS), ("trace", BELOW), ("sigma", BELOW)]
    (found,) = flatness_verdicts(differences(*rows), METRICS).to_dict("records")
    counts = {name: value for name, value in found.items() if isinstance(value, int) and value}
    assert counts == {"unmoved_flatter": 1, "unmoved_undecided": 1, "moved_flatter": 1, "moved_sharper": 1}
    assert found["sentence"] == (
        "sam against standard: contradictory. Metrics that no rescaling moves: 1 flatter of 2; "
        "that one moves: 1 flatter and 1 sharper of 2."
    )


def test_counts_of_kinds_without_differences_or_metrics():
    (found,) = flatness_verdicts(differences(("trace", ACROSS)), METRICS).to_dict("records")
    assert found["sentence"].endswith("moves: none was measured; that one moves: none differs of 1.")


def test_corrected_p_values_can_decide_instead():
    # Intervals that exclude zero, but no row survives the correction; then one that does, and a row without a test.
    rows = [("adaptive", BELOW), ("trace", BELOW)]
    undecided = flatness_verdicts(differences(*rows, p_holm=0.2), METRICS, by="p_holm")
    assert list(undecided["verdict"]) == ["no difference shown"]
    decided = flatness_verdicts(differences(*rows, p_holm=0.2), METRICS, by="p_holm", level=0.25)
    assert list(decided["verdict"]) == ["flatter by both kinds"]
    untested = differences(*rows).assign(p_holm=[math.nan, 0.01])
    assert list(flatness_verdicts(untested, METRICS, by="p_holm")["verdict"]) == [f"flatter {ONLY_MOVED}"]


def test_each_checkpoint_split_and_method_has_its_own_verdict():
    table = pd.concat(
        [
            differences(("adaptive", BELOW), ("trace", BELOW)),
            differences(("adaptive", ACROSS), ("trace", BELOW), method="awp"),
            differences(("adaptive", ABOVE), ("trace", ABOVE), checkpoint="matched"),
            differences(("adaptive", ACROSS), split=""),
        ]
    )
    expected = [
        ("selected", "train", "sam", "flatter by both kinds"),
        ("selected", "train", "awp", f"flatter {ONLY_MOVED}"),
        ("matched", "train", "sam", "sharper by both kinds"),
        ("selected", "", "sam", "no difference shown"),
    ]
    for one in (table, pd.read_csv(io.StringIO(table.to_csv(index=False)))):
        found = flatness_verdicts(one, METRICS)
        assert list(found[["checkpoint", "split", "method", "verdict"]].itertuples(index=False, name=None)) == expected


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"unknown metric 'own': give metrics=\{'own': Metric\(\.\.\.\), …\}"):
        flatness_verdicts(differences(("own", BELOW)), METRICS)
    with pytest.raises(ValueError, match="expected the columns of compare_methods, but 'low' is missing"):
        flatness_verdicts(differences(("trace", BELOW)).drop(columns="low"), METRICS)
    with pytest.raises(ValueError, match="by: expected 'interval' or 'p_holm', got 'p_value'"):
        flatness_verdicts(differences(("trace", BELOW)), METRICS, by="p_value")
