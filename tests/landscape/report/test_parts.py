"""What a page says of each part, read with the parser of the standard library."""

import base64
import gzip
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure
from PIL import Image

import landscape.report
from landscape.report import (
    Badge,
    Cell,
    Code,
    Column,
    Facts,
    Interactive,
    Link,
    Picture,
    Section,
    Table,
    TooLargeError,
    render,
    write_report,
)
from landscape.report.cells import shown_cell, shown_number

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">\'&amp;'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"></svg>'


def png(width=6, height=3, color=(200, 30, 60)):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), color).save(buffer, format="PNG")
    return buffer.getvalue()


class Page(HTMLParser):
    """Tags with their attributes, texts outside of scripts, and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.scripts, self._inside = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, _tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.texts.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]

    def keys(self):
        """What rows are sorted by, where it is not the text."""
        return [attrs.get("data-sort") for tag, attrs in self.tags if tag == "td" or attrs.get("scope") == "row"]


def figure():
    made = go.Figure(go.Scatter(x=[0, 1], y=[1, 0], name="line"))
    made.update_layout(meta={"description": "a line that falls"})
    return made


def page_of(*parts, **options):
    return Page(render("A title", [Section("One", list(parts))], **options))


def test_hostile_text_stays_text_everywhere():
    frame = pd.DataFrame({HOSTILE: [HOSTILE, "b"], "verdict": [Badge(HOSTILE, "for"), Link(HOSTILE, "there")],
                          "cell": [Cell(HOSTILE, 1.0), None]})  # fmt: skip
    parts = [
        HOSTILE,
        Table(frame, HOSTILE),
        Table(frame, HOSTILE, [Column(HOSTILE, HOSTILE, HOSTILE)], folded=True),
        Picture(SVG, HOSTILE, HOSTILE),
        Interactive(figure(), HOSTILE, HOSTILE, Picture(png(), HOSTILE)),
        Facts({HOSTILE: [HOSTILE, Badge(HOSTILE, "open")]}),
        Code(HOSTILE, HOSTILE),
        Code(HOSTILE, HOSTILE, folded=True),
        Section(HOSTILE, [HOSTILE], "there"),
    ]
    page = Page(render(HOSTILE, [Section(HOSTILE, parts)], lead=HOSTILE, made_with={HOSTILE: HOSTILE}))
    # One script of ours; the figure, plotly.js and the cameras are packed.
    kinds = [attrs.get("type") for attrs in page.all("script")]
    assert kinds == ["text/plain", "text/plain", "text/plain", None]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert all(attrs["src"].startswith("data:image/") for attrs in page.all("img"))
    assert len(page.all("img")) == 2
    # It is there, and as it was written: title (2), lead, heading and contents (2 of each section), paragraphs …
    assert sum(text.count(HOSTILE) for text in page.texts) >= 25
    assert {attrs["alt"] for attrs in page.all("img")} == {HOSTILE}


def test_nothing_points_outside():
    page = page_of(Picture(png(), "a square"), Interactive(figure()), Table(pd.DataFrame({"a": [1]}), "a table"))
    policy = next(attrs for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; ")
    assert "http" not in policy["content"]
    assert "connect-src" not in policy["content"]  # so that default-src holds for it
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("href", "src", "action")]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)


NUMBERS = {
    "digits": (0.123456, ".4g", "0.1235"),
    "a real minus": (-3.0, ".4g", "−3"),
    "powers of ten": (5.25e-7, ".3g", "5.25 × 10⁻⁷"),
    "large": (-1.5e12, ".2g", "−1.5 × 10¹²"),
    "sign": (0.5, "+.2f", "+0.50"),
    "infinite": (-math.inf, ".4g", "−∞"),
    "missing": (math.nan, ".4g", "–"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers(case):
    value, spec, text = NUMBERS[case]
    assert shown_number(value, spec) == text


CELLS = {
    "float": (math.pi, "3.142", "3.141593"),
    "whole": (np.int64(-12000), "−12000", "-12000"),
    "yes": (True, "yes", "yes"),
    "no": (np.bool_(False), "no", "no"),
    "NaN": (math.nan, "–", ""),
    "None": (None, "–", ""),
    "NA": (pd.NA, "–", ""),
    "NaT": (pd.NaT, "–", ""),
    "infinite": (math.inf, "∞", "Infinity"),
    "text": ("a-b", "a-b", "a-b"),
    "cell": (Cell("1 ± 2", 1.0), "1 ± 2", "1"),
    "cell without a number": (Cell("none", math.nan), "none", ""),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells(case):
    value, text, sort = CELLS[case]
    shown = shown_cell(value)
    assert (shown.text, shown.sort) == (text, sort)


def test_a_column_is_numeric_where_all_that_is_not_missing_is():
    frame = pd.DataFrame({"name": ["a", "b"], "some": [1.5, None], "mixed": [1, "x"], "none": [None, None]})
    page = page_of(
        Table(frame, "mine", [Column("name"), Column("some", "Loss", "nats"), *map(Column, ["mixed", "none"])])
    )
    heads = [attrs.get("class") for attrs in page.all("th") if attrs.get("scope") == "col"]
    assert heads == [None, "number", None, None]
    sentence = Table(pd.DataFrame({"a": ["word " * 20], "b": [Cell("word " * 20, 1.0)]}), "long ones")
    assert page_of(sentence).all("table")[0]["class"] == "sortable long-1 number-2"
    assert [attrs.get("class") for attrs in page_of(sentence).all("th")] == ["long", "number", None]
    text = render("T", [Section("S", [Section("inner", [sentence])])])
    assert ".number-2 > tbody > tr > :nth-child(2) { text-align: right;" in text
    assert ".number-3 " not in text  # no table has as many columns
    assert page.keys() == [None, None, None, "", None, "", None, ""]
    assert "(nats)" in page.texts
    assert page.texts.count("no value") == 3  # what a dash means, for those who hear the page
    assert next(attrs for attrs in page.all("div") if attrs.get("role") == "region")["tabindex"] == "0"


def test_an_empty_table_and_a_wrong_column():
    assert page_of(Table(pd.DataFrame({"a": []}), "nothing")).keys() == []
    with pytest.raises(ValueError, match="table 'mine': no column 'b'; the frame has a, c"):
        page_of(Table(pd.DataFrame({"a": [1], "c": [2]}), "mine", [Column("b")]))


def test_folded_parts_say_what_they_hold():
    page = page_of(Table(pd.DataFrame({"a": [1, 2]}), "Numbers", folded=True), Code("x = 1", "Settings", folded=True))
    assert [text.strip() for text in page.texts if "Numbers" in text or "Settings" in text] == [
        "Numbers (2 rows)",
        "Settings",
    ]


def test_contents_list_sections_and_those_in_them():
    inner = Section("Same", ["text"])
    text = render("T", [Section("Same", [inner, Section("Same", [], "mine")]), Section("Same", [])])
    page = Page(text)
    targets = [attrs["href"][1:] for attrs in page.all("a") if "class" not in attrs]
    assert targets == ["s-same", "s-same-2", "mine", "s-same-3"]
    short = Page(render("T", [Section("S", [Section("A long title", [], short="A1")])]))
    assert short.texts.count("A1") == 1
    assert short.texts.count("A long title") == 1  # the heading
    headings = [attrs["id"] for tag, attrs in page.tags if re.fullmatch("h[23]", tag)]
    assert headings == targets
    assert len(set(re.findall(r'\bid="([^"]+)"', text))) == len(re.findall(r'\bid="', text))


def test_anchors_that_do_not_hold():
    with pytest.raises(ValueError, match="anchor: expected a letter, then letters, digits, - or _, got 'a b'"):
        render("T", [Section("S", [], "a b")])
    with pytest.raises(ValueError, match="anchor 'a': expected one section with it, got 2"):
        render("T", [Section("S", [Section("I", [], "a")], "a")])
    with pytest.raises(ValueError, match="link 'there': no section has the anchor 'nowhere'"):
        render("T", [Section("S", [Facts({"see": Link("there", "nowhere")})], "a")])
    with pytest.raises(ValueError, match="link 'there': no section has the anchor 'nowhere'"):
        render("T", [Section("S", [Table(pd.DataFrame({"x": [Link("there", "nowhere")]}), "t")], "a")])


def test_pictures_are_kept_and_small():
    assert Page(render("T", [Section("S", [Picture(SVG, "a dot")])])).all("img")[0]["src"].encode() == (
        b"data:image/svg+xml;base64," + base64.b64encode(SVG)
    )
    source = page_of(Picture(png(2400, 1200), "a red field")).all("img")[0]["src"]
    image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,"))))
    assert image.size == (1800, 900)  # no wider than a screen shows
    assert np.allclose(np.asarray(image)[450, 900], (200, 30, 60), atol=8)
    drawn = Figure(figsize=(2, 1))
    source = page_of(Picture(drawn, "an empty figure")).all("img")[0]["src"]
    assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size == (300, 150)  # 150 dots an inch


def test_a_transparent_picture_stands_on_white():
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(buffer, format="PNG")
    source = page_of(Picture(buffer.getvalue(), "nothing")).all("img")[0]["src"]
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert np.asarray(image).min() >= 250


def test_pictures_that_are_none():
    with pytest.raises(ValueError, match="alt: expected words that say what the picture shows, got none"):
        Picture(png(), " ")
    with pytest.raises(ValueError, match="picture 'mine': expected bytes of a PNG or SVG file, got b'GIF89a"):
        page_of(Picture(b"GIF89a..", "mine"))
    with pytest.raises(ValueError, match=r"picture 'mine': the PNG is broken .*; write it anew"):
        page_of(Picture(png(600, 600)[:200], "mine"))


def test_a_figure_is_packed_whole_and_said_in_words():
    page = page_of(Interactive(figure(), caption="Figure", still=Picture(png(), "a square")))
    packed = [json.loads(gzip.decompress(base64.b64decode(text))) for text in page.scripts[:1]]
    assert packed[0]["data"][0]["name"] == "line"
    assert packed[0]["layout"]["meta"]["description"] == "a line that falls"
    assert "a line that falls" in page.texts
    assert b"Plotly" in gzip.decompress(base64.b64decode(page.scripts[1]))
    with pytest.raises(ValueError, match="description: expected words for those who cannot see the figure, got none"):
        page_of(Interactive(go.Figure()))


def test_figures_share_their_arrays():
    def surface(height):
        return go.Figure(go.Surface(z=np.outer(np.arange(40.0), height)), {"meta": {"description": "a plane"}})

    def arrays(*figures):
        page = page_of(*map(Interactive, figures))
        scripts = [attrs.get("id") for attrs in page.all("script")]
        return [name for name in scripts if name and "array" in name]

    one, other = surface(np.arange(40.0)), surface(np.arange(40.0) + 1)
    assert len(arrays(one)) == len(arrays(one, one)) == 1
    assert len(arrays(one, other, one)) == 2
    page = page_of(Interactive(one))
    figure, array = (gzip.decompress(base64.b64decode(text)).decode() for text in page.scripts[:2])
    z = json.loads(figure)["data"][0]["z"]
    assert z["bdata"] == "@packed-array-1"
    values = np.frombuffer(base64.b64decode(array), z["dtype"]).reshape(40, 40)
    assert np.array_equal(values, np.outer(np.arange(40.0), np.arange(40.0)))


def test_without_figures_there_is_no_plotly():
    text = render("T", [Section("S", ["text"])])
    assert "packed-plotly" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL)
    assert len(text) < 40_000


def test_the_same_input_gives_the_same_page():
    def make():
        return render("T", [Section("S", [Interactive(figure()), Picture(png(), "a square")])])

    assert make() == make()


def test_writing(tmp_path):
    sections = [Section("S", ["ä"])]
    size = write_report(tmp_path / "deep" / "r.html", "T", sections)
    assert (tmp_path / "deep" / "r.html").read_bytes() == render("T", sections).encode()
    assert size == (tmp_path / "deep" / "r.html").stat().st_size
    with pytest.raises(ValueError, match=r"path: a report is written to a .html file, got 'r.pdf'"):
        write_report(tmp_path / "r.pdf", "T", sections)


def test_a_page_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(TooLargeError, match=r"expected a report of at most 100 bytes, got .*; leave out pictures"):
        write_report(path, "T", [Section("S", [])], maximum_size=100)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_report(path, "T", [Section("S", [])])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def luminance(color):
    # Relative luminance of WCAG 2.1.
    shares = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


PAIRS = [
    *((text, ground) for text in ("text", "quiet", "link") for ground in ("ground", "raised")),
    *((tone, f"{tone}-ground") for tone in ("for", "against", "open", "none")),
]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_contrast_is_that_of_wcag_aa(pair, theme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)  # by definition
    style = (Path(landscape.report.__file__).parent / "style.css").read_text(encoding="utf-8")
    colors = {name: found for name, *found in re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    text, ground = (colors[name][theme == "dark"] for name in pair)
    assert contrast(text, ground) >= 4.5
