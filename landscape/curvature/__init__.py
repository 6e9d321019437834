"""Curvature of the empirical risk: eigenvalues, trace, norm and density of its Hessian or Gauss-Newton matrix."""

from landscape.curvature.density import spectral_density
from landscape.curvature.eigenvalues import Eigenvalues, hessian_eigenpairs, hessian_eigenvalues
from landscape.curvature.matrix import hessian_operator
from landscape.curvature.planes import plane_hessian
from landscape.curvature.trace import Estimate, hessian_frobenius_norm, hessian_trace

__all__ = [
    "Eigenvalues",
    "Estimate",
    "hessian_eigenpairs",
    "hessian_eigenvalues",
    "hessian_frobenius_norm",
    "hessian_operator",
    "hessian_trace",
    "plane_hessian",
    "spectral_density",
]
