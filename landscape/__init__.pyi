# looking along directions
from .directions import random_directions as random_directions
from .surface import loss_line as loss_line
from .surface import loss_surface as loss_surface
from .surface import loss_volume as loss_volume
from .datasets import open_surface as open_surface
from .interpolation import Interpolant as Interpolant
from .interpolation import interpolant as interpolant

# the function that is looked at
from .parameters import Direction as Direction
from .parameters import Point as Point
from .risk import EmpiricalRisk as EmpiricalRisk
from .totals import RiskValue as RiskValue

# numbers
from .curvature import hessian_eigenvalues as hessian_eigenvalues
from .curvature import hessian_trace as hessian_trace
from .flatness import METRICS as METRICS
from .flatness import Measurement as Measurement
from .flatness import ascent_sharpness as ascent_sharpness
from .flatness import flatness_table as flatness_table
from .flatness import gaussian_rise as gaussian_rise
from .gradients import gradient_norms as gradient_norms

# pictures
from . import plots as plots
