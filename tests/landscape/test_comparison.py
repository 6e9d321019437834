"""Several models on common directions: the right surface in the right place, and intervals over pairs."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn

from landscape import EmpiricalRisk, loss_surface, open_surface, random_directions
from landscape.comparison import compare_surfaces
from landscape.level_sets import area_below
from landscape.readouts import READOUTS, convex_share
from landscape.statistics import mean_interval, paired_difference

QUICK = {"pairs": 3, "points": 5, "method": "grid", "progress": False}


def classifier(seed):
    """A float64 network with a layer that stays put."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double().eval()


def data():
    draws = torch.Generator().manual_seed(0)
    return torch.randn(10, 3, dtype=torch.float64, generator=draws), torch.randint(2, (10,), generator=draws)


def batches():
    return list(zip(*(tensor.split(3) for tensor in data()), strict=True))


@pytest.fixture
def models():
    """Two models of one architecture, with risks on the same data."""
    return {name: EmpiricalRisk(classifier(seed), batches()) for seed, name in enumerate(("one", "other"))}


@pytest.fixture(scope="module")
def split_models():
    inputs, labels = data()
    parts = {"train": slice(None, 6), "test": slice(6, None)}
    return {
        name: {split: EmpiricalRisk(model, [(inputs[part], labels[part])]) for split, part in parts.items()}
        for name, model in (("one", classifier(0)), ("other", classifier(1)))
    }


@pytest.fixture(scope="module")
def comparison(split_models):
    return compare_surfaces(split_models, rise=0.1, **QUICK)


def test_each_surface_is_the_one_of_its_model_and_pair(split_models, comparison):
    assert dict(comparison.surfaces["loss"].sizes) == {"model": 2, "pair": 3, "split": 2, "alpha": 5, "beta": 5}
    assert comparison.models == ["one", "other"]
    for model, risks in split_models.items():
        for pair in range(3):
            directions = random_directions(risks["train"].parameters(), seed=pair)
            alone = loss_surface(risks, directions, points=5, method="grid", progress=False)
            here = comparison.surfaces.sel(model=model, pair=pair, drop=True)
            for name in ("loss", "loss_standard_error", "accuracy", "center_loss", "center_accuracy"):
                xr.testing.assert_equal(here[name], alone[name])
            xr.testing.assert_equal(comparison.each[model, pair], alone)
            assert int(here["evaluations"]) == alone.attrs["evaluations"]
            assert int(here["converged"]) == 1


def test_models_share_draws_and_not_their_scale(models):
    # A direction of one model, rescaled filter by filter, is that of the other.
    first = {name: random_directions(risk.parameters(), seed=5)[0]["3.weight"] for name, risk in models.items()}
    units = [tensor / tensor.norm(dim=1, keepdim=True) for tensor in first.values()]
    torch.testing.assert_close(*units)
    found = compare_surfaces(models, **QUICK | {"pairs": 1, "seed": 5})
    assert found.each["one", 0].attrs["seed"] == found.each["other", 0].attrs["seed"] == 5
    norms = [found.each[name, 0].attrs["direction_norms"] for name in models]
    assert not np.allclose(*norms)


def test_attributes_are_those_that_all_surfaces_share(comparison):
    attributes = comparison.surfaces.attrs
    assert (attributes["seed"], attributes["pairs"], attributes["rise"]) == (0, 3, 0.1)
    assert attributes["normalization"] == "filter"
    assert list(attributes["examples"]) == [6, 4]
    assert "center_fingerprint" not in attributes


def test_settings_reach_surfaces_and_directions(models):
    found = compare_surfaces(
        models, **QUICK | {"points": (4, 3)}, span=(0.5, 0.25), normalization="layer", ignore=("norm",)
    )
    np.testing.assert_allclose(found.surfaces["alpha"], np.linspace(-0.5, 0.5, 4))
    np.testing.assert_allclose(found.surfaces["beta"], [-0.25, 0.0, 0.25])
    assert found.surfaces.attrs["normalization"] == "layer"
    assert found.surfaces.attrs["ignored"] == "1.bias, 1.weight"


def test_mean_and_band_at_each_point(comparison):
    band = comparison.mean_and_band(confidence=0.9)
    losses = comparison.surfaces["loss"]
    assert band["loss"].dims == ("model", "split", "alpha", "beta")
    for place in [("one", "train", 0, 0), ("other", "test", 3, 1)]:
        where = dict(zip(("model", "split"), place[:2], strict=True))
        values = losses.sel(where).transpose("pair", "alpha", "beta").values[:, place[2], place[3]]
        found = [band[name].sel(where).values[place[2:]] for name in ("loss", "loss_low", "loss_high")]
        assert found == pytest.approx(mean_interval(values, 0.9)[:3])
    assert {"accuracy", "accuracy_low", "accuracy_high", "center_loss", "center_accuracy"} <= set(band)
    assert not any("standard_error" in str(name) for name in band)
    np.testing.assert_array_equal(band["center_loss"], comparison.surfaces["center_loss"].isel(pair=0))
    assert (band.attrs["pairs"], band.attrs["confidence"]) == (3, 0.9)


def test_a_difference_is_taken_pair_by_pair(comparison):
    found = comparison.difference("one", "other")
    losses = comparison.surfaces["loss"]
    by_pair = losses.sel(model="one", drop=True) - losses.sel(model="other", drop=True)
    xr.testing.assert_allclose(found["loss_by_pair"], by_pair)
    xr.testing.assert_allclose(found["loss"], by_pair.mean("pair"))
    expected = paired_difference(*(losses.sel(model=m, split="test").values[:, 1, 2] for m in ("one", "other")))
    cell = found.sel(split="test").isel(alpha=1, beta=2)
    assert [float(cell[f"loss{end}"]) for end in ("", "_low", "_high")] == pytest.approx(expected[:3])
    centers = comparison.surfaces["center_loss"].isel(pair=0, drop=True)
    xr.testing.assert_allclose(
        found["center_loss"], centers.sel(model="one", drop=True) - centers.sel(model="other", drop=True)
    )
    assert found.attrs["difference"] == "one minus other"
    opposite = comparison.difference("other", "one")
    np.testing.assert_allclose(opposite["loss_low"], -found["loss_high"])


def test_a_model_does_not_differ_from_itself(models):
    found = compare_surfaces({"one": models["one"], "again": models["one"]}, **QUICK)
    assert (found.difference("one", "again")["loss_by_pair"] == 0).all()
    table = found.differences("one", "again")
    np.testing.assert_array_equal(table[["difference", "low", "high"]], 0.0)


def test_readouts_are_those_of_each_surface(comparison):
    table = comparison.readouts
    assert list(table.columns) == ["model", "pair", "split", "readout", "value"]
    assert len(table) == 2 * 3 * 2 * len(READOUTS)
    values = table.set_index(["model", "pair", "split", "readout"])["value"]
    for (model, pair), surface in comparison.each.items():
        for split in ("train", "test"):
            one = surface.sel(split=split)
            assert values[model, pair, split, "center_loss"] == float(one["center_loss"])
            assert values[model, pair, split, "convex_share"] == convex_share(one)
            own = area_below(one, float(one["center_loss"]) + 0.1).area
            assert values[model, pair, split, "area_below_own_level"] == pytest.approx(own)
            # one level for both models: the higher center loss of this split, plus the rise
            level = float(comparison.surfaces["center_loss"].sel(split=split).max()) + 0.1
            common = area_below(one, level).area
            assert values[model, pair, split, "area_below_common_level"] == pytest.approx(common)


def test_curvatures_are_second_differences_of_the_risk_itself(split_models, comparison):
    values = comparison.readouts.set_index(["model", "pair", "split", "readout"])["value"]
    step = 1e-3
    for model, risks in split_models.items():
        directions = random_directions(risks["train"].parameters(), seed=2)
        for split, risk in risks.items():
            with risk.along(directions) as move, risk.evaluation():

                def loss(alpha, beta, risk=risk, move=move):
                    return risk.at_each([lambda: move((alpha, beta))])[0].loss

                center = loss(0, 0)
                second = [loss(step, 0) - 2 * center + loss(-step, 0), loss(0, step) - 2 * center + loss(0, -step)]
                mixed = (loss(step, step) - loss(step, -step) - loss(-step, step) + loss(-step, -step)) / 4
            hessian = np.array([[second[0], mixed], [mixed, second[1]]]) / step**2
            eigenvalues = np.linalg.eigvalsh(hessian)
            assert values[model, 2, split, "curvature_trace"] == pytest.approx(eigenvalues.sum(), rel=1e-4)
            assert values[model, 2, split, "largest_curvature"] == pytest.approx(eigenvalues[-1], rel=1e-4)


def test_own_and_common_level_are_one_for_the_highest_model(comparison):
    center = comparison.surfaces["center_loss"].isel(pair=0)
    values = comparison.readouts.set_index(["model", "split", "readout", "pair"])["value"].sort_index()
    for split in ("train", "test"):
        order = center.sel(split=split).sortby(center.sel(split=split))["model"].values
        low, high = ({name: values[m, split, f"area_below_{name}_level"] for name in ("own", "common")} for m in order)
        pd.testing.assert_series_equal(high["own"], high["common"])
        assert (low["own"] <= low["common"]).all()


def test_levels_of_ones_own(models):
    found = compare_surfaces(models, levels=(0.5, 1.25), **QUICK)
    values = found.readouts.set_index(["model", "pair", "readout"])["value"]
    assert "area_below_common_level" not in set(found.readouts["readout"])
    for key, surface in found.each.items():
        for level in (0.5, 1.25):
            assert values[*key, f"area_below_{level:g}"] == area_below(surface, level).area
    assert set(found.readouts["split"]) == {""}


def test_intervals_are_over_pairs(comparison):
    table = comparison.intervals(confidence=0.8)
    assert list(table.columns) == ["model", "split", "readout", "value", "low", "high", "n"]
    assert len(table) == 2 * 2 * len(READOUTS)
    row = table.query("model == 'other' and split == 'test' and readout == 'mean_radius_of_rise'").iloc[0]
    values = comparison.readouts.query("model == 'other' and split == 'test' and readout == 'mean_radius_of_rise'")
    assert tuple(row[["value", "low", "high", "n"]]) == pytest.approx(mean_interval(values["value"].to_numpy(), 0.8))


def test_differences_are_paired(comparison):
    table = comparison.differences("one", "other")
    assert list(table.columns) == ["split", "readout", "difference", "low", "high", "n"]
    assert len(table) == 2 * len(READOUTS)
    row = table.query("split == 'train' and readout == 'curvature_trace'").iloc[0]
    chosen = comparison.readouts.query("split == 'train' and readout == 'curvature_trace'")
    one, other = (chosen[chosen["model"] == model].sort_values("pair")["value"] for model in ("one", "other"))
    expected = paired_difference(one.to_numpy(), other.to_numpy())
    assert tuple(row[["difference", "low", "high", "n"]]) == pytest.approx(expected)


def test_one_pair_has_no_interval(models):
    found = compare_surfaces(models, **QUICK | {"pairs": 1})
    for table in (found.intervals(), found.differences("one", "other")):
        assert table[["low", "high"]].isna().all(axis=None)
        assert (table["n"] == 1).all()
    assert np.isnan(found.mean_and_band()["loss_low"]).all()


def test_a_folder_keeps_every_surface_and_is_read_again(models, tmp_path, monkeypatch):
    risks = {"one": models["one"], "a/b": models["other"]}  # a name that is no file name
    first = compare_surfaces(risks, folder=tmp_path / "deep", **QUICK)
    names = sorted(path.name for path in (tmp_path / "deep").iterdir())
    assert names == [f"{name}-pair-{pair}.nc" for name in ("a%2Fb", "one") for pair in range(3)]
    again = compare_surfaces(risks, folder=tmp_path / "deep", **QUICK)
    xr.testing.assert_equal(again.surfaces, first.surfaces)
    pd.testing.assert_frame_equal(again.readouts, first.readouts)
    xr.testing.assert_equal(open_surface(tmp_path / "deep" / "one-pair-2.nc"), first.each["one", 2])


def test_the_surfaces_can_be_written(comparison, tmp_path):
    comparison.surfaces.to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "all.nc", engine="h5netcdf"), comparison.surfaces)


def test_adaptive_surfaces_whose_lattices_differ(models):
    found = compare_surfaces(models, pairs=2, points=7, tolerance=0.05, rise=0.1, progress=False)
    assert dict(found.surfaces["loss"].sizes) == {"model": 2, "pair": 2, "alpha": 7, "beta": 7}
    assert found.surfaces["loss_error_estimate"].dims == ("model", "pair")
    assert "node_loss" in found.each["one", 0]
    for (model, pair), surface in found.each.items():
        np.testing.assert_array_equal(found.surfaces["loss"].sel(model=model, pair=pair), surface["loss"])
        assert int(found.surfaces["evaluations"].sel(model=model, pair=pair)) == surface.attrs["evaluations"]
    band = found.mean_and_band()
    assert set(band.data_vars) == {
        *("loss", "loss_low", "loss_high", "accuracy", "accuracy_low", "accuracy_high"),
        *("center_loss", "center_accuracy"),
    }
    assert len(found.differences("one", "other")) == len(READOUTS)


class Wall(nn.Module):
    """The square, up to an edge; not a number beyond it."""

    def __init__(self, edge):
        super().__init__()
        self.edge = edge
        self.place = nn.Parameter(torch.full((1, 2), 0.5, dtype=torch.float64))

    def forward(self, ones):
        loss = (self.place**2).sum()
        return ones * torch.where(loss <= self.edge, loss, torch.nan)


def wall(edge):
    return EmpiricalRisk(Wall(edge), [torch.ones(2).double()], loss=lambda model, batch: model(batch))


def test_what_is_not_finite_stays_so():
    found = compare_surfaces({"wide": wall(np.inf), "narrow": wall(0.9)}, **QUICK)
    holes = found.surfaces["loss"].sel(model="narrow").pipe(np.isnan).any("pair")
    assert 0 < int(holes.sum()) < holes.size
    np.testing.assert_array_equal(found.mean_and_band()["loss"].sel(model="narrow").pipe(np.isnan), holes)
    np.testing.assert_array_equal(found.difference("wide", "narrow")["loss"].pipe(np.isnan), holes)
    assert np.isfinite(found.mean_and_band()["loss"].sel(model="wide")).all()


def test_models_leave_no_trace(models, unchanged):
    with unchanged(models["one"].model), unchanged(models["other"].model):
        compare_surfaces(models, **QUICK | {"pairs": 1})


# refusals


def test_other_parameters_are_refused(models):
    wider = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double().eval()
    longer = nn.Sequential(*classifier(0), nn.Linear(2, 2).double()).eval()
    shorter = nn.Sequential(nn.Linear(3, 2)).double().eval()
    for model, message in [
        (wider, r"model 'new': '0.weight' has shape \(5, 3\), expected \(4, 3\).*same parameters, here 'one'"),
        (longer, "model 'new': .*'4.bias' is not one of them"),
        (shorter, "model 'new': .*'1.bias', '1.weight', '3.bias', '3.weight' is missing"),
    ]:
        with pytest.raises(ValueError, match=message):
            compare_surfaces({"one": models["one"], "new": EmpiricalRisk(model, batches())}, **QUICK)


def test_other_splits_data_or_metrics_are_refused(models, split_models):
    with pytest.raises(ValueError, match=r"model 'b': expected the splits of 'a', \[''\], got \['train', 'test'\]"):
        compare_surfaces({"a": models["one"], "b": split_models["other"]}, **QUICK)
    fewer = EmpiricalRisk(models["other"].model, batches()[:2])
    with pytest.raises(ValueError, match="model 'b': expected the data of 'a', 10 examples, got 6"):
        compare_surfaces({"a": models["one"], "b": fewer}, **QUICK)
    bare = EmpiricalRisk(models["other"].model, batches(), metrics={})
    with pytest.raises(ValueError, match=r"model 'b': expected the metrics of 'a', \['accuracy'\], got \[\]"):
        compare_surfaces({"a": models["one"], "b": bare}, **QUICK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 0}, "at least 1, and 2 for an interval, got 0"),
        ({"rise": 0.0}, "rise: expected a positive number, got 0.0"),
        ({"normalization": "row"}, "expected 'filter', 'layer' or 'none', got 'row'"),
        ({"method": "guess"}, "got 'guess'"),
    ],
)
def test_settings_that_cannot_be(models, settings, message):
    with pytest.raises(ValueError, match=message):
        compare_surfaces(models, **QUICK | settings)


def test_no_models():
    with pytest.raises(ValueError, match="expected a dictionary of models, got an empty one"):
        compare_surfaces({})


def test_unknown_models_are_named(comparison):
    for call in (comparison.difference, comparison.differences):
        with pytest.raises(ValueError, match="unknown model 'tow'; compared are one, other"):
            call("one", "tow")
