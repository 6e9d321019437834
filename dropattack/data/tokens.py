"""From a text to its tokens."""

from __future__ import annotations

import html
import re
from typing import Literal

__all__ = ["LINK", "NEGATIONS", "STOP_WORDS", "USER", "stop_list", "tokenize"]

# What takes the place of each link and of each name of a user; `<` and `>` occur in no other token.
LINK, USER = "<url>", "<user>"

# Frequent words that say little about what a text is about: articles, pronouns, auxiliaries, prepositions, and the
# contractions that :func:`tokenize` splits off. No negation is among them.
_STOP_WORDS = """
a an the this that these those i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs themselves who whom whose which
what there here am is are was were be been being have has had having do does did doing will would shall should
can could may might must 's 'm 're 've 'd 'll and or if as than then so because while of at by for with about
between into through during before after to from up down in out on off over under again once when where why
how all any both each few more most other some such own same just also
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
# What the authors' stop words take out too, and with it the difference between "good" and "not good". The stems are
# those of "can't" and "won't".
NEGATIONS = frozenset({"no", "not", "nor", "n't", "ca", "wo"})

_TAG = re.compile(r"</?[a-z][^<>]*>")
_LINK = re.compile(r"\b(?:https?://|www\.)\S+")
_USER = re.compile(r"(?<![\w.])@\w+")
# AG News lost the `&` of its character references, and has a space before them.
_REFERENCE = re.compile(r"\s?&?#(\d{2,4});")
_TOKEN = re.compile(r"<url>|<user>|n't|'(?:s|m|d|re|ve|ll)(?![^\W_])|\d+(?:[.,]\d+)+|[^\W_]+")


def tokenize(text: str) -> list[str]:
    """Lower-case words, numbers and contractions; punctuation and markup are dropped.

    Contractions are split as in the vocabulary of GloVe. A link becomes ``<url>`` and the name of a user ``<user>``:
    that there is one may matter, which one does not generalize. A hashtag is a word.

    Example:
        >>> tokenize("I can't say it's GOOD:<br />7.5/10, see http://t.co/x by @me #fail")
        ['i', 'ca', "n't", 'say', 'it', "'s", 'good', '7.5', '10', 'see', '<url>', 'by', '<user>', 'fail']
    """
    text = text.lower()
    if "#" in text and ";" in text:
        text = _REFERENCE.sub(lambda found: chr(int(found[1])), text)
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "://" in text or "www." in text:
        text = _LINK.sub(f" {LINK} ", text)
    if "@" in text:
        text = _USER.sub(f" {USER} ", text)
    if "’" in text:
        text = text.replace("’", "'")
    if "n't" in text:
        text = text.replace("n't", " n't")
    return _TOKEN.findall(text)


def stop_list(choice: bool | Literal["all"] | str) -> frozenset[str]:
    """The words that ``stop_words=choice`` takes out."""
    if choice == "all":
        return STOP_WORDS | NEGATIONS
    return STOP_WORDS if choice else frozenset()
