"""A file is replaced as a whole, or not at all."""

import pytest

from landscape.files import replaced


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "table.csv"


def test_its_folder_is_made_and_nothing_else_is_left(path):
    with replaced(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
        temporary.write_text("1")
        assert not path.exists()
    assert path.read_text() == "1"
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_the_old_file_stays_after_an_error(path):
    path.parent.mkdir()
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        _fail(path)
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def _fail(path):
    with replaced(path) as temporary:
        temporary.write_text("ha")
        raise OSError("disk full")
