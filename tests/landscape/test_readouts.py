"""Read-outs of surfaces, against closed forms and against dense evaluation."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import special
from torch import nn

from landscape import EmpiricalRisk, loss_surface
from landscape.interpolation import DIMENSIONS
from landscape.level_sets import area_below
from landscape.readouts import READOUTS, convex_share, curvature_at, gradient_at, minimum, radius_of_rise


def sampled(function, spans=(1.0, 1.0), points=33):
    """A grid surface of a function of as many coordinates as there are spans."""
    names = DIMENSIONS[: len(spans)]
    axes = dict(zip(names, (np.linspace(-span, span, points) for span in spans), strict=True))
    loss = function(*np.meshgrid(*axes.values(), indexing="ij"))
    center = float(function(*np.zeros(len(spans))))
    return xr.Dataset({"loss": (names, loss), "center_loss": center}, coords=axes)


def quadratic(matrix, middle, bottom=0.25):
    """bottom + (x - m)' A (x - m) / 2, with Hessian A."""
    matrix, middle = np.asarray(matrix, dtype=float), np.asarray(middle, dtype=float)

    def function(*x):
        offset = np.stack(np.broadcast_arrays(*x), axis=-1) - middle
        return bottom + 0.5 * np.einsum("...i,ij,...j->...", offset, matrix, offset)

    return function


# Spans are not equal, axes of ellipses are not those of the plane, minima are off the center.
QUADRATICS = {
    "line": ([[3.0]], [0.2], (0.8,)),
    "plane": ([[2.0, 0.7], [0.7, 5.0]], [0.1, -0.2], (1.0, 1.5)),
    "saddle": ([[2.0, 1.0], [1.0, -3.0]], [0.0, 0.3], (1.5, 0.5)),
    "volume": ([[2.0, 0.5, 0.0], [0.5, 3.0, -0.4], [0.0, -0.4, 4.0]], [0.1, -0.2, 0.05], (1.0, 0.5, 0.8)),
}


@pytest.fixture(params=QUADRATICS.values(), ids=QUADRATICS)
def known(request):
    matrix, middle, spans = request.param
    return np.array(matrix), np.array(middle), sampled(quadratic(matrix, middle), spans, 9)


def rippled(a, b):
    """Neither polynomial nor symmetric; several basins in the plane."""
    return 1.5 + np.sin(3 * a + 0.5) * np.cos(2 * b - 0.4) + 0.6 * (a - 0.2) ** 2 + 0.4 * b**2


def dense(function, span, count=2001):
    """Values in the middles of equal cells."""
    axis = span * ((2 * np.arange(count) + 1) / count - 1)
    return axis, function(*np.meshgrid(axis, axis, indexing="ij"))


# curvature and gradient


def test_curvature_and_gradient_of_quadratics(known):
    matrix, middle, surface = known
    for at in (None, surface["loss"].ndim * [0.3]):
        place = np.zeros(len(middle)) if at is None else np.array(at)
        found = curvature_at(surface, at)
        np.testing.assert_allclose(found.hessian, matrix, atol=1e-10)
        np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(matrix), atol=1e-10)
        assert found.trace == pytest.approx(np.trace(matrix))
        assert found.mean == pytest.approx(np.trace(matrix) / len(matrix))
        assert found.error == pytest.approx(0, abs=1e-10)
        np.testing.assert_allclose(gradient_at(surface, at), matrix @ (place - middle), atol=1e-10)


def test_curvature_of_another_function():
    # exp(a) cos(b): Hessian exp(a) [[cos b, -sin b], [-sin b, -cos b]]
    surface = sampled(lambda a, b: np.exp(a) * np.cos(b))
    a, b = 0.3, -0.5
    expected = np.exp(a) * np.array([[np.cos(b), -np.sin(b)], [-np.sin(b), -np.cos(b)]])
    np.testing.assert_allclose(curvature_at(surface, (a, b)).hessian, expected, atol=2e-3)
    np.testing.assert_allclose(gradient_at(surface, (a, b)), np.exp(a) * np.array([np.cos(b), -np.sin(b)]), atol=1e-5)


@pytest.mark.parametrize("points", [9, 17, 33, 65])
def test_the_error_of_curvatures_is_less_than_reported(points):
    # rippled: second derivatives by hand
    exact = np.array(
        [
            [-9 * np.sin(0.5) * np.cos(-0.4) + 1.2, -6 * np.cos(0.5) * np.sin(-0.4)],
            [-6 * np.cos(0.5) * np.sin(-0.4), -4 * np.sin(0.5) * np.cos(-0.4) + 0.8],
        ]
    )
    found = curvature_at(sampled(rippled, (2.0, 2.0), points))
    error = np.linalg.norm(found.hessian - exact, 2)
    assert error < found.error < 20 * error


def test_the_error_of_a_curvature_is_unknown_on_a_small_or_even_grid():
    for points in (3, 8):
        assert np.isnan(curvature_at(sampled(rippled, points=points)).error)


def test_curvature_beside_a_hole_is_not_a_number():
    surface = sampled(lambda a, b: a**2 + b**2)
    surface["loss"].values[18, 16] = np.nan
    near, far = curvature_at(surface, (0.1, 0.01)), curvature_at(surface, (-0.7, 0.7))
    assert np.isnan(near.hessian).all()
    assert np.isnan(near.eigenvalues).all()
    assert np.isnan([near.trace, near.mean]).all()
    assert np.isfinite(far.trace)


def test_straight_lines_have_no_curvature():
    surface = sampled(lambda a, b: a**2 + b**2, points=2)
    for function in (curvature_at, convex_share):
        with pytest.raises(ValueError, match="at least 3 points along alpha, got 2"):
            function(surface)
    assert curvature_at(sampled(lambda a, b: a**2 + b**2, points=3)).trace == pytest.approx(4)


@pytest.mark.parametrize("read", [curvature_at, gradient_at])
def test_outside_is_refused(read):
    with pytest.raises(ValueError, match="never extrapolates"):
        read(sampled(lambda a, b: a + b), (0.0, 1.1))


# convex share


def test_quadratics_are_convex_everywhere_or_nowhere(known):
    matrix, _, surface = known
    assert convex_share(surface, points=20) == (1.0 if np.linalg.eigvalsh(matrix)[0] > 0 else 0.0)


@pytest.mark.parametrize(
    ("function", "spans", "share"),
    [
        # second derivative 6 a: convex for positive a
        (lambda a: a**3, (1.0,), 1 / 2),
        # Hessian diag(6 a + 3, 2): convex from a = -1/2
        (lambda a, b: a**3 + 1.5 * a**2 + b**2, (1.0, 2.0), 3 / 4),
        # diag(6 a, 6 b)
        (lambda a, b: a**3 + b**3, (1.0, 1.0), 1 / 4),
        # diag(6 a, 6 b, 6 c)
        (lambda a, b, c: a**3 + b**3 + c**3, (1.0, 0.5, 1.0), 1 / 8),
        # the edge of convexity: flat in some heading, or in all
        (lambda a, b: (a + 2 * b) ** 2, (1.0, 1.0), 1.0),
        (lambda a, b: 3 + 5 * a - 2 * b, (1.0, 1.0), 1.0),
        (lambda a, b: 7 + 0 * a * b, (1.0, 1.0), 1.0),
        # product: Hessian [[0, 1], [1, 0]]
        (lambda a, b: a * b, (1.0, 1.0), 0.0),
    ],
)
def test_convex_shares(function, spans, share):
    assert convex_share(sampled(function, spans, 9), points=40) == share


def test_the_convex_share_of_another_function():
    # cos(2a) cos(2b): eigenvalues -4 cos(2a) cos(2b) ± 4 sin(2a) sin(2b), so -4 cos(2a ± 2b): convex where both
    # cosines are at most 0
    axis, _ = dense(rippled, 2.0, 1000)
    a, b = np.meshgrid(axis, axis)
    expected = ((np.cos(2 * a + 2 * b) <= 0) & (np.cos(2 * a - 2 * b) <= 0)).mean()
    surface = sampled(lambda a, b: np.cos(2 * a) * np.cos(2 * b), (2.0, 2.0), 65)
    assert 0.2 < expected < 0.3
    assert convex_share(surface) == pytest.approx(expected, abs=0.005)


def test_tolerance_forgives_a_little_negative_curvature():
    surface = sampled(lambda a, b: a**2 - 0.005 * b**2)  # eigenvalues 2 and -0.01
    assert convex_share(surface, points=10) == 0.0
    assert convex_share(surface, points=10, tolerance=0.02) == 1.0
    with pytest.raises(ValueError, match="tolerance of 0 or more"):
        convex_share(surface, tolerance=-1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_convex(bad):
    surface = sampled(lambda a, b: a + b, points=5)
    surface["loss"].values[-1, :] = bad  # breaks the last of four columns of cells
    assert convex_share(surface, points=40, tolerance=1e3) == 0.75


# minimum


def test_minima_of_quadratics(known):
    matrix, middle, surface = known
    found = minimum(surface)
    if np.linalg.eigvalsh(matrix)[0] > 0:
        np.testing.assert_allclose(found.at, middle, atol=1e-6)
        assert found.loss == pytest.approx(0.25, abs=1e-12)
        assert found.offset == pytest.approx(np.linalg.norm(middle), abs=1e-6)
        assert found.depth == pytest.approx(0.5 * middle @ matrix @ middle)
        assert not found.on_border
    else:
        # On the border beta = -0.5, where 0.25 + a^2 + a (b - 0.3) - 1.5 (b - 0.3)^2 is lowest at a = -(b - 0.3) / 2.
        assert found.at == pytest.approx((0.4, -0.5), abs=1e-6)
        assert found.on_border


def test_a_tilted_plane_is_lowest_in_its_corner():
    found = minimum(sampled(lambda a, b: 2 + a - 3 * b, (1.0, 2.0), 5))
    assert found.at == (-1.0, 2.0)
    assert (found.loss, found.depth, found.offset) == pytest.approx((-5, 7, 5**0.5))
    assert found.on_border


def test_the_minimum_of_another_function():
    axis, values = dense(rippled, 2.0, 4001)
    place = np.unravel_index(values.argmin(), values.shape)
    found = minimum(sampled(rippled, (2.0, 2.0), 65))
    assert found.at == pytest.approx([axis[i] for i in place], abs=2e-3)
    assert found.loss == pytest.approx(values.min(), abs=1e-5)


@pytest.mark.parametrize("function", [lambda a, b: 3 + 0 * a * b, lambda a, b: 1 + b**2], ids=["flat", "valley"])
def test_the_center_is_the_minimum_where_nothing_is_lower(function):
    found = minimum(sampled(function, points=17))
    assert (found.at, found.offset, found.depth) == ((0.0, 0.0), 0.0, 0.0)
    assert not found.on_border


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_minima_do_not_depend_on_the_unit(scale):
    found = minimum(sampled(lambda a, b: scale * np.cosh(a - 0.123) * np.cosh(2 * (b + 0.345)), points=33))
    assert found.at == pytest.approx((0.123, -0.345), abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_minimum_passes_over_holes(bad):
    surface = sampled(lambda a, b: (a - 0.5) ** 2 + (b + 0.25) ** 2, points=17)
    surface["loss"].values[:6] = bad  # alpha up to -0.375
    found = minimum(surface)
    assert found.at == pytest.approx((0.5, -0.25), abs=1e-3)
    # the lowest point itself in a hole: the best that is left, which is no lower than the truth
    surface["loss"].values[11:14] = bad
    found = minimum(surface)
    assert np.isfinite(found.loss)
    assert found.loss >= 0
    assert not 0.25 < found.at[0] < 0.75


def test_a_center_that_is_not_finite_has_no_depth():
    surface = sampled(lambda a, b: a**2 + b**2, points=17)
    surface["loss"].values[8, 8] = np.nan
    assert np.isnan(minimum(surface).depth)


# areas


@pytest.mark.parametrize("level", [0.28, 0.32])
@pytest.mark.parametrize("which", ["line", "plane", "volume"])
def test_areas_of_ellipsoids(which, level):
    # (x - m)' A (x - m) < 2 (level - bottom): an ellipsoid with semi-axes sqrt(2 (level - bottom) / eigenvalue)
    matrix, middle, spans = QUADRATICS[which]
    surface = sampled(quadratic(matrix, middle), spans, 9)
    matrix, middle, n = np.array(matrix), np.array(middle), len(middle)
    ball = np.pi ** (n / 2) / special.gamma(n / 2 + 1)
    expected = ball * (2 * (level - 0.25)) ** (n / 2) / np.sqrt(np.linalg.det(matrix))
    found = area_below(surface, level)
    assert found.area == pytest.approx(expected, rel={1: 1e-6, 2: 1e-3, 3: 3e-2}[n])
    assert abs(found.area - expected) <= found.error + 1e-12
    whole = np.prod([2 * surface[name][-1].item() for name in surface["loss"].dims])
    assert found.share == pytest.approx(found.area / whole)
    center_is_below = 0.25 + 0.5 * middle @ matrix @ middle < level
    assert found.basin == pytest.approx(found.area if center_is_below else 0.0)
    assert not found.reaches_border
    assert found.undefined == 0


@pytest.mark.parametrize("points", [4, 9, 50, 51])
def test_areas_do_not_depend_on_the_grid(points):
    surface = sampled(quadratic([[2.0, 0.7], [0.7, 5.0]], [0.1, -0.2]), (1.0, 1.5), points)
    expected = 2 * np.pi * 0.25 / np.sqrt(2 * 5 - 0.49)
    found = area_below(surface, 0.5)
    assert found.area == pytest.approx(expected, rel=1e-3)
    assert found.basin == pytest.approx(found.area)


def test_the_area_below_a_straight_line_is_exact():
    # a + b < 0.5 on [-1, 1] x [-2, 2]: at each a, b from -2 to 0.5 - a, so 2.5 - a: in all 5
    found = area_below(sampled(lambda a, b: a + b, (1.0, 2.0), 5), 0.5)
    assert found.area == pytest.approx(5, rel=1e-12)
    assert found.basin == pytest.approx(5, rel=1e-12)
    assert found.reaches_border
    assert found.error == pytest.approx(0, abs=1e-12)
    # and of a volume: a + b + c < -2 is a corner with volume 1/6
    corner = area_below(sampled(lambda a, b, c: a + b + c, (1.0,) * 3, 5), -2.0)
    assert corner.area == pytest.approx(1 / 6, rel=1e-12)
    assert corner.basin == 0
    for level in (-1.7, -0.9, 0.0, 0.2, 1.4, 2.9):
        # Irwin-Hall: the sum of three uniform numbers on [0, 1] is below x with this probability
        x = (level + 3) / 2
        share = sum((-1) ** k * special.comb(3, k) * max(x - k, 0) ** 3 / 6 for k in range(4))
        assert area_below(sampled(lambda a, b, c: a + b + c, (1.0,) * 3, 5), level).share == pytest.approx(share)


@pytest.mark.parametrize(("level", "share"), [(0.0, 0.0), (2.99, 0.0), (3.01, 1.0), (np.inf, 1.0), (-np.inf, 0.0)])
def test_all_or_nothing(level, share):
    found = area_below(sampled(lambda a, b: 3 + 0 * a * b, points=5), level)
    assert (found.share, found.basin) == pytest.approx((share, 4 * share))
    assert found.reaches_border == bool(share)


def test_no_level_no_area():
    assert np.isnan(area_below(sampled(lambda a, b: a + b), np.nan).area)


@pytest.mark.parametrize("level", [0.9, 1.2, 2.0])
def test_areas_of_another_function(level):
    _, values = dense(rippled, 2.0)
    found = area_below(sampled(rippled, (2.0, 2.0), 65), level)
    assert found.share == pytest.approx((values < level).mean(), abs=1e-4)


def test_only_the_part_around_the_center_is_its_basin():
    # a^2 (a^2 - 1)^2: three valleys along b, below 0.05 where |a| |a^2 - 1| < sqrt(0.05)
    def valleys(a, b):
        return a**2 * (a**2 - 1) ** 2 + 0 * b

    roots = np.roots([1, 0, -1, np.sqrt(0.05)])
    edges = np.sort(np.abs(roots.real))  # of a^3 - a + s: the largest is that of the negative root
    expected = 2 * edges[0]
    found = area_below(sampled(valleys, (1.3, 0.5), 129), 0.05)
    assert found.basin == pytest.approx(expected, rel=1e-3)
    assert found.area == pytest.approx(expected + 2 * (edges[2] - edges[1]), rel=1e-3)
    assert found.reaches_border


@pytest.mark.parametrize("points", [16, 17])
def test_a_basin_smaller_than_a_step_is_found(points):
    # radius 1e-3, where the rendering has steps of 4e-3 and an even grid has none at the center
    found = area_below(sampled(lambda a, b: a**2 + b**2, points=points), 1e-6)
    assert found.basin > 0
    assert found.basin == found.area


def test_holes_in_the_area():
    surface = sampled(lambda a, b: a + 0 * b, points=5)
    surface["loss"].values[1, :] = np.nan  # alpha = -0.5 breaks the cells from -1 to 0
    found = area_below(surface, 0.5)
    assert found.undefined == pytest.approx(2.0, abs=0.02)
    assert found.area == pytest.approx(1.0, abs=0.02)
    surface["loss"].values[1, :] = np.inf  # known to be above
    found = area_below(surface, 0.5)
    assert found.undefined == 0
    assert found.area == pytest.approx(1.0, abs=0.02)


def test_a_center_in_a_hole_has_no_basin():
    surface = sampled(lambda a, b: a + b, points=5)
    surface["loss"].values[2, 2] = np.nan
    assert np.isnan(area_below(surface, 0.5).basin)


# radii


def test_radii_of_a_bowl_around_the_center():
    # k r^2 / 2 = rise
    for n, spans in [(1, (1.0,)), (2, (1.0, 1.5)), (3, (1.0, 0.8, 1.2))]:
        surface = sampled(quadratic(4 * np.eye(n), np.zeros(n)), spans, 9)
        found = radius_of_rise(surface, 0.5)
        assert (found.smallest, found.mean) == pytest.approx((0.5, 0.5), rel=1e-9)
        assert found.rays == (2 if n == 1 else 360)
        assert found.censored == 0
        assert not found.mean_is_lower_bound
        assert not found.smallest_is_lower_bound


def test_radii_of_an_ellipse():
    # r(angle) = sqrt(2 rise / (k cos^2 + l sin^2)): smallest sqrt(2 rise / l); the mean is (2 / pi) sqrt(2 rise / l)
    # K(1 - k / l), with the complete elliptic integral of the parameter m
    found = radius_of_rise(sampled(quadratic(np.diag([1.0, 9.0]), [0, 0]), (1.0, 1.0), 9), 0.25)
    assert found.smallest == pytest.approx(np.sqrt(0.5 / 9), rel=1e-9)
    assert found.mean == pytest.approx(2 / np.pi * np.sqrt(0.5 / 9) * special.ellipk(1 - 1 / 9), rel=1e-9)


def test_radii_of_an_ellipsoid():
    # Off the axes too, the smallest radius is that of the largest eigenvalue, to the density of the rays.
    matrix = np.array([[2.0, 0.5, 0.0], [0.5, 3.0, -0.4], [0.0, -0.4, 6.0]])
    found = radius_of_rise(sampled(quadratic(matrix, np.zeros(3)), (1.0,) * 3, 9), 0.3, rays=4000)
    draws = np.random.default_rng(0).standard_normal((400_000, 3))
    draws /= np.linalg.norm(draws, axis=1, keepdims=True)
    radii = np.sqrt(0.6 / np.einsum("ki,ij,kj->k", draws, matrix, draws))
    assert found.smallest == pytest.approx(np.sqrt(0.6 / np.linalg.eigvalsh(matrix)[-1]), rel=1e-3)
    assert found.mean == pytest.approx(radii.mean(), rel=1e-3)


def test_the_first_rise_counts():
    # sin^2 rises to 1/2 at pi/4 first, and falls again: the basins behind the ridge do not count
    surface = sampled(lambda a, b: np.sin(np.hypot(a, b)) ** 2, (5.0, 5.0), 129)
    assert radius_of_rise(surface, 0.5).mean == pytest.approx(np.pi / 4, abs=1e-3)


def test_rays_that_leave_the_plane_are_censored():
    # b^2 = 0.25 at |b| = 0.5: a ray at an angle t goes 0.5 / |sin t|, or leaves at 1 / |cos t| before
    found = radius_of_rise(sampled(lambda a, b: 0 * a + b**2, points=9), 0.25)
    angles = 2 * np.pi * np.arange(360) / 360
    with np.errstate(divide="ignore"):
        to_border = 1 / np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles)))
        radii = 0.5 / np.abs(np.sin(angles))
    assert found.censored == (radii > to_border).sum() > 100
    assert found.mean == pytest.approx(np.minimum(radii, to_border).mean(), rel=1e-9)
    assert found.mean_is_lower_bound
    assert found.smallest == pytest.approx(0.5)
    assert not found.smallest_is_lower_bound


def test_no_rise_at_all():
    found = radius_of_rise(sampled(lambda a, b: 0 * a * b, (1.0, 0.5)), 1.0)
    assert found.censored == found.rays == 360
    assert found.smallest == pytest.approx(0.5)
    assert found.mean_is_lower_bound
    assert found.smallest_is_lower_bound


def test_rays_into_holes():
    surface = sampled(lambda a: 0 * a, (1.0,), 9)
    surface["loss"].values[-2] = np.nan  # alpha = 0.75 breaks what is beyond 0.5
    found = radius_of_rise(surface, 1.0)
    assert (found.smallest, found.mean, found.censored) == (pytest.approx(0.5, abs=1e-6), pytest.approx(0.75), 2)
    surface["loss"].values[-2] = np.inf  # a rise, and how far away is known
    found = radius_of_rise(surface, 1.0)
    assert (found.smallest, found.censored) == (pytest.approx(0.5, abs=1e-6), 1)
    assert not found.smallest_is_lower_bound


def test_a_center_that_is_not_finite_has_no_radius():
    surface = sampled(lambda a, b: a + b, points=5)
    surface["loss"].values[2, 2] = np.inf
    found = radius_of_rise(surface, 1.0)
    assert np.isnan([found.smallest, found.mean]).all()
    assert found.censored == 0


def test_radii_of_another_function():
    # The smallest over a disk's rays is where the dense plane first exceeds the level.
    axis, values = dense(rippled, 2.0)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    level = rippled(0.0, 0.0) + 0.2
    expected = np.hypot(a, b)[values > level].min()
    assert radius_of_rise(sampled(rippled, (2.0, 2.0), 65), 0.2).smallest == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize(
    ("settings", "message"), [((0.0,), "positive number, got 0.0"), ((np.nan,), "got nan"), ((1.0, 0), "at least 1")]
)
def test_radii_refuse(settings, message):
    with pytest.raises(ValueError, match=message):
        radius_of_rise(sampled(lambda a, b: a + b), *settings)


# adaptive surfaces


class Rippled(nn.Module):
    """A network whose loss is ``rippled`` of its two weights."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 2, dtype=torch.float64))

    def forward(self, ones):
        a, b = self.place[0]
        ripples = torch.sin(3 * a + 0.5) * torch.cos(2 * b - 0.4)
        return ones * (1.5 + ripples + 0.6 * (a - 0.2) ** 2 + 0.4 * b**2)


def test_adaptive_surfaces_read_like_dense_ones():
    risk = EmpiricalRisk(Rippled(), [torch.ones(2).double()], loss=lambda model, batch: model(batch))
    directions = [{"place": torch.eye(2).double()[[row]]} for row in range(2)]
    # Rendered coarsely: what is read comes from the lattice.
    surface = loss_surface(risk, directions, span=2.0, points=5, tolerance=2e-4, progress=False)
    assert surface.attrs["evaluations"] < 3000
    axis, values = dense(rippled, 2.0)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    center = rippled(0.0, 0.0)
    place = np.unravel_index(values.argmin(), values.shape)
    found = minimum(surface)
    assert found.at == pytest.approx([axis[i] for i in place], abs=5e-3)
    assert found.depth == pytest.approx(center - values.min(), abs=1e-3)
    for level in (0.9, 1.5):
        assert area_below(surface, level).share == pytest.approx((values < level).mean(), abs=2e-3)
    radius = radius_of_rise(surface, 0.2)
    assert radius.smallest == pytest.approx(np.hypot(a, b)[values > center + 0.2].min(), abs=3e-3)
    np.testing.assert_allclose(
        gradient_at(surface), [3 * np.cos(0.5) * np.cos(0.4) - 0.24, 2 * np.sin(0.5) * np.sin(0.4)], atol=0.01
    )
    curvature = curvature_at(surface)
    assert curvature.hessian[0, 0] == pytest.approx(1.2 - 9 * np.sin(0.5) * np.cos(0.4), abs=curvature.error)
    step = axis[1] - axis[0]
    rows, columns = np.gradient(values, step)
    (aa, ab), bb = np.gradient(rows, step), np.gradient(columns, step)[1]
    convex = (aa + bb >= 0) & (aa * bb - ab**2 >= 0)
    assert convex_share(surface) == pytest.approx(convex.mean(), abs=0.01)


# the table


def test_the_table_holds_what_the_functions_find():
    surface = sampled(quadratic([[2.0, 0.7], [0.7, 5.0]], [0.1, -0.2]), (1.0, 1.5), 9)
    found = {name: readout(surface, rise=0.2, level=0.6) for name, readout in READOUTS.items()}
    center = 0.25 + 0.5 * np.array([0.1, -0.2]) @ [[2.0, 0.7], [0.7, 5.0]] @ np.array([0.1, -0.2])
    area = 2 * np.pi / np.sqrt(2 * 5 - 0.49)  # for each unit of loss above the bottom
    radius = radius_of_rise(surface, 0.2)
    expected = {
        "center_loss": center,
        "curvature_trace": 7.0,
        "largest_curvature": np.linalg.eigvalsh([[2.0, 0.7], [0.7, 5.0]])[1],
        "smallest_radius_of_rise": radius.smallest,
        "mean_radius_of_rise": radius.mean,
        "censored_rays": 0.0,
        "area_below_own_level": area * (center + 0.2 - 0.25),
        "area_below_common_level": area * 0.35,
        "minimum_offset": 0.05**0.5,
        "minimum_depth": center - 0.25,
        "convex_share": 1.0,
    }
    assert found == pytest.approx(expected, rel=1e-3)
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("spans", [(1.0,), (1.0, 1.0), (1.0, 1.0, 1.0)], ids=["line", "plane", "volume"])
def test_the_table_is_for_lines_and_volumes_too(spans):
    surface = sampled(quadratic(np.eye(len(spans)), np.zeros(len(spans))), spans, 5)
    for readout in READOUTS.values():
        assert np.isfinite(readout(surface, rise=0.2, level=0.6))


@pytest.mark.parametrize("name", [name for name in READOUTS if name != "center_loss"])
def test_splits_are_read_one_at_a_time(name):
    surface = sampled(lambda a, b: a**2 + b**2, points=5)
    with pytest.raises(ValueError, match="choose along split first"):
        READOUTS[name](xr.concat([surface, surface], "split").assign_coords(split=["train", "test"]), rise=1, level=1)


def test_flatter_models_read_flatter():
    # The sign conventions that the table documents, on bowls that differ in steepness alone.
    flat, sharp = (sampled(quadratic(k * np.eye(2), [0.05, 0.0]), points=17) for k in (1.0, 4.0))
    read = {name: [readout(s, rise=0.2, level=0.6) for s in (flat, sharp)] for name, readout in READOUTS.items()}
    for name in ("curvature_trace", "largest_curvature"):
        assert read[name][0] < read[name][1]
    for name in ("smallest_radius_of_rise", "mean_radius_of_rise", "area_below_own_level", "area_below_common_level"):
        assert read[name][0] > read[name][1]
