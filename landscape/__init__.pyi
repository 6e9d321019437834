# looking along directions
from .directions import direction_between as direction_between
from .directions import hessian_directions as hessian_directions
from .directions import random_directions as random_directions
from .surface import loss_line as loss_line
from .surface import loss_surface as loss_surface
from .surface import loss_volume as loss_volume
from .selfcheck import CheckReport as CheckReport
from .selfcheck import check as check

# what a surface says without another evaluation
from .interpolation import Interpolant as Interpolant
from .interpolation import interpolant as interpolant
from .level_sets import area_below as area_below
from .readouts import READOUTS as READOUTS
from .readouts import convex_share as convex_share
from .readouts import curvature_at as curvature_at
from .readouts import gradient_at as gradient_at
from .readouts import minimum as minimum
from .readouts import radius_of_rise as radius_of_rise
from .profile import radial_profile as radial_profile
from .profile import radial_profile_band as radial_profile_band

# several models, several minima, a whole run
from .comparison import SurfaceComparison as SurfaceComparison
from .comparison import compare_surfaces as compare_surfaces
from .connectivity import Connection as Connection
from .connectivity import barrier as barrier
from .connectivity import connect as connect
from .connectivity import loss_between as loss_between
from .connectivity import loss_through as loss_through
from .trajectories import Trajectory as Trajectory
from .trajectories import load_point as load_point
from .trajectories import load_points as load_points
from .trajectories import trajectory as trajectory
from .trajectories import trajectory_path as trajectory_path

# files and workers
from .datasets import open_surface as open_surface
from .evaluation.executors import dask_executor as dask_executor
from .evaluation.executors import process_pool as process_pool
from .export import to_csv as to_csv
from .export import to_vtk as to_vtk

# the function that is looked at
from .parameters import Direction as Direction
from .parameters import Point as Point
from .risk import EmpiricalRisk as EmpiricalRisk
from .evaluation.totals import RiskValue as RiskValue

# numbers
from .convexity import eigenvalue_ratio as eigenvalue_ratio
from .curvature import hessian_eigenvalues as hessian_eigenvalues
from .curvature import hessian_frobenius_norm as hessian_frobenius_norm
from .curvature import hessian_operator as hessian_operator
from .curvature import hessian_trace as hessian_trace
from .curvature import plane_hessian as plane_hessian
from .curvature import spectral_density as spectral_density
from .flatness import METRICS as METRICS
from .flatness import Measurement as Measurement
from .flatness import Metric as Metric
from .flatness import adaptive_sharpness as adaptive_sharpness
from .flatness import basin_radius as basin_radius
from .flatness import epsilon_sharpness as epsilon_sharpness
from .flatness import filter_normalized_rise as filter_normalized_rise
from .flatness import filter_normalized_trace as filter_normalized_trace
from .flatness import fisher_rao_norm as fisher_rao_norm
from .flatness import flatness_table as flatness_table
from .flatness import flatness_verdicts as flatness_verdicts
from .flatness import isotropic_rise as isotropic_rise
from .flatness import m_sharpness as m_sharpness
from .flatness import pac_bayes_sigma as pac_bayes_sigma
from .flatness import relative_flatness as relative_flatness
from .flatness import sam_sharpness as sam_sharpness
from .matching import Match as Match
from .matching import match_training_loss as match_training_loss
from .rescaling import Rescaling as Rescaling
from .rescaling import describe_scale_check as describe_scale_check
from .rescaling import rescalings as rescalings
from .rescaling import scale_check as scale_check
from .gradients import gradient_norms as gradient_norms
from .gradients import largest_epsilon_within as largest_epsilon_within
from .gradients import penalty_check as penalty_check
from .gradients import summarize_penalty as summarize_penalty

# numbers about numbers, and pictures
from .statistics import compare_draws as compare_draws
from .statistics import compare_methods as compare_methods
from .statistics import generalization_gaps as generalization_gaps
from .statistics import rank_correlations as rank_correlations
from . import interactive as interactive
from . import plots as plots
from . import report as report
from . import statistics as statistics
