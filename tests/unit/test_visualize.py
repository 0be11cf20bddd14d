"""Pictures of networks: the case-study networks, and what is said where a picture does not exist."""

import re

import numpy as np
import pytest

from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, ArgumentTypeError, AxisError, ShapeError
from minigrad.nn import visualize
from minigrad.nn.visualize.structure import Structure

LENET = np.linspace(-1, 1, 2 * 28 * 28, dtype="float32").reshape(2, 1, 28, 28)


@pytest.mark.parametrize(
    "name", ["lenet5", "alexnet", "vgg11", "vgg11_bn", "googlenet", "resnet18", "resnet50", "resnet20"]
)
def test_the_case_study_networks_can_be_gone_through_backward(name):
    model = nn.models.get(name)
    structure = Structure(model, model.input_size)
    structure.check_guided("guided_backprop", None)
    structure.check_linear("deconvnet", None)


def test_every_way_back_through_a_residual_network():
    model = nn.models.get("resnet20").train()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype("float32")
    before = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    guided = visualize.guided_backprop(model, images, 3, layer="layer2.1")
    projected = visualize.deconvnet(model, images, 3, layer="layer2.1")
    assert guided.shape == projected.shape == images.shape
    field = visualize.receptive_field(model, "layer2.1", (3, 32, 32))
    maps = visualize.activations(model, images, "layer2.1")["layer2.1"][:, 3].reshape(2, -1)
    for image, found in enumerate((guided[0], projected[0], guided[1], projected[1])):
        y, x = divmod(int(maps[image // 2].argmax()), 16)
        window = field.window((3, y, x))
        inside = found[:, max(window.top, 0) : window.bottom, max(window.left, 0) : window.right]
        assert np.abs(inside).max() > 0 and np.abs(found).sum() == pytest.approx(np.abs(inside).sum())
    assert visualize.grad_cam(model, images).shape == (2, 8, 8)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert before == {name: tensor.tolist() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "layer"), [("lenet5", "activation#2"), ("resnet20", "layer3"), ("vgg11_bn", "features.27")]
)
def test_grad_cam_looks_at_the_rectified_output_of_the_last_convolution(name, layer):
    from minigrad.nn.visualize.backward import last_maps
    from minigrad.nn.visualize.probe import forward

    model = nn.models.get(name)
    assert last_maps(forward(model, Tensor.zeros(1, *model.input_size))) == layer


def test_the_names_of_layers_are_those_of_their_modules_with_the_number_of_the_call():
    from minigrad.nn.visualize.probe import forward

    names = "c1 activation s2 c3 activation#2 s4 c5 activation#3 f6 activation#4 out"
    seen = forward(nn.models.lenet5(), LENET)
    assert " ".join(seen.layers) == names
    assert list(Structure(nn.models.lenet5(), (1, 28, 28)).outputs) == names.split()


FUNCTIONS = {
    "activations": lambda model, layer: visualize.activations(model, LENET, layer),
    "saliency": lambda model, layer: visualize.saliency(model, LENET, layer=layer),
    "guided_backprop": lambda model, layer: visualize.guided_backprop(model, LENET, layer=layer),
    "deconvnet": lambda model, layer: visualize.deconvnet(model, LENET, layer=layer),
    "grad_cam": lambda model, layer: visualize.grad_cam(model, LENET, layer=layer),
    "receptive_field": lambda model, layer: visualize.receptive_field(model, layer, (1, 28, 28)),
    "strongest_patches": lambda model, layer: visualize.strongest_patches(model, LENET, layer),
    "first_filters": lambda model, layer: visualize.first_filters(model, layer),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_layer_that_does_not_exist_lists_those_that_do(name):
    with pytest.raises(ArgumentError, match=r"layer: expected one of c1, .*s2.*out.*, got 'C1'\n.*did you mean 'c1'\?"):
        FUNCTIONS[name](nn.models.lenet5(), "C1")


def test_a_layer_that_evaluation_does_not_call_is_none():
    model = nn.models.get("googlenet", num_classes=5)
    assert "aux1.conv" in dict(model.named_modules())
    with pytest.raises(ArgumentError, match=r"got 'aux1.conv'"):
        visualize.activations(model, Tensor.zeros(1, 3, 224, 224), "aux1.conv")


@pytest.mark.parametrize("unit", [-1, 16, [0, 99]])
def test_a_unit_that_does_not_exist(unit):
    with pytest.raises(AxisError, match=r"units in \[0, 15\], got " + re.escape(str(unit))):
        visualize.saliency(nn.models.lenet5(), LENET, unit, layer="c3")


def test_units_for_another_number_of_images():
    with pytest.raises(ShapeError, match=r"one for each of 2 images, got \[1, 2, 3\]"):
        visualize.saliency(nn.models.lenet5(), LENET, [1, 2, 3])


def test_units_of_patches_that_do_not_exist():
    with pytest.raises(AxisError, match=r"units in \[0, 15\], got \[3, 16\]"):
        visualize.strongest_patches(nn.models.lenet5(), LENET, "c3", [3, 16])


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (LENET[0], ShapeError, r"\(N, C, H, W\), got \(1, 28, 28\)\n.*images\[None\]"),
        (LENET[:0], ShapeError, r"\(N, C, H, W\), got \(0, 1, 28, 28\)"),
        (LENET.astype("uint8"), ArgumentTypeError, "floating dtype, got uint8\n.*preprocessing"),
        (LENET[..., :27], ShapeError, r"LeNet5: expected images of shape \(N, 1, 28, 28\), got \(2, 1, 28, 27\)"),
        (np.zeros((1, 3, 28, 28), "float32"), ShapeError, "makes grey of colour"),
    ],
)
def test_images_that_do_not_fit(images, error, message):
    with pytest.raises(error, match=message):
        visualize.saliency(nn.models.lenet5(), images)


class Functional(nn.Module):
    """A network that applies ReLU without a layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 26)

    def forward(self, x):
        return self.second(self.first(x).relu()).flatten(1)


@pytest.mark.parametrize("way", [visualize.guided_backprop, visualize.deconvnet])
def test_relu_that_no_hook_can_reach(way):
    with pytest.raises(ArgumentTypeError, match=r"\(nn.ReLU\).*, got .*Functional"):
        way(Functional(), LENET)
    assert way(Functional(), LENET, layer="first").shape == LENET.shape if way is visualize.deconvnet else True


@pytest.mark.parametrize(
    ("layer", "named"),
    [(nn.Tanh(), "1 \\(Tanh\\), which computes tanh"), (nn.GroupNorm(1, 2), "1 \\(GroupNorm\\), which computes"),
     (nn.Sigmoid(), "1 \\(Sigmoid\\)"), (nn.LeakyReLU(), "1 \\(LeakyReLU\\)"), (nn.Softmax(1), "1 \\(Softmax\\)")],
)  # fmt: skip
def test_deconvnet_says_which_layer_has_no_way_back(layer, named):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten())
    with pytest.raises(ArgumentTypeError, match=f"deconvnet: expected convolutions.*, got {named}"):
        visualize.deconvnet(model, LENET)
    with pytest.raises(
        ArgumentTypeError, match="guided_backprop: expected a network with ReLU before the layer, got none"
    ):
        visualize.guided_backprop(model, LENET)
    assert visualize.deconvnet(model, LENET, layer="0").shape == LENET.shape


def test_grad_cam_needs_maps():
    with pytest.raises(ArgumentError, match=r"maps \(N, K, H, W\), got 'f6', which gives \(2, 84\)"):
        visualize.grad_cam(nn.models.lenet5(), LENET, layer="f6")
    with pytest.raises(ArgumentError, match="a convolution that gives maps, got none"):
        visualize.grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), LENET)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 29}, "a rectangle inside 28x28.* got 29x29"), ({"size": (4, 0)}, r"a size of at least 1, got \(4, 0\)"),
     ({"stride": 0}, "a stride of at least 1"), ({"batch_size": 0}, "batches of 0")],
)  # fmt: skip
def test_occlusion_with_numbers_that_make_no_sense(options, message):
    with pytest.raises(ArgumentError, match=message):
        visualize.occlusion(nn.models.lenet5(), LENET, **options)


def test_filters_are_those_of_the_first_convolution():
    model = nn.models.get("resnet20")
    np.testing.assert_array_equal(visualize.first_filters(model), model.conv1.weight.numpy())
    np.testing.assert_array_equal(
        visualize.first_filters(model, "layer1.0.conv2"), model.layer1[0].conv2.weight.numpy()
    )
    with pytest.raises(ArgumentTypeError, match="a Conv2d, got fc, a Linear"):
        visualize.first_filters(model, "fc")
    with pytest.raises(ArgumentTypeError, match="a network with a Conv2d, got Sequential"):
        visualize.first_filters(nn.Sequential(nn.Linear(3, 2)))


def test_patches_of_a_data_set_that_is_empty():
    with pytest.raises(ArgumentError, match="images, and a count of at least 1, got 0 and 9"):
        visualize.strongest_patches(nn.models.lenet5(), LENET[:0], "c1")
