"""The networks by name: parameters and multiply-adds as published, names as torchvision's, options and bad input."""

import hashlib

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from minigrad.nn import models


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def layers(net):
    """Layers without parts, by path: output shape of one image, parameters and multiply-adds. Nothing is computed."""
    found = {}

    def note(path):
        def hook(module, args, output):
            products = 0
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                products = int(np.prod(output.shape[1:])) * int(np.prod(module.weight.shape[1:]))
            found[path] = output.shape[1:], sum(p.numel() for p in module.parameters()), products

        return hook

    handles = [m.register_forward_hook(note(path)) for path, m in net.named_modules() if not list(m.children())]
    net.eval()(Tensor.zeros(2, *net.input_size))
    for handle in handles:
        handle.remove()
    return found


def macs(net):
    return sum(products for _, _, products in layers(net).values())


# Each figure was computed from the papers' and torchvision's definitions by another program.
COUNTS = {
    "lenet5, 32x32": (lambda: models.lenet5(padding=0), 61_706, 416_520),
    "alexnet": (lambda: models.alexnet(), 62_378_344, 1_135_256_096),
    "alexnet, norm first": (lambda: models.alexnet(norm_first=True), 62_378_344, 1_135_256_096),
    "vgg A": (lambda: models.vgg("A"), 132_863_336, 7_609_090_048),
    "vgg B": (lambda: models.vgg("B"), 133_047_848, 11_308_466_176),
    "vgg D": (lambda: models.vgg("D"), 138_357_544, 15_470_264_320),
    "googlenet": (lambda: models.googlenet(aux=False), 6_998_552, 1_582_671_872),
    "resnet18": (lambda: models.resnet18(), 11_689_512, 1_814_073_344),
    "resnet34": (lambda: models.resnet34(), 21_797_672, 3_663_761_408),
    "resnet50": (lambda: models.resnet50(), 25_557_032, 4_089_184_256),
    "resnet50, paper": (lambda: models.resnet50(stride_in_1x1=True), 25_557_032, 3_857_973_248),
    "resnet20": (lambda: models.cifar_resnet(20), 269_722, 40_551_040),
    "resnet56": (lambda: models.cifar_resnet(56), 853_018, 125_485_696),
}


@pytest.mark.parametrize("make, count, products", COUNTS.values(), ids=COUNTS)
def test_parameters_and_multiply_adds(make, count, products):
    net = make()
    assert parameters(net) == count
    assert macs(net) == products


LENET = {
    "c1": ((6, 28, 28), 156, 117_600),
    "s2": ((6, 14, 14), 0, 0),
    "c3": ((16, 10, 10), 2_416, 240_000),
    "s4": ((16, 5, 5), 0, 0),
    "c5": ((120, 1, 1), 48_120, 48_000),
    "f6": ((84,), 10_164, 10_080),
    "out": ((10,), 850, 840),
}
ALEXNET = {
    "conv1": ((96, 55, 55), 34_944, 105_415_200),
    "pool1": ((96, 27, 27), 0, 0),
    "norm1": ((96, 27, 27), 0, 0),
    "conv2": ((256, 27, 27), 614_656, 447_897_600),
    "pool2": ((256, 13, 13), 0, 0),
    "norm2": ((256, 13, 13), 0, 0),
    "conv3": ((384, 13, 13), 885_120, 149_520_384),
    "conv4": ((384, 13, 13), 1_327_488, 224_280_576),
    "conv5": ((256, 13, 13), 884_992, 149_520_384),
    "pool5": ((256, 6, 6), 0, 0),
    "fc6": ((4096,), 37_752_832, 37_748_736),
    "fc7": ((4096,), 16_781_312, 16_777_216),
    "fc8": ((1000,), 4_097_000, 4_096_000),
}
VGG_D = [
    ((64, 224, 224), 1_792, 86_704_128),
    ((64, 224, 224), 36_928, 1_849_688_064),
    ((64, 112, 112), 0, 0),
    ((128, 112, 112), 73_856, 924_844_032),
    ((128, 112, 112), 147_584, 1_849_688_064),
    ((128, 56, 56), 0, 0),
    ((256, 56, 56), 295_168, 924_844_032),
    ((256, 56, 56), 590_080, 1_849_688_064),
    ((256, 56, 56), 590_080, 1_849_688_064),
    ((256, 28, 28), 0, 0),
    ((512, 28, 28), 1_180_160, 924_844_032),
    ((512, 28, 28), 2_359_808, 1_849_688_064),
    ((512, 28, 28), 2_359_808, 1_849_688_064),
    ((512, 14, 14), 0, 0),
    ((512, 14, 14), 2_359_808, 462_422_016),
    ((512, 14, 14), 2_359_808, 462_422_016),
    ((512, 14, 14), 2_359_808, 462_422_016),
    ((512, 7, 7), 0, 0),
    ((4096,), 102_764_544, 102_760_448),
    ((4096,), 16_781_312, 16_777_216),
    ((1000,), 4_097_000, 4_096_000),
]


def test_lenet_layer_by_layer():
    found = layers(models.lenet5(padding=0))
    assert {name: found[name] for name in LENET} == LENET


def test_alexnet_layer_by_layer():
    found = {path.split(".")[-1]: row for path, row in layers(models.alexnet()).items()}
    assert {name: found[name] for name in ALEXNET} == ALEXNET


def test_alexnet_in_the_order_of_the_paper_normalises_larger_maps():
    found = {path.split(".")[-1]: row for path, row in layers(models.alexnet(norm_first=True)).items()}
    assert list(found)[:4] == ["conv1", "relu1", "norm1", "pool1"]
    assert found["norm1"][0] == (96, 55, 55) and found["norm2"][0] == (256, 27, 27)


def test_vgg_layer_by_layer():
    net = models.vgg("D")
    found = layers(net)
    named = dict(net.named_modules())
    kept = [row for path, row in found.items() if isinstance(named[path], (nn.Conv2d, nn.MaxPool2d, nn.Linear))]
    assert kept == VGG_D
    assert sum(count for _, count, _ in found.values()) == 138_357_544
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    assert sum(w.numel() for w in weights) == 138_344_128
    assert parameters(net.features) == 14_714_688 and parameters(net.classifier) == 123_642_856


# Sizes after each stage, of table 1 of the paper.
GOOGLENET = {
    "conv1": (64, 112, 112), "maxpool1": (64, 56, 56), "conv3": (192, 56, 56), "maxpool2": (192, 28, 28),
    "inception3a": (256, 28, 28), "inception3b": (480, 28, 28), "maxpool3": (480, 14, 14),
    "inception4a": (512, 14, 14), "inception4b": (512, 14, 14), "inception4c": (512, 14, 14),
    "inception4d": (528, 14, 14), "inception4e": (832, 14, 14), "maxpool4": (832, 7, 7),
    "inception5a": (832, 7, 7), "inception5b": (1024, 7, 7), "avgpool": (1024, 1, 1), "fc": (1000,),
}  # fmt: skip


@pytest.mark.parametrize("torchvision", [False, True])
def test_googlenet_stage_by_stage(torchvision):
    net = models.googlenet(torchvision=torchvision).eval()
    shapes = {}
    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: shapes.update({name: output.shape[1:]}))
        for name, module in net.named_children()
    ]
    net(Tensor.zeros(2, 3, 224, 224))
    for handle in handles:
        handle.remove()
    assert {name: shapes[name] for name in GOOGLENET} == GOOGLENET
    assert "aux1" not in shapes and "aux2" not in shapes


def test_two_groups_halve_what_each_filter_of_three_layers_sees():
    single, towers = models.alexnet(), models.alexnet(groups=2)
    for name in ("conv2", "conv4", "conv5"):
        weights = getattr(towers.features, name).weight, getattr(single.features, name).weight
        assert weights[0].shape[1] * 2 == weights[1].shape[1]
    saved = 307_200 + 663_552 + 442_368  # half of the weights of each: 5*5*96*256 / 2 and so on
    assert parameters(towers) == 62_378_344 - saved == 60_965_224


def test_configurations_of_vgg():
    assert [parameters(models.vgg(c)) // 10**6 for c in ("A", "A-LRN", "B", "C", "D", "E")] == [
        132, 132, 133, 133, 138, 143
    ]  # fmt: skip
    ones = [m for m in models.vgg("C").features if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert [m.out_channels for m in ones] == [256, 512, 512]
    assert [type(m).__name__ for m in models.vgg("A-LRN").features][:4] == [
        "Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match="A, A-LRN, B, C, D, E, got 'F'"):
        models.vgg("F")


# sha256 of the sorted lines "key shape" of torchvision 0.29.1's state dicts.
TORCHVISION = {
    "alexnet": "935c1ea73a7869eef424454bd79f9a16fdcb7a6342ab404d13f9ead2466d1092",
    "vgg11": "b11acd4f90d9643fb47e4326d0f40d1ae7ee580b0509f272826300b0996358c2",
    "vgg11_bn": "56ed5816909a813293b13a7b24c808b5f2594f625d2f5b4ae45cac233d75a268",
    "vgg13": "79ca8fd7a1480aa7c17b8cdc8d302bc34640bccfe080031fa21b40f7b70edc21",
    "vgg13_bn": "e4f52ce016e5e82f373b5f48665a1bbeb1a16e6ead9829c72cfed1b3d6635444",
    "vgg16": "ba63c2556d912509cba94697742dd762a05c284047650150bab0c2ddc806bb59",
    "vgg16_bn": "86bad13b66635552f31b1a53eaf739fc05bf6111f696e97fd006755355d50d26",
    "vgg19": "393fac8b08b63fbee1e3ef721e98f1710adc57be373a2067ea1af78fc5ccb504",
    "vgg19_bn": "faf0fdbb92f698c6862d90e64500a658c4328d5dbadfc9e24785038b3c1208a6",
    "googlenet": "de3745733576b3b1a65be26aef551602f1147352b1e78f96d2acb50a7d1a29e3",
    "resnet18": "5191d63ec398959223d67ef37376f9061e6965b859fc2d4e40e23d037147a0d7",
    "resnet34": "f8de2a1812ef85e46b3f60c61589921afee0c2a6d4165e27508ad215f101671b",
    "resnet50": "a87e91cd6bd1f939e0b723852e567a7205d33b0ac984ac02dd1a5f225d37c036",
    "resnet101": "dbc3ca74fffafc728641ec2b524ccedcbae337de9d3e3cf1f0552330d07303ea",
    "resnet152": "7d486dbdc941506eeed76c4b06e6a00c943ff5aa11c0ced1b2e1b12faebd4729",
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_are_torchvisions(name):
    net = models.get(name, **({} if name.startswith("resnet") else {"torchvision": True}))
    lines = sorted(f"{key} {tensor.shape}" for key, tensor in net.state_dict().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TORCHVISION[name]


def test_the_variant_of_torchvision_takes_other_sizes():
    for net in (models.alexnet(torchvision=True), models.vgg11(torchvision=True), models.resnet18()):
        assert net(Tensor.zeros(2, 3, 256, 160)).shape == (2, 1000)
    with pytest.raises(ArgumentError, match="without groups"):
        models.alexnet(groups=2, torchvision=True)


def test_auxiliary_classifiers_speak_in_training_only():
    net = models.googlenet(num_classes=5)
    outputs = net(Tensor.zeros(2, 3, 224, 224))
    assert [logits.shape for logits in outputs] == [(2, 5)] * 3
    assert isinstance(outputs, models.GoogLeNetOutputs)
    assert net.eval()(Tensor.zeros(2, 3, 224, 224)).shape == (2, 5)
    assert models.googlenet(num_classes=5, aux=False)(Tensor.zeros(2, 3, 224, 224)).shape == (2, 5)


def test_the_loss_of_googlenet_weighs_the_auxiliary_classifiers():
    rng = np.random.default_rng(0)
    logits, second, first = (Tensor(rng.standard_normal((4, 3)).astype("float32")) for _ in range(3))
    y = Tensor(np.array([0, 2, 1, 1]))
    expected = logits.cross_entropy(y) + 0.3 * first.cross_entropy(y) + 0.3 * second.cross_entropy(y)
    outputs = models.GoogLeNetOutputs(logits, second, first)
    for loss in (outputs.cross_entropy(y), nn.CrossEntropyLoss()(outputs, y), nn.functional.cross_entropy(outputs, y)):
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-6)  # two roundings
    smooth = [each.cross_entropy(y, label_smoothing=0.1).item() for each in outputs]
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)(outputs, y).item()
    np.testing.assert_allclose(loss, smooth[0] + 0.3 * (smooth[1] + smooth[2]), rtol=1e-6)


def test_option_a_subsamples_and_adds_zeros():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype("float32")
    block = models.cifar_resnet(20).layer2[0]
    assert parameters(block.downsample) == 0
    out = type(block.downsample)(3, 8, 2)(Tensor(x)).numpy()
    np.testing.assert_array_equal(out[:, :3], x[:, :, ::2, ::2])
    assert out.shape == (2, 8, 3, 2) and not out[:, 3:].any()


def test_shortcuts_project_where_their_option_says():
    def projections(net):
        return [path for path, m in net.named_modules() if path.endswith("downsample.0") and parameters(m)]

    assert projections(models.resnet18()) == ["layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0"]
    assert projections(models.cifar_resnet(20)) == []
    assert projections(models.cifar_resnet(20, shortcut="B")) == ["layer2.0.downsample.0", "layer3.0.downsample.0"]
    assert len(projections(models.cifar_resnet(20, shortcut="C"))) == 9
    assert projections(models.resnet34(residual=False)) == []
    with pytest.raises(ArgumentError, match="'A', 'B' or 'C'"):
        models.cifar_resnet(20, shortcut="D")


@pytest.mark.parametrize("depth", [20, 110])
def test_plain_networks_differ_in_their_shortcuts_only(depth):
    plain, residual = models.get(f"plain{depth}"), models.get(f"resnet{depth}")
    assert {k: t.shape for k, t in plain.state_dict().items()} == {k: t.shape for k, t in residual.state_dict().items()}
    assert macs(plain) == macs(residual)
    layered = [m for path, m in plain.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layered) == depth


def test_depths_that_do_not_exist():
    with pytest.raises(ArgumentError, match="6n . 2.*got 21"):
        models.cifar_resnet(21)
    with pytest.raises(ArgumentError, match="18, 34, 50, 101, 152, got 20"):
        models.resnet(20)


def initial(make, name):
    """A parameter as it starts; the network goes at once, so that no other parameter is ever computed."""
    parameter = dict(make().named_parameters())[name]
    return parameter.numpy()


def test_initialisation():
    minigrad.manual_seed(0)
    he = np.sqrt(2 / (128 * 9))
    for make, name, deviation in (
        (models.resnet18, "layer2.0.conv2.weight", he),
        (models.vgg11, "features.3.weight", he),
        (models.googlenet, "inception3a.branch2.1.conv.weight", np.sqrt(2 / (96 * 9))),
        (lambda: models.googlenet(torchvision=True), "conv3.conv.weight", 0.01),
        (models.alexnet, "features.conv2.weight", np.sqrt(2 / (256 * 25))),
        (models.alexnet, "classifier.fc8.weight", 0.01),
        (models.vgg11, "classifier.6.weight", 0.01),
    ):
        assert abs(initial(make, name).std() / deviation - 1) < 0.01  # of more than 100,000 numbers
    for name in ("features.conv2.bias", "classifier.fc7.bias"):
        assert not initial(models.alexnet, name).any()


def test_residual_blocks_may_start_as_their_shortcuts():
    block = models.cifar_resnet(20, zero_init_residual=True).layer1[1]
    assert not block.bn2.weight.numpy().any() and block.bn1.weight.numpy().all()
    assert models.cifar_resnet(20).layer1[1].bn2.weight.numpy().all()
    assert models.cifar_resnet(20, residual=False, zero_init_residual=True).layer1[1].bn2.weight.numpy().all()
    assert not models.resnet50(zero_init_residual=True).layer1[1].bn3.weight.numpy().any()


def test_probabilities():
    minigrad.manual_seed(0)
    net = models.lenet5(num_classes=4)
    net.f6 = nn.Sequential(net.f6, nn.Dropout(0.5))
    net.c1.eval()
    x = Tensor.rand(3, 1, 28, 28)
    expected = net.predict_proba(x).numpy()
    np.testing.assert_allclose(expected.sum(1), 1, rtol=1e-6)  # a handful of roundings
    np.testing.assert_array_equal(net.predict_proba(x).numpy(), expected)  # without dropout
    assert net.training and net.f6[1].training and not net.c1.training


BAD = {
    "grey": ("alexnet", (2, 1, 227, 227), r"AlexNet: .*\(N, 3, 227, 227\), got \(2, 1, 227, 227\)\n.*of grey"),
    "four channels": ("resnet18", (2, 4, 224, 224), r"\(N, 3, 224, 224\), got \(2, 4, 224, 224\)$"),
    "no batch": ("vgg11", (3, 224, 224), r"VGG: .*\(N, 3, 224, 224\), got \(3, 224, 224\)\n.*unsqueeze"),
    "the paper's size": ("alexnet", (2, 3, 224, 224), r"got .*224\), which classifier.fc6 cannot take.*\n.*227x227"),
    "too small": ("alexnet", (2, 3, 32, 32), r"which features.pool2 cannot take \(max_pool"),
    "too small for pools": ("vgg16", (2, 3, 24, 24), r"which features.30 cannot take \(max_pool"),
    "not 7x7": ("vgg16", (2, 3, 32, 32), r"which classifier.0 cannot take .*\n.*torchvision=True"),
    "colour": ("lenet5", (2, 3, 28, 28), r"LeNet5: expected .*\(N, 1, 28, 28\), got \(2, 3, 28, 28\)\n.*colour"),
    "small": ("googlenet", (2, 3, 64, 64), r"which aux2.pool cannot take \(avg_pool"),
}  # fmt: skip


@pytest.mark.parametrize("name, shape, message", BAD.values(), ids=BAD)
def test_images_that_do_not_fit(name, shape, message):
    with pytest.raises(ShapeError, match=message):
        models.get(name)(Tensor.zeros(*shape))


def test_arrays_are_no_images():
    with pytest.raises(ArgumentTypeError, match=r"(?s)LeNet5: expected a Tensor, got ndarray.*Tensor\(x\)"):
        models.lenet5()(np.zeros((2, 1, 28, 28), np.float32))


def test_a_broken_network_is_not_blamed_on_the_image():
    net = models.lenet5()
    net.out = nn.Linear(5, 10)
    with pytest.raises(ShapeError, match="^linear: "):
        net(Tensor.zeros(2, 1, 28, 28))


def test_a_network_by_name_is_what_its_function_makes():
    net = models.get("lenet5", num_classes=3, activation="tanh")
    assert repr(net) == repr(models.lenet5(3, "tanh"))
    assert repr(models.get("vgg16_bn")) == repr(models.vgg16(batch_norm=True))
    assert repr(models.get("resnet56", num_classes=3)) == repr(models.cifar_resnet(56, num_classes=3))
    assert models.available()[:2] == ["lenet5", "alexnet"]


@pytest.mark.parametrize("name", models.available())
def test_every_network_has_classes_and_an_input_size(name):
    net = models.get(name, num_classes=7).eval()
    assert net(Tensor.zeros(2, *net.input_size)).shape == (2, 7)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArgumentError, match=r"one of lenet5.*'lenet-5'\n  hint: did you mean 'lenet5'\?"):
        models.get("lenet-5")
    with pytest.raises(ArgumentError) as caught:
        models.get("transformer")
    assert "hint" not in str(caught.value)


def test_an_unknown_option_lists_the_known_ones():
    said = r"get\('lenet5'\): expected options among num_classes, .*, got an unexpected .*'classes'"
    with pytest.raises(ArgumentTypeError, match=said):
        models.get("lenet5", classes=3)
    with pytest.raises(ArgumentTypeError, match="options among num_classes, shortcut, .*'depths'"):
        models.get("resnet50", depths=3)
