"""A self-test on the user's own model: whether what a surface would show is the model's loss, and along what.

Each check takes another road than the code that it looks at: losses are summed in a plain loop, norms of filters by
loops over slices, weights are put in place by hand. A model can defeat a surface without an error (it caches or packs
its weights, draws random numbers, counts its calls), and then the surface looks like any other.
"""

from landscape.selfcheck.checks import CHECKS
from landscape.selfcheck.report import CheckReport, CheckResult, check

__all__ = ["CHECKS", "CheckReport", "CheckResult", "check"]
