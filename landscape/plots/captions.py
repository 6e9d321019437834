"""What a figure says in words, taken from the attributes of what it draws: axis labels, titles, captions."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from landscape.plots.scale import only_plane

__all__ = [
    "as_text",
    "axis_labels",
    "center_title",
    "is_adaptive",
    "lowest_point",
    "made_how",
    "percent",
    "principal",
    "put_caption",
]

_COORDINATES = ("alpha", "beta", "gamma", "t")
_CURVE = "Bezier curve"
_UNITS = {"filter": "filter norms", "layer": "layer norms"}
_PRINCIPAL = ("principal", "trajectory")  # principal components of the checkpoints of a run
_ORDINALS = ("first", "second", "third")
_LABEL = 46  # characters of an axis label that fit beside a panel of four inches
_CHARACTERS_PER_INCH = 17  # of the caption's font, with room to spare


def as_text(name: object) -> str:
    """The name as Matplotlib shows it literally: a name is text, not a formula."""
    return str(name).replace("$", r"\$")


def percent(share: float, digits: int = 3) -> str:
    """A share with so many significant digits, and never as a power of ten."""
    number = float(f"{100 * share:.{digits}g}")
    return f"{np.format_float_positional(number, trim='-')} %"


def center_title(name: str, surface: xr.Dataset) -> str:
    """The model's name, and loss and accuracy at the center."""
    only_plane(surface, "loss")
    parts = [f"loss {float(surface['center_loss']):.4g}"]
    if "center_accuracy" in surface:
        parts.append(f"accuracy {float(surface['center_accuracy']):.2%}")
    return f"{as_text(name)}\ncenter: {', '.join(parts)}"


def axis_labels(surface: xr.Dataset, axes: Sequence[str] = ("alpha", "beta")) -> tuple[str, ...]:
    """What each axis is, with its unit, from what the surface's directions say of themselves."""
    about = _about(surface)
    labels = []
    for axis in axes:
        if axis == "t":
            labels.append("t (share of the way along the curve)")
            continue
        index = _COORDINATES.index(axis)
        legs = len(about) if "beta" not in surface.dims else 1  # a line goes through all of them, one after the other
        mine = about[index] if index < len(about) else {}
        meaning = _meaning(mine, index, surface.attrs.get("normalization"), legs)
        label = f"{axis} ({meaning})" if meaning else axis
        labels.append(label if len(label) <= _LABEL else label.replace(", ", ",\n"))
    return tuple(labels)


def principal(index: int, share: float | None = None) -> str:
    """The name of a principal component, with its share of the variance."""
    name = f"{_ORDINALS[index] if index < len(_ORDINALS) else f'{index + 1}th'} principal component"
    return name if share is None else f"{name}, {percent(share)} of the variance"


def made_how(surfaces: Mapping[str, xr.Dataset], variable: str = "loss", drawn_as: str = "panels") -> str:
    """A caption: what the figure's surfaces have in common, and where they differ.

    Args:
        surfaces: model name to surface.
        variable: the one that is drawn.
        drawn_as: what each of the surfaces is in the figure, in the plural.
    """
    ones = list(surfaces.values())
    parts = [_shared({_directions(one) for one in ones}, "directions"), _draws(ones, drawn_as)]
    grids = {name: one for name, one in surfaces.items() if not is_adaptive(one)}
    sizes = {"×".join(str(one.sizes[axis]) for axis in _axes(one, variable)) for one in grids.values()}
    if sizes:
        stated = all("method" in one.attrs for one in grids.values())  # a mean of surfaces does not say
        parts.append(f"{' and '.join(sorted(sizes))} points{', each evaluated' if stated else ''}")
    parts.append(_interpolated({name: one for name, one in surfaces.items() if is_adaptive(one)}))
    parts.append(_not_converged(surfaces))
    parts += sorted({f"mean over {one.attrs['pairs']} direction pairs" for one in ones if "confidence" in one.attrs})
    if all("ignored" in one.attrs for one in ones):
        kept = {one.attrs["ignored"] for one in ones}
        moved = "biases and normalization layers not moved" if min(kept) else "all parameters moved"
        parts.append(moved if len(kept) == 1 else "DIFFERENT parameters moved")
    return "; ".join(part for part in parts if part)


def is_adaptive(surface: xr.Dataset) -> bool:
    """Whether most of the surface's values are interpolated."""
    return bool(surface.attrs.get("method") == "adaptive")


def lowest_point(surfaces: Iterable[xr.Dataset], of: str = "of the grid") -> str:
    """What the circle of a contour plot marks: not more than the surfaces say of themselves."""
    ones = list(surfaces)
    if any(map(is_adaptive, ones)):
        return "○ lowest point drawn (interpolated)"
    return f"○ lowest point {of if all('method' in one.attrs for one in ones) else 'drawn'}"


def put_caption(figure: Figure, *lines: str) -> None:
    """Write the lines below the figure, small and grey, broken where the figure ends."""
    width = int(_CHARACTERS_PER_INCH * figure.get_figwidth())
    broken = [_broken(line, width, "   " if "   " in line else "; ") for line in lines if line]
    figure.supxlabel("\n".join(broken), fontsize=7, color="0.35")


def _broken(line: str, width: int, separator: str) -> str:
    """Lines of at most this many characters, broken between the parts of a caption, and within one only if it must."""
    rows: list[str] = []
    for part in line.split(separator):
        if rows and len(rows[-1]) + len(separator) + len(part) <= width:
            rows[-1] += separator + part
        else:
            rows += textwrap.wrap(part, width, break_long_words=False)
    return "\n".join(rows)


def _about(surface: xr.Dataset) -> list[dict[str, Any]]:
    return [dict(one) for one in json.loads(surface.attrs.get("directions", "[]"))]


def _axes(surface: xr.Dataset, variable: str) -> list[str]:
    return [axis for axis in _COORDINATES if axis in surface[variable].dims]


def _meaning(about: Mapping[str, Any], index: int, normalization: str | None, legs: int) -> str:
    kind = about.get("kind", "random")
    if kind == "between":
        return f"between checkpoints, 0 to {legs}"
    parts = []
    if kind in _PRINCIPAL:
        parts.append(principal(about.get("index", index), about.get("explained_variance")))
    elif kind == "hessian":
        value = about.get("eigenvalue")
        parts.append("Hessian eigenvector" if value is None else f"Hessian eigenvector, eigenvalue {value:.3g}")
    unit = _UNITS.get(about.get("normalization", normalization), "")
    return ", ".join([*parts, unit] if unit else parts)


def _directions(surface: xr.Dataset) -> str:
    if surface.attrs.get("method") == _CURVE:
        bends = int(surface.attrs["bends"])
        return f"Bézier curve with {bends} bend{'s' if bends != 1 else ''}"
    normalization = surface.attrs.get("normalization")
    kinds = list(dict.fromkeys(one.get("kind", "random") for one in _about(surface)))
    if not kinds and normalization is None:
        return ""
    random = "random directions" if normalization in (None, "none") else f"{normalization}-normalized random directions"
    words = {
        "random": random,
        **dict.fromkeys(_PRINCIPAL, "principal components of the checkpoints"),
        "hessian": "Hessian eigenvectors",
        "between": "between checkpoints",
    }
    return " and ".join(words.get(kind, kind) for kind in kinds or ["random"])


def _shared(found: set[str], what: str) -> str:
    return next(iter(found)) if len(found) == 1 else f"DIFFERENT {what}: {' / '.join(sorted(found - {''}))}"


def _draws(surfaces: Sequence[xr.Dataset], drawn_as: str) -> str:
    """Whether the random directions of all surfaces were the same draws: those of one seed and one index."""
    drawn = [_seeds_and_indices(one) for one in surfaces]
    if not any(drawn):
        return ""
    if any(one != drawn[0] for one in drawn):
        return f"DIFFERENT draws in the {drawn_as}"
    seeds = ", ".join(dict.fromkeys(str(seed) for seed, _ in drawn[0]))
    return f"seed {seeds}, the same draws for all {drawn_as}" if len(surfaces) > 1 else f"seed {seeds}"


def _seeds_and_indices(surface: xr.Dataset) -> list[tuple[Any, Any]]:
    if about := _about(surface):
        random = [one for one in about if one.get("kind", "random") == "random"]
        return [(one.get("seed"), one.get("index")) for one in random]
    return [(surface.attrs["seed"], None)] if "seed" in surface.attrs else []


def _interpolated(surfaces: Mapping[str, xr.Dataset]) -> str:
    if not surfaces:
        return ""
    points = [int(one) for one in _stated(surfaces, "evaluations")]
    parts = [f"{_from_to(points, str)} points evaluated"] if points else []
    errors = _stated(surfaces, "error_estimate")
    known = all(_stated({name: one}, "error_estimate") for name, one in surfaces.items())
    if known and all(math.isfinite(error) for error in errors):
        largest = f"about {_from_to(errors, lambda share: percent(share, 2))} of the range"
    else:
        largest = "unknown"
    return ", ".join([*parts, "interpolated", f"largest error {largest}"])


def _stated(surfaces: Mapping[str, xr.Dataset], name: str) -> list[float]:
    """The number that surfaces have as an attribute, or by pair as a variable; of those that have it."""
    found: list[float] = []
    for one in surfaces.values():
        if name in one.attrs:
            found.append(float(one.attrs[name]))
        elif name in one:
            found += one[name].values.astype(float).flat
    return found


def _from_to(numbers: Iterable[Any], shown: Any) -> str:
    low, high = shown(min(numbers)), shown(max(numbers))
    return low if low == high else f"{low} to {high}"


def _not_converged(surfaces: Mapping[str, xr.Dataset]) -> str:
    missed = [as_text(name) for name, one in surfaces.items() if not all(_stated({name: one}, "converged"))]
    if not missed:
        return ""
    return "NOT CONVERGED" if len(missed) == len(surfaces) else f"NOT CONVERGED: {', '.join(missed)}"
