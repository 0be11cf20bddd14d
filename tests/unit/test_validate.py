"""Validate mode: no healthy kernel is called wrong, a planted fault is, and its reproducer shows it again."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad
from minigrad import Tensor, config, dtypes, jit, nn
from minigrad import device as devices
from minigrad.backends.base import Program
from minigrad.buffer import Buffer
from minigrad.errors import VerifyError
from minigrad.kernel import MAP, Instr, Kernel, Operand, verify
from minigrad.primitive import TABLE
from minigrad.shapes import Window
from minigrad.testing import kernels, program_strategies, reproducer, validate
from minigrad.testing.bounds import OutOfBound
from minigrad.testing.checks import WAYS, in_one_way
from minigrad.testing.kernels import compare_stores, expected, shown
from minigrad.view import Block, View

HERE = Path(__file__).parent
FLOAT = dtypes.float32


@pytest.fixture
def validating(monkeypatch, tmp_path):
    """Validate mode on, totals at 0, and a current directory for reproducers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(validate, "totals", validate.Totals())
    with config.settings.override(validate=True):
        yield tmp_path


@pytest.fixture
def faulty(backends):
    backends(faulty="faulty:FaultyBackend")
    return "faulty"


def copying(source, target, dtype=FLOAT, buffers=2):
    """The kernel that copies what one view shows to where another says."""
    body = (Instr("load", (), 0, dtype),)
    operands = (Operand(0, dtype, source),), (Operand(buffers - 1, dtype, target),)
    return Kernel(MAP, None, (), (), (), (), source.shape, body, ((0, 0),), *operands, buffers)


# No false alarm -------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(program_strategies.programs(most=4), st.sampled_from(["lazy", "row-major", "eager"]))
def test_every_kernel_of_random_programs_is_within_its_bound(program, way):
    launches = []
    with validate.watched(launches.append):
        in_one_way(program, "numpy", WAYS[way])
    for launch in launches:
        launch.compare()
        names = vars(sys.modules["builtins"]) | {"inf": np.inf, "nan": np.nan, "dtypes": dtypes, "TABLE": TABLE}
        classes = {c.__name__: c for c in (Kernel, Instr, Operand, View, Block, Window)}
        again = eval(reproducer.literal(launch.kernel), names | classes)
        assert repr(again) == repr(launch.kernel), "what is written is the kernel"


def trained(model, optimizer, steps):
    @jit
    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(0)
    for _ in range(steps):
        step(Tensor(rng.standard_normal((4, 1, 28, 28)).astype("float32")), Tensor(rng.integers(0, 10, 4))).numpy()


def test_training_lenet_raises_nothing(device, validating):
    """The first step runs as it is captured, the others are replays."""
    with minigrad.device.backend(device):
        model = nn.models.lenet5()
        trained(model, nn.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=5e-4), 3)
    totals = validate.totals
    assert totals.kernels > 40
    assert totals.decided > 0.95 * totals.elements > 0
    assert 0 < totals.worst <= 1
    assert not list(validating.iterdir())


def test_it_costs_nothing_when_it_is_off(monkeypatch):
    def never(*_):
        raise AssertionError("called")

    monkeypatch.setattr(validate, "check_launch", never)
    step = jit(lambda x: x * 2 + 1)
    assert [step(Tensor([n])).item() for n in (1.0, 2.0)] == [3.0, 5.0]


# Reading kernels ------------------------------------------------------------------------------------------------------

BLOCKED = View.of((3, 8), (1, 0, Block(1, 4)))
VIEWS = {
    "blocks": BLOCKED,
    "transposed blocks": BLOCKED.moved("permute", ((1, 0),)),
    "padding": View.of((3, 8)).moved("pad", (((1, 2), (0, 1)), -1.5)),
    "backwards": View((2, 4), (8, -2), 7),
    "repeated": View((3, 5), (1, 0), 2),
    "padded blocks": BLOCKED.moved("pad", (((2, 0), (0, 0)), 3.0)),
    "nothing": View((0, 4), (4, 1)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_read_as_they_are_defined_and_backends_agree(name, device):
    view = VIEWS[name]
    kernel = copying(view, View.of(view.shape))
    verify(kernel)
    opened = devices.get(device)
    array = np.arange(24, dtype=np.float32) + 1
    memory = [array, np.zeros(math.prod(view.shape), np.float32)]
    (found,) = expected(kernel, memory, device)
    assert np.array_equal(found.value, shown(view, array))
    for seen, before in ((kernel, memory), kernels.without_blocks(kernel, memory)):
        if device == "opencl" or all(o.view.blocks is None for o in seen.inputs):  # NumPy's knows no blocks
            after = reproducer.launch(opened, seen, before)
            compare_stores(seen, before, after, device)
            assert np.array_equal(after[-1].reshape(view.shape), found.value)


def test_a_load_beyond_the_buffer_is_a_contradiction():
    kernel = copying(View((5,), (1,), 20), View.of((5,)))
    with pytest.raises(VerifyError, match="20 to 24"):
        expected(kernel, [np.zeros(24, np.float32), np.zeros(5, np.float32)], "numpy")


def test_a_core_whose_epilogue_has_another_rank_several_outputs_positions_and_bounds():
    attrs = TABLE["max"].attrs((1,))
    load = Operand(0, FLOAT, View.of((2, 3)))
    pad = View((2,), (1,), 0, ((0, 1),))
    kernel = Kernel(
        "max", attrs, (Instr("load", (), 0, FLOAT),), (0,), ((2, 3),), ((2, 1),), (2,),
        (
            Instr("core", (), 0, FLOAT),
            Instr("iota", (), View((2,), (10,), 5), FLOAT),
            Instr("add", (0, 1), None, FLOAT),
            Instr("inside", (), pad, dtypes.bool_),
            Instr("const", (), (-0.0, -1.0), FLOAT),
            Instr("where", (3, 2, 4), None, FLOAT),
        ),
        ((5, 0),), (load,), (Operand(1, FLOAT, View.of((2,))),), 2,
    )  # fmt: skip
    verify(kernel)
    array = np.array([1, 4, 2, 7, 9, 8], np.float32)
    (found,) = expected(kernel, [array, np.zeros(2, np.float32)], "numpy")
    assert found.value.tolist() == [9.0, 0.0]
    assert np.signbit(found.value[1])


def test_kernels_that_write_over_what_they_read(device, validating, monkeypatch):
    in_place = []
    compare = kernels.compare_stores
    monkeypatch.setattr(validate, "compare_stores", lambda k, *a: in_place.append(k.writes_in_place) or compare(k, *a))
    x = Tensor(np.linspace(-2, 2, 24, dtype=np.float32).reshape(4, 6), device=device)

    @jit
    def step(y):
        x.assign(x * 3 + y)
        return x.sum()

    for n in range(3):
        step(Tensor(np.full((4, 6), n, np.float32), device=device)).item()
    assert any(in_place)
    np.testing.assert_allclose(x.numpy()[0, 0], -2 * 27 + 3 + 2, rtol=1e-6)


class Touching(Program):
    """Stores what it should, and a byte more at ``place`` of buffer ``buffer``."""

    def __init__(self, right, buffer, place):
        self.right, self.buffer, self.place = right, buffer, place

    def __call__(self, buffers):
        self.right(buffers)
        buffers[self.buffer][self.place] ^= 1


@pytest.mark.parametrize(("buffer", "place", "wrong"), [(1, 0, True), (1, 31, True), (0, 5, True), (1, 64, False)])
def test_memory_to_which_nothing_is_stored_stays_as_it_is(buffer, place, wrong, validating):
    """Elements 2, 4, 6 of 8 are stored; byte 64 is beyond the buffer."""
    kernel = copying(View.of((3,)), View((3,), (2,), 2))
    opened = devices.get("numpy")
    buffers = [Buffer.of(opened, np.arange(3, dtype=np.float32)), Buffer.of(opened, np.zeros(20, np.float32))]
    buffers[1].nbytes = 32
    program = Touching(opened.compile([kernel])[0], buffer, place)
    if wrong:
        with pytest.raises(VerifyError, match=f"byte {place} of .* of buffer {buffer} has changed"):
            validate.check_launch(opened, program, kernel, buffers)
    else:
        validate.check_launch(opened, program, kernel, buffers)
    buffers[1].nbytes = 80


def test_a_denormal_number_may_count_as_0_where_the_device_says_so(monkeypatch):
    kernel = copying(View.of((1,)), View.of((1,)))
    before, after = [np.array([1e-40], np.float32), np.ones(1, np.float32)], [np.array([1e-40], np.float32)]
    after.append(np.zeros(1, np.float32))
    with pytest.raises(OutOfBound):
        compare_stores(kernel, before, after, "numpy")
    monkeypatch.setattr("minigrad.testing.bounds._flushes", lambda device: True)
    compare_stores(kernel, before, after, "numpy")


# Faults ---------------------------------------------------------------------------------------------------------------


def test_a_wrong_kernel_is_caught_and_named(faulty, validating):
    x = Tensor(np.array([[0.5, 1.0], [3.0, -2.0]], np.float32), device=faulty)
    assert (x * 2).sum().item() == 5.0
    with pytest.raises(VerifyError) as caught:
        x.tanh().numpy()
    (path,) = validating.glob("minigrad-validate-tanh-*.py")
    text = str(caught.value)
    assert "kernel tanh [2, 2], launch 3, on faulty" in text
    assert "at [1, 0] of [2, 2] expected 0.995" in text
    assert "of the bound; 1 of 4 elements wrong" in text
    assert str(path) in text and f"minigrad bisect {path.name}" in text
    assert "listed('float32', '0x1p-1 0x1p+0 0x1.8p+1 -0x1p+1')" in path.read_text()


def test_an_input_that_is_written_is_caught(faulty, validating):
    with pytest.raises(VerifyError, match="byte 3 of 12 of buffer 0 has changed"):
        Tensor(np.ones(3, np.float32), device=faulty).exp().numpy()


def test_replays_are_checked_too_and_each_on_its_own_data(faulty, validating):
    step = jit(lambda x: x.tanh())
    for value in (0.1, 0.5, -3.0):
        step(Tensor([value, value], device=faulty)).numpy()
    with pytest.raises(VerifyError, match="kernel tanh"):
        step(Tensor([0.5, 2.0], device=faulty)).numpy()


def test_copies_after_a_captured_step_are_checked(validating, device):
    a, b = (Tensor(np.full(6, n, np.float32), device=device) for n in (1, 2))

    @jit
    def swap():
        old = a * 1
        a.assign(b)
        b.assign(old)

    names = []
    for _ in range(3):
        with validate.watched(lambda launch: names.append(launch.kernel.name)):
            swap()
    assert names.count("copy") >= 3, "the value that cannot be written in place is copied each time"
    assert (a.numpy()[0], b.numpy()[0]) == (2, 1)


def run(path, *arguments):
    """Run a file as users do, with the faulty backend's module in reach."""
    environment = os.environ | {"PYTHONPATH": str(HERE), "MINIGRAD_VALIDATE": "1"}
    found = subprocess.run(
        [sys.executable, str(path), *arguments], cwd=Path(path).parent, env=environment, capture_output=True, text=True
    )
    return found.returncode, found.stdout, found.stderr


def test_a_script_under_validate_stops_with_a_reproducer_that_a_healthy_backend_passes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\nfrom minigrad import Tensor, device\n"
        "name = device.register('faulty:FaultyBackend')\n"
        "x = Tensor(np.random.default_rng(0).standard_normal((50, 30)).astype('float32'), device=name)\n"
        "print((x + 1).numpy().shape)\nx.tanh().numpy()\n"
    )
    code, out, err = run(script)
    assert (code, out) == (1, "(50, 30)\n")
    assert "VerifyError: MINIGRAD_VALIDATE: kernel tanh [50, 30], launch 2, on faulty" in err
    assert "minigrad validate: kernels 2, wrong 1, elements 3000, undecided 0.00%" in err
    assert float(re.search(r"worst ([\d.e+]+) of the bound \(tanh ", err)[1]) > 1
    (path,) = tmp_path.glob("minigrad-validate-*.py")
    assert "drawn('float32', 1500, 0, " in path.read_text()
    code, out, err = run(path)
    assert code == 1 and "faulty is wrong: tanh: at " in out, err
    code, out, err = run(path, "numpy")
    assert code == 0 and "numpy is right: at most" in out, err


def test_inputs_that_no_drawn_ones_replace_are_in_the_file(faulty, validating):
    array = np.linspace(0, 1, 1001, dtype=np.float32)
    array[7] = 0.625
    with pytest.raises(VerifyError, match="kernel sin"):
        Tensor(array, device=faulty).sin().numpy()
    (path,) = validating.glob("*.py")
    assert "packed('float32', " in path.read_text()
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names | {"__name__": "read"}, names)
    np.testing.assert_array_equal(names["arrays"][0][:1001], array)


@pytest.mark.parametrize("dtype", dtypes.ALL)
def test_arrays_are_written_exactly(dtype):
    special = [0.0, -0.0, 1 / 3, -7.5, np.inf, -np.inf, np.nan, 1e-40]
    numbers = special if dtype.is_float else [0, 1] if dtype.kind == "b" else [dtype.min, dtype.max, 3]
    array = np.array(numbers, np.float64 if dtype.is_float else dtype.numpy).astype(dtype.numpy)
    for text in (reproducer._list(array), reproducer._pack(array)):
        again = eval(text, vars(reproducer))
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(again.astype(np.float64), array.astype(np.float64))
        if dtype.is_float:
            assert np.array_equal(np.signbit(again[:2]), [False, True])
    assert reproducer.drawn(array.dtype.name, 5, 0, *reproducer._range(array)).dtype == array.dtype
