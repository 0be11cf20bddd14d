"""Weights in files: round trips, damage, and failures that leave an earlier file as it was."""

import os
import pickle

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save as encode

from minigrad import Tensor, dtypes, nn
from minigrad.errors import ArgumentTypeError, DataError
from minigrad.nn import serialize


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_a_model_round_trip(path):
    net, twin = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 3)) for _ in range(2))
    serialize.save(path, net.state_dict(), {"model": "small", "note": "größer"})
    twin.load_state_dict(serialize.load(path))
    for a, b in zip(net.parameters(), twin.parameters()):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert serialize.read_metadata(path) == {"model": "small", "note": "größer"}


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
def test_every_dtype_and_awkward_shapes(path, dtype):
    arrays = {
        "matrix": np.arange(6).reshape(2, 3).astype(dtype.numpy),
        "transposed": np.arange(6).reshape(2, 3).astype(dtype.numpy).T,
        "scalar": np.array(1).astype(dtype.numpy),
        "empty": np.zeros((0, 3), dtype.numpy),
    }
    serialize.save(path, {name: Tensor(array) for name, array in arrays.items()})
    loaded = serialize.load(path)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype is dtype and loaded[name].shape == array.shape
        np.testing.assert_array_equal(loaded[name].numpy(), array)
    assert serialize.read_metadata(path) == {}


def test_arrays_are_saved_too(path):
    serialize.save(path, {"a": np.array([1.0, 2.0], ml_dtypes.bfloat16)})
    assert serialize.load(path)["a"].dtype is dtypes.bfloat16


def test_pytorch_reads_what_is_written(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    serialize.save(path, {"a": Tensor([1.5, 2.0]).cast(dtypes.bfloat16)})
    assert torch.equal(load_file(path)["a"], torch.tensor([1.5, 2.0], dtype=torch.bfloat16))


def test_damaged_files_are_named(path):
    serialize.save(path, {"a": Tensor.ones(100)})
    content = path.read_bytes()
    for damage in (content[:-1], content[:20], b"", b"not a checkpoint at all", content + b"x"):
        path.write_bytes(damage)
        for read in (serialize.load, serialize.read_metadata):
            with pytest.raises(DataError, match="model.safetensors.*\n.*copy it again"):
                read(path)


def test_a_changed_bit_is_noticed(path):
    serialize.save(path, {"a": Tensor([1.0, 2.0])}, {"of": "two"})
    content = bytearray(path.read_bytes())
    for place in (content.index(b'"two"') + 1, len(content) - 1):  # in the metadata, and the sign of 2
        damaged = content.copy()
        damaged[place] ^= 0x80 if place == len(content) - 1 else 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="model.safetensors: .*checksum"):
            serialize.load(path)


def test_files_of_others_have_no_checksum(path):
    path.write_bytes(encode({"a": np.arange(3)}, metadata={"by": "hand"}))
    assert serialize.load(path)["a"].tolist() == [0, 1, 2] and serialize.read_metadata(path) == {"by": "hand"}


def test_what_is_no_file_of_weights_is_called_by_its_name(path):
    path.write_bytes(pickle.dumps({"a": np.arange(3)}))
    with pytest.raises(DataError, match="got a pickle of something else\n.*it was not run"):
        serialize.load(path)
    with pytest.raises(DataError, match="got a folder"):
        serialize.load(path.parent)


def test_missing_files_are_named(path):
    with pytest.raises(DataError, match="model.safetensors: expected a safetensors file, got no such file"):
        serialize.load(path)


def test_writing_fails_without_touching_what_is_there(path, monkeypatch):
    serialize.save(path, {"a": Tensor([1.0])})

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="(?s)model.safetensors.*No space left.*is intact"):
            serialize.save(path, {"a": Tensor([2.0])})
        with pytest.raises(DataError, match="has room$"):  # there is no earlier one
            serialize.save(path.with_name("new"), {"a": Tensor([2.0])})
    assert serialize.load(path)["a"].tolist() == [1.0]
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_a_folder_that_does_not_exist(path):
    with pytest.raises(DataError, match="nowhere"):
        serialize.save(path.parent / "nowhere" / "w.safetensors", {"a": Tensor([1.0])})


def test_metadata_must_be_strings(path):
    with pytest.raises(ArgumentTypeError, match="json"):
        serialize.save(path, {"a": Tensor([1.0])}, {"epochs": 3})
    assert not path.exists()


def test_the_path_comes_first(path):
    with pytest.raises(ArgumentTypeError, match="the path comes first"):
        serialize.save({"a": Tensor([1.0])}, path)
    assert not path.exists()


def test_0d_tensors_stay_0d(tmp_path):
    serialize.save(tmp_path / "w.safetensors", {"count": Tensor(3), "scale": np.float32(0.5)})
    found = serialize.load(tmp_path / "w.safetensors")
    assert {name: (t.shape, t.item()) for name, t in found.items()} == {"count": ((), 3), "scale": ((), 0.5)}
