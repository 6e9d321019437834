"""Whether flatness goes with generalization: rank correlations over methods and training seeds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
from scipy import stats

from landscape.statistics.gaps import MODEL, generalization_gaps
from landscape.statistics.hypotheses import holm
from landscape.statistics.tables import QUANTITY, one_each, tidy

__all__ = ["rank_correlations"]

_FEWEST = 5  # methods, for an interval
_EXACT_UP_TO = 6  # methods: 720 orders
_LIMIT = 0.999  # of τ, where its inverse hyperbolic tangent becomes large


def rank_correlations(
    table: pd.DataFrame, gap: str = "loss", confidence: float = 0.95, orders: int = 1999, seed: int = 0
) -> pd.DataFrame:
    r"""Kendall's τ-b of each metric with the generalization gap, over all methods and training seeds.

    The sign is that of the metric as measured: for metrics that are larger where a minimum is *sharper*, a positive τ
    says that sharper minima generalize worse; for those that are larger where it is flatter, a negative one does.

    Runs of one method are alike, so that they are not as many independent models as they seem. SciPy's ``p_value``,
    which takes them as independent, rejects a true null hypothesis in a quarter of simulations at the 5 % level (6 or
    10 methods × 5 seeds, four fifths of the variance between methods). ``p_methods`` exchanges whole methods, seeds and
    all, and rejects in 5 %; it is the one that is corrected for the number of metrics. The interval comes from leaving
    out one method at a time (jackknife of the inverse hyperbolic tangent, Student's t with methods − 1 degrees of
    freedom): it speaks of other methods like these, and held the true value in 94 to 98 % of simulations of 5 to 12
    methods × 1 to 5 seeds at a nominal 95 %.

    A τ over all models can come from differences between methods alone, or from training seeds alone. The granulated
    coefficients tell: ``psi_methods`` is the mean over training seeds of τ across methods, ``psi_seeds`` the mean over
    methods of τ across training seeds, and ``psi`` the mean of the two.

    Source: Y. Jiang, B. Neyshabur, H. Mobahi, D. Krishnan and S. Bengio, "Fantastic generalization measures and where
    to find them", ICLR 2020, with method and training seed as the two hyperparameters of the granulated coefficient.

    Args:
        table: tidy flatness table with rows on the splits ``"train"`` and ``"test"``.
        gap: ``"loss"`` (test − train) or ``"accuracy"`` (train − test).
        confidence: of the intervals.
        orders: number of random orders of the methods for ``p_methods``; all of them are counted up to 6 methods.
        seed: of these.

    Returns:
        One row for each ``checkpoint``, ``split`` (where the metric was measured), ``metric`` and ``setting``: ``gap``;
        ``tau``, ``low``, ``high`` (NaN for fewer than 5 methods, or where all pairs agree), ``n`` (models),
        ``methods``, ``missing`` (models without a value or a gap, left out); ``p_value``, ``p_methods`` (NaN unless
        every method has the same training seeds), ``smallest_p`` (the smallest that ``p_methods`` can be), ``p_holm``
        (Holm's correction of ``p_methods`` over all rows); ``psi_methods``, ``psi_seeds``, ``psi``.

    Raises:
        ValueError: missing columns, an unknown gap, rows that repeat, or what :func:`generalization_gaps` refuses.
    """
    if gap not in ("loss", "accuracy"):
        raise ValueError(f"gap: expected 'loss' or 'accuracy', got {gap!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share between 0 and 1, such as 0.95, got {confidence}")
    table = tidy(table, [*MODEL, "split", "metric", "setting", "value", gap])
    one_each(table)
    gaps = generalization_gaps(table)[[*MODEL, f"{gap}_gap"]].rename(columns={f"{gap}_gap": "gap"})
    models = table.merge(gaps, on=MODEL, how="left")
    rows = []
    for quantity, group in models.groupby(QUANTITY, sort=False):
        complete = group.dropna(subset=["value", "gap"])
        found = _correlated(complete, confidence, orders, seed)
        name: dict[str, object] = dict(zip(QUANTITY, quantity, strict=True))
        rows.append(name | {"gap": gap} | found | {"missing": len(group) - len(complete)})
    correlations = pd.DataFrame(rows)
    correlations["p_holm"] = holm(correlations["p_methods"].to_numpy())
    order = ["gap", "tau", "low", "high", "n", "methods", "missing", "p_value", "p_methods", "smallest_p", "p_holm"]
    return correlations[[*QUANTITY, *order, "psi_methods", "psi_seeds", "psi"]]


def _correlated(models: pd.DataFrame, confidence: float, orders: int, seed: int) -> dict[str, object]:
    values, gaps = (models[side].to_numpy(dtype=np.float64) for side in ("value", "gap"))
    methods = models["method"].to_numpy(dtype=str)
    seeded = models["training_seed"].notna().to_numpy()
    seeds = models["training_seed"].fillna(0).to_numpy(dtype=np.int64)
    tau = _tau(values, gaps)
    low, high = _jackknife(values, gaps, methods, confidence)
    p_methods, smallest = _exchange_methods(models, orders, seed)
    psi_methods, psi_seeds = (_mean_tau(values[seeded], gaps[seeded], one[seeded]) for one in (seeds, methods))
    return {
        "tau": tau,
        "low": low,
        "high": high,
        "n": len(models),
        "methods": len(set(methods)),
        "p_value": math.nan if math.isnan(tau) else float(stats.kendalltau(values, gaps).pvalue),
        "p_methods": p_methods,
        "smallest_p": smallest,
        "psi_methods": psi_methods,
        "psi_seeds": psi_seeds,
        "psi": (psi_methods + psi_seeds) / 2,
    }


def _tau(values: np.ndarray, gaps: np.ndarray) -> float:
    """Kendall's τ-b; NaN where a side is constant."""
    of_values, of_gaps = _signs(values), _signs(gaps)
    pairs = math.sqrt((of_values**2).sum() * (of_gaps**2).sum())
    return float((of_values * of_gaps).sum() / pairs) if pairs else math.nan


def _mean_tau(values: np.ndarray, gaps: np.ndarray, groups: np.ndarray) -> float:
    """Mean of τ within each group, over the groups where it is defined."""
    taus = [_tau(values[groups == one], gaps[groups == one]) for one in np.unique(groups)]
    defined = [tau for tau in taus if not math.isnan(tau)]
    return float(np.mean(defined)) if defined else math.nan


def _jackknife(values: np.ndarray, gaps: np.ndarray, methods: np.ndarray, confidence: float) -> tuple[float, float]:
    tau, left_out = _tau(values, gaps), np.unique(methods)
    count = len(left_out)
    if count < _FEWEST or math.isnan(tau) or abs(tau) > _LIMIT:
        return math.nan, math.nan
    others = np.array([_tau(values[methods != one], gaps[methods != one]) for one in left_out])
    whole, parts = (np.arctanh(np.clip(one, -_LIMIT, _LIMIT)) for one in (tau, others))
    pseudo = count * whole - (count - 1) * parts
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * pseudo.std(ddof=1) / math.sqrt(count)
    return float(np.tanh(whole - half)), float(np.tanh(whole + half))


def _exchange_methods(models: pd.DataFrame, orders: int, seed: int) -> tuple[float, float]:
    """Two-sided p of τ when the methods' gaps are exchanged as blocks, and the smallest it can be.

    The denominator of τ-b is the same in every order, so that the numerators are compared, which are whole numbers.
    """
    keys = models["training_seed"].astype(object).where(models["training_seed"].notna(), "")
    grid = models.assign(key=keys).set_index(["method", "key"])
    values, gaps = (grid[side].unstack().to_numpy(dtype=np.float64) for side in ("value", "gap"))  # noqa: PD010
    count = len(values)
    if count < 2 or np.isnan(values).any() or math.isnan(_tau(values.ravel(), gaps.ravel())):
        return math.nan, math.nan
    exact = count <= _EXACT_UP_TO
    tried = np.array(list(itertools.permutations(range(count)))) if exact else _random_orders(count, orders, seed)
    # Agreeing minus disagreeing pairs of runs, where methods i and j have the gaps of methods k and l.
    agreement = np.einsum("isjt,kslt->ijkl", _signs(values), _signs(gaps), optimize=True)
    places = np.arange(count)
    numerators = agreement[places[:, None], places, tried[:, :, None], tried[:, None, :]].sum((1, 2))
    extreme = np.abs(numerators) >= abs(agreement[places[:, None], places, places[:, None], places].sum())
    if exact:
        return float(extreme.mean()), 1 / len(tried)
    return (int(extreme.sum()) + 1) / (orders + 1), 1 / (orders + 1)


def _random_orders(count: int, orders: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permuted(np.tile(np.arange(count), (orders, 1)), axis=1)


def _signs(values: np.ndarray) -> np.ndarray:
    """Sign of the difference of every two runs; infinite ones are equal."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.sign(np.subtract.outer(values, values)))
