"""What importing an adapter loads, and what it says where its library is missing."""

import subprocess
import sys

import pytest

LIBRARIES = ["accelerate", "transformers", "lightning", "pytorch_lightning", "torchmetrics"]
MISSING = {
    "transformers": r"pip install 'dropattack\[transformers\]'",
    "lightning": r"pip install 'dropattack\[lightning\]'",
}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_no_library_is_loaded_that_is_not_asked_for():
    done = run(
        "import dropattack, sys; dropattack.DropAttack; import dropattack.adapters.closures; "
        f"print(*(name for name in {LIBRARIES} if name in sys.modules))"
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_library_is_named(name, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"dropattack.adapters.{name}", raising=False)
    with pytest.raises(ImportError, match=MISSING[name]):
        __import__(f"dropattack.adapters.{name}")
