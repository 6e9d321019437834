"""What a figure says of itself is what its data say: how it was made, along what, and what went wrong."""

import io
import json

import pytest
from matplotlib.figure import Figure

from landscape.plots import contour_panels, relief_panels
from landscape.plots.captions import as_text, axis_labels, made_how, percent, put_caption
from landscape.plots.looks import looks

PANELS = {"contour": contour_panels, "relief": relief_panels}


def bowl(a, b):
    return 2 + a * a + b * b


def adaptive(error=0.004, evaluations=97, converged=1, **attrs):
    return {
        "method": "adaptive",
        "error_estimate": error,
        "evaluations": evaluations,
        "converged": converged,
    } | attrs


@pytest.mark.parametrize("kind", PANELS)
def test_an_adaptive_surface_does_not_claim_that_each_point_was_evaluated(plane, kind):
    text = PANELS[kind]({"a": plane(bowl, **adaptive())}).get_supxlabel().replace("\n", " ")
    assert "97 points evaluated, interpolated, largest error about 0.4 % of the range" in text
    assert "each evaluated" not in text
    assert "CONVERGED" not in text


@pytest.mark.parametrize("kind", PANELS)
def test_a_grid_says_that_each_point_was_evaluated(plane, kind):
    text = PANELS[kind]({"a": plane(bowl, method="grid", converged=1)}).get_supxlabel()
    assert "9×7 points, each evaluated" in text
    assert "interpolated" not in text


def test_what_has_not_converged_is_named(plane):
    good, bad = plane(bowl, **adaptive()), plane(bowl, **adaptive(0.031, 1089, converged=0))
    text = made_how({"standard": good, "5$": bad})
    assert "97 to 1089 points evaluated, interpolated, largest error about 0.4 % to 3.1 % of the range" in text
    assert r"NOT CONVERGED: 5\$" in text
    assert "NOT CONVERGED;" in made_how({"one": bad, "two": bad})


def test_grid_and_adaptive_in_one_figure(plane):
    text = made_how({"one": plane(bowl, method="grid"), "two": plane(bowl, **adaptive())})
    assert "9×7 points, each evaluated; 97 points evaluated, interpolated" in text


def test_several_pairs_have_their_numbers_as_variables(plane):
    one = plane(bowl, method="adaptive")
    surface = one.expand_dims(pair=2).assign(
        evaluations=("pair", [97, 289]), converged=("pair", [1, 0]), error_estimate=("pair", [0.004, 0.02])
    )
    text = made_how({"one": surface})
    assert "97 to 289 points evaluated, interpolated, largest error about 0.4 % to 2 % of the range" in text
    assert "NOT CONVERGED" in text
    first = made_how({"one": surface.sel(pair=0)})
    assert "97 points evaluated" in first
    assert "NOT CONVERGED" not in first


def test_what_is_not_known_is_not_claimed(plane):
    mean = plane(bowl, pairs=5, confidence=0.95)  # no method: of adaptive surfaces or of grids
    text = made_how({"one": mean})
    assert "9×7 points; mean over 5 direction pairs" in text
    assert "evaluated" not in text
    assert "interpolated, largest error unknown" in made_how({"one": plane(bowl, method="adaptive")})


def test_a_line_through_several_checkpoints(plane):
    line = plane(bowl, directions=about("between", "between", "between")).isel(beta=0, drop=True)
    assert axis_labels(line, ["alpha"]) == ("alpha (between checkpoints, 0 to 3)",)


def test_grids_of_other_shapes_are_both_named(plane):
    assert "5×5 and 9×7 points" in made_how({"one": plane(bowl), "two": plane(bowl, points=(5, 5))})


def test_an_error_that_is_not_known(plane):
    assert "largest error unknown" in made_how({"one": plane(bowl, **adaptive(error=float("nan")))})


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"method": "grid"}, "○ lowest point of the grid"),
        ({}, "○ lowest point drawn\n"),
        (adaptive(), "○ lowest point drawn (interpolated)"),
    ],
)
def test_what_the_circle_is(plane, attrs, expected):
    assert expected in contour_panels({"a": plane(bowl, **attrs)}).get_supxlabel()


def about(*kinds, **more):
    return json.dumps([{"kind": kind, "index": index} | more for index, kind in enumerate(kinds)])


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({}, ("alpha (filter norms)", "beta (filter norms)")),
        ({"normalization": "layer"}, ("alpha (layer norms)", "beta (layer norms)")),
        ({"normalization": "none"}, ("alpha", "beta")),
        (
            {"directions": about("principal", "principal"), "normalization": "none"},
            ("alpha (first principal component)", "beta (second principal component)"),
        ),
        (
            {"directions": about("principal", "principal", explained_variance=0.25), "normalization": "none"},
            (
                "alpha (first principal component,\n25 % of the variance)",
                "beta (second principal component,\n25 % of the variance)",
            ),
        ),
        (
            {"directions": about("hessian", "hessian"), "normalization": "none"},
            ("alpha (Hessian eigenvector)", "beta (Hessian eigenvector)"),
        ),
        (
            {"directions": about("hessian", "random", eigenvalue=41.234)},
            ("alpha (Hessian eigenvector,\neigenvalue 41.2,\nfilter norms)", "beta (filter norms)"),
        ),
        ({"directions": about("between", "random")}, ("alpha (between checkpoints, 0 to 1)", "beta (filter norms)")),
        (
            {"directions": about("trajectory", "trajectory"), "normalization": "none"},
            ("alpha (first principal component)", "beta (second principal component)"),
        ),
    ],
    ids=["filter", "layer", "none", "principal", "explained", "hessian", "eigenvalue", "between", "trajectory"],
)
def test_axes_say_along_what_they_go(plane, attrs, expected):
    assert axis_labels(plane(bowl, **attrs)) == expected


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({}, "filter-normalized random directions; seed 3;"),
        ({"normalization": "none"}, "random directions; seed 3;"),
        ({"directions": about("principal", "principal")}, "principal components of the checkpoints; 9×7"),
        ({"directions": about("trajectory", "trajectory")}, "principal components of the checkpoints; 9×7"),
        ({"directions": about("hessian", "hessian")}, "Hessian eigenvectors; 9×7"),
        (
            {"directions": about("between"), "method": "Bezier curve", "bends": 1, "seed": 0},
            "Bézier curve with 1 bend; 9",
        ),
        ({"directions": about("between"), "method": "Bezier curve", "bends": 3}, "Bézier curve with 3 bends; 9"),
        ({"directions": about("between", "between")}, "between checkpoints; 9×7"),
        (
            {"directions": about("between", "random", seed=5)},
            "between checkpoints and filter-normalized random directions; seed 5; 9×7",
        ),
    ],
)
def test_captions_name_the_kind_of_direction(plane, attrs, expected):
    assert made_how({"one": plane(bowl, **attrs)}).startswith(expected)


def test_captions_tell_what_differs(plane):
    text = made_how(
        {
            "one": plane(bowl),
            "two": plane(bowl, normalization="layer", ignored=""),
        }
    )
    assert "DIFFERENT directions: filter-normalized random directions / layer-normalized random directions" in text
    assert "DIFFERENT parameters moved" in text


@pytest.mark.parametrize(
    ("ignored", "expected"), [("0.bias", "biases and normalization layers not moved"), ("", "all parameters moved")]
)
def test_captions_tell_what_was_moved(plane, ignored, expected):
    assert made_how({"one": plane(bowl, ignored=ignored)}).endswith(expected)


@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.parametrize("count", [1, 2])
def test_captions_stay_within_the_figure(plane, kind, count):
    surfaces = {f"model {i}": plane(bowl, **adaptive(0.01 * (i + 1), 97 + i, converged=i)) for i in range(count)}
    figure = PANELS[kind](surfaces)
    with io.BytesIO() as file:
        figure.savefig(file, dpi=figure.dpi)
    (caption,) = [text for text in figure.texts if text.get_text() == figure.get_supxlabel()]
    box = caption.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= 0


def test_captions_are_broken_between_their_parts():
    figure = Figure(figsize=(3, 2))  # 51 characters a row
    put_caption(figure, "+ center   ○ lowest", f"{'a' * 30}; NOT CONVERGED: one; {'b ' * 20}end")
    assert figure.get_supxlabel() == f"+ center   ○ lowest\n{'a' * 30}; NOT CONVERGED: one\n{'b ' * 20}end"


@pytest.mark.parametrize(
    ("share", "digits", "shown"),
    [
        (0.91, 3, "91 %"),
        (0.9962, 3, "99.6 %"),
        (1.0, 3, "100 %"),
        (0.00423, 2, "0.42 %"),
        (0.004, 2, "0.4 %"),
        (12.34, 2, "1200 %"),
        (1e-7, 2, "0.00001 %"),
    ],
)
def test_percent(share, digits, shown):
    assert percent(share, digits) == shown


@pytest.mark.parametrize(("name", "shown"), [("a", "a"), ("5$", r"5\$"), (r"$\lost$", r"\$\lost\$"), (7, "7")])
def test_names_as_text(name, shown):
    assert as_text(name) == shown


def test_looks_tell_up_to_56_models_apart():
    found = looks(str(number) for number in range(56))
    assert len(set(found.values())) == 56
    assert list(looks("ab")) == ["a", "b"]
