"""The notation of patterns: what it makes, what it says of a network, and errors that point at the column."""

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, ArgumentTypeError, MinigradError, ShapeError
from minigrad.nn import models
from minigrad.nn.models.notation import fold, parse

COURSE = "[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX"


def counts(net, size):
    found = nn.summary(net, size)
    return found.total_params, found.total_macs


def kinds(net):
    return [type(layer).__name__ for layer in net.layers]


def test_the_pattern_of_the_course_as_it_stands():
    net = models.from_pattern(COURSE, N=2, M=3, K=1)
    stage = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert kinds(net) == stage * 3 + ["Flatten", "Linear", "ReLU", "Linear"]
    assert [layer.out_channels for layer in net.layers if isinstance(layer, nn.Conv2d)] == [64, 64, 128, 128, 256, 256]
    assert net(Tensor.zeros(5, 3, 32, 32)).shape == (5, 10)
    same = "[(CONV-RELU)*2-POOL?]*3-(FC-RELU)*1,SOFTMAX"
    assert repr(models.from_pattern(same)) == repr(net)


def test_optional_parts_can_be_left_out():
    net = models.from_pattern(COURSE, (3, 8, 6), optional=False, N=1, M=2, K=0)
    assert kinds(net) == ["Conv2d", "ReLU"] * 2 + ["Flatten", "Linear"]
    assert kinds(models.from_pattern("CONV-(RELU-POOL)?-RELU", (3, 8, 6), optional=False)) == ["Conv2d", "ReLU"]


def test_the_course_s_pattern_is_vgg_b():
    net = models.from_pattern(COURSE, (3, 224, 224), 1000, hidden=4096, N=2, M=5, K=2)
    assert counts(net, (3, 224, 224)) == (133_047_848, 11_308_466_176)


WRITTEN = {
    "lenet5": (
        "(CONV5-6p0-RELU-POOL)-CONV5-16p0-RELU-POOL-CONV5-120p0-RELU-FC-84-RELU-FC-10,SOFTMAX",
        (1, 32, 32), 61_706, 416_520,
    ),
    "alexnet": (
        "CONV11-96/4 - RELU - POOL3/2 - NORM - CONV5-256 - RELU - POOL3/2 - NORM - (CONV3-384-RELU)*2 - CONV3-256 - "
        "RELU - POOL3/2 - (FC-4096 - RELU - DROPOUT)*2 - FC-1000, SOFTMAX",
        (3, 227, 227), 62_378_344, 1_135_256_096,
    ),
    "vgg_a": (
        "CONV3-64-RELU-POOL-CONV3-128-RELU-POOL-(CONV3-256-RELU)*2-POOL-[(CONV3-512-RELU)*2-POOL]*2-"
        "(FC-4096-RELU-DROPOUT)*2-FC,SOFTMAX",
        (3, 224, 224), 132_863_336, 7_609_090_048,
    ),
    "vgg_d": (
        "[(CONV3-64-RELU)*2-POOL]-[(CONV3-128-RELU)*2-POOL]-[(CONV3-256-RELU)*3-POOL]-[(CONV3-512-RELU)*3-POOL]*2-"
        "(FC-4096-RELU-DROPOUT)*2,SOFTMAX",
        (3, 224, 224), 138_357_544, 15_470_264_320,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_networks_of_the_course_can_be_written(name):
    pattern, size, parameters, products = WRITTEN[name]
    classes = 10 if name == "lenet5" else 1000
    written = models.from_pattern(pattern, size, classes)
    assert counts(written, size) == (parameters, products)
    made = models.get(name, **({"padding": 0} if name == "lenet5" else {}))
    assert models.to_pattern(made) == models.to_pattern(written)
    assert [p.shape for p in made.parameters()] == [p.shape for p in written.parameters()]


def test_every_network_in_a_row_is_written_as_expected():
    stages = "(CONV3-64-BN-RELU)*2-POOL-(CONV3-128-BN-RELU)*2-POOL-(CONV3-256-BN-RELU)*2-CONV1-256-BN-RELU-POOL"
    last = "[(CONV3-512-BN-RELU)*2-CONV1-512-BN-RELU-POOL]*2-(FC-4096-RELU-DROPOUT-0.4)*2-FC-7,SOFTMAX"
    net = models.vgg("C", batch_norm=True, num_classes=7, dropout=0.4)
    assert models.to_pattern(net) == f"{stages}-{last}"
    old = models.lenet5(activation="tanh", pool="average")
    expected = "CONV5-6-TANH-AVGPOOL-CONV5-16p0-TANH-AVGPOOL-CONV5-120p0-TANH-FC-84-TANH-FC-10,SOFTMAX"
    assert models.to_pattern(old) == expected
    row = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.MaxPool2d((2, 2), 1, padding=1), nn.Flatten())
    assert models.to_pattern(row, (3, 8, 6)) == "CONV3-4p0-SIGMOID-POOL2/1p1"
    assert models.to_pattern(models.vgg("A-LRN")).startswith("CONV3-64-RELU-LRN-POOL-CONV3-128")


def test_a_pattern_computes_what_its_layers_compute():
    net = models.from_pattern("CONV3-4-BN-RELU-POOL-FC-6-TANH-DROPOUT,SOFTMAX", (2, 8, 6), num_classes=3)
    x = Tensor.randn(5, 2, 8, 6)
    for layer in net.layers:
        assert layer.training
    net.eval()
    expected = x
    for layer in net.layers:
        expected = layer(expected)
    np.testing.assert_array_equal(net(x).numpy(), expected.numpy())
    np.testing.assert_array_equal(net.predict_proba(x).numpy(), expected.softmax(1).numpy())


def test_what_a_pattern_leaves_open():
    net = models.from_pattern("CONV-POOL-CONV-POOL3-CONV5/2-CONV1-7-POOL-CONV", (3, 64, 48), width=300)
    convolutions = [layer for layer in net.layers if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [300, 512, 512, 7, 14]
    assert [c.kernel_size[0] for c in convolutions] == [3, 3, 5, 1, 3]
    assert [c.padding[0] for c in convolutions] == [1, 1, 0, 0, 1]
    pools = [layer for layer in net.layers if isinstance(layer, nn.MaxPool2d)]
    assert [(p.kernel_size, p.stride) for p in pools] == [(2, 2), (3, 2), (2, 2)]
    assert models.from_pattern("FC-RELU-FC", hidden=20).layers[-1].out_features == 20
    assert models.from_pattern("FC-RELU,SOFTMAX").layers[-1].out_features == 10
    assert models.from_pattern("FC-RELU-FC-7,SOFTMAX", num_classes=7).layers[-1].out_features == 7
    assert models.from_pattern("fc-5 , Softmax").layers[-1].out_features == 5


def test_padding_may_have_to_fit_without_a_rest():
    assert models.from_pattern("CONV3-4/3", (1, 7, 7))(Tensor.zeros(2, 1, 7, 7)).shape == (2, 4, 2, 2)
    with pytest.raises(ShapeError, match=r"CONV3-4/3 to fit 1x7x7, .*\(7 - 3 \+ 2\*0\)/3 \+ 1 = 2.33: does not fit\n"):
        models.from_pattern("CONV3-4/3", (1, 7, 7), strict=True)
    assert kinds(models.from_pattern("CONV3-4/3p1-POOL3/1", (1, 7, 7), strict=True)) == ["Conv2d", "MaxPool2d"]


# Pattern, options, the column that the error points at, and what it says.
WRONG = [
    ("", {}, 1, "a layer or a bracket, got the end"),
    ("CONV-", {}, 6, "a layer or a bracket, got the end"),
    ("CONV--RELU", {}, 6, "a layer or a bracket, got '-'"),
    ("()", {}, 2, r"a layer or a bracket, got '\)'"),
    ("-CONV", {}, 1, "a layer or a bracket, got '-'"),
    ("CONV RELU", {}, 6, "'-' or ',' before the next layer, got 'RELU'"),
    ("CONV(RELU)", {}, 5, "'-' or ',' before the next layer"),
    ("CNV-RELU", {}, 1, "(?s)one of CONV, POOL.*got 'CNV'.*did you mean CONV?"),
    ("CONV-3x3", {}, 7, "'-' or ',' before the next layer, got 'x3'"),
    ("CONV;RELU", {}, 5, "a layer, a bracket, .*got ';'"),
    ("CONV-*", {}, 6, r"got '\*'"),
    ("CONV*2x", {}, 7, "'-' or ',' before the next layer, got 'x'"),
    ("CONV3-" + "9" * 5000, {}, 7, "a width of at most 9 digits, got one of 5000"),
    ("CONV3-10000000000", {}, 7, "a width of at most 9 digits, got one of 11"),
    ("CONV*1000000000", {}, 6, "a count of at most 9 digits, got one of 10"),
    ("(CONV-RELU)×2", {}, 12, r"(?s)hint: did you mean '\*'"),
    ("CONV−RELU", {}, 5, "(?s)hint: did you mean '-'"),
    ("*2", {}, 1, r"a layer or a bracket, got '\*2'"),
    ("(CONV-RELU", {}, 1, r"'\)' to close this bracket, got the end"),
    ("[(CONV-RELU]*2", {}, 12, r"'\)' to close '\(', got '\]'"),
    ("CONV-RELU)", {}, 10, r"a bracket that is open, got '\)'"),
    (COURSE, {"N": 2, "M": 3}, 35, "(?s)a number or the name of one, got 'K'.*K=2"),
    ("CONV*N", {"N": -1}, 6, "a count of at least 0"),
    ("CONV*N", {"N": 2.5}, 6, "a count of at least 0, and .*got 2.5"),
    ("[(CONV*1000)*1000]*1000", {}, 14, "at most 2000 layers, got 1000"),
    ("CONV-RELU3", {}, 10, "RELU with no numbers, got extent 3"),
    ("FC-10/2", {}, 7, "FC with width, got stride 2"),
    ("CONV0-3", {}, 5, "a whole extent of at least 1, got 0"),
    ("CONV3-1.5", {}, 7, "a whole width of at least 1, got 1.5"),
    ("CONV3-4/0", {}, 9, "a whole stride of at least 1, got 0"),
    ("CONV-SOFTMAX-RELU", {}, 6, "SOFTMAX at the end, got more"),
    ("CONV-RELU", {"num_classes": 10}, 10, "SOFTMAX, where num_classes is given, got the end"),
    ("CONV-FC-20,SOFTMAX", {"num_classes": 10}, 6, "FC of 10 before SOFTMAX, .*got FC-20"),
    ("DROPOUT-1.5", {}, 1, r"a probability in \[0, 1\], got 1.5"),
]  # fmt: skip


@pytest.mark.parametrize("pattern, options, column, message", WRONG, ids=[w[0][:20] or "empty" for w in WRONG])
def test_errors_point_at_the_column(pattern, options, column, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        models.from_pattern(pattern, **options)
    assert str(caught.value).endswith(f"\n  {pattern}\n  {' ' * (column - 1)}^ column {column}")


MISFITS = [
    ("(CONV-POOL)*6", 7, "POOL to fit 512x1x1, .*: does not fit"),
    ("FC-10-RELU-CONV", 12, "CONV3-64 to fit 10, .*: does not fit"),
    ("FC-10-POOL", 7, "POOL to fit 10"),
]


@pytest.mark.parametrize("pattern, column, message", MISFITS, ids=str)
def test_layers_that_do_not_fit(pattern, column, message):
    with pytest.raises(ShapeError, match=message) as caught:
        models.from_pattern(pattern)
    assert str(caught.value).endswith(f"^ column {column}")


def test_counts_that_the_pattern_does_not_have():
    with pytest.raises(ArgumentError, match="counts that CONV-POOL has, got Q"):
        models.from_pattern("CONV-POOL", Q=3)


class Doubled(nn.Module):
    """Gives something else than its last layer does."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(x.flatten(1)) * 2


OUTSIDE = {
    "residual": (lambda: models.resnet18(), "layer1.0.relu, which takes more or something else than what layer1.0.bn2"),
    "inception": (lambda: models.googlenet(), "inception3a.branch2.0.conv, which takes more"),
    "groups": (lambda: models.alexnet(groups=2), r"features.conv2: Conv2d\(.*groups=2"),
    "adaptive pool": (lambda: models.vgg11(torchvision=True), "avgpool: AdaptiveAvgPool2d"),
    "no bias": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1, bias=False)), "bias=False"),
    "oblong": (lambda: nn.Sequential(nn.Conv2d(3, 4, (1, 2))), r"kernel_size=\(1, 2\)"),
    "padding by name": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same")), "padding=same"),
    "other settings": (lambda: nn.Sequential(nn.LocalResponseNorm(3)), r"LocalResponseNorm\(3"),
    "another activation": (lambda: nn.Sequential(nn.GELU()), "0: GELU"),
    "more than the last layer": (lambda: Doubled(), "Doubled, which gives something else than what fc gives"),
}


@pytest.mark.parametrize("make, message", OUTSIDE.values(), ids=OUTSIDE)
def test_networks_that_the_notation_cannot_write(make, message):
    net = make()
    size = (3, 8, 6) if isinstance(net, nn.Sequential) else (3, 1, 1) if isinstance(net, Doubled) else None
    with pytest.raises(ArgumentError, match=message):
        models.to_pattern(net, size)


def test_a_network_without_an_input_size_needs_one():
    with pytest.raises(ArgumentTypeError, match="input_size"):
        models.to_pattern(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("option", [{"hidden": 0}, {"width": 0}, {"num_classes": 0}, {"num_classes": -1}])
def test_layers_are_at_least_one_wide(option):
    with pytest.raises(ArgumentError, match=f"from_pattern: expected {next(iter(option))} of at least 1"):
        models.from_pattern("CONV-FC-RELU,SOFTMAX", (3, 8, 8), **{"num_classes": 5, **option})


def test_a_pattern_is_text():
    with pytest.raises(ArgumentTypeError, match="a pattern such as"):
        models.from_pattern(None)


# Round trips.

numbers = st.integers(1, 9)
spatial = st.one_of(
    st.builds("CONV{}-{}{}{}".format, st.integers(1, 5), numbers, st.sampled_from(["", "/1", "/2"]),
              st.sampled_from(["", "p0", "p1", "p2"])),
    st.builds("{}{}{}{}".format, st.sampled_from(["POOL", "AVGPOOL"]), st.sampled_from(["", "2", "3"]),
              st.sampled_from(["", "/1", "/2", "/3"]), st.sampled_from(["", "p0", "p1"])),
    st.sampled_from(["RELU", "TANH", "SIGMOID", "LRN", "BN", "CONV", "DROPOUT", "DROPOUT-0.25", "DROPOUT-0"]),
)  # fmt: skip
flat = st.one_of(
    st.builds("FC-{}".format, numbers),
    st.sampled_from(["RELU", "TANH", "FC", "DROPOUT", "DROPOUT-0.00001", "DROPOUT-1"]),
)
rows = st.tuples(st.lists(spatial, min_size=1, max_size=8), st.lists(flat, max_size=5))


def repeated(words, count, start, stop):
    return words[:start] + words[start:stop] * count + words[stop:]


@given(rows, st.booleans(), st.integers(1, 3), st.integers(0, 8), st.integers(0, 8))
def test_a_network_prints_as_the_pattern_that_makes_it(row, softmax, count, start, stop):
    head, tail = row
    pattern = "-".join([*repeated(head, count, start, stop), *tail]) + (",SOFTMAX" if softmax else "")
    try:
        net = models.from_pattern(pattern, (3, 40, 33), width=5, hidden=6)
    except ShapeError:
        reject()  # too many pools
    printed = models.to_pattern(net)
    again = models.from_pattern(printed, (3, 40, 33))
    assert repr(again) == repr(net)
    assert models.to_pattern(again) == printed


@given(st.lists(st.sampled_from("CONV3-64 CONV5-6/2p0 RELU POOL FC-10 DROPOUT-0.5".split()), min_size=1, max_size=30))
def test_folding_loses_nothing(words):
    folded = fold(words)
    assert [str(word) for word in parse(folded)] == words
    assert len(folded) <= len("-".join(words))


@given(st.text("CONVPLFREU0123456789-,()[]*?/ .pNM", max_size=30))
def test_whatever_is_written_there_is_an_answer_or_a_column(text):
    try:
        parse(text, {"N": 2})
    except MinigradError as error:
        assert "column" in str(error) or "counts that" in str(error)
