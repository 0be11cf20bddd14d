"""Stable sorting along an axis: values, and the positions that they came from.

What is sorted is keys: unsigned integers in the order that the values shall have. On CPUs a work-item sorts whole rows,
digit by digit (short ones by insertion). On GPUs groups sort chunks, and launch after launch merges them in pairs: each
element finds its place by counting, with a binary search, how many of the other run come before it.
"""

from __future__ import annotations

import math

from minigrad import dtypes
from minigrad.backends.cstyle.body import At, Emitter
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.nest import bound, constant, index_type, rows_of
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop, split
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import ITEMS, PER_CORE, decoded
from minigrad.backends.cstyle.templates.folds import position_dtype
from minigrad.dtypes import DType
from minigrad.kernel import Kernel

FEW = 32  # elements that are sorted by insertion
DIGIT = 256  # values of a digit: one byte
GROUP = 1024  # elements that are worth a group of their own


def render_sort(kernel: Kernel, target: Target) -> Rendered:
    """Sorted values and their positions."""
    if 0 in kernel.core_shapes[0]:
        return Rendered(())
    return _Sort(kernel, target).rendered()


class _Sort:
    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.source, self.descending = kernel.sources[0], kernel.attrs.descending
        self.target, self.length = target, kernel.source_shapes[0][kernel.attrs.axis]
        self.dtype = kernel.prologue[self.source].dtype
        kernel, self.along, self.kept, self.kept_shape, self.rows = rows_of(kernel)
        self.kernel, self.shape = kernel, kernel.space
        self.functions = Functions(target.dialect)
        self.e = Emitter(kernel, target, self.functions)
        self.index = index_type(self.e, math.prod(self.shape))
        self.decode, self.row = decoded("o", self.kept_shape, self.index, "k")
        self.positions = position_dtype(self.length)

    def rendered(self) -> Rendered:
        return self._items() if self.target.is_gpu else self._rows()

    def _at(self, position: str) -> tuple[list[str], list[At]]:
        """Statements, and the index at ``position`` of the row that :attr:`decode` finds."""
        decode, along = decoded(position, tuple(self.shape[a] for a in self.along), self.index, f"{position}_")
        at = [At()] * len(self.shape)
        for axis, place in zip([*self.kept, *self.along], [*self.row, *along]):
            at[axis] = place
        return decode, at

    def _value(self, position: str) -> tuple[list[str], str]:
        """Statements, and the source at a position."""
        decode, at = self._at(position)
        lines, names = self.e.lines(self.kernel.prologue, at)
        return [*decode, *lines], names[self.source]

    def _keyed(self, position: str) -> list[str]:
        """Statements that define ``key`` for the element at a position."""
        lines, value = self._value(position)
        return [*lines, *key_of(self.e, value, self.dtype, self.descending)]

    def _finish(self, found: str) -> list[str]:
        """The element at position p of the result: ``found`` is where it came from."""
        lines, value = self._value("from")
        decode, at = self._at("p")
        place = self.e.cast("from", self.positions, dtypes.int64, 1)
        core = [f"const {self.e.type(self.dtype)} value = {value};", f"const long place = {place};"]
        done = self.e.finish(at, core=("value", "place"))
        return [constant(self.index, "from", found), *lines, *core, *decode, *done]

    # CPUs.

    def _rows(self) -> Rendered:
        """Rows shared out to groups, each with memory for one row, twice."""
        wanted = max(1, min(PER_CORE * self.target.cores, self.rows * self.length // GROUP))
        each, groups = split(self.rows, wanted)
        few = self.length <= FEW
        row = self._inserted() if few else self._radix()
        group = self.target.dialect.group_id(index=self.index)
        lines = [
            constant(self.index, "first", f"{group} * {each}"),
            bound(self.index, "last", f"first + {each}", self.rows),
            loop("o", "first", "last", [*self.decode, *row], 1, self.index),
        ]
        scratch = () if few else (_key_dtype(self.dtype), self.positions)
        head = self.target.dialect.kernel(self.e.parameters(scratch), (1,))
        stage = Stage(block(head, lines), (groups,), (1,), self.e.buffers, tuple(range(len(scratch))))
        sizes = tuple(2 * groups * self.length * piece.itemsize for piece in scratch)
        return Rendered((stage,), self.functions.used(), sizes)

    def _inserted(self) -> list[str]:
        key, position = self.e.storage(_key_dtype(self.dtype)), self.e.storage(self.positions)
        place = [
            *self._keyed("p"),
            f"{self.index} j = p;",
            "for (; j > 0 && keys[j - 1] > key; --j) { keys[j] = keys[j - 1]; places[j] = places[j - 1]; }",
            "keys[j] = key;",
            "places[j] = p;",
        ]
        return [
            f"{key} keys[{self.length}];",
            f"{position} places[{self.length}];",
            loop("p", 0, self.length, place, 1, self.index),
            loop("p", 0, self.length, self._finish("places[p]"), 1, self.index),
        ]

    def _radix(self) -> list[str]:
        """From the lowest digit to the highest, each pass stable; digits that all keys share are passed over."""
        dialect, n, length = self.target.dialect, self.index, self.length
        passes, key = self.dtype.itemsize, self.e.storage(_key_dtype(self.dtype))
        if self.dtype.is_half:
            passes = 4  # of float32
        memory = f"{dialect.group_id(index=n)} * {2 * length}"
        kinds = (("keys", key, "s0"), ("places", self.e.storage(self.positions), "s1"))
        lines = []
        for name, kind, piece in kinds:
            lines.append(f"{dialect.pointer(kind, name, False)} = {piece} + {memory};")
            lines.append(f"{dialect.pointer(kind, f'{name}2', False)} = {name} + {length};")
        lines.append(f"{n} counts[{passes * DIGIT}];")
        lines.append(loop("d", 0, passes * DIGIT, ["counts[d] = 0;"]))
        count = [f"++counts[{d * DIGIT} + (int)(key >> {8 * d} & {DIGIT - 1})];" for d in range(passes)]
        lines.append(loop("p", 0, length, [*self._keyed("p"), *count, "keys[p] = key;", "places[p] = p;"], 1, n))
        swaps = [f"{dialect.pointer(k, 'old', False)} = {x}; {x} = {x}2; {x}2 = old;" for x, k, _ in kinds]
        move = [
            f"const {key} key = keys[p];",
            f"const {n} to = start[(int)(key >> (8 * d) & {DIGIT - 1})]++;",
            "keys2[to] = key;",
            "places2[to] = places[p];",
        ]
        digit = [
            f"{n} *start = counts + d * {DIGIT};",
            f"if (start[(int)(keys[0] >> (8 * d) & {DIGIT - 1})] == {length}) continue;",
            f"{n} sum = 0;",
            loop("v", 0, DIGIT, [f"const {n} count = start[v];", "start[v] = sum;", "sum += count;"]),
            loop("p", 0, length, move, 1, n),
            *(block("", [swap]) for swap in swaps),
        ]
        lines.append(loop("d", 0, passes, digit))
        lines.append(loop("p", 0, length, self._finish("places[p]"), 1, n))
        return lines

    # GPUs.

    def _items(self) -> Rendered:
        run = Runs(self.e, self.rows, self.length, _key_dtype(self.dtype), self.positions, self.index)
        stages = run.stages([*self.decode, *self._keyed("p")])
        _, places = run.found
        lines = [*item(self.e, self.index)]
        done = self._finish(f"{places}[i]")
        row = [constant(self.index, "o", f"i / {self.length}"), constant(self.index, "p", f"i % {self.length}")]
        lines.append(block(f"if (i < {self.rows * self.length})", [*row, *self.decode, *done]))
        stages.append(run.stage(lines, -(-self.rows * self.length // ITEMS)))
        return Rendered(tuple(stages), self.functions.used(), run.scratch)


def item(e: Emitter, index: str) -> list[str]:
    """The position ``i`` of an item among those of all groups."""
    return [constant(index, "i", f"{e.dialect.group_id(index=index)} * {ITEMS} + {e.dialect.local_id(0)}")]


def _key_dtype(dtype: DType) -> DType:
    return dtypes.uint64 if dtype.itemsize == 8 else dtypes.uint32


def key_of(e: Emitter, value: str, dtype: DType, descending: bool = False) -> list[str]:
    """Statements that define ``key``: NaN is the greatest, -0 equals 0."""
    kind = _key_dtype(dtype)
    name, suffix, bits = e.storage(kind), "UL" if kind.itemsize == 8 else "u", 8 * kind.itemsize
    lines = []
    if dtype.is_float:
        sign, infinity = 1 << bits - 1, 0x7FF << 52 if bits == 64 else 0xFF << 23
        least, most = f"{sign}{suffix}", f"{2**bits - 1}{suffix}"
        lines.append(f"const {name} bits = {e.dialect.reinterpret(value, name)}, size = bits & {sign - 1}{suffix};")
        ordered = f"bits ^ (bits == size ? {least} : {most})"
        text = f"size > {infinity}{suffix} ? {most} : size == 0 ? {least} : {ordered}"
    elif dtype is dtypes.bool_:
        text = f"({name})({value} != 0)"
    elif dtype.kind == "u":
        text = f"({name}){value}"
    else:
        text = f"({name}){value} + {1 << 8 * dtype.itemsize - 1}{suffix}"
    return [*lines, f"const {name} key = {f'~({text})' if descending else text};"]


class Runs:
    """Launches that sort rows of keys, with the positions they came from, in scratch memory.

    Attributes:
        found: names of the memory of the sorted keys and of their positions, row after row.
        scratch: bytes of all pieces.
    """

    def __init__(self, e: Emitter, rows: int, length: int, key: DType, position: DType, index: str) -> None:
        self.e, self.rows, self.length, self.index = e, rows, length, index
        self.fields = (key, position)
        self.rounds = max(0, (-(-length // ITEMS) - 1).bit_length())
        pieces = 2 if self.rounds else 1
        self.memory = self.fields * pieces
        self.scratch = tuple(rows * length * field.itemsize for field in self.memory)
        last = 2 * (self.rounds % 2)
        self.found = (f"s{last}", f"s{last + 1}")

    def stage(self, lines: list[str], groups: int) -> Stage:
        """A launch that sees all buffers and pieces of memory."""
        head = self.e.dialect.kernel(self.e.parameters(self.memory), (ITEMS,))
        return Stage(block(head, lines), (groups,), (ITEMS,), self.e.buffers, tuple(range(len(self.memory))))

    def stages(self, keyed: list[str]) -> list[Stage]:
        """The launches; ``keyed`` are statements that define ``key`` of the element at position p of row o."""
        found = [self._chunks(keyed)]
        for n in range(self.rounds):
            found.append(self._merge(ITEMS << n, 2 * (n % 2)))
        return found

    def _chunks(self, keyed: list[str]) -> Stage:
        """Each group sorts as many elements as it has items: an item counts those that come before its own."""
        dialect, (key, _), index = self.e.dialect, self.fields, self.index
        chunks, mine = -(-self.length // ITEMS), dialect.local_id(0)
        name = self.e.storage(key)
        before = f"(shared[z] < mine) | ((shared[z] == mine) & (z < {mine}))"
        lines = [
            dialect.local_array(name, "shared", ITEMS),
            constant(index, "o", f"{dialect.group_id(index=index)} / {chunks}"),
            constant(index, "first", f"{dialect.group_id(index=index)} % {chunks} * {ITEMS}"),
            constant(index, "p", f"first + {mine}"),
            bound("int", "count", f"(int)({self.length} - first)", ITEMS),
            f"{name} mine = 0;",
            block(f"if (p < {self.length})", [*keyed, "mine = key;"]),
            f"shared[{mine}] = mine;",
            dialect.barrier,
            "int rank = 0;",
            loop("z", 0, "count", [f"rank += {before} ? 1 : 0;"]),
            block(
                f"if (p < {self.length})",
                [
                    constant(index, "to", f"o * {self.length} + first + rank"),
                    "s0[to] = mine;",
                    "s1[to] = p;",
                ],
            ),
        ]
        return self.stage(lines, self.rows * chunks)

    def _merge(self, run: int, source: int) -> Stage:
        """Merge pairs of runs."""
        index, n, total = self.index, self.length, self.rows * self.length
        keys, places, to, name = f"s{source}", f"s{source + 1}", 2 - source, self.e.storage(self.fields[0])
        # Of the other run an element on the left wants what is less before it, one on the right also what is equal.
        search = [
            constant(index, "probe", "low + (high - low) / 2"),
            constant(name, "other", f"{keys}[row + probe]"),
            "const int before = left ? other < key : other <= key;",
            "low = before ? probe + 1 : low;",
            "high = before ? high : probe;",
        ]
        body = [
            constant(index, "row", f"i / {n} * {n}"),
            constant(index, "p", "i - row"),
            constant(index, "first", f"p / {2 * run} * {2 * run}"),
            bound(index, "middle", f"first + {run}", n),
            bound(index, "end", f"first + {2 * run}", n),
            constant(name, "key", f"{keys}[i]"),
            "const int left = p < middle;",
            f"{index} low = left ? middle : first, high = left ? end : middle;",
            block("while (low < high)", search),
            constant(index, "to", "i + low - middle"),
            f"s{to}[to] = key;",
            f"s{to + 1}[to] = {places}[i];",
        ]
        lines = [*item(self.e, index), block(f"if (i < {total})", body)]
        return self.stage(lines, -(-total // ITEMS))
