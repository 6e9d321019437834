"""What three training seeds and three planes each have in common: the rise of the loss over the distance."""

import sys
from pathlib import Path

import xarray as xr

from landscape import plots, radial_profile, radial_profile_band

results = Path(__file__).parents[2] / "results"
panels = {}
for told, name in (("LeNet-5 on MNIST", "table2-mnist"), ("BiGRU on PHEME", "table2-pheme")):
    profiles = radial_profile(xr.load_dataset(results / name / "surfaces.nc")[["loss"]].sel(split="train"))
    panels[told] = {str(model): radial_profile_band(profiles.sel(model=model)) for model in profiles["model"].values}
figure = plots.profile_panels(panels, "Training loss around the minimum")
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "profiles")
