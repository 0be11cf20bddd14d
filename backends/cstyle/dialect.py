"""How a compiler wants kernels written: one frozen value per dialect, spelling is data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from minigrad import dtypes
from minigrad.backends.cstyle.source import NAME
from minigrad.dtypes import DType, Scalar

WIDTHS = (2, 4, 8, 16)  # lanes of vector types

_OWN = {
    dtypes.uint8: "uchar", dtypes.uint16: "ushort", dtypes.uint32: "uint", dtypes.uint64: "ulong",
    dtypes.int8: "char", dtypes.int16: "short", dtypes.int32: "int", dtypes.int64: "long",
    dtypes.float32: "float", dtypes.float64: "double",
}  # fmt: skip
_STORAGE = MappingProxyType(_OWN | {dtypes.bool_: "uchar", dtypes.float16: "ushort", dtypes.bfloat16: "ushort"})
_COMPUTE = MappingProxyType(_OWN | {dtypes.bool_: "int", dtypes.float16: "float", dtypes.bfloat16: "float"})
_SUFFIX = {dtypes.uint32: "u", dtypes.uint64: "UL", dtypes.int64: "L", dtypes.float64: ""}
_UNALIGNED = "typedef {type} {type}_u __attribute__((aligned(sizeof({element}))));"


@dataclass(frozen=True)
class Dialect:
    """The spelling of one language and compiler; texts have their parts in braces.

    Attributes:
        name: of the dialect.
        function: what stands before the return type of a function that kernels call.
        rare: the same of one that they hardly ever call.
        kernel_text: a kernel function up to its body: {x}, {y}, {z} items of a group, {bounds} all of them and how
            many groups a core shall have room for, {name}, {parameters}.
        spaces: qualifiers of memory: global, local, private.
        restrict: the qualifier of pointers to memory that nothing else points to.
        group_text: the position of the group along dimension {n}.
        item_text: the position of the item in its group along dimension {n}.
        barrier: a statement: items of a group wait for each other and for what they wrote to local memory.
        widest: lanes that the next three texts are good for; longer vectors are taken in halves.
        load_text: {width} > 1 neighbouring elements at {pointer} to const {element}, in memory {space}, as a vector.
        store_text: a statement that writes such a vector {value}.
        convert_text: a vector {value} converted lane by lane to the vector type {type}.
        reinterpret_text: the bits of {value} as {type}, which has the same size.
        build_text: the vector of {type} whose lanes are {parts}.
        sqrt_text: the square root of the float32 scalar {value}.
        prologue: the first lines of a program.
        unaligned: the type of a vector in memory that is aligned as its elements are; empty where none is needed.
        float64: a line that allows float64.
        storage: the C type of each dtype in memory. Bools are bytes there, half types their bits.
        compute: the C type of each dtype elsewhere. Bools are int, half types float.
        wide: bytes that an item may well read or write at once; 0 where vectors are the dialect's own.
        pack_text: the type of {width} neighbours {element} in memory, an array ``s`` that is aligned as a whole.
        warp: items of a group that run in step and can exchange values; 0 where nothing is known of them.
        exchange_text: the {value} that the item of the same warp has whose position differs in the bits {distance}.
        denormals: whether numbers below the least normal one count; otherwise they may be 0.
        functions: texts that replace those of the library, by name, in the language that it is written in.
    """

    name: str
    function: str
    rare: str
    kernel_text: str
    spaces: Mapping[str, str] = field(hash=False)
    restrict: str
    group_text: str
    item_text: str
    barrier: str
    widest: int
    load_text: str
    store_text: str
    convert_text: str
    reinterpret_text: str
    build_text: str
    sqrt_text: str
    prologue: tuple[str, ...]
    unaligned: str
    float64: str
    storage: Mapping[DType, str] = field(hash=False)
    compute: Mapping[DType, str] = field(hash=False)
    wide: int
    pack_text: str
    warp: int
    exchange_text: str
    denormals: bool
    functions: Mapping[str, str] = field(hash=False)

    # Programs.

    def prelude(self, float64: bool) -> str:
        """What a program begins with; ``float64`` says whether the device has it."""
        lines = list(self.prologue)
        if float64:
            lines.append(self.float64)
        if self.unaligned:
            elements = [c for c in _OWN.values() if float64 or c != "double"]
            lines += [self.unaligned.format(type=f"{e}{w}", element=e) for e in elements for w in WIDTHS]
        return "\n".join(filter(None, lines)) + "\n"

    def kernel(self, parameters: str, local: Sequence[int], resident: int = 0) -> str:
        """A kernel function up to its body, for work-groups of ``local`` items per dimension.

        ``resident`` says how many groups shall fit on a core at least, where the dialect can say that.
        """
        x, y, z = (*local, 1, 1)[:3]
        bounds = f"{x * y * z}" + (f", {resident}" if resident else "")
        return self.kernel_text.format(x=x, y=y, z=z, bounds=bounds, name=NAME, parameters=parameters)

    def group_id(self, dimension: int = 0, index: str = "int") -> str:
        """The position of the group along a dimension; with ``index`` long, sums and products of it are long."""
        wide = "" if index == "int" else f"({index})"
        return wide + self.group_text.format(n=dimension, axis="xyz"[dimension])

    def local_id(self, dimension: int = 0) -> str:
        """The position of the item in its group along a dimension."""
        return self.item_text.format(n=dimension, axis="xyz"[dimension])

    # Memory.

    def pointer(self, element: str, name: str, const: bool, restrict: bool = False, space: str = "global") -> str:
        """A pointer, as a parameter or at the left of an initialisation."""
        qualifier = self.restrict if restrict else ""
        return f"{self._space(space)}{'const ' if const else ''}{element} *{qualifier}{name}"

    def local_array(self, element: str, name: str, size: int) -> str:
        """A statement: an array that the items of a group share."""
        return f"{self._space('local')}{element} {name}[{size}];"

    def load(self, element: str, width: int, pointer: str, space: str = "global") -> str:
        """Neighbouring elements from ``pointer`` (to const) on, as a vector; it needs to be aligned as an element."""
        if width == 1:
            return f"({pointer})[0]"
        if width > self.widest:
            halves = [self.load(element, width // 2, place, space) for place in (pointer, f"{pointer} + {width // 2}")]
            return self.build(halves, self.vector(element, width))
        return self.load_text.format(element=element, width=width, pointer=pointer, space=self._space(space))

    def store(self, element: str, width: int, pointer: str, value: str, space: str = "global") -> str:
        """A statement: writes a vector where :meth:`load` reads it."""
        if width == 1:
            return f"({pointer})[0] = {value};"
        if width > self.widest:
            kept = f"const {self.vector(element, width)} kept{width} = {value};"
            low = self.store(element, width // 2, pointer, f"kept{width}.lo", space)
            high = self.store(element, width // 2, f"{pointer} + {width // 2}", f"kept{width}.hi", space)
            return f"{{ {kept} {low} {high} }}"
        where = self._space(space)
        return self.store_text.format(element=element, width=width, pointer=pointer, value=value, space=where)

    def _space(self, space: str) -> str:
        text = self.spaces[space]
        return text and f"{text} "

    def pack(self, element: str, width: int) -> str:
        """The type of neighbours that are read and written at once."""
        return self.pack_text.format(element=element, width=width)

    # Values.

    def exchange(self, value: str, distance: int) -> str:
        """The value of another item of the warp."""
        return self.exchange_text.format(value=value, distance=distance)

    def vector(self, element: str, width: int) -> str:
        """The type of ``width`` elements."""
        return element if width == 1 else f"{element}{width}"

    def cast(self, value: str, type_: str) -> str:
        """A scalar converted to a scalar type, or in every lane of a vector type."""
        return f"({type_})({value})"

    def convert(self, value: str, type_: str) -> str:
        """A scalar converted to a scalar type, or a vector lane by lane to a vector type."""
        element = type_.rstrip("0123456789")
        if element == type_:
            return self.cast(value, type_)
        width = int(type_[len(element) :])
        if width > self.widest:
            halves = [self.convert(f"({value}).{half}", f"{element}{width // 2}") for half in ("lo", "hi")]
            return self.build(halves, type_)
        return self.convert_text.format(value=value, type=type_)

    def reinterpret(self, value: str, type_: str) -> str:
        """The bits of a value as another type of the same size."""
        return self.reinterpret_text.format(value=value, type=type_)

    def build(self, parts: Sequence[str], type_: str) -> str:
        """A vector from its lanes."""
        return self.build_text.format(parts=", ".join(parts), type=type_)

    def sqrt(self, value: str) -> str:
        """The square root of a float32 scalar."""
        return self.sqrt_text.format(value=value)

    def literal(self, value: Scalar, dtype: DType) -> str:
        """A constant of ``dtype`` in its compute type."""
        if dtype.is_float:
            value = float(dtype.numpy.type(value))
            suffix = _SUFFIX.get(dtype, "f")
            if math.isfinite(value):
                return f"{value!r}{suffix}"
            text = "NAN" if math.isnan(value) else "-INFINITY" if value < 0 else "INFINITY"
            return text if suffix else f"(double){text}"
        value, suffix = int(value), _SUFFIX.get(dtype, "")
        if value == dtype.min and value < -(2**15):  # C has no negative literals
            return f"({value + 1}{suffix} - 1)"
        return f"{value}{suffix}"


_INLINE = "static inline __attribute__((always_inline))"
_KERNEL = "__kernel __attribute__((reqd_work_group_size({x}, {y}, {z}))) void {name}({parameters})"
_SPACES = MappingProxyType({"global": "__global", "local": "__local", "private": ""})

# The calling convention of long vectors, which Clang warns of, does not matter to functions that are inlined.
_PROLOGUE = (
    "#pragma OPENCL FP_CONTRACT ON",
    "#ifdef __clang__",
    '#pragma clang diagnostic ignored "-Wpsabi"',
    "#endif",
)

# Any OpenCL 1.2 compiler.
OPENCL = Dialect(
    name="opencl",
    function=_INLINE,
    rare=_INLINE,
    kernel_text=_KERNEL,
    spaces=_SPACES,
    restrict="restrict ",
    group_text="(int)get_group_id({n})",
    item_text="(int)get_local_id({n})",
    barrier="barrier(CLK_LOCAL_MEM_FENCE);",
    widest=4,  # 32 bytes at most: PoCL's LLVM 14 dies of built-in functions of vectors that no register holds
    load_text="vload{width}(0, {pointer})",
    store_text="vstore{width}({value}, 0, {pointer});",
    convert_text="convert_{type}({value})",
    reinterpret_text="as_{type}({value})",
    build_text="({type})({parts})",
    sqrt_text="sqrt({value})",
    prologue=_PROLOGUE,
    unaligned="",
    float64="#pragma OPENCL EXTENSION cl_khr_fp64 : enable",
    storage=_STORAGE,
    compute=_COMPUTE,
    wide=0,
    pack_text="",
    warp=0,
    exchange_text="",
    denormals=False,
    functions=MappingProxyType({}),
)

# Clang-based drivers of CPUs: built-in functions may be calls there (10 times slower), so none are used for float32.
OPENCL_CLANG = replace(
    OPENCL,
    name="opencl-clang",
    widest=16,
    load_text="*({space}const {element}{width}_u *)({pointer})",
    store_text="*({space}{element}{width}_u *)({pointer}) = {value};",
    convert_text="__builtin_convertvector({value}, {type})",
    sqrt_text="__builtin_sqrtf({value})",
    unaligned=_UNALIGNED,
)
