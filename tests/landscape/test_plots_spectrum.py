"""Spectra: densities on a logarithmic axis, the height of one eigenvalue, extreme nodes, and captions."""

import io

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from landscape.plots.spectrum import spectrum, spectrum_panels


def axes():
    return Figure(layout="constrained").add_subplot()


def rendered(figure):
    with io.BytesIO() as file:
        figure.savefig(file, dpi=40)
        return file.tell()


def made(nodes, bandwidth=0.1, size=1000, **attrs):
    """The density of equal weights at these nodes (probe, step)."""
    nodes = np.asarray(nodes, dtype=float)
    eigenvalue = np.linspace(np.nanmin(nodes) - 4 * bandwidth, np.nanmax(nodes) + 4 * bandwidth, 401)
    there = np.isfinite(nodes)
    weights = there / there.sum(1, keepdims=True)
    bells = np.exp(-(((eigenvalue - np.nan_to_num(nodes)[..., None]) / bandwidth) ** 2) / 2)
    each = (weights[..., None] * bells).sum(1) / (bandwidth * np.sqrt(2 * np.pi))
    density = each.mean(0)
    return xr.Dataset(
        {
            "density": ("eigenvalue", density),
            "density_low": ("eigenvalue", density / 2),
            "density_high": ("eigenvalue", density * 2),
            "node": (("probe", "step"), nodes),
            "weight": (("probe", "step"), weights),
        },
        coords={"eigenvalue": eigenvalue},
        attrs={"matrix": "Hessian", "size": size, "bandwidth": bandwidth, "probes": len(nodes), "steps": nodes.shape[1]}
        | {"products": nodes.size, "seed": 3, "examples": 2000, "converged": 1}
        | attrs,
    )


@pytest.fixture
def density():
    return made([[-1.0, 0.0, 2.0], [-0.5, 0.5, 3.0]])


def curve_of(ax):
    (line,) = [one for one in ax.lines if len(one.get_xdata()) > 100]
    return line


def dashed_of(ax):
    (line,) = [one for one in ax.lines if one.get_linestyle() == "--"]
    return line.get_ydata()[0]


def words(figure):
    """The caption without what stands between its parts, which is a semicolon or the end of a line."""
    return " ".join(figure.get_supxlabel().replace(";", "").split())


def test_the_density_is_drawn_on_a_logarithmic_axis(density):
    ax = axes()
    assert spectrum(density, ax) is ax
    line = curve_of(ax)
    above = density["density"].values > 1e-3
    assert line.get_xdata() == pytest.approx(density["eigenvalue"].values)
    assert line.get_ydata()[above] == pytest.approx(density["density"].values[above])
    assert (ax.get_yscale(), ax.get_xscale()) == ("log", "linear")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("eigenvalue (Hessian)", "density")


def test_the_height_of_one_eigenvalue_and_the_floor(density):
    # One of 1000 eigenvalues under a Gaussian of width 0.1: the peak is 1 / (1000 * 0.1 * sqrt(2 pi)) = 0.0039894.
    ax = spectrum(density, axes())
    assert dashed_of(ax) == pytest.approx(0.0039894, rel=1e-4)
    bottom, top = ax.get_ylim()
    assert bottom == pytest.approx(0.00039894, rel=1e-4)
    assert top >= density["density_high"].max()


def test_a_single_eigenvalue_reaches_the_dashed_line():
    # 99 eigenvalues at 0 and one at 5: the peak at 5 is the dashed line.
    nodes = np.append(np.zeros(99), 5.0)[None]
    ax = spectrum(made(nodes, size=100), axes())
    line = curve_of(ax)
    far = line.get_xdata() > 4
    assert line.get_ydata()[far].max() == pytest.approx(dashed_of(ax), rel=0.01)


def test_the_interval_is_shaded(density):
    (band,) = spectrum(density, axes()).collections
    tops = band.get_paths()[0].vertices[:, 1]
    assert tops.max() == pytest.approx(float(density["density_high"].max()))


def test_without_an_interval_nothing_is_shaded(density):
    bare = density.assign(density_low=density["density"] * np.nan, density_high=density["density"] * np.nan)
    ax = spectrum(bare, axes())
    assert not any(len(path.vertices) for band in ax.collections for path in band.get_paths())
    figure = spectrum_panels({"one": bare})
    assert "shaded" not in words(figure)
    assert "shaded: pointwise 95 % t interval over probes" in words(spectrum_panels({"one": density}))
    assert rendered(figure) > 1000


def test_extreme_nodes_are_ticks(density):
    marks = [list(one.get_xdata()) for one in spectrum(density, axes()).lines if one.get_marker() == "|"]
    assert marks == [[-1.0, -0.5], [2.0, 3.0]]


def test_nodes_of_an_iteration_that_ended_early_are_missing():
    early = made([[-1.0, 2.0, np.nan], [-0.5, 0.5, 3.0]])
    marks = [list(one.get_xdata()) for one in spectrum(early, axes()).lines if one.get_marker() == "|"]
    assert marks == [[-1.0, -0.5], [2.0, 3.0]]
    (panel,) = spectrum_panels({"one": early}).axes
    assert panel.get_title() == "one\nnodes −1 to 3"


def concentrated(largest=100.0):
    return made([np.append(np.linspace(-1, 1, 39), largest)], bandwidth=largest / 100)


def test_far_outliers_ask_for_a_symlog_axis(density):
    ax = spectrum(concentrated(), axes())
    assert ax.get_xscale() == "symlog"
    low, high = ax.get_xlim()
    assert low <= -1 - 4
    assert high >= 100 + 4
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert ticks == [0, 10, 100]
    assert rendered(ax.figure) > 1000


@pytest.mark.parametrize(("bulk", "scale"), [(0.04, "symlog"), (0.2, "linear")])
def test_the_bulk_must_be_within_a_twentieth_of_the_largest(bulk, scale):
    nodes = np.append(np.linspace(-bulk, bulk, 39), 1.0)[None]
    assert spectrum(made(nodes, bandwidth=0.01), axes()).get_xscale() == scale


def test_ticks_of_a_symlog_axis_do_not_overlap():
    figure = spectrum_panels({str(largest): concentrated(largest) for largest in (1.0, 30.0, 1e4)})
    assert rendered(figure) > 1000
    for ax in figure.axes:
        boxes = [
            label.get_window_extent() for label in ax.get_xticklabels() if label.get_visible() and label.get_text()
        ]
        assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_panels_have_common_axes(density):
    other = made([[-2.0, 0.0, 1.0], [-0.5, 0.5, 1.0]], size=10, bandwidth=0.2)
    figure = spectrum_panels({"one": density, "other": other}, heading="spectra")
    assert rendered(figure) > 1000
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim() == pytest.approx((-2.8, 3.4))
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] == pytest.approx(0.1 * min(dashed_of(first), dashed_of(second)))
    assert dashed_of(first) != dashed_of(second)
    assert (first.get_ylabel(), second.get_ylabel()) == ("density", "")
    assert [ax.get_title() for ax in figure.axes] == ["one\nnodes −1 to 3", "other\nnodes −2 to 1"]
    assert curve_of(first).get_color() != curve_of(second).get_color()
    assert figure.get_suptitle() == "spectra"


def test_the_lowest_panels_name_the_axis(density):
    figure = spectrum_panels(dict.fromkeys("abc", density))
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False, True, True]


def test_the_caption_says_how_it_was_made(density):
    assert words(spectrum_panels({"one": density})).endswith(
        "stochastic Lanczos quadrature Hessian 1,000 parameters 2,000 examples 2 probes 3 steps 6 products "
        "Gaussian of standard deviation 0.1 seed 3"
    )
    other = density.assign_attrs(examples=500, seed=4)
    caption = words(spectrum_panels({"one": density, "other": other}))
    assert "2,000 / 500 examples" in caption
    assert "seed 3 / 4" in caption
    assert "1,000 parameters" in caption


def test_what_has_not_converged_is_said(density):
    missed = density.assign_attrs(converged=0)
    assert "NOT CONVERGED" not in words(spectrum_panels({"one": density}))
    figure = spectrum_panels({"one": density, "other": missed})
    assert words(figure).endswith("NOT CONVERGED: other")
    assert [("NOT CONVERGED" in ax.get_title()) for ax in figure.axes] == [False, True]
    assert words(spectrum_panels({"other": missed})).endswith("seed 3 NOT CONVERGED")
    unknown = density.copy()
    del unknown.attrs["converged"]
    assert "NOT CONVERGED" in words(spectrum_panels({"one": unknown}))


def test_a_spectrum_from_a_file(density, tmp_path):
    density.to_netcdf(tmp_path / "density.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "density.nc", engine="h5netcdf") as read:
        assert words(spectrum_panels({"one": read})) == words(spectrum_panels({"one": density}))


def test_names_are_text_and_not_formulas(density):
    figure = spectrum_panels({r"$\lost$": density})
    assert figure.axes[0].get_title().startswith(r"\$\lost\$")
    assert rendered(figure) > 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("node"), "expected the variable 'node', got density"),
        (lambda d: d.assign_attrs(size=0), "a positive attribute 'size', got 0"),
        (lambda d: d.assign_attrs(bandwidth=np.nan), "a positive attribute 'bandwidth', got nan"),
        (lambda d: d.drop_attrs().assign_attrs(size=3, bandwidth=1.0), "the attribute 'matrix', got none"),
        (lambda d: d.assign(density=d["density"] * np.nan), "expected finite values, got none"),
        (lambda d: d.expand_dims(model=["a", "b"]), "choose along model first"),
    ],
)
def test_refusals(density, change, message):
    with pytest.raises(ValueError, match=message):
        spectrum(change(density), axes())


def test_no_spectra():
    with pytest.raises(ValueError, match="expected at least one, got none"):
        spectrum_panels({})
