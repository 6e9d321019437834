"""The loss surfaces of a study, to turn by hand and as pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from dropattack.claims.evidence import records
from dropattack.report.files import picture, read
from dropattack.report.minima import differences_table
from dropattack.surfaces import one_surface
from landscape import interactive, open_surface, plots
from landscape.report import Interactive, Part, Section

__all__ = ["surfaces_section"]

_ABOUT = """All methods of one training seed are seen along the same random directions, rescaled filter by filter to \
each one's trained weights, on common axes, heights and colors. One plane is shown: the first training seed and \
direction pair, not a chosen one. The numbers below are over all of them."""
_NEEDED = {"training_seed", "model", "pair", "split", "alpha", "beta"}
_MOST = 4  # panels that can be told apart, and the size of the page
_ABOVE = 100  # pixels above the scenes for a heading and a menu, which the report has outside of the figure
_TALL = 80  # pixels by which each row of scenes is higher than the page's narrow column fills
_COLUMNS = 3  # of scenes in a row
_FARTHER = 1.25  # scenes of a page's column are narrow: from here axes and their labels are seen


class _Shown(NamedTuple):
    """What is drawn of a file."""

    planes: dict[str, xr.Dataset]
    methods: list[str]
    splits: list[str]
    seed: int
    pair: int


def surfaces_section(folder: Path, places: Sequence[Path], resolution: int) -> Section | None:
    """Surfaces on common planes and the way the paper's authors drew them; None if there are none.

    Args:
        folder: that ``dropattack study surfaces`` wrote into.
        places: folders of its pictures.
        resolution: points a side of the interactive figures.

    Raises:
        ValueError: a file that is not what :func:`dropattack.surfaces.study_surfaces` makes.
    """
    common, theirs = (_shown(folder / f"{name}.nc") for name in ("surfaces", "surfaces_authors_way"))
    profiles = read(folder / "surface_profiles.csv", ("protocol", "split", "method", "radius", "loss_rise"))
    differences = read(folder / "surface_differences.csv", ("metric", "method", "baseline", "low", "high", "ratio"))
    if all(found is None for found in (common, theirs, profiles, differences)):
        return None
    parts: list[Part] = [] if common is None else _interactive(common, places, resolution)
    if profiles is not None:
        parts += picture(
            places,
            "profiles.png",
            _profile_in_words(profiles),
            "Rise of the mean loss on circles around the trained weights, over all planes, with 95 % intervals.",
            functools.partial(_profiles, profiles),
        )
    if differences is not None:
        parts.append(
            differences_table(differences, "Read off the surfaces: each method minus the baseline, paired by seed")
        )
    for name, shown, caption in (
        ("contours", common, "On common planes: the same draws for all methods, biases not moved."),
        (
            "authors_way",
            theirs,
            "The way the paper's authors drew them: directions of an untrained network's norms, other draws for each "
            "network, biases moved. What differs here may be the draws, not the networks.",
        ),
    ):
        words = "Contour lines of the loss, one panel a method and split, center and lowest point marked."
        draw = None if shown is None else functools.partial(_contours, shown)
        parts += picture(places, f"{name}.png", f"{words} {caption}", caption, draw)
    return Section("Loss surfaces", [_ABOUT, *parts])


def _shown(file: Path) -> _Shown | None:
    """The first plane of each of the first methods, with all splits; None if there is no such file."""
    if not file.is_file():
        return None
    surfaces = open_surface(file)
    missing = sorted(_NEEDED - {str(dim) for dim in surfaces["loss"].dims})
    if missing:
        raise ValueError(f"{file}: expected the dimension {missing[0]}; write it with dropattack study surfaces")
    methods, splits = ([str(name) for name in surfaces[dim].values] for dim in ("model", "split"))
    seed, pair = (int(surfaces[name][0]) for name in ("training_seed", "pair"))
    planes = {
        method: xr.concat(
            [one_surface(surfaces, method, split, seed, pair) for split in splits],
            pd.Index(splits, name="split"),
            combine_attrs="override",
        )
        for method in methods[:_MOST]
    }
    return _Shown(planes, methods, splits, seed, pair)


def _interactive(shown: _Shown, places: Sequence[Path], resolution: int) -> list[Part]:
    parts: list[Part] = []
    planes, methods = shown.planes, shown.methods
    if len(methods) > _MOST:
        parts.append(f"Of {len(methods)} methods the first {_MOST} are shown: {', '.join(methods[:_MOST])}.")
    beside = _fitted(interactive.surfaces(planes, resolution=resolution), rows=-(-len(planes) // _COLUMNS))
    words = beside.layout.meta["description"]
    still = picture(places, "relief.png", words, "", lambda: plots.relief_panels(_panels(shown), columns=len(planes)))
    caption = f"training seed {shown.seed}, direction pair {shown.pair}. Scenes turn together."
    parts.append(Interactive(beside, caption=f"Loss surfaces side by side: {caption}", still=still[0]))
    if len(planes) > 1:
        over = _fitted(interactive.overlay(planes, resolution=resolution))
        caption = "The same surfaces laid over one another; a click on a name in the legend hides one."
        parts.append(Interactive(over, caption=caption))
    return parts


def _fitted(figure: Any, rows: int = 1) -> Any:
    """Seen from farther away, and without room that stays empty in a report."""
    eye = {axis: _FARTHER * figure.layout.scene.camera.eye[axis] for axis in ("x", "y", "z")}
    height, top = figure.layout.height, figure.layout.margin.t
    figure.update_layout(height=height - _ABOVE - rows * _TALL, margin_t=top - _ABOVE)
    return figure.update_scenes(camera_eye=eye)


def _panels(shown: _Shown) -> dict[str, xr.Dataset]:
    return {
        f"{method}, {split} data": plane.sel(split=split)
        for split in shown.splits
        for method, plane in shown.planes.items()
    }


def _contours(shown: _Shown) -> Any:
    return plots.contour_panels(_panels(shown), columns=len(shown.planes))


def _profiles(profiles: pd.DataFrame) -> Any:
    panels: dict[str, dict[str, xr.Dataset]] = {}
    for (protocol, split, method), rows in profiles.groupby(["protocol", "split", "method"], sort=False):
        band = rows.set_index("radius")[["loss_rise", "loss_rise_low", "loss_rise_high"]].to_xarray()
        panels.setdefault(f"{protocol}, {split} data", {})[str(method)] = band
    return plots.profile_panels(panels, columns=2)


def _profile_in_words(profiles: pd.DataFrame) -> str:
    """The rise at the largest radius that all profiles have."""
    radius = profiles.groupby(["protocol", "split", "method"])["radius"].max().min()
    at = profiles[profiles["radius"] == radius]
    told = [f"{row.protocol}, {row.split} data, {row.method}: {row.loss_rise:.3g}" for row in records(at)]
    return f"Rise of the mean loss over the distance from the center. At {radius:g}: {'; '.join(told)} nats."
