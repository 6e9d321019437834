"""Figure 5 of the paper, with what it leaves out: the sampling error of a single run."""

import sys
from pathlib import Path

import seaborn as sns
from matplotlib.figure import Figure

from dropattack.paper import binomial_standard_error, paper_table
from landscape import plots

figure = Figure(figsize=(6.4, 4.0), layout="constrained", dpi=150)
ax = figure.subplots()
error = 1.96 * binomial_standard_error(90.0, 5000)
ax.axhspan(90 - error, 90 + error, color="0.88", label="95 % sampling error of one run at 90 %")
table = paper_table(10).astype({"epsilon": str})
look = {"hue": "epsilon", "style": "epsilon", "markers": True, "palette": "viridis"}
sns.lineplot(table, x="attack_probability", y="accuracy", **look, ax=ax)
ax.set(xlabel="attack probability p", ylabel="accuracy on IMDB as printed (%)")
ax.legend(title="epsilon", fontsize=8, frameon=False, ncols=2)
plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "attack_probability")
