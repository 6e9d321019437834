"""Loss surfaces beside other tools: seconds, errors against float64, how far the error estimate holds, scaling.

All tools draw the same plane: one network, one list of batches, the same two directions, alpha and beta from -span to
span. They take turns on small planes, and ratios are taken within a turn, so that whatever else the machine does falls
on all. Errors are against a float64 copy of the network evaluated in a plain loop, as shares of the surface's range.

The other tools are no dependencies; one that cannot be imported is a row that says so. To have them all, make a virtual
environment of its own and, in the repository's folder, run in it::

    pip install -c constraints.txt -e .
    pip install --no-deps loss-landscapes==3.0.6 landscaper==1.3.1 loss-landscape-3d==0.1.3 losscape==1.5.10 \
        nngeom==0.2.0 topopy==1.0.4 nglpy==1.1.7 gudhi==3.13.0 treelib==1.8.0 coloraide==8.13.1 drawsvg==2.4.2

The last six are what ``landscaper`` imports; ``--no-deps``, because topopy asks for NumPy 1, though it runs with 2.

Run ``python benchmarks/surfaces.py --compare``, ``--adaptive``, ``--accuracy`` or ``--scaling`` (``--help`` for sizes).
``--cache FOLDER`` keeps trained weights and dense surfaces, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import hashlib
import importlib
import importlib.metadata
import io
import itertools
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from peers import landscaper, landscaper_directions, loss_landscape_3d, loss_landscapes, losscape, nngeom
from workloads import NETWORKS, Directions, Workload, axis, mean_loss, workload

import landscape as ls

BARE = "bare loop of forward passes"


# --- the truth, and the bare loops ------------------------------------------------------------------------------------


class Moved:
    """A copy of a network, in any precision, that is put at a point of a plane by plain PyTorch."""

    def __init__(self, work: Workload, directions: Directions, dtype: torch.dtype) -> None:
        self.model = copy.deepcopy(work.model).to(dtype)
        self.batches = [(x.to(dtype) if x.is_floating_point() else x, y) for x, y in work.batches]
        parameters = dict(self.model.named_parameters())
        self.moving = [
            (parameters[name], parameters[name].detach().clone(), *(d[name].to(dtype) for d in directions))
            for name in directions[0]
        ]

    def loss(self, alpha: float, beta: float) -> float:
        """At one point."""
        with torch.no_grad():
            for parameter, center, first, second in self.moving:
                parameter.copy_(center).add_(first, alpha=alpha).add_(second, alpha=beta)
        return mean_loss(self.model, self.batches)


def reference(
    work: Workload, points: int, cache: Path, directions: Directions | None = None, precision: str = "float64"
) -> np.ndarray:
    """The surface in a plain loop, ``(alpha, beta)``, row by row into a file of the cache."""
    directions = work.directions if directions is None else directions
    coordinates = axis(work.span, points)
    digest = hashlib.sha256(coordinates.tobytes() + precision.encode())
    tensors = itertools.chain(work.model.state_dict().values(), *(d.values() for d in directions), *work.batches)
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    file = cache / f"reference-{work.name}-{digest.hexdigest()[:16]}.npy"
    losses = np.load(file) if file.is_file() else np.full((points, points), np.nan)
    exact = Moved(work, directions, getattr(torch, precision))
    for row, alpha in enumerate(coordinates):
        if np.isnan(losses[row]).any():
            losses[row] = [exact.loss(alpha, beta) for beta in coordinates]
            with file.with_suffix(".part").open("wb") as stream:
                np.save(stream, losses)
            file.with_suffix(".part").replace(file)
    return losses


def largest_error(found: np.ndarray, truth: np.ndarray) -> float:
    """As a share of the true range."""
    return float(np.abs(found - truth).max() / np.ptp(truth))


def bare_forward(work: Workload, points: int) -> None:
    """As many passes over the data as the plane has points; the weights stay where they are."""
    for _ in range(points**2):
        mean_loss(work.model, work.batches)


def bare_surface(work: Workload, points: int) -> np.ndarray:
    """The same with weights moved."""
    moved = Moved(work, work.directions, torch.float32)
    return np.array([[moved.loss(a, b) for b in axis(work.span, points)] for a in axis(work.span, points)])


# --- the tools of the table -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Tool:
    """A row of the table.

    Attributes:
        name: as printed.
        surface: ``surface(workload, points)``: losses or a dataset of this product's on points x points, or None.
        plane: which plane it evaluates, if it is not the one asked for.
        directions: of the plane that its error is measured on, if it has one of its own.
        whole: takes its turn with the whole plane, as part of its cost is paid once a surface.
    """

    name: str
    surface: Callable[[Workload, int], Any]
    plane: str = "as asked"
    directions: Callable[[Workload], Directions] | None = None
    whole: bool = False


PEERS = (
    Tool("loss-landscapes", loss_landscapes, "as asked, but every other row is off by one step"),
    Tool("landscaper", landscaper, "its own: tensors rescaled, error on that plane", landscaper_directions),
    Tool("loss-landscape-3d", loss_landscape_3d),
    Tool("losscape", losscape),
    Tool("nngeom", nngeom),
)


def installed(peer: Tool) -> str:
    """Empty, or what is missing."""
    try:
        importlib.import_module(peer.name.replace("-", "_"))
    except ImportError as error:
        return "not installed" if error.name == peer.name.replace("-", "_") else f"not installed completely: {error}"
    return ""


def ours(name: str, executor: Executor | int | None = None, whole: bool = False, **settings: Any) -> Tool:
    """A row of this product's; a number of workers starts them each time."""

    def surface(work: Workload, points: int) -> xr.Dataset:
        with workers(executor) if isinstance(executor, int) else contextlib.nullcontext(executor) as chosen:
            parallel = {} if chosen is None else {"executor": chosen}
            return ls.loss_surface(
                work.risk(), work.directions, work.span, points, progress=False, **parallel, **settings
            )

    return Tool(name, surface, whole=whole)


def in_three_ways(options: argparse.Namespace, pool: Executor, **settings: Any) -> list[Tool]:
    """In this process, on workers that wait, and on workers that are started for the one surface."""
    processes = f"ours, {options.workers} processes"
    return [
        ours(f"ours, {options.threads} threads", **settings),
        ours(processes, pool, **settings),
        ours(f"{processes}, with their start", options.workers, whole=True, **settings),
    ]


def refined(options: argparse.Namespace) -> dict[str, Any]:
    """What an adaptive surface is asked for."""
    return {"method": "adaptive", "tolerance": options.tolerance, "relative_tolerance": options.relative_tolerance}


@contextlib.contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each."""
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:  # a walk sets its workers' threads
        yield pool


@contextlib.contextmanager
def warm_workers(count: int, work: Workload) -> Iterator[ProcessPoolExecutor]:
    """The same, all of them started and past their imports."""
    with workers(count) as pool:
        list(pool.map(time.sleep, [1.0] * count))
        for _ in range(2):
            ours("", pool, method="grid").surface(work, 5)
        yield pool


def seconds(call: Callable[[], object]) -> tuple[float, Any]:
    """The duration of one call, and its value; what it prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        value = call()
        return time.perf_counter() - start, value


def in_turn(tools: Sequence[Tool], work: Workload, options: argparse.Namespace, whole: int) -> dict[str, list[float]]:
    """Seconds a point of each tool in each round; the order is another one each round."""
    spent: dict[str, list[float]] = {tool.name: [] for tool in tools}
    for tool in tools:
        if not tool.whole:
            seconds(lambda tool=tool: tool.surface(work, 3))  # imports, memory
    for turn in range(options.rounds):
        for tool in (*tools[turn % len(tools) :], *tools[: turn % len(tools)]):
            points = whole if tool.whole else options.side
            spent[tool.name].append(seconds(lambda tool=tool, n=points: tool.surface(work, n))[0] / points**2)
    return spent


def speeds(spent: Mapping[str, list[float]], name: str, peers: Sequence[Tool]) -> dict[str, float]:
    """How many times as fast as the bare loop, and as the fastest of the other tools: medians over the rounds."""
    bare = np.divide(spent[BARE], spent[name])
    found = {"bare loop = 1": float(np.median(bare))}
    found |= {"low": float(np.quantile(bare, 0.25)), "high": float(np.quantile(bare, 0.75))}
    if peers:
        fastest = min((spent[peer.name] for peer in peers), key=statistics.median)
        found["fastest of the others = 1"] = float(np.median(np.divide(fastest, spent[name])))
    return found


def losses_of(found: Any) -> np.ndarray:
    """Of a tool's surface."""
    return found["loss"].values if isinstance(found, xr.Dataset) else found


# --- the four questions -----------------------------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> pd.DataFrame:
    """The exact grid, tool by tool."""
    work = workload("lenet5", options, options.examples, options.span)
    missing = {peer.name: installed(peer) for peer in PEERS}
    peers = [peer for peer in PEERS if not missing[peer.name]]
    with warm_workers(options.workers, work) as pool:
        tools = [Tool(BARE, bare_forward), Tool("bare loop, weights moved", bare_surface), *peers]
        tools += in_three_ways(options, pool, method="grid")
        spent = in_turn(tools, work, options, options.points)
        surfaces = {tool.name: seconds(lambda tool=tool: tool.surface(work, options.points))[1] for tool in tools[1:]}
    rows = []
    for tool in tools:
        each = statistics.median(spent[tool.name])
        row = {"tool": with_version(tool.name), "seconds": each * options.points**2}
        row |= {"points x examples / s": work.examples / each} | speeds(spent, tool.name, peers)
        row |= {"largest error": float("nan"), "plane": "weights stay at the center"}
        if tool.name in surfaces:
            truth = reference(work, options.points, options.cache, tool.directions and tool.directions(work))
            row |= {"largest error": largest_error(losses_of(surfaces[tool.name]), truth), "plane": tool.plane}
        rows.append(row)
    rows += [{"tool": name, "plane": what} for name, what in missing.items() if what]
    return pd.DataFrame(rows)


def adaptive(options: argparse.Namespace) -> pd.DataFrame:
    """The rendered surface; the others' seconds are what a point costs them, times its number of points."""
    rows, made = [], []
    for name, examples in (("lenet5", options.examples), ("lstm", options.texts)):
        if name not in (options.network or NETWORKS):
            continue
        work = workload(name, options, examples, options.span)
        with warm_workers(options.workers, work) as pool:
            peers = [peer for peer in PEERS if not installed(peer)]
            mine = [dataclasses.replace(tool, whole=True) for tool in in_three_ways(options, pool, **refined(options))]
            surfaces = {tool.name: tool.surface(work, options.rendered) for tool in mine}
            spent = in_turn([Tool(BARE, bare_forward), *peers, *mine], work, options, options.rendered)
        made.append((work, peers, surfaces, spent))
        print({tool: statistics.median(times) * options.rendered**2 for tool, times in spent.items()}, flush=True)
    for work, peers, surfaces, spent in made:  # the truth takes long, and what was timed is timed
        truth = reference(work, options.rendered, options.cache, precision=options.precision)
        for tool, times in spent.items():
            row = {"network": work.name, "tool": with_version(tool)}
            row |= {"seconds": statistics.median(times) * options.rendered**2} | speeds(spent, tool, peers)
            if tool in surfaces:
                found = surfaces[tool]
                row |= {key: found.attrs[key] for key in ("evaluations", "converged", "error_estimate")}
                row["largest error"] = largest_error(losses_of(found), truth)
            rows.append(row)
    return pd.DataFrame(rows)


def accuracy(options: argparse.Namespace) -> pd.DataFrame:
    """The true largest error of adaptive surfaces beside the one they report."""
    rows = []
    cases = itertools.product(options.network or NETWORKS, (True, False), options.spans)
    with contextlib.ExitStack() as stack:
        pool = None
        for name, trained, span in cases:
            work = workload(name, options, options.few, span, trained)
            if pool is None and options.workers > 1:
                pool = stack.enter_context(warm_workers(options.workers, work))
            weights = "trained" if trained else "untrained"
            # The file says what it was made from, and is not taken for another plane.
            file = options.cache / f"dense-{name}-{weights}-{span:g}-{options.few}-{options.rendered}.nc"
            truth = ours("", pool, method="grid", path=file).surface(work, options.rendered)
            found = ours("", pool, **refined(options)).surface(work, options.rendered)
            error = largest_error(losses_of(found), losses_of(truth))
            row = {
                "network": name,
                "weights": weights,
                "span": span,
                "evaluations": found.attrs["evaluations"],
                "converged": found.attrs["converged"],
                "estimate": found.attrs["error_estimate"],
                "largest error": error,
                "error / estimate": error / found.attrs["error_estimate"],
            }
            print(", ".join(f"{key} {number(value)}" for key, value in row.items()), flush=True)
            rows.append(row)
    return pd.DataFrame(rows)


def scaling(options: argparse.Namespace) -> pd.DataFrame:
    """Two workers against one; the cost of a point and memory as points grow."""
    work = workload("lenet5", options, options.examples, options.span)
    with warm_workers(1, work) as one, warm_workers(2, work) as two:
        tools = [ours("1 worker", one, method="grid"), ours("2 workers", two, method="grid")]
        spent = in_turn(tools, work, options, options.points)
    rows: list[dict[str, Any]] = [
        {"what": name, "points": options.side**2, "ms a point": 1000 * statistics.median(times)}
        for name, times in spent.items()
    ]
    rows[1]["times faster"] = float(np.median(np.divide(*spent.values())))
    for shape, stored in itertools.product(((10, 10), (25, 40), (100, 100)), (False, True)):
        command = [sys.executable, __file__, "--child", json.dumps([*shape, stored]), "--cache", str(options.cache)]
        command += ["--few", str(options.few), "--threads", "1", "--batch", str(options.batch)]
        command += [f"--run={name}={folder}" for name, folder in options.run.items()]
        command += ["--data-dir", options.data_dir] if options.data_dir else []
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - this file
        rows.append({"what": "into a file" if stored else "in memory", "points": shape[0] * shape[1]} | found)
    return pd.DataFrame(rows)


def child(options: argparse.Namespace) -> dict[str, float]:
    """One grid in a fresh process: seconds a point, and the most memory it ever held."""
    *shape, stored = json.loads(options.child)
    work = workload("lenet5", options, options.few, options.span)
    ours("", method="grid").surface(work, 3)
    with tempfile.TemporaryDirectory() as folder:
        grid = ours("", method="grid", path=Path(folder) / "surface.nc" if stored else None)
        before = start_of_peak()
        spent, _ = seconds(lambda: grid.surface(work, tuple(shape)))
        peak = megabytes("VmHWM")
    return {"ms a point": 1000 * spent / (shape[0] * shape[1]), "peak MB": peak, "of which the grid's": peak - before}


def start_of_peak() -> float:
    """What the process holds now; from here on its peak counts."""
    Path("/proc/self/clear_refs").write_text("5")
    return megabytes("VmRSS")


def megabytes(field: str) -> float:
    """Of Linux's account of this process. ``ru_maxrss`` would count what the parent held at the fork, and imports."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def with_version(name: str) -> str:
    """Of another tool."""
    return f"{name} {importlib.metadata.version(name)}" if name in {peer.name for peer in PEERS} else name


def number(value: object) -> str:
    """Three digits are enough for a table."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}".replace("nan", "")


MODES = {"compare": compare, "adaptive": adaptive, "accuracy": accuracy, "scaling": scaling}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, mode in MODES.items():
        parser.add_argument(f"--{name}", action="store_true", help=mode.__doc__)
    parser.add_argument("--examples", type=int, default=2_000, help="digits")
    parser.add_argument("--texts", type=int, default=500, help="of the LSTM in --adaptive")
    parser.add_argument("--few", type=int, default=200, help="examples in --accuracy, and where points grow")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--span", type=float, default=1.0)
    parser.add_argument("--points", type=int, default=21, help="along each axis, in --compare")
    parser.add_argument("--side", type=int, default=11, help="along each axis of the planes drawn in turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rendered", type=int, default=51, help="points along each axis of an adaptive surface")
    parser.add_argument(
        "--precision", choices=("float64", "float32"), default="float64", help="of the truth in --adaptive"
    )
    parser.add_argument("--tolerance", type=float, default=0.01, help="share of the surface's range")
    parser.add_argument("--relative-tolerance", type=float, help="share of the loss itself; default: the product's")
    parser.add_argument(
        "--network", choices=NETWORKS, action="append", help="in --adaptive and --accuracy; default: all"
    )
    parser.add_argument("--spans", type=float, nargs="+", default=[0.5, 1.0, 1.5], help="in --accuracy")
    parser.add_argument("--threads", type=int, default=2, help="of everything that runs in this process")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--run", action="append", default=[], metavar="NETWORK=FOLDER", help="a finished run to use")
    parser.add_argument("--data-dir", help="for runs on other data than the embedded digits; has the LSTM read IMDB")
    parser.add_argument("--cache", type=Path, help="folder for weights and dense surfaces; default: a temporary one")
    parser.add_argument("--csv", help="write what was measured here as well, one number a row")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.run = dict(each.split("=", 1) for each in options.run)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        options.cache = options.cache or Path(temporary)
        options.cache.mkdir(parents=True, exist_ok=True)
        if options.child:
            print(json.dumps(child(options)))
            return
        chosen = [name for name in MODES if getattr(options, name)]
        if not chosen:
            parser.error(f"choose one or more of {', '.join('--' + name for name in MODES)}")
        tables = {}
        for name in chosen:
            tables[name] = MODES[name](options)
            print(f"\n{name}: {MODES[name].__doc__}")
            print(tables[name].map(number).to_string(index=False), flush=True)
    if options.csv:
        pd.concat(tidy(name, table) for name, table in tables.items()).to_csv(options.csv, index=False)


def tidy(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """One number a row, with the row of the table that it stands in."""
    words = [column for column in table if column in ("network", "weights", "span", "tool", "what", "points")]
    cases = table[words].astype(str).agg(", ".join, axis=1)
    long = (
        table.drop(columns=[*words, "plane"], errors="ignore")
        .assign(table=name, case=cases)
        .melt(["table", "case"], var_name="measure")
    )
    return long.dropna(subset="value")


if __name__ == "__main__":
    main()
