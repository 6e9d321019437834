"""Texts: splits, ids, padding, what is counted where, and what broken files say."""

import logging

import numpy as np
import pytest
import torch

from dropattack.data import load_dataset
from dropattack.data.corpus import Corpus
from dropattack.data.options import TextOptions
from dropattack.data.text import text_dataset

SPLITS = ("train", "validation", "test")


def dataset_of(train, validation=("x",), test=("x",), **options):
    """A data set of texts without a file; the order of a split is the order given."""
    splits = {
        split: (list(texts), [index % 2 for index in range(len(texts))])
        for split, texts in zip(SPLITS, (train, validation, test), strict=True)
    }
    return text_dataset("imdb", "made here", Corpus.tokenized(splits), TextOptions.read("imdb", options))


def decoded(dataset, split):
    examples = dataset[split]
    return [" ".join(dataset.vocabulary.decode(row.tolist())) for row in examples.batch(slice(0, len(examples)))[0]]


def reviews(count, start=0):
    return [f"review {start + number} says word{(start + number) * 7} thing" for number in range(count)]


@pytest.fixture
def imdb(write):
    write.texts("imdb", "train", reviews(100))
    write.texts("imdb", "test", reviews(100, start=100))
    return write.folder


def test_ids_are_padded_on_the_right_with_zeros():
    dataset = dataset_of(["a b c", "b", "c b"])
    inputs, labels = dataset.train.batch(slice(0, 3))
    # b three times, c twice, a once: ids 2, 3, 4.
    assert inputs.tolist() == [[4, 2, 3], [2, 0, 0], [3, 2, 0]]
    assert labels.tolist() == [0, 1, 0]
    assert inputs.dtype == labels.dtype == torch.int64
    # The width is that of the longest text in the batch, in whatever order.
    assert dataset.train.batch(torch.tensor([2, 1]))[0].tolist() == [[3, 2], [2, 0]]
    assert dataset.train.batch(slice(0, 0))[0].shape == (0, 0)


def test_batches_are_in_order_and_an_epoch_has_every_text_once():
    dataset = dataset_of(reviews(50))
    batches = dataset.train.batches(20, limit=45)
    assert [len(labels) for _, labels in batches] == [20, 20, 5]
    assert torch.equal(batches[1][0][3], dataset.train.batch(slice(23, 24))[0][0])

    def epoch(seed):
        generator = torch.Generator().manual_seed(seed)
        return [tuple(row.tolist()) for inputs, _ in dataset.train.shuffled(8, generator) for row in inputs]

    assert epoch(0) == epoch(0) != epoch(1)
    assert sorted(epoch(0)) == sorted(epoch(1))
    assert len(set(epoch(0))) == 50


def test_a_word_only_in_validation_is_unknown():
    dataset = dataset_of(["good film", "bad film"], ["good novel"], ["bad play"])
    assert decoded(dataset, "validation") == ["good <unknown>"]
    assert dataset.description()["validation"]["unknown_tokens"] == 1
    leaking = dataset_of(["good film", "bad film"], ["good novel"], ["bad play"], vocabulary_from="all")
    assert decoded(leaking, "validation") == ["good novel"]
    assert leaking.description()["vocabulary"] == {"words": 5, "counted_in": "all"}


def test_words_of_training_examples_that_are_not_kept_are_unknown():
    dataset = dataset_of(["good", "bad"], ["good bad"], examples=1)
    assert decoded(dataset, "validation") == ["good <unknown>"]


def test_the_vocabulary_keeps_the_most_frequent_words():
    dataset = dataset_of(["c c c", "b b a a", "d"], vocabulary=2)
    assert dataset.vocabulary.words == ("c", "a")
    assert dataset.model_options == {"classes": 2, "vocabulary": 4, "vectors": None}


def test_long_texts_keep_their_beginning_after_stop_words():
    texts = ["the film was not a good film"]
    assert decoded(dataset_of(texts, max_length=3), "train") == ["the film was"]
    assert decoded(dataset_of(texts, max_length=3, stop_words=True), "train") == ["film not good"]
    assert decoded(dataset_of(texts, max_length=3, stop_words="all"), "train") == ["film good film"]
    assert decoded(dataset_of(texts, max_length=None), "train") == texts


def test_a_text_without_tokens_is_one_unknown_token_and_counted():
    dataset = dataset_of(["...", "fine", "", "!", "fine unknown"], ["?"], ["the"], stop_words=True)
    assert dataset.train.batch(slice(0, 5))[0].tolist() == [[1, 0], [2, 0], [1, 0], [1, 0], [2, 3]]
    assert [dataset.description()[split]["empty"] for split in SPLITS] == [3, 1, 1]


def test_slices_of_the_vectorized_encoding_agree_with_a_plain_loop():
    # Lengths 0 to 9 around max_length, empties at both ends and in a row.
    draws = np.random.default_rng(0)
    texts = ["", *(" ".join(draws.choice(list("abcdefgh"), size)) for size in draws.integers(0, 10, 60)), "", ""]
    dataset = dataset_of(texts, max_length=4, vocabulary=5, stop_words=True)  # "a" and "d" of "'d" are not the same
    for row, text in enumerate(texts):
        words = [word for word in text.split() if word != "a"][:4]
        expected = dataset.vocabulary.encode(words) or [1]
        assert dataset.train.batch(torch.tensor([row]))[0].tolist() == [expected]


def test_all_reviews_are_pooled_and_drawn_anew(imdb):
    dataset = load_dataset("imdb", imdb)
    # Table 1: 40,000 / 5,000 / 5,000 of 50,000.
    assert [len(dataset[split]) for split in SPLITS] == [160, 20, 20]
    found = [text for split in SPLITS for text in decoded(load_dataset("imdb", imdb, vocabulary_from="all"), split)]
    assert sorted(found) == sorted(reviews(200))
    assert found[:20] != sorted(found[:20])
    assert dataset.description() == load_dataset("imdb", imdb).description()
    assert str(imdb) not in str(dataset.description())


def test_the_split_does_not_depend_on_the_order_of_rows(imdb, write):
    first = load_dataset("imdb", imdb).description()
    write.texts("imdb", "train", reviews(100)[::-1], [(99 - index) % 2 for index in range(100)])
    assert load_dataset("imdb", imdb).description() == first


def test_copies_of_a_review_are_in_one_split(write):
    copies = [text for text in reviews(20) for _ in range(3)]
    write.texts("imdb", "train", copies)
    write.texts("imdb", "test", [text.upper() + " !" for text in reviews(60)])
    dataset = load_dataset("imdb", write.folder, vocabulary_from="all")
    splits = [set(decoded(dataset, split)) for split in SPLITS]
    assert not splits[0] & splits[1]
    assert not splits[0] & splits[2]
    assert not splits[1] & splits[2]
    about = dataset.description()
    assert [about[split]["examples"] for split in SPLITS] == [96, 12, 12]
    assert about["repeated_texts"] == 60  # twenty texts four times, forty once
    assert {kinds["exact"] for kinds in about["duplicates"].values()} == {0}


def test_smaller_samples_are_prefixes_of_larger_ones(imdb):
    small, large = (load_dataset("imdb", imdb, examples=count) for count in (10, 50))
    assert decoded(small, "train") == decoded(large, "train")[:10]
    assert decoded(load_dataset("imdb", imdb), "train")[:50] == decoded(large, "train")
    with pytest.raises(ValueError, match="examples: expected at most 160, the train split of imdb, got 161"):
        load_dataset("imdb", imdb, examples=161)


def test_a_partial_training_file_gives_a_fifth_for_validation(write):
    write.texts("ag_news", "train", reviews(100), [index % 4 for index in range(100)])
    write.texts("ag_news", "test", reviews(12, start=100), [index % 4 for index in range(12)])
    dataset = load_dataset("ag-news", write.folder)
    assert [len(dataset[split]) for split in SPLITS] == [80, 20, 12]
    assert dataset.model_options["classes"] == 4


def test_given_splits_are_kept(write):
    for part, start in (("train", 0), ("validation", 10), ("test", 20)):
        write.texts("pheme", part, reviews(10, start))
    dataset = load_dataset("pheme", write.folder, vocabulary_from="all")
    for split, start in zip(SPLITS, (0, 10, 20), strict=True):
        assert sorted(decoded(dataset, split)) == sorted(reviews(10, start))


def test_duplicates_are_counted_in_what_is_kept(write):
    write.texts("pheme", "train", ["Police confirm siege has ended http://t.co/a", "another tweet entirely here"])
    write.texts("pheme", "validation", ["police CONFIRM siege has ended! http://t.co/b", "something new in here"])
    write.texts("pheme", "test", ["Another tweet: entirely here"])
    about = load_dataset("pheme", write.folder).description()
    assert about["duplicates"] == {
        "train/validation": {"exact": 0, "near": 1},
        "train/test": {"exact": 1, "near": 1},
        "validation/test": {"exact": 0, "near": 0},
    }
    first = load_dataset("pheme", write.folder, examples=1)
    is_siege = decoded(first, "train")[0].startswith("police")
    found = first.description()["duplicates"]
    assert (found["train/validation"]["near"], found["train/test"]["near"]) == (int(is_siege), int(not is_siege))


BROKEN = {
    "no text column": (lambda w: w.table("imdb", "test", review=["a"], label=[0]), "expected a column 'text', got rev"),
    "no label column": (lambda w: w.table("imdb", "test", text=["a"]), "expected a column 'label', got text"),
    "a null text": (lambda w: w.texts("imdb", "test", ["a", None]), r"test\.parquet, row 1: expected a text, got null"),
    "a number for a text": (lambda w: w.texts("imdb", "test", [1, 2]), r"row 0: expected a text, got 1"),
    "a label outside the classes": (
        lambda w: w.texts("imdb", "test", ["a", "b", "c"], [0, 1, 2]),
        r"test\.parquet, row 2: expected a label from 0 to 1, got 2",
    ),
    "a label of another type": (
        lambda w: w.texts("imdb", "test", ["a"], ["positive"]),
        r"test\.parquet, row 0: expected a label from 0 to 1, got 'positive'",
    ),
    "a truncated file": (
        lambda w: (w.folder / "imdb" / "test.parquet").write_bytes(b"PAR1"),
        r"test\.parquet: expected a Parquet file",
    ),
}


@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_name_the_file_and_the_row(breaking, message, imdb, write):
    breaking(write)
    with pytest.raises(ValueError, match=message):
        load_dataset("imdb", imdb)


WRONG = {
    "unknown": ({"max_lenght": 3}, "unknown data option 'max_lenght'; imdb has max_length"),
    "max_length": ({"max_length": 0}, "max_length: expected a whole number of at least 1, got 0"),
    "vocabulary": ({"vocabulary": 1.5}, "vocabulary: expected a whole number of at least 1, got 1.5"),
    "examples": ({"examples": True}, "examples: expected a whole number of at least 1, got True"),
    "stop_words": ({"stop_words": "some"}, "stop_words: expected true, false or \"all\", got 'some'"),
    "vocabulary_from": ({"vocabulary_from": "test"}, "vocabulary_from: expected train or all, got 'test'"),
    "cache": ({"cache": "no"}, "cache: expected true or false, got 'no'"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_refused_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("imdb", "/no/such/folder", **options)


def test_the_hub_is_asked_when_no_folder_is_given(imdb, monkeypatch):
    monkeypatch.delenv("DROPATTACK_DATA", raising=False)
    import datasets

    real, asked = datasets.load_dataset, []

    def from_files(name, split):
        asked.append((name, split))
        return real("parquet", data_files=str(imdb / "imdb" / f"{split}.parquet"), split="train")

    monkeypatch.setenv("HF_DATASETS_CACHE", str(imdb / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", from_files)
    found, local = load_dataset("imdb"), load_dataset("imdb", imdb)
    assert asked == [("stanfordnlp/imdb", "train"), ("stanfordnlp/imdb", "test")]
    assert found.source == "Hugging Face hub (stanfordnlp/imdb)"
    assert found.description() | {"source": ""} == local.description() | {"source": ""}


def test_pheme_is_not_on_the_hub(monkeypatch):
    monkeypatch.delenv("DROPATTACK_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"pheme is not on the Hugging Face hub .* pheme/train\.parquet, or the"
    ):
        load_dataset("pheme")


def test_options_share_one_cache_file_and_change_nothing_in_it(imdb, cache, monkeypatch):
    options = {"examples": 20, "max_length": 3, "stop_words": True}
    first = load_dataset("imdb", imdb), load_dataset("imdb", imdb, **options)
    (file,) = cache.iterdir()
    before = file.read_bytes()
    monkeypatch.setattr(Corpus, "tokenized", lambda *_: pytest.fail("tokenized again"))
    again = load_dataset("imdb", imdb), load_dataset("imdb", imdb, **options)
    for one, other in zip(first, again, strict=True):
        assert one.description() == other.description()
        for split in SPLITS:
            assert torch.equal(one[split].tokens, other[split].tokens)
    assert file.read_bytes() == before


def test_other_contents_are_another_cache_file(imdb, cache, write):
    first = load_dataset("imdb", imdb).description()
    write.texts("imdb", "test", reviews(100, start=200))
    assert load_dataset("imdb", imdb).description() != first
    assert len(list(cache.iterdir())) == 2


def test_a_broken_cache_file_is_made_anew(imdb, cache, caplog):
    first = load_dataset("imdb", imdb)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for broken in (b"", b"no archive", whole[:-50], bytes(flipped)):
        file.write_bytes(broken)
        with caplog.at_level(logging.WARNING):
            again = load_dataset("imdb", imdb)
        assert "the cache file is broken" in caplog.text
        caplog.clear()
        assert torch.equal(again.train.tokens, first.train.tokens)
        assert file.read_bytes() == whole


def test_without_a_cache_nothing_is_written(imdb, cache):
    load_dataset("imdb", imdb, cache=False)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_costs_only_time(imdb, cache, caplog):
    cache.write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        assert len(load_dataset("imdb", imdb).train) == 160
    assert "cannot be written" in caplog.text
