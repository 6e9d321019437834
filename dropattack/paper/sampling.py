"""How far an accuracy may be off because the test data is a sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dropattack.paper.printed import paper_table

__all__ = ["binomial_standard_error", "examples_tested"]


def binomial_standard_error(accuracy: npt.ArrayLike, examples: int) -> npt.NDArray[np.float64]:
    r"""Standard error of the accuracy of one trained network, :math:`100 \sqrt{a (1 - a) / n}` for a share a.

    It speaks of other test examples. What another training seed would change comes on top. Two networks that are tested
    on the same examples share a part of their errors; a standard error of their difference that adds the variances, as
    in the checks here, is too large by that part. The paper prints nothing from which it could be told.

    Args:
        accuracy: in per cent, of any shape.
        examples: n, in the test data.

    Returns:
        Percentage points, of the shape of ``accuracy``.

    Example:
        >>> round(float(binomial_standard_error(90, 5000)), 2)
        0.42
    """
    share = np.asarray(accuracy, dtype=np.float64) / 100
    return np.asarray(100 * np.sqrt(share * (1 - share) / examples))


def examples_tested(dataset: str) -> int:
    """Test examples of a data set in Table 1.

    For PHEME it is 637 there and 643 in the files that the authors published: validation and test are swapped.

    Args:
        dataset: a name in Table 1.

    Raises:
        ValueError: the paper has no such data set.
    """
    sizes = paper_table(1).set_index("dataset")["test"]
    if dataset not in sizes.index:
        raise ValueError(f"dataset: expected one of {', '.join(sizes.index)}, got {dataset!r}")
    return int(sizes[dataset])
