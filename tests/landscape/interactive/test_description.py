"""What a figure shows, in words."""

import numpy as np
import pytest

from landscape.interactive import describe, overlay, surfaces


def test_ranges_center_and_lowest_point(model):
    # lowest + steep (3 (alpha - 1/4)² + (beta + 1/2)²): lowest at (1/4, -1/2); highest at (-1, 1), where it is
    # lowest + 75/16 + 9/4 = lowest + 6.9375; at the center lowest + 3/16 + 1/4 = lowest + 0.4375. Accuracies are
    # 1 / (1 + loss).
    assert describe({"one": model(lowest=0.5001, splits=("train",))}) == (
        "Loss surface of 1 model: alpha from -1 to 1, beta from -1 to 1. "
        "one, train: loss from 0.5001 to 7.438, 0.9376 at the center; accuracy from 0.1185 to 0.6666, 0.5161 at the "
        "center; lowest loss drawn 0.5001 at alpha 0.25, beta -0.5."
    )


def test_every_model_and_split(model):
    text = describe({"a": model(), "b": model(2.0, 0.25)})
    assert text.startswith("Loss surfaces of 2 models, on common scales: alpha from -1 to 1")
    # The lowest losses: 0.25 more on the test split.
    for name, lowest in (("a, train", "0.5"), ("a, test", "0.75"), ("b, train", "0.25"), ("b, test", "0.5")):
        assert f" {name}: loss from {lowest} to " in text


def test_without_splits(model):
    assert " one: loss from 0.5001 to 7.438, 0.9376 at the center" in describe({"one": model(lowest=0.5001, splits=())})


def test_what_is_not_finite(model):
    surface = model(splits=())
    surface["loss"][0, 0] = np.nan
    text = describe({"one": surface}, resolution=9)
    assert "0.9375 at the center, not finite at 1.2 % of the points; accuracy" in text  # 1 of 81
    surface["loss"][:], surface["center_loss"] = np.inf, np.inf
    text = describe({"one": surface})
    assert "one: loss nowhere finite, inf at the center; accuracy from" in text
    assert "lowest" not in text


@pytest.mark.parametrize("draw", [surfaces, overlay])
def test_figures_carry_it(model, draw):
    models = {"a": model(), "<b>": model(2.0)}
    assert draw(models).layout.meta["description"] == describe(models)
