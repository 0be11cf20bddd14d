"""Wrong input raises one clear error at the call, which names the op, what was expected and what came."""

import builtins
import inspect

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, device, dtypes, errors, nn
from minigrad.errors import BackendUnavailable, MinigradError, Unsupported
from minigrad.nn import optim


def t(*shape, dtype="float32"):
    return Tensor(np.ones(shape, dtype))


def windows(shape, weight, **options):
    return lambda: t(*shape).conv2d(t(*weight), **options)


# name: (call, built-in exception, what the message holds)
SHAPES = {
    "add": (lambda: t(2, 3) + t(4), RuntimeError, "add", "(2, 3)", "(4,)"),
    "compare": (lambda: t(2, 3) < t(2), RuntimeError, "lt", "(2, 3)", "(2,)"),
    "where": (lambda: Tensor.where(t(2) > 0, t(3), 0.0), RuntimeError, "where", "(2,)", "(3,)"),
    "maximum": (lambda: t(2).maximum(t(3)), RuntimeError, "maximum", "(2,)", "(3,)"),
    "in place": (lambda: t(2).__iadd__(t(3, 2)), RuntimeError, "assign", "(2,)", "(3, 2)"),
    "assign": (lambda: t(2, 3).assign(t(2)), RuntimeError, "assign", "(2, 3)", "(2,)"),
    "item assignment": (lambda: t(4, 3).__setitem__(0, t(2)), RuntimeError, "(3,)", "(2,)"),
    "assign to an expanded view": (lambda: t(1).expand(3).assign(0), RuntimeError, "assign", "expanded", "copy"),
    "matmul": (lambda: t(2, 3) @ t(4, 5), RuntimeError, "matmul", "(2, 3)", "(4, 5)"),
    "matmul batches": (lambda: t(2, 3, 4) @ t(3, 4, 5), RuntimeError, "matmul", "(2,)", "(3,)"),
    "matmul 0-d": (lambda: t() @ t(3), RuntimeError, "matmul", "()", "(3,)"),
    "dot": (lambda: t(2).dot(t(3)), RuntimeError, "(2,)", "(3,)"),
    "linear": (lambda: t(2, 3).linear(t(4, 5)), RuntimeError, "linear", "(2, 3)", "(4, 5)"),
    "linear bias": (lambda: t(2, 3).linear(t(4, 3), t(3)), RuntimeError, "linear", "(3,)"),
    "einsum": (lambda: Tensor.einsum("ij,jk->ik", t(2, 3), t(4, 5)), RuntimeError, "einsum", "j", "3", "4"),
    "reshape": (lambda: t(2, 3).reshape(4, 2), RuntimeError, "reshape", "6", "(4, 2)"),
    "reshape -1": (lambda: t(2, 3).reshape(4, -1), RuntimeError, "reshape", "(4, -1)"),
    "view": (lambda: t(2, 3).T.view(6), RuntimeError, "view", "reshape"),
    "expand": (lambda: t(2, 3).expand(4, 3), RuntimeError, "(2, 3)", "(4, 3)"),
    "cat": (lambda: Tensor.cat([t(2, 3), t(3, 3)], axis=1), RuntimeError, "cat", "(2, 3)", "(3, 3)"),
    "cat ranks": (lambda: Tensor.cat([t(2), t(2, 1)]), RuntimeError, "cat", "(2,)", "(2, 1)"),
    "stack": (lambda: Tensor.stack([t(2), t(3)]), RuntimeError, "stack", "(2,)", "(3,)"),
    "split": (lambda: t(5).split([2, 2]), RuntimeError, "split", "5", "2"),
    "pad": (lambda: t(2, 3).pad(((1, 0),) * 3), RuntimeError, "pad", "3"),
    "shrink": (lambda: t(4).shrink(((1, 9),)), RuntimeError, "shrink", "9"),
    "gather": (lambda: t(2, 3).gather(0, t(2, dtype="int64")), RuntimeError, "gather", "2"),
    "masked_fill": (lambda: t(2).masked_fill(t(3) > 0, 0.0), RuntimeError, "masked_fill", "(2,)", "(3,)"),
    "item": (lambda: t(2).item(), RuntimeError, "item", "(2,)"),
    "bool": (lambda: bool(t(2) > 0), RuntimeError, "bool", "(2,)", ".any()"),
    "backward": (lambda: (t(2).requires_grad_() * 2).backward(), RuntimeError, "backward", "(2,)", "gradient="),
    "gradient": (lambda: (t(2).requires_grad_() * 2).backward(t(3)), RuntimeError, "(2,)", "(3,)"),
    "cross_entropy": (lambda: t(4, 3).cross_entropy(t(5, dtype="int64")), RuntimeError, "cross_entropy", "4", "5"),
    "mse_loss": (lambda: t(4, 3).mse_loss(t(4)), RuntimeError, "mse_loss", "(4, 3)", "(4,)"),
    "max of nothing": (lambda: t(0, 3).max(0), RuntimeError, "max", "0"),
    "argmax of nothing": (lambda: t(3, 0).argmax(1), RuntimeError, "argmax", "0"),
    "Linear": (lambda: nn.Linear(3, 2)(t(4, 5)), RuntimeError, "linear", "3", "5"),
}
WINDOWS = {
    "conv2d rank": (windows((3, 8, 8, 8, 8), (4, 3, 3, 3)), RuntimeError, "conv2d", "(3, 8, 8, 8, 8)"),
    "conv2d weight rank": (windows((1, 3, 8, 8), (4, 3, 3)), RuntimeError, "conv2d", "(4, 3, 3)"),
    "conv2d channels": (windows((1, 3, 8, 8), (4, 2, 3, 3)), RuntimeError, "conv2d", "3", "2"),
    "conv2d groups": (windows((1, 3, 8, 8), (4, 3, 3, 3), groups=2), RuntimeError, "conv2d", "groups", "3"),
    "conv2d output groups": (windows((1, 4, 8, 8), (3, 2, 3, 3), groups=2), RuntimeError, "conv2d", "groups", "3"),
    "conv2d stride 0": (windows((1, 3, 8, 8), (4, 3, 3, 3), stride=0), RuntimeError, "conv2d", "stride", "0"),
    "conv2d padding -1": (windows((1, 3, 8, 8), (4, 3, 3, 3), padding=-1), RuntimeError, "conv2d", "padding", "-1"),
    "conv2d dilation 0": (windows((1, 3, 8, 8), (4, 3, 3, 3), dilation=0), RuntimeError, "conv2d", "dilation", "0"),
    "conv2d bias": (lambda: t(1, 3, 8, 8).conv2d(t(4, 3, 3, 3), t(3)), RuntimeError, "conv2d", "(3,)", "4"),
    "conv2d stride pair": (windows((1, 3, 8, 8), (4, 3, 3, 3), stride=(1, 2, 3)), RuntimeError, "stride", "(1, 2, 3)"),
    "conv1d": (lambda: t(1, 3, 8, 8).conv1d(t(4, 3, 3)), RuntimeError, "conv1d", "(1, 3, 8, 8)"),
    "conv3d": (lambda: t(1, 3, 8, 8).conv3d(t(4, 3, 3, 3, 3)), RuntimeError, "conv3d", "(1, 1, 3, 8, 8)"),
    "conv_transpose2d": (lambda: t(1, 3, 8, 8).conv_transpose2d(t(4, 3, 3, 3)), RuntimeError, "weight.shape[0]", "3"),
    "output_padding": (
        lambda: t(1, 3, 8, 8).conv_transpose2d(t(3, 3, 3, 3), stride=2, output_padding=2),
        RuntimeError, "conv_transpose2d", "output_padding", "2",
    ),
    "max_pool2d rank": (lambda: t(8).max_pool2d(2), RuntimeError, "max_pool2d", "(8,)"),
    "max_pool2d padding": (lambda: t(1, 3, 8, 8).max_pool2d(2, padding=2), RuntimeError, "max_pool2d", "padding", "2"),
    "max_pool2d kernel 0": (lambda: t(1, 3, 8, 8).max_pool2d(0), RuntimeError, "max_pool2d", "0"),
    "avg_pool2d padding": (lambda: t(1, 3, 8, 8).avg_pool2d(3, padding=2), RuntimeError, "avg_pool2d", "padding", "2"),
    "max_unpool2d": (
        lambda: t(1, 1, 2, 2).max_unpool2d(t(1, 1, 2, 3, dtype="int64"), 2),
        RuntimeError, "max_unpool2d", "(1, 1, 2, 3)",
    ),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3)(t(1, 2, 8, 8)), RuntimeError, "conv2d", "3", "2"),
}  # fmt: skip
DTYPES = {
    "conv2d": (lambda: t(1, 1, 3, 3).conv2d(t(1, 1, 2, 2, dtype="float64")), RuntimeError, "float32", "float64"),
    "matmul of complex": (lambda: Tensor(np.ones(3, complex)), TypeError, "complex128"),
    "strings": (lambda: Tensor(["a", "b"]), TypeError, "numbers"),
    "objects": (lambda: Tensor([object()]), TypeError, "numbers"),
    "ragged": (lambda: Tensor([[1.0], [1.0, 2.0]]), ValueError, "Tensor", "equal lengths"),
    "another's device": (lambda: t(2).to("cpu"), TypeError, "to: expected a dtype, or a device of numpy", "'cpu'"),
    "another's GPU": (lambda: t(2).to("cuda:0"), TypeError, "'cuda:0'", "cupy"),
    "dtype name": (lambda: t(2).cast("float33"), TypeError, "float33", "float32"),
    "requires_grad of integers": (lambda: t(2, dtype="int64").requires_grad_(), RuntimeError, "int64", "float"),
    "gradient by integers": (lambda: t(2).sum().gradient(t(2, dtype="int64")), RuntimeError, "int64"),
    "float index": (lambda: t(3)[t(1)], IndexError, "float32"),
    "mask of floats": (lambda: t(3).masked_fill(t(3), 0.0), RuntimeError, "bool", "float32"),
    "avg_pool of integers": (lambda: t(1, 1, 4, 4, dtype="int64").avg_pool2d(2), RuntimeError, "int64", "float"),
    "bits of floats": (lambda: t(2) & t(2), RuntimeError, "float32"),
    "float result in an integer": (lambda: t(2, dtype="int64").__iadd__(0.5), RuntimeError, "int64", "float32"),
    "number too large": (lambda: t(2, dtype="uint8") + 300, RuntimeError, "uint8", "300"),
    "cross_entropy targets": (lambda: t(2, 3).cross_entropy(t(2)), RuntimeError, "cross_entropy", "(2, 3)", "(2,)"),
    "add None": (lambda: t(2).add(None), TypeError, "add", "NoneType"),
    "index by float tensor": (lambda: [1, 2][t()], TypeError, "float32"),
    "len": (lambda: len(t()), TypeError, "0-d"),
    "iter": (lambda: list(t()), TypeError, "0-d"),
    "Function returns no tensor": (
        lambda: type("F", (minigrad.Function,), {"forward": staticmethod(lambda ctx, x: 3)}).apply(t(2)),
        TypeError, "F.forward", "int",
    ),
}  # fmt: skip
AXES = {
    "sum": (lambda: t(2, 3).sum(2), IndexError, "sum", "2"),
    "negative": (lambda: t(2, 3).sum(-3), IndexError, "sum", "-3"),
    "twice": (lambda: t(2, 3).sum((0, 0)), ValueError, "sum", "0"),
    "softmax": (lambda: t(2, 3).softmax(5), IndexError, "softmax", "5"),
    "cat": (lambda: Tensor.cat([t(2)], axis=1), IndexError, "cat", "1"),
    "stack": (lambda: Tensor.stack([t(2)], axis=3), IndexError, "stack", "3"),
    "permute": (lambda: t(2, 3).permute(0, 0), ValueError, "permute", "(0, 0)"),
    "permute count": (lambda: t(2, 3).permute(0), ValueError, "permute", "(0,)"),
    "transpose": (lambda: t(2, 3).transpose(0, 4), IndexError, "transpose", "4"),
    "unsqueeze": (lambda: t(2).unsqueeze(3), IndexError, "unsqueeze", "3"),
    "flip": (lambda: t(2).flip(1), IndexError, "flip", "1"),
    "axis and dim": (lambda: t(2).unsqueeze(axis=0, dim=0), TypeError, "unsqueeze", "axis=0", "dim=0"),
    "index": (lambda: t(2, 3)[2], IndexError, "2"),
    "negative index": (lambda: t(2, 3)[:, -4], IndexError, "-4"),
    "too many indices": (lambda: t(2)[0, 0], IndexError, "2"),
    "list index": (lambda: t(3)[[0, 5]], IndexError, "5"),
    "gather": (lambda: t(3).gather(0, [3]), IndexError, "gather", "3"),
    "topk": (lambda: t(3).topk(4), RuntimeError, "topk", "4", "3"),
    "sort": (lambda: t(3).sort(1), IndexError, "sort", "1"),
    "cumsum": (lambda: t(3).cumsum(1), IndexError, "cumsum", "1"),
    "reduction": (lambda: t(3).mse_loss(t(3), reduction="median"), ValueError, "median"),
    "pad mode": (lambda: t(3).pad((1, 1), mode="mirror"), ValueError, "mirror"),
    "einsum": (lambda: Tensor.einsum("ij,jk", t(2, 2)), ValueError, "einsum", "1"),
}


def check(call, builtin, *parts):
    with pytest.raises(builtin) as raised:
        call()
    error, text = raised.value, str(raised.value)
    assert isinstance(error, MinigradError), type(error)
    assert ": expected " in text and ", got " in text, text
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} missing in: {text}"
    return text


TABLES = {"shape": SHAPES, "window": WINDOWS, "dtype": DTYPES, "axis": AXES}
CASES = {f"{kind}: {name}": case for kind, table in TABLES.items() for name, case in table.items()}


@pytest.mark.parametrize("name", CASES)
def test_wrong_input(name):
    check(*CASES[name])


# Windows that do not fit: (spatial input, window, options, (N - F + P)/S + 1 with its numbers).

EMPTY = {
    "smaller than the window": ((2, 5), (3, 3), {}, "(2 - 3 + 0)/1 + 1 along spatial axis 0"),
    "the other axis": ((5, 2), (3, 3), {}, "(2 - 3 + 0)/1 + 1 along spatial axis 1"),
    "padding and stride": ((2, 5), (7, 3), {"padding": 1, "stride": 2}, "(2 - 7 + 2)/2 + 1"),
    "dilation": ((4, 4), (3, 3), {"dilation": 2}, "(4 - 5 + 0)/1 + 1"),
    "nothing": ((0, 4), (1, 1), {}, "(0 - 1 + 0)/1 + 1"),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_output_of_a_convolution_shows_the_formula(name):
    spatial, kernel, options, numbers = EMPTY[name]
    parts = ("output size (N - F + P)/S + 1 of at least 1", numbers, "hint: the window spans")
    check(lambda: t(1, 2, *spatial).conv2d(t(3, 2, *kernel), **options), RuntimeError, "conv2d", *parts)
    layer = nn.Conv2d(2, 3, kernel, **options)
    check(lambda: layer(t(1, 2, *spatial)), RuntimeError, "conv2d", *parts)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["conv", "max_pool", "avg_pool"])
def test_an_empty_output_in_every_rank(kind, rank):
    x = t(1, 1, *[4] * (rank - 1), 2)
    op = f"{kind}{rank}d"
    call = (lambda: x.__getattribute__(op)(t(1, 1, *[3] * rank))) if kind == "conv" else lambda: getattr(x, op)(3)
    numbers = f"(2 - 3 + 0)/{1 if kind == 'conv' else 3} + 1 along spatial axis {rank - 1}"
    check(call, RuntimeError, op, "(N - F + P)/S + 1", numbers)


def test_an_empty_output_inside_a_network_names_the_layer():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.MaxPool2d(4))
    check(lambda: net(t(1, 1, 5, 5)), RuntimeError, "max_pool2d", "(3 - 4 + 0)/4 + 1", "the padded input has 3")


def test_a_transposed_convolution_without_output_shows_its_formula():
    parts = ("conv_transpose2d", "(N - 1)*S + F - 2P + output_padding", "(1 - 1)*1 + 1 - 4 + 0")
    check(lambda: t(1, 1, 1, 1).conv_transpose2d(t(1, 1, 1, 1), padding=2), RuntimeError, *parts)


# Errors come at the call, also where everything before it is lazy.


def test_errors_come_before_anything_is_computed(launched):
    """Elsewhere, shape errors surface only when the value is needed."""
    lazy = (t(4, 4) * 2).relu()
    for call, *_ in (SHAPES | AXES).values():
        with pytest.raises(MinigradError):
            call()
    check(lambda: lazy @ t(3, 3), RuntimeError, "matmul")
    check(lambda: lazy.reshape(5), RuntimeError, "reshape")
    assert not launched and lazy.sum().item() == 32


def test_a_call_that_raises_changes_nothing():
    x = t(2, 3)
    for wrong in (lambda: x.__iadd__(t(4)), lambda: x.__setitem__((0, 0), t(2)), lambda: x.assign(t(2))):
        with pytest.raises(MinigradError):
            wrong()
    assert x.tolist() == [[1.0] * 3] * 2
    p = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], 0.1)
    with pytest.raises(MinigradError):
        optimizer.param_groups[0]["lr"] = -1.0
    assert optimizer.param_groups[0]["lr"] == 0.1


# Classes.

BASES = {
    "ShapeError": RuntimeError,
    "DTypeError": RuntimeError,
    "GradientError": RuntimeError,
    "CaptureError": RuntimeError,
    "VerifyError": RuntimeError,
    "DeviceError": RuntimeError,
    "BackendUnavailable": RuntimeError,
    "Unsupported": NotImplementedError,
    "OutOfMemory": MemoryError,
    "AxisError": IndexError,
    "ArgumentError": ValueError,
    "ArgumentTypeError": TypeError,
    "DataError": ValueError,
    "StateDictError": RuntimeError,
    "MissingExtra": ImportError,
    "DivergedError": FloatingPointError,
}


def test_every_error_is_a_built_in_one():
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, MinigradError)}
    assert classes.keys() == BASES.keys() | {"MinigradError"}
    for name, builtin in BASES.items():
        assert issubclass(classes[name], builtin)


PYTORCH = {
    "shape": "add, matmul, reshape, expand, cat, item, bool, backward, split",
    "window": "conv2d channels, conv2d groups, conv2d stride 0, conv2d padding -1, conv2d dilation 0, "
    "conv2d stride pair, max_pool2d kernel 0, output_padding",
    "axis": "sum, negative, twice, softmax, cat, permute, permute count, transpose, unsqueeze, index, "
    "too many indices, list index, topk, sort, cumsum, reduction",
}
PYTORCH = [f"{kind}: {name}" for kind, names in PYTORCH.items() for name in names.split(", ")]


@pytest.mark.parametrize("name", PYTORCH)
def test_pytorch_raises_the_same_built_in(name, monkeypatch):
    """The same call with PyTorch's tensors; its functions stand in for the methods it lacks."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    call, _, *_ = CASES[name]
    with pytest.raises(MinigradError) as ours:
        call()
    for method in ("conv2d", "conv_transpose2d", "max_pool2d", "mse_loss"):
        function = getattr(functional, method)
        bound = lambda self, *args, f=function, **options: f(self, *args, **options)  # noqa: E731
        monkeypatch.setattr(torch.Tensor, method, bound, raising=False)
    module = call.__globals__
    monkeypatch.setitem(module, "t", lambda *shape, dtype="float32": torch.ones(shape, dtype=getattr(torch, dtype)))
    monkeypatch.setitem(module, "Tensor", Wrapped(torch))
    with pytest.raises(Exception) as theirs:
        call()
    (expected,) = [c for c in type(theirs.value).__mro__ if vars(builtins).get(c.__name__) is c][:1]
    assert isinstance(ours.value, expected), f"PyTorch raises {expected.__name__}: {theirs.value}"


class Wrapped:
    """``Tensor.cat`` and the like, by PyTorch."""

    def __init__(self, torch):
        self.torch = torch

    def __getattr__(self, name):
        return lambda tensors, axis=0: getattr(self.torch, name)(tensors, dim=axis)


# Backends.


def test_an_unknown_backend_names_those_that_can_run(monkeypatch):
    monkeypatch.setenv("MINIGRAD_BACKEND", "cudnn")
    text = check(lambda: Tensor([1.0]), RuntimeError, "backend", "numpy", "'cudnn'", "no backend has that name")
    assert "minigrad backends" in text
    for call in (
        lambda: minigrad.set_backend("cudnn"),
        lambda: minigrad.backend("cudnn").__enter__(),
        lambda: Tensor([1.0], device="cudnn"),
        lambda: Tensor.zeros(2, device="cudnn"),
    ):
        with pytest.raises(BackendUnavailable, match="one that can run here"):
            call()
    monkeypatch.setenv("MINIGRAD_BACKEND", " NumPy ")
    assert Tensor([1.0]).device == "numpy"


def test_a_backend_named_by_its_class_is_registered(backends, monkeypatch):
    backends(faulty="faulty:FaultyBackend")
    assert Tensor([1.0], device="faulty:FaultyBackend").device == "faulty"
    assert Tensor([1.0], device="faulty:FaultyBackend:0").device == "faulty"
    monkeypatch.setenv("MINIGRAD_BACKEND", "faulty:FaultyBackend")
    assert Tensor([1.0]).device == "faulty"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nowhere:Off", ["'nowhere:Off'", "No module named 'nowhere'", "`minigrad backends` lists"]),
        ("faulty:Off", ["'faulty:Off'", "no attribute 'Off'"]),
        ("faulty:Planted", ["a subclass of minigrad.backends.base.Backend", "'faulty:Planted'"]),
        ("minigrad.backends.base:Backend", ["all methods", "without", "allocate"]),
        ("Abacus", ["'Abacus'", "no backend has that name"]),
    ],
)
def test_a_class_that_is_no_backend_is_named_as_it_was_typed(name, parts):
    check(lambda: minigrad.set_backend(name), RuntimeError, "backend: expected", *parts)


@pytest.mark.parametrize("index", ["7", "1", "x", "-1"])
def test_a_device_that_is_not_there(index):
    check(lambda: Tensor([1.0], device=f"numpy:{index}"), RuntimeError, "numpy has 1 device, numbered from 0")


class Missing:
    """A backend whose library is not installed."""

    @classmethod
    def available(cls):
        return "pyabacus is not installed; pip install minigrad[abacus]"


def test_a_missing_library_is_named_with_what_to_install(backends):
    """Tinygrad #5943: a bare FileNotFoundError."""
    backends(abacus=f"{__name__}:Missing", broken="minigrad.no_such_module:Backend")
    reasons = minigrad.available_backends()
    assert reasons["numpy"] is None and reasons["abacus"] == Missing.available()
    assert "no_such_module" in reasons["broken"]
    check(lambda: minigrad.set_backend("abacus"), RuntimeError, "pip install minigrad[abacus]", "(numpy")


def test_a_dtype_that_the_backend_lacks(monkeypatch):
    backend = device.get("numpy").backend
    few = type(backend.capabilities)(frozenset([dtypes.float32, dtypes.int64]), backend.capabilities.epilogues)
    monkeypatch.setattr(backend, "capabilities", few)
    for call in (lambda: Tensor(np.ones(2)), lambda: Tensor.zeros(2, dtype="float64")):
        text = check(call, RuntimeError, "backend numpy", "float32", "float64")
        assert "numpy" in text
    with pytest.raises(Unsupported):
        Tensor([1.0]).cast("float16").realize()


@pytest.mark.parametrize("on, words", [(True, "yes On TRUE 2".split()), (False, ["no", "off", "False", "0", ""])])
def test_switches_may_be_words(on, words, monkeypatch):
    for word in words:
        monkeypatch.setenv("MINIGRAD_VALIDATE", word)
        assert minigrad.config.Settings().validate is on, word


@pytest.mark.parametrize("name", ["MINIGRAD_SEED", "MINIGRAD_DEBUG", "MINIGRAD_VALIDATE"])
def test_settings_that_are_no_numbers(name, monkeypatch):
    monkeypatch.setenv(name, "many")
    settings = minigrad.config.Settings()
    read = {"SEED": minigrad.config.seed, "DEBUG": lambda: settings.debug, "VALIDATE": lambda: settings.validate}
    check(read[name.partition("_")[2]], ValueError, name, "an integer", "'many'")
