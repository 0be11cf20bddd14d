"""Functions with a derivative of their own, and derivatives of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigrad.errors import ArgumentTypeError, GradientError, ShapeError
from minigrad.graph import Node, apply, full_like, set_grad_enabled
from minigrad.tensor import Tensor


class Context:
    """What ``forward`` leaves for ``backward``: saved tensors, and any attribute that is set on it."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep ``tensors`` for ``backward``, which finds them in ``saved_tensors``."""
        self.saved_tensors = tensors


class Function:
    """An operation whose derivative is written by hand. Subclasses define ``forward`` and ``backward``.

    ``forward(ctx, *tensors, **options)`` computes with tensor operations; its own history is not recorded.
    ``backward(ctx, g)`` returns the gradient for each tensor argument (a tensor, or None), one alone or a tuple.

    >>> class Clip(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x.clip(-1, 1)
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g  # the straight-through estimator
    >>> x = Tensor([0.5, 3.0], requires_grad=True)
    >>> Clip.apply(x).sum().backward()
    >>> x.grad.tolist()
    [1.0, 1.0]
    """

    @staticmethod
    def forward(ctx: Context, *args: Any, **options: Any) -> Tensor:
        """The value."""
        raise GradientError.of("Function", "a subclass that defines forward", "none")

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor | None | Sequence[Tensor | None]:
        """The gradients of the tensor arguments, given that of the value."""
        raise GradientError.of("Function", "a subclass that defines backward", "none")

    @classmethod
    def apply(cls, *args: Any, **options: Any) -> Tensor:
        """The value of ``forward``, with ``backward`` as its derivative."""
        ctx = Context()
        with set_grad_enabled(False):
            value = cls.forward(ctx, *args, **options)
        if not isinstance(value, Tensor):
            raise ArgumentTypeError.of(f"{cls.__name__}.forward", "a tensor returned", type(value).__name__)
        inputs = [a.node for a in args if isinstance(a, Tensor)]
        return Tensor.wrap(apply("custom", value.node, *inputs, function=_Bound(cls, ctx, value.shape)))


class _Bound:
    """The derivative rule of one call; its first source is the value, which has none."""

    def __init__(self, function: type[Function], ctx: Context, shape: tuple[int, ...]) -> None:
        self.function, self.ctx, self.shape = function, ctx, shape
        self.result: tuple[Node, list[Any]] | None = None

    def vjp(self, index: int, g: Node, out: Node, *sources: Node) -> Node:
        if self.result is None or self.result[0] is not g:  # one call of backward serves all sources
            found = self.function.backward(self.ctx, Tensor.wrap(g))
            self.result = (g, list(found) if isinstance(found, (tuple, list)) else [found])
        grads = self.result[1]
        name = f"{self.function.__name__}.backward"
        if len(grads) != len(sources) - 1:
            raise GradientError.of(name, f"{len(sources) - 1} gradients", len(grads))
        grad = grads[index - 1] if index else None
        if grad is None:
            return full_like(sources[index], 0)
        if grad.shape != sources[index].shape:
            raise ShapeError.of(name, f"a gradient of shape {sources[index].shape}", grad.shape)
        node: Node = grad.node
        return node

    def forget(self) -> None:
        """Let go of the gradients, when all sources have theirs: they lead back to the node that holds this rule."""
        self.result = None

    def saved(self) -> list[Node]:
        """What ``backward`` will find in ``saved_tensors``."""
        return [tensor.node for tensor in self.ctx.saved_tensors]


def grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that gives the derivative of scalar ``f`` by its arguments ``argnums``.

    >>> grad(lambda x: (x * x).sum())(Tensor([1.0, 2.0])).tolist()
    [2.0, 4.0]
    >>> float(grad(grad(lambda x: x * x * x))(Tensor(2.0)))
    12.0

    Raises:
        ShapeError: if ``f`` does not return one element.
    """
    several = isinstance(argnums, Sequence)
    numbers = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)

    def derivative(*args: Any, **options: Any) -> Any:
        given = list(args)
        for n in numbers:  # a node of its own each, so that f(x, x) has two derivatives
            given[n] = given[n] + 0 if isinstance(given[n], Tensor) else Tensor(given[n])
        grads = f(*given, **options).gradient(*[given[n] for n in numbers])
        return tuple(grads) if several else grads[0]

    return derivative
