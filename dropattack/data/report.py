"""What a data folder holds, beside what the paper says, and whether all of it can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dropattack.data.catalog import CATALOG
from dropattack.data.corpora import labelled
from dropattack.data.dataset import SPLITS, Dataset
from dropattack.data.images import decoded
from dropattack.data.parquet import open_part
from dropattack.data.pheme import is_raw_release, raw_threads

__all__ = ["KNOWN", "available", "checksums", "described", "listed", "problems", "sizes", "verdict"]

# SHA-256 of training, validation and test split (texts or pixels, and labels) of the copies that results in this
# repository were made with. Another copy is not a wrong one: the hub's CIFAR-10 is lossless and this one is JPEG, which
# another version of libjpeg may decode to slightly different pixels; this AG News has half of the training file.
KNOWN: dict[str, tuple[str, str, str]] = {
    "imdb": (
        "2f77db53b2ddf237e49cbf66fc28da08e5254e5ae0f6f53ba41d9b200ef31658",
        "62702c86a721d7bba95874d53dbda273d74fc036ea0baaf65acb48ec002fc754",
        "f9bcc2f9312ad8a693bfbd70501a624589c3d42087494d48b8447c3e76f538dd",
    ),
    "pheme": (
        "ddf9478e3c19e9c10fd56a03623123f8c343d86a9e1f79ca58706f7a5fe10906",
        "751839c9004dc86563657f5e7949432d427fabb0c42ebdd7a9e2b366f2e73cdb",
        "f7977461deddfc953712f63bb1ec80674a135bb23ae20961a8287bbabdc0a766",
    ),
    "ag-news": (
        "c33ac294e676f8075ecbd6337c71c85bc59cfcdd4f9dd67d42d704406fca0899",
        "92b1b52b2113cb2e84ec6180a2d439140046c4c401a9e08385e6f2ed5f95c0b5",
        "1e5f59a4d4bd611e0ae69759f74bf48a4fc51f2a5847bce2832715d5eb80a46d",
    ),
    "mnist-5k": (
        "e1bea4869c6fbe85d15b0383bdd4e80703b86fe0b6309d2b0bdac2b86cb2b0c0",
        "68af409b5bb0b3e545b4a813b13603fc71731ae517abd44df79ca45a88f6f00d",
        "8a081fa69403fcd421c30f17b6a6fd6916c49912777cbd8b3a6c3d5f700580b6",
    ),
    "mnist": (
        "7bad9597d21a299479a62de4de95a3efe1d300ffc07a22362342f192e6426728",
        "ceff95dd51884d0e18419259106635070c1f8fb787fb17edf69eead55d3a77dd",
        "73b169a627978f9e60ab1cb76980da44b08d0a96989b2257b0e34fb654a3d134",
    ),
    "cifar10": (
        "9b09e30226e60fea55a645aa83835680482081609f2bcf99dad70427d4626ba9",
        "009d10233be6d3c3e695152df25311f0da596ea148e9ba441a91916a791605be",
        "df46a4e32f38fc78bd6059356757ce21bf87ba67ff805b9b5942af873b6dbd44",
    ),
}


def listed() -> pd.DataFrame:
    """All data sets, with the sizes of Table 1 of the paper."""
    rows = []
    for name, entry in CATALOG.items():
        paper = [f"{count:,}" for count in entry.paper] if entry.paper else ["-"] * 3
        where = f"{entry.folder}/, {entry.hub or 'not on the hub'}" if entry.folder else "installed"
        rows.append([name, entry.task, len(entry.classes), *paper, where])
    return pd.DataFrame(rows, columns=["name", "task", "classes", *SPLITS, "from"])


def available(data_dir: Path | None) -> list[str]:
    """The data sets that can be read without a network."""
    return [
        name
        for name, entry in CATALOG.items()
        if not entry.folder or (data_dir is not None and (data_dir / entry.folder).is_dir())
    ]


def checksums(dataset: Dataset) -> dict[str, str]:
    """For each split the SHA-256 of what the data set holds before any option is applied to it."""
    about = dataset.description()
    found: dict[str, str] = about.get("sha256_of_all_texts", {split: about[split]["sha256"] for split in SPLITS})
    return found


def sizes(dataset: Dataset) -> pd.DataFrame:
    """A row for each split: examples found and in the paper's Table 1, balance of labels, empty texts, checksum."""
    paper = CATALOG[dataset.name].paper or (None,) * 3
    about, sums = dataset.description(), checksums(dataset)
    rows = []
    for split, printed in zip(SPLITS, paper, strict=True):
        found = about[split]["examples"]
        shares = [f"{count / found:.1%}" for count in about[split]["labels"]]
        balance = (
            " / ".join(shares) if len(shares) <= 4 else f"{min(shares, key=_number)} to {max(shares, key=_number)}"
        )
        rows.append(
            {
                "split": split,
                "found": f"{found:,}",
                "paper": "-" if printed is None else f"{printed:,}",
                "difference": _difference(found, printed),
                "labels": balance,
                "empty": about[split].get("empty", "-"),
                "sha256": sums[split][:12],
            }
        )
    return pd.DataFrame(rows)


def described(dataset: Dataset) -> Iterator[str]:
    """Lines of text about a data set: :func:`sizes`, and whatever else was found while reading."""
    entry, about = CATALOG[dataset.name], dataset.description()
    yield f"{dataset.name}: {entry.task}, {len(entry.classes)} classes ({', '.join(entry.classes)}); {dataset.source}"
    yield from (f"  {line}" for line in sizes(dataset).to_string(index=False).splitlines())
    for pair, kinds in about["duplicates"].items():
        one, other = pair.split("/")
        counts = " and ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        yield f"  duplicates: {counts} of {other} in {one}"
    if "repeated_texts" in about:
        yield f"  repeated texts: {about['repeated_texts']:,} texts are copies of another one"
    if "vocabulary" in about:
        unknown = " / ".join(f"{about[split]['unknown_tokens'] / about[split]['tokens']:.1%}" for split in SPLITS)
        yield (
            f"  vocabulary: {about['vocabulary']['words']:,} words, counted in {about['vocabulary']['counted_in']}; "
            f"unknown tokens {unknown} of {' / '.join(SPLITS)}"
        )
    if "vectors" in about:
        vectors = about["vectors"]
        yield (
            f"  vectors: {vectors['file']} ({vectors['dimensions']} dimensions) covers "
            f"{vectors['coverage_of_words']:.1%} of the vocabulary and "
            f"{vectors['coverage_of_training_tokens']:.1%} of the training tokens"
        )
    if entry.note:
        yield f"  note: {entry.note}"


def problems(name: str, data_dir: Path | None) -> list[str]:
    """One line for every file that cannot be read and every broken row, with file and row; empty if all is well."""
    entry, found = CATALOG[name], list[str]()
    folder = None if data_dir is None else data_dir / entry.folder
    if name == "pheme" and folder is not None and not (folder / "train.parquet").is_file() and is_raw_release(folder):
        raw_threads(folder, found.append)
        return found
    for place in entry.parts:
        try:
            part = open_part(entry, place, data_dir)
            if entry.shape is None:
                labelled(name, part, found.append)
            else:
                decoded(entry, part, found.append)
        except (ValueError, OSError) as error:
            found.append(str(error))
    return found


def verdict(dataset: Dataset) -> str:
    """Whether the splits are those of the copy that results were made with."""
    sums = tuple(checksums(dataset).values())
    counts: Sequence[Any] = [f"{len(dataset[split]):,}" for split in SPLITS]
    same = "the copy that results here were made with" if sums == KNOWN[dataset.name] else "another copy than the known"
    return f"{dataset.name}: {' / '.join(counts)} examples readable; {same}"


def _difference(found: int, printed: int | None) -> str:
    if printed is None:
        return "not in the paper"
    if found == printed:
        return "none"
    return f"{abs(found - printed):,} {'more' if found > printed else 'fewer'}"


def _number(share: str) -> float:
    return float(share.rstrip("%"))
