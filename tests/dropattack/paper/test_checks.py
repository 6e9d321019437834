import subprocess
import sys

import pytest

from dropattack.paper import CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_names_its_place_first(name):
    table = CHECKS[name]()
    assert table.columns[0] == "place"
    assert table["place"].str.fullmatch(r"(Tables? \d+(, \d+)*|Figure \d+)(, (Table|Figure) \d+)*").all()
    assert len(table)


def test_neither_torch_nor_landscape_is_loaded():
    code = """
import sys
from dropattack.paper import CHECKS
for check in CHECKS.values():
    check()
print(*({"torch", "landscape", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
