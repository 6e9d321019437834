"""The raw release of PHEME, in both layouts."""

import json

import pytest

from dropattack.data import load_dataset

SPLITS = ("train", "validation", "test")


@pytest.fixture
def thread(write):
    """Writes one thread as the release has it, with the files that macOS left in the archive."""

    def make(event, kind, number, text, source="source-tweets", above="all-rnr-annotated-threads"):
        place = write.folder / "pheme" / above / event / kind / str(number)
        (place / source).mkdir(parents=True)
        (place / source / f"{number}.json").write_text(json.dumps({"text": text, "id": number}))
        (place / source / f"._{number}.json").write_bytes(b"\x00\x05\x16\x07")
        (place / "reactions").mkdir()
        (place / "reactions" / "1.json").write_text(json.dumps({"text": "a reply"}))
        (place.parent / "._note").mkdir(exist_ok=True)
        return place

    return make


@pytest.fixture
def release(thread, write):
    for number in range(90):
        kind = "rumours" if number % 3 == 0 else "non-rumours"
        event = ("ferguson", "charliehebdo")[number % 2]
        thread(f"{event}-all-rnr-threads", kind, 5000 + number, f"tweet number{number} of {kind.replace('-', '')} here")
    return write.folder


def test_all_source_tweets_are_read_and_split_in_the_papers_proportions(release):
    dataset = load_dataset("pheme", release, vocabulary_from="all")
    # 90 threads times 637 / 6,425 and 643 / 6,425: 9 and 9.
    assert [len(dataset[split]) for split in SPLITS] == [72, 9, 9]
    assert dataset.source == "raw release, splits drawn anew"
    numbers = set()
    for split in SPLITS:
        inputs, labels = dataset[split].batch(slice(0, 90))
        for row, label in zip(inputs, labels, strict=True):
            words = dataset.vocabulary.decode(row.tolist())
            assert words[3] == ("rumours" if label else "nonrumours")
            numbers.add(words[1])
    assert numbers == {f"number{number}" for number in range(90)}
    assert dataset.description() == load_dataset("pheme", release, vocabulary_from="all").description()


@pytest.mark.parametrize(
    "layout",
    [
        {"source": "source-tweet"},
        {"above": "."},
        {"event": "germanwings-crash"},
    ],
    ids=["five-event release", "events directly", "plain event names"],
)
def test_older_layouts(layout, thread, write):
    for number in range(10):
        thread(**{"event": "sydneysiege-all-rnr-threads", "kind": "rumours", "number": number, "text": "x"} | layout)
    assert sum(len(load_dataset("pheme", write.folder)[split]) for split in SPLITS) == 10


def test_parquet_comes_first(release, write):
    for part in SPLITS:
        write.texts("pheme", part, ["one", "two"])
    assert len(load_dataset("pheme", release).train) == 2


BROKEN = {
    "no source tweet": (
        lambda place: (place / "source-tweets" / "7.json").unlink(),
        r"7: expected one source-tweets/<id>\.json, got 0",
    ),
    "no JSON": (lambda place: (place / "source-tweets" / "7.json").write_text("{"), r"7\.json: expected JSON"),
    "no text": (
        lambda place: (place / "source-tweets" / "7.json").write_text('{"id": 7}'),
        r"7\.json: expected a tweet with a `text`, got None",
    ),
}


@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_thread_is_named(breaking, message, thread, write):
    breaking(thread("ferguson-all-rnr-threads", "rumours", 7, "x"))
    with pytest.raises(ValueError, match=message):
        load_dataset("pheme", write.folder)


def test_an_empty_folder_says_what_was_expected(write):
    (write.folder / "pheme").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"to hold pheme/train\.parquet"):
        load_dataset("pheme", write.folder)
