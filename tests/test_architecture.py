"""Who may import whom, read from the source with ``ast``."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dropattack

ROOT = Path(dropattack.__file__).parents[1]
FILES = sorted(path for package in ("dropattack", "landscape") for path in (ROOT / package).rglob("*.py"))
PLOTTING = {"matplotlib", "mpl_toolkits", "plotly", "seaborn"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Dotted names that a file imports; with ``from a import b`` as ``a.b`` where that is a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    nodes = list(tree.body) if at_import_time else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else str(node.module)
                for alias in node.names
            }
    return found


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_reader_of_imports_sees_what_is_there():
    assert "dropattack.sites" in imports(MODULES["dropattack.methods.base"])
    assert "matplotlib" in top(imports(MODULES["landscape.plots.contour"]))
    assert "landscape" in top(imports(MODULES["dropattack.demo"]))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("landscape")])
def test_landscape_never_imports_dropattack(name):
    assert "dropattack" not in top(imports(MODULES[name]))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("dropattack")])
def test_only_a_few_rooms_of_dropattack_import_landscape(name):
    rooms = {"claims", "study", "minima", "surfaces", "regularization", "demo", "report", "cli"}
    if name == "dropattack" or name.split(".")[1] not in rooms:
        assert "landscape" not in top(imports(MODULES[name]))


@pytest.mark.parametrize("name", MODULES)
def test_plotting_and_torch_stay_apart(name):
    found = top(imports(MODULES[name]))
    if name.startswith(("landscape.plots", "landscape.interactive", "landscape.report")):
        assert "torch" not in found
    else:
        assert not found & PLOTTING


def test_the_graph_of_imports_has_no_cycle():
    # A package's __init__ imports the modules of its table of contents, and importing a module runs that __init__, so
    # only dependencies between files are looked at; imports inside functions count too.
    graph = {
        name: {other for other in imports(path) if other in MODULES and other != name and MODULES[other] != path}
        for name, path in MODULES.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(MODULES) <= set(order)


def test_no_file_is_ever_unpickled():
    # What one process sends to its own workers is packed and unpacked there, in memory, and nowhere else.
    assert {name for name, path in MODULES.items() if {"pickle", "cloudpickle"} & top(imports(path))} == {
        "landscape.evaluation.workers",
        "landscape.targets",  # tells cloudpickle which module to send along
    }
    assert "open(" not in MODULES["landscape.evaluation.workers"].read_text(encoding="utf-8")
    for path in FILES:
        assert "torch.load(" not in path.read_text(encoding="utf-8"), path
