"""Arithmetic of windows along one axis: which source positions an output position reads, through which taps."""

from __future__ import annotations

from typing import NamedTuple

from minigrad.shapes import Window


class Phase(NamedTuple):
    """Every ``step``-th output position of an axis from ``start`` on, ``length`` in all.

    Number ``k`` of them reads source position ``k * move + offset`` for each ``(tap, offset)`` of ``taps`` where that
    is inside; offsets ascend.
    """

    start: int
    step: int
    length: int
    move: int
    taps: tuple[tuple[int, int], ...]


def phases(window: Window, axis: int, outputs: int, adjoint: bool) -> list[Phase]:
    """The phases of an axis with ``outputs`` positions: one of a convolution, as many as its stride of its adjoint.

    >>> window = Window((3,), (2,), ((1, 1),), (1,))
    >>> phases(window, 0, 4, False)
    [Phase(start=0, step=1, length=4, move=2, taps=((0, -1), (1, 0), (2, 1)))]
    >>> [(p.start, p.taps) for p in phases(window, 0, 8, True)]
    [(0, ((1, 0),)), (1, ((2, 0), (0, 1)))]
    """
    kernel, stride, dilation = window.kernel[axis], window.stride[axis], window.dilation[axis]
    before = window.padding[axis][0]
    if not adjoint:
        return [Phase(0, 1, outputs, stride, tuple((t, t * dilation - before) for t in range(kernel)))]
    found = []
    for start in range(min(stride, outputs)):
        reach = [(t, start + before - t * dilation) for t in reversed(range(kernel))]
        taps = tuple((t, offset // stride) for t, offset in reach if offset % stride == 0)
        found.append(Phase(start, stride, -(-(outputs - start) // stride), 1, taps))
    return found


class Run(NamedTuple):
    """Equal tiles of positions, one after the other.

    Attributes:
        first: number ``k`` of the first position of the first tile.
        tiles: how many.
        step: positions from one to the next.
        points: first position of each point of a tile, from the tile's first.
        valid: per tap and point, the lanes (first, past last) that read inside the source.
    """

    first: int
    tiles: int
    step: int
    points: tuple[int, ...]
    valid: tuple[tuple[tuple[int, int], ...], ...]


def runs(phase: Phase, size: int, most: int, unit: int = 1, overlap: bool = True) -> list[Run]:
    """The positions of a phase over a source of ``size``, in tiles of at most ``most`` points of ``unit`` lanes.

    Tiles are as even as can be. Where ``unit`` does not divide the positions, the last point overlaps the one before;
    without ``overlap`` its last lanes are not valid.

    >>> [(r.first, r.tiles, r.points) for r in runs(Phase(0, 1, 8, 1, ((0, -1), (1, 0))), 8, 3)]
    [(0, 1, (0, 1, 2)), (3, 1, (0, 1, 2)), (6, 1, (0, 1))]
    """
    starts = list(range(0, phase.length, unit))
    if phase.length % unit and overlap:
        starts[-1] = phase.length - unit
    found: list[Run] = []
    at = 0
    for length in [size for size, count in shares(len(starts), most) for _ in range(count)]:
        tile = starts[at : at + length]
        at += length
        valid = tuple(tuple(_inside(phase, offset, k, unit, size) for k in tile) for _, offset in phase.taps)
        run = Run(tile[0], 1, length * unit, tuple(k - tile[0] for k in tile), valid)
        last = found[-1] if found else None
        if last and last[3:] == run[3:] and run.first == last.first + last.tiles * last.step:
            found[-1] = last._replace(tiles=last.tiles + 1)
        else:
            found.append(run)
    return found


def _inside(phase: Phase, offset: int, k: int, unit: int, size: int) -> tuple[int, int]:
    low = max(0, -(offset // phase.move) - k)
    high = min(unit, phase.length - k, (size - 1 - offset) // phase.move + 1 - k)
    return (low, high) if low < high else (0, 0)


def shares(total: int, most: int) -> list[tuple[int, int]]:
    """``total`` in as few even sizes of at most ``most`` as can be: pairs (size, how often).

    >>> shares(14, 6)
    [(5, 2), (4, 1)]
    """
    parts = -(-total // most)
    each, more = divmod(total, parts) if parts else (0, 0)
    return [(size, count) for size, count in ((each + 1, more), (each, parts - more)) if count]
