"""The ``dropattack`` command."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli import one_line_errors, shown

__all__ = ["app"]

app = typer.Typer(
    help="Train with DropAttack and look at the minima that come out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data = typer.Typer(help="Look at the data sets.", no_args_is_help=True)
app.add_typer(data, name="data")
study = typer.Typer(help="Train the runs of a study.", no_args_is_help=True)
app.add_typer(study, name="study")

DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="DROPATTACK_DATA",
        help="Folder of Parquet files in the Hugging Face schema, such as mnist/train.parquet; without it, the hub.",
    ),
]


@app.command()
@one_line_errors
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("demo"),
    scale: Annotated[str, typer.Option(help="desk (minutes) or smoke (seconds, proves only that it runs).")] = "desk",
    seed: Annotated[int, typer.Option(help="Of the two trainings and of the plane.")] = 0,
) -> None:
    """The main job: standard training against DropAttack on 5,000 real digits, seen from every side."""
    from dropattack.demo import run_demo

    run_demo(output, scale=scale, seed=seed, say=typer.echo)


@app.command()
@one_line_errors
def train(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; without it, standard LeNet-5 on 5,000 digits.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")] = Path("runs/run"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as training.epochs=5; repeatable."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Train, or go on where the same command was stopped."""
    from dropattack.config import Config
    from dropattack.training import train as train_run

    tables = Config.from_toml(config).to_tables() if config is not None else {}
    chosen = Config.from_tables(_overridden(tables, settings or []))
    run = train_run(chosen, output, data_dir=data_dir)
    best = run.metrics["best"]
    typer.echo(
        f"epoch {best['epoch']:.0f} of {chosen.training.epochs} was best on validation data "
        f"(accuracy {best['validation_accuracy']:.2%}): test accuracy {best['test_accuracy']:.2%}, "
        f"test loss {best['test_loss']:.4f}; results in {output}"
    )


@app.command()
@one_line_errors
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    checkpoint: Annotated[str, typer.Option(help="best (on validation data), last, or averaged.")] = "best",
    data_dir: DataDir = None,
) -> None:
    """Evaluate a run's checkpoint anew; prints JSON."""
    from dropattack.checkpoint import load_run
    from dropattack.data import load_dataset
    from dropattack.training import check_same_data
    from dropattack.training import evaluate as evaluate_model

    for name, value, choices in (
        ("--split", split, ("train", "validation", "test")),
        ("--checkpoint", checkpoint, ("best", "last", "averaged")),
    ):
        if value not in choices:
            raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    loaded = load_run(run, checkpoint)
    dataset = load_dataset(loaded.config.data.name, data_dir, **loaded.config.data.options)
    check_same_data(run, dataset)
    examples = dataset[split]  # type: ignore[index]
    found = evaluate_model(loaded.model, examples.ordered())
    typer.echo(
        json.dumps({"run": str(run), "checkpoint": checkpoint, "split": split, "examples": len(examples)} | found)
    )


@app.command()
@one_line_errors
def penalty(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs on one data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("penalty"),
    inputs: Annotated[
        str | None, typer.Option(help="What is attacked: input, a module; without it, as the first DropAttack run.")
    ] = None,
    weights: Annotated[list[str] | None, typer.Option(help="Attacked parameters; repeatable.")] = None,
    attack_probability: Annotated[float, typer.Option(help="With --inputs or --weights: P(attacked).")] = 0.5,
    split: Annotated[
        str, typer.Option(help="Check the rise of the loss on: train, validation or test.")
    ] = "validation",
    examples: Annotated[int, typer.Option(help="Of that split, its first so many.")] = 500,
    draws: Annotated[int, typer.Option(help="Random masks for each update.")] = 16,
    seed: Annotated[int, typer.Option(help="Of masks and random directions.")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Is DropAttack a penalty on gradient norms at these weights? The terms of equations 8 to 13, measured."""
    from dropattack.regularization import check_runs

    setting = None
    if inputs is not None or weights:
        setting = {"inputs": inputs, "weights": tuple(weights or ()), "attack_probability": attack_probability}
    text = check_runs(
        runs, output, setting=setting, split=split, examples=examples, draws=draws, seed=seed, data_dir=data_dir
    )
    typer.echo(text)
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


Names = Annotated[list[str] | None, typer.Argument(help="Data sets; without any, all that are in the folder.")]


@data.command("list")
@one_line_errors
def list_data() -> None:
    """All data sets, with the sizes of the paper's Table 1."""
    from dropattack.data.report import listed

    typer.echo(listed().to_string(index=False))


@data.command("describe")
@one_line_errors
def describe_data(
    names: Names = None,
    data_dir: DataDir = None,
    vectors: Annotated[str | None, typer.Option(help="File of word vectors: how much of the text it covers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All that was found, as JSON.")] = False,
) -> None:
    """What was found, beside the paper's Table 1."""
    from dropattack.data import CATALOG, load_dataset
    from dropattack.data.report import available, described

    found = {}
    for name in names or available(data_dir):
        is_text = name in CATALOG and CATALOG[name].shape is None
        found[name] = load_dataset(name, data_dir, **({"vectors": vectors} if vectors and is_text else {}))
        if not as_json:
            typer.echo("\n".join(described(found[name])))
    if as_json:
        typer.echo(json.dumps({name: dataset.description() for name, dataset in found.items()}, indent=2))


@data.command("verify")
@one_line_errors
def verify_data(names: Names = None, data_dir: DataDir = None) -> None:
    """Read every row anew; one line for each problem, and exit code 1 if there is any."""
    from dropattack.data import DATASETS, load_dataset
    from dropattack.data.report import available, problems, verdict
    from dropattack.names import unknown

    is_whole = True
    for name in names or available(data_dir):
        if name not in DATASETS:
            raise ValueError(unknown("dataset", name, DATASETS))
        found = problems(name, data_dir)
        for problem in found:
            typer.secho(f"{name}: {problem}", fg="red")
        if found:
            is_whole = False
        else:
            typer.echo(verdict(load_dataset(name, data_dir, cache=False)))
    if not is_whole:
        raise typer.Exit(1)


@app.command()
@one_line_errors
def claims(
    results: Annotated[Path, typer.Argument(help="Folder of results, one sub-folder a study.")] = Path("results"),
    every: Annotated[bool, typer.Option("--all", help="Each finding, not only each claim.")] = False,
    checks: Annotated[
        bool, typer.Option("--checks", help="Only what the paper's own numbers say, check by check.")
    ] = False,
    page: Annotated[Path | None, typer.Option(help="Write the verdict page here (Markdown).")] = None,
    table: Annotated[Path | None, typer.Option(help="Write every finding here (CSV).")] = None,
) -> None:
    """The paper's claims, each tested on results: verdict, effect, interval, and the file of the evidence."""
    from dropattack.checkpoint import write_text
    from dropattack.claims import judge, verdict_page
    from dropattack.paper import CHECKS

    if checks:
        for name, check in CHECKS.items():
            typer.echo(f"{name}\n{shown(check())}\n")
        return
    found = judge(results)
    columns = ["claim", "verdict", "n", "what"]
    if every:
        columns = ["claim", "kind", "where", "what", "effect", "low", "high", "unit", "n", "verdict", "evidence"]
    typer.echo(shown((found if every else found[found["kind"] == "claim"])[columns]))
    for file, text in ((page, verdict_page(found)), (table, found.to_csv(index=False))):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, text)


@app.command()
@one_line_errors
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_RESULTS...", help="Folders: runs, results of a study, or results of several studies."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.")] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder of stored pictures, one sub-folder a study; what is not there is drawn anew."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page; without it, the folders' names.")] = None,
) -> None:
    """One HTML file that opens without a network: verdicts, tables, surfaces, and how each number was made."""
    from dropattack.report import report_on

    typer.echo(report_on(paths, output, figures=figures, title=title))


StudyFile = Annotated[Path, typer.Argument(help="TOML file, such as studies/mnist-desk.toml.")]
StudyRuns = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the runs; without it, runs/NAME.")]
Figures = Annotated[Path | None, typer.Option(help="Folder of the pictures; without it, that of the tables.")]
Workers = Annotated[int, typer.Option(help="Processes of one thread each; 0: one a core.")]


@study.command("run")
@one_line_errors
def run_the_study(
    file: StudyFile,
    output: StudyRuns = None,
    results: Annotated[
        Path | None, typer.Option(help="Write tables, curves and the comparison with the paper into this folder.")
    ] = None,
    figures: Figures = None,
    table: Annotated[Path | None, typer.Option(help="Write the table of runs here, too.")] = None,
    workers: Workers = 0,
    scheduler: Annotated[
        str | None, typer.Option(help="Train on a Dask cluster: its scheduler's address, such as tcp://10.0.0.1:8786.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Tune and train what is missing, one process a core; what was stopped goes on where it was."""
    from dropattack.checkpoint import write_text
    from dropattack.study import Study, run_study
    from dropattack.study.writing import write_results
    from landscape.evaluation.executors import chosen_executor

    chosen = Study.from_toml(file)
    folder = output or Path("runs") / chosen.name
    with chosen_executor(workers, scheduler) as executor:
        found = run_study(chosen, folder, data_dir=data_dir, executor=executor)
    columns = ["method", "seed", "best_epoch", "best_validation_accuracy", "best_test_accuracy", "training_seconds"]
    typer.echo(found[columns].to_string(index=False, float_format="{:.4f}".format))
    typer.echo(f"all columns: {folder / 'results.csv'}")
    if table is not None:
        table.parent.mkdir(parents=True, exist_ok=True)
        write_text(table, found.to_csv(index=False))
    if results is not None:
        compared = write_results(chosen, folder, file, results, figures)
        if len(compared):
            typer.echo(compared.to_string(index=False, float_format="{:.3f}".format))
        typer.echo(
            f"wrote {', '.join(sorted(found.name for found in results.iterdir() if found.is_file()))} to {results}"
        )


@study.command("classical")
@one_line_errors
def study_classical(
    file: StudyFile,
    table: Annotated[Path | None, typer.Option(help="Write all columns here.")] = None,
    data_dir: DataDir = None,
) -> None:
    """A linear classifier on the same examples: tf-idf for texts, pixels for images; tuned on validation data."""
    from dropattack.checkpoint import write_text
    from dropattack.classical import classical_baseline
    from dropattack.study import Study

    found = classical_baseline(Study.from_toml(file), data_dir=data_dir)
    columns = ["method", "best_validation_accuracy", "best_test_accuracy", "best_test_macro_f1", "training_seconds"]
    typer.echo(found[columns].to_string(index=False, float_format="{:.4f}".format))
    if table is not None:
        table.parent.mkdir(parents=True, exist_ok=True)
        write_text(table, found.to_csv(index=False))
        typer.echo(f"all columns: {table}")


@study.command("status")
@one_line_errors
def study_status(file: StudyFile, output: StudyRuns = None) -> None:
    """What is finished, what has begun, what is missing, and how long that will take."""
    from dropattack.study import Study, spoken, status, time_left

    chosen = Study.from_toml(file)
    folder = output or Path("runs") / chosen.name
    states = status(chosen, folder)
    for run, state in states.items():
        typer.echo(f"{run}: {state}")
    left = time_left(chosen, folder, workers=os.cpu_count() or 1)
    finished = sum(state == "finished" for state in states.values())
    estimate = f"; about {spoken(left)} left on {os.cpu_count()} cores" if left else ""
    typer.echo(f"{finished} of {len(states)} runs are finished{estimate}")


@study.command("table")
@one_line_errors
def table_of_the_studies(
    folders: Annotated[list[Path], typer.Argument(help="Folders that --results wrote, such as results/table2-mnist.")],
    metric: Annotated[str, typer.Option(help="accuracy, macro F1 or F1.")] = "accuracy",
) -> None:
    """Several studies side by side, as a Markdown table."""
    import pandas as pd

    from dropattack.study import Study, table_of_studies

    found = {}
    for folder in folders:
        name = Study.from_toml(folder / "study.toml").base.data.name
        found[name] = pd.read_csv(folder / "comparison.csv")
    typer.echo(table_of_studies(found, metric), nl=False)


@study.command("flatness")
@one_line_errors
def study_flatness(
    file: StudyFile,
    output: StudyRuns = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder of tables and pictures; without it, OUTPUT/flatness.")
    ] = None,
    figures: Figures = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these rows; repeatable.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only these metrics; repeatable.")] = None,
    examples: Annotated[int, typer.Option(help="Of each split, its first so many.")] = 500,
    baseline: Annotated[str | None, typer.Option(help="Compare with this method; without it, the first.")] = None,
    seed: Annotated[int, typer.Option(help="Of the metrics' random draws, the same for all runs.")] = 0,
    workers: Workers = 0,
    data_dir: DataDir = None,
) -> None:
    """Train what is missing, measure every minimum by every metric, and compare the methods over their seeds."""
    from dropattack.minima import measure_runs, summarize
    from dropattack.study import Study, run_study
    from landscape.evaluation.executors import process_pool

    chosen = Study.from_toml(file)
    folder = output or Path("runs") / chosen.name
    run_study(chosen, folder, data_dir=data_dir)
    with process_pool(workers or None) as executor:
        table = measure_runs(
            chosen, folder, methods=method, metrics=metric, examples=examples, seed=seed, data_dir=data_dir,
            executor=executor,
        )  # fmt: skip
    where = results or folder / "flatness"
    typer.echo(summarize(table, baseline or (method or list(chosen.methods))[0], where, figures))
    typer.echo(f"wrote {', '.join(sorted(found.name for found in where.iterdir() if found.is_file()))} to {where}")


@study.command("surfaces")
@one_line_errors
def surfaces_of_the_study(
    file: StudyFile,
    method: Annotated[list[str], typer.Option(help="Rows of the study, in the order of the panels; repeatable.")],
    output: StudyRuns = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder of surfaces and pictures; without it, OUTPUT/surfaces.")
    ] = None,
    figures: Figures = None,
    seeds: Annotated[int, typer.Option(help="Training seeds.")] = 3,
    pairs: Annotated[int, typer.Option(help="Direction pairs for each training seed.")] = 3,
    points: Annotated[int, typer.Option(help="Along each side of the rendered surfaces.")] = 41,
    tolerance: Annotated[float, typer.Option(help="Largest error, as a share of the loss's range.")] = 0.02,
    examples: Annotated[int, typer.Option(help="Of each split, its first so many.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the first direction pair.")] = 0,
    workers: Workers = 0,
    data_dir: DataDir = None,
) -> None:
    """Loss surfaces of finished runs: on common planes, and the way the paper's authors drew theirs."""
    from dropattack.study import Study
    from dropattack.surfaces import study_surfaces, summarize_surfaces
    from landscape.evaluation.executors import process_pool

    chosen = Study.from_toml(file)
    folder = output or Path("runs") / chosen.name
    with process_pool(workers or None) as executor:
        found, readouts = study_surfaces(
            chosen, folder, method, seeds=seeds, pairs=pairs, points=points, tolerance=tolerance, examples=examples,
            seed=seed, data_dir=data_dir, executor=executor,
        )  # fmt: skip
    where = results or folder / "surfaces"
    differences = summarize_surfaces(found, readouts, where, figures)
    typer.echo(shown(differences[["split", "metric", "method", "difference", "low", "high", "ratio", "n"]]))
    typer.echo(f"wrote {', '.join(sorted(found.name for found in where.iterdir() if found.is_file()))} to {where}")


def _overridden(tables: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: expected KEY=VALUE")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word is a string: method.name=dropattack
        *sections, last = key.split(".")
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ValueError(f"--set {setting}: {section} is a value, not a table")
        table[last] = value
    return tables


if __name__ == "__main__":
    app()
