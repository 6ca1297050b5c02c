"""Weights in blocks of small whole numbers, as GGUF files store them.

    weight = scale * whole + least,  a scale (and a least) for each block of 32 or 16 in a row

(ggml's quantised formats, ggml-quants.c of llama.cpp). What the blocks of each format hold is kept
apart here, in arrays of one type, so that one loop serves all formats: of 4 bits or 8.

As in llama.cpp, an input of a product is rounded too, to 8 bits in blocks of 32, so that products
are of whole numbers. What that costs is what it costs there.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

BLOCK = 32
"""Inputs that share a scale."""


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A matrix (rows, cols) of packed weights."""

    whole: Tensor
    """(rows, cols) int8; or (rows, cols / 2) uint8 with two numbers each: in every 16 bytes, the
    lower halves are the first 16 numbers of a block of 32."""
    scale: Tensor
    """(rows, blocks), float16 where that is exact, or float32."""
    least: Tensor
    """(rows, blocks) as scale, or (rows, 0) if 0 is a number of every block."""
    is_half: bool = False
    """Whether llama.cpp rounds a block's sum of inputs to float16."""

    @property
    def bits(self) -> int:
        return 4 if self.whole.dtype == torch.uint8 else 8

    @property
    def shape(self) -> tuple[int, int]:
        rows, size = self.whole.shape
        return rows, size * 8 // self.bits

    @property
    def nbytes(self) -> int:
        return self.whole.nbytes + self.scale.nbytes + self.least.nbytes

    def rows(self, chosen: Any) -> "Packed":
        """Some of the rows."""
        names = (field.name for field in fields(self) if field.name != "is_half")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def unpacked(self) -> Tensor:
        """(rows, cols) float32."""
        weight = self._scaled()
        if self.least.shape[1]:
            weight += self.least.float().unsqueeze(-1)
        return weight.view(self.shape)

    def times(self, x: Tensor) -> Tensor:
        """(..., rows) = x @ weights.T for x (..., cols), whose numbers are rounded."""
        whole, scale = rounded(x.float())
        used = scale.half().float()
        product = (whole * used.unsqueeze(-1)).flatten(-2) @ self._scaled().view(self.shape).T
        if self.least.shape[1]:  # it counts as often as the sum of a block's inputs
            sums = whole.float().sum(-1)
            sums = (scale * sums).half().float() if self.is_half else used * sums
            product += sums @ self.least.float().T
        return product.to(x.dtype)

    def _scaled(self) -> Tensor:
        """(rows, blocks, numbers in a block) float32: scale * whole."""
        rows, blocks = self.scale.shape
        if self.bits == 4:
            pairs = self.whole.view(rows, blocks, BLOCK // 2)
            numbers = torch.cat([pairs & 15, pairs >> 4], -1)
        else:
            numbers = self.whole.view(rows, blocks, -1)
        return numbers.float().mul_(self.scale.float().unsqueeze(-1))


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., blocks, 32) int8 and their scales (..., blocks), of x (..., cols) float32.

    Products take the scales rounded to float16, as llama.cpp does.
    """
    blocks = x.unflatten(-1, (-1, BLOCK))
    most = blocks.abs().amax(-1)
    inverse = torch.where(most > 0, 127 / most, 0.0)
    return (blocks * inverse.unsqueeze(-1)).round().to(torch.int8), most / 127


@dataclass(frozen=True, slots=True)
class Format:
    """A quantised format of ggml."""

    name: str
    block: int
    """Numbers in a block."""
    size: int
    """Bytes of a block."""
    read: Callable[[Tensor], Packed]
    """Takes the blocks apart: (rows, blocks, size) uint8."""


def _halves(blocks: Tensor, at: int) -> Tensor:
    """(rows, blocks) float16, stored from a byte on."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16).flatten(1)


def _pairs(numbers: Tensor) -> Tensor:
    """(rows, cols / 2) uint8 of 4-bit numbers (rows, ..., 32), as `Packed` has them."""
    low, high = numbers.split(BLOCK // 2, -1)
    pairs: Tensor = low | high << 4
    return pairs.flatten(1)


def _fifth_bits(blocks: Tensor, at: int) -> Tensor:
    """(rows, blocks, 32) uint8 of 5 bits: the fifth ones in 4 bytes, then the others in 16."""
    bits = (blocks[..., at : at + 4].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)) & 1
    pairs = blocks[..., at + 4 : at + 20]
    return torch.cat([pairs & 15, pairs >> 4], -1) | bits.flatten(-2) << 4


def _q4_0(blocks: Tensor) -> Packed:
    scale = _halves(blocks, 0)
    return Packed(blocks[..., 2:18].flatten(1), scale, -8 * scale)


def _q4_1(blocks: Tensor) -> Packed:
    return Packed(
        blocks[..., 4:20].flatten(1), _halves(blocks, 0), _halves(blocks, 2), is_half=True
    )


def _q5_0(blocks: Tensor) -> Packed:
    scale = _halves(blocks, 0)
    whole = _fifth_bits(blocks, 2).view(torch.int8) - 16
    return Packed(whole.flatten(1), scale, scale[:, :0])


def _q5_1(blocks: Tensor) -> Packed:
    whole = _fifth_bits(blocks, 4).view(torch.int8)
    return Packed(whole.flatten(1), _halves(blocks, 0), _halves(blocks, 2), is_half=True)


def _q8_0(blocks: Tensor) -> Packed:
    scale = _halves(blocks, 0)
    return Packed(blocks[..., 2:].flatten(1).view(torch.int8), scale, scale[:, :0])


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and least number of the 8 blocks of 32 in each of 256: 6 bits each, in 12 bytes."""
    packed = blocks[..., 4:16]
    first, second, third = packed.split(4, -1)
    scale = torch.cat([first & 63, (third & 15) | (first >> 6) << 4], -1).flatten(1)
    least = torch.cat([second & 63, (third >> 4) | (second >> 6) << 4], -1).flatten(1)
    whole, lowest = (_halves(blocks, at).float().repeat_interleave(8, 1) for at in (0, 2))
    return whole * scale, -lowest * least


def _q4_k(blocks: Tensor) -> Packed:
    pairs = blocks[..., 16:].unflatten(-1, (4, 32))  # two blocks of 32: lower halves, then upper
    numbers = torch.stack([pairs & 15, pairs >> 4], -2).flatten(-3, -2)
    return Packed(_pairs(numbers), *_k_scales(blocks))


def _q5_k(blocks: Tensor) -> Packed:
    pairs = blocks[..., 48:].unflatten(-1, (4, 32))
    numbers = torch.stack([pairs & 15, pairs >> 4], -2).flatten(-3, -2)
    fifth = blocks[..., None, 16:48] >> torch.arange(8, dtype=torch.uint8).unsqueeze(-1) & 1
    return Packed((numbers | fifth << 4).flatten(1).view(torch.int8), *_k_scales(blocks))


def _q6_k(blocks: Tensor) -> Packed:
    low = blocks[..., :128].unflatten(-1, (2, 2, 32))  # halves of 128, then of 64
    high = blocks[..., 128:192].unflatten(-1, (2, 1, 32))
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).unsqueeze(-1)
    four = torch.cat([low & 15, low >> 4], -2)
    numbers = (four | (high >> shifts & 3) << 4).flatten(1).view(torch.int8) - 32
    scales = blocks[..., 192:208].contiguous().view(torch.int8).flatten(1)
    scale = _halves(blocks, 208).float().repeat_interleave(16, 1) * scales
    return Packed(numbers, scale, scale[:, :0])


FORMATS = {
    2: Format("Q4_0", 32, 18, _q4_0),
    3: Format("Q4_1", 32, 20, _q4_1),
    6: Format("Q5_0", 32, 22, _q5_0),
    7: Format("Q5_1", 32, 24, _q5_1),
    8: Format("Q8_0", 32, 34, _q8_0),
    12: Format("Q4_K", 256, 144, _q4_k),
    13: Format("Q5_K", 256, 176, _q5_k),
    14: Format("Q6_K", 256, 210, _q6_k),
}
"""By their numbers in ggml."""
