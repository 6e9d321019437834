"""Flatness of two methods over five training seeds: every run, and the interval of the mean."""

import sys
from pathlib import Path

import pandas as pd

from landscape import plots

results = Path(__file__).parents[2] / "results"
table = pd.read_csv(results / "mnist-5k-flatness" / "flatness.csv", keep_default_na=False, na_values=[""])
table["setting"] = table["setting"].fillna("")
table = table.query("checkpoint == 'selected' and split == 'train'")
few = ["largest_eigenvalue", "adaptive_sharpness", "filter_normalized_rise", "input_gradient_norm"]
figure = plots.flatness_panels(table[table["metric"].isin(few)], heading="LeNet-5 on 3,000 digits")
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "flatness")
