"""Pages in a real browser: they draw without a network, their scenes turn together, and the menu works."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from landscape.interactive import overlay, surfaces, write_html

playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser with playwright, which is missing")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

PATIENCE = 240_000  # milliseconds; without a graphics card, on a busy machine, drawing takes its time
# Chromium's own rendering in software; a sandbox is not to be had for root, nor needed for a page of ours.
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
READY = "() => document.querySelectorAll('#loss-surfaces canvas').length > 0 && window.settled === true"
# When nothing is waiting to be drawn, and two frames later.
SETTLED = """() => {
  const plot = document.getElementById("loss-surfaces");
  window.settled = false;
  Promise.all(plot._promises || []).then(() =>
    requestAnimationFrame(() => requestAnimationFrame(() => { window.settled = true; })));
}"""
CAMERAS = """() => {
  const layout = document.getElementById("loss-surfaces").layout;
  return Object.keys(layout).filter(name => name.startsWith("scene")).map(name => {
    const eye = layout[name].camera.eye;
    return [eye.x, eye.y, eye.z];
  });
}"""
# What the graphics card was told to show, not what the layout says.
SHOWN = """() => {
  const full = document.getElementById("loss-surfaces")._fullLayout;
  return Object.keys(full).filter(name => /^scene[0-9]*$/.test(name)).map(name => {
    const eye = full[name]._scene.getCamera().eye;
    return [eye.x, eye.y, eye.z];
  });
}"""
HEIGHTS = """() => document.getElementById("loss-surfaces")._fullData
  .filter(trace => trace.visible === true && trace.type === "surface")
  .map(trace => [trace.name, trace.z[0][0], trace.opacity])"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a figure's page without a network; afterwards nothing was asked of one, and nothing went wrong."""
    errors, asked = [], []
    context = browser.new_context(offline=True, viewport={"width": 800, "height": 640})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    def show(figure):
        path = tmp_path / "figure.html"
        write_html(figure, path)
        page.goto(path.as_uri())
        settle(page)
        return page

    yield show
    context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def settle(page):
    page.evaluate(SETTLED)
    page.wait_for_function(READY)


def picture(page, box):
    """Pixels ``(height, width, 3)`` of a part of the page."""
    with Image.open(io.BytesIO(page.screenshot(clip=box))) as image:
        return np.asarray(image.convert("RGB"))


def scene_box(page, index):
    return (
        page.locator("#loss-surfaces .gl-container > div, #loss-surfaces .gl-container > canvas")
        .nth(index)
        .bounding_box()
    )


def turned(page, eye):
    page.wait_for_function(
        f"eye => ({CAMERAS})().every(found => found.every((value, axis) => Math.abs(value - eye[axis]) < 1e-6))",
        arg=eye,
    )


@pytest.fixture
def pair(model):
    return {"standard": model(2.0), "dropattack": model(0.5, 0.75)}


def test_both_scenes_are_drawn(opened, pair):
    page = opened(surfaces(pair, resolution=9))
    for index in range(2):
        pixels = picture(page, scene_box(page, index))
        # A surface shows many strong colors over a good part of the scene. Lines and letters are thin.
        colored = np.ptp(pixels.astype(int), axis=-1) > 40
        assert colored.mean() > 0.1
        assert len(np.unique(pixels[colored], axis=0)) > 100


def test_turning_one_scene_turns_the_others(opened, pair):
    page = opened(surfaces(pair | {"third": pair["standard"]}, resolution=9))
    for name, eye in (("scene", [0.5, 1.5, 1.0]), ("scene3", [2.0, 0.25, 0.75])):
        place = dict(zip("xyz", eye, strict=True))
        page.evaluate("([name, eye]) => Plotly.relayout('loss-surfaces', {[name + '.camera.eye']: eye})", [name, place])
        turned(page, eye)
        settle(page)
        np.testing.assert_allclose(page.evaluate(SHOWN), [eye] * 3, atol=1e-6)


def test_a_drag_turns_the_others(opened, pair):
    page = opened(surfaces(pair, resolution=9))
    before = page.evaluate(CAMERAS)
    box = scene_box(page, 0)
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    # During the drag the second scene follows, and the first is not thrown back to where the drag began.
    page.wait_for_function(f"before => Math.abs(({SHOWN})()[1][0] - before[0]) > 0.05", arg=before[0])
    settle(page)
    held = page.evaluate(SHOWN)
    assert abs(held[0][0] - before[0][0]) > 0.05
    page.mouse.up()
    page.wait_for_function(
        f"""before => {{ const [first, second] = ({CAMERAS})();
          return Math.abs(first[0] - before[0]) > 0.05 && first.every((value, axis) => value === second[axis]); }}""",
        arg=before[0],
    )
    settle(page)
    first, second = page.evaluate(SHOWN)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_the_menu_changes_heights_and_keeps_cameras(opened, pair):
    page = opened(surfaces(pair, resolution=9, logarithmic=False))
    eye = [0.5, 1.5, 1.0]
    page.evaluate(
        "eye => Plotly.relayout('loss-surfaces', {'scene.camera.eye': eye})", dict(zip("xyz", eye, strict=True))
    )
    turned(page, eye)
    box = scene_box(page, 1)
    before = picture(page, box)
    page.locator(".updatemenu-header").click()
    page.locator(".updatemenu-dropdown-button", has_text="test accuracy, linear").click()
    # In the corner (-1, -1): standard, 0.5 + 0.25 + 2 (75/16 + 1/4) = 10.625, has the accuracy 1 / 11.625; dropattack,
    # 0.75 + 0.25 + 0.5 (75/16 + 1/4) = 3.46875, has 1 / 4.46875.
    page.wait_for_function(f"() => ({HEIGHTS})()[0][1] < 0.1")
    settle(page)
    assert page.evaluate(HEIGHTS) == [
        ["standard", pytest.approx(1 / 11.625, rel=1e-5), 1],
        ["dropattack", pytest.approx(1 / 4.46875, rel=1e-5), 1],
    ]
    assert page.evaluate(CAMERAS) == [eye, eye]
    assert "test accuracy, linear" in page.locator(".updatemenu-header").text_content()
    assert (picture(page, box) != before).any()


def test_the_pointer_tells_the_values_of_the_place(opened, model):
    # Wherever the pointer meets the surface, the label's loss and accuracy are those of the label's alpha and beta; on
    # this surface they would not be if alpha and beta were exchanged.
    page = opened(surfaces({"one": model(splits=())}, resolution=9, logarithmic=True))
    page.evaluate("""() => document.getElementById("loss-surfaces").on("plotly_hover", event => {
      const point = event.points[0];
      if (point.data.type === "surface") { window.told = [point.x, point.y, point.z, ...point.customdata]; }
    })""")
    box = scene_box(page, 0)
    found = set()
    for across in (0.3, 0.35, 0.4, 0.45, 0.55, 0.6, 0.65, 0.7):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + 0.45 * box["height"])
        settle(page)
        if told := page.evaluate("() => window.told || null"):
            found.add(tuple(told))
    assert len([place for place in found if abs(place[0] - place[1]) > 0.1]) >= 2
    for alpha, beta, height, loss, accuracy in found:
        expected = 0.5 + 3 * (alpha - 0.25) ** 2 + (beta + 0.5) ** 2
        assert (10**height, loss) == pytest.approx((expected, expected), rel=1e-4)
        assert accuracy == pytest.approx(1 / (1 + expected), rel=1e-4)


def test_a_diverged_model_does_no_harm(opened, model):
    # One model nowhere finite, one with holes and a single point between them: the scenes draw, and turn, all the same.
    nowhere, holes = model(splits=()), model(splits=())
    nowhere["loss"][:], nowhere["center_loss"] = np.nan, np.nan
    holes["loss"][0, 0], holes["loss"][4:], holes["loss"][6, 6] = np.inf, np.nan, 1.0
    page = opened(surfaces({"nowhere": nowhere, "holes": holes, "good": model(splits=())}, resolution=9))
    eye = [0.5, 1.5, 1.0]
    page.evaluate(
        "eye => Plotly.relayout('loss-surfaces', {'scene2.camera.eye': eye})", dict(zip("xyz", eye, strict=True))
    )
    turned(page, eye)
    assert len(page.evaluate(SHOWN)) == 3


def test_a_hostile_name_runs_nothing(opened, model):
    name = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    for draw in (surfaces, overlay):
        page = opened(draw({name: model(), "b": model(2.0)}, resolution=5, heading=name))
        assert page.evaluate("() => window.hacked || null") is None
        assert name in page.locator("#loss-surfaces").text_content()


def test_opacity_and_legend_of_an_overlay(opened, pair):
    page = opened(overlay(pair, resolution=9, opacity=0.6))
    assert [opacity for *_, opacity in page.evaluate(HEIGHTS)] == [1, 0.6]
    slider = page.locator(".slider-rail-touch-rect")
    slider.scroll_into_view_if_needed()
    rail = slider.bounding_box()
    page.mouse.click(rail["x"] + rail["width"] - 2, rail["y"] + rail["height"] / 2)
    page.wait_for_function(f"() => ({HEIGHTS})()[1][2] === 1")
    page.locator(".legendtoggle").first.click()
    page.wait_for_function(f"() => ({HEIGHTS})().length === 1")
    assert [name for name, *_ in page.evaluate(HEIGHTS)] == ["dropattack"]
