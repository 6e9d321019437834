"""Interpolants: against closed forms, finite differences, and what was evaluated."""

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import approx_fprime

from landscape.interpolation import DIMENSIONS, Form, Interpolant, bounds_of, interpolant

FORMS = [Form(transform, degree) for transform in ("none", "root", "logarithm") for degree in (1, 3)]
UNEVEN = (np.array([-1.0, -0.7, -0.1, 0.0, 0.4, 1.0]), np.linspace(-2, 2, 5), np.array([-0.5, -0.2, 0.1, 0.3, 0.5]))
FINE = (np.linspace(-1, 1, 33), np.linspace(-2, 2, 41), np.linspace(-0.5, 0.5, 17))


def on(axes, function):
    return function(*np.meshgrid(*axes, indexing="ij"))


def inside(axes, count=40, seed=0, margin=0.0):
    low, high = np.array([axis[[0, -1]] for axis in axes]).T
    return np.random.default_rng(seed).uniform(low + margin, high - margin, (count, len(axes)))


def positive(*x):
    """Smooth, above 1, and curved in all ways: with first and second derivatives that are not zero."""
    return 2.5 + np.sin(sum((k + 1) * each for k, each in enumerate(x)) / 2) + 0.3 * sum(x) ** 2 + 0.1 * x[0] ** 3


def cubic(dimensions, seed=0):
    """A tensor-product polynomial of degree 3 in each dimension, with its gradient and Hessian."""
    coefficients = np.random.default_rng(seed).standard_normal((4,) * dimensions)
    evaluate = (
        np.polynomial.polynomial.polyval,
        np.polynomial.polynomial.polyval2d,
        np.polynomial.polynomial.polyval3d,
    )

    def derivative(points, by=()):
        found = coefficients
        for dimension in by:
            found = np.polynomial.polynomial.polyder(found, axis=dimension)
        arguments = [points[..., d] for d in range(dimensions)]
        return evaluate[dimensions - 1](*arguments, found)

    def hessian(points):
        rows = [[derivative(points, (i, j)) for j in range(dimensions)] for i in range(dimensions)]
        return np.moveaxis(np.array(rows), (0, 1), (-2, -1))

    def gradient(points):
        return np.stack([derivative(points, (i,)) for i in range(dimensions)], axis=-1)

    return derivative, gradient, hessian


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_it_goes_through_the_lattice(dimensions, form):
    axes = UNEVEN[:dimensions]
    values = on(axes, positive)
    smooth = Interpolant(axes, values, form)
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    np.testing.assert_allclose(smooth(nodes), values, rtol=1e-13)
    np.testing.assert_allclose(smooth.on_grid(*axes), values, rtol=1e-13)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_exact_for_cubics(dimensions):
    value, gradient, hessian = cubic(dimensions)
    axes = UNEVEN[:dimensions]
    smooth = Interpolant(axes, value(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)))
    points = np.concatenate([inside(axes), np.array(list(itertools.product(*(axis[[0, -1]] for axis in axes))))])
    np.testing.assert_allclose(smooth(points), value(points), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(smooth.gradient(points), gradient(points), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(smooth.hessian(points), hessian(points), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("transform", ["root", "logarithm"])
def test_exact_where_the_transform_is_a_cubic(dimensions, transform):
    # L = p^2, or exp(p): gradient 2 p p' or L p', Hessian 2 (p' p'^T + p p'') or L (p' p'^T + p''), by the chain rule
    value, gradient, hessian = cubic(dimensions, seed=1)
    axes = tuple(axis / 4 for axis in UNEVEN[:dimensions])
    low = value(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)).min()

    def inner(points):
        return value(points) - low + 0.5  # positive, as a root must be

    backward = np.square if transform == "root" else np.exp
    smooth = Interpolant(axes, backward(inner(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))), Form(transform))
    points = inside(axes)
    p, first, second = inner(points), gradient(points), hessian(points)
    outer = first[:, :, None] * first[:, None, :]
    if transform == "root":
        slope, curve = 2 * p[:, None] * first, 2 * (outer + p[:, None, None] * second)
    else:
        slope, curve = np.exp(p)[:, None] * first, np.exp(p)[:, None, None] * (outer + second)
    np.testing.assert_allclose(smooth(points), backward(p), rtol=1e-10)
    np.testing.assert_allclose(smooth.gradient(points), slope, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(smooth.hessian(points), curve, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_derivatives_are_those_of_the_interpolant(dimensions, form):
    axes = UNEVEN[:dimensions]
    smooth = Interpolant(axes, on(axes, positive), form)
    for point in inside(axes, 6, margin=0.01):
        if min(np.abs(axis - x).min() for axis, x in zip(axes, point, strict=True)) < 1e-4:
            continue  # straight lines have a kink there
        np.testing.assert_allclose(
            smooth.gradient(point), approx_fprime(point, lambda x: float(smooth(x)), 1e-6), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            smooth.hessian(point), np.atleast_2d(approx_fprime(point, smooth.gradient, 1e-6)), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("form", "power"), [(Form("none", 1), 2), (Form(), 4), (Form("logarithm"), 4)], ids=str)
def test_errors_fall_with_the_power_of_the_spacing(dimensions, form, power):
    axes = [np.linspace(-1, 1, 9)] * dimensions
    finer = [np.linspace(-1, 1, 17)] * dimensions
    points = inside(axes, 400)
    true = positive(*points.T)
    coarse, fine = (np.abs(Interpolant(a, on(a, positive), form)(points) - true).max() for a in (axes, finer))
    assert fine < coarse / 2 ** (power - 0.7)


def test_derivatives_converge():
    axes = FINE[:2]
    smooth = Interpolant(axes, on(axes, lambda a, b: np.exp(a) * np.cos(b)))
    points = inside(axes, 200)
    a, b = points.T
    slope = np.stack([np.exp(a) * np.cos(b), -np.exp(a) * np.sin(b)], axis=-1)
    curve = np.exp(a) * np.array([[np.cos(b), -np.sin(b)], [-np.sin(b), -np.cos(b)]])
    np.testing.assert_allclose(smooth.gradient(points), slope, atol=1e-3)
    np.testing.assert_allclose(smooth.hessian(points), np.moveaxis(curve, -1, 0), atol=2e-2)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("broken", [False, True])
def test_a_grid_has_the_values_at_its_points(dimensions, broken):
    axes = FINE[:dimensions]
    values = on(axes, positive)
    if broken:
        values[(slice(3, 6),) * dimensions] = np.nan
        values[(-1,) * dimensions] = np.inf
    smooth = Interpolant(axes, values)
    fine = [np.linspace(axis[0], axis[-1], 7 + 2 * d) for d, axis in enumerate(axes)]
    points = np.stack(np.meshgrid(*fine, indexing="ij"), axis=-1)
    np.testing.assert_allclose(smooth.on_grid(*fine), smooth(points), rtol=1e-12)
    assert np.isnan(smooth.on_grid(*fine)).any() == broken


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_shapes(dimensions):
    axes = UNEVEN[:dimensions]
    smooth = Interpolant(axes, on(axes, positive))
    for shape in [(), (1,), (0,), (3, 2)]:
        points = np.zeros((*shape, dimensions))
        assert smooth(points).shape == shape
        assert smooth.gradient(points).shape == (*shape, dimensions)
        assert smooth.hessian(points).shape == (*shape, dimensions, dimensions)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("factor", [1 + 1e-12, -1 - 1e-12, np.inf, np.nan])
def test_it_never_extrapolates(dimensions, factor):
    axes = UNEVEN[:dimensions]
    smooth = Interpolant(axes, on(axes, positive))
    for dimension in range(dimensions):
        point = np.zeros(dimensions)
        point[dimension] = factor * axes[dimension][-1]
        message = rf"{DIMENSIONS[dimension]}: expected points from .* never extrapolates"
        for call in (smooth, smooth.gradient, smooth.hessian, lambda x: smooth.on_grid(*x[:, np.newaxis])):
            with pytest.raises(ValueError, match=message):
                call(point)


def test_refusals():
    axis = np.linspace(0, 1, 4)
    smooth = Interpolant([axis, axis], np.zeros((4, 4)))
    for points in (0.5, [0.5], np.zeros((3, 3))):
        with pytest.raises(ValueError, match=r"points: expected shape \(..., 2\)"):
            smooth(points)
    with pytest.raises(ValueError, match="expected 2, one for each dimension, got 1"):
        smooth.on_grid(axis)
    with pytest.raises(ValueError, match=r"expected shape \(4, 4\), got \(4,\)"):
        Interpolant([axis, axis], axis)
    with pytest.raises(ValueError, match="none of them is finite"):
        Interpolant([axis], np.full(4, np.nan))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_short_axis_lowers_the_degree(count):
    # n points determine a polynomial of degree n - 1
    axis = np.linspace(-1, 1, count)
    smooth = Interpolant([axis], 1 + axis ** (count - 1))
    np.testing.assert_allclose(smooth(np.array([[0.3]])), 1 + 0.3 ** (count - 1), rtol=1e-12)
    assert smooth.hessian(np.array([0.3]))[0, 0] == pytest.approx({2: 0, 3: 2, 4: 1.8}[count], abs=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_corner_that_is_not_finite_breaks_its_cells_and_no_others(dimensions, bad, form):
    axes = [np.linspace(-1, 1, 9)] * dimensions
    values = on(axes, positive)
    corner = (2,) * dimensions
    values[corner] = bad
    smooth = Interpolant(axes, values, form)
    points = inside(axes, 500)
    broken = np.all(np.abs(points - axes[0][2]) < 0.25, axis=-1)
    assert broken.any()
    np.testing.assert_array_equal(smooth(points)[broken], bad)
    assert np.isnan(smooth.gradient(points)[broken]).all()
    assert np.isnan(smooth.hessian(points)[broken]).all()
    assert np.isfinite(smooth(points)[~broken]).all()
    assert np.isfinite(smooth.hessian(points)[~broken]).all()
    # on the lattice: what is there
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    np.testing.assert_allclose(smooth(nodes), values, rtol=1e-12)


def test_a_cell_between_minus_and_plus_infinity_is_no_number():
    axis = np.linspace(0, 3, 4)
    smooth = Interpolant([axis], np.array([1.0, np.inf, -np.inf, 1.0]))
    np.testing.assert_array_equal(smooth(np.array([[0.5], [1.5], [2.5]])), [np.inf, np.nan, -np.inf])


def test_mirrored_values_have_a_mirrored_interpolant():
    # Also on the edge between a broken cell and a whole one, where values and derivatives belong to both.
    axis = np.linspace(-1, 1, 9)
    values = on([axis, axis], positive)
    values[6, 2] = np.nan
    one, mirrored = Interpolant([axis, axis], values), Interpolant([axis, axis], values[::-1])
    fine = np.linspace(-1, 1, 33)
    np.testing.assert_allclose(one.on_grid(fine, fine), mirrored.on_grid(fine, fine)[::-1], rtol=1e-12)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    np.testing.assert_array_equal(np.isnan(one.hessian(nodes)), np.isnan(mirrored.hessian(nodes))[::-1])


def test_cells_beside_broken_ones_are_as_good_as_others():
    # A block of a quarter of a paraboloid is not a number. Elsewhere the spline should still be that paraboloid.
    axis = np.linspace(-1, 1, 33)
    values = on([axis, axis], lambda a, b: a**2 + b**2)
    values[20:, 20:] = np.nan
    smooth = Interpolant([axis, axis], values)
    points = inside([axis, axis], 2000)
    whole = np.isfinite(smooth(points))
    np.testing.assert_allclose(smooth(points)[whole], (points[whole] ** 2).sum(-1), atol=1e-4)
    np.testing.assert_allclose(
        smooth.hessian(points)[whole], np.broadcast_to(2 * np.eye(2), (whole.sum(), 2, 2)), atol=0.1
    )


def test_shares_stay_shares():
    axis = np.linspace(-1, 1, 9)
    steps = (axis > 0).astype(float)  # a cubic spline overshoots beside a step
    fine = np.linspace(-1, 1, 401)[:, np.newaxis]
    free = Interpolant([axis], steps)(fine)
    assert free.min() < -0.01
    assert free.max() > 1.01
    clipped = Interpolant([axis], steps, bounds=(0.0, 1.0))
    np.testing.assert_array_equal(clipped(fine), np.clip(free, 0, 1))
    np.testing.assert_array_equal(clipped.on_grid(fine[:, 0]), np.clip(free, 0, 1))


def test_derivatives_vanish_where_values_are_clipped():
    axis = np.linspace(-1, 1, 9)
    fine = np.linspace(-1, 1, 401)[:, np.newaxis]
    clipped = Interpolant([axis], (axis > 0).astype(float), bounds=(0.0, 1.0))
    free = Interpolant([axis], (axis > 0).astype(float))(fine)
    outside = (free < 0) | (free > 1)
    np.testing.assert_array_equal(clipped.gradient(fine)[outside], 0.0)
    np.testing.assert_array_equal(clipped.hessian(fine)[outside], 0.0)


def test_what_counts_as_a_share():
    assert bounds_of("accuracy", np.array([0.0, 1.0, np.nan])) == (0.0, 1.0)
    assert bounds_of("accuracy", np.array([0.0, 1.1])) is None
    assert bounds_of("score", np.array([-0.1, 0.5])) is None
    assert bounds_of("loss", np.array([0.0, 0.5])) is None
    assert bounds_of("accuracy", np.array([np.nan])) is None


def test_which_transforms_fit():
    assert Form("logarithm").fits(np.array([0.1, np.inf, np.nan]))
    assert not Form("logarithm").fits(np.array([0.0, 1.0]))
    assert not Form("root").fits(np.array([-1.0, 1.0]))
    assert Form().fits(np.array([-1.0, 1.0]))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_of_a_grid(dimensions):
    axes = dict(zip(DIMENSIONS, UNEVEN[:dimensions], strict=False))
    values = on(axes.values(), positive)
    surface = xr.Dataset({"loss": (tuple(axes), values), "center_loss": 1.0}, coords=axes)
    points = inside(axes.values())
    expected = Interpolant(axes.values(), values)(points)
    np.testing.assert_array_equal(interpolant(surface)(points), expected)
    # the order in which a file happens to hold dimensions does not matter
    turned = surface.transpose(*reversed(list(axes)))
    np.testing.assert_array_equal(interpolant(turned)(points), expected)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_of_an_adaptive_surface(dimensions):
    names = DIMENSIONS[:dimensions]
    lattice = {f"{name}_node": np.linspace(-1, 1, 9) for name in names}
    rendered = {name: np.linspace(-1, 1, 4) for name in names}  # coarser than the lattice: must not be what is used
    values = on(lattice.values(), positive)
    form = Form("logarithm", 3)
    surface = xr.Dataset(
        {
            "loss": (names, on(rendered.values(), positive)),
            "accuracy": (names, np.full((4,) * dimensions, 0.5)),
            "node_loss": (tuple(lattice), values),
            "node_accuracy": (tuple(lattice), (values > values.mean()).astype(float)),
            "loss_transform": "logarithm",
            "loss_degree": 3,
            "accuracy_transform": "none",
            "accuracy_degree": 1,
        },
        coords=rendered | lattice,
    )
    points = inside(lattice.values())
    smooth = interpolant(surface)
    assert smooth.form == form
    np.testing.assert_array_equal(smooth(points), Interpolant(lattice.values(), values, form)(points))
    accuracy = interpolant(surface, "accuracy")
    assert accuracy.form == Form("none", 1)
    assert accuracy(points).min() >= 0
    assert accuracy(points).max() <= 1


def test_one_of_several_splits(plane):
    both = xr.concat(
        [plane(lambda a, b: a * a + b), plane(lambda a, b: a - b * b)], "split"
    ).assign_coords(split=["train", "test"])  # fmt: skip
    with pytest.raises(ValueError, match=r"choose along split first: surface.sel\(split='train'\)"):
        interpolant(both)
    points = np.array([[0.3, 0.1]])
    assert interpolant(both.sel(split="train"))(points) == pytest.approx(0.19)
    assert interpolant(both.sel(split="test"))(points) == pytest.approx(0.29)


def test_an_unknown_variable_is_refused_with_those_there_are(plane):
    with pytest.raises(ValueError, match="no variable 'acuracy' on the surface; it has loss, center_loss"):
        interpolant(plane(lambda a, b: a + b), "acuracy")
