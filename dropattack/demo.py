"""The main job: train one network twice, and look at the two minima from every side."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from dropattack.checkpoint import Run, write_text
from dropattack.config import Config, Named, Training
from dropattack.data import Dataset, load_dataset
from dropattack.names import unknown
from dropattack.training import train
from landscape import EmpiricalRisk, flatness_table, gradient_norms, loss_surface, plots, random_directions
from landscape.cli import shown
from landscape.flatness import METRICS, Metric

__all__ = ["METHODS_COMPARED", "SCALES", "Scale", "findings", "metrics_of", "one_thread", "run_demo"]

# Table 8 of the paper: DropAttack [Input, Conv.1.w], epsilon 5, p 0.5.
METHODS_COMPARED = {
    "standard": Named("standard"),
    "dropattack": Named(
        "dropattack", {"inputs": "input", "weights": ["conv1.weight"], "epsilon": 5.0, "attack_probability": 0.5}
    ),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much work the demo does.

    Attributes:
        epochs: of each training.
        points: along each side of the surfaces' pictures; fewer are evaluated.
        surface_examples: training digits under the surfaces.
        flatness_examples: training digits under the flatness metrics.
        trace_tolerance: relative standard error of the Hessian's trace.
    """

    epochs: int
    points: int
    surface_examples: int
    flatness_examples: int
    trace_tolerance: float


def metrics_of(scale: Scale) -> dict[str, Metric]:
    """A few of each kind, one number each: three that a rescaling of the weights moves, and three that it does not."""
    curvature = {"count": 1, "trace_tolerance": scale.trace_tolerance}
    return {
        "largest_eigenvalue": METRICS["largest_eigenvalue"].with_options(**curvature),
        "hessian_trace": METRICS["hessian_trace"].with_options(**curvature),
        "sam_sharpness": METRICS["sam_sharpness"].with_options(radii=(0.05,), steps=(1,)),
        "adaptive_sharpness": METRICS["adaptive_sharpness"].with_options(radii=(0.5,), steps=(1,)),
        "filter_normalized_rise": METRICS["filter_normalized_rise"].with_options(radii=(0.5,)),
        "relative_flatness": METRICS["relative_flatness"],
    }


SCALES = {
    "desk": Scale(epochs=20, points=51, surface_examples=3000, flatness_examples=1000, trace_tolerance=0.05),
    "smoke": Scale(epochs=2, points=11, surface_examples=200, flatness_examples=100, trace_tolerance=0.5),
}


def run_demo(
    folder: str | Path, scale: str = "desk", seed: int = 0, progress: bool = True, say: Callable[[str], Any] = print
) -> None:
    """Train LeNet-5 with standard training and with DropAttack, and compare the minima.

    Writes into ``folder``: ``runs/`` (reused when they are there), ``curves.png``, ``contours.png``, ``relief.png``,
    ``flatness.csv``, ``gradient_norms.csv`` and ``findings.txt``; each run's folder also holds its ``surface.nc``.

    Args:
        folder: for the results, made if needed.
        scale: a key of ``SCALES``.
        seed: of the trainings and of the plane.
        progress: show progress bars on standard error.
        say: receives each line of text.

    Raises:
        ValueError: an unknown scale, or a folder that holds runs of another configuration.
    """
    if scale not in SCALES:
        raise ValueError(unknown("scale", scale, SCALES))
    size, folder = SCALES[scale], Path(folder)
    with one_thread():
        dataset = load_dataset("mnist-5k")
        trained_on = f"{len(dataset.train):,}"
        say(f"1/5  Training LeNet-5 on {trained_on} real digits, with standard training and with DropAttack")
        runs = {
            name: train(
                Config(method=method, training=Training(epochs=size.epochs, seed=seed)),
                folder / "runs" / f"{scale}-{name}-seed{seed}",
                dataset=dataset,
                progress=progress,
            )
            for name, method in METHODS_COMPARED.items()
        }
        histories = {name: pd.read_csv(folder / "runs" / f"{scale}-{name}-seed{seed}" / "history.csv") for name in runs}
        plots.curve_panels(histories, f"LeNet-5 on {trained_on} MNIST digits").savefig(folder / "curves.png")

        say("2/5  Training loss on one random plane through each minimum (the same draws, filter-normalized)")
        surfaces = {}
        for name, run in runs.items():
            risk = EmpiricalRisk(run.model, dataset.train.batches(limit=size.surface_examples))
            directions = random_directions(risk.parameters(), seed=seed)
            file = folder / "runs" / f"{scale}-{name}-seed{seed}" / "surface.nc"
            surfaces[name] = loss_surface(risk, directions, points=size.points, path=file, progress=progress)
        heading = f"Training loss around two minima of LeNet-5 ({size.surface_examples:,} MNIST digits)"
        plots.contour_panels(surfaces, heading).savefig(folder / "contours.png")
        plots.relief_panels(surfaces, heading).savefig(folder / "relief.png")

        say("3/5  Flatness metrics (larger means sharper)")
        batches = dataset.train.batches(limit=size.flatness_examples)
        risks = {name: EmpiricalRisk(run.model, batches) for name, run in runs.items()}
        flatness = flatness_table(risks, metrics_of(size), seed=seed, progress=progress)
        write_text(folder / "flatness.csv", flatness.to_csv(index=False))
        say(shown(flatness[["method", "metric", "setting", "value", "standard_error", "converged", "loss"]]))

        say("4/5  Gradient norms at the attacked input and weight, and everywhere else")
        gradients = pd.concat(
            [gradient_norms(risk).assign(model=name) for name, risk in risks.items()], ignore_index=True
        )
        write_text(folder / "gradient_norms.csv", gradients.to_csv(index=False))
        say(shown(gradients.pivot_table(index="site", columns="model", values="norm", sort=False).reset_index()))

        say("5/5  What was found, and what was not")
        text = findings(runs, flatness, gradients, dataset)
        write_text(folder / "findings.txt", text)
        say(text)
        say(f"Everything is in {folder}: curves.png, contours.png, relief.png, flatness.csv, gradient_norms.csv, …")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for PyTorch inside the block.

    LeNet-5 is too small to gain from more, threads that wait for each other make it slow on a busy machine, and results
    then do not depend on the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def findings(runs: Mapping[str, Run], flatness: pd.DataFrame, gradients: pd.DataFrame, dataset: Dataset) -> str:
    """In plain words, what one run of each method shows and what it does not."""
    standard, dropattack = (runs[name].metrics["best"] for name in ("standard", "dropattack"))
    count = len(dataset.test)
    right = {name: round(row["test_accuracy"] * count) for name, row in (("s", standard), ("d", dropattack))}
    rate = standard["test_accuracy"]
    chance = math.sqrt(2 * count * rate * (1 - rate))
    gain = right["d"] - right["s"]
    by_metric = flatness.pivot_table(index="metric", columns="method", values="value", sort=False)
    ratios = by_metric["dropattack"] / by_metric["standard"]
    norms = gradients.pivot_table(index="site", columns="model", values="norm", sort=False)
    gradient_ratios = norms["dropattack"] / norms["standard"]
    loss_ratio = dropattack["train_loss"] / standard["train_loss"]
    weights = sum(parameter.numel() for parameter in runs["dropattack"].model.parameters())
    luck = "within" if abs(gain) <= 2 * chance else "beyond"
    lines = [
        f"- Test digits read correctly: DropAttack {right['d']}, standard {right['s']}, of {count:,}. The difference, "
        f"{gain:+d}, is {luck} what chance alone makes between two equally good networks (two standard deviations: "
        f"{2 * chance:.0f} digits).",
        f"- Flatness: {_counted(ratios, 'flatness metrics')} of this DropAttack minimum are lower (flatter): "
        + ", ".join(f"{metric} × {ratio:.2f}" for metric, ratio in ratios.items())
        + ".",
        f"- Gradients: DropAttack / standard is {gradient_ratios['input']:.2f} at the input and "
        f"{gradient_ratios['conv1.weight']:.2f} at conv1.weight, the two that were attacked; "
        f"{_counted(gradient_ratios, 'sites')} have a smaller gradient.",
        f"- But the two minima are not equally deep: the training loss of DropAttack's is {loss_ratio:.2f} times that "
        "of standard training, and a network that fits its training data less well tends to look flatter. Nothing "
        "here is compared at matched training loss.",
        "- One seed proves nothing: another seed can turn every line above around. A plane is two directions out of "
        f"{weights:,}. DropAttack also made three passes where standard training made one.",
    ]
    return "\n".join(lines) + "\n"


def _counted(ratios: pd.Series, what: str) -> str:
    return f"{int((ratios < 1).sum())} of {len(ratios)} {what}"
