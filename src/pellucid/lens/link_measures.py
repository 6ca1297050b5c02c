"""What a change of contexts means to the next residual: its length, or what a direction loses."""

from typing import Protocol

import torch
from torch import Tensor

from pellucid.attention.scores import Block, pick_columns
from pellucid.errors import ShapeError
from pellucid.lens.contributions import heads_of_output
from pellucid.lens.mixing import Mixing


class Measure(Protocol):
    """How much a change of contexts matters."""

    def in_block(self, block: Block) -> Tensor:
        """Of mean - value, or of -value: what broadcasts to (items, heads, rows, cols)."""
        ...

    def of(self, links: Tensor, change: Tensor) -> Tensor:
        """(links,), of changes (links, value_dim)."""
        ...


class Length:
    """The length of a change, after the output projection."""

    def __init__(self, mixing: Mixing, weight: Tensor | None, means: Tensor | None, first: int):
        """means: (batch, heads, rows, value_dim) of rows from `first` on; None for zeros."""
        self.first = first
        heads, value = mixing.operands.shape[1], mixing.value
        self.projection: Tensor | None = None
        right = value.repeat_interleave(mixing.group, 1)
        if weight is not None:  # ||W v|| = ||R v|| where W = Q R
            parts = heads_of_output(weight, heads, value.shape[-1]).to(value)
            self.projection = torch.linalg.qr(parts, mode="r").R.mT
            right = right @ self.projection
        self.left: Tensor | None = None
        if means is not None:
            # Both less the same vector, so that squares cancel less.
            centre = right.mean(-2, keepdim=True)
            if self.projection is None:
                self.left = means - centre
            else:
                self.left = (means @ self.projection).sub_(centre)
            right = right.sub_(centre)
            self.left_squares = self.left.square().sum(-1)
        self.right, self.right_squares = right, right.square().sum(-1)

    def in_block(self, block: Block) -> Tensor:
        squares = pick_columns(
            self.right_squares[block.items, block.heads], block.cols, -1
        ).unsqueeze(-2)
        if self.left is None:
            return squares.sqrt()
        rows = slice(block.rows.start - self.first, block.rows.stop - self.first)
        left = self.left[block.items, block.heads, rows]
        right = pick_columns(self.right[block.items, block.heads], block.cols, -2)
        squares = squares + self.left_squares[block.items, block.heads, rows].unsqueeze(-1)
        squares = squares - 2 * (left @ right.mT)
        return squares.clamp_min_(0).sqrt_()

    def of(self, links: Tensor, change: Tensor) -> Tensor:
        lost: Tensor = torch.linalg.vector_norm(change, dim=-1)
        if self.projection is None:
            return lost
        for head, projection in enumerate(self.projection):
            at = links[:, 1] == head
            lost[at] = torch.linalg.vector_norm(change[at] @ projection, dim=-1)
        return lost


class Along:
    """What a direction loses by a change."""

    def __init__(
        self, mixing: Mixing, weight: Tensor, means: Tensor | None, first: int, direction: Tensor
    ) -> None:
        self.first = first
        heads, value = mixing.operands.shape[1], mixing.value
        parts = heads_of_output(weight, heads, value.shape[-1]).to(value)
        if direction.shape != parts.shape[1:2]:
            raise ShapeError(
                f"direction must be (model_dim,) = ({parts.shape[1]},), got "
                f"{tuple(direction.shape)}"
            )
        self.gain = direction.detach().to(value) @ parts
        """(heads, value_dim)"""
        gain = self.gain.unsqueeze(-1)
        self.right = (value.repeat_interleave(mixing.group, 1) @ gain).squeeze(-1)
        self.left = None if means is None else (means @ gain).squeeze(-1)

    def in_block(self, block: Block) -> Tensor:
        right = pick_columns(self.right[block.items, block.heads], block.cols, -1).unsqueeze(-2)
        if self.left is None:
            return right.abs()
        rows = slice(block.rows.start - self.first, block.rows.stop - self.first)
        left: Tensor = self.left[block.items, block.heads, rows]
        return (right - left.unsqueeze(-1)).abs_()

    def of(self, links: Tensor, change: Tensor) -> Tensor:
        return -(self.gain[links[:, 1]] * change).sum(-1)
