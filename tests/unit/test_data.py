"""Data: the IDX reader on good and bad files, where MNIST and its like are looked for, downloads, the sample."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib
import struct
from pathlib import Path

import numpy as np
import pytest

from minigrad import config
from minigrad.errors import DataError
from minigrad.nn.data import fashion_mnist, mnist, read_idx

MODULE = importlib.import_module("minigrad.nn.data.mnist")  # the attribute of the package is the function
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
DATA = config.data_directory()


def idx_bytes(array: np.ndarray) -> bytes:
    code = IDX_CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


# The reader


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("dtype", IDX_CODES)
@pytest.mark.parametrize("shape", [(3,), (0,), (2, 3, 4)])
def test_reads_every_type_gzipped_or_not_whatever_the_name(tmp_path, dtype, shape, compress):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path = tmp_path / "file.bin"
    path.write_bytes(compress(idx_bytes(array)))
    got = read_idx(path)
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype.newbyteorder(">")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_file_cut_anywhere_is_an_error_that_names_it(tmp_path, compress):
    whole = compress(idx_bytes(np.arange(40, dtype="u1").reshape(2, 20)))
    path = tmp_path / "cut"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="cut") as error:
            read_idx(path)
        assert "hint:" in str(error.value)
        assert path.read_bytes() == whole[:size]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_flipped_bit_never_gives_wrong_data_where_a_checksum_is_known(tmp_path, compress):
    array = np.arange(40, dtype="u1")
    content = idx_bytes(array)
    checksum, whole = hashlib.sha256(content).hexdigest(), bytearray(compress(content))
    path = tmp_path / "flipped"
    for position in range(len(whole)):
        whole[position] ^= 4
        path.write_bytes(whole)
        try:
            np.testing.assert_array_equal(read_idx(path, checksum), array)  # gzip's header has bytes without a meaning
        except DataError as error:
            assert "flipped" in str(error)
        whole[position] ^= 4


@pytest.mark.parametrize("content", [b"<html>404</html>", idx_bytes(np.zeros(3, "u1")) + b"x", b"\0\0\x07\x01\0\0\0\0"])
def test_what_is_not_idx_is_refused(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match="other"):
        read_idx(path)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(DataError, match="readable"):
            read_idx(path)


# Where MNIST is looked for. A tiny data set with the names and the layout of MNIST stands for it.


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The files of a tiny MNIST; nothing else is configured, and the only mirror does not answer."""
    images = [np.arange(n * 16, dtype="u1").reshape(n, 4, 4) for n in (6, 3)]
    labels = [np.arange(n, dtype="u1") for n in (6, 3)]
    arrays = (images[0], labels[0], images[1], labels[1])
    files = {name: idx_bytes(array) for name, array in zip(MODULE.DIGITS.sha256, arrays)}
    set_origin(monkeypatch, sha256={name: hashlib.sha256(files[name]).hexdigest() for name in files})
    set_origin(monkeypatch, mirrors=(f"file://{tmp_path}/nowhere/",))
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIGRAD_DATA", raising=False)
    return files


def set_origin(monkeypatch, **changes):
    """Have both data sets come from elsewhere."""
    for name in ("DIGITS", "FASHION"):
        monkeypatch.setattr(MODULE, name, dataclasses.replace(getattr(MODULE, name), **changes))


def put(folder: Path, files: dict[str, bytes], compress=gzip.compress) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if compress is gzip.compress else name)).write_bytes(compress(content))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_looks_in_the_argument_then_the_environment_then_the_cache(tiny, tmp_path, monkeypatch):
    cache = put(tmp_path / "cache/data/mnist", tiny)
    assert mnist().source == str(cache)
    named = put(tmp_path / "named/mnist", tiny, bytes)
    monkeypatch.setenv("MINIGRAD_DATA", str(named.parent))
    assert mnist().source == str(named)
    given_folder = put(tmp_path / "given", tiny)
    digits = mnist(given_folder)
    assert digits.source == str(given_folder)
    assert not digits.is_sample
    assert digits.train_images.shape == (6, 1, 4, 4) and digits.test_labels.tolist() == [0, 1, 2]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert mnist(empty).source == str(named)


@pytest.mark.parametrize(
    ("load", "folder"), [(mnist, "MNIST/raw"), (fashion_mnist, "FashionMNIST/raw"), (fashion_mnist, "fashion-mnist")]
)
def test_folders_of_other_libraries_are_found(tiny, tmp_path, load, folder):
    place = put(tmp_path / "data" / folder, tiny)
    found = load(tmp_path / "data")
    assert found.source == str(place) and len(found.classes) == 10
    images, labels = found.train.take(np.array([2, 0]))
    np.testing.assert_array_equal(images, np.arange(96, dtype=np.uint8).reshape(6, 1, 4, 4)[[2, 0]])
    assert labels.dtype == np.int64 and labels.tolist() == [2, 0]
    assert len(found.test) == 3 and "6 + 3 images" in repr(found)


def test_a_data_folder_that_does_not_exist_is_an_error(tiny, tmp_path):
    put(tmp_path / "cache/data/mnist", tiny)
    with pytest.raises(DataError, match="no-such"):
        mnist(tmp_path / "no-such")


def test_a_named_folder_with_only_some_files_is_an_error_that_names_the_missing(tiny, tmp_path):
    some = put(tmp_path / "some", dict(list(tiny.items())[:3]))
    with pytest.raises(DataError, match="put t10k-labels-idx1-ubyte beside"):
        mnist(some)


def test_files_of_another_data_set_under_the_same_names_are_refused_and_kept(tiny, tmp_path):
    other = {name: content[:-1] + b"\xff" for name, content in tiny.items()}
    folder = put(tmp_path / "fashion", other)
    before = contents(folder)
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz.*SHA-256"):
        mnist(folder)
    assert contents(folder) == before


def test_downloads_what_is_missing_from_the_first_intact_mirror(tiny, tmp_path, monkeypatch, capsys):
    good = put(tmp_path / "good", tiny)
    bad = put(tmp_path / "bad", tiny)
    (bad / "t10k-images-idx3-ubyte.gz").write_bytes(b"<html>not here</html>")
    cache = put(tmp_path / "cache/data/mnist", dict(list(tiny.items())[:1]), bytes)
    set_origin(monkeypatch, mirrors=(f"file://{tmp_path}/nowhere/", f"file://{bad}/", f"file://{good}/"))
    digits = mnist()
    assert digits.source == str(cache) and not digits.is_sample
    assert "downloading" in capsys.readouterr().err
    assert len(contents(cache)) == 4, "no temporary file stays"
    set_origin(monkeypatch, mirrors=())
    assert mnist().source == str(cache)
    assert capsys.readouterr().err == ""


def test_a_damaged_file_in_the_cache_is_an_error_and_not_overwritten(tiny, tmp_path, monkeypatch):
    set_origin(monkeypatch, mirrors=(f"file://{put(tmp_path / 'good', tiny)}/",))
    cache = put(tmp_path / "cache/data/mnist", tiny)
    damaged = cache / "train-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    before = contents(cache)
    with pytest.raises(DataError, match="train-labels-idx1-ubyte.gz"):
        mnist()
    assert contents(cache) == before


@pytest.mark.parametrize("download", [True, False])
def test_without_data_and_network_the_sample_is_used_with_a_notice(tiny, tmp_path, monkeypatch, capsys, download):
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path / "other"))
    assert mnist(download=download).is_sample
    notice = capsys.readouterr().err
    assert str(tmp_path / "other") in notice and str(tmp_path / "cache") in notice
    assert ("not tried" in notice) is not download
    assert len(notice.splitlines()) == 3 + download
    assert contents(tmp_path) == {}


def test_a_cache_that_cannot_be_written_leads_to_the_sample(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert mnist().is_sample
    assert str(tmp_path / "cache") in capsys.readouterr().err


def test_a_folder_that_is_named_and_not_there_is_an_error(tiny, tmp_path, monkeypatch):
    given = put(tmp_path / "given", tiny)
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path / "typo"))
    with pytest.raises(DataError, match="MINIGRAD_DATA: .*typo, where there is no folder"):
        mnist()
    assert mnist(given).source == str(given), "what is found before is used"
    with pytest.raises(DataError, match="data: .*slip, where there is no folder"):
        mnist(tmp_path / "slip")


def test_without_fashion_mnist_and_network_the_error_says_what_to_do(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path / "other"))
    put(tmp_path / "cache/data/mnist", tiny)  # the other one
    with pytest.raises(DataError) as error:
        fashion_mnist()
    for text in (
        str(tmp_path / "other"),
        str(tmp_path / "cache"),
        "nowhere",
        "hint: put train-images-idx3-ubyte.gz",
    ):
        assert text in str(error.value)
    with pytest.raises(DataError, match="not tried"):
        fashion_mnist(download=False)
    set_origin(monkeypatch, mirrors=(f"file://{put(tmp_path / 'good', tiny)}/",))
    assert fashion_mnist().source == str(tmp_path / "cache/data/fashion-mnist")
    assert "downloading Fashion-MNIST (31 MB)" in capsys.readouterr().err


# The real digits


def test_the_sample_is_small_balanced_and_real():
    digits = MODULE.sample()
    assert digits.train_images.shape == (3000, 1, 28, 28) and digits.test_images.shape == (1000, 1, 28, 28)
    assert np.bincount(digits.train_labels).tolist() == [300] * 10
    assert np.bincount(digits.test_labels).tolist() == [100] * 10
    assert 30 < digits.train_images.mean() < 36 and digits.train_images.dtype == np.uint8
    assert sum(len(content) for content in contents(MODULE._SAMPLE).values()) < 700_000


@pytest.mark.skipif(DATA is None or not (DATA / "mnist").is_dir(), reason="MINIGRAD_DATA names no folder with mnist/")
def test_all_of_mnist_and_the_sample_is_its_beginning():
    digits, part = mnist(download=False), MODULE.sample()
    assert not digits.is_sample
    assert digits.train_images.shape == (60000, 1, 28, 28) and digits.test_images.shape == (10000, 1, 28, 28)
    assert digits.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    for images, labels, few, per_class in (
        (digits.train_images, digits.train_labels, part.train_images, 300),
        (digits.test_images, digits.test_labels, part.test_images, 100),
    ):
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == digit)[:per_class] for digit in range(10)]))
        np.testing.assert_array_equal(images[chosen], few)
