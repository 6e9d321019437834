"""Surfaces for other programs: tables for spreadsheets and statistics, VTK files for ParaView."""

from __future__ import annotations

import base64
import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import xarray as xr

from landscape.files import replaced

__all__ = ["to_csv", "to_vtk"]

_AXES = ("alpha", "beta", "gamma", "t")
_SUFFIXES = {1: (".vtp", "a line"), 2: (".vts", "a plane"), 3: (".vti", "a volume")}
_HIDDEN_POINT, _HIDDEN_CELL = 2, 32  # of vtkDataSetAttributes: neither drawn nor counted
_RELIEF = 0.5  # height of the drawn surface, in lengths of its longer side
_TYPES = {"b": ("UInt8", "u1"), "i": ("Int64", "<i8"), "u": ("UInt64", "<u8"), "f": ("Float64", "<f8")}


def to_csv(surface: xr.Dataset, path: str | Path, nodes: bool = False) -> None:
    """Write one row a point: the coordinates, then loss, its standard error, and each metric; of all splits.

    Numbers have all their digits. What is not a number is ``NaN``, what is not finite ``inf``. The values at the
    center itself, and how the surface was made, are in the netCDF file alone.

    Args:
        surface: a line, plane or volume.
        path: ends in ``.csv``; its folder is made. An existing file is replaced when the new one is complete.
        nodes: of an adaptive surface, the points of its lattice instead of those that it was rendered at; the column
            ``evaluated`` says which were measured. The others were predicted.

    Raises:
        ValueError: another suffix, nothing to write, or no lattice.
    """
    path = _checked(path, ".csv", "a table")
    surface = _lattice(surface) if nodes else surface
    axes = _axes(surface)
    others = [dim for name in _on(surface, axes) for dim in surface[name].dims if dim not in axes]
    dims = [*dict.fromkeys(others), *axes]
    table = surface[_on(surface, axes)].to_dataframe(dim_order=dims).reset_index()
    chosen = [name for name in surface.coords if not surface[name].dims]  # by .sel(split=…)
    columns = [*chosen, *dims, *_on(surface, axes)]
    with replaced(path) as temporary:
        table[columns].to_csv(temporary, index=False, na_rep="NaN", lineterminator="\n")


def to_vtk(
    surface: xr.Dataset,
    path: str | Path,
    height: str = "loss",
    logarithm: bool = False,
    split: str | None = None,
    nodes: bool = False,
) -> None:
    """Write what ParaView opens: a plane as a relief (.vts), a volume as an image (.vti), a line as a curve (.vtp).

    x and y are alpha and beta. z is the height, moved and scaled so that the relief is half as high as the plane is
    long: z = (height - ``height_offset``) · ``height_scale``, which are in the file as field data. A line lies in the
    plane y = 0, so that it can be laid over a surface. All splits of a surface share the scale: their files can be
    laid over each other too.

    Every variable is in the file with its own, unscaled values, as point data; of several splits as ``loss_train``,
    ``loss_test`` …. Attributes and values at the center are field data. Points whose height is not finite keep their
    values and are marked in ``vtkGhostType``, as are the cells around them: ParaView does not draw these. A line has
    gaps there.

    Args:
        surface: a line, plane or volume.
        path: ends in ``.vtp`` for a line, ``.vts`` for a plane, ``.vti`` for a volume; its folder is made. An existing
            file is replaced when the new one is complete.
        height: the variable that is drawn as height; in a volume, which has none, the one that is shown first.
        logarithm: draw its common logarithm; values that are not positive count as not finite.
        split: whose height, if the surface has several splits.
        nodes: of an adaptive surface, its lattice instead of the points that it was rendered at; ``evaluated`` says
            which nodes were measured.

    Raises:
        ValueError: another suffix, an unknown variable, several splits and none chosen, other dimensions to choose from
            first, no finite height, a volume that is not evenly spaced, or no lattice.
    """
    surface = _lattice(surface) if nodes else surface
    axes = _axes(surface)
    path = _checked(path, *_SUFFIXES[len(axes)])
    if height not in _on(surface, axes):
        raise ValueError(f"height: {height!r} is not on the surface; it has {', '.join(_on(surface, axes))}")
    surface, split = _one_dimension_of_splits(surface, axes, split)
    arrays = _point_data(surface, axes)
    shown = height if split is None or "split" not in surface[height].dims else f"{height}_{split}"
    z, low, high = _heights(surface[height], arrays[shown], logarithm)
    hidden = ~np.isfinite(z)
    if hidden.any():
        arrays["vtkGhostType"] = np.where(hidden, _HIDDEN_POINT, 0).astype(np.uint8)
    scale = _RELIEF * max(float(np.ptp(surface[axis].values)) for axis in axes) / ((high - low) or 1.0)
    z = (z - low) * scale
    top = float(z[~hidden].max())  # hidden points need a place too, which should not widen the bounds
    drawing = _Drawing(
        axes=[surface[axis].values.astype(np.float64) for axis in axes],
        z=np.where(hidden, top, z),
        hidden=hidden,
        arrays=arrays,
        shown=shown,
        fields=_provenance(surface)
        | {"height_of": shown, "height_logarithm": int(logarithm), "height_offset": low, "height_scale": scale},
    )
    root = (_line, _plane, _volume)[len(axes) - 1](drawing)
    with replaced(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _axes(surface: xr.Dataset) -> list[str]:
    axes = [axis for axis in _AXES if axis in surface.dims]
    if not axes:
        raise ValueError(
            f"expected dimensions among {', '.join(_AXES)}, got {', '.join(map(str, surface.dims)) or 'none'}"
        )
    if not _on(surface, axes):
        raise ValueError(f"no variable lies on {', '.join(axes)}: nothing to write")
    return axes


def _on(surface: xr.Dataset, axes: list[str]) -> list[str]:
    """The variables that have a value at each point."""
    return [str(name) for name, variable in surface.data_vars.items() if set(axes) <= set(variable.dims)]


def _lattice(surface: xr.Dataset) -> xr.Dataset:
    if "evaluated" not in surface:
        raise ValueError("nodes=True: expected an adaptive surface; all points of this one were evaluated")
    axes = {f"{axis}_node": axis for axis in _AXES if f"{axis}_node" in surface.dims}
    names = {name: name.removeprefix("node_") for name in _on(surface, list(axes))}
    kept = [str(name) for name, variable in surface.variables.items() if not set(variable.dims) & set(_AXES)]
    return surface[kept].rename(axes | names)


def _one_dimension_of_splits(surface: xr.Dataset, axes: list[str], split: str | None) -> tuple[xr.Dataset, str | None]:
    others = [str(dim) for name in _on(surface, axes) for dim in surface[name].dims if dim not in (*axes, "split")]
    if others:
        first = others[0]
        raise ValueError(f"choose along {first} first: surface.sel({first}={surface[first].values.tolist()[0]!r})")
    known = [str(name) for name in np.atleast_1d(surface["split"].values)] if "split" in surface.coords else []
    if split is not None and split not in known:
        expected = f"one of {', '.join(known)}" if known else "None, as the surface has none"
        raise ValueError(f"split: expected {expected}, got {split!r}")
    if surface.sizes.get("split", 1) == 1:
        return surface.squeeze("split") if "split" in surface.dims else surface, None
    if split is None:
        raise ValueError(f"split: whose height? The surface has {', '.join(known)}; write split={known[0]!r}")
    return surface, split


def _point_data(surface: xr.Dataset, axes: list[str]) -> dict[str, np.ndarray]:
    """A flat array for each variable and split, in VTK's order: alpha runs fastest."""
    arrays: dict[str, np.ndarray] = {}
    for name in _on(surface, axes):
        variable = surface[name].transpose(..., *reversed(axes))
        splits = variable["split"].values.tolist() if "split" in variable.dims else []
        of_each = {f"{name}_{split}": variable.sel(split=split) for split in splits} or {name: variable}
        if taken := of_each.keys() & arrays.keys():
            raise ValueError(f"two arrays would be called {min(taken)!r}; rename a variable")
        arrays |= {label: values.values.ravel() for label, values in of_each.items()}
    return arrays


def _heights(variable: xr.DataArray, shown: np.ndarray, logarithm: bool) -> tuple[np.ndarray, float, float]:
    """Heights at each point, and the lowest and highest of all splits."""

    def height(values: np.ndarray) -> np.ndarray:
        wide = values.astype(np.float64)
        return np.log10(np.where(wide > 0, wide, np.nan)) if logarithm else wide

    everywhere, z = height(variable.values), height(shown)
    if not np.isfinite(z).any():
        raise ValueError(f"no finite {'logarithm of ' if logarithm else ''}{variable.name}: nothing to draw")
    finite = everywhere[np.isfinite(everywhere)]
    return z, float(finite.min()), float(finite.max())


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """Points in VTK's order (alpha runs fastest), and what is known at them.

    Attributes:
        axes: the coordinates along each dimension.
        z: heights as they are drawn, all finite.
        hidden: where the height is not finite.
        arrays: point data.
        shown: the array that is shown first.
        fields: field data.
    """

    axes: list[np.ndarray]
    z: np.ndarray
    hidden: np.ndarray
    arrays: dict[str, np.ndarray]
    shown: str
    fields: dict[str, Any]

    @property
    def extent(self) -> str:
        """First and last index along x, y and z."""
        return " ".join(f"0 {len(axis) - 1}" for axis in [*self.axes, np.zeros(1), np.zeros(1)][:3])


def _line(drawing: _Drawing) -> ET.Element:
    runs = [
        list(run)
        for gone, run in itertools.groupby(range(len(drawing.z)), key=lambda index: bool(drawing.hidden[index]))
        if not gone
    ]
    runs = [run for run in runs if len(run) > 1]
    root, data = _file("PolyData", drawing.fields)
    piece = ET.SubElement(data, "Piece", NumberOfPoints=str(len(drawing.z)), NumberOfLines=str(len(runs)))
    _add_data(piece, drawing, {})
    _add_points(piece, drawing.axes[0], np.zeros_like(drawing.z), drawing.z)
    lines = ET.SubElement(piece, "Lines")
    _add_array(lines, "connectivity", np.array(list(itertools.chain(*runs)), dtype=np.int64))
    _add_array(lines, "offsets", np.cumsum([len(run) for run in runs], dtype=np.int64))
    return root


def _plane(drawing: _Drawing) -> ET.Element:
    root, data = _file("StructuredGrid", drawing.fields, WholeExtent=drawing.extent)
    piece = ET.SubElement(data, "Piece", Extent=drawing.extent)
    _add_data(piece, drawing, _hidden_cells(drawing))
    x, y = np.meshgrid(*drawing.axes)
    _add_points(piece, x.ravel(), y.ravel(), drawing.z)
    return root


def _volume(drawing: _Drawing) -> ET.Element:
    spacing = [float(axis[-1] - axis[0]) / (len(axis) - 1) if len(axis) > 1 else 1.0 for axis in drawing.axes]
    for name, axis, step in zip(_AXES, drawing.axes, spacing, strict=False):
        if step <= 0 or not np.allclose(np.diff(axis), step, rtol=1e-6, atol=0):
            raise ValueError(f"{name}: a .vti file holds evenly spaced, ascending points alone; use to_csv")
    root, data = _file(
        "ImageData",
        {name: value for name, value in drawing.fields.items() if not name.startswith("height_")},
        WholeExtent=drawing.extent,
        Origin=" ".join(repr(float(axis[0])) for axis in drawing.axes),
        Spacing=" ".join(map(repr, spacing)),
    )
    _add_data(ET.SubElement(data, "Piece", Extent=drawing.extent), drawing, _hidden_cells(drawing))
    return root


def _hidden_cells(drawing: _Drawing) -> dict[str, np.ndarray]:
    """The cells with a hidden corner: some filters heed marks on points, others those on cells."""
    if not drawing.hidden.any():
        return {}
    cells = drawing.hidden.reshape([len(axis) for axis in reversed(drawing.axes)])
    for axis, length in enumerate(cells.shape):
        if length > 1:
            cells = np.take(cells, range(1, length), axis) | np.take(cells, range(length - 1), axis)
    return {"vtkGhostType": np.where(cells.ravel(), _HIDDEN_CELL, 0).astype(np.uint8)}


def _provenance(surface: xr.Dataset) -> dict[str, Any]:
    """Attributes, and what the surface holds beside its points, such as the loss at the center."""
    beside = {
        str(name): variable.values for name, variable in surface.variables.items() if set(variable.dims) <= {"split"}
    }
    return {str(name): value for name, value in surface.attrs.items()} | beside


def _file(kind: str, fields: Mapping[str, Any], **geometry: str) -> tuple[ET.Element, ET.Element]:
    # Version 1.0 is the first with 64-bit lengths.
    root = ET.Element("VTKFile", type=kind, version="1.0", byte_order="LittleEndian", header_type="UInt64")
    data = ET.SubElement(root, kind, geometry)
    field_data = ET.SubElement(data, "FieldData")
    for name, value in fields.items():
        values = np.atleast_1d(np.asarray(value)).ravel()
        _add_array(field_data, name, values, NumberOfTuples=str(len(values)))
    return root, data


def _add_data(piece: ET.Element, drawing: _Drawing, cells: Mapping[str, np.ndarray]) -> None:
    point_data = ET.SubElement(piece, "PointData", Scalars=drawing.shown)
    for name, values in drawing.arrays.items():
        _add_array(point_data, name, values)
    cell_data = ET.SubElement(piece, "CellData")
    for name, values in cells.items():
        _add_array(cell_data, name, values)


def _add_points(piece: ET.Element, *xyz: np.ndarray) -> None:
    values = np.stack(xyz, axis=1).ravel()
    _add_array(ET.SubElement(piece, "Points"), "Points", values, NumberOfComponents="3")


def _add_array(parent: ET.Element, name: str, values: np.ndarray, **more: str) -> None:
    if not name.isprintable():
        raise ValueError(f"XML cannot hold the name {name!r}; rename the variable")
    if values.dtype.kind in _TYPES:
        tag, (kind, code) = "DataArray", _TYPES["b" if values.dtype == np.uint8 else values.dtype.kind]
        content = values.astype(code).tobytes()
    else:
        tag, kind = "Array", "String"
        content = b"".join(str(value).encode() + b"\0" for value in values)
    element = ET.SubElement(parent, tag, {"type": kind, "Name": name, "format": "binary"} | more)
    element.text = base64.b64encode(len(content).to_bytes(8, "little") + content).decode()


def _checked(path: str | Path, suffix: str, what: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"path: {what} is written to a {suffix} file, got {path.name!r}")
    return path
