"""Pictures of networks, as arrays: closed forms, finite differences, and examples by hand, on every backend.

Values are small integers and steps powers of two, so every float32 operation is exact and so is every comparison.
"""

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn
from minigrad.nn import visualize


@pytest.fixture(autouse=True)
def _on(device):
    with minigrad.backend(device):
        yield


def integers(rng, *shape, most=3):
    return rng.integers(-most, most + 1, shape).astype("float32")


def filled(model, seed=0):
    """The model with integers as parameters."""
    rng = np.random.default_rng(seed)
    model.load_state_dict({name: integers(rng, *tensor.shape) for name, tensor in model.state_dict().items()})
    return model


def scores(model, images):
    return model(Tensor(images)).numpy()


def relu(x):
    return np.maximum(x, 0)


class Square(nn.Module):
    def forward(self, x):
        return x * x


def perturbed(images, step):
    """For each pixel of one image, a copy with ``step`` added there."""
    return images + step * np.eye(images.size, dtype="float32").reshape(images.size, *images.shape[1:])


def test_saliency_is_the_central_difference_of_a_quadratic_network():
    """Of a polynomial of degree two, central differences are exact at any step."""
    model = filled(nn.Sequential(nn.Conv2d(2, 3, 2), Square(), nn.AvgPool2d((1, 4)), nn.Flatten(), nn.Linear(6, 4)))
    images = integers(np.random.default_rng(1), 1, 2, 3, 5)
    for target in range(4):
        difference = scores(model, perturbed(images, 4)) - scores(model, perturbed(images, -4))
        expected = (difference[:, target] / 8).reshape(images.shape)
        assert np.abs(expected).max() > 0
        np.testing.assert_array_equal(visualize.input_gradient(model, images, target), expected)
        np.testing.assert_array_equal(visualize.saliency(model, images, target), np.abs(expected).max(1))


def test_saliency_is_the_difference_of_a_network_with_relu_and_max_pooling_between_its_kinks():
    model = filled(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, (2, 3))))
    images = integers(np.random.default_rng(2), 1, 2, 4, 6, most=40) + 0.25
    step = 2**-4
    up, down, here = (scores(model, perturbed(images, s))[:, :, 0, 0] for s in (step, -step, 0))
    smooth = up + down == 2 * here
    assert smooth.mean() > 0.8
    for target in range(4):
        expected = (up - down)[:, target].reshape(images.shape) / (2 * step)
        found = visualize.input_gradient(model, images, target)
        usable = smooth[:, target].reshape(images.shape)
        np.testing.assert_array_equal(found[usable], expected[usable])


@pytest.fixture
def dense():
    """A network of two linear layers with its weights, and images with hidden units of both signs."""
    model = filled(nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    images = integers(np.random.default_rng(3), 4, 1, 2, 3)
    first, second = model[1].weight.numpy(), model[3].weight.numpy()
    hidden = images.reshape(4, 6) @ first.T + model[1].bias.numpy()
    assert (hidden > 0).any() and (hidden < 0).any()
    return model, images, first, second, hidden


def test_the_three_ways_back_through_relu(dense):
    model, images, first, second, hidden = dense
    logits = relu(hidden) @ second.T + model[3].bias.numpy()
    target = logits.argmax(1)
    g, shape = second[target], images.shape
    plain = ((hidden > 0) * g) @ first
    guided = ((hidden > 0) * relu(g)) @ first
    projected = relu(g * logits[np.arange(4), target][:, None]) @ first
    assert not np.array_equal(plain, guided)
    np.testing.assert_array_equal(visualize.input_gradient(model, images), plain.reshape(shape))
    np.testing.assert_array_equal(visualize.guided_backprop(model, images), guided.reshape(shape))
    np.testing.assert_array_equal(visualize.deconvnet(model, images), projected.reshape(shape))


def test_a_target_for_each_image_and_a_unit_of_a_layer(dense):
    model, images, first, second, hidden = dense
    targets = [2, 0, 1, 0]
    found = visualize.input_gradient(model, images, targets)
    for i, target in enumerate(targets):
        np.testing.assert_array_equal(found[i : i + 1], visualize.input_gradient(model, images[i : i + 1], target))
    row = np.broadcast_to(first[5].reshape(1, 2, 3), images.shape)
    np.testing.assert_array_equal(visualize.input_gradient(model, images, 5, layer="1"), row)
    projected = row * hidden[:, 5].reshape(4, 1, 1, 1)
    np.testing.assert_array_equal(visualize.deconvnet(model, images, 5, layer="1"), projected)


def test_deconvnet_by_hand():
    """One image, one filter: conv -> relu -> pool, and all the way back, on paper."""
    model = nn.Sequential(nn.Conv2d(1, 1, 2), nn.ReLU(), nn.MaxPool2d(2))
    model.load_state_dict({"0.weight": np.array([[[[1.0, 2.0], [0.0, -1.0]]]]), "0.bias": np.array([1.0])})
    image = np.array([[[[1, 0, 2, 1, 0], [3, 1, 0, 2, 1], [0, 2, 1, 1, 3]]]], "float32")
    # maps:  1+0-1+1=1   0+4-0+1=5 | 2+2-2+1=3  1+0-1+1=1
    #        3+2-2+1=4   1+0-1+1=1 | 0+4-1+1=4  2+2-3+1=2
    # pools to 5 (at 0, 1) and 4 (at 1, 2); the greater one goes back alone, as 5 times the filter at (0, 1)
    assert scores(model, image).tolist() == [[[[5, 4]]]]
    expected = np.zeros_like(image)
    expected[0, 0, 0:2, 1:3] = [[5, 10], [0, -5]]
    np.testing.assert_array_equal(visualize.deconvnet(model, image, 0, layer="2"), expected)


def test_deconvnet_is_a_decoder_of_unpooling_relu_and_transposed_filters():
    """Two stages, against the network that Zeiler and Fergus attach, made of layers."""
    model = filled(nn.Sequential({
        "conv1": nn.Conv2d(2, 3, 3, padding=1), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(3, 4, 2), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d((2, 1)),
    }))  # fmt: skip
    images = integers(np.random.default_rng(4), 2, 2, 6, 8)
    stage1 = model.relu1(model.conv1(Tensor(images)))
    pooled1, switches1 = nn.MaxPool2d(2, return_indices=True)(stage1)
    stage2 = model.relu2(model.conv2(pooled1))
    pooled2, switches2 = nn.MaxPool2d((2, 1), return_indices=True)(stage2)
    for unit in range(4):
        top = pooled2.numpy()[:, unit].reshape(2, -1)
        signal = np.zeros(pooled2.shape, "float32")
        signal[:, unit].reshape(2, -1)[np.arange(2), top.argmax(1)] = top.max(1)
        down = nn.MaxUnpool2d((2, 1))(Tensor(signal), switches2, output_size=stage2.shape).relu()
        down = nn.MaxUnpool2d(2)(down.conv_transpose2d(model.conv2.weight), switches1, output_size=stage1.shape).relu()
        expected = down.conv_transpose2d(model.conv1.weight, padding=1).numpy()
        np.testing.assert_array_equal(visualize.deconvnet(model, images, unit, layer="pool2"), expected)


def test_deconvnet_leaves_local_response_normalisation_out():
    model = filled(nn.Sequential(nn.Conv2d(1, 3, 2), nn.LocalResponseNorm(3, alpha=0.5), nn.ReLU(), nn.Conv2d(3, 2, 2)))
    images = integers(np.random.default_rng(5), 2, 1, 4, 5)
    maps = scores(model, images)[:, 1].reshape(2, -1)
    expected = np.zeros_like(images)
    pattern = Tensor(relu(model[3].weight.numpy()[1:])).conv_transpose2d(model[0].weight).numpy()[0]
    for image, best, top in zip(expected, maps.argmax(1), maps.max(1)):
        y, x = divmod(int(best), 3)
        image[:, y : y + 3, x : x + 3] = top * pattern
    # the signal is no integer: up to 12 products are rounded and added, each to 6e-8 of the largest
    error = 12 * 6e-8 * maps.max() * np.abs(pattern).max()
    np.testing.assert_allclose(visualize.deconvnet(model, images, 1), expected, rtol=0, atol=error)


def test_grad_cam_is_class_activation_mapping_where_a_mean_feeds_a_linear_layer():
    """Zhou et al.'s maps: the weights of the linear layer, divided by the number of positions."""
    model = filled(nn.Sequential(
        nn.Conv2d(2, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ))  # fmt: skip
    images = integers(np.random.default_rng(6), 2, 2, 3, 5)  # maps of 2 x 4: division by 8 is exact
    maps = model[1](model[0](Tensor(images))).numpy()
    for target in range(3):
        expected = relu(np.einsum("nkhw,k->nhw", maps, model[4].weight.numpy()[target])) / 8
        np.testing.assert_array_equal(visualize.grad_cam(model, images, target), expected)
        np.testing.assert_array_equal(visualize.grad_cam(model, images, target, layer="1"), expected)


def test_the_weights_of_grad_cam_are_central_differences():
    """The score's change where all of a map is raised, against the map that each weight gives."""
    model = filled(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Conv2d(3, 4, (1, 2)), Square(), nn.Flatten(), nn.Linear(24, 2)))
    images = integers(np.random.default_rng(7), 1, 2, 3, 5)
    maps = model[0](Tensor(images)).numpy()
    raised = np.repeat(np.eye(3, dtype="float32"), 8, axis=1).reshape(3, 3, 2, 4)
    after = nn.Sequential(*model[1:])
    slopes = (scores(after, maps + 4 * raised) - scores(after, maps - 4 * raised)) / 8 / 8  # a step of 4, 8 positions
    for target in range(2):
        expected = relu(np.einsum("nkhw,k->nhw", maps, slopes[:, target]))
        assert expected.any()
        np.testing.assert_array_equal(visualize.grad_cam(model, images, target, layer="0"), expected)


NETWORKS = {
    "strides": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Conv2d(2, 3, (2, 3), padding=1)),
    "dilation": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2, padding=(1, 3)), nn.AvgPool2d(2)),
    "pools": lambda: nn.Sequential(nn.AvgPool2d((3, 2), 2, padding=1), nn.Conv2d(1, 2, 2, stride=(1, 2))),
    "flat": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.AvgPool2d(2), nn.Flatten()),
    "dense": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(126, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_receptive_field_is_the_pixels_that_change_a_value(name):
    """All weights positive, so that no two changes cancel. Holes that dilation leaves belong to the window."""
    model = NETWORKS[name]()
    model.load_state_dict({n: np.ones(t.shape) for n, t in model.state_dict().items()})
    size = (9, 11)
    zero = np.zeros((1, 1, *size), "float32")
    last = str(len(model) - 1)
    changed = scores(model, perturbed(zero, 1)) - scores(model, zero) > 0
    field = visualize.receptive_field(model, last, (1, *size))
    assert field.shape == changed.shape[1:]
    for index in np.ndindex(changed.shape[1:]):
        seen = changed[(slice(None), *index)].reshape(size)
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        window = field.window(index)
        if name != "dilation":  # taps that fall on padding leave no trace
            assert (rows[0], rows[-1] + 1) == (max(window.top, 0), min(window.bottom, size[0]))
            assert (columns[0], columns[-1] + 1) == (max(window.left, 0), min(window.right, size[1]))
        assert window.top <= rows[0] and rows[-1] < window.bottom
        assert window.left <= columns[0] and columns[-1] < window.right


@pytest.mark.parametrize("layer", ["0", "2"])
def test_the_strongest_patches_are_those_that_a_search_finds(layer):
    model = filled(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, (3, 2), stride=2)))
    images = integers(np.random.default_rng(8), 11, 2, 7, 6)
    data = nn.data.TensorDataset(images, np.arange(11))
    found = visualize.strongest_patches(model, data, layer, units=[2, 0], count=3, batch_size=4)
    maps = visualize.activations(model, images, layer)[layer]
    field = visualize.receptive_field(model, layer, (2, 7, 6))
    assert list(found) == [2, 0]
    for unit, responses in found.items():
        best = maps[:, unit].reshape(11, -1).max(1)
        assert [r.index for r in responses] == np.argsort(-best, kind="stable")[:3].tolist()
        for r in responses:
            assert maps[(r.index, unit, *r.position)] == r.value == best[r.index]
            assert r.window == field.window((unit, *r.position))
            framed = np.pad(images[r.index], ((0, 0), (9, 9), (9, 9)), constant_values=7)
            top, bottom, left, right = (edge + 9 for edge in r.window)
            np.testing.assert_array_equal(r.framed(7), framed[:, top:bottom, left:right])
            assert r.patch.size < r.framed(7).size or min(r.window) >= 0


def test_occlusion_is_what_covering_each_part_does():
    model = filled(nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)))
    model[3].weight.requires_grad_(False).assign(model[3].weight / 64)
    images = integers(np.random.default_rng(9), 2, 2, 4, 5)
    whole = model(Tensor(images)).softmax(1).numpy()
    target = whole.argmax(1)
    falls, covers = np.zeros((2, 4, 5)), np.zeros((4, 5))
    for top in (0, 2):
        for left in (0, 2):
            part = images.copy()
            part[:, :, top : top + 2, left : left + 3] = 1
            p = model(Tensor(part)).softmax(1).numpy()
            falls[:, top : top + 2, left : left + 3] += (whole - p)[[0, 1], target][:, None, None]
            covers[top : top + 2, left : left + 3] += 1
    for batch_size in (1, 3, 64):
        found = visualize.occlusion(model, images, size=(2, 3), stride=2, fill=1, batch_size=batch_size)
        np.testing.assert_allclose(found, falls / covers, atol=2e-6)  # probabilities in other batches, to an ulp or two
    assert np.abs(falls).max() > 0.01


def test_activations_are_what_the_layers_give():
    model = filled(nn.models.lenet5())
    images = integers(np.random.default_rng(10), 2, 1, 28, 28)
    found = visualize.activations(model, images, ["c1", "activation#2", "out"])
    first = model.c1(Tensor(images))
    second = model.c3(model.s2(first.relu())).relu()
    np.testing.assert_array_equal(found["c1"], first.numpy())
    np.testing.assert_array_equal(found["activation#2"], second.numpy())
    np.testing.assert_array_equal(found["out"], model(Tensor(images)).numpy())
