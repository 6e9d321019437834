"""Notebooks are prose and calls, their committed outputs are clean, and they run at smoke scale."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# An absolute path of two folders or more, on any machine.
PATHS = re.compile(r"(?<![\w.])/(?:[\w.-]+/){2,}|\b[A-Z]:\\")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def printed(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield output, str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_it_is_prose_and_calls(notebook):
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert len(notebook.cells) <= 25
    assert not re.search(r"^\s*(def|class) ", code, re.MULTILINE)
    assert "loss.backward()" not in code
    assert notebook.cells[0].cell_type == notebook.cells[-1].cell_type == "markdown"


def test_committed_outputs_are_complete_and_clean(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in output.get("data", {}) for output, _ in printed(notebook)) >= 3
    for output, text in printed(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", text
        assert "Warning" not in text
        assert not PATHS.search(text), text


def test_it_runs_at_smoke_scale_without_a_word_on_standard_error(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("DROPATTACK_SCALE", "smoke")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    figures = sum("image/png" in output.get("data", {}) for output, _ in printed(notebook))
    assert figures >= 3
    for output, text in printed(notebook):
        assert output.get("name") != "stderr", text
        assert not PATHS.search(text), text
