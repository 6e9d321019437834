"""Figures as files."""

import pytest
from matplotlib.figure import Figure

from landscape import plots


def test_vectors_and_pixels_are_written_and_nothing_else_is_left(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    files = plots.save(figure, tmp_path / "new" / "a.b", formats=("svg", "png"), dpi=30)
    assert [file.name for file in files] == ["a.b.svg", "a.b.png"]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["a.b.png", "a.b.svg"]
    width = int.from_bytes(files[1].read_bytes()[16:20], "big")
    assert width == 30  # an inch


def test_an_unknown_format_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match=r"formats: expected some of .*pdf.*, got 'bmp3'"):
        plots.save(Figure(), tmp_path / "a", formats=("bmp3",))
    assert not list(tmp_path.iterdir())
