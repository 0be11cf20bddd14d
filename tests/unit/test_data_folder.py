"""Image folders: classes, formats, colours, sizes, broken files, the cache, and the loader's threads above them."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from minigrad.errors import ArgumentError, DataError, MissingExtra, ShapeError
from minigrad.nn.data import DataLoader, ImageFolder, Subset, image_folder, read_image

Image = pytest.importorskip("PIL.Image")


def pixels(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)[: 2 + (channels > 1)], np.uint8)


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three classes; the second has a folder inside, and files that no image is."""
    for number, name in enumerate(["cat/2.png", "cat/10.png", "dog/new/x.PNG", "eel/a.bmp", "eel/b.png"]):
        write(tmp_path / "pets" / name, pixels(5, 7, seed=number))
    (tmp_path / "pets/dog/.hidden").write_text("not an image")
    (tmp_path / "pets/.cache").mkdir()
    (tmp_path / "pets/notes.txt").write_text("beside the classes")
    return tmp_path / "pets"


def test_the_sub_folders_are_the_classes(folder):
    data = ImageFolder(folder)
    assert data.classes == ("cat", "dog", "eel") and data.class_to_idx == {"cat": 0, "dog": 1, "eel": 2}
    names = [str(path.relative_to(folder)) for path, _ in data.samples]
    assert names == ["cat/10.png", "cat/2.png", "dog/new/x.PNG", "eel/a.bmp", "eel/b.png"]
    assert data.targets.tolist() == [0, 0, 1, 2, 2] == [data[i][1] for i in range(len(data))]
    for index, seed in enumerate([1, 0, 2, 3, 4]):
        image, _ = data[index]
        assert image.dtype == np.uint8 and image.flags.c_contiguous
        np.testing.assert_array_equal(image, pixels(5, 7, seed=seed).transpose(2, 0, 1))


def test_a_relative_path_is_looked_for_in_the_data_folder(folder, monkeypatch):
    with pytest.raises(DataError, match="MINIGRAD_DATA"):
        ImageFolder("pets")
    monkeypatch.setenv("MINIGRAD_DATA", str(folder.parent))
    assert len(ImageFolder("pets")) == 5
    with pytest.raises(DataError, match="other"):
        ImageFolder("other")


def test_the_loader_decodes_in_its_threads(folder, monkeypatch):
    names = set()

    def spying(path, **options):
        names.add(threading.current_thread().name)
        return read_image(path, **options)

    monkeypatch.setattr(image_folder, "read_image", spying)
    data = ImageFolder(folder, size=(4, 6))
    batches = [(x.numpy(), y.tolist()) for x, y in DataLoader(Subset(data, [4, 0, 2]), batch_size=2, num_workers=2)]
    assert [x.shape for x, _ in batches] == [(2, 3, 4, 6), (1, 3, 4, 6)]
    assert [y for _, y in batches] == [[2, 0], [1]]
    assert names and all(name.startswith("minigrad-loader") for name in names)
    np.testing.assert_array_equal(batches[1][0][0], data[2][0])


def test_images_of_different_sizes_need_a_size(tmp_path):
    write(tmp_path / "a/1.png", pixels(4, 5))
    write(tmp_path / "a/2.png", pixels(6, 5))
    with pytest.raises(ShapeError, match=r"\(3, 4, 5\) and \(3, 6, 5\)"):
        next(iter(DataLoader(ImageFolder(tmp_path), batch_size=2)))
    assert next(iter(DataLoader(ImageFolder(tmp_path, size=3), batch_size=2)))[0].shape == (2, 3, 3, 3)


# Single images


def test_colours_are_converted_as_asked(tmp_path):
    colour, grey = pixels(5, 7), pixels(5, 7, 1)
    path = write(tmp_path / "c.png", colour)
    expected = colour @ np.array([299, 587, 114]) / 1000
    found = read_image(path, mode="L")
    assert found.shape == (1, 5, 7) and abs(found[0] - expected).max() <= 1  # Pillow rounds its weights
    path = write(tmp_path / "g.png", grey)
    np.testing.assert_array_equal(read_image(path), np.stack([grey] * 3))
    np.testing.assert_array_equal(read_image(path, mode="L"), grey[None])


def test_depths_palettes_transparency_and_orientation_are_understood(tmp_path):
    deep = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800
    np.testing.assert_array_equal(read_image(write(tmp_path / "deep.png", deep), mode="L")[0], deep >> 8)
    colour = pixels(5, 7, 4)
    np.testing.assert_array_equal(read_image(write(tmp_path / "alpha.png", colour)), colour[..., :3].transpose(2, 0, 1))
    palette = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7)).convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(200)))
    assert read_image(tmp_path / "palette.png").shape == (3, 5, 7)
    bits = Image.fromarray(pixels(5, 7, 1)).convert("1")
    bits.save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png", mode="L")).tolist()) == {0, 255}
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned: the first row is the right side
    flat = pixels(5, 7)
    write(tmp_path / "turned.png", flat, exif=turned)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(flat, -1).transpose(2, 0, 1))
    Image.fromarray(np.zeros((5, 7), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match="float.tiff.*8 or 16 bits"):
        read_image(tmp_path / "float.tiff")


@pytest.mark.parametrize(
    ("size", "shape"), [(4, (3, 4, 4)), ((4, 6), (3, 4, 6)), ((9, 3), (3, 9, 3)), (None, (3, 6, 12))]
)
def test_an_image_is_scaled_to_cover_the_size_and_its_middle_cut_out(tmp_path, size, shape):
    ramp = np.broadcast_to(np.arange(12, dtype=np.uint8)[None, :, None] * 20, (6, 12, 3))
    found = read_image(write(tmp_path / "ramp.png", np.ascontiguousarray(ramp)), size=size)
    assert found.shape == shape
    mean = found[0].mean(0)
    assert abs(mean.mean() - 110) <= 1, "the middle"
    assert (found == found[:, :1]).all() and (np.diff(mean) > 0).all()
    if size == 4:  # 4 of 8 columns
        assert abs(mean - [65, 95, 125, 155]).max() <= 1


def test_a_transform_sees_the_pillow_image_and_may_give_an_array(tmp_path):
    path = write(tmp_path / "a/x.png", pixels(5, 7))
    flipped = ImageFolder(tmp_path, lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM))[0][0]
    np.testing.assert_array_equal(flipped, read_image(path)[:, ::-1])
    given = ImageFolder(tmp_path, lambda image: np.asarray(image, np.float32), size=3)[0][0]
    assert given.shape == (5, 7, 3) and given.dtype == np.float32


@pytest.mark.parametrize("options", [{"mode": "RGBA"}, {"size": 0}, {"size": (1, 2, 3)}])
def test_options_that_make_no_sense_are_refused_at_once(folder, options):
    with pytest.raises(ArgumentError, match="read_image"):
        ImageFolder(folder, **options)
    with pytest.raises(ArgumentError, match="read_image"):
        read_image(folder / "cat/2.png", **options)


# What may be wrong with a folder


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff"])
def test_a_damaged_image_is_an_error_that_names_it_or_is_skipped(tmp_path, suffix):
    write(tmp_path / "a/good.png", pixels(9, 9))
    path = write(tmp_path / f"a/bad.{suffix}", pixels(64, 64))
    whole = path.read_bytes()
    for content in (b"", b"<html>404</html>", whole[: len(whole) // 2], whole[:40]):
        path.write_bytes(content)
        data = ImageFolder(tmp_path)
        with pytest.raises(DataError, match=f"bad.{suffix}.*an intact image"):
            data[0]
        with pytest.raises(DataError, match=f"bad.{suffix}"):
            list(DataLoader(data, batch_size=1))
        some = ImageFolder(tmp_path, skip_broken=True)
        assert [p.name for p, _ in some.samples] == ["good.png"] and some.targets.tolist() == [0]
        ((skipped, reason),) = some.skipped
        assert skipped == path and f"bad.{suffix}" in reason
        assert path.read_bytes() == content


def test_files_that_are_no_images_are_an_error_that_names_them_or_are_skipped(folder):
    (folder / "dog/readme.txt").write_text("about dogs")
    with pytest.raises(DataError, match=r"1 other files: .*readme\.txt"):
        ImageFolder(folder)
    data = ImageFolder(folder, skip_broken=True)
    assert len(data) == 5 and [path.name for path, _ in data.skipped] == ["readme.txt"]


def test_what_is_no_image_file_is_an_error_that_says_why(tmp_path):
    (tmp_path / "text.png").write_text("about dogs")
    for name, message in (
        ("none.png", "expected an image file, got No such file"),
        ("", "expected an image file, got Is a directory"),
        ("text.png", "expected an intact image, got no format that Pillow knows"),
    ):
        with pytest.raises(DataError, match=f"{name}: {message}"):
            read_image(tmp_path / name)


def test_a_file_that_vanished_is_an_error_that_names_it(folder):
    data = ImageFolder(folder)
    data.samples[0][0].unlink()
    with pytest.raises(DataError, match=r"10\.png"):
        data[0]


def test_folders_without_classes_or_with_an_empty_class_are_errors(tmp_path, folder):
    with pytest.raises(DataError, match="a folder for each class"):
        ImageFolder(folder / "cat")
    with pytest.raises(DataError, match="ImageFolder"):
        ImageFolder(folder / "notes.txt")
    (folder / "frog").mkdir()
    with pytest.raises(DataError, match="none in frog"):
        ImageFolder(folder)


@pytest.mark.parametrize(("cache", "times"), [(False, 2), (True, 1)])
def test_the_cache_decodes_each_image_once(folder, monkeypatch, cache, times):
    decoded = []

    def counting(path, **options):
        decoded.append(path.name)
        return read_image(path, **options)

    monkeypatch.setattr(image_folder, "read_image", counting)
    data = ImageFolder(folder, cache=cache)
    first, again = ([data[i][0].tolist() for i in range(5)] for _ in range(2))
    assert first == again
    assert sorted(decoded) == sorted(times * ["2.png", "10.png", "x.PNG", "a.bmp", "b.png"])


def test_without_pillow_the_error_names_the_extra(folder, monkeypatch):
    class NoPillow:
        def find_spec(self, name, path=None, target=None):
            if name == "PIL":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoPillow(), *sys.meta_path])
    with pytest.raises(MissingExtra, match=r"Pillow: expected it to be installed.*\n.*minigrad\[images\]"):
        ImageFolder(folder)
    with pytest.raises(MissingExtra, match=r"Pillow: expected it to be installed.*\n.*minigrad\[images\]"):
        read_image(folder / "cat/2.png")
