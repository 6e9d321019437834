"""Two networks on one plane, and where the loss of one is above that of the other."""

import sys
from pathlib import Path

import xarray as xr

from dropattack.surfaces import one_surface
from landscape import plots

results = Path(__file__).parents[2] / "results"
surfaces = xr.load_dataset(results / "table2-mnist" / "surfaces.nc")
names = [str(model) for model in surfaces["model"].values][::-1]
panels = {model: one_surface(surfaces, model, "train", training_seed=0) for model in names}
figure = plots.difference_panels(panels, "LeNet-5 on MNIST: training loss")
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "difference")
