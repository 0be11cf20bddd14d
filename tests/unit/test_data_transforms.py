"""Transforms of images: each against a loop over single images and pixels, what they draw, what they refuse."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.data.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    Normalize,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomShift,
    RandomTransform,
    Resize,
    ToFloat,
    apply,
)
from minigrad.nn.data.transforms.resize import boxes, starts

SHAPE = (5, 3, 7, 9)  # N, C, H, W


def images(shape=SHAPE, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 256, shape).astype(np.uint8) if dtype == np.uint8 else rng.random(shape).astype(dtype)


def generator(seed=0):
    return np.random.default_rng(seed)


def window(image, top, left, height, width, fill=0):
    """Pixels of a window that may lie outside, one by one."""
    result = np.full((len(image), height, width), fill, image.dtype)
    for y, x in itertools.product(range(height), range(width)):
        if 0 <= top + y < image.shape[1] and 0 <= left + x < image.shape[2]:
            result[:, y, x] = image[:, top + y, left + x]
    return result


EVERY = [
    CenterCrop((3, 4)),
    ColorJitter(0.5, (0.5, 2), 0.3),
    Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 1)),
    RandomAffine(20, translate=(0.1, 0.2), scale=(0.8, 1.2), shear=10, fill=3),
    RandomCrop((5, 6), padding=2),
    RandomErasing(value=(1, 2, 3)),
    RandomHorizontalFlip(0.3),
    RandomResizedCrop((4, 6)),
    RandomRotation(15),
    RandomShift(2, fill=7),
    Resize((4, 12)),
    ToFloat(),
    Compose([RandomShift(1), ToFloat()]),
]


@pytest.mark.parametrize("transform", EVERY, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_every_transform_keeps_what_it_should(transform, dtype):
    given = images(dtype=dtype)
    before = given.copy()
    first, again, other = (apply(transform, given, generator(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(first, again)
    assert isinstance(transform, RandomTransform) == (not np.array_equal(first, other))
    assert first.shape[:2] == SHAPE[:2]
    if not isinstance(transform, (Normalize, ToFloat, Compose)):
        assert first.dtype == dtype
    elif dtype == np.uint8 or isinstance(transform, Normalize):
        assert first.dtype == np.float32
    assert apply(transform, given[:0], generator()).shape == (0, *first.shape[1:])


@pytest.mark.parametrize("transform", EVERY, ids=lambda t: type(t).__name__)
def test_every_transform_says_what_it_is_and_refuses_other_shapes(transform):
    assert repr(eval(repr(transform))) == repr(transform)
    for shape in ((3, 7, 9), (5, 7, 9, 3, 1), ()):
        with pytest.raises(ShapeError, match=r"\(N, C, H, W\)"):
            apply(transform, np.zeros(shape, np.uint8), generator())
    if isinstance(transform, RandomTransform):
        with pytest.raises(ArgumentError, match="default_rng"):
            apply(transform, images(), None)


# Crops, shifts, flips


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_shift_is_a_window_beyond_the_edge_and_every_one_occurs(dtype):
    given = images((400, 2, 4, 5), dtype)
    counts = np.zeros((5, 3), int)
    for image, shifted in zip(given, RandomShift(1, fill=2)(given, generator())):
        (which,) = [
            (dy, dx)
            for dy, dx in itertools.product((-1, 0, 1), repeat=2)
            if np.array_equal(shifted, window(image, dy, dx, 4, 5, fill=2))
        ]
        counts[which] += 1
    used = counts[[-1, 0, 1]][:, [-1, 0, 1]]
    assert counts.sum() == used.sum() == 400
    assert abs(used - 400 / 9).max() < 5 * (400 / 9) ** 0.5  # five standard deviations


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_a_crop_is_one_of_the_windows_and_every_one_occurs(mode):
    given = images((600, 2, 4, 5))
    sides = np.pad(given, ((0, 0), (0, 0), (1, 1), (1, 1)), mode)
    places = list(itertools.product(range(6 - 3 + 1), range(7 - 4 + 1)))
    counts = dict.fromkeys(places, 0)
    for whole, cropped in zip(sides, RandomCrop((3, 4), padding=1, padding_mode=mode)(given, generator())):
        (place,) = [at for at in places if np.array_equal(cropped, window(whole, *at, 3, 4))]
        counts[place] += 1
    expected = 600 / len(places)
    assert max(abs(n - expected) for n in counts.values()) < 5 * expected**0.5


def test_a_crop_of_the_whole_changes_nothing_and_a_larger_one_is_refused():
    given = images()
    np.testing.assert_array_equal(RandomCrop((7, 9))(given, generator()), given)
    np.testing.assert_array_equal(RandomShift(0)(given, generator()), given)
    for size, padding in (((8, 9), 0), ((7, 10), 0), (12, 2)):
        with pytest.raises(ShapeError, match="RandomCrop"):
            RandomCrop(size, padding)(given, generator())


@pytest.mark.parametrize(("size", "top", "left"), [((3, 4), 2, 2), ((4, 4), 2, 2), ((7, 9), 0, 0), (1, 3, 4)])
def test_the_middle_lies_where_pytorch_puts_it(size, top, left):
    height, width = (size, size) if isinstance(size, int) else size
    for image, cropped in zip(images(), CenterCrop(size)(images())):
        np.testing.assert_array_equal(cropped, window(image, top, left, height, width))
    with pytest.raises(ShapeError, match="CenterCrop"):
        CenterCrop((8, 4))(images())


def test_as_many_images_are_flipped_as_was_asked():
    given = images((500, 1, 2, 3))
    for p in (0.0, 0.3, 1.0):
        result = RandomHorizontalFlip(p)(given, generator())
        flipped = 0
        for image, found in zip(given, result):
            mirrored = np.stack([image[:, :, x] for x in (2, 1, 0)], 2)
            assert np.array_equal(found, image) or np.array_equal(found, mirrored)
            flipped += not np.array_equal(found, image)
        assert abs(flipped - 500 * p) <= 5 * (500 * p * (1 - p)) ** 0.5


# Values


def test_bytes_become_numbers_from_0_to_1():
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(ToFloat()(every).reshape(-1), np.float32(np.arange(256)) / np.float32(255))
    floats = images(dtype=np.float32)
    np.testing.assert_array_equal(ToFloat()(floats), floats)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_normalised_is_minus_mean_over_deviation_of_each_channel(dtype):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    given = images(dtype=dtype)
    found = Normalize(mean, std)(given)
    for n, c, y, x in itertools.product(*map(range, SHAPE)):
        value = given[n, c, y, x] / (255 if dtype == np.uint8 else 1)
        expected = (value - mean[c]) / std[c]
        assert abs(found[n, c, y, x] - expected) < 4e-7 * (value + mean[c]) / std[c]  # three roundings, each 2^-24
    grey = given[:, :1]
    np.testing.assert_array_equal(Normalize(0.4, 0.2)(given)[:, :1], Normalize([0.4], [0.2])(grey))
    with pytest.raises(ShapeError, match="3 channels"):
        Normalize(mean, std)(grey)


def jittered(image, kind, factor, top):
    """One image, pixel by pixel, in float64."""
    image = image.astype(np.float64)
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2] if len(image) == 3 else image[0]
    result = np.empty_like(image)
    for c, y, x in itertools.product(*map(range, image.shape)):
        center = {"brightness": 0, "contrast": grey.mean(), "saturation": grey[y, x]}[kind]
        result[c, y, x] = center + factor * (image[c, y, x] - center)
    return result.clip(0, top)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.7])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.float32, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_by_their_factor(kind, factor, dtype, top, channels):
    given = images((2, channels, 3, 4), dtype)
    found = ColorJitter(**{kind: (factor, factor)})(given, generator())
    for image, result in zip(given, found):
        expected = jittered(image, kind, factor, top)
        tolerance = 0.501 if dtype == np.uint8 else 2e-6  # rounding to a byte; some roundings of float32
        assert abs(result.astype(np.float64) - expected).max() <= tolerance


def test_factors_are_drawn_for_each_image_and_the_order_for_each_batch():
    given = np.full((1000, 3, 1, 1), 100, np.uint8)
    found = ColorJitter(brightness=0.5)(given, generator())[:, 0, 0, 0]
    assert 50 <= found.min() < 55 and 145 < found.max() <= 150 and len(set(found.tolist())) > 90
    given = images((1, 3, 2, 3))
    orders = {ColorJitter((1.5, 1.5), (0.5, 0.5), (2, 2))(given, generator(seed)).tobytes() for seed in range(60)}
    expected = set()
    for order in itertools.permutations([("brightness", 1.5), ("contrast", 0.5), ("saturation", 2.0)]):
        image = given[0].astype(np.float64)
        for kind, factor in order:
            image = jittered(image, kind, factor, 255)
        expected.add(np.floor(image + 0.5).astype(np.uint8).tobytes())
    assert orders == expected
    assert ColorJitter()(given, generator()).tolist() == given.tolist()
    with pytest.raises(ShapeError, match="1 or 3"):
        ColorJitter(1)(images((1, 2, 3, 4)), generator())


def test_an_erased_rectangle_has_the_area_and_the_shape_that_were_asked():
    given = images((400, 3, 20, 30))
    transform = RandomErasing(p=0.7, scale=(0.05, 0.2), ratio=(0.5, 2), value=(0, 0, 0))
    result, places = transform(given, generator()), set()
    erased = 0
    for image, found in zip(given, result):
        rows, columns = (np.flatnonzero((found == 0).any(axis)) for axis in ((0, 2), (0, 1)))
        if not len(rows):
            np.testing.assert_array_equal(found, image)
            continue
        erased += 1
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        expected = image.copy()
        for y, x in itertools.product(range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1)):
            expected[:, y, x] = 0
        np.testing.assert_array_equal(found, expected)
        # Sides are rounded to whole pixels: by up to half a pixel each.
        assert (height - 0.5) * (width - 0.5) <= 0.2 * 600 and 0.05 * 600 <= (height + 0.5) * (width + 0.5)
        assert (height - 0.5) / (width + 0.5) <= 2 and 0.5 <= (height + 0.5) / (width - 0.5)
        places.add((rows[0], columns[0]))
    assert abs(erased - 280) <= 5 * (400 * 0.7 * 0.3) ** 0.5
    assert {y for y, _ in places} >= set(range(12)) and {x for _, x in places} >= set(range(20))
    colours = RandomErasing(1, (0.3, 0.3), (1, 1), value=(7, 8, 9))(np.zeros((1, 3, 10, 10), np.uint8), generator())
    assert [set(channel.reshape(-1).tolist()) for channel in colours[0]] == [{0, 7}, {0, 8}, {0, 9}]
    with pytest.raises(ShapeError, match="2 channels"):
        RandomErasing(value=(1, 2))(given, generator())


# Sizes


def resized(image, top, left, height, width, size):
    """A part of one image, scaled to ``size``: for each pixel, the weighted mean by the triangle around its centre."""
    part = image[:, top : top + height, left : left + width].astype(np.float64)
    result = np.empty((len(image), *size))
    for y, x in itertools.product(*map(range, size)):
        weights = np.ones((height, width))
        for axis, at, length, wanted in ((0, y, height, size[0]), (1, x, width, size[1])):
            step = length / wanted
            line = [max(0, 1 - abs(i - ((at + 0.5) * step - 0.5)) / max(step, 1)) for i in range(length)]
            weights *= np.expand_dims(line, 1 - axis)
        result[:, y, x] = (part * weights).sum((1, 2)) / weights.sum()
    return result


def close(found, expected):
    """Equal but for rounding to a byte, or that of float32."""
    assert found.shape == expected.shape
    assert abs(found - expected).max() <= (0.501 if found.dtype == np.uint8 else 1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(7, 9), (3, 4), (14, 11), (1, 1), (2, 20)])
def test_resizing_averages_over_the_pixels_that_become_one(size, dtype):
    given = images(dtype=dtype)
    for image, found in zip(given, Resize(size)(given)):
        close(found, resized(image, 0, 0, 7, 9, size))


def test_one_number_is_the_shorter_side():
    assert Resize(14)(images()).shape[2:] == (14, 18)
    assert Resize(4)(images((1, 1, 9, 7))).shape[2:] == (5, 4)
    assert Resize(7)(images()).shape[2:] == (7, 9)
    for wrong in (0, (3, 0), (1, 2, 3), -1):
        with pytest.raises(ArgumentError, match="Resize"):
            Resize(wrong)


@pytest.mark.parametrize("size", [(4, 6), (9, 5)])
def test_pillow_resizes_the_same(size):
    image_module = pytest.importorskip("PIL.Image")
    given = images((3, 3, 13, 11))
    for image, found in zip(given, Resize(size)(given)):
        theirs = image_module.fromarray(image.transpose(1, 2, 0)).resize(size[::-1], image_module.Resampling.BILINEAR)
        expected = np.asarray(theirs).transpose(2, 0, 1).astype(int)
        assert abs(found - expected).max() <= 1  # theirs rounds to bytes after each of the two axes


def test_rectangles_have_the_area_and_the_shape_that_were_asked():
    wide, tall, found = boxes(generator(), 2000, (50, 40), 2000, (0.1, 0.6), (0.5, 2))
    assert found.all() and 0 < wide.min() and wide.max() <= 50 and 0 < tall.min() and tall.max() <= 40
    # Sides are rounded to whole pixels, by up to half a pixel each.
    assert ((wide - 0.5) * (tall - 0.5) <= 1200).all() and ((wide + 0.5) * (tall + 0.5) >= 200).all()
    assert ((wide - 0.5) / (tall + 0.5) <= 2).all() and ((wide + 0.5) / (tall - 0.5) >= 0.5).all()
    areas, ratios = np.sort(wide * tall), np.log(np.sort(wide / tall))
    assert abs(areas[[500, 1000]] - [440, 680]).max() < 60  # uniform, but for the largest, which often do not fit
    assert abs(np.exp(ratios[[500, 1000]]) - [0.5**0.5, 1]).max() < 0.1
    free = starts(generator(), np.tile([0, 1, 4], 1000))
    for rest, most in enumerate((0, 1, 4)):
        assert abs(np.bincount(free[rest::3], minlength=most + 1) - 1000 / (most + 1)).max() < 5 * 1000**0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_random_part_is_cut_out_and_resized(dtype):
    given = images((40, 2, 8, 10), dtype)
    found = RandomResizedCrop((3, 5), scale=(0.2, 0.9), ratio=(0.5, 2))(given, generator(3))
    rng = generator(3)
    wide, tall, _ = boxes(rng, 40, (10, 8), 80, (0.2, 0.9), (0.5, 2))
    top, left = starts(rng, 8 - tall), starts(rng, 10 - wide)
    assert len(set(zip(top, left))) > 10
    for image, result, *part in zip(given, found, top, left, tall, wide):
        close(result, resized(image, *part, (3, 5)))


def test_where_no_part_fits_it_is_the_largest_in_the_middle():
    given = images((2, 1, 4, 20))
    found = RandomResizedCrop((4, 8), scale=(1, 1), ratio=(1, 2))(given, generator())
    np.testing.assert_array_equal(found, given[:, :, :, 6:14])
    tall = given.transpose(0, 1, 3, 2)
    found = RandomResizedCrop((4, 4), scale=(1, 1), ratio=(1, 2))(tall, generator())
    np.testing.assert_array_equal(found, tall[:, :, 8:12])


# Affine maps


def mapped(image, degrees=0.0, right=0.0, down=0.0, factor=1.0, lean=0.0, fill=0.0):
    """One image, pixel by pixel: the source of each by complex numbers, with y upwards; clockwise."""
    c, h, w = image.shape
    result = np.empty(image.shape)

    def pixel(channel, y, x):
        return float(image[channel, y, x]) if 0 <= y < h and 0 <= x < w else fill

    for k, y, x in itertools.product(range(c), range(h), range(w)):
        at = complex(x - (w - 1) / 2 - right, -(y - (h - 1) / 2 - down))
        source = at / factor * complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
        sy = -source.imag
        sx = source.real + math.tan(math.radians(lean)) * sy
        sy, sx = sy + (h - 1) / 2, sx + (w - 1) / 2
        y0, x0 = math.floor(sy), math.floor(sx)
        result[k, y, x] = sum(
            (1 - abs(sy - j)) * (1 - abs(sx - i)) * pixel(k, j, i) for j in (y0, y0 + 1) for i in (x0, x0 + 1)
        )
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("fill", [0, 1])
@pytest.mark.parametrize(
    ("degrees", "factor", "lean"), [(0, 1, 0), (30, 1, 0), (-100, 1.5, 0), (10, 0.7, 20), (0, 4, -45)]
)
def test_an_affine_map_takes_each_pixel_from_its_source(degrees, factor, lean, fill, dtype):
    given = images((2, 2, 6, 9), dtype)
    transform = RandomAffine((degrees, degrees), scale=(factor, factor), shear=(lean, lean), fill=fill)
    for image, found in zip(given, transform(given, generator())):
        # Weights in float32, of coordinates up to 9: errors of 1e-6 times the values.
        expected = mapped(image, degrees, factor=factor, lean=lean, fill=fill)
        assert abs(found - expected).max() <= (0.51 if dtype == np.uint8 else 1e-5)


def test_right_angles_turn_counter_clockwise():
    given = images((2, 3, 6, 6))
    for turns in range(4):
        found = RandomRotation((90 * turns, 90 * turns))(given, generator())
        np.testing.assert_array_equal(found, np.rot90(given, turns, axes=(2, 3)))


def spots(row, column, h, w):
    """Images with one bright pixel."""
    result = np.zeros((500, 1, h, w), np.float32)
    result[:, :, row, column] = 1
    return result


def positions(found):
    """Where the bright pixel went, from the middle, with y upwards."""
    _, _, h, w = found.shape
    y, x = (h - 1) / 2 - np.arange(h), np.arange(w) - (w - 1) / 2
    return (found[:, 0].sum(1) * x).sum(1), (found[:, 0].sum(2) * y).sum(1)


def test_shifts_and_angles_are_uniform():
    right, up = positions(RandomAffine(0, translate=(0.25, 0.4))(spots(10, 15, 21, 31), generator()))
    for found, most in ((right, 0.25 * 31), (up, 0.4 * 21)):
        assert most * 0.95 < found.max() < most + 1e-3 and most * 0.95 < -found.min() < most + 1e-3
        assert abs(found.mean()) < 5 * most / 3**0.5 / 500**0.5  # five standard deviations
    assert abs(np.corrcoef(up, right)[0, 1]) < 5 / 500**0.5
    right, up = positions(RandomRotation(45)(spots(10, 18, 21, 21), generator()))
    angles = np.degrees(np.arctan2(up, right))
    assert -45.1 < angles.min() < -43 and 43 < angles.max() < 45.1
    assert abs(angles.mean()) < 5 * 45 / 3**0.5 / 500**0.5


# Arguments


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomShift(-1),
        lambda: RandomCrop(0),
        lambda: RandomCrop((3, 4, 5)),
        lambda: RandomCrop(3, padding=-1),
        lambda: RandomCrop(3, padding_mode="wrap"),
        lambda: CenterCrop(-2),
        lambda: RandomHorizontalFlip(1.5),
        lambda: ColorJitter(brightness=(-1, 2)),
        lambda: ColorJitter(contrast=(2, 1)),
        lambda: Normalize(0.5, 0),
        lambda: Normalize(0.5, (1, math.nan)),
        lambda: RandomErasing(p=-0.1),
        lambda: RandomErasing(scale=(0.5, 1.5)),
        lambda: RandomErasing(ratio=(0, 1)),
        lambda: RandomResizedCrop(5, scale=(0.5, 0.2)),
        lambda: RandomResizedCrop((5, 0)),
        lambda: RandomAffine((1, 2, 3)),
        lambda: RandomAffine(3, translate=(2, 0)),
        lambda: RandomAffine(3, scale=(0, 1)),
        lambda: RandomAffine(3, shear=90),
        lambda: RandomRotation(-3),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(make):
    with pytest.raises(ArgumentError, match="expected"):
        make()


@given(st.integers(0, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10))
def test_any_size_of_image_works(n, c, h, w, seed):
    given = images((n, c, h, w), seed=seed)
    for transform in (
        RandomShift(2),
        RandomAffine(20, (0.3, 0.3), (0.5, 2), 20),
        RandomErasing(),
        RandomResizedCrop(4),
    ):
        found = transform(given, generator(seed))
        assert found.dtype == np.uint8 and len(found) == n
