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
from .curvature import hessian_trace as hessian_trace
from .curvature import plane_hessian as plane_hessian
from .flatness import METRICS as METRICS
from .flatness import Measurement as Measurement
from .flatness import ascent_sharpness as ascent_sharpness
from .flatness import flatness_table as flatness_table
from .flatness import gaussian_rise as gaussian_rise
from .gradients import gradient_norms as gradient_norms

# pictures
from . import plots as plots
