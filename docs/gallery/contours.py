"""Figures 3 and 6 of the paper, but on one common plane: the same draws, axes and levels for both networks."""

import sys
from pathlib import Path

import xarray as xr

from dropattack.surfaces import one_surface
from landscape import plots

results = Path(__file__).parents[2] / "results"
surfaces = xr.load_dataset(results / "table2-mnist" / "surfaces.nc")
panels = {
    f"{model}, {split} data": one_surface(surfaces, model, split, training_seed=0)
    for split in ("train", "test")
    for model in surfaces["model"].values
}
figure = plots.contour_panels(panels, "LeNet-5 on 10,000 MNIST digits", columns=2)
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "contours")
