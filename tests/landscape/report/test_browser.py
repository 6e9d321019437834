"""The page in a real browser, from a file, without a network."""

import io
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure
from PIL import Image
from plotly.subplots import make_subplots

from landscape.report import Badge, Cell, Code, Column, Facts, Interactive, Picture, Section, Table, write_report

HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'


def two_scenes():
    """Two surfaces with a menu and a slider, as the figures of landscape.interactive have."""
    made = make_subplots(1, 2, specs=[[{"type": "scene"}, {"type": "scene"}]])
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    for place in (1, 2):
        made.add_trace(go.Surface(x=x[0], y=y[:, 0], z=place * (x**2 + y**2), showscale=False), 1, place)
    buttons = [
        {"label": "one &lt;b&gt;", "method": "update", "args": [{"opacity": [1, 1]}, {"title.text": "first"}]},
        {"label": "two", "method": "update", "args": [{"opacity": [0.5, 1]}, {"title.text": "second"}]},
    ]
    steps = [
        {"label": f"{share:g}", "method": "restyle", "args": [{"opacity": share}, [1]]} for share in (0.0, 0.5, 1.0)
    ]
    slider = {"active": 2, "steps": steps, "currentvalue": {"prefix": "opacity of x: "}}
    made.update_layout(
        updatemenus=[{"buttons": buttons, "active": 0}], sliders=[slider], height=420, meta={"description": "two bowls"}
    )
    return made


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    frame = pd.DataFrame(
        {
            "method": ["b", "a10", "a9", HOSTILE],
            "loss": [0.5, -2.0, math.nan, math.inf],
            "mean": [Cell("9 ± 1", 9.0), Cell("10 ± 1", 10.0), Cell("–", math.nan), Cell("−1 ± 1", -1.0)],
        }
    )
    still = Picture(Figure(figsize=(3, 2)), "two bowls")
    sections = [
        Section("Table", [Table(frame, "numbers", [Column("method"), Column("loss", unit="nats"), Column("mean")]),
                          Facts({"Verdict": Badge("supported", "for")})]),
        # Far below: drawn only when it is scrolled to.
        Section("Space", ["word " * 60 + "\n\n"] * 60),
        Section("Figure", [Interactive(two_scenes(), caption="bowls", still=still)], "figure"),
        Section("Folded", [Table(frame, "hundreds of rows", folded=True), Code("a = 1", "settings", folded=True)]),
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, HOSTILE, sections)
    return chromium(path, viewport={"width": 1280, "height": 800}, color_scheme="light")


def column(page, place):
    return page.eval_on_selector_all(
        "section:first-child tbody tr",
        f"rows => rows.map(row => row.cells[{place}]).map(cell => cell.dataset.sort ?? cell.textContent)",
    )


def test_tables_sort_both_ways_and_what_is_missing_stays_last(page):
    buttons = page.locator("section:first-child thead button")
    assert buttons.count() == 3
    buttons.nth(1).click()
    assert column(page, 1) == ["-2", "0.5", "Infinity", ""]
    assert page.get_attribute("thead th:nth-child(2)", "aria-sort") == "ascending"
    buttons.nth(1).focus()
    page.keyboard.press("Enter")
    assert column(page, 1) == ["Infinity", "0.5", "-2", ""]
    assert page.get_attribute("thead th:nth-child(2)", "aria-sort") == "descending"
    buttons.nth(2).click()
    assert column(page, 2) == ["-1", "9", "10", ""]  # by number, not by letter
    assert page.get_attribute("thead th:nth-child(2)", "aria-sort") is None
    buttons.nth(0).click()
    assert column(page, 0) == [HOSTILE, "a9", "a10", "b"]  # numbers in names count as such


def test_hostile_names_are_text(page):
    assert page.evaluate("window.hacked") is None
    assert page.title() == HOSTILE
    assert page.inner_text("h1") == HOSTILE
    assert HOSTILE in page.inner_text("table")


def test_the_theme_can_be_turned(page):
    def ground():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ground() == "rgb(255, 255, 255)"
    page.click("#theme")
    assert ground() == "rgb(21, 24, 28)"
    assert page.get_attribute("#theme", "aria-label") == "Light colors"
    page.click("#theme")
    assert ground() == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert ground() == "rgb(255, 255, 255)"  # chosen by hand, it stays
    page.evaluate("delete document.documentElement.dataset.theme")
    assert ground() == "rgb(21, 24, 28)"
    page.emulate_media(color_scheme="light")


def cameras(page):
    return page.evaluate(
        "['scene', 'scene2'].map(name => document.getElementById('plot-1')._fullLayout[name].camera.eye)"
        ".map(eye => [eye.x, eye.y, eye.z])"
    )


def test_figures_are_drawn_when_seen_and_can_be_used_without_a_pointer(page):
    # Not before: neither the library nor a drawing context.
    assert page.evaluate("typeof window.Plotly") == "undefined"
    assert page.is_visible(".still img")
    page.locator("#figure").scroll_into_view_if_needed()
    page.wait_for_selector("figure[data-state=drawn]")
    assert not page.is_visible(".still img")
    # Both halves of the picture on the screen have many colors: both surfaces are there.
    image = Image.open(io.BytesIO(page.locator("#plot-1").screenshot())).convert("RGB")
    halves = np.array_split(np.asarray(image), 2, axis=1)
    assert all(len(np.unique(half.reshape(-1, 3), axis=0)) > 300 for half in halves)
    # The menu of the figure has become a list of the page; names are text again.
    assert page.locator(".live .updatemenu-container, .live .slider-container").count() == 0
    select = page.locator(".controls select")
    assert select.locator("option").all_inner_texts() == ["one <b>", "two"]
    select.select_option("two")
    page.wait_for_function("document.getElementById('plot-1').layout.title.text === 'second'")
    assert page.evaluate("document.getElementById('plot-1').data.map(one => one.opacity)") == [0.5, 1]
    page.locator(".controls input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.getElementById('plot-1').data[1].opacity === 0.5")
    assert page.inner_text(".controls output") == "0.5"
    assert page.evaluate("document.getElementById('plot-1').data[0].opacity") == 0.5  # only what the step says


def test_scenes_turn_together(page):
    page.locator("#figure").scroll_into_view_if_needed()
    page.wait_for_selector("figure[data-state=drawn]")
    before = cameras(page)
    assert before[0] == pytest.approx(before[1])
    page.click("button[aria-label='Turn left']")
    # A turn by 15 degrees about the vertical: x and y rotate, height and distance stay.
    (x, y, z), angle = before[0], -math.pi / 12
    expected = [x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle), z]
    page.wait_for_function(
        "([x, y]) => { const eye = document.getElementById('plot-1')._fullLayout.scene2.camera.eye;"
        "return Math.hypot(eye.x - x, eye.y - y) < 1e-6; }",
        arg=expected[:2],
    )
    for eye in cameras(page):
        assert eye == pytest.approx(expected)
    page.click("button[aria-label='Reset the view']")
    page.wait_for_function(
        "x => Math.abs(document.getElementById('plot-1')._fullLayout.scene2.camera.eye.x - x) < 1e-6", arg=x
    )


def test_on_paper_pictures_stand_for_figures(page):
    page.locator("#figure").scroll_into_view_if_needed()
    page.wait_for_selector("figure[data-state=drawn]")
    page.emulate_media(media="print")
    assert page.is_visible(".still img")
    assert not page.is_visible(".live")
    assert not page.is_visible("#theme")
    page.emulate_media(media="screen")


def test_what_is_folded_is_printed_but_for_tables(page):
    folded = page.locator("details.folded")
    opened = "all => all.map(one => one.open)"
    assert folded.evaluate_all(opened) == [False, False]
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.evaluate_all(opened) == [False, True]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.evaluate_all(opened) == [False, False]


def test_no_error_and_no_request(page):
    assert page.errors == []


def test_without_scripts_the_page_is_complete(chromium, tmp_path):
    still = Picture(Figure(figsize=(3, 2)), "two bowls")
    figures = [Interactive(two_scenes(), still=still), Interactive(two_scenes())]
    write_report(tmp_path / "r.html", "T", [Section("S", [*figures, Table(pd.DataFrame({"a": [1]}), "t")])])
    page = chromium(tmp_path / "r.html", java_script_enabled=False)
    assert page.is_visible(".still img")
    assert page.is_visible("tbody th")
    assert not page.is_visible("#theme")
    shown = page.locator("figure.interactive")
    assert "drawn by JavaScript" in shown.nth(1).inner_text()
    page.emulate_media(media="print")
    assert [shown.nth(place).is_visible() for place in range(2)] == [True, False]  # nothing to print of the second
