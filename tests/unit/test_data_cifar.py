"""CIFAR-10 and CIFAR-100: both layouts, folders and archives, other checksums, damage, hostile pickles, downloads."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from minigrad.errors import DataError
from minigrad.nn.data import cifar10, cifar100

MODULE = importlib.import_module("minigrad.nn.data.cifar")
TRAIN, TEST = 10, 4  # images, instead of 50,000 and 10,000
LOADERS = {"CIFAR10": cifar10, "CIFAR100": cifar100}


def records(name):
    """Images and labels of each file: five of two images to train on, or one of ten, and one to test on."""
    rng = np.random.default_rng(0)
    classes, counts = (10, [2] * 5) if name == "CIFAR10" else (100, [TRAIN])
    return [(rng.integers(0, 256, (n, 3, 32, 32), np.uint8), rng.integers(0, classes, n)) for n in (*counts, TEST)]


def binary(name, images, labels):
    coarse = [[7]] if name == "CIFAR100" else []
    return b"".join(
        bytes([*(c for label in coarse for c in label), int(y)]) + x.tobytes() for x, y in zip(images, labels)
    )


def python(name, images, labels):
    """A pickle as Python 2 wrote it: protocol 2, with strings of bytes."""
    entry = b"labels" if name == "CIFAR10" else b"fine_labels"
    data = images.reshape(len(images), -1).tobytes()
    put = lambda text: b"U" + bytes([len(text)]) + text  # noqa: E731
    integer = lambda value: b"J" + struct.pack("<i", value)  # noqa: E731
    minus_one = integer(-1)
    return b"".join([
        b"\x80\x02}q\x01(", put(b"batch_label"), put(b"training batch 1 of 5"),
        put(entry), b"](", *[b"K" + bytes([int(label)]) for label in labels], b"e",
        put(b"data"),
        b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"K\x00\x85", put(b"b"), b"\x87R",
        b"(K\x01", integer(len(images)), integer(3072), b"\x86",
        b"cnumpy\ndtype\n", put(b"u1"), b"K\x00K\x01\x87R(K\x03", put(b"|"), b"NNN", minus_one, minus_one, b"K\x00tb",
        b"\x89T", struct.pack("<i", len(data)), data, b"tb",
        put(b"filenames"), b"](", put(b"a.png"), b"eu.",
    ])  # fmt: skip


def python3(name, images, labels, protocol=2):
    entry = b"labels" if name == "CIFAR10" else b"fine_labels"
    return pickle.dumps({b"data": images.reshape(len(images), -1), entry: labels.tolist()}, protocol=protocol)


WRITERS = {"binary": binary, "python": python}


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def name(request):
    return request.param


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The files of small data sets by name and layout. Their checksums count as those of the originals."""
    monkeypatch.setattr(MODULE, "TRAIN_COUNT", TRAIN)
    monkeypatch.setattr(MODULE, "TEST_COUNT", TEST)
    monkeypatch.setattr(MODULE, "MIRRORS", (f"file://{tmp_path}/nowhere/",))
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIGRAD_DATA", raising=False)
    made = {}
    for name in LOADERS:
        origin, layouts = getattr(MODULE, name), {}
        for layout, write in WRITERS.items():
            files = dict(zip(getattr(origin, layout).md5, (write(name, *r) for r in records(name))))
            md5 = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
            archive = hashlib.md5(tar(getattr(origin, layout).folder, files)).hexdigest()
            layouts[layout] = dataclasses.replace(getattr(origin, layout), md5=md5, archive_md5=archive)
            made[name, layout] = files
        monkeypatch.setattr(MODULE, name, dataclasses.replace(origin, **layouts))
    return made


def tar(folder, files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as out:
        for file, content in {"readme.html": b"<p>", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def put(place: Path, files):
    place.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (place / file).write_bytes(content)
    return place


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check(found, name):
    *train, (test_images, test_labels) = records(name)
    np.testing.assert_array_equal(found.train_images, np.concatenate([images for images, _ in train]))
    np.testing.assert_array_equal(found.train_labels, np.concatenate([labels for _, labels in train]))
    np.testing.assert_array_equal(found.test_images, test_images)
    np.testing.assert_array_equal(found.test_labels, test_labels)
    assert found.train_images.dtype == np.uint8 and found.train_labels.dtype == np.int64
    assert len(found.classes) == len(set(found.classes)) == {"CIFAR10": 10, "CIFAR100": 100}[name]
    assert len(found.mean) == len(found.std) == 3


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("form", ["folder", "files", "archive"])
@pytest.mark.parametrize("place", ["", "own"])
def test_both_layouts_are_read_wherever_they_lie(tiny, tmp_path, name, layout, form, place, capsys):
    origin = getattr(MODULE, name)
    about, files = getattr(origin, layout), tiny[name, layout]
    folder = tmp_path / "data" / (origin.folders[1] if place else "")
    if form == "archive":
        put(folder, {about.archive: tar(about.folder, files)})
    else:
        put(folder / about.folder if form == "folder" else folder, files)
    before = contents(tmp_path)
    found = LOADERS[name](tmp_path / "data")
    check(found, name)
    assert found.source == str(folder)
    assert capsys.readouterr().err == "" and contents(tmp_path) == before


def test_the_environment_and_the_cache_are_searched_after_the_argument(tiny, tmp_path, monkeypatch):
    files = tiny["CIFAR10", "binary"]
    cache = put(tmp_path / "cache/data/cifar10/cifar-10-batches-bin", files).parent
    assert cifar10().source == str(cache)
    named = put(tmp_path / "named/cifar10/cifar-10-batches-bin", files).parent
    monkeypatch.setenv("MINIGRAD_DATA", str(named.parent))
    assert cifar10().source == str(named)
    given = put(tmp_path / "given/cifar-10-batches-bin", files).parent
    assert cifar10(given).source == str(given)
    assert cifar10(given / "cifar-10-batches-bin").source == str(given / "cifar-10-batches-bin")
    with pytest.raises(DataError, match="no-such"):
        cifar10(tmp_path / "no-such")


@pytest.mark.parametrize("layout", WRITERS)
def test_another_checksum_is_told_and_the_data_used(tiny, tmp_path, name, layout, capsys):
    folder = getattr(getattr(MODULE, name), layout).folder
    files = dict(tiny[name, layout])
    last = list(files)[-1]
    images, labels = records(name)[-1]
    files[last] = WRITERS[layout](name, images ^ 1, labels)
    put(tmp_path / "data" / folder, files)
    found = LOADERS[name](tmp_path / "data")
    np.testing.assert_array_equal(found.test_images, images ^ 1)
    notice = capsys.readouterr().err
    assert last in notice and "not the original" in notice and list(files)[0] not in notice


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_python_3_are_read(tiny, tmp_path, name, protocol):
    about = getattr(MODULE, name).python
    files = {file: python3(name, *part, protocol) for file, part in zip(about.md5, records(name))}
    check(LOADERS[name](put(tmp_path / "data" / about.folder, files).parent), name)


@pytest.mark.parametrize("layout", WRITERS)
def test_half_a_data_set_is_an_error_that_names_the_rest(tiny, tmp_path, layout):
    about, files = getattr(MODULE.CIFAR10, layout), tiny["CIFAR10", layout]
    missing = list(files)[3]
    folder = put(tmp_path / "data" / about.folder, {file: files[file] for file in files if file != missing})
    with pytest.raises(DataError, match=f"hint: put {missing} beside them"):
        cifar10(folder.parent)
    archive = put(
        tmp_path / "other", {about.archive: tar(about.folder, {file: files[file] for file in list(files)[:5]})}
    )
    with pytest.raises(DataError, match=f"{about.archive}.*none named {list(files)[5]}"):
        cifar10(archive)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_file_cut_anywhere_is_an_error_that_names_it(tiny, tmp_path, layout):
    about, files = getattr(MODULE.CIFAR10, layout), tiny["CIFAR10", layout]
    folder = put(tmp_path / "data" / about.folder, files)
    file = list(files)[2]
    for size in [*range(0, 400, 7), len(files[file]) // 2, len(files[file]) - 1]:
        (folder / file).write_bytes(files[file][:size])
        with pytest.raises(DataError, match=file) as error:
            cifar10(folder.parent)
        assert "hint:" in str(error.value) and (folder / file).stat().st_size == size


def test_an_archive_cut_anywhere_or_that_is_none_is_an_error_that_names_it(tiny, tmp_path):
    about, files = MODULE.CIFAR10.binary, tiny["CIFAR10", "binary"]
    whole = tar(about.folder, files)
    folder = tmp_path / "data"
    for content in [b"", b"<html>404</html>", *(whole[:size] for size in range(1, len(whole) - 100, 2000))]:
        put(folder, {about.archive: content})
        with pytest.raises(DataError, match="cifar-10-binary.tar.gz"):
            cifar10(folder)


def test_other_numbers_of_images_and_labels_out_of_range_are_refused(tiny, tmp_path):
    files, folder = dict(tiny["CIFAR10", "binary"]), tmp_path / "data/cifar-10-batches-bin"
    put(folder, files | {"test_batch.bin": files["test_batch.bin"][:3073]})
    with pytest.raises(DataError, match="4 images in test_batch.bin, got 1"):
        cifar10(folder.parent)
    put(folder, files | {"data_batch_2.bin": b"\x0a" + files["data_batch_2.bin"][1:]})
    with pytest.raises(DataError, match="data_batch_2.bin.*labels from 0 to 9"):
        cifar10(folder.parent)


class Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (pickle.dumps(Evil()), "posix.system|nt.system"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}, 2), "'f8'"),
        (pickle.dumps({"data": np.array([Evil()]), "labels": [0]}, 2), "'O8'"),
        (pickle.dumps({"labels": [0, 1]}), "KeyError: 'data'"),
        (pickle.dumps([1, 2]), "AttributeError"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}, 2), r"got \(2, 3071\)"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, 2), r"bytes \(1, 3072\)"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, -1]}, 2),
            "labels from 0 to 9, got -1 to 0",
        ),
        (b"\x80\x02}q\x01(U\xff", "a complete pickle"),
    ],
)
def test_a_pickle_that_is_no_batch_is_refused_and_runs_nothing(tiny, tmp_path, monkeypatch, content, text):
    monkeypatch.chdir(tmp_path)
    folder = put(tmp_path / "data/cifar-10-batches-py", tiny["CIFAR10", "python"] | {"data_batch_1": content})
    with pytest.raises(DataError, match=f"(?s)data_batch_1.*({text})"):
        cifar10(folder.parent)
    assert not Path("hacked").exists()


def test_downloads_the_archive_from_the_first_intact_mirror(tiny, tmp_path, monkeypatch, name, capsys):
    origin = getattr(MODULE, name)
    about = origin.binary
    good = put(tmp_path / "good", {about.archive: tar(about.folder, tiny[name, "binary"])})
    bad = put(tmp_path / "bad", {about.archive: b"<html>not here</html>"})
    monkeypatch.setattr(MODULE, "MIRRORS", (f"file://{tmp_path}/nowhere/", f"file://{bad}/", f"file://{good}/"))
    check(LOADERS[name](), name)
    cache = tmp_path / "cache/data" / origin.folders[0]
    assert list(contents(cache)) == [about.archive], "no temporary file stays"
    assert f"downloading {origin.name} ({origin.megabytes} MB)" in capsys.readouterr().err
    monkeypatch.setattr(MODULE, "MIRRORS", ())
    check(LOADERS[name](), name)
    assert capsys.readouterr().err == ""


def test_without_data_and_network_the_error_says_what_to_do(tiny, tmp_path, monkeypatch, name):
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path / "other"))
    with pytest.raises(DataError) as error:
        LOADERS[name]()
    archive = getattr(MODULE, name).binary.archive
    for text in (str(tmp_path / "other"), str(tmp_path / "cache"), "nowhere", f"hint: put {archive} from"):
        assert text in str(error.value)
    with pytest.raises(DataError, match="not tried"):
        LOADERS[name](download=False)
