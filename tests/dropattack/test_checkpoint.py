"""Checkpoint files: nothing is unpickled, nothing is half written, and broken files say so."""

import io
import pickle

import pytest
import torch
from safetensors.torch import save_file

from dropattack import checkpoint


class Bomb:
    """Unpickling it would leave a mark."""

    def __reduce__(self):
        return (exec, ("import builtins; builtins.bomb_went_off = True",))


def torch_pickle() -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": torch.ones(2), "bomb": Bomb()}, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [pytest.param(torch_pickle(), id="torch.save")]
    + [pytest.param(pickle.dumps(Bomb(), protocol), id=f"pickle protocol {protocol}") for protocol in range(2, 6)],
)
def test_a_pickle_is_refused_and_not_executed(content, tmp_path):
    import builtins

    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is a pickle .* refused"):
        checkpoint.load(path)
    assert not hasattr(builtins, "bomb_went_off")


def test_old_text_pickles_and_other_files_are_refused_too(tmp_path):
    path = tmp_path / "last.safetensors"
    for content in (pickle.dumps(Bomb(), 0), b"", b"just text, long enough to be taken for a header length"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="truncated or not a safetensors file"):
            checkpoint.load(path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_truncated_file_says_so(share, tmp_path):
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"weight": torch.ones(100)}, {"epoch": 3})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"last\.safetensors is truncated or not a safetensors file"):
        checkpoint.load(path)


def test_a_safetensors_file_of_someone_else_is_told_apart(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not a checkpoint of this package"):
        checkpoint.load(tmp_path / "model.safetensors")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*last"):
        checkpoint.load(tmp_path / "last.safetensors")


def test_tensors_and_state_come_back_as_they_were(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "tied": shared, "turned": shared.t(), "scalar": torch.tensor(3), "half": shared.bfloat16()}
    checkpoint.save(tmp_path / "c.safetensors", tensors, {"history": [{"loss": float("nan")}], "name": "<script>"})
    found, state = checkpoint.load(tmp_path / "c.safetensors")
    assert found.keys() == tensors.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
    assert state["name"] == "<script>"


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": torch.ones(2)}, {"epoch": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(path, {"a": torch.zeros(2)}, {"epoch": object()})
    assert checkpoint.load(path)[1] == {"epoch": 1}


def test_a_run_that_is_not_finished_or_not_a_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a run's folder"):
        checkpoint.load_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="train it to the end first"):
        checkpoint.load_run(tmp_path)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path):
    # The file begins with the header's length in eight bytes; 0x280 is also how a pickle of protocol 2 begins.
    path = tmp_path / "c.safetensors"
    for padding in range(700):
        checkpoint.save(path, {"a": torch.ones(2)}, {"padding": "x" * padding})
        if path.read_bytes().startswith(b"\x80\x02"):
            break
    else:
        pytest.fail("no header of length 0x280 was made")
    assert checkpoint.load(path)[1] == {"padding": "x" * padding}
