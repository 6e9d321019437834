"""How long data sets take to load, how much memory that needs, and which share of a training step is the input.

Each data set is loaded in a process of its own, first into an empty cache and then from it. The share is the time of
making a shuffled batch of 128, over the time of a standard training step with the network of the desk study on it. Run
``python benchmarks/data.py --data-dir FOLDER``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd

STUDIES = Path(__file__).parents[1] / "studies"


def measured(name: str, data_dir: str, connection: multiprocessing.connection.Connection) -> None:
    """Load one data set and send seconds and megabytes; on a filled cache also batches and steps."""
    start = time.perf_counter()
    import torch

    from dropattack.data import load_dataset
    from dropattack.methods import Standard
    from dropattack.study import Study
    from dropattack.training import build_for

    torch.set_num_threads(1)
    imports = time.perf_counter() - start
    base = Study.from_toml(STUDIES / f"{name}-desk.toml").base
    options = {key: value for key, value in base.data.options.items() if "examples" not in key}
    dataset = load_dataset(name, data_dir, **options)
    seconds = time.perf_counter() - start - imports
    generator = torch.Generator().manual_seed(0)
    begin = time.perf_counter()
    count = sum(1 for _ in dataset.train.shuffled(128, generator))
    batch_seconds = (time.perf_counter() - begin) / count
    model = build_for(base, dataset)
    method, steps = Standard(model), []
    for inputs, labels in list(dataset.train.shuffled(128, generator))[:6]:
        begin = time.perf_counter()
        model.zero_grad()
        method.backward(lambda x=inputs, y=labels: torch.nn.functional.cross_entropy(model(x), y))
        steps.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    connection.send((seconds, peak, batch_seconds, statistics.median(steps[1:])))


def in_a_process(name: str, data_dir: str) -> tuple[float, float, float, float]:
    """:func:`measured` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=measured, args=(name, data_dir, there))
    process.start()
    found: tuple[float, float, float, float] = here.recv()
    process.join()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder of Parquet files")
    parser.add_argument("--dataset", action="append", default=[], help="only this one (may be given again)")
    options = parser.parse_args()
    rows = []
    for name in options.dataset or ["imdb", "pheme", "ag-news", "mnist", "cifar10"]:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["DROPATTACK_CACHE"] = cache
            first, first_peak, _, _ = in_a_process(name, options.data_dir)
            cached, peak, batch, step = in_a_process(name, options.data_dir)
        rows.append(
            {
                "data set": name,
                "first load (s)": first,
                "peak (MB)": first_peak,
                "from cache (s)": cached,
                "peak, cached (MB)": peak,
                "batch (ms)": 1000 * batch,
                "step (ms)": 1000 * step,
                "share": f"{batch / step:.2%}",
            }
        )
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
