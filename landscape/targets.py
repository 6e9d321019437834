"""Someone's own models, named on a command line as ``module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import cloudpickle

from landscape.evaluation.walk import Risks, named
from landscape.risk import EmpiricalRisk

__all__ = ["load_targets", "single_risks"]


def load_targets(targets: list[str]) -> dict[str, Risks]:
    """Call the functions, each of which returns a risk, or risks of one model by split.

    Args:
        targets: ``[NAME=]MODULE:FUNCTION`` each. Modules are looked for in the current folder too; they travel to
            worker processes with the models.

    Raises:
        ValueError: not such a name, no such module or function, or two models of one name.
        TypeError: the function returns something else.
    """
    risks: dict[str, Risks] = {}
    for target in targets:
        name, _, place = target.rpartition("=")
        module_name, _, function_name = place.partition(":")
        if not (module_name and function_name):
            raise ValueError(f"target {target!r}: expected MODULE:FUNCTION, such as my_models:standard")
        name = name or function_name
        if name in risks:
            raise ValueError(f"two targets are called {name!r}; write NAME=MODULE:FUNCTION")
        module = _module(target, module_name)
        if not hasattr(module, function_name):
            known = ", ".join(key for key, value in vars(module).items() if callable(value) and key[0] != "_")
            raise ValueError(f"target {target!r}: {module_name} has no {function_name!r}; it has {known or 'nothing'}")
        function = getattr(module, function_name)
        if not callable(function):
            raise TypeError(f"target {target!r}: expected a callable, got {type(function).__name__}")
        found = function()
        of_splits = isinstance(found, Mapping) and all(isinstance(risk, EmpiricalRisk) for risk in found.values())
        if not (isinstance(found, EmpiricalRisk) or (of_splits and found)):
            raise TypeError(f"target {target!r}: expected a landscape.EmpiricalRisk, got {type(found).__name__}")
        risks[name] = found
    return risks


def single_risks(targets: list[str]) -> dict[str, EmpiricalRisk]:
    """As :func:`load_targets`, with a model of several splits as ``name/split``."""
    return {
        f"{name}/{split}" if split else name: risk
        for name, risks in load_targets(targets).items()
        for split, risk in named(risks).items()
    }


def _module(target: str, name: str) -> ModuleType:
    with _current_folder_first():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                raise ValueError(f"target {target!r}: no module {name!r} here or installed") from error
            raise ValueError(f"target {target!r}: {name} cannot be imported ({error})") from error
    if Path(module.__file__ or "").resolve().is_relative_to(Path.cwd()):
        cloudpickle.register_pickle_by_value(module)  # workers do not have this folder
    return module


@contextmanager
def _current_folder_first() -> Iterator[None]:
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop(0)
