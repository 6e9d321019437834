"""Is a masked perturbation a gradient penalty? The measured rise of the loss beside each term of its expansion."""

import sys
from pathlib import Path

import pandas as pd

from landscape import plots

results = Path(__file__).parents[2] / "results"
summary = pd.read_csv(results / "pheme-penalty" / "checks" / "summary.csv")
summary = summary.query("model == 'standard-seed0'").drop(columns="model")
figure = plots.penalty_panels(summary, marks=(5.0,))
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "penalty")
