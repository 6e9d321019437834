"""Several models on the same random planes, compared pair by pair."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from landscape.curvature import plane_hessian
from landscape.directions import check_same_parameters, random_directions
from landscape.evaluation.walk import Risks, named
from landscape.interpolation import DIMENSIONS
from landscape.level_sets import area_below
from landscape.readouts import READOUTS
from landscape.risk import EmpiricalRisk
from landscape.statistics import mean_band, mean_interval, paired_difference
from landscape.surface import loss_surface

__all__ = ["SurfaceComparison", "compare_surfaces"]


@dataclasses.dataclass(frozen=True)
class SurfaceComparison:
    """Models on common direction pairs; from :func:`compare_surfaces`, which says what its intervals mean.

    Attributes:
        surfaces: dimensions ``model``, ``pair``, ``split`` (if risks were named), ``alpha``, ``beta``: the loss, its
            standard error and each metric, as rendered; and numbers about each surface (``center_loss``,
            ``loss_error_estimate`` …, ``converged``, ``evaluations``).
        readouts: one number a row: ``model``, ``pair``, ``split`` (``""`` if risks were not named), ``readout``,
            ``value``. The sign conventions are those of :data:`landscape.readouts.READOUTS`.
        each: (model, pair) to the surface as :func:`landscape.loss_surface` returned it, with the lattice under it:
            any further read-out from there takes no evaluation.
    """

    surfaces: xr.Dataset
    readouts: pd.DataFrame
    each: Mapping[tuple[str, int], xr.Dataset]

    @property
    def models(self) -> list[str]:
        """Their names."""
        return [str(name) for name in self.surfaces["model"].values]

    def mean_and_band(self, confidence: float = 0.95) -> xr.Dataset:
        """Mean surfaces over direction pairs, and the interval of the mean at each point by itself.

        Args:
            confidence: of each interval.

        Returns:
            Dimensions ``model``, ``split`` (if any), ``alpha``, ``beta``: ``loss`` and each metric (the means), and
            ``<variable>_low`` and ``<variable>_high``; also ``center_loss`` and ``center_<metric>``, which are the same
            in all pairs. Where a pair is not finite, so is the mean.
        """
        return _with_band(self.surfaces[self._rendered], confidence).assign(self._centers)

    def difference(self, a: str, b: str, confidence: float = 0.95) -> xr.Dataset:
        """The surface of one model minus that of another, on the same directions.

        Args:
            a: name of a model.
            b: name of the model that is subtracted.
            confidence: of each interval.

        Returns:
            Dimensions ``split`` (if any), ``alpha``, ``beta``: ``loss`` and each metric (mean differences over pairs),
            ``<variable>_low`` and ``<variable>_high``, and ``<variable>_by_pair`` with the further dimension ``pair``;
            also ``center_loss`` and ``center_<metric>``. Infinite minus infinite is NaN.

        Raises:
            ValueError: an unknown model.
        """
        of_a, of_b = (self._of(name) for name in (a, b))
        with np.errstate(invalid="ignore"):
            by_pair = of_a[self._rendered] - of_b[self._rendered]
            centers = {name: values.sel(model=a, drop=True) - values.sel(model=b, drop=True)
                       for name, values in self._centers.items()}  # fmt: skip
        found = _with_band(by_pair, confidence).assign(
            {f"{name}_by_pair": values for name, values in by_pair.data_vars.items()} | centers
        )
        found.attrs["difference"] = f"{a} minus {b}"
        return found

    def intervals(self, confidence: float = 0.95) -> pd.DataFrame:
        """Each read-out's mean over direction pairs, with Student's t interval.

        Args:
            confidence: of each interval.

        Returns:
            Columns ``model``, ``split``, ``readout``, ``value`` (the mean), ``low``, ``high``, ``n``.
        """
        groups = self.readouts.groupby(["model", "split", "readout"], sort=False)["value"]
        return pd.DataFrame(
            [
                {"model": model, "split": split, "readout": readout}
                | mean_interval(values.to_numpy(), confidence)._asdict()
                for (model, split, readout), values in groups
            ]
        )

    def differences(self, a: str, b: str, confidence: float = 0.95) -> pd.DataFrame:
        """Each read-out of one model minus that of another, paired over directions, with Student's t interval.

        Args:
            a: name of a model.
            b: name of the model that is subtracted.
            confidence: of each interval.

        Returns:
            Columns ``split``, ``readout``, ``difference`` (the mean), ``low``, ``high``, ``n``.

        Raises:
            ValueError: an unknown model.
        """
        for name in (a, b):
            self._of(name)
        rows = []
        for (split, readout), table in self.readouts.groupby(["split", "readout"], sort=False):
            by_pair = table.set_index(["model", "pair"])["value"]
            found = paired_difference(by_pair[a].to_numpy(), by_pair[b].to_numpy(), confidence)._asdict()
            rows.append({"split": split, "readout": readout, "difference": found.pop("value")} | found)
        return pd.DataFrame(rows)

    @property
    def _rendered(self) -> list[str]:
        """The variables that have a mean surface; the mean of standard errors is none of anything."""
        return [
            str(name)
            for name, values in self.surfaces.data_vars.items()
            if "alpha" in values.dims and name != "loss_standard_error"
        ]

    @property
    def _centers(self) -> dict[str, xr.DataArray]:
        names = [f"center_{name}" for name in self._rendered]
        return {name: self.surfaces[name].isel(pair=0, drop=True) for name in names if name in self.surfaces}

    def _of(self, model: str) -> xr.Dataset:
        if model not in self.models:
            raise ValueError(f"unknown model {model!r}; compared are {', '.join(self.models)}")
        return self.surfaces.sel(model=model, drop=True)


def compare_surfaces(
    risks: Mapping[str, Risks],
    pairs: int = 5,
    seed: int = 0,
    span: float | tuple[float, float] = 1.0,
    points: int | tuple[int, int] = 51,
    method: str = "adaptive",
    tolerance: float = 0.01,
    rise: float = 0.5,
    levels: Sequence[float] | None = None,
    executor: concurrent.futures.Executor | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> SurfaceComparison:
    """Loss surfaces of several models on the same random directions, the same axes and the same levels.

    Each pair of directions is one set of Gaussian draws, rescaled to each model's own weights. Differences between
    models are taken within pairs, so that what a plane happens to look like cancels.

    The intervals are over direction pairs. They say how much of a difference between *these* trained models is due to
    the choice of planes, and nothing about what other training seeds would have given: for a statement about methods,
    train several times and treat each training as one observation.

    Args:
        risks: model name to risk, or to a dictionary such as ``{"train": …, "test": …}``. The models are of one
            architecture, and see the same data.
        pairs: number of direction pairs; an interval takes at least two. Pair k has the directions
            ``random_directions(parameters, seed=seed + k, **options)``.
        seed: of the first pair.
        span: as for :func:`landscape.loss_surface`.
        points: as for :func:`landscape.loss_surface`.
        method: as for :func:`landscape.loss_surface`.
        tolerance: as for :func:`landscape.loss_surface`.
        rise: of the loss above the center's, for radii and areas.
        levels: losses below which areas are measured, the same for all models. None: one, the highest center loss of
            all models plus ``rise``, for each split.
        executor: as for :func:`landscape.loss_surface`.
        folder: keep each surface there, as ``<model>-pair-<k>.nc``: what is there already is not evaluated again.
        progress: show a progress bar on standard error.
        **options: of :func:`landscape.random_directions` (``normalization``, ``ignore``, ``reference``).

    Returns:
        The surfaces, and a table of read-outs: all of ``READOUTS``. ``area_below_own_level`` is the area below the
        model's own center loss plus ``rise``, and ``area_below_common_level`` that below the default of ``levels``; if
        levels are given, there is one ``area_below_<level>`` for each instead. The curvatures are exact, from
        :func:`landscape.plane_hessian`: second derivatives of an interpolated surface magnify its errors. Read-outs of
        a surface that is nowhere finite are NaN.

    Raises:
        ValueError: no models, models with other parameters, splits, metrics or numbers of examples than the first, too
            few pairs, a rise that is not positive, or what :func:`landscape.loss_surface` and
            :func:`landscape.random_directions` refuse.
    """
    if pairs < 1:
        raise ValueError(f"pairs: expected at least 1, and 2 for an interval, got {pairs}")
    if not (np.isfinite(rise) and rise > 0):
        raise ValueError(f"rise: expected a positive number, got {rise}")
    by_split = {model: named(risk) for model, risk in risks.items()}
    _check_comparable(by_split)
    each: dict[tuple[str, int], xr.Dataset] = {}
    hessians: dict[tuple[str, int, str], np.ndarray] = {}
    with tqdm(total=pairs * len(risks), desc="surfaces", unit="surface", disable=not progress) as bar:
        for pair in range(pairs):
            for model, risk in risks.items():
                bar.set_postfix_str(f"{model}, pair {pair}")
                center = _any(by_split[model]).parameters()
                directions = random_directions(center, seed=seed + pair, **options)
                for split, one in by_split[model].items():
                    hessians[model, pair, split] = plane_hessian(one, directions)
                each[model, pair] = loss_surface(
                    risk,
                    directions,
                    span=span,
                    points=points,
                    method=method,
                    tolerance=tolerance,
                    executor=executor,
                    path=None if folder is None else Path(folder) / f"{quote(model, safe=' ')}-pair-{pair}.nc",
                    progress=False,
                )
                bar.update()
    surfaces = xr.concat(
        [
            xr.concat(
                [_rendered(each[model, pair]) for pair in range(pairs)],
                xr.DataArray(range(pairs), dims="pair", name="pair"),
            )
            for model in risks
        ],
        xr.DataArray(list(risks), dims="model", name="model"),
    )
    surfaces.attrs = _shared(each) | {"seed": seed, "pairs": pairs, "rise": rise}
    return SurfaceComparison(surfaces, _readouts(each, hessians, surfaces["center_loss"], rise, levels), each)


def _check_comparable(models: Mapping[str, Mapping[str, EmpiricalRisk]]) -> None:
    if not models:
        raise ValueError("risks: expected a dictionary of models, got an empty one")
    first_name, first = next(iter(models.items()))
    for model, risks in models.items():
        if list(risks) != list(first):
            raise ValueError(
                f"model {model!r}: expected the splits of {first_name!r}, {list(first)}, got {list(risks)}"
            )
        try:
            check_same_parameters(f"model {model!r}", _any(risks).parameters(), _any(first).parameters())
        except ValueError as error:
            raise ValueError(
                f"{error}. Models share random directions only if they have the same parameters, here {first_name!r}'s"
            ) from None
        for split, risk in risks.items():
            where = f"model {model!r}" + (f", split {split!r}" if split else "")
            if risk.count != first[split].count:
                raise ValueError(
                    f"{where}: expected the data of {first_name!r}, {first[split].count} examples, got {risk.count}"
                )
            if set(risk.metric_names) != set(first[split].metric_names):
                raise ValueError(
                    f"{where}: expected the metrics of {first_name!r}, {first[split].metric_names}, "
                    f"got {risk.metric_names}"
                )


def _any(risks: Mapping[str, EmpiricalRisk]) -> EmpiricalRisk:
    return next(iter(risks.values()))


def _rendered(surface: xr.Dataset) -> xr.Dataset:
    """What surfaces have in common: their lattices may differ."""
    kept = {"split", *DIMENSIONS}
    variables = {name: values for name, values in surface.variables.items() if set(values.dims) <= kept}
    about = {
        name: ((), surface.attrs[name])
        for name in ("converged", "evaluations", "error_estimate")
        if name in surface.attrs
    }
    return xr.Dataset(variables | about)


def _shared(each: Mapping[tuple[str, int], xr.Dataset]) -> dict[str, Any]:
    """The attributes that all surfaces have with the same value."""
    first, *others = (surface.attrs for surface in each.values())
    return {
        key: value
        for key, value in first.items()
        if all(key in other and np.array_equal(other[key], value) for other in others)
    }


def _with_band(surfaces: xr.Dataset, confidence: float) -> xr.Dataset:
    found: dict[str, xr.Variable] = {}
    for name, values in surfaces.data_vars.items():
        dimensions = [dim for dim in values.dims if dim != "pair"]
        band = mean_band(values.values, values.get_axis_num("pair"), confidence)
        for suffix, part in zip(("", "_low", "_high"), band, strict=True):
            found[f"{name}{suffix}"] = xr.Variable(dimensions, part)
    coordinates = {name: values for name, values in surfaces.coords.items() if "pair" not in values.dims}
    about = {"pairs": surfaces.sizes["pair"], "confidence": confidence}
    return xr.Dataset(found, coordinates, surfaces.attrs | about)


def _readouts(
    each: Mapping[tuple[str, int], xr.Dataset],
    hessians: Mapping[tuple[str, int, str], np.ndarray],
    center_loss: xr.DataArray,
    rise: float,
    levels: Sequence[float] | None,
) -> pd.DataFrame:
    rows = []
    for (model, pair), surface in each.items():
        for split in surface["split"].values.tolist() if "split" in surface.dims else [""]:
            one = surface.sel(split=split) if split else surface
            centers = center_loss.sel(split=split) if split else center_loss
            level = float(centers.where(np.isfinite(centers)).max()) + rise
            eigenvalues = np.linalg.eigvalsh(hessians[model, pair, split])
            exact = {"curvature_trace": float(eigenvalues.sum()), "largest_curvature": float(eigenvalues[-1])}
            for readout, value in (_read(one, rise, level, levels) | exact).items():
                rows.append({"model": model, "pair": pair, "split": split, "readout": readout, "value": value})
    return pd.DataFrame(rows)


def _read(surface: xr.Dataset, rise: float, common_level: float, levels: Sequence[float] | None) -> dict[str, float]:
    names = [name for name in READOUTS if name != "area_below_common_level" or levels is None]
    if not np.isfinite(surface["loss"]).any():
        nowhere = dict.fromkeys([*names, *(f"area_below_{level:g}" for level in levels or ())], float("nan"))
        return nowhere | {"center_loss": float(surface["center_loss"])}
    found = {name: READOUTS[name](surface, rise=rise, level=common_level) for name in names}
    return found | {f"area_below_{level:g}": area_below(surface, level).area for level in levels or ()}
