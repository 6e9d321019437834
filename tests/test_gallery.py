"""The gallery: every script is short, runs, and writes what its page shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((DOCS / "gallery").glob("*.py"))


def test_the_page_shows_every_script_and_no_other():
    page = (DOCS / "gallery.md").read_text()
    assert set(re.findall(r"\(gallery/(\w+)\.py\)", page)) == {script.stem for script in SCRIPTS}
    assert set(re.findall(r"\(gallery/(\w+)\.png\)", page)) == {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_of_a_screen_writes_vectors_and_pixels(script, tmp_path):
    assert len(script.read_text().splitlines()) <= 40
    subprocess.run([sys.executable, "-W", "error", str(script), str(tmp_path)], check=True, cwd=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{script.stem}.pdf", f"{script.stem}.png"]
    pixels = (tmp_path / f"{script.stem}.png").read_bytes()
    assert pixels.startswith(b"\x89PNG")
    assert pixels[pixels.index(b"pHYs") + 4 :][:4] == (11811).to_bytes(4, "big")  # dots a meter: 300 an inch
    assert (tmp_path / f"{script.stem}.pdf").read_bytes().startswith(b"%PDF")
