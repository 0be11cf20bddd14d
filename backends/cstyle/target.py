"""What the renderer knows of the device that a kernel is for."""

from __future__ import annotations

from dataclasses import dataclass

from minigrad.backends.cstyle.dialect import Dialect
from minigrad.dtypes import DType


@dataclass(frozen=True)
class Target:
    """A device class and its limits.

    Attributes:
        dialect: how its compiler wants things written.
        is_gpu: many work-items in a group, with local memory and barriers; otherwise one work-item per group that works
            on explicit vectors.
        lanes: float32 elements of a vector; 1 on GPUs.
        registers: vector registers, which bound the accumulators of a tile.
        cores: compute units: how many groups run at the same time.
        local_bytes: local memory of a work-group.
        dtypes: element types that it can store and compute with.
        tensor: whether there are tensor cores that the dialect knows of.
        tf32: whether they may multiply float32 values with 10 digits after the point.
    """

    dialect: Dialect
    is_gpu: bool
    lanes: int
    registers: int
    cores: int
    local_bytes: int
    dtypes: frozenset[DType]
    tensor: bool = False
    tf32: bool = False
