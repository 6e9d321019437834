"""Word vectors: both formats, what is drawn for words that lack one, and broken files."""

import logging

import numpy as np
import pytest
import torch

from dropattack.data import load_dataset
from dropattack.data.vectors import Vectors, read_vectors
from dropattack.data.vocabulary import Vocabulary

WORDS = Vocabulary(("film", "good", "zyx"))
TEXT = "the 0.5 0 0\ngood 1 2 -3e-1\nnew york 9 9 9\nfilm -1 0.25 4\n"


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(TEXT)
    return path


def test_text_and_npz_hold_the_same(glove, tmp_path):
    np.savez(
        tmp_path / "vectors.npz",
        words=np.array(["the", "good", "film"]),
        vectors=np.array([[0.5, 0, 0], [1, 2, -0.3], [-1, 0.25, 4]], dtype=np.float16),
    )
    text, packed = read_vectors(glove, WORDS.ids), read_vectors(tmp_path / "vectors.npz", WORDS.ids)
    assert sorted(text) == sorted(packed) == ["film", "good"]
    for word in text:
        assert text[word].dtype == packed[word].dtype == np.float32
        assert np.allclose(text[word], packed[word], atol=1e-3)  # float16 has eleven bits


def test_a_first_line_with_counts_is_passed_over(glove):
    glove.write_text("4 3\n" + TEXT)
    assert read_vectors(glove, WORDS.ids)["good"].tolist() == pytest.approx([1, 2, -0.3])


def test_words_with_spaces_are_words(glove):
    assert read_vectors(glove, {"new york": 2})["new york"].tolist() == [9, 9, 9]


def test_found_rows_are_the_files_padding_is_zero_and_the_rest_is_drawn(glove):
    vectors = Vectors.of(WORDS, glove)
    assert vectors.values.dtype == torch.float32
    assert vectors.values.shape == (5, 3)
    assert vectors.values[0].tolist() == [0, 0, 0]
    assert vectors.values[2].tolist() == [-1, 0.25, 4]
    assert vectors.found.tolist() == [False, False, True, True, False]
    assert torch.equal(vectors.values, Vectors.of(WORDS, glove).values)
    assert not torch.equal(vectors.values[1], vectors.values[4])


def test_drawn_vectors_have_the_standard_deviation_of_those_found(glove):
    many = Vocabulary(("good", "film", *(f"absent{number}" for number in range(20_000))))
    values = Vectors.of(many, glove).values
    expected = np.std([1, 2, -0.3, -1, 0.25, 4])
    # 60,000 normal draws: the standard deviation is known to 0.3 per cent (one standard error), the mean to 0.007.
    assert values[4:].std().item() == pytest.approx(expected, rel=0.015)
    assert values[4:].mean().item() == pytest.approx(0, abs=0.035)


def texts(write):
    write.texts("imdb", "train", [f"good film number{index}" for index in range(10)])
    write.texts("imdb", "test", [f"film zyx item{index}" for index in range(10)])


def test_coverage_is_told_and_described(write, glove, caplog):
    texts(write)
    with caplog.at_level(logging.INFO):
        dataset = load_dataset("imdb", write.folder, vectors=glove, vocabulary=3, max_length=2)
    about = dataset.description()["vectors"]
    # Kept are film, good and zyx, of which the file has two; zyx is in place two of half of the texts.
    zyx = int((dataset.train.tokens == dataset.vocabulary.ids["zyx"]).sum())
    assert about["coverage_of_words"] == round(2 / 3, 4)
    assert about["coverage_of_training_tokens"] == round(1 - zyx / len(dataset.train.tokens), 4)
    assert about["file"] == "vectors.txt"
    assert "vectors.txt has vectors for 66.7% of the vocabulary and" in caplog.text
    assert str(write.folder.parent) not in str(dataset.description())
    assert dataset.model_options["vectors"].shape == (5, 3)


def test_low_coverage_is_a_warning(write, glove):
    texts(write)
    glove.write_text("film 1 2\n")
    with pytest.warns(
        UserWarning, match=r"vectors\.txt has vectors for .* of the training tokens; the others are drawn"
    ):
        load_dataset("imdb", write.folder, vectors=str(glove))


def test_a_relative_name_is_looked_for_in_the_data_folder(write, glove):
    texts(write)
    (write.folder / "glove").mkdir()
    glove.rename(write.folder / "glove" / "small.txt")
    assert (
        load_dataset("imdb", write.folder, vectors="glove/small.txt", vocabulary=3).model_options["vectors"] is not None
    )
    with pytest.raises(FileNotFoundError, match=r"vectors: no file .*glove/large\.txt or glove/large\.txt"):
        load_dataset("imdb", write.folder, vectors="glove/large.txt")


BROKEN = {
    "too few numbers": ("a 1 2 3\ngood 1 2\n", r"line 2: expected a word and 3 finite numbers, got 3 fields"),
    "too many numbers": ("a 1 2 3\nthe 1 2 3 4\n", r"line 2: expected a word and 3 finite numbers, got 5 fields"),
    "no number": ("a 1 2 3\ngood 1 x 3\n", r"line 2: expected .* that begin with 'good 1'"),
    "not finite": ("a 1 2 3\ngood 1 nan 3\n", r"line 2: expected a word and 3 finite numbers"),
    "an empty line": ("a 1 2 3\n\n", r"line 2: expected a word and 3 finite numbers, got 1 fields"),
    "a word alone": ("a\n", r"line 1: expected a word and its finite numbers"),
    "none of the words": ("a 1 2\nb 1 2\n", r"none of the 3 words of the vocabulary has a vector there"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_text_names_file_and_line(text, message, glove):
    glove.write_text(text)
    with pytest.raises(ValueError, match=r"vectors\.txt.*" + message):
        Vectors.of(WORDS, glove)


def test_bytes_that_are_no_text(glove):
    glove.write_bytes(b"\xff\xfe\x00good 1 2")
    with pytest.raises(ValueError, match=r"vectors\.txt: expected text in UTF-8 or an \.npz file"):
        read_vectors(glove, WORDS.ids)


BROKEN_ARRAYS = {
    "no words": ({"vectors": np.zeros((2, 3))}, "expected arrays `words` and `vectors`"),
    "other lengths": ({"words": np.array(["a"]), "vectors": np.zeros((2, 3))}, r"got \(1,\) and \(2, 3\)"),
    "not finite": ({"words": np.array(["good"]), "vectors": np.full((1, 2), np.inf)}, "row 0: expected finite numbers"),
}


@pytest.mark.parametrize(("arrays", "message"), BROKEN_ARRAYS.values(), ids=BROKEN_ARRAYS)
def test_broken_arrays(arrays, message, tmp_path):
    np.savez(tmp_path / "broken.npz", **arrays)
    with pytest.raises(ValueError, match=r"broken\.npz.*" + message):
        read_vectors(tmp_path / "broken.npz", WORDS.ids)


def test_pickled_words_are_refused(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.array(["good"], dtype=object), vectors=np.zeros((1, 2)), allow_pickle=True)
    with pytest.raises(ValueError, match=r"v\.npz: expected arrays .*allow_pickle=False"):
        read_vectors(tmp_path / "v.npz", WORDS.ids)
