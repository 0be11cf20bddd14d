"""Level 5: tensors that share memory. Whatever is written through whichever view, all of them show it, as in NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Tensor
from minigrad.testing.conformance.support import needs, some
from minigrad.testing.evaluate import Array

pytestmark = pytest.mark.level(5)
ACTIONS = ("view", "view", "assign", "add", "reader", "copy", "swap", "realize")
VIEWS = ("slice", "flip", "permute", "unsqueeze")


class Action(NamedTuple):
    """What is done, to which of the tensors made so far, and a number that says how."""

    what: str
    which: int
    number: int


actions = st.lists(
    st.builds(Action, st.sampled_from(ACTIONS), st.integers(0, 20), st.integers(0, 23)), min_size=2, max_size=12
)


class Pair(NamedTuple):
    """A tensor and the array that does the same; memory of a reader is its own."""

    tensor: Tensor
    array: Array

    def view(self, number: int) -> Pair:
        """A view of both, by number."""
        kind, seed = VIEWS[number % 4], number // 4
        x, axis = self.array, seed % self.array.ndim
        if kind == "slice":
            keys = (np.s_[1:], np.s_[::2], np.s_[::-1], np.s_[0:1], np.s_[-1::-2], 0 if x.ndim > 1 else np.s_[:])
            key: list[Any] = [slice(None)] * x.ndim
            key[axis] = keys[seed]
            return Pair(self.tensor[tuple(key)], x[tuple(key)])
        if kind == "flip":
            return Pair(self.tensor.flip(axis), np.flip(x, axis))
        if kind == "permute":
            order = tuple(np.roll(range(x.ndim), seed).tolist())
            return Pair(self.tensor.permute(*order), x.transpose(order))
        return Pair(self.tensor[..., None], x[..., None]) if x.ndim < 5 else self

    def act(self, action: Action, pairs: list[Pair]) -> None:
        """Do one thing to both; what it makes joins ``pairs``."""
        tensor, array = self
        if action.what == "view":
            pairs.append(self.view(action.number))
        elif action.what == "assign":
            tensor.assign(action.number)
            array[...] = action.number
        elif action.what == "add":
            tensor += action.number
            array += action.number
        elif action.what == "reader":  # computed late, of what is there now
            pairs.append(Pair(tensor * 2, array * 2))
        elif action.what == "copy":  # from another view of perhaps the same memory
            like = [p for p in pairs if p.array.shape == array.shape]
            other = like[action.number % len(like)]
            tensor.assign(other.tensor)
            array[...] = other.array.copy()
        elif action.what == "swap":
            tensor.assign(tensor.flip(0) + 1)
            array[...] = np.flip(array, 0).copy() + 1
        else:
            tensor.realize()


@some(0.7)
@given(actions)
def test_any_writes_through_any_views(device: str, program: list[Action]) -> None:
    """Views of views, reads and writes between each other: all tensors agree with NumPy's arrays at the end."""
    needs(device, "assign_view", "strided_view", "copy", "add", "mul")
    x = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    pairs = [Pair(Tensor(x, device=device), x)]
    for action in program:
        pairs[action.which % len(pairs)].act(action, pairs)
    for n, (tensor, array) in enumerate(pairs):
        np.testing.assert_array_equal(tensor.numpy(), array, err_msg=f"tensor {n} of {len(pairs)}")
