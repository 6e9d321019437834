"""Pages that need no network, complete or not there at all."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from landscape.interactive import LINKED_CAMERAS, describe, overlay, surfaces, write_html

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
DRAWERS = {"surfaces": surfaces, "overlay": overlay}


class Page(HTMLParser):
    """Tags with their attributes, the text of each script, and that of the caption."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.append((tag, ""))

    def handle_data(self, data):
        if self.texts:
            tag, text = self.texts[-1]
            self.texts[-1] = tag, text + data

    def of(self, tag):
        return [text for name, text in self.texts if name == tag]


def written(figure, tmp_path, **options):
    path = tmp_path / "new folder" / "figure.html"
    write_html(figure, path, **options)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("drawer", DRAWERS)
def test_nothing_is_loaded_from_elsewhere(model, drawer, tmp_path):
    text = written(DRAWERS[drawer]({"a": model(), "b": model(2.0)}), tmp_path)
    assert len(text) < 10_000_000
    assert text.count(get_plotlyjs()) == 1
    own = text.replace(get_plotlyjs(), "")
    page = Page(own)
    loaded = {"src", "href", "srcset", "data", "action", "poster", "background"}
    assert not [(tag, attributes) for tag, attributes in page.tags if loaded & set(attributes)]
    assert not {"link", "iframe", "img", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    # Outside plotly.js no address at all but the one for editing figures in the cloud, whose button is not shown.
    assert set(re.findall(r"https?:[^\"' ]*", own.replace("\\u002f", "/"))) <= {"https://plot.ly"}
    assert '"displaylogo": false' in own


@pytest.mark.parametrize("drawer", DRAWERS)
def test_a_hostile_name_stays_text(model, drawer, tmp_path):
    models = {HOSTILE: model(), "b": model(2.0)}
    text = written(DRAWERS[drawer](models, heading=HOSTILE), tmp_path, title=HOSTILE)
    own = text.replace(get_plotlyjs(), "")
    assert "<script>alert" not in own
    assert "<img" not in own
    page = Page(own)
    assert page.of("title")[0].strip() == HOSTILE
    assert page.of("figcaption")[0].strip() == describe(models)


def test_the_cameras_are_linked(model, tmp_path):
    text = written(surfaces({"a": model(), "b": model()}), tmp_path)
    assert "{plot_id}" not in text.replace(get_plotlyjs(), "")
    assert LINKED_CAMERAS.replace("{plot_id}", "loss-surfaces") in text
    assert '<div id="loss-surfaces"' in text


def test_the_same_figure_gives_the_same_page(model, tmp_path):
    figure = surfaces({"a": model()})
    assert written(figure, tmp_path / "1") == written(figure, tmp_path / "2")


def test_data_are_all_in_the_page(model, tmp_path):
    figure = surfaces({"a": model()}, resolution=5)
    text = written(figure, tmp_path)
    traces = json.loads(figure.to_json())["data"]
    assert all(trace["z"]["bdata"].replace("/", "\\u002f") in text for trace in traces if trace["type"] == "surface")


def test_another_figure(tmp_path):
    page = Page(written(go.Figure(go.Scatter(y=[1, 2])), tmp_path).replace(get_plotlyjs(), ""))
    assert page.of("figcaption")[0].strip() == ""


def test_what_cannot_be_written(model, tmp_path):
    figure = surfaces({"a": model()}, resolution=5)
    with pytest.raises(ValueError, match=r"path: a page is written to a \.html file, got 'figure.png'"):
        write_html(figure, tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writing_leaves_the_old_page(model, tmp_path, monkeypatch):
    path = tmp_path / "figure.html"
    path.write_text("old")
    figure = surfaces({"a": model()}, resolution=5)

    def full(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_html(figure, path)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["figure.html"]


# A figure without a browser: an element that hands its listeners out, and a Plotly whose relayout does what the real
# one does, one turn of the event loop later: it sets the cameras of the layout, shows every scene with that of its
# layout (also those that the call does not name), and says so to the listeners. A drag changes what is shown; the
# layout follows when the mouse is let go.
HARNESS = """
const names = ["scene", "scene2", "scene3"];
const listeners = {plotly_relayouting: [], plotly_relayout: []};
const plot = {layout: {title: {}, xaxis: {}, scenery: {}}, on: (name, call) => listeners[name].push(call)};
const shown = {};
for (const name of names) { plot.layout[name] = {camera: 0}; shown[name] = 0; }
const emit = (name, event) => listeners[name].forEach(call => call(event));
let calls = 0, failing = 0;
globalThis.document = {getElementById: id => id === "the-plot" ? plot : null};
globalThis.window = {Plotly: {relayout: (element, update) => {
  calls += 1;
  if (calls > 50) { throw new Error("endless"); }
  if (failing) { failing -= 1; throw new Error("this scene cannot be drawn"); }
  return new Promise(done => setTimeout(() => {
    for (const [key, value] of Object.entries(update)) { plot.layout[key.split(".")[0]].camera = value; }
    for (const name of names) { shown[name] = plot.layout[name].camera; }
    emit("plotly_relayout", update);
    done(element);
  }, 5));
}}};
const cameras = () => names.map(name => JSON.stringify(shown[name]));
const later = () => new Promise(done => setTimeout(done, 100));
const drag = (scene, camera) => { shown[scene] = camera; emit("plotly_relayouting", {[scene + ".camera"]: camera}); };
const turn = (scene, camera) => {
  shown[scene] = plot.layout[scene].camera = camera;
  emit("plotly_relayout", {[scene + ".camera"]: camera});
};
"""
# What happens, the cameras that are shown afterwards, and how often they were set.
CASES = {
    "a scene is turned": ('turn("scene2", {eye: 1}); await later();', ['{"eye":1}'] * 3, 1),
    "only a part of the camera is named": (
        'plot.layout.scene.camera = {eye: 4}; emit("plotly_relayout", {"scene.camera.eye": 4}); await later();',
        ['{"eye":4}'] * 3,
        1,
    ),
    "a drag is not thrown back": ('drag("scene2", {eye: 3}); await later();', ['{"eye":3}'] * 3, 1),
    "a drag is followed, and its end is not lost": (
        'for (const eye of [1, 2, 3]) { drag("scene", {eye}); } turn("scene", {eye: 9}); await later();',
        ['{"eye":9}'] * 3,
        2,  # the first at once, then only the newest
    ),
    "all at once": (
        'emit("plotly_relayout", {"scene.camera": 1, "scene2.camera": 1, "scene3.camera.eye": 1}); await later();',
        ["0"] * 3,
        0,
    ),
    "nothing about a camera": (
        'emit("plotly_relayout", {"scene.zaxis.range": [0, 1], "scenery.camera": 1}); emit("plotly_relayout");'
        " await later();",
        ["0"] * 3,
        0,
    ),
    "one scene after another": (
        'turn("scene", {eye: 1}); await later(); turn("scene3", {eye: 2}); await later();',
        ['{"eye":2}'] * 3,
        2,
    ),
    "after an error": (
        'failing = 1; turn("scene", {eye: 1}); await later(); turn("scene3", {eye: 2}); await later();',
        ['{"eye":2}'] * 3,
        2,
    ),
}


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the snippet in node, which is not installed")
@pytest.mark.parametrize("case", CASES)
def test_the_snippet(case, tmp_path):
    events, cameras, calls = CASES[case]
    script = (
        HARNESS
        + LINKED_CAMERAS.replace("{plot_id}", "the-plot")
        + f"(async () => {{ {events}\nconsole.log(JSON.stringify([cameras(), calls])); }})();"
    )
    done = subprocess.run([shutil.which("node"), "-e", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [cameras, calls]


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the snippet in node, which is not installed")
def test_each_scene_has_a_camera_of_its_own(tmp_path):
    script = (
        HARNESS
        + LINKED_CAMERAS.replace("{plot_id}", "the-plot")
        + '(async () => { turn("scene", {eye: {x: 1}}); await later(); plot.layout.scene2.camera.eye.x = 7;'
        " console.log(cameras().join()); })();"
    )
    done = subprocess.run([shutil.which("node"), "-e", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '{"eye":{"x":1}},{"eye":{"x":7}},{"eye":{"x":1}}'
