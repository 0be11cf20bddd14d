"""THE table of primitives: importing this package fills :data:`minigrad.primitive.TABLE`."""

from minigrad.ops import contraction, creation, elementwise, indexing, movement, reduction, window
from minigrad.primitive import TABLE

__all__ = ["TABLE", "contraction", "creation", "elementwise", "indexing", "movement", "reduction", "window"]
