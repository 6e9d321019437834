"""Exported files, read back by other roads than they were written by, and by VTK itself."""

import base64
import csv
import struct
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from landscape.export import to_csv, to_vtk

ALPHA, BETA, GAMMA = np.linspace(-1, 1, 5), np.linspace(-0.25, 0.25, 3), np.linspace(-2, 2, 4)
AXES = {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA}
ATTRIBUTES = {"method": 'grid <é> & "q"', "seed": 3, "direction_norms": [1.5, 2.5], "ignored": ""}


def value(alpha=0.0, beta=0.0, gamma=0.0):
    return 1 + alpha**2 + 3 * beta**2 + 0.3 * alpha * beta + gamma / 7 + 0.01 * alpha


def surface(*dims, scale=1.0):
    """A surface whose points can all be told apart, with a metric whose name XML must escape."""
    grid = np.meshgrid(*(AXES[dim] for dim in dims), indexing="ij")
    loss = scale * value(**dict(zip(dims, grid, strict=True)))
    return xr.Dataset(
        {"loss": (dims, loss), '<a> & "b"': (dims, -loss), "center_loss": scale * value()},
        coords={dim: AXES[dim] for dim in dims},
        attrs=ATTRIBUTES,
    )


def with_splits(*dims):
    both = [surface(*dims).expand_dims(split=["train"]), surface(*dims, scale=2.0).expand_dims(split=["test"])]
    return xr.concat(both, "split", combine_attrs="override")


def adaptive():
    plane = surface("alpha", "beta")
    nodes = np.array([-1, -0.5, 1.0]), np.array([-0.25, 0.25])
    loss = value(*np.meshgrid(*nodes, indexing="ij"))
    dims = ("alpha_node", "beta_node")
    lattice = {
        "evaluated": (dims, np.array([[True, False], [True, True], [False, True]])),
        "node_loss": (dims, loss),
        "node_accuracy": (dims, loss / 10),
    }
    return plane.assign(lattice).assign_coords(alpha_node=nodes[0], beta_node=nodes[1])


# CSV


def test_one_row_a_point(tmp_path):
    plane = surface("alpha", "beta")
    to_csv(plane, tmp_path / "new" / "plane.csv")
    with (tmp_path / "new" / "plane.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["alpha", "beta", "loss", '<a> & "b"']
    assert len(rows) == 15
    for alpha, beta, loss, metric in (map(float, row) for row in rows):
        assert loss == float(plane["loss"].sel(alpha=alpha, beta=beta))  # all digits
        assert metric == -loss


@pytest.mark.parametrize("dims", [("alpha",), ("beta", "alpha"), ("gamma", "alpha", "beta")], ids=str)
def test_any_number_of_dimensions_in_any_order(tmp_path, dims):
    to_csv(surface(*dims), tmp_path / "surface.csv")
    table = pd.read_csv(tmp_path / "surface.csv")
    assert list(table.columns)[: len(dims)] == sorted(dims)
    assert len(table) == np.prod([len(AXES[dim]) for dim in dims])
    np.testing.assert_array_equal(table["loss"], value(**{dim: table[dim] for dim in dims}))


def test_splits_are_a_column(tmp_path):
    to_csv(with_splits("alpha", "beta"), tmp_path / "both.csv")
    table = pd.read_csv(tmp_path / "both.csv")
    assert list(table.columns) == ["split", "alpha", "beta", "loss", '<a> & "b"']
    assert list(table["split"]) == ["train"] * 15 + ["test"] * 15
    np.testing.assert_array_equal(table["loss"], value(table["alpha"], table["beta"]) * ([1] * 15 + [2] * 15))
    to_csv(with_splits("alpha", "beta").sel(split="test"), tmp_path / "test.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "test.csv"), table[15:].reset_index(drop=True))


def test_variables_without_a_split_are_repeated(tmp_path):
    both = with_splits("alpha").assign(norm=("alpha", ALPHA * 2))
    to_csv(both, tmp_path / "both.csv")
    table = pd.read_csv(tmp_path / "both.csv")
    np.testing.assert_array_equal(table["norm"], table["alpha"] * 2)


def test_what_is_not_finite_stays(tmp_path):
    line = surface("alpha")
    line["loss"][:3] = [np.nan, np.inf, -np.inf]
    to_csv(line, tmp_path / "line.csv")
    assert [row.split(",")[1] for row in (tmp_path / "line.csv").read_text().splitlines()[1:4]] == [
        "NaN",
        "inf",
        "-inf",
    ]
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "line.csv")["loss"], line["loss"])


def test_the_lattice_of_an_adaptive_surface(tmp_path):
    to_csv(adaptive(), tmp_path / "rendered.csv")
    assert list(pd.read_csv(tmp_path / "rendered.csv").columns) == ["alpha", "beta", "loss", '<a> & "b"']
    to_csv(adaptive(), tmp_path / "nodes.csv", nodes=True)
    table = pd.read_csv(tmp_path / "nodes.csv")
    assert list(table.columns) == ["alpha", "beta", "evaluated", "loss", "accuracy"]
    assert list(table["evaluated"]) == [True, False, True, True, False, True]
    assert list(table["alpha"]) == [-1, -1, -0.5, -0.5, 1, 1]
    np.testing.assert_array_equal(table["loss"], value(table["alpha"], table["beta"]))


# VTK


def decoded(element):
    raw = base64.b64decode(element.text)
    (length,) = struct.unpack("<Q", raw[:8])
    assert length == len(raw) - 8
    if element.get("type") == "String":
        return raw[8:].decode().split("\0")[:-1]
    types = {"Float64": "<f8", "Int64": "<i8", "UInt8": "u1"}
    return np.frombuffer(raw[8:], types[element.get("type")])


def read(path):
    root = ET.parse(path).getroot()
    assert root.tag == "VTKFile"
    assert (root.get("byte_order"), root.get("header_type")) == ("LittleEndian", "UInt64")
    (data,) = root
    assert data.tag == root.get("type")
    return root


def arrays(root, place):
    (element,) = root.iter(place)
    return {child.get("Name"): decoded(child) for child in element}


def points(root):
    return arrays(root, "Points")["Points"].reshape(-1, 3)


def test_a_plane_is_a_relief(tmp_path):
    to_vtk(surface("beta", "alpha"), tmp_path / "new" / "plane.vts")
    root = read(tmp_path / "new" / "plane.vts")
    assert root.get("type") == "StructuredGrid"
    assert root[0].get("WholeExtent") == root.find(".//Piece").get("Extent") == "0 4 0 2 0 0"
    assert root.find(".//PointData").get("Scalars") == "loss"
    x, y, z = points(root).T
    np.testing.assert_array_equal(x, np.tile(ALPHA, 3))  # alpha runs fastest
    np.testing.assert_array_equal(y, np.repeat(BETA, 5))
    data = arrays(root, "PointData")
    assert set(data) == {"loss", '<a> & "b"'}
    np.testing.assert_array_equal(data["loss"], value(x, y))
    np.testing.assert_array_equal(data['<a> & "b"'], -value(x, y))
    assert arrays(root, "CellData") == {}
    # Half as high as the longer side, which is 2; and the field data tell how to get back to losses.
    assert (z.min(), z.max()) == (0, pytest.approx(1))
    fields = arrays(root, "FieldData")
    np.testing.assert_allclose(z / fields["height_scale"] + fields["height_offset"], data["loss"])


def test_what_is_known_of_a_surface_is_field_data(tmp_path):
    to_vtk(surface("alpha", "beta"), tmp_path / "plane.vts")
    fields = arrays(read(tmp_path / "plane.vts"), "FieldData")
    assert fields["method"] == ['grid <é> & "q"']
    assert fields["ignored"] == [""]
    assert fields["seed"].tolist() == [3]
    assert fields["direction_norms"].tolist() == [1.5, 2.5]
    assert fields["center_loss"].tolist() == [1.0]
    assert fields["height_of"] == ["loss"]


def test_another_height_and_its_logarithm(tmp_path):
    plane = surface("alpha", "beta").assign(flops=lambda plane: 10 ** plane["loss"])
    to_vtk(plane, tmp_path / "plane.vts", height="flops", logarithm=True)
    root = read(tmp_path / "plane.vts")
    assert root.find(".//PointData").get("Scalars") == "flops"
    x, y, z = points(root).T
    fields = arrays(root, "FieldData")
    np.testing.assert_allclose(z / fields["height_scale"] + fields["height_offset"], value(x, y))
    np.testing.assert_array_equal(arrays(root, "PointData")["flops"], 10 ** value(x, y))  # unscaled


def test_a_flat_plane(tmp_path):
    to_vtk(surface("alpha", "beta") * 0 + 2, tmp_path / "plane.vts")
    assert not points(read(tmp_path / "plane.vts"))[:, 2].any()


def test_points_that_are_not_finite_are_kept_and_hidden(tmp_path):
    plane = surface("alpha", "beta")
    plane["loss"][0, 0], plane["loss"][4, 1] = np.nan, np.inf
    to_vtk(plane, tmp_path / "plane.vts")
    root = read(tmp_path / "plane.vts")
    data = arrays(root, "PointData")
    assert np.isnan(data["loss"][0])
    assert data["loss"][9] == np.inf
    assert data["vtkGhostType"].dtype == np.uint8
    assert data["vtkGhostType"].nonzero()[0].tolist() == [0, 9]
    assert set(data["vtkGhostType"]) == {0, 2}
    # Cells are 4 × 2: the one in the corner, and the two beside the middle of the edge.
    assert arrays(root, "CellData")["vtkGhostType"].tolist() == [32, 0, 0, 32, 0, 0, 0, 32]
    assert np.isfinite(points(root)).all()
    assert points(root)[:, 2].max() == pytest.approx(1)


def test_losses_without_a_logarithm_are_hidden(tmp_path):
    plane = surface("alpha", "beta")
    plane["loss"][0, :2] = [0, -1]
    to_vtk(plane, tmp_path / "plane.vts", logarithm=True)
    assert arrays(read(tmp_path / "plane.vts"), "PointData")["vtkGhostType"].nonzero()[0].tolist() == [0, 5]


def test_a_volume_is_an_image(tmp_path):
    volume = surface("alpha", "beta", "gamma")
    volume["loss"][0, 0, 0] = np.nan
    to_vtk(volume, tmp_path / "volume.vti")
    root = read(tmp_path / "volume.vti")
    assert root.get("type") == "ImageData"
    assert root[0].get("WholeExtent") == "0 4 0 2 0 3"
    origin, spacing = (np.array(root[0].get(name).split(), float) for name in ("Origin", "Spacing"))
    np.testing.assert_allclose(origin, [-1, -0.25, -2])
    np.testing.assert_allclose(spacing, [0.5, 0.25, 4 / 3])
    data = arrays(root, "PointData")
    for point in (1, 7, 33, 59):
        index = np.array([point % 5, point // 5 % 3, point // 15])
        assert data["loss"][point] == pytest.approx(value(*(origin + index * spacing)))
    assert data["vtkGhostType"].nonzero()[0].tolist() == [0]
    assert arrays(root, "CellData")["vtkGhostType"].nonzero()[0].tolist() == [0]
    assert "height_scale" not in arrays(root, "FieldData")


def test_a_line_is_a_curve_with_gaps(tmp_path):
    line = surface("alpha")
    line["loss"][2] = np.nan
    to_vtk(line, tmp_path / "line.vtp")
    root = read(tmp_path / "line.vtp")
    piece = root.find(".//Piece")
    assert (root.get("type"), piece.get("NumberOfPoints"), piece.get("NumberOfLines")) == ("PolyData", "5", "2")
    lines = arrays(root, "Lines")
    assert (lines["connectivity"].tolist(), lines["offsets"].tolist()) == ([0, 1, 3, 4], [2, 4])
    x, y, z = points(root).T
    np.testing.assert_array_equal(x, ALPHA)
    assert not y.any()
    assert z[[0, 1, 3, 4]].argmax() == 3
    assert np.isnan(arrays(root, "PointData")["loss"]).tolist() == [False, False, True, False, False]


def test_a_curve_between_minima_is_a_line(tmp_path):
    to_vtk(surface("alpha").rename(alpha="t"), tmp_path / "curve.vtp")
    np.testing.assert_array_equal(points(read(tmp_path / "curve.vtp"))[:, 0], ALPHA)


def test_several_splits_are_arrays_of_one_file_on_one_scale(tmp_path):
    both = with_splits("alpha", "beta")
    roots = {}
    for split in ("train", "test"):
        to_vtk(both, tmp_path / f"{split}.vts", split=split)
        roots[split] = read(tmp_path / f"{split}.vts")
        assert roots[split].find(".//PointData").get("Scalars") == f"loss_{split}"
        data = arrays(roots[split], "PointData")
        assert set(data) == {"loss_train", "loss_test", '<a> & "b"_train', '<a> & "b"_test'}
        np.testing.assert_array_equal(data["loss_test"], 2 * data["loss_train"])
    assert arrays(roots["train"], "FieldData")["split"] == ["train", "test"]
    assert arrays(roots["train"], "FieldData")["center_loss"].tolist() == [1, 2]
    (_, _, low), (_, _, high) = points(roots["train"]).T, points(roots["test"]).T
    offset, scale = (arrays(roots["train"], "FieldData")[name] for name in ("height_offset", "height_scale"))
    np.testing.assert_allclose(high / scale + offset, 2 * (low / scale + offset))


@pytest.mark.parametrize("choose", [lambda both: both.sel(split="test"), lambda both: both.sel(split=["test"])])
def test_one_split_of_several_keeps_the_names(tmp_path, choose):
    to_vtk(choose(with_splits("alpha", "beta")), tmp_path / "test.vts")
    root = read(tmp_path / "test.vts")
    assert set(arrays(root, "PointData")) == {"loss", '<a> & "b"'}
    assert arrays(root, "FieldData")["split"] == ["test"]


def test_the_lattice_of_an_adaptive_surface_as_a_relief(tmp_path):
    to_vtk(adaptive(), tmp_path / "rendered.vts")
    assert set(arrays(read(tmp_path / "rendered.vts"), "PointData")) == {"loss", '<a> & "b"'}
    to_vtk(adaptive(), tmp_path / "nodes.vts", nodes=True)
    root = read(tmp_path / "nodes.vts")
    x, y, _ = points(root).T
    np.testing.assert_array_equal(x, np.tile([-1, -0.5, 1], 2))
    data = arrays(root, "PointData")
    assert data["evaluated"].tolist() == [1, 1, 0, 0, 1, 1]
    np.testing.assert_array_equal(data["loss"], value(x, y))


@pytest.mark.parametrize("write", [to_csv, to_vtk])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, write, monkeypatch):
    path = tmp_path / f"plane.{'csv' if write is to_csv else 'vts'}"
    write(surface("alpha", "beta"), path)
    first = path.read_bytes()

    def stopped(*_args, **_options):
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_csv", stopped)
    monkeypatch.setattr(ET.ElementTree, "write", stopped)
    with pytest.raises(OSError, match="no space left"):
        write(surface("alpha", "beta", scale=2.0), path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def all_nan():
    return surface("alpha", "beta") * np.nan


def uneven():
    volume = surface("alpha", "beta", "gamma")
    return volume.assign_coords(beta=[-1.0, 0.0, 2.0])


def two_of_one_name():
    return with_splits("alpha", "beta").assign(loss_train=(("alpha", "beta"), np.ones((5, 3))))


@pytest.mark.parametrize(
    ("make", "name", "options", "message"),
    [
        (lambda: surface("alpha", "beta"), "plane.vtk", {}, "a plane is written to a .vts file, got 'plane.vtk'"),
        (lambda: surface("alpha", "beta"), "plane", {}, "a plane is written to a .vts file, got 'plane'"),
        (lambda: surface("alpha"), "line.vts", {}, "path: a line is written to a .vtp file, got 'line.vts'"),
        (lambda: surface("alpha", "beta", "gamma"), "v.vts", {}, "path: a volume is written to a .vti file"),
        (
            lambda: surface("alpha", "beta"), "p.vts", {"height": "accuracy"},
            "height: 'accuracy' is not on the surface; it has loss, <a> & \"b\"",
        ),
        (lambda: surface("alpha", "beta"), "p.vts", {"height": "center_loss"}, "'center_loss' is not on the surface"),
        (lambda: with_splits("alpha", "beta"), "p.vts", {}, "whose height.* has train, test; write split='train'"),
        (lambda: with_splits("alpha"), "p.vtp", {"split": "dev"}, "split: expected one of train, test, got 'dev'"),
        (lambda: surface("alpha"), "p.vtp", {"split": "dev"}, "expected None, as the surface has none, got 'dev'"),
        (
            lambda: surface("alpha", "beta").expand_dims(pair=[0, 1]), "p.vts", {},
            r"choose along pair first: surface.sel\(pair=0\)",
        ),
        (all_nan, "p.vts", {}, "no finite loss: nothing to draw"),
        (lambda: -surface("alpha"), "p.vtp", {"logarithm": True}, "no finite logarithm of loss: nothing to draw"),
        (uneven, "v.vti", {}, "beta: a .vti file holds evenly spaced, ascending points alone"),
        (lambda: surface("alpha", "beta"), "p.vts", {"nodes": True}, "nodes=True: expected an adaptive surface"),
        (two_of_one_name, "p.vts", {"split": "train"}, "two arrays would be called 'loss_train'"),
        (lambda: surface("alpha").rename(loss="a\0b"), "p.vtp", {"height": "a\0b"}, r"cannot hold the name 'a\\x00b'"),
        (lambda: surface("alpha").rename(alpha="x"), "p.vtp", {}, "among alpha, beta, gamma, t, got x"),
        (lambda: xr.Dataset(coords={"alpha": ALPHA}), "p.vtp", {}, "no variable lies on alpha: nothing to write"),
    ],
    ids=[
        "suffix", "no suffix", "suffix of a plane", "suffix of a relief", "unknown height", "height of one point",
        "splits", "unknown split", "no splits", "other dimension", "not finite", "no logarithm", "uneven", "no lattice",
        "name taken", "name", "dimensions", "nothing",
    ],
)  # fmt: skip
def test_what_vtk_cannot_hold(tmp_path, make, name, options, message):
    with pytest.raises(ValueError, match=message):
        to_vtk(make(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "name", "options", "message"),
    [
        (lambda: surface("alpha"), "line.txt", {}, "path: a table is written to a .csv file, got 'line.txt'"),
        (lambda: surface("alpha"), "line.csv", {"nodes": True}, "nodes=True: expected an adaptive surface"),
        (lambda: xr.Dataset({"loss": 1.0}), "line.csv", {}, "expected dimensions among alpha, .*, got none"),
    ],
    ids=["suffix", "no lattice", "no dimension"],
)
def test_what_a_table_cannot_hold(tmp_path, make, name, options, message):
    with pytest.raises(ValueError, match=message):
        to_csv(make(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_vtk_reads_what_was_written(tmp_path):
    vtk = pytest.importorskip("vtk", reason="VTK is no dependency")
    holes = surface("alpha", "beta")
    holes["loss"][0, 0] = np.nan
    to_vtk(holes, tmp_path / "plane.vts")
    to_vtk(surface("alpha", "beta", "gamma"), tmp_path / "volume.vti")
    to_vtk(surface("alpha"), tmp_path / "line.vtp")
    complaints = []

    def output(reader, name):
        reader.AddObserver("ErrorEvent", lambda *_: complaints.append(name))
        reader.SetFileName(str(tmp_path / name))
        reader.Update()
        return reader.GetOutput()

    plane = output(vtk.vtkXMLStructuredGridReader(), "plane.vts")
    assert (plane.GetNumberOfPoints(), plane.GetNumberOfCells()) == (15, 8)
    x, y, _ = plane.GetPoint(7)
    assert plane.GetPointData().GetScalars().GetValue(7) == value(x, y)
    assert plane.GetFieldData().GetAbstractArray("method").GetValue(0) == ATTRIBUTES["method"]
    drawn = vtk.vtkGeometryFilter()
    drawn.SetInputData(plane)
    drawn.Update()
    assert drawn.GetOutput().GetNumberOfCells() == 7  # without the hidden corner
    volume = output(vtk.vtkXMLImageDataReader(), "volume.vti")
    assert volume.GetNumberOfPoints() == 60
    assert volume.GetScalarComponentAsDouble(3, 2, 1, 0) == pytest.approx(value(ALPHA[3], BETA[2], GAMMA[1]))
    line = output(vtk.vtkXMLPolyDataReader(), "line.vtp")
    assert (line.GetNumberOfPoints(), line.GetNumberOfLines()) == (5, 1)
    assert not complaints
