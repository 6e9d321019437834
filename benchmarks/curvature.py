"""Largest eigenvalue and trace of a Hessian beside other tools, at equal accuracy: products, seconds, memory.

LeNet-5 and 500 digits in one batch, float32, one thread. Each tool turns its own knob (a tolerance, a number of probes
or steps); for each setting, the true error, the Hessian-vector products and the seconds are medians over seeds.
Products are counted where each tool calls for them, not as it reports them. Seconds are those of one number from
nothing: making the tool's object for the model and the data, and the call. Tools take turns, in another order for each
seed.

The truth comes from a float64 copy: the eigenvalue from ARPACK to ten digits, the trace from probes until the standard
error is 0.3 %. Plain Hutchinson probes of the other tools check the latter, as they know nothing of this product.

The other tools are no dependencies; one that cannot be imported is a row that says so. To have them all, make a virtual
environment of its own and, in the repository's folder, run in it::

    pip install -c constraints.txt -e .
    pip install --no-deps pyhessian==0.1 hessian-eigenthings==1.0.0a5

Run ``python benchmarks/curvature.py --cache FOLDER``; the folder keeps the trained weights and the truth.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import hashlib
import importlib
import importlib.metadata
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from scipy.sparse.linalg import eigsh
from surfaces import megabytes, number, start_of_peak, tidy
from torch import nn
from workloads import Workload, workload

import landscape as ls
from landscape.curvature import hessian_operator

TARGETS = {"eigenvalue": (1e-2, 1e-3, 1e-4), "trace": (0.05, 0.02)}
PACKAGES = {"PyHessian": "pyhessian", "hessian-eigenthings": "hessian_eigenthings"}
GROUPS = (2, 4, 8, 16, 32)  # plain probes in an estimate
MEDIAN = statistics.NormalDist().inv_cdf(0.75)  # of the size of a standard normal number


class Clock:
    """When each product was done, in seconds since the clock was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.times: list[float] = []

    def counted(self, product: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of one vector, or of a list of vectors as its last argument, which are then counted."""

        def timed(*arguments: Any) -> Any:
            found = product(*arguments)
            count = len(arguments[-1]) if product.__name__ == "hessian_products" else 1
            self.times += [time.perf_counter() - self.start] * count
            return found

        return timed


@dataclasses.dataclass(frozen=True)
class Run:
    """One number from one tool.

    Attributes:
        values: what it found; for tools that average plain probes, the value of each.
        times: when each product was done.
        seconds: from nothing to the number.
    """

    values: list[float]
    times: list[float]
    seconds: float


# --- the tools: each takes the network and the data, a setting of its knob, and a seed --------------------------------

Measure = Callable[[Workload, float, int], Run]


def ours(call: Callable[[ls.EmpiricalRisk, float, int], float]) -> Measure:
    """This product's."""

    def run(work: Workload, setting: float, seed: int) -> Run:
        model, clock = copy.deepcopy(work.model), Clock()
        risk = ls.EmpiricalRisk(model, work.batches)
        with mock.patch.object(risk, "hessian_products", clock.counted(risk.hessian_products)):
            value = call(risk, setting, seed)
        return Run([value], clock.times, time.perf_counter() - clock.start)

    return run


def pyhessian(call: Callable[[Any, float], Sequence[float]]) -> Measure:
    """Its object keeps the graph of one batch; its draws are from the global stream."""

    def run(work: Workload, setting: float, seed: int) -> Run:
        module = importlib.import_module("pyhessian.hessian")
        torch.manual_seed(1_000 + seed)  # not the probes of the next tool, which draws from such a stream too
        model, clock = copy.deepcopy(work.model), Clock()
        counted = clock.counted(module.hessian_vector_product)
        with mock.patch.object(module, "hessian_vector_product", counted), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # backward(create_graph=True) warns of a cycle
            found = call(module.hessian(model, nn.CrossEntropyLoss(), data=work.batches[0], cuda=False), setting)
        seconds = time.perf_counter() - clock.start
        model.zero_grad(set_to_none=True)  # breaks the cycle that would keep the graph
        return Run([float(value) for value in found], clock.times, seconds)

    return run


def eigenthings(call: Callable[[Any, Any, float, int], Sequence[float]]) -> Measure:
    """An operator over the batches, which it averages equally."""

    def run(work: Workload, setting: float, seed: int) -> Run:
        module = importlib.import_module("hessian_eigenthings")
        model, clock = copy.deepcopy(work.model), Clock()
        operator = module.HessianOperator(model, work.batches, module.supervised_loss(nn.CrossEntropyLoss()))
        with mock.patch.object(operator, "matvec", clock.counted(operator.matvec)):
            found = call(module, operator, setting, seed)
        return Run([float(value) for value in found], clock.times, time.perf_counter() - clock.start)

    return run


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A row of settings.

    Attributes:
        tool: whose.
        knob: what is turned.
        settings: to these values.
        measure: one run.
        plain: whether ``values`` are probes, of which any number in sequence is an estimate; the setting is how many.
    """

    tool: str
    knob: str
    settings: tuple[float, ...]
    measure: Measure
    plain: bool = False


SWEEPS = {
    "eigenvalue": (
        Sweep(
            "ours",
            "tolerance",
            (1e-1, 1e-2, 1e-3, 1e-4),
            ours(lambda risk, tol, seed: ls.hessian_eigenvalues(risk, 1, tolerance=tol, seed=seed).eigenvalues[0]),
        ),
        Sweep(
            "PyHessian",
            "tol",
            (3e-3, 3e-4, 3e-5),
            pyhessian(lambda hessian, tol: hessian.eigenvalues(tol=tol)[0]),
        ),
        Sweep(
            "hessian-eigenthings",
            "power iteration, tol",
            (0.05, 0.01, 0.003),
            eigenthings(lambda m, op, tol, seed: [m.power_iteration_one(op, tol=tol, seed=seed)[0]]),
        ),
        Sweep(
            "hessian-eigenthings",
            "lanczos, max_iter",
            (4, 5, 6, 7, 8),
            eigenthings(
                lambda m, op, steps, seed: m.lanczos(op, k=1, max_iter=steps, which="LA", seed=seed).eigenvalues
            ),
        ),
    ),
    "trace": (
        Sweep(
            "ours",
            "tolerance",
            (0.1, 0.05, 0.03),
            ours(lambda risk, tolerance, seed: ls.hessian_trace(risk, tolerance, seed=seed).value),
        ),
        Sweep(
            "PyHessian",
            "tol",
            (1e-2, 1e-3),
            pyhessian(lambda hessian, tol: [np.mean(hessian.trace(tol=tol))]),
        ),
        Sweep(
            "PyHessian",
            "maxIter, tol = 0",
            (max(GROUPS),),
            pyhessian(lambda hessian, probes: hessian.trace(maxIter=probes, tol=0)),
            plain=True,
        ),
        Sweep(
            "hessian-eigenthings",
            "Hutchinson, num_matvecs",
            (8,),
            eigenthings(lambda m, op, probes, seed: m.hutchinson(op, num_samples=probes, seed=seed).samples.tolist()),
            plain=True,
        ),
        Sweep(
            "hessian-eigenthings",
            "Hutch++, num_matvecs",
            (24, 48),
            eigenthings(lambda m, op, count, seed: [m.hutch_plus_plus(op, num_matvecs=count, seed=seed).estimate]),
        ),
    ),
}


def missing(tool: str) -> str:
    """Empty, or why a tool cannot be used."""
    try:
        if tool in PACKAGES:
            importlib.import_module(PACKAGES[tool])
    except ImportError as error:
        return f"not installed: {error}"
    return ""


# --- the truth --------------------------------------------------------------------------------------------------------


def truth(work: Workload, options: argparse.Namespace) -> dict[str, float]:
    """Largest eigenvalue, trace and the trace's standard error, in float64; kept in the cache."""
    digest = hashlib.sha256()
    for tensor in itertools.chain(work.model.state_dict().values(), *work.batches):
        digest.update(tensor.contiguous().numpy().tobytes())
    file = options.cache / f"curvature-{digest.hexdigest()[:16]}.json"
    if not file.is_file():
        batches = [(inputs.double(), labels) for inputs, labels in work.batches]
        risk = ls.EmpiricalRisk(copy.deepcopy(work.model).double(), batches)
        (top,) = eigsh(
            hessian_operator(risk), 1, which="LA", tol=1e-10, v0=np.ones(work_size(work)), return_eigenvectors=False
        )
        trace = ls.hessian_trace(risk, tolerance=0.003, max_products=4_000, seed=12_345, deflate=150)
        found = {"eigenvalue": float(top), "trace": trace.value, "standard error of the trace": trace.standard_error}
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def work_size(work: Workload) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in work.model.parameters())


# --- the tables -------------------------------------------------------------------------------------------------------


def measured(work: Workload, quantity: str, seeds: int) -> Iterator[tuple[Sweep, float, list[Run]]]:
    """The runs of all settings of the tools that are there."""
    cases = [(sweep, setting) for sweep in SWEEPS[quantity] if not missing(sweep.tool) for setting in sweep.settings]
    runs: list[list[Run]] = [[] for _ in cases]
    for sweep in {id(sweep): sweep for sweep, _ in cases}.values():
        sweep.measure(work, sweep.settings[0] if not sweep.plain else 2, 0)  # imports, memory
    for seed in range(seeds):
        for place in np.random.default_rng(seed).permutation(len(cases)):
            sweep, setting = cases[place]
            runs[place].append(sweep.measure(work, setting, 1 + seed))
    for (sweep, setting), found in zip(cases, runs, strict=True):
        yield sweep, setting, found


def estimates(sweep: Sweep, setting: float, runs: Sequence[Run]) -> Iterator[tuple[float, list[float], float, float]]:
    """Settings with the values found over seeds, and medians of products and seconds.

    Of plain probes, each sequence of n is an estimate with n of them, so that there are more of the short ones.
    """
    if not sweep.plain:
        products, seconds = (
            statistics.median(numbers) for numbers in ([len(run.times) for run in runs], [run.seconds for run in runs])
        )
        yield setting, [run.values[0] for run in runs], products, seconds
        return
    for count in (count for count in GROUPS if count <= setting):
        groups = [
            float(np.mean(run.values[first : first + count]))
            for run in runs
            for first in range(0, len(run.values) - count + 1, count)
        ]
        yield count, groups, count, statistics.median(run.times[count - 1] for run in runs)


def sweeps(quantity: str, options: argparse.Namespace) -> tuple[pd.DataFrame, dict[str, float]]:
    """Errors, products and seconds of every setting."""
    work = workload("lenet5", options, options.examples)
    reference = truth(work, options)
    seeds = options.seeds if quantity == "trace" else options.starts
    rows, probes = [], []
    for sweep, setting, runs in measured(work, quantity, seeds):
        probes += [value for run in runs for value in run.values if sweep.plain]
        for each, values, products, seconds in estimates(sweep, setting, runs):
            errors = np.abs(np.array(values) / reference[quantity] - 1)
            rows.append(
                {"tool": with_version(sweep.tool), "knob": sweep.knob, "setting": float(each)}
                | {"median error": float(np.median(errors)), "largest error": float(errors.max())}
                | {"products": float(products), "seconds": seconds, "estimates": float(len(values))}
                | {"spread of a probe": 1.0 if sweep.plain else math.nan}
            )
    table = pd.DataFrame(rows)
    if probes:
        spread = float(np.std(probes, ddof=1))  # all are probes of one matrix, whoever drew them
        table["spread of a probe"] *= spread / reference[quantity]
        error = spread / len(probes) ** 0.5
        reference |= {"trace by plain probes": float(np.mean(probes)), "its standard error": error}
    return table, reference


def needed(each: pd.DataFrame, target: float) -> dict[str, float] | None:
    """The cheapest setting from which on the median error is within the target, or None.

    The mean of n plain probes is nearly normal: its median error is 0.67 of the probes' spread over the root of n.
    """
    spread = each["spread of a probe"].iloc[-1]
    if np.isfinite(spread):
        probes = math.ceil((MEDIAN * spread / target) ** 2)
        seconds = each["seconds"].iloc[-1] / each["products"].iloc[-1] * probes
        return {
            "setting": probes,
            "median error": target,
            "largest error": math.nan,
            "products": probes,
            "seconds": seconds,
        }
    ordered = each.sort_values("products")
    within = (ordered["median error"] <= target)[::-1].cummin()[::-1]
    return {str(key): value for key, value in ordered[within].iloc[0].items()} if within.any() else None


def at_equal_accuracy(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """What each tool needs to reach a median error, and how many times what this product needs."""
    rows = []
    for target, (tool, knob) in itertools.product(
        TARGETS[quantity], dict.fromkeys(zip(table["tool"], table["knob"], strict=True))
    ):
        mine, found = (
            needed(table[(table["tool"] == name) & (table["knob"] == what)], target)
            for name, what in (("ours", "tolerance"), (tool, knob))
        )
        row = {"quantity": quantity, "target": target, "tool": f"{tool}, {knob}"}
        if found is not None:
            row |= {key: found[key] for key in ("setting", "median error", "largest error", "products", "seconds")}
            if mine is not None:
                row |= {f"{key}, ours = 1": found[key] / mine[key] for key in ("products", "seconds")}
        rows.append(row)
    return pd.DataFrame(rows)


def memory(options: argparse.Namespace) -> pd.DataFrame:
    """Peak memory of a trace as examples grow, each in a fresh process: batches of 500."""
    rows = []
    for examples in options.grow:
        command = [sys.executable, __file__, "--child", str(examples), "--cache", str(options.cache)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - this file
        rows.append({"what": "a trace", "examples": examples} | found)
    return pd.DataFrame(rows)


def child(options: argparse.Namespace) -> dict[str, float]:
    """Twelve products."""
    risk = workload("lenet5", options, options.child).risk()
    before = start_of_peak()
    found = ls.hessian_trace(risk, tolerance=0.0, max_products=12)
    return {
        "products": found.products,
        "peak MB": megabytes("VmHWM"),
        "above the start MB": megabytes("VmHWM") - before,
    }


def with_version(tool: str) -> str:
    """Of another tool."""
    return f"{tool} {importlib.metadata.version(PACKAGES[tool])}" if tool in PACKAGES else tool


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500, help="digits, in one batch")
    parser.add_argument("--seeds", type=int, default=8, help="of the trace")
    parser.add_argument("--starts", type=int, default=5, help="seeds of the eigenvalue's first vector")
    parser.add_argument(
        "--grow", type=int, nargs="*", default=[500, 2_000, 4_000], help="examples whose memory is measured"
    )
    parser.add_argument("--cache", type=Path, help="folder for weights and the truth; default: a temporary one")
    parser.add_argument("--csv", help="write what was measured here as well, one number a row")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.run, options.data_dir, options.batch = {}, None, 500
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        options.cache = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options.cache.mkdir(parents=True, exist_ok=True)
        if options.child:
            print(json.dumps(child(options)))
            return
        tables: dict[str, pd.DataFrame] = {}
        for quantity in SWEEPS:
            settings, reference = sweeps(quantity, options)
            tables |= {quantity: settings, f"{quantity} at equal accuracy": at_equal_accuracy(settings, quantity)}
            print(f"\nThe truth: {', '.join(f'{key} {value:.7g}' for key, value in reference.items())}")
            for name in (quantity, f"{quantity} at equal accuracy"):
                print(f"\n{name}:\n{tables[name].map(number).to_string(index=False)}", flush=True)
        if options.grow:
            tables["memory"] = memory(options)
            print(f"\nmemory: {memory.__doc__}\n{tables['memory'].map(number).to_string(index=False)}", flush=True)
        for tool in PACKAGES:
            if reason := missing(tool):
                print(f"{tool}: {reason}")
    if options.csv:
        pd.concat(long(name, table) for name, table in tables.items()).to_csv(options.csv, index=False)


def long(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """One number a row, with the row of the table that it stands in."""
    words = [
        column for column in ("quantity", "target", "tool", "knob", "setting", "what", "examples") if column in table
    ]
    if "at equal accuracy" in name:
        words.remove("setting")
    cases = table[words].map(number).agg(", ".join, axis=1)
    return tidy(name, table.drop(columns=words).assign(tool=cases))


if __name__ == "__main__":
    main()
