"""Figures 4 and 7 of the paper: reliefs with common heights, lit from one side, with contours on the floor."""

import sys
from pathlib import Path

import xarray as xr

from dropattack.surfaces import one_surface
from landscape import plots

results = Path(__file__).parents[2] / "results"
surfaces = xr.load_dataset(results / "table2-pheme" / "surfaces.nc")
panels = {model: one_surface(surfaces, model, "test", training_seed=0) for model in surfaces["model"].values}
figure = plots.relief_panels(panels, "BiGRU on PHEME: test loss around two minima")
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "relief")
