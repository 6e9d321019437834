"""Loss surfaces of a study: the paper's Figures 3, 4, 6, 7 on common planes, and the way its authors drew them."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from dropattack.checkpoint import write_text
from dropattack.data import load_dataset
from dropattack.minima import SPLITS_MEASURED, epoch_weights, risks_of_run
from dropattack.study import Study
from dropattack.study.settings import run_folder
from dropattack.training import check_same_data
from landscape import (
    Direction,
    EmpiricalRisk,
    compare_surfaces,
    loss_surface,
    plots,
    radial_profile,
    radial_profile_band,
    random_directions,
)
from landscape.files import replaced
from landscape.statistics import compare_methods

__all__ = [
    "AUTHORS_WAY",
    "COMMON_PLANES",
    "one_surface",
    "study_surfaces",
    "summarize_surfaces",
    "write_surfaces",
]

COMMON_PLANES = "common planes"
AUTHORS_WAY = "the authors' way"

# What a picture needs of a surface: variables, and attributes that are not the same for all.
_KEPT = ("loss", "accuracy", "center_loss", "center_accuracy")
_OF_ONE = ("error_estimate", "converged", "evaluations", "directions")


def study_surfaces(
    study: Study,
    folder: str | Path,
    methods: Sequence[str],
    *,
    seeds: int = 3,
    pairs: int = 3,
    points: int = 41,
    tolerance: float = 0.02,
    examples: int = 500,
    seed: int = 0,
    data_dir: str | Path | None = None,
    executor: concurrent.futures.Executor | None = None,
    progress: bool = True,
) -> tuple[dict[str, xr.Dataset], pd.DataFrame]:
    """Surfaces of the selected checkpoints, on training and test data, by two protocols.

    On *common planes*, every method of one training seed is seen along the same Gaussian draws, rescaled to its own
    trained weights filter by filter; biases and normalization layers stay put. *The authors' way*, as the paper's
    published notebook draws its figures: directions have the filter norms of an untrained network (here the run's own
    initial weights), each network gets draws of its own, and biases move, too.

    What is evaluated is kept in ``folder/surfaces``: started again after a kill, it goes on.

    Args:
        study: which runs; their ``[training] keep_epochs = true``, for the initial weights.
        folder: where they are.
        methods: rows of the study, in the order of the panels.
        seeds: the first so many training seeds that all these rows have.
        pairs: direction pairs for each training seed on common planes; the authors' way has one.
        points: along each side.
        tolerance: as for :func:`landscape.loss_surface`.
        examples: of each split, its first so many.
        seed: of the first pair.
        data_dir: as for :func:`dropattack.data.load_dataset`.
        executor: as for :func:`landscape.loss_surface`.
        progress: show a progress bar on standard error.

    Returns:
        For each protocol the surfaces (float32), with dimensions ``training_seed``, ``model``, ``pair``, ``split``,
        ``alpha`` and ``beta``; and the read-outs on common planes, one number a row: ``method``, ``training_seed``,
        ``pair``, ``split``, ``readout``, ``value``.

    Raises:
        FileNotFoundError: a run is not finished, or kept no epochs.
        ValueError: a method that the study does not have, or no seed in common.
    """
    folder = Path(folder)
    chosen = _common_seeds(study, methods)[:seeds]
    dataset = load_dataset(study.base.data.name, data_dir, **study.base.data.options)
    surfaces: dict[str, list[xr.Dataset]] = {COMMON_PLANES: [], AUTHORS_WAY: []}
    readouts = []
    with tqdm(total=len(chosen), desc=f"surfaces of {study.name}", unit="seed", disable=not progress) as bar:
        for training_seed in chosen:
            runs = {method: folder / run_folder(method, training_seed) for method in methods}
            for run in runs.values():
                check_same_data(run, dataset)
            risks = {method: risks_of_run(run, dataset, examples) for method, run in runs.items()}
            kept = folder / "surfaces" / f"seed{training_seed}"
            how: dict[str, Any] = {"points": points, "tolerance": tolerance, "executor": executor, "progress": False}
            compared = compare_surfaces(risks, pairs=pairs, seed=seed, folder=kept, **how)
            surfaces[COMMON_PLANES].append(_together(compared.each))
            theirs = {}
            for number, (method, run) in enumerate(runs.items(), 1):
                directions = _authors_directions(risks[method]["train"], run, seed + 1000 * number)
                path = kept / f"{quote(method)}-authors-way.nc"
                theirs[method, 0] = loss_surface(dict(risks[method]), directions, path=path, **how)
            surfaces[AUTHORS_WAY].append(_together(theirs))
            readouts.append(compared.readouts.rename(columns={"model": "method"}).assign(training_seed=training_seed))
            bar.update()
    seeds_seen = pd.Index(chosen, name="training_seed")
    found = {name: xr.concat(each, seeds_seen, combine_attrs="drop_conflicts") for name, each in surfaces.items()}
    for one in found.values():
        one.attrs |= {"study": study.name, "examples": examples}
    return found, pd.concat(readouts, ignore_index=True)


def summarize_surfaces(
    surfaces: Mapping[str, xr.Dataset],
    readouts: pd.DataFrame,
    folder: str | Path,
    figures: str | Path | None = None,
) -> pd.DataFrame:
    """Write surfaces, read-outs, their comparison and the pictures.

    ``surfaces.nc`` and ``surfaces_authors_way.nc``; ``surface_readouts.csv``; ``surface_differences.csv`` (every method
    against the first, paired over training seeds, each the mean over its planes); ``surface_profiles.csv`` (rise over
    distance, with bands); and ``contours.png``, ``relief.png``, ``authors_way.png`` (the first training seed and pair)
    and ``profiles.png`` (all of them).

    Args:
        surfaces: from :func:`study_surfaces`.
        readouts: from :func:`study_surfaces`.
        folder: for the files, made if needed.
        figures: folder for the pictures; None: the same.

    Returns:
        The differences, as :func:`landscape.statistics.compare_methods` has them.
    """
    folder = Path(folder)
    pictures = folder if figures is None else Path(figures)
    for made in (folder, pictures):
        made.mkdir(parents=True, exist_ok=True)
    write_surfaces(surfaces[COMMON_PLANES], folder / "surfaces.nc")
    write_surfaces(surfaces[AUTHORS_WAY], folder / "surfaces_authors_way.nc")
    write_text(folder / "surface_readouts.csv", readouts.to_csv(index=False))
    common = surfaces[COMMON_PLANES]
    methods = [str(name) for name in common["model"].values]
    differences = _differences(readouts, methods[0])
    write_text(folder / "surface_differences.csv", differences.to_csv(index=False))

    study = common.attrs["study"]
    for name, protocol, draw in (
        ("contours", COMMON_PLANES, plots.contour_panels),
        ("relief", COMMON_PLANES, plots.relief_panels),
        ("authors_way", AUTHORS_WAY, plots.contour_panels),
    ):
        first = int(surfaces[protocol]["training_seed"][0])
        shown = {
            f"{method}, {split} data": one_surface(surfaces[protocol], method, split, first)
            for split in SPLITS_MEASURED
            for method in methods
        }
        draw(shown, f"{study}: {protocol}, training seed {first}", columns=len(methods)).savefig(
            pictures / f"{name}.png"
        )

    bands = {
        (protocol, split, method): radial_profile_band(radial_profile(each[["loss"]].sel(split=split, model=method)))
        for protocol, each in surfaces.items()
        for split in SPLITS_MEASURED
        for method in methods
    }
    panels = {
        f"{protocol}, {split} data": {method: bands[protocol, split, method] for method in methods}
        for protocol in surfaces
        for split in SPLITS_MEASURED
    }
    seeds, pairs = common.sizes["training_seed"], common.sizes["pair"]
    heading = f"{study}: {seeds} training seeds, {pairs} planes each (the authors' way: one)"
    plots.profile_panels(panels, heading, columns=2).savefig(pictures / "profiles.png")
    rows = [
        band.to_dataframe().reset_index().assign(protocol=protocol, split=split, method=method)
        for (protocol, split, method), band in bands.items()
    ]
    profiles = pd.concat(rows, ignore_index=True)
    keys = ["protocol", "split", "method", "radius"]
    profiles = profiles[[*keys, *(column for column in profiles if str(column).startswith("loss"))]]
    write_text(folder / "surface_profiles.csv", profiles.to_csv(index=False, float_format="%.6g"))
    return differences


def one_surface(surfaces: xr.Dataset, model: str, split: str, training_seed: int, pair: int = 0) -> xr.Dataset:
    """One plane, which says of itself what :func:`landscape.loss_surface` wrote.

    Args:
        surfaces: one protocol of :func:`study_surfaces`.
        model: row of the study.
        split: ``"train"`` or ``"test"``.
        training_seed: of the run.
        pair: of directions.
    """
    one = surfaces.sel(model=model, split=split, training_seed=training_seed, pair=pair)
    found = one.drop_vars([name for name in _OF_ONE if name in one])
    found.attrs = surfaces.attrs | {name: one[name].item() for name in _OF_ONE if name in one}
    return found


def write_surfaces(surfaces: xr.Dataset, path: Path) -> None:
    """Write one protocol of :func:`study_surfaces` as compressed netCDF, atomically."""
    numbers = [name for name, values in surfaces.data_vars.items() if values.dtype.kind == "f"]
    encoding = {name: {"zlib": True, "complevel": 6} for name in numbers}
    with replaced(path) as temporary:
        surfaces.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def _authors_directions(risk: EmpiricalRisk, run: Path, seed: int) -> tuple[Direction, ...]:
    center = risk.parameters()
    untrained = epoch_weights(run / "epochs" / "0000.safetensors", list(center))
    return random_directions(center, seed=seed, ignore=(), reference=untrained)


def _together(each: Mapping[tuple[str, int], xr.Dataset]) -> xr.Dataset:
    """(model, pair) to surface, as one dataset with what is drawn alone, in float32."""
    models = list(dict.fromkeys(model for model, _ in each))
    pairs = list(dict.fromkeys(pair for _, pair in each))
    by_model = [
        xr.concat([_light(each[model, pair]) for pair in pairs], pd.Index(pairs, name="pair"), combine_attrs="override")
        for model in models
    ]
    return xr.concat(by_model, pd.Index(models, name="model"), combine_attrs="override")


def _light(surface: xr.Dataset) -> xr.Dataset:
    light = surface[[name for name in _KEPT if name in surface]].astype("float32")
    light = light.drop_vars([name for name in light.coords if name not in ("split", "alpha", "beta")])
    about = {name: ((), surface.attrs[name]) for name in _OF_ONE if name in surface.attrs}
    light.attrs = {name: value for name, value in surface.attrs.items() if name not in _OF_ONE}
    return light.assign(about)


def _differences(readouts: pd.DataFrame, baseline: str) -> pd.DataFrame:
    means = readouts.groupby(["method", "training_seed", "split", "readout"], sort=False)["value"].mean().reset_index()
    tidy = means.rename(columns={"readout": "metric"}).assign(checkpoint="selected", setting="", converged=True)
    return compare_methods(tidy, baseline)


def _common_seeds(study: Study, methods: Sequence[str]) -> list[int]:
    for method in methods:
        if method not in study.methods:
            raise ValueError(f"unknown method {method!r}; the study has {', '.join(study.methods)}")
    common = [seed for seed in study.seeds_of(methods[0]) if all(seed in study.seeds_of(method) for method in methods)]
    if not common:
        raise ValueError(f"expected a training seed that all of {', '.join(methods)} have, got none")
    return common
