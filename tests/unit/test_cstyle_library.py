"""The mathematical library of the C-like renderer: as text, and on an OpenCL device against the float64 oracle."""

import re

import ml_dtypes
import numpy as np
import pytest

from minigrad import dtypes, reference
from minigrad.backends.cstyle.dialect import OPENCL, OPENCL_CLANG, WIDTHS
from minigrad.backends.cstyle.library import Functions
from minigrad.testing.bounds import TOLERANCES

DIALECTS = (OPENCL_CLANG, OPENCL)
OPTIONS = ["-cl-mad-enable", "-cl-denorms-are-zero"]
ONE = "exp expm1 log log1p sin cos tanh erf sigmoid sqrt rsqrt floor ceil trunc round".split()
TWO = "pow atan2 mod floordiv".split()
INTEGER = "floordiv mod pow shift_left shift_right".split()
HALVES = (dtypes.float16, dtypes.bfloat16)
TINY = 2.0**-126


def functions_of_all(dialect, width):
    """(name, dtype, dtypes of arguments, dtype of result) of every function a renderer may call."""
    for dtype in (dtypes.float32, dtypes.float64):
        yield from ((name, dtype, [dtype], dtype) for name in ONE)
        yield from ((name, dtype, [dtype] * 2, dtype) for name in TWO)
    for dtype in dtypes.INTEGERS:
        yield from ((name, dtype, [dtype] * 2, dtype) for name in INTEGER)
    for dtype in (*dtypes.INTEGERS, dtypes.float64):
        yield "to_odd", dtype, [dtype], dtypes.float32
    yield "threefry", dtypes.uint32, [dtypes.uint32] * 4, dtypes.uint32
    for half in HALVES:
        yield f"float32_to_{half.name}", dtypes.float32, [dtypes.float32], dtypes.uint16
        yield f"{half.name}_to_float32", dtypes.float32, [dtypes.uint16], dtypes.float32
        yield f"round_{half.name}", dtypes.float32, [dtypes.float32], dtypes.float32


# Text ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_every_function_renders_at_every_width(dialect):
    for width in (1, *WIDTHS):
        functions = Functions(dialect)
        for name, dtype, _, _ in functions_of_all(dialect, width):
            assert functions.call(name, width, dtype) == functions.call(name, width, dtype)
        text = functions.text()
        assert "@" not in text
        assert not re.search(r"\b[A-Z]\b", re.sub(r"//.*", "", text)), "a type was left unspelled"
        heads = re.findall(r"^static inline .*?\b(\w+)\([a-z]", text, re.M)
        assert len(heads) == len(set(heads)), "each function is written once"


def test_functions_come_after_those_they_call():
    functions = Functions(OPENCL_CLANG)
    functions.call("pow", 8)
    functions.call("sin", 8)
    names = [name for name, _ in functions.used()]
    for n, (name, text) in enumerate(functions.used()):
        called = set(re.findall(r"\b(\w+_(?:float|int)\d*)\(", text)) & set(names) - {name}
        assert called <= set(names[:n])


def test_float32_calls_no_built_in_function_on_clang():
    """Drivers may not inline them: ten times slower."""
    allowed = re.compile(r"as_\w+|__builtin_convertvector|__builtin_sqrtf|__attribute__|if|while|for|return")
    for width in (1, 4, 8, 16):
        functions = Functions(OPENCL_CLANG)
        for name, dtype, arguments, _ in functions_of_all(OPENCL_CLANG, width):
            if dtypes.float64 not in (dtype, *arguments):
                functions.call(name, width, dtype)
        own = {name for name, _ in functions.used()}
        called = set(re.findall(r"\b([a-z_]\w*)\(", functions.text())) - own
        assert not [c for c in called if not allowed.fullmatch(c)]
        assert "double" not in functions.text()


# On a device ---------------------------------------------------------------------------------------------------------


class Device:
    """Runs functions over arrays; the functions of one dialect and width are one program."""

    def __init__(self):
        self.cl = pytest.importorskip("pyopencl", reason="pyopencl is not installed: pip install minigrad[opencl]")
        try:
            found = [d for p in self.cl.get_platforms() for d in p.get_devices()]
        except self.cl.Error:
            found = []
        if not found:
            pytest.skip("no OpenCL device: pip install pyopencl[pocl] brings one")
        self.device = found[0]
        self.context = self.cl.Context([self.device])
        self.queue = self.cl.CommandQueue(self.context)
        self.programs = {}

    @property
    def float64(self):
        return "cl_khr_fp64" in self.device.extensions

    def program(self, dialect, width):
        """One kernel per signature, as building one takes long; its last argument says which function it applies."""
        if (dialect, width) not in self.programs:
            functions, signatures = Functions(dialect), {}
            for name, dtype, arguments, result in functions_of_all(dialect, width):
                if dtypes.float64 in (dtype, result) and not self.float64:
                    continue
                rows = signatures.setdefault((*arguments, result), {})
                rows[name, dtype] = functions.call(name, width, dtype)
            kernels = [self.kernel(dialect, width, n, *item) for n, item in enumerate(signatures.items())]
            text = dialect.prelude(self.float64) + functions.text() + "\n".join(kernels)
            program = self.cl.Program(self.context, text).build(OPTIONS)
            found = {
                row: (self.cl.Kernel(program, f"k{n}"), place, signature)
                for n, (signature, rows) in enumerate(signatures.items())
                for place, row in enumerate(rows)
            }
            self.programs[dialect, width] = found
        return self.programs[dialect, width]

    def kernel(self, dialect, width, n, signature, rows):
        *given, result = (dialect.storage[d] for d in signature)
        pointers = [dialect.pointer(c, f"a{i}", True) for i, c in enumerate(given)]
        parameters = ", ".join([*pointers, dialect.pointer(result, "out", False), "int n", "int which"])
        values = ", ".join(dialect.load(c, width, f"a{i} + i") for i, c in enumerate(given))
        cases = [
            f"case {place}: for (int i = 0; i < n; i += {width}) {{ "
            f"{dialect.store(result, width, 'out + i', f'{function}({values})')} }} break;"
            for place, function in enumerate(rows.values())
        ]
        lines = "\n".join(["{ switch (which) {", *cases, "} }"])
        return dialect.kernel(parameters, (1,)).replace("NAME", f"k{n}") + lines

    def __call__(self, dialect, width, name, dtype, *arrays):
        """The function on arrays of equal size."""
        kernel, place, (*arguments, result) = self.program(dialect, width)[name, dtype]
        flags, size = self.cl.mem_flags, arrays[0].size
        padded = -(-size // 16) * 16
        given = [np.resize(a.astype(d.numpy, copy=False), padded) for a, d in zip(arrays, arguments)]
        memory = [self.cl.Buffer(self.context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=a) for a in given]
        out = np.empty(padded, result.numpy)
        target = self.cl.Buffer(self.context, flags.WRITE_ONLY, out.nbytes)
        kernel(self.queue, (1,), (1,), *memory, target, np.int32(padded), np.int32(place))
        self.cl.enqueue_copy(self.queue, out, target)
        return out[:size]


@pytest.fixture(scope="module")
def device():
    return Device()


every = pytest.mark.parametrize(
    ("dialect", "width"),
    [(OPENCL_CLANG, w) for w in (1, 4, 8, 16)] + [(OPENCL, w) for w in (1, 4, 8, 16)],
    ids=lambda v: v.name if hasattr(v, "name") else str(v),
)
SPECIAL = [0.0, np.inf, np.nan, 1, 2, 3, 0.5, 1.5, 2.5, 1 - 2.0**-24, 1 + 2.0**-23, 0.49999997, 9.1, 3.93, 88.72283]
SPECIAL += [88.72284, 87.33654, 103.9, 104, 3199, 3201, 1e5, 1e10, 2.0**23 - 0.5, 2.0**23, 2.0**24, 1e30]
SPECIAL += [3.4028235e38, 2 * TINY, TINY, np.pi, np.pi / 2, 10.0]
SPECIAL = np.array([*SPECIAL, *(-v for v in SPECIAL)])
MANY = 6_000


def floats(rng, dtype):
    """Special numbers, all exponents, and where functions bend; no denormals, which may be flushed."""
    bits = rng.integers(0, 2**32, MANY, np.uint32).view(np.float32)
    wide = rng.standard_normal(MANY) * 10.0 ** rng.uniform(-3, 2, MANY)
    turns = np.round(10.0 ** rng.uniform(0, 5, MANY)) * np.pi / 2
    with np.errstate(invalid="ignore"):
        x = np.concatenate([SPECIAL, bits, wide, turns, np.linspace(-110, 110, MANY)])
    x = x.astype(np.float32).astype(dtype.numpy)
    return np.where(np.abs(x) < TINY, dtype.numpy.type(0), x)


def assert_close(got, expected, name, dtype, *given):
    """Within half of what the table of tolerances allows; twice the least number may be 0, overflow is infinity."""
    limit = TOLERANCES[name].ulps / 2 if dtype is dtypes.float32 else TOLERANCES[name].ulps * 8
    limit = max(limit, 0.502 if TOLERANCES[name].ulps else 0)
    info = np.finfo(dtype.numpy)
    largest = float(info.max) if dtype is dtypes.float32 else np.inf
    with np.errstate(all="ignore"):
        wide = got.astype(np.float64)
        exponent = np.frexp(np.where(np.isfinite(expected), np.minimum(np.abs(expected), info.max), 1))[1]
        ulp = np.ldexp(float(info.eps), exponent - 1)
        step = largest + float(info.eps) * largest / 2  # infinity is one step above the largest number
        apart = np.clip(wide, -step, step) - np.clip(expected, -step, step)
        same = (wide == expected) | (np.isnan(wide) & np.isnan(expected))
        bad = ~same & ~(np.abs(apart) <= limit * ulp + float(info.tiny))
    worst = np.flatnonzero(bad)[:5]
    shown = [(*(v[i] for v in given), "expected", expected[i], "got", got[i]) for i in worst]
    assert not bad.any(), f"{name}: {bad.sum()} of {bad.size} wrong: {shown}"


@every
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
def test_functions_of_floats(device, dialect, width, dtype):
    if dtype is dtypes.float64 and not device.float64:
        pytest.skip(f"{device.device.name} has no float64")
    rng = np.random.default_rng(width)
    x = floats(rng, dtype)
    for name in ONE:
        given = x[: len(SPECIAL) + 3 * MANY : 3] if name == "erf" else x  # the oracle's is slow
        expected = getattr(reference, name)(given.astype(np.float64))
        assert_close(device(dialect, width, name, dtype, given), expected, name, dtype, given)


@every
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
def test_functions_of_two_floats(device, dialect, width, dtype):
    if dtype is dtypes.float64 and not device.float64:
        pytest.skip(f"{device.device.name} has no float64")
    rng = np.random.default_rng(width)
    x = floats(rng, dtype)
    grid = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1).astype(np.float32).astype(dtype.numpy)
    near = (1 + rng.standard_normal(MANY) * 10.0 ** rng.uniform(-7, -1, MANY)).astype(np.float32).astype(dtype.numpy)
    base = np.exp(rng.uniform(-80, 80, MANY)).astype(np.float32).astype(dtype.numpy)
    near = np.where(near == 1, dtype.numpy.type(3), near)
    powers = [(rng.uniform(-100, 100, MANY) / np.log(b.astype(float))).astype(np.float32) for b in (base, near)]
    whole = rng.integers(-30, 30, x.size).astype(dtype.numpy)
    first = np.concatenate([x, grid[0], np.abs(x), x, base, near])
    second = np.concatenate([rng.permutation(x), grid[1], rng.permutation(x), whole, *powers]).astype(dtype.numpy)
    second = np.where(np.abs(second) < TINY, dtype.numpy.type(0), second)
    for name in TWO:
        expected = getattr(reference, name)(first.astype(np.float64), second.astype(np.float64))
        got = device(dialect, width, name, dtype, first, second)
        assert_close(got, expected, name, dtype, first, second)


@every
def test_signs_of_zero(device, dialect, width):
    values = np.array([0.0, -0.0, np.inf, -np.inf, 1, -1], np.float32)
    y, x = np.array(np.meshgrid(values, values)).reshape(2, -1)
    for name in ("atan2", "pow"):
        expected = getattr(reference, name)(y.astype(np.float64), x.astype(np.float64))
        got = device(dialect, width, name, dtypes.float32, y, x)
        decided = ~np.isnan(expected)
        assert np.array_equal(np.signbit(got[decided]), np.signbit(expected[decided])), name
    for name in ("floor", "ceil", "trunc", "round", "tanh", "erf"):
        given = np.array([0.0, -0.0], np.float32)
        assert np.signbit(device(dialect, width, name, dtypes.float32, given)).tolist() == [False, True], name


@every
def test_integers(device, dialect, width):
    rng = np.random.default_rng(width)
    for dtype in dtypes.INTEGERS:
        edges = [v for v in (*range(-3, 4), 7, 8, 15, 16, 31, 32, 63, 64) if v >= dtype.min]
        edges = np.array([dtype.min, dtype.min + 1, *edges, dtype.max - 1, dtype.max], dtype.numpy)
        x, y = np.array(np.meshgrid(edges, edges)).reshape(2, -1)
        a, b = (rng.integers(dtype.min, dtype.max, 1000, dtype.numpy, endpoint=True) for _ in range(2))
        few = rng.integers(max(dtype.min, -10), 30, 1000).astype(dtype.numpy)
        x, y = np.concatenate([x, a, a, few]), np.concatenate([y, b, few, rng.permutation(few)])
        for name in INTEGER:
            got = device(dialect, width, name, dtype, x, y)
            np.testing.assert_array_equal(got, getattr(reference, name)(x, y), f"{name} of {dtype.name}")
    words = [rng.integers(0, 2**32, 1000, np.uint32) for _ in range(4)]
    got = device(dialect, width, "threefry", dtypes.uint32, *words)
    np.testing.assert_array_equal(got, reference.threefry(*words))


def assert_same_bits(got, expected, what):
    """NaN may be any."""
    assert got.dtype == expected.dtype
    nan = np.isnan(expected.astype(np.float32))
    assert np.isnan(got.astype(np.float32))[nan].all(), what
    unsigned = np.dtype(f"u{got.itemsize}")
    np.testing.assert_array_equal(got.view(unsigned)[~nan], expected.view(unsigned)[~nan], what)


@every
def test_half_types(device, dialect, width):
    rng = np.random.default_rng(width)
    every_bits = np.arange(2**16, dtype=np.uint16)
    for half in HALVES:
        values = every_bits.view(half.numpy).astype(np.float32)
        got = device(dialect, width, f"{half.name}_to_float32", dtypes.float32, every_bits)
        assert_same_bits(got, values, half.name)
        with np.errstate(all="ignore"):
            ties = (values[1:].astype(np.float64) + values[:-1]) / 2
            x = np.concatenate([values, ties, np.nextafter(ties.astype(np.float32), np.float32(np.inf)), SPECIAL])
            x = np.concatenate([x, [65519.996, 65520, -65520, 3.39e38, 3.4e38], 10 ** rng.uniform(-9, 6, MANY)])
            x = x.astype(np.float32)
            x = np.where(np.abs(x) < TINY, np.float32(0), x)
            expected = x.astype(half.numpy)
        got = device(dialect, width, f"float32_to_{half.name}", dtypes.float32, x)
        assert_same_bits(got.view(half.numpy), expected, half.name)
        got = device(dialect, width, f"round_{half.name}", dtypes.float32, x)
        assert_same_bits(got, expected.astype(np.float32), half.name)


@every
def test_wider_types_are_rounded_to_halves_once(device, dialect, width):
    rng = np.random.default_rng(width)
    for dtype in (dtypes.int32, dtypes.uint32, dtypes.int64, dtypes.uint64):
        bits = rng.integers(9, 8 * dtype.itemsize - 1, MANY)
        digits = rng.integers(2**8, 2**9, MANY)  # nine: between two numbers of bfloat16
        ties = [int(d) << int(b) >> 8 for d, b in zip(digits, bits)]
        x = np.array([t + int(o) for t, o in zip(ties, rng.integers(-1, 2, MANY))], dtype.numpy)
        x = np.concatenate([x, 0 - x] if dtype.is_signed else [x, ~x])
        got = device(dialect, width, "to_odd", dtype, x).astype(ml_dtypes.bfloat16)
        expected = np.array([_to_bfloat16(int(v)) for v in x])
        np.testing.assert_array_equal(got.astype(np.float64), expected, dtype.name)
    if device.float64:
        ties = (np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)) * (1 + 2.0**-11)
        x = np.concatenate([ties, np.nextafter(ties, 0), np.nextafter(ties, np.inf), [np.inf, np.nan, 1e300, 65520]])
        x = np.concatenate([x, -x])
        with np.errstate(all="ignore"):
            expected = x.astype(np.float16)
            got = device(dialect, width, "to_odd", dtypes.float64, x).astype(np.float16)
        assert_same_bits(got, expected, "float64 to float16")


def _to_bfloat16(value):
    """An integer rounded to 8 digits, halves to even, exactly."""
    size = abs(value)
    drop = max(size.bit_length() - 8, 0)
    kept, rest = size >> drop, size & ((1 << drop) - 1)
    kept += drop > 0 and (2 * rest, kept & 1) > (1 << drop, 0)
    return (-1 if value < 0 else 1) * float(kept << drop)
