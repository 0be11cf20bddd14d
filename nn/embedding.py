"""Embedding: a table of vectors."""

from __future__ import annotations

from minigrad.dtypes import DType
from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.module import Module, Parameter
from minigrad.tensor import Tensor


class Embedding(Module):
    """Rows of a table, at first normal numbers.

    Args:
        num_embeddings: rows of the table.
        embedding_dim: length of a row.
        padding_idx: a row that is zero at first and gets no gradient; negative numbers count from the end.
        device: where the table lives; None is the default device.
        dtype: its dtype; None is float32.

    Attributes:
        weight: the table, of shape (num_embeddings, embedding_dim).

    Raises:
        ArgumentError: if ``padding_idx`` is out of range.

    >>> layer = Embedding(10, 3, padding_idx=0)
    >>> layer(Tensor([[1, 4], [9, 0]])).shape, layer(Tensor([0])).tolist()
    ((2, 2, 3), [[0.0, 0.0, 0.0]])
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        *, device: str | None = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ArgumentError.of("Embedding", f"padding_idx within {num_embeddings} rows", padding_idx)
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        weight = Tensor.randn(num_embeddings, embedding_dim, dtype=dtype, device=device)
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0.0
        self.weight = weight.requires_grad_()

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """A layer with a copy of the given table, of shape (rows, length); frozen unless told otherwise.

        Raises:
            ShapeError: if it is no matrix.
        """
        if embeddings.ndim != 2:
            raise ShapeError.of("Embedding.from_pretrained", "a matrix", embeddings.shape)
        rows, length = embeddings.shape
        layer = cls(rows, length, padding_idx, device=embeddings.device, dtype=embeddings.dtype)
        layer.register_parameter("weight", Parameter(embeddings, requires_grad=not freeze))
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Integers of any shape to that shape and one axis more, of length embedding_dim."""
        return input.embedding(self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The settings."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
