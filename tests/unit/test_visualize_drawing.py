"""Pixels, figures, and the sections of a report, of networks that are not trained."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from minigrad import nn
from minigrad.errors import ArgumentError, DataError, MissingExtra, ShapeError
from minigrad.nn.visualize import drawing, gallery
from minigrad.nn.visualize.pixels import around_grey, as_image, enlarged, tiles
from minigrad.nn.visualize.report import write_report
from minigrad.nn.visualize.responses import Response
from minigrad.nn.visualize.structure import Window

# Pixels ---------------------------------------------------------------------------------------------------------------


def test_images_as_colours():
    pixels = np.arange(24, dtype="uint8").reshape(3, 2, 4)
    np.testing.assert_array_equal(as_image(pixels), pixels.transpose(1, 2, 0) / 255)
    grey = as_image(np.array([[[0.0, 0.25], [1.0, 2.0]]]))
    np.testing.assert_array_equal(grey, np.repeat([[[0], [0.25]], [[1], [1]]], 3, 2))
    with pytest.raises(ShapeError, match=r"one or three channels, \(C, H, W\), got \(2, 4, 4\)"):
        as_image(np.zeros((2, 4, 4)))


def test_signals_around_grey():
    found = around_grey(np.array([[[-4.0, 0.0, 2.0]]]))
    np.testing.assert_array_equal(found[0, :, 0], [0, 0.5, 0.75])
    np.testing.assert_array_equal(around_grey(np.zeros((3, 2, 2))), 0.5 * np.ones((2, 2, 3)))


@pytest.mark.parametrize(("count", "columns", "shape"), [(1, None, (2, 3)), (6, None, (5, 11)), (16, None, (11, 15)),
                                                          (7, None, (5, 15)), (5, 2, (8, 7))])  # fmt: skip
def test_tiles_lie_side_by_side(count, columns, shape):
    images = [np.full((2, 3, 3), (i + 1) / 20) for i in range(count)]
    sheet = tiles(images, columns)
    assert sheet.shape == (*shape, 3)
    corners = sheet[::3, ::4, 0].reshape(-1)
    np.testing.assert_array_equal(corners[:count], [(i + 1) / 20 for i in range(count)])
    assert (corners[count:] == 1).all() and (sheet[2::3] == 1).all() and (sheet[:, 3::4] == 1).all()


def test_a_smaller_tile_is_centred_on_grey():
    sheet = tiles([np.zeros((4, 5, 3)), np.ones((2, 3, 3))], 2)
    np.testing.assert_array_equal(sheet[:, 6:, 0], np.pad(np.ones((2, 3)), 1, constant_values=0.5))


def test_enlarging_keeps_what_is_linear():
    """Between the centres of cells; at the edges it stays level."""
    rows, columns = np.arange(3.0), np.arange(5.0)
    found = enlarged(rows[:, None] + 10 * columns, (12, 10))
    at = [np.clip((np.arange(n) + 0.5) * cells / n - 0.5, 0, cells - 1) for n, cells in ((12, 3), (10, 5))]
    np.testing.assert_allclose(found, at[0][:, None] + 10 * at[1], rtol=1e-14)  # of float64, two interpolations
    np.testing.assert_array_equal(enlarged(found, found.shape), found)


# Figures --------------------------------------------------------------------------------------------------------------


def decoded(figure):
    """The pixels that the PNG file of a figure holds; never all the same."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.asarray(image.open(io.BytesIO(drawing.png(figure, dpi=60))).convert("RGB"))
    assert np.ptp(pixels) > 100
    return pixels


@pytest.fixture
def viz():
    pytest.importorskip("matplotlib")


def shown(figure):
    """The pictures inside a figure."""
    return [image.get_array() for axes in figure.axes for image in axes.get_images()]


def test_filters_are_drawn_in_colour_where_they_have_three_channels(viz):
    filters = np.random.default_rng(0).standard_normal((6, 3, 4, 5))
    figure = drawing.draw_filters(filters, "filters")
    (sheet,) = shown(figure)
    np.testing.assert_allclose(sheet[:4, :5], around_grey(filters[0]))
    pixels = decoded(figure).astype(int)
    assert np.abs(pixels[..., 0] - pixels[..., 2]).max() > 50
    grey = decoded(drawing.draw_filters(filters[:, :1])).astype(int)
    assert np.abs(grey[..., 0] - grey[..., 2]).max() == 0
    (planes,) = shown(drawing.draw_filters(filters[:, :2]))  # a row for each filter
    assert planes.shape == (6 * 5 - 1, 2 * 6 - 1, 3)


def test_maps_share_one_scale(viz):
    maps = np.zeros((3, 2, 4))
    maps[1] = np.linspace(-1, 3, 8).reshape(2, 4)
    figure = drawing.draw_maps(maps, "maps")
    (sheet,) = shown(figure)
    np.testing.assert_allclose(sheet[:, :4, 0], 0.25)
    np.testing.assert_allclose(sheet[:, 5:9, 0], (maps[1] + 1) / 4)
    assert "black -1, white 3" in [text.get_text() for text in figure.texts]
    figure = drawing.draw_maps(maps, units=[1, 0])
    (chosen,) = shown(figure)
    np.testing.assert_allclose(chosen[:, :4, 0], (maps[1] + 1) / 4)
    assert [(text.get_text(), text.get_position()) for text in figure.axes[0].texts] == [
        ("1", (-0.5, -0.5)), ("0", (4.5, -0.5))
    ], "each with its number"  # fmt: skip
    assert shown(drawing.draw_maps(np.ones((100, 2, 2))))[0].shape == (23, 23, 3)  # the first 64, all the same
    decoded(drawing.draw_values(np.arange(5.0), "values"))


def test_patches_are_drawn_with_what_is_beyond_the_edge(viz):
    patch = np.full((1, 3, 4), 255, "uint8")
    found = {4: [Response(0, 2.0, (0, 0), Window(-1, 3, 0, 4), patch)] * 2}
    (row,) = shown(drawing.draw_patches(found, fill=0))
    np.testing.assert_array_equal(row[:, :4, 0], np.pad(np.ones((3, 4)), ((1, 0), (0, 0))))
    projections = {4: np.linspace(-1, 1, 40).reshape(2, 1, 4, 5)}
    figure = drawing.draw_patch_pairs(found, projections, "pairs")
    above, below = shown(figure)
    assert above.shape == below.shape == (4, 9, 3)
    np.testing.assert_allclose(below[1:, :4], around_grey(projections[4][0, :, :3, :4]))
    assert [text.get_text() for text in figure.texts] == ["unit 4", "", "pairs"]
    decoded(figure)


def test_an_explanation_shows_the_image_signals_and_maps(viz):
    image = np.random.default_rng(1).integers(0, 256, (3, 6, 8)).astype("uint8")
    pictures = {"signal": image / 255 - 0.5, "heat": np.ones((3, 4)), "falls": np.array([[-1.0, 2.0]])}
    figure = drawing.draw_explanation(image, pictures, "why")
    assert [axes.get_title() for axes in figure.axes] == ["image", *pictures]
    counts = [len(axes.get_images()) for axes in figure.axes]
    assert counts == [1, 1, 2, 2]  # maps lie over the image
    np.testing.assert_array_equal(shown(figure)[0], as_image(image))
    assert [axes.get_images()[1].get_clim() for axes in figure.axes[2:]] == [(0, 1), (-2, 2)]
    decoded(figure)


RUNS = {
    "first": [{"epoch": 1, "loss": 2.0, "held_out_loss": 2.5, "lr": 0.1}, {"epoch": 2, "loss": 1.0, "lr": 0.1}],
    "second": [{"epoch": 1, "loss": 1.5, "accuracy": 0.5, "held_out_accuracy": None}],
}


def test_curves_have_a_panel_for_each_quantity_and_a_colour_for_each_run(viz):
    figure = drawing.draw_curves(RUNS, "runs")
    lines = {
        axes.get_title(): {
            line.get_label(): (line.get_color(), line.get_xydata().tolist()) for line in axes.get_lines()
        }
        for axes in figure.axes
    }
    assert lines == {
        "loss": {
            "first, training": ("C0", [[1, 2.0], [2, 1.0]]),
            "first": ("C0", [[1, 2.5]]),
            "second, training": ("C1", [[1, 1.5]]),
        },
        "accuracy": {"second, training": ("C1", [[1, 0.5]])},
        "learning rate": {"first": ("C0", [[1, 0.1], [2, 0.1]])},
    }
    decoded(figure)
    with pytest.raises(ArgumentError, match="records with some of loss, held_out_loss, .*, got 1 runs without"):
        drawing.draw_curves({"first": [{"epoch": 1}]})


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    class NoMatplotlib:
        def find_spec(self, name, path=None, target=None):
            if name == "matplotlib":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoMatplotlib(), *sys.meta_path])
    with pytest.raises(MissingExtra, match=r'pip install "minigrad\[viz\]"'):
        drawing.draw_filters(np.zeros((2, 1, 3, 3)))


# Sections -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def digits(viz):
    """An untrained LeNet, and noise to look at."""
    noise = np.random.default_rng(4).integers(0, 256, (12, 1, 28, 28), "uint8")
    prepared = nn.training.Preprocessing((1, 28, 28), (0.0,), (1.0,))
    return gallery.Subject(nn.models.lenet5(), prepared, "0123456789"), nn.data.TensorDataset(noise, np.arange(12) % 10)


def test_the_sections_of_a_network_and_its_data(digits, tmp_path):
    subject, data = digits
    sections = [
        gallery.filters_section(subject),
        gallery.image_section(subject, {"a digit": data[0][0]}),
        gallery.patches_section(subject, data, batch_size=5),
        gallery.confusion_section(subject, data),
    ]
    files = write_report(tmp_path / "new" / "folder", "LeNet", {}, sections, "by hand")
    names = "filters image-1-why image-1-maps patches confusion".split()
    assert [path.name for path in files] == [*(f"{name}.png" for name in names), "report.html"]
    for path in files[:-1]:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pictures = {picture.name: picture for section in sections for picture in section.pictures}
    assert "Grad-CAM is greatest at row" in pictures["image-1-why"].alt and "No " not in pictures["image-1-why"].caption
    assert len(pictures["image-1-why"].table.rows) == 5
    assert "16 maps of activation#2 (after c3), 10x10" in pictures["image-1-maps"].title
    assert len(pictures["patches"].table.rows) == 8 and "the 9 strongest patches of 8" in pictures["patches"].title
    assert [len(row) for row in pictures["confusion"].table.rows] == [11] * 10


def test_a_unit_of_a_layer(digits):
    subject, data = digits
    section = gallery.image_section(subject, {"a digit": data[0][0]}, "f6", 3)
    assert [p.title for p in section.pictures] == ["a digit: unit 3 of f6", "a digit: 84 values of f6"]
    (patches,) = gallery.patches_section(subject, data, "c1", 2).pictures
    assert patches.title == "c1, unit 2: its 9 strongest patches" and [row[0] for row in patches.table.rows] == [
        "unit 2"
    ]


def test_what_is_not_defined_for_a_network_is_said_and_the_rest_is_drawn(digits):
    subject, data = digits
    subject = gallery.Subject(nn.models.lenet5(activation="tanh"), subject.preprocessing, subject.classes)
    why, _ = gallery.image_section(subject, {"a digit": data[0][0]}).pictures
    assert "No guided backprop" in why.caption and "No deconvnet" in why.caption and "tanh" in why.caption
    (patches,) = gallery.patches_section(subject, data).pictures
    assert "No projections: deconvnet" in patches.caption and "Below" not in patches.caption


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="a folder to write into"):
        write_report(tmp_path / "file" / "inside", "", {}, [], "")


def test_a_network_without_pools_is_projected_by_guided_backpropagation():
    names = {"lenet5": "deconvnet", "resnet20": "guided_backprop", "resnet18": "deconvnet", "vgg11": "deconvnet"}
    assert {name: gallery.projection_of(nn.models.get(name)).__name__ for name in names} == names


def test_images_are_scaled_and_cut_as_the_network_needs_them():
    prepared = nn.training.Preprocessing((1, 4, 4), (0.0,), (1.0,), resize=8)
    images = np.random.default_rng(5).integers(0, 256, (3, 1, 8, 8), "uint8")
    fitted = gallery.Fitted(nn.data.TensorDataset(images, np.array([2, 0, 1])), prepared)
    image, label = fitted[1]
    np.testing.assert_array_equal(image, images[1, :, 2:6, 2:6])
    assert (len(fitted), label) == (3, 0)
    with pytest.raises(DataError, match="images of 3 channels, as the network takes, got some of 1"):
        gallery.Fitted(
            nn.data.TensorDataset(images, np.arange(3)), nn.training.Preprocessing((3, 4, 4), (0.0,), (1.0,))
        )
