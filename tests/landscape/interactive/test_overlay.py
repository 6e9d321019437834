"""Surfaces in one scene: told apart by color, laid over one another by a slider, hidden by the legend."""

import plotly.graph_objects as go
import pytest

from landscape.interactive import overlay


@pytest.fixture
def three(model):
    return {"a": model(2.0), "b": model(0.5), "c": model(1.0)}


def surfaces_of(figure, name):
    return [trace for trace in figure.data if trace.type == "surface" and trace.name == name]


def test_one_scene(three):
    figure = overlay(three)
    assert {trace.scene for trace in figure.data} <= {None, "scene"}
    assert [name for name in figure.to_plotly_json()["layout"] if name.startswith("scene")] == ["scene"]


def test_a_color_for_each_model(three):
    figure = overlay(three)
    scales = {name: {trace.colorscale for trace in surfaces_of(figure, name)} for name in three}
    assert all(len(found) == 1 for found in scales.values())
    assert len(set.union(*scales.values())) == 3
    # Okabe and Ito's blue, and half way from there to white: (0 + 255) / 2, (114 + 255) / 2, (178 + 255) / 2.
    assert scales["a"] == {((0.0, "#0072B2"), (1.0, "#80b8d8"))}
    assert not any(trace.showscale for trace in figure.data if trace.type == "surface")


def test_the_slider_sets_the_opacity_of_all_but_the_first(three):
    figure = overlay(three, opacity=0.3)
    (slider,) = figure.layout.sliders
    assert slider.steps[slider.active].label == "0.3"
    assert {trace.opacity for trace in surfaces_of(figure, "b") + surfaces_of(figure, "c")} == {0.3}
    assert [step.label for step in slider.steps] == [
        "0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1",
    ]  # fmt: skip
    for step in slider.steps:
        assert step.method == "restyle"
        properties, traces = step.args
        changed = go.Figure(figure)
        for index in traces:
            changed.data[index].update(properties)
        for name in ("b", "c"):  # those that are not seen too: the menu must not bring back another opacity
            assert {trace.opacity for trace in surfaces_of(changed, name)} == {float(step.label)}
        assert {trace.opacity for trace in surfaces_of(changed, "a")} == {1.0}
        assert all(figure.data[index].type == "surface" for index in traces)
    assert slider.currentvalue.prefix == "opacity of b, c: "


def test_one_model_alone_has_a_slider_too(model):
    figure = overlay({"a": model()})
    assert figure.layout.sliders[0].steps[5].args[1] == tuple(
        index for index, trace in enumerate(figure.data) if trace.type == "surface"
    )


def test_the_legend_hides_a_model_with_its_mark(three):
    figure = overlay(three)
    shown = [trace for trace in figure.data if trace.visible]
    assert [trace.name for trace in shown if trace.showlegend] == ["a", "b", "c"]
    groups = {trace.name: trace.legendgroup for trace in shown}
    assert all(groups[name] == groups[f"center of {name}"] for name in three)
    assert len(set(groups.values())) == 3


@pytest.mark.parametrize("opacity", [-0.1, 0.55, 1.5])
def test_another_opacity(model, opacity):
    with pytest.raises(
        ValueError, match=f"opacity: expected tenths from 0 to 1, the steps of the slider, got {opacity}"
    ):
        overlay({"a": model()}, opacity=opacity)


def test_how_it_was_made(three):
    assert "the same draws for all surfaces" in overlay(three).layout.annotations[-1].text.replace("<br>", " ")
