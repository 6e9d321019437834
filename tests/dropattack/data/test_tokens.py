"""What becomes a token, and which words have an id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropattack.data.tokens import NEGATIONS, STOP_WORDS, stop_list, tokenize
from dropattack.data.vocabulary import Vocabulary

TOKENS = {
    "words in lower case": ("A Great Film", "a great film"),
    "punctuation": ('"Great" - film...(1994)!', "great film 1994"),
    "breaks and tags": ("one<br /><br />two <i>three</i>four <3", "one two three four 3"),
    "negations": ("don't can't isn't DIDN’T not", "do n't ca n't is n't did n't not"),
    "contractions": ("it's he'd we'll I'm you've they're John's", "it 's he 'd we 'll i 'm you 've they 're john 's"),
    "quotes are no contractions": ("'so' 'll' 'dark'", "so 'll dark"),
    "numbers": ("7/10 3.14 1,000 1980s mp3 10.", "7 10 3.14 1,000 1980s mp3 10"),
    "hyphens and underscores": ("well-made snake_case", "well made snake case"),
    "accents": ("Café naïve", "café naïve"),
    "links": ("see http://t.co/aB3, https://x.org/?a=1 www.imdb.com", "see <url> <url> <url>"),
    "users and hashtags": ("RT @BBC_news: #Ferguson me@home.org", "rt <user> ferguson me home org"),
    "lost references": ("the UK #39;s &lt;b&gt;firm&lt;/b&gt; AT&amp;T", "the uk 's firm at t"),
    "line breaks of a news wire": (r"opening\gains", "opening gains"),
    "nothing": ("?! ...", ""),
}


@pytest.mark.parametrize(("text", "tokens"), TOKENS.values(), ids=TOKENS)
def test_tokens(text, tokens):
    assert " ".join(tokenize(text)) == tokens


@given(st.text())
def test_any_text_has_tokens_without_spaces_or_capitals(text):
    for token in tokenize(text):
        assert token
        assert not any(character.isspace() for character in token)
        # A few letters, such as the Turkish dotted I, have no single lower-case letter.
        assert token == token.lower() or not token.isascii()


def test_stop_words_hold_no_negation_unless_asked():
    assert stop_list(False) == frozenset()
    assert stop_list(True) == STOP_WORDS
    assert not STOP_WORDS & NEGATIONS
    assert {"not", "no", "nor", "n't"} <= stop_list("all")
    for word in STOP_WORDS:
        assert tokenize(word) == [word]  # otherwise it would never be met


def test_frequent_words_come_first_and_ties_are_alphabetical():
    vocabulary = Vocabulary.from_counts({"d": 1, "b": 3, "a": 3, "c": 9, "never": 0}, size=3)
    assert vocabulary.encode(["c", "a", "b", "d", "zebra"]) == [2, 3, 4, 1, 1]
    assert vocabulary.decode([2, 3, 1, 0, 0]) == ["c", "a", "<unknown>"]
    assert len(vocabulary) == 5


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 5)))
def test_a_smaller_vocabulary_is_a_prefix(counts):
    whole = Vocabulary.from_counts(counts).words
    assert all(counts[word] > 0 for word in whole)
    for size in range(1, len(whole) + 1):
        assert Vocabulary.from_counts(counts, size).words == whole[:size]
