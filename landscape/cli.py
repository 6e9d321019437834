"""The ``landscape`` command: look at anyone's model, named as ``module:function``."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:  # PyTorch takes seconds to import, and --help should not
    import pandas as pd

    from landscape.risk import EmpiricalRisk

__all__ = ["app", "one_line_errors", "shown"]

app = typer.Typer(
    help="Loss surfaces and flatness of any PyTorch model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]MODULE:FUNCTION...",
        help="Functions without arguments that return a landscape.EmpiricalRisk, one for each model. "
        "Modules are also looked for in the current folder.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of the random draws, the same for all models.")]


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
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("landscape"),
    span: Annotated[float, typer.Option(help="Alpha and beta run from -SPAN to SPAN, in filter norms.")] = 1.0,
    points: Annotated[int, typer.Option(help="Points along each axis.")] = 21,
    seed: Seed = 0,
    normalization: Annotated[str, typer.Option(help="filter, layer or none.")] = "filter",
) -> None:
    """Evaluate loss surfaces on a common plane, and draw them on common levels."""
    from landscape import loss_surface, plots, random_directions

    surfaces = {}
    for name, risk in _risks(targets).items():
        typer.echo(f"{name}: loss {risk().loss:.6g} over {risk.count} examples")
        directions = random_directions(risk.parameters(), seed=seed, normalization=normalization)  # type: ignore[arg-type]
        surfaces[name] = loss_surface(risk, directions, span=span, points=points, path=output / f"{name}.nc")
    plots.contour_panels(surfaces).savefig(output / "contours.png")
    plots.relief_panels(surfaces).savefig(output / "relief.png")
    typer.echo(f"wrote {', '.join(f'{name}.nc' for name in surfaces)}, contours.png and relief.png to {output}")


@app.command()
@one_line_errors
def flatness(
    targets: Targets,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the table there, as CSV.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only these metrics; repeatable.")] = None,
    seed: Seed = 0,
) -> None:
    """Measure how sharp each minimum is; larger numbers mean sharper."""
    from landscape import flatness_table

    table = flatness_table(_risks(targets), metrics=metric, seed=seed)
    typer.echo(shown(table))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(output, index=False)
        typer.echo(f"wrote {output}")


def shown(table: pd.DataFrame) -> str:
    """A table as aligned text with four significant digits."""
    return table.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="-")


def _risks(targets: list[str]) -> dict[str, EmpiricalRisk]:
    from landscape.risk import EmpiricalRisk

    risks = {}
    for target in targets:
        name, _, place = target.rpartition("=")
        module_name, _, function_name = place.partition(":")
        if not (module_name and function_name):
            raise ValueError(f"target {target!r}: expected MODULE:FUNCTION, such as my_models:standard")
        name = name or function_name
        if name in risks:
            raise ValueError(f"two targets are called {name!r}; write NAME=MODULE:FUNCTION")
        sys.path.insert(0, str(Path.cwd()))
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and error.name == module_name:
                raise ValueError(f"target {target!r}: no module {module_name!r} here or installed") from error
            raise ValueError(f"target {target!r}: {module_name} cannot be imported ({error})") from error
        finally:
            sys.path.pop(0)
        if not hasattr(module, function_name):
            known = ", ".join(key for key, value in vars(module).items() if callable(value) and key[0] != "_")
            raise ValueError(f"target {target!r}: {module_name} has no {function_name!r}; it has {known or 'nothing'}")
        function = getattr(module, function_name)
        if not callable(function):
            raise TypeError(f"target {target!r}: expected a callable, got {type(function).__name__}")
        risk = function()
        if not isinstance(risk, EmpiricalRisk):
            raise TypeError(f"target {target!r}: expected a landscape.EmpiricalRisk, got {type(risk).__name__}")
        risks[name] = risk
    return risks
