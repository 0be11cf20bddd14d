"""nn.summary and `minigrad summary`: exact figures, nothing run or allocated, a table that fits, formulas in words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, device, dtypes, nn
from minigrad.cli import main
from minigrad.config import settings
from minigrad.errors import ArgumentError, ArgumentTypeError, CaptureError, ShapeError
from minigrad.nn.models import lenet5
from minigrad.nn.module import Module
from minigrad.nn.summary.table import brief, size
from minigrad.nn.training import ModelInfo, Preprocessing
from minigrad.nn.training.checkpoint import WEIGHTS, save_weights

LENET = {  # output, parameters, multiply-adds
    "c1": ((6, 28, 28), 156, 117_600),
    "s2": ((6, 14, 14), 0, 0),
    "c3": ((16, 10, 10), 2_416, 240_000),
    "s4": ((16, 5, 5), 0, 0),
    "c5": ((120, 1, 1), 48_120, 48_000),
    "f6": ((84,), 10_164, 10_080),
    "out": ((10,), 850, 840),
}


class Handmade(Module):
    """Computes everything itself: convolution, product, pool, join, mean."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(np.ones((6, 3, 3, 3), np.float32))
        self.bias = nn.Parameter(np.ones(6, np.float32))
        self.scale = nn.Parameter(np.full((6, 1, 1, 1), 2, np.float32))
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Parameter(np.ones((4, 12), np.float32))

    def forward(self, x):
        x = (x / 255 - 0.5).conv2d(self.weight * self.scale, self.bias, stride=2).relu()
        y = x + self.inner(x).tanh()
        z = Tensor.cat(x, y, axis=1).max_pool2d(3, 2)
        return z.mean((2, 3)).linear(self.last)


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=(2, 1), dilation=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True), nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1, groups=2),
        nn.Dropout(), nn.Conv2d(4, 4, 2, padding="same", groups=4, bias=False), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(64, 10), nn.Softmax(1),
    )  # fmt: skip


# Figures --------------------------------------------------------------------------------------------------------------


def test_lenet_layer_by_layer():
    found = nn.summary(lenet5(padding=0), (1, 32, 32))
    assert {layer.name: (layer.output, layer.params, layer.macs) for layer in found.layers} == LENET
    assert [layer.input for layer in found.layers[:3]] == [(1, 32, 32), (6, 28, 28), (6, 14, 14)]
    assert (found.total_params, found.total_weights, found.total_macs) == (61_706, 61_470, 416_520)
    assert [layer.activations for layer in found.layers] == [4704, 1176, 1600, 400, 120, 84, 10]
    assert found.total_activations == 1024 + 8094 and found.total_activation_bytes == 4 * 9118
    assert [layer.receptive_field[0] for layer in found.layers] == [5, 6, 14, 16, 32, 32, 32]
    assert [layer.stride[0] for layer in found.layers] == [1, 2, 2, 4, 4, None, None]
    assert [layer.then for layer in found.layers] == [("ReLU",), (), ("ReLU",), (), ("ReLU",), ("ReLU",), ()]


def test_what_a_forward_computes_itself_is_not_lost():
    found = nn.summary(Handmade(), (3, 29, 31))
    rows = [(x.name, x.kind, x.output, x.params, x.activations, x.macs, x.then) for x in found.layers]
    volume, places = 6 * 14 * 15, 14 * 15
    assert rows == [
        ("conv2d", "conv2d", (6, 14, 15), 162 + 6 + 6, volume, 27 * volume, ("relu",)),
        ("inner", "Conv2d", (6, 14, 15), 54 * 6 + 6, volume, 54 * volume, ("tanh",)),
        ("add", "add", (6, 14, 15), 0, volume, 0, ()),
        ("cat", "cat", (12, 14, 15), 0, 0, 0, ()),
        ("max_pool2d", "max_pool2d", (12, 6, 7), 0, 12 * 42, 0, ()),
        ("sum", "sum", (12,), 0, 12, 0, ("div",)),
        ("matmul", "matmul", (4,), 48, 4, 48, ()),
    ]
    assert found.layers[0].macs == 27 * 6 * places
    assert found.input.then == ("div", "sub")
    assert found.total_params == sum(p.numel() for p in Handmade().parameters())
    assert found.layers[0].weights == found.layers[0].params - 6, "the bias is known by its name"
    assert [layer.receptive_field for layer in found.layers[:3]] == [(3, 3), (7, 7), (7, 7)]


def test_a_small_module_of_ones_own_is_one_row():
    class Affine(Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter([2.0])

        def forward(self, x):
            return x * self.scale + x.mean(1, keepdims=True)

    (row,) = nn.summary(nn.Sequential(Affine()), (3, 4, 5)).layers
    assert (row.name, row.kind, row.output, row.params, row.activations) == ("0", "Affine", (3, 4, 5), 1, 60)
    (row,) = nn.summary(Affine(), (3, 4, 5)).layers
    assert row.name == "Affine"


def test_what_a_model_does_around_its_forward_is_its_own():
    class Scaled(nn.Sequential):
        def __call__(self, x):
            return super().__call__(x / 255).softmax(1)

    found = nn.summary(Scaled(nn.Linear(6, 5)), (6,))
    assert [layer.name for layer in found.layers] == ["0", "max", "sub", "sum", "div"]
    assert found.input.then == ("div",) and found.layers[-1].output == (5,)


def test_groups_dilation_and_transposed_convolutions():
    by_kind = {layer.kind: layer for layer in nn.summary(small(), (3, 29, 31)).layers}
    assert by_kind["Conv2d"].output == (4, 16, 26) and by_kind["Conv2d"].macs == 2 * 2 * 4 * 16 * 26
    transposed = by_kind["ConvTranspose2d"]
    assert transposed.output == (4, 16, 26) and transposed.macs == 8 * 7 * 12 * 2 * 3 * 3
    assert transposed.params == 8 * 2 * 9 + 4
    first = nn.summary(small(), (3, 29, 31)).layers[0]
    assert first.output == (8, 13, 23) and first.receptive_field == (5, 9) and first.stride == (2, 1)


def test_shared_modules_and_parameters_count_once():
    class Twice(Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)
            self.tied = nn.Linear(6, 6, bias=False)
            self.tied.weight = self.layer.weight

        def forward(self, x):
            return self.tied(self.layer(self.layer(x)))

    found = nn.summary(Twice(), (6,))
    assert [(layer.name, layer.params, layer.macs) for layer in found.layers] == [
        ("layer", 42, 36), ("layer#2", 0, 36), ("tied", 0, 36),
    ]  # fmt: skip
    assert found.total_params == 42 and found.layers[0].receptive_field == ()


def test_half_types_and_integer_images():
    found = nn.summary(nn.Linear(6, 5).to(dtypes.float16), (6,))
    assert found.total_activation_bytes == 2 * 11 and found.memory().parameters == 2 * 35


def test_an_image_of_integers():
    class Table(Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(np.zeros((10, 4), np.float32))

        def forward(self, x):
            return nn.functional.embedding(x, self.weight)

    found = nn.summary(Table(), (7,), dtype="int64")
    assert found.layers[0].output == (7, 4) and found.input.activation_bytes == 56
    assert found.layers[0].params == 40


def test_pools_that_return_indices_keep_those_too():
    class Indexed(Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2, return_indices=True)

        def forward(self, x):
            values, indices = self.pool(x)
            return values + indices

    layer = nn.summary(Indexed(), (3, 8, 6)).layers[0]
    assert layer.activations == 2 * 36 and layer.activation_bytes == 36 * (4 + 8)


def test_depth_sums_up_modules():
    class Block(nn.Sequential):
        pass

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Block(nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(), Block(nn.Conv2d(6, 5, 1))), Handmade6()
    )
    full = nn.summary(model, (3, 21, 23))
    stages = nn.summary(model, (3, 21, 23), depth=1)
    assert [(row.name, row.kind, row.output) for row in stages.rows] == [
        ("0", "Conv2d", (4, 19, 21)), ("1", "Block", (5, 9, 10)), ("2", "Handmade6", (5, 9, 10)),
    ]  # fmt: skip
    assert [row.receptive_field for row in stages.rows] == [(3, 3), (5, 5), (9, 9)]
    for figure in ("params", "weights", "macs", "activations", "activation_bytes"):
        assert sum(getattr(r, figure) for r in stages.rows) == sum(getattr(r, figure) for r in full.layers)
    assert stages.early_convolutions == full.early_convolutions
    assert [row.name for row in nn.summary(model, (3, 21, 23), depth=2).rows] == ["0", "1.0", "1.2", "2.0", "2.add"]


class Handmade6(Module):
    """A residual block."""

    def __init__(self):
        super().__init__()
        self.add_module = None
        setattr(self, "0", nn.Conv2d(5, 5, 3, padding=1))

    def forward(self, x):
        return x + getattr(self, "0")(x)


# Nothing happens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [False, True])
def test_nothing_is_run_or_allocated(eager, launched):
    model = small()
    pool = device.get("numpy").pool
    before = (pool.allocations, pool.held)
    with settings.override(eager=eager):
        found = nn.summary(model, (3, 29, 31), 64, optimizer="adam")
        assert str(found) and found.memory().total > 0
    assert (pool.allocations, pool.held) == before
    assert launched == []
    assert all(p.node.buffer is None for p in model.parameters())


def test_the_image_is_where_the_network_is(twin):
    pool = device.get(twin).pool
    model = nn.Linear(6, 5, device=twin)
    before = pool.allocations
    assert nn.summary(model, (6,)).layers[0].output == (5,)
    assert pool.allocations == before


def test_a_network_too_large_for_any_machine_has_a_summary():
    wide = 65_000
    huge = nn.Sequential(*(nn.Linear(wide, wide, bias=False) for _ in range(250)))  # 4 TB
    found = nn.summary(huge, (wide,))
    assert found.total_params == 250 * wide**2 and found.memory(1, "adam").total > 16 * 250 * wide**2
    assert "1,056,250,000,000 parameters" in str(found)


def test_the_model_is_left_as_it_was():
    model = small()
    model[5].eval()
    calls = []
    handle = model[0].register_forward_hook(lambda *args: calls.append(1))
    modes = [module.training for module in model.modules()]
    state = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    minigrad.manual_seed(3)
    for training in (False, True):
        nn.summary(model, (3, 29, 31), training=training)
    following = Tensor.rand(4).tolist()
    assert len(calls) == 2
    assert [module.training for module in model.modules()] == modes
    assert all(not m._forward_pre_hooks for m in model.modules())
    assert model[0]._forward_hooks == (handle,)
    assert {name: tensor.tolist() for name, tensor in model.state_dict().items()} == state
    minigrad.manual_seed(3)
    assert Tensor.rand(4).tolist() == following


def test_an_error_leaves_the_model_as_it_was():
    model = small()
    with pytest.raises(ShapeError, match="conv2d"):
        nn.summary(model, (4, 29, 31))
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_training_mode_may_have_more_parts():
    class Auxiliary(Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.extra = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(5, 3)

        def forward(self, x):
            x = self.body(x)
            return (self.head(x), self.extra(x)) if self.training else self.head(x)

    evaluating, training = nn.summary(Auxiliary(), (6,)), nn.summary(Auxiliary(), (6,), training=True)
    assert [layer.name for layer in evaluating.layers] == ["body", "head"]
    assert [weight.name for weight in evaluating.unused] == ["extra.weight", "extra.bias"]
    assert "not used in this mode: 18 parameters of extra" in str(evaluating)
    assert training.total_params - evaluating.total_params == 18 and training.unused == ()
    assert training.memory().parameters == evaluating.memory().parameters == 4 * (35 + 24 + 18)


# Memory and shares ----------------------------------------------------------------------------------------------------


def test_training_memory_is_the_stated_sum():
    found = nn.summary(lenet5(), (1, 28, 28), 64)
    memory = found.memory()
    assert memory == (64, "sgd", 4 * 61_706, 0, 4 * 61_706, 4 * 61_706, 64 * 4 * 8878)
    assert memory.total == 3 * 4 * 61_706 + 64 * 4 * 8878 and memory.peak == memory.total + 64 * 4 * 8878
    adam = found.memory(1, "adam")
    assert adam.optimizer_state == 4 * (2 * 61_706 + 10), "two means, and a step count for each of 10 tensors"
    assert adam.activations == 4 * 8878


def test_an_optimizer_says_itself_what_it_keeps():
    model = lenet5()
    for optimizer in (nn.optim.SGD(model.parameters()), nn.optim.Adam(model.parameters(), amsgrad=True)):
        kept = sum(t.numel() * t.dtype.itemsize for state in optimizer.state.values() for t in state.values())
        assert nn.summary(model, (1, 28, 28), optimizer=optimizer).memory().optimizer_state == kept
    for name, cls, options in (("sgd", "SGD", {"momentum": 0.9}), ("adam", "Adam", {}), ("adamw", "AdamW", {})):
        made = getattr(nn.optim, cls)(model.parameters(), **options)
        found = nn.summary(model, (1, 28, 28))
        assert found.memory(optimizer=name).optimizer_state == found.memory(optimizer=made).optimizer_state


def test_frozen_parameters_have_no_gradient_and_buffers_count():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    model[0].requires_grad_(False)
    memory = nn.summary(model, (6,)).memory()
    assert memory.parameters == 4 * (35 + 10) and memory.gradients == memory.optimizer_state == 4 * 10
    assert memory.buffers == 4 * (5 + 5) + 8


def test_a_captured_step_holds_what_was_foretold():
    model, batch = lenet5(), 96
    memory = nn.summary(model, (1, 28, 28), batch).memory()
    optimizer = nn.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    pool = device.get("numpy").pool
    pool.trim()
    before = pool.held

    @minigrad.jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(0)
    for _ in range(3):
        step(Tensor(rng.random((batch, 1, 28, 28), np.float32)), Tensor(rng.integers(0, 10, batch))).item()
    pool.trim()
    # Between what forward keeps and that with every gradient; the pool rounds sizes up by at most an eighth.
    assert memory.total < pool.held - before < memory.peak * 9 / 8


def test_shares():
    found = nn.summary(lenet5(), (1, 28, 28))
    assert found.early_convolutions == (("c1",), 4704, 8878)
    assert found.fully_connected == (("f6", "out"), 11_014, 61_706)
    assert found.fully_connected.fraction == 11_014 / 61_706
    nothing = nn.summary(nn.ReLU(), (3,))
    assert nothing.layers == () and nothing.early_convolutions.fraction == nothing.fully_connected.fraction == 0


# How it looks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 132, 200])
@pytest.mark.parametrize("depth", [0, 1])
def test_the_table_fits_the_terminal_and_shows_every_layer(width, depth, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    found = nn.summary(nn.Sequential(lenet5(), nn.Linear(10, 3)), (1, 28, 28), 64, depth=depth)
    text = str(found)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for row in found.rows:
        assert sum(line.split()[:1] == [row.name] for line in lines) == 1
        assert re.search(rf"{row.name} .*{'x'.join(map(str, row.output))} ", text)
    assert repr(found) == text, "what a session shows"
    assert "61,739 parameters" in text and ("multiply-adds" in lines[1]) == (width > 80)


def test_brief_numbers():
    assert [brief(n) for n in (0, 7, 999, 1000, 1792, 999_499, 999_500, 102_764_544, 15_470_264_320)] == [
        "0", "7", "999", "1K", "1.79K", "999K", "1M", "103M", "15.5G",
    ]  # fmt: skip
    assert [size(n) for n in (12, 4096, 60_950_432)] == ["12 bytes", "4.1 kB", "61 MB"]


def test_json_and_markdown_have_every_number():
    found = nn.summary(small(), (3, 29, 31), 4)
    read = json.loads(json.dumps(found.to_dict()))
    assert [row["macs"] for row in read["layers"]] == [layer.macs for layer in found.layers]
    assert read["layers"][0]["receptive_field"] == [5, 9] and read["layers"][-1]["receptive_field"] == [None, None]
    assert read["total"]["params"] == found.total_params and read["memory"]["total"] == found.memory().total
    lines = found.to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 3 + len(found.layers)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row[3] for row in cells[3:]] == [f"{layer.params:,}" for layer in found.layers]


def test_figures_are_plain_data():
    layer = nn.summary(lenet5(), (1, 28, 28)).layers[0]
    assert asdict(layer)["output"] == (6, 28, 28)
    with pytest.raises(AttributeError):
        layer.params = 0


# Formulas -------------------------------------------------------------------------------------------------------------


def explained(module, *shape):
    return nn.summary(nn.Sequential(module), shape).explain("0")


def test_explain_writes_the_formulas_out():
    text = explained(nn.Conv2d(3, 96, 11, stride=4), 3, 227, 227)
    assert "height and width: (N - F + 2P)/S + 1 = (227 - 11 + 2*0)/4 + 1 = 55\n" in text
    assert "96 filters: 96x55x55" in text
    assert "F*F*D1*K + K = 11*11*3*96 + 96 = 34,944 (34,848 without biases)" in text
    assert "F*F*D1 for each value: 11*11*3 * 96*55*55 = 105,415,200" in text
    assert "96*55*55 = 290,400 values, 1,161,600 bytes" in text
    assert "R + (F - 1)*T = 1 + (11 - 1)*1 = 11 pixels, 4 from one to the next" in text


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Conv2d(1, 1, 3, stride=3), (1, 7, 7), "(7 - 3 + 2*0)/3 + 1 = 2.33: does not fit; rounded down to 2, "
         "the last 1 position of 7 unseen"),
        (nn.Conv2d(3, 64, 7, stride=2, padding=3), (3, 224, 224), "(224 - 7 + 2*3)/2 + 1 = 112.5: does not fit; "
         "rounded down to 112, only padding unseen"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), (1, 112, 112), "(112 - 3 + 2*0)/2 + 1 = 55.5: does not fit; "
         "rounded up to 56, the last window hangs over the end by 1 position"),
        (nn.MaxPool2d(1, 3, ceil_mode=True), (1, 6, 6), "(6 - 1 + 2*0)/3 + 1 = 2.67: does not fit; rounded down to 2, "
         "as one more window would begin beyond the input, the last 2 positions of 6 unseen"),
        (nn.Conv2d(2, 4, 3, dilation=2), (2, 9, 9), "F = 2*(3 - 1) + 1 = 5, (N - F + 2P)/S + 1 = (9 - 5 + 2*0)/1 + 1"),
        (nn.Conv2d(2, 4, 3, dilation=2), (2, 9, 9), "k*k*D1*K + K = 3*3*2*4 + 4 = 76"),
        (nn.Conv2d(4, 6, 3, groups=2, bias=False), (4, 9, 8), "F*F*(D1/2)*K = 3*3*2*6 = 108\n"),
        (nn.Conv2d(4, 6, 3), (4, 9, 8), "width: (N - F + 2P)/S + 1 = (8 - 3 + 2*0)/1 + 1 = 6"),
        (nn.Conv2d(4, 6, 2, padding="same"), (4, 8, 8), "(8 - 2 + 0 + 1)/1 + 1 = 8"),
        (nn.Conv1d(4, 6, 5, padding=2), (4, 20), "output           (N - F + 2P)/S + 1 = (20 - 5 + 2*2)/1 + 1 = 20"),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 7, 7), "(N - 1)*S + F - 2P = (7 - 1)*2 + 2 - 0 - 0 = 14"),
        (nn.Linear(9216, 4096), (9216,), "D1*K + K = 9216*4096 + 4096 = 37,752,832 (37,748,736 without biases)"),
        (nn.BatchNorm2d(5), (5, 4, 3), "weight 5 + bias 5 = 10 (5 without biases)"),
        (nn.AdaptiveAvgPool2d(3), (2, 7, 8), "output           2x3x3"),
    ],
)  # fmt: skip
def test_explain_says_what_fits_and_what_rounding_did(module, shape, expected):
    assert expected in explained(module, *shape)


def test_explain_of_what_is_no_window():
    text = explained(nn.LocalResponseNorm(5), 8, 6, 7)
    assert "output           8x6x7\n" in text and "N - F" not in text
    assert "activations      8*6*7 = 336 values" in text
    pair = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1))
    text = nn.summary(nn.Sequential(pair), (3, 9, 8), depth=1).explain("0")
    assert "multiply-adds    5,376, in 0.0, 0.2\n" in text and "N - F" not in text
    assert "activations      378 values" in text and "parameters       137 (128 without biases)" in text
    one = nn.summary(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), (3, 9, 8), depth=1)
    assert "(9 - 3 + 2*0)/1 + 1 = 7" in one.explain("0")


def test_layers_are_found_by_the_end_of_their_path():
    found = nn.summary(nn.Sequential(lenet5(), nn.Linear(10, 3)), (1, 28, 28))
    assert found.explain("c3") == found.explain("0.c3")
    with pytest.raises(ArgumentError, match="one of 0.c1, 0.s2"):
        found.explain("c9")
    with pytest.raises(ArgumentError, match="one of 0.a, 1.a, got 'a'"):
        twins = (nn.Sequential({"a": nn.Linear(3, 3)}) for _ in range(2))
        nn.summary(nn.Sequential(*twins), (3,)).explain("a")


def test_output_size_is_strict():
    assert nn.output_size(7, 3) == 5 and nn.output_size(7, 3, 2) == 3 and nn.output_size(7, 3, 1, 1) == 7
    assert nn.output_size((32, 28), (5, 3), padding=(2, 1)) == (32, 28)
    assert nn.output_size(9, 3, dilation=2) == 5
    assert nn.output_size((224,), 7, 2, [(2, 3)]) == (112,)
    with pytest.raises(ShapeError, match=r"\(7 - 3 \+ 2\*0\)/3 \+ 1 = 2.33: does not fit\n.*down to 2.*padding=1 fits"):
        nn.output_size(7, 3, 3)
    with pytest.raises(ShapeError, match="least 1"):
        nn.output_size(2, 3)
    with pytest.raises(ShapeError, match="only padding unseen$"):
        nn.output_size(224, 7, 2, 3)
    with pytest.raises(ArgumentError, match="stride"):
        nn.output_size(7, 3, 0)


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("lenet5", (1, 28, 28)), ArgumentTypeError, "a Module, got str"),
        ((nn.ReLU(),), ArgumentTypeError, "an input_size"),
        ((nn.ReLU(), (3, -1)), ShapeError, "at least 0"),
        ((nn.ReLU(), (3,), 0), ArgumentError, "a batch of at least one image, got 0"),
        ((lenet5(), (3, 28, 28)), ShapeError, r"\(1, 3, 28, 28\)"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        nn.summary(*arguments)


def test_an_unknown_optimizer():
    with pytest.raises(ArgumentError, match="sgd, adam, adamw, got 'newton'"):
        nn.summary(nn.ReLU(), (3,), optimizer="newton")


# The command ----------------------------------------------------------------------------------------------------------

NET = ["summary", "lenet5", "--option", "padding=0", "--input", "1x32x32"]


def test_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main([*NET, "--batch", "64", "--optimizer", "adam", "--classes", "4"]) == 0
    text = capsys.readouterr().out
    assert "61,196 parameters" in text and "at batch size 64" in text and "state of adam" in text
    assert text.rstrip("\n") == str(nn.summary(lenet5(4, padding=0), (1, 32, 32), 64, optimizer="adam"))
    assert main([*NET, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["network"] == "lenet5" and report["total"]["macs"] == 416_520
    assert main([*NET, "--markdown"]) == 0
    assert "| c3 | Conv2d 5x5, ReLU | 16x10x10 | 2,416 |" in capsys.readouterr().out
    assert main([*NET, "--explain", "c3"]) == 0
    assert capsys.readouterr().out.startswith("c3: Conv2d 5x5, ReLU\n  input            6x14x14\n")
    assert main([*NET, "--depth", "1", "--training"]) == 0


def test_patterns_are_networks_too(capsys):
    pattern = "[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX"
    counts = ["--option", "N=2", "--option", "M=3", "--option", "K=1"]
    assert main(["summary", pattern, *counts, "--classes", "7", "--input", "1x28x36", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["input"] == [1, 28, 36] and report["layers"][-1]["output"] == [7]
    assert sum(layer["kind"] == "Conv2d" for layer in report["layers"]) == 6
    assert main(["summary", " ( CONV3-1/3 )", "--input", "1x7x7", "--explain", "0"]) == 0
    assert "1 filter: 1x2x2" in capsys.readouterr().out
    assert main(["summary", pattern]) == 1
    assert "^ column 14" in capsys.readouterr().err


class Reading(Module):
    """Does something with what its first layer gave before it goes on."""

    def __init__(self, does):
        super().__init__()
        self.first, self.second, self.does = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), does

    def forward(self, x):
        x = self.first(x)
        self.does(x)
        return self.second(x)


@pytest.mark.parametrize("does", [Tensor.realize, lambda x: np.zeros(3), lambda x: Tensor(np.zeros(3))])
def test_a_forward_that_realizes_on_the_way_is_counted_as_a_whole(does):
    found = nn.summary(Reading(does), (1, 8, 8))
    assert (found.total_params, found.total_macs) == (40 + 148, 36 * 36 + 4 * 36 * 16)


@pytest.mark.parametrize("does", [Tensor.numpy, lambda x: x.mean().item(), lambda x: bool(x.sum() > 0)])
def test_a_forward_that_reads_a_value_is_refused(does):
    net = nn.Sequential(nn.Identity(), Reading(does))
    with pytest.raises(CaptureError, match="summary: expected a forward of Reading that reads no values"):
        nn.summary(net, (1, 8, 8))
    assert not any(module.training is False for module in net.modules()), "left as it was"


def test_files_say_which_network_they_are_of(tmp_path, capsys):
    path = tmp_path / WEIGHTS
    info = ModelInfo("lenet5", {"num_classes": 4}, tuple("abcd"), Preprocessing((1, 28, 28), (0.13,), (0.31,)), "mnist")
    save_weights(path, lenet5(num_classes=4), info)
    for name in (path, tmp_path):  # the file, or the folder of its run
        assert main(["summary", str(name), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["total"]["params"] == 61_196 and report["input"] == [1, 28, 28]
    assert main(["summary", str(path), "--classes", "4"]) == 1
    assert "no options" in capsys.readouterr().err
    assert main(["summary", str(tmp_path / "none.safetensors")]) == 1
    assert "none.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [["--input", "3x0"], ["--input", "big"], ["--option", "padding"], ["--batch", "0"], ["--json", "--markdown"]],
)
def test_wrong_usage(more, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*NET, *more])
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["summary", "lenet4"], "lenet5"),
        (["summary", "Resnet18"], "did you mean 'resnet18'"),
        (["summary", "VGG16"], "did you mean 'vgg16'"),
        (["summary", "/nowhere/weights"], "/nowhere/weights: expected .* no such file"),
        (["summary", "lenet5.pth"], "lenet5.pth: expected .* no such file"),
        (["summary", ""], "models.get"),
        (["summary", "resnet20", "--option", "residual=perhaps"], "residual to be true or false, got 'perhaps'"),
        ([*NET, "--explain", "c33"], "did you mean 'c3'"),
        ([*NET, "--explain", "c9"], "expected one of c1, s2, c3"),
        ([*NET, "--option", "colour=true"], "colour"),
        (["summary", "lenet5", "--input", "3x28x28"], r"\(1, 3, 28, 28\)"),
    ],
)
def test_errors_are_one_message(argv, message, capsys):
    assert main(argv) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err, re.DOTALL)


def test_options_are_literals_or_words(capsys):
    assert main([*NET, "--option", "pool=average", "--option", "num_classes=7"]) == 0
    text = capsys.readouterr().out
    assert "AvgPool2d" in text and re.search(r"out +Linear +7 ", text)


@pytest.mark.parametrize("word, held", [("off", False), ("False", False), ("0", False), ("Yes", True), ("on", True)])
def test_options_may_be_switched_with_words(word, held, capsys):
    assert main(["summary", "vgg11", "--option", f"batch_norm={word}", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert any("BatchNorm2d" in row["kind"] for row in report["layers"]) == held


def test_a_module_is_explained_layer_by_layer():
    found = nn.summary(nn.models.googlenet())
    inside = [row.name for row in found.layers if row.name.startswith("inception3a.branch2.")]
    assert len(inside) == 2
    assert found.explain("inception3a.branch2") == "\n".join(map(found.explain, inside))


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "minigrad", *NET, "--json"]
    program = f"import subprocess; p = subprocess.Popen({command!r}, stdout=-1, stderr=-1); p.stdout.close(); "
    program += "print(p.stderr.read().decode(), p.wait())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == " 141\n"
