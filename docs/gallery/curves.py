"""Figure 2 of the paper: training and validation curves, means over seeds with their standard deviation."""

import sys
from pathlib import Path

import pandas as pd

from landscape import plots

results = Path(__file__).parents[2] / "results"
epochs = pd.read_csv(results / "table2-pheme" / "epochs.csv")
names = ["original", "dropattack-iw", "dropattack-iw-paper"]
figure = plots.curve_panels({name: epochs[epochs["method"] == name] for name in names}, "BiGRU on PHEME")
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "curves")
