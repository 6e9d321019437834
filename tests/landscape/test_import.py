"""What ``import landscape`` offers, and what it does not load."""

import subprocess
import sys

import pytest

import landscape
import landscape.interactive
import landscape.plots
import landscape.report

PUBLIC = [
    "CheckReport",
    "Connection",
    "Direction",
    "EmpiricalRisk",
    "Interpolant",
    "METRICS",
    "Match",
    "Measurement",
    "Metric",
    "Point",
    "READOUTS",
    "Rescaling",
    "RiskValue",
    "SurfaceComparison",
    "Trajectory",
    "adaptive_sharpness",
    "area_below",
    "barrier",
    "basin_radius",
    "check",
    "compare_draws",
    "compare_methods",
    "compare_surfaces",
    "connect",
    "convex_share",
    "curvature_at",
    "dask_executor",
    "describe_scale_check",
    "direction_between",
    "eigenvalue_ratio",
    "epsilon_sharpness",
    "filter_normalized_rise",
    "filter_normalized_trace",
    "fisher_rao_norm",
    "flatness_table",
    "flatness_verdicts",
    "generalization_gaps",
    "gradient_at",
    "gradient_norms",
    "hessian_directions",
    "hessian_eigenvalues",
    "hessian_frobenius_norm",
    "hessian_operator",
    "hessian_trace",
    "interactive",
    "interpolant",
    "isotropic_rise",
    "largest_epsilon_within",
    "load_point",
    "load_points",
    "loss_between",
    "loss_line",
    "loss_surface",
    "loss_through",
    "loss_volume",
    "m_sharpness",
    "match_training_loss",
    "minimum",
    "open_surface",
    "pac_bayes_sigma",
    "penalty_check",
    "plane_hessian",
    "plots",
    "process_pool",
    "radial_profile",
    "radial_profile_band",
    "radius_of_rise",
    "random_directions",
    "rank_correlations",
    "relative_flatness",
    "report",
    "rescalings",
    "sam_sharpness",
    "scale_check",
    "spectral_density",
    "statistics",
    "summarize_penalty",
    "to_csv",
    "to_vtk",
    "trajectory",
    "trajectory_path",
]


def test_table_of_contents():
    assert sorted(landscape.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(landscape))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_entry_is_there(name):
    assert getattr(landscape, name) is not None


def test_plots():
    assert landscape.plots.__all__ == [
        "Scale",
        "common_scale",
        "contour",
        "contour_panels",
        "curve_panels",
        "curves",
        "difference",
        "difference_intervals",
        "difference_panels",
        "eigenvalue_ratio",
        "eigenvalue_ratio_panels",
        "flatness_intervals",
        "flatness_panels",
        "gap_panels",
        "gap_scatter",
        "line",
        "line_panels",
        "metric_heat_map",
        "metric_heat_map_panels",
        "penalty",
        "penalty_panels",
        "profile",
        "profile_panels",
        "readout_intervals",
        "readout_panels",
        "relief",
        "relief_panels",
        "save",
        "spectrum",
        "spectrum_panels",
        "trajectory",
        "trajectory_panels",
        "volume",
        "volume_panels",
    ]
    assert all(hasattr(landscape.plots, name) for name in landscape.plots.__all__)


def test_interactive():
    assert landscape.interactive.__all__ == ["LINKED_CAMERAS", "describe", "overlay", "surfaces", "write_html"]
    assert all(hasattr(landscape.interactive, name) for name in landscape.interactive.__all__)


def test_report():
    assert {"Section", "Table", "Picture", "Interactive", "write_report"} <= set(landscape.report.__all__)
    assert all(hasattr(landscape.report, name) for name in landscape.report.__all__)


def test_no_such_entry():
    with pytest.raises(AttributeError, match="loss_everywhere"):
        _ = landscape.loss_everywhere


PLOTTING = ["matplotlib", "seaborn", "plotly"]
HEAVY = ["torch", "numpy", "pandas", "scipy", "xarray", *PLOTTING]
LOADED = {
    "import": ("import landscape", HEAVY),
    "risk": ("import landscape; landscape.EmpiricalRisk", PLOTTING),
    "numbers": ("import landscape; landscape.flatness_table, landscape.loss_surface", PLOTTING),
    "plots": ("import landscape; landscape.plots", ["plotly", "torch"]),
    "interactive": ("import landscape; landscape.interactive", ["torch"]),
    "report": ("import landscape; landscape.report", ["torch"]),
    "help": (
        "from typer.testing import CliRunner; from landscape.cli import app; "
        "commands = ['--help'], ['surface', '--help'], ['flatness', '-h']; "
        "results = [CliRunner().invoke(app, words) for words in commands]; "
        "assert [result.exit_code for result in results] == [0, 0, 0]; "
        "assert 'MODULE:FUNCTION' in results[1].output",
        HEAVY,
    ),
}


@pytest.mark.parametrize("case", LOADED)
def test_what_is_not_loaded(case):
    # In a process of its own, as this one has loaded everything by now.
    code, unwanted = LOADED[case]
    code += f"; import sys; print(*(name for name in {unwanted!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
