"""Training curves, as Figure 2 of the DropAttack paper."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

__all__ = ["curve_panels", "curves"]


def curves(histories: Mapping[str, pd.DataFrame], ax: Axes, quantity: str = "accuracy") -> Axes:
    """Draw a quantity over the epochs: one color a method, solid on validation data, dashed on training data.

    Args:
        histories: method name to a table with ``epoch``, ``train_<quantity>`` and ``validation_<quantity>``. With the
            epochs of several runs in it, lines are means, and bands their standard deviation.
        ax: where to draw.
        quantity: ``"accuracy"`` or ``"loss"``.

    Returns:
        ``ax``.
    """
    rows = pd.concat(
        [
            pd.DataFrame(
                {"epoch": table["epoch"], quantity: table[f"{split}_{quantity}"], "method": name, "split": split}
            )
            for name, table in histories.items()
            for split in ("validation", "train")
        ],
        ignore_index=True,
    )
    sns.lineplot(
        rows, x="epoch", y=quantity, hue="method", style="split", palette="colorblind", errorbar="sd",
        err_kws={"alpha": 0.12, "linewidth": 0}, ax=ax,
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    if quantity == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        ax.set(yscale="log", ylabel=f"{quantity} (nats)")
    sns.move_legend(ax, "best", fontsize=8, frameon=False)
    return ax


def curve_panels(histories: Mapping[str, pd.DataFrame], heading: str | None = None) -> Figure:
    """Accuracy and loss over the epochs, side by side.

    Args:
        histories: as for :func:`curves`.
        heading: of the figure.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained", dpi=150)
    for ax, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        curves(histories, ax, quantity)
        if quantity == "loss" and ax.get_legend() is not None:
            ax.get_legend().remove()  # the one beside it says the same
    if heading is not None:
        figure.suptitle(heading, fontsize=11)
    return figure
