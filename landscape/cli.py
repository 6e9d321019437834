"""The ``landscape`` command: look at anyone's model, named as ``module:function``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:  # PyTorch takes seconds to import, and --help should not
    import pandas as pd
    import xarray as xr

__all__ = ["app", "one_line_errors", "shown", "write_penalty"]

app = typer.Typer(
    help="Loss surfaces and flatness of any PyTorch model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

_TARGET = "Function without arguments that returns a landscape.EmpiricalRisk, or a dictionary of them by split"
Target = Annotated[str, typer.Argument(metavar="[NAME=]MODULE:FUNCTION", help=f"{_TARGET}.")]
Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]MODULE:FUNCTION...",
        help=f"{_TARGET}; one for each model. Modules are also looked for in the current folder.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Seed = Annotated[int, typer.Option(help="Of the random draws, the same for all models.")]
Span = Annotated[float, typer.Option(help="Coordinates run from -SPAN to SPAN, in filter norms.")]
Method = Annotated[str, typer.Option(help="adaptive: refine until predictions hold; grid: evaluate every point.")]
Tolerance = Annotated[float, typer.Option(help="Largest error of an adaptive surface, as a share of its range.")]
Normalization = Annotated[str, typer.Option(help="filter, layer or none.")]
Workers = Annotated[int, typer.Option(help="Evaluate in so many processes of one thread each; 0: in this one.")]
Scheduler = Annotated[str | None, typer.Option(help="Evaluate on a Dask scheduler, such as tcp://10.0.0.1:8786.")]


def one_line_errors(command: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Turn an error that the user can mend into one line and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        try:
            return command(*args, **kwargs)
        except (ValueError, TypeError, OSError) as error:
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.secho("stopped", fg="yellow", err=True)
            raise typer.Exit(130) from None

    return wrapped


@app.command()
@one_line_errors
def surface(
    targets: Targets,
    output: Output = Path("landscape"),
    span: Span = 1.0,
    points: Annotated[int, typer.Option(help="Points along each axis (of an adaptive surface: of its picture).")] = 51,
    method: Method = "adaptive",
    tolerance: Tolerance = 0.01,
    seed: Seed = 0,
    normalization: Normalization = "filter",
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Loss surfaces on a common plane, drawn on common levels. Started again after a kill, it goes on."""
    from landscape import loss_surface, plots, random_directions
    from landscape.evaluation.executors import chosen_executor
    from landscape.evaluation.walk import named
    from landscape.targets import load_targets

    surfaces: dict[str, xr.Dataset] = {}
    with chosen_executor(workers, scheduler) as executor:
        for name, risks in load_targets(targets).items():
            for split, risk in named(risks).items():
                typer.echo(f"{name}: {split} loss {risk().loss:.6g} over {risk.count} examples".replace(":  ", ": "))
            center = next(iter(named(risks).values())).parameters()
            directions = random_directions(center, seed=seed, normalization=normalization)  # type: ignore[arg-type]
            found = loss_surface(
                risks, directions, span, points, method, tolerance, executor=executor, path=output / f"{name}.nc"
            )
            typer.echo(f"{name}: {_how_well(found)}")
            surfaces |= _by_split(name, found)
    plots.contour_panels(surfaces).savefig(output / "contours.png")
    plots.relief_panels(surfaces).savefig(output / "relief.png")
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


@app.command()
@one_line_errors
def compare(
    targets: Targets,
    output: Output = Path("comparison"),
    pairs: Annotated[int, typer.Option(help="Pairs of random directions, the same for all models.")] = 5,
    span: Span = 1.0,
    rise: Annotated[float, typer.Option(help="Rise of the loss for radius and area, in its unit.")] = 0.1,
    method: Method = "adaptive",
    tolerance: Tolerance = 0.01,
    seed: Seed = 0,
    normalization: Normalization = "filter",
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Compare models on the same pairs of directions: read-outs with intervals, and the map of their difference."""
    from landscape import compare_surfaces, plots
    from landscape.evaluation.executors import chosen_executor
    from landscape.targets import load_targets

    with chosen_executor(workers, scheduler) as executor:
        comparison = compare_surfaces(
            load_targets(targets), pairs, seed, span, method=method, tolerance=tolerance, rise=rise, executor=executor,
            folder=output, normalization=normalization,
        )  # fmt: skip
    comparison.readouts.to_csv(output / "readouts.csv", index=False)
    intervals = comparison.intervals()
    intervals.to_csv(output / "intervals.csv", index=False)
    typer.echo(shown(intervals))
    first, *others = comparison.models
    for other in others:
        differences = comparison.differences(other, first)
        differences.to_csv(output / f"{other}-minus-{first}.csv", index=False)
        typer.echo(f"\n{other} minus {first}, on the same directions:\n{shown(differences)}")
    plots.readout_panels(intervals).savefig(output / "readouts.png")
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


@app.command()
@one_line_errors
def check(targets: Targets, seed: Seed = 0) -> None:
    """Test whether surfaces of a model can be trusted; exit code 1 if not."""
    import landscape
    from landscape.targets import single_risks

    failed = []
    for name, risk in single_risks(targets).items():
        report = landscape.check(risk, seed=seed)
        typer.echo(f"{name}\n{report}\n")
        if not report.passed:
            failed.append(name)
    if failed:
        typer.secho(f"failed: {', '.join(failed)}", fg="red", err=True)
        raise typer.Exit(1)


@app.command()
@one_line_errors
def between(
    target: Target,
    first: Annotated[Path, typer.Argument(help="Weights in safetensors, of the model that the target makes.")],
    second: Annotated[Path, typer.Argument(help="The other minimum.")],
    output: Output = Path("between"),
    points: Annotated[int, typer.Option(help="Points on the way, both ends included.")] = 51,
    bends: Annotated[int, typer.Option(help="Train a Bezier curve with so many bends; 0: the straight line only.")] = 1,
    steps: Annotated[int, typer.Option(help="Of that training.")] = 1000,
    seed: Seed = 0,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """The loss between two minima: on the straight line, and on a trained curve around the barrier."""
    from landscape import connect, load_points, loss_between, plots
    from landscape.evaluation.executors import chosen_executor
    from landscape.evaluation.walk import named
    from landscape.targets import load_targets

    (risks,) = load_targets([target]).values()
    a, b = load_points([first, second], next(iter(named(risks).values())))
    with chosen_executor(workers, scheduler) as executor:
        line = loss_between(risks, a, b, points, executor=executor, path=output / "line.nc")
        plots.line_panels({"straight line": line}).savefig(output / "line.png")
        if bends:
            found = connect(
                risks, a, b, bends, steps, seed=seed, points=points, executor=executor, path=output / "curve.nc"
            )
            plots.line_panels(found.curve).savefig(output / "curve.png")
            typer.echo(f"barrier: {found.straight_barrier:.4g} on the straight line, {found.barrier:.4g} on the curve")
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


@app.command()
@one_line_errors
def trajectory(
    target: Target,
    checkpoints: Annotated[list[Path], typer.Argument(help="Weights in safetensors, in the order of the run.")],
    output: Output = Path("trajectory"),
    points: Annotated[int, typer.Option(help="Points along each axis of the picture.")] = 51,
    tolerance: Tolerance = 0.01,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """The path of a run over the loss surface on the plane of its principal components."""
    from landscape import load_points, loss_surface, plots, trajectory_path
    from landscape import trajectory as principal_plane
    from landscape.evaluation.executors import chosen_executor
    from landscape.targets import single_risks

    (risk,) = single_risks([target]).values()
    plane = principal_plane(load_points(checkpoints, risk))
    span = plane.span()
    with chosen_executor(workers, scheduler) as executor, risk.at(plane.center):
        path = trajectory_path(risk, plane, executor, path=output / "path.nc")
        found = loss_surface(
            risk, plane.directions, (span[0], span[1]), points, tolerance=tolerance, executor=executor,
            path=output / "surface.nc",
        )  # fmt: skip
    plots.trajectory_panels(found, path).savefig(output / "trajectory.png")
    shares = ", ".join(f"{share:.1%}" for share in plane.explained_variance)
    typer.echo(f"explained variance: {shares}; {_how_well(found)}")
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


@app.command("eigenvalue-ratio")
@one_line_errors
def eigenvalue_ratio(
    target: Target,
    output: Output = Path("eigenvalue-ratio"),
    span: Span = 1.0,
    points: Annotated[int, typer.Option(help="Points along each axis.")] = 11,
    seed: Seed = 0,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Where a plane is convex: the ratio of the extreme eigenvalues of the Hessian at each point."""
    from landscape import eigenvalue_ratio as ratio_map
    from landscape import plots, random_directions
    from landscape.evaluation.executors import chosen_executor
    from landscape.targets import single_risks

    ((name, risk),) = single_risks([target]).items()
    directions = random_directions(risk.parameters(), seed=seed)
    with chosen_executor(workers, scheduler) as executor:
        found = ratio_map(risk, directions, span, points, executor=executor, path=output / "eigenvalue-ratio.nc")
    plots.eigenvalue_ratio_panels({name: found}).savefig(output / "eigenvalue-ratio.png")
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


@app.command()
@one_line_errors
def export(
    surface: Annotated[Path, typer.Argument(help="A surface, line or volume in netCDF.")],
    output: Annotated[Path, typer.Argument(help="Ends in .csv, or .vts (surface), .vti (volume), .vtp (line).")],
    logarithm: Annotated[bool, typer.Option(help="Logarithmic height.")] = False,
    split: Annotated[str | None, typer.Option(help="Whose height, if there are several splits.")] = None,
    nodes: Annotated[bool, typer.Option(help="The lattice of an adaptive surface instead of its rendering.")] = False,
) -> None:
    """Write a surface as CSV, or for ParaView."""
    from landscape import open_surface, to_csv, to_vtk

    if output.suffix == ".csv":
        to_csv(open_surface(surface), output, nodes)
    else:
        to_vtk(open_surface(surface), output, logarithm=logarithm, split=split, nodes=nodes)
    typer.echo(f"wrote {output}")


@app.command()
@one_line_errors
def flatness(
    targets: Targets,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the table there, as CSV.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only these metrics; repeatable.")] = None,
    seed: Seed = 0,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Measure how sharp or flat each minimum is, by every metric and on every split."""
    from landscape import METRICS, flatness_table
    from landscape.evaluation.executors import chosen_executor
    from landscape.targets import load_targets

    with chosen_executor(workers, scheduler) as executor:
        table = flatness_table(load_targets(targets), metrics=metric, seed=seed, executor=executor)
    larger = table["metric"].map({name: one.larger for name, one in METRICS.items()})
    typer.echo(
        shown(table.assign(larger_means=larger)[["method", "split", "metric", "setting", "value", "standard_error",
                                                 "converged", "larger_means"]])
    )  # fmt: skip
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(output, index=False)
        typer.echo(f"wrote {output}")


@app.command()
@one_line_errors
def spectrum(
    targets: Targets,
    output: Output = Path("spectrum"),
    matrix: Annotated[str, typer.Option(help="hessian or gauss-newton.")] = "hessian",
    steps: Annotated[int, typer.Option(help="Of the Lanczos iteration for each probe.")] = 40,
    parameter: Annotated[list[str] | None, typer.Option(help="Only these names or patterns; repeatable.")] = None,
    seed: Seed = 0,
) -> None:
    """How the eigenvalues of the Hessian are distributed."""
    from landscape import plots, spectral_density
    from landscape.datasets import write
    from landscape.targets import single_risks

    found = {}
    for name, risk in single_risks(targets).items():
        found[name] = spectral_density(risk, steps, seed=seed, matrix=matrix, parameters=parameter)  # type: ignore[arg-type]
        write(found[name], output / f"{name.replace('/', '-')}.nc")
        low, high = float(found[name]["node"].min()), float(found[name]["node"].max())
        state = "" if found[name].attrs["converged"] else "; NOT CONVERGED: raise --steps"
        typer.echo(f"{name}: from {low:.4g} to {high:.4g}, {found[name].attrs['products']} products{state}")
    plots.spectrum_panels(found).savefig(output / "spectrum.png")
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


@app.command()
@one_line_errors
def penalty(
    targets: Targets,
    output: Output = Path("penalty"),
    site: Annotated[
        list[str] | None, typer.Option(help="input, a module, or a parameter (pattern); repeatable; without it, all.")
    ] = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="Norm of the perturbation; repeatable.")] = None,
    attack_probability: Annotated[float, typer.Option(help="P(an entry is attacked).")] = 0.5,
    masks: Annotated[int, typer.Option(help="Random masks for each epsilon.")] = 8,
    mask_then_normalize: Annotated[bool, typer.Option(help="The other order of mask and norm.")] = False,
    seed: Seed = 0,
) -> None:
    """Does a masked perturbation act as a penalty on the gradient's norm, and up to which epsilon?"""
    import pandas as pd

    from landscape import penalty_check
    from landscape.targets import single_risks

    options: dict[str, Any] = {"masks": masks, "mask_then_normalize": mask_then_normalize, "seed": seed}
    if epsilon:
        options["epsilons"] = tuple(epsilon)
    check = pd.concat(
        [
            penalty_check(risk, tuple(site or ("input", "*")), attack_probability=attack_probability, **options).assign(
                model=name
            )
            for name, risk in single_risks(targets).items()
        ],
        ignore_index=True,
    )
    typer.echo(write_penalty(check, output))
    typer.echo(f"wrote {', '.join(sorted(file.name for file in output.iterdir()))} to {output}")


def write_penalty(check: pd.DataFrame, folder: Path, mark: float = 5.0) -> str:
    """Write a penalty check of one or more models, its summary and a picture of each; return what it says.

    Args:
        check: tables of :func:`landscape.penalty_check` below each other, told apart by the column ``model``.
        folder: for ``penalty.csv``, ``summary.csv``, ``fair.csv`` and ``penalty-<model>.png``.
        mark: an epsilon to mark in the pictures.
    """
    from landscape import largest_epsilon_within, plots, summarize_penalty

    folder.mkdir(parents=True, exist_ok=True)
    summary, fair = summarize_penalty(check), largest_epsilon_within(check)
    for name, table in {"penalty": check, "summary": summary, "fair": fair}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    for model, rows in summary.groupby("model", sort=False):
        figure = plots.penalty_panels(rows.drop(columns="model"), marks=(mark,))
        figure.savefig(folder / f"penalty-{str(model).replace('/', '-')}.png")
    shares = fair.pivot_table(
        index=["model", "site"], columns="description", values="epsilon", sort=False, dropna=False
    )
    return f"largest epsilon up to which the rise is described within 10 %\n{shown(shares.reset_index())}"


@app.command()
@one_line_errors
def scale_check(
    target: Target,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the table there, as CSV.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only these metrics; repeatable.")] = None,
    factor: Annotated[float, typer.Option(help="By which layers are rescaled.")] = 4.0,
    seed: Seed = 0,
) -> None:
    """Which metrics move when weights are rescaled and the function stays the same."""
    from landscape.rescaling import describe_scale_check
    from landscape.rescaling import scale_check as check_of_scale
    from landscape.targets import single_risks

    for name, risk in single_risks([target]).items():
        table = check_of_scale(risk, metric, factor, seed)
        typer.echo(f"{name}\n{shown(table)}\n{describe_scale_check(table)}")
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(output, index=False)


def shown(table: pd.DataFrame) -> str:
    """A table as aligned text with four significant digits."""
    return table.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="-")


def _how_well(surface: xr.Dataset) -> str:
    points = f"{surface.attrs['evaluations']:,} points evaluated"
    if surface.attrs["method"] == "grid":
        return points
    text = f"{points}, largest error about {surface.attrs['error_estimate']:.2%} of the range"
    return text if surface.attrs["converged"] else f"{text}; NOT CONVERGED: this is more than was asked for"


def _by_split(name: str, surface: xr.Dataset) -> dict[str, xr.Dataset]:
    if "split" not in surface.dims:
        return {name: surface}
    return {f"{name}, {split}": surface.sel(split=split) for split in surface["split"].values.tolist()}
