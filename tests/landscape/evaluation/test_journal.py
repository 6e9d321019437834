"""Points on disk: kept as they come, read back bit for bit, and refused where they do not belong."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscape.evaluation.journal import Journal, check_same

IDENTITY = {"weights": "a1b2", "data": {"": "c3d4"}, "span": [1.0, 0.5], "points": [3, 3]}
POINTS = {
    (0.0, 0.0): {"": {"loss": 0.1, "accuracy": 0.5}},
    (-1.0, 1 / 3): {"": {"loss": 1e-300, "accuracy": 1.0}},
    (1.0, 2 / 3): {"": {"loss": math.inf, "accuracy": 0.0}},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "surface.nc"


@pytest.fixture
def beside(path):
    return path.with_name("surface.nc.points")


def written(path, points=POINTS):
    with contextlib.closing(Journal(path, IDENTITY)) as journal:
        for node, values in points.items():
            journal.add(node, values)
    return path.with_name("surface.nc.points")


def test_points_come_back(path, beside):
    assert written(path) == beside
    with contextlib.closing(Journal(path, IDENTITY)) as again:
        assert again.values == POINTS
        assert list(again.values) == list(POINTS)


@given(st.lists(st.floats(allow_nan=False), min_size=4, max_size=4), st.sampled_from(["", "train", "töst\u2028\n\x85"]))
def test_numbers_come_back_bit_for_bit(tmp_path_factory, numbers, split):
    path = tmp_path_factory.mktemp("journal") / "surface.nc"
    node, values = tuple(numbers[:2]), {split: {"loss": numbers[2], "a metric": numbers[3]}}
    written(path, {node: values})
    ((node_again, values_again),) = Journal(path, IDENTITY).values.items()
    found = [*node_again, *values_again[split].values()]
    assert list(map(float.hex, found)) == list(map(float.hex, numbers))


def test_losses_that_are_not_numbers_come_back(path):
    written(path, {(0.0,): {"": {"loss": math.nan}}})
    assert math.isnan(Journal(path, IDENTITY).values[0.0,][""]["loss"])


def test_a_point_is_on_disk_when_it_was_added(path, beside):
    journal = Journal(path, IDENTITY)
    for count, (node, values) in enumerate(POINTS.items(), start=1):
        journal.add(node, values)
        lines = beside.read_text().splitlines()  # while the file is still open, as after a kill
        assert len(lines) == 1 + count
        assert json.loads(lines[-1]) == {"at": list(node), "values": values}
    journal.close()


def test_nothing_is_written_before_there_is_a_point(path, beside):
    Journal(path, IDENTITY).close()
    assert not beside.exists()


def test_without_a_path_points_stay_in_memory(tmp_path):
    with contextlib.closing(Journal(None, {})) as journal:
        journal.add((0.0,), {"": {"loss": 1.0}})
        assert journal.values == {(0.0,): {"": {"loss": 1.0}}}
    journal.delete()
    assert list(tmp_path.iterdir()) == []


def test_a_second_start_goes_on_in_the_same_file(path, beside):
    first, *others = POINTS.items()
    written(path, dict([first]))
    written(path, dict(others))
    lines = beside.read_text().splitlines()
    assert [list(json.loads(line)) for line in lines] == [["identity"]] + [["at", "values"]] * 3
    assert Journal(path, IDENTITY).values == POINTS


def test_a_journal_that_is_deleted_is_gone(path, beside):
    written(path)
    journal = Journal(path, IDENTITY)
    journal.delete()
    journal.delete()
    assert not beside.exists()
    assert Journal(path, IDENTITY).values == {}


def test_wherever_a_kill_tears_the_file_whole_lines_remain(path, beside):
    content = written(path).read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content) + 1):
        beside.write_bytes(content[:length])
        whole = max(sum(end <= length for end in ends) - 1, 0)
        with contextlib.closing(Journal(path, IDENTITY)) as journal:
            assert list(journal.values.items()) == list(POINTS.items())[:whole], length
            journal.add((9.0, 9.0), {"": {"loss": 9.0}})
        # what is written next is readable, and nothing that was whole is lost
        assert Journal(path, IDENTITY).values == dict(list(POINTS.items())[:whole]) | {(9.0, 9.0): {"": {"loss": 9.0}}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", "ffff"),
        ("data", {"": "ffff"}),
        ("data", {"test": "c3d4"}),
        ("span", [1.0, 0.25]),
        ("points", [3, 5]),
        ("a new word", 1),
    ],
)
def test_points_of_something_else_are_refused_and_stay(path, beside, key, value):
    content = written(path).read_bytes()
    with pytest.raises(ValueError, match=rf"surface\.nc\.points belongs to other {key} \({key}: .* there, .* here\)"):
        Journal(path, IDENTITY | {key: value})
    assert beside.read_bytes() == content
    assert Journal(path, IDENTITY).values == POINTS


def test_a_torn_journal_of_something_else_stays_as_it_is(path, beside):
    # It may belong to a job that is still running.
    content = written(path).read_bytes() + b'{"at": [0.5'
    beside.write_bytes(content)
    with pytest.raises(ValueError, match="belongs to other weights"):
        Journal(path, IDENTITY | {"weights": "ffff"})
    assert beside.read_bytes() == content


def test_all_that_differs_is_named(path):
    with pytest.raises(
        ValueError,
        match=r"belongs to other weights, points \(weights: a1b2 there, f here; points: \[3, 3\] there, null here\); "
        "delete it, or choose another path",
    ):
        check_same(path, IDENTITY, {k: v for k, v in IDENTITY.items() if k != "points"} | {"weights": "f"})


def test_long_words_are_cut(path):
    with pytest.raises(ValueError, match=r"x{77}\.\.\. there") as caught:
        check_same(path, {"a": "x" * 1000}, {"a": "y" * 1000})
    assert len(str(caught.value)) < 400


def test_what_json_makes_of_an_identity_is_the_same_identity(path):
    identity = {"span": (1, 0.5), "points": [3], "options": {"": {}}}
    check_same(path, json.loads(json.dumps(identity)), identity)
    check_same(path, {"span": [1.0, 0.5], "points": [3], "options": {"": {}}}, identity)


DAMAGE = {
    "not json": b"no line of json\n",
    "not text": b"\xff\xfe\x00\n",
    "no identity": b'{"at": [0.0], "values": {}}\n',
    "a list": b"[1, 2]\n",
    "a number": b"3\n",
    "an identity that is none": b'{"identity": 5}\n',
    "a torn line in the middle": b'{"at": [0.0, 0.\n{"at": [0.5, 0.5], "values": {}}\n',
    "an empty line": b"\n",
    "a point without values": b'{"at": [0.0, 0.0]}\n',
    "a point without a place": b'{"values": {}}\n',
    "a place that is none": b'{"at": 3, "values": {}}\n',
}
HEADERS = ("no identity", "a list", "a number", "an identity that is none", "not json", "not text")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_says_so_and_stays(path, beside, damage):
    content = written(path).read_bytes() + DAMAGE[damage]
    damaged_somewhere = [content] if damage != "no identity" else []
    damaged_at_the_start = [DAMAGE[damage]] if damage in HEADERS else []
    for damaged in damaged_somewhere + damaged_at_the_start:
        beside.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"surface\.nc\.points is damaged \(.*\); delete it to start anew"):
            Journal(path, IDENTITY)
        assert beside.read_bytes() == damaged
