"""A tile of a product of int8 weights and inputs of 16 bits, as instructions for LLVM.

One instruction (`vpmaddwd`; with VNNI `vpdpwssd`, which also adds) multiplies 16 or 32 pairs of
whole numbers of 16 bits and sums neighbours in 32 bits: twice the products of one for float32, and
nothing is lost. Those of 8 bits would be as many, and need inputs of 7 bits.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pellucid.layers.instructions import (
    REAL,
    SHORT,
    WORD,
    call,
    has,
    load,
    long,
    looped,
    shuffled,
    vector,
)

ROWS, COLUMNS = 2, 4
"""Of a tile: rows of inputs and of weights, whose sums all stay in registers."""
STEP = 32
"""The length of a row is a multiple of it."""


def _pair_sums(builder: Any, one: Any, other: Any, count: int) -> Any:
    """(count / 2,) int32, the sums of neighbouring products of (count,) int16 each."""
    half = vector(WORD, count // 2)
    if count == 32:
        return call(builder, "llvm.x86.avx512.pmaddw.d.512", half, one, other)
    if has("avx2"):
        return call(builder, "llvm.x86.avx2.pmadd.wd", half, one, other)
    words = vector(WORD, count)
    both = builder.mul(builder.sext(one, words), builder.sext(other, words))
    return _added(builder, both, both, list(range(0, count, 2)), list(range(1, count, 2)))


def _added(builder: Any, one: Any, other: Any, places: list[int], more: list[int]) -> Any:
    """The numbers of two vectors at some places, plus those at others."""
    left, right = (shuffled(builder, one, other, some) for some in (places, more))
    return builder.add(left, right)


def _summed(builder: Any, totals: list[Any]) -> Any:
    """(8,), the sum of each of 8 vectors (8,)."""
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    pairs = [
        _added(builder, one, other, low, high)
        for one, other in zip(totals[::2], totals[1::2], strict=True)
    ]
    low, high = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    fours = [
        _added(builder, one, other, low, high)
        for one, other in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    low, high = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]
    return _added(builder, fours[0], fours[1], low, high)


@intrinsic
def tile(
    typing_context: Any,
    x: Any,
    weight: Any,
    length: Any,
    x_scale: Any,
    scale: Any,
    bias: Any,
    out: Any,
    apart: Any,
) -> Any:
    """out = x @ weight.T * x_scale * scale + bias, for 2 rows of x and 4 of weight.

    Args:
        typing_context: of Numba.
        x, weight: addresses of rows of int16, one right after the other.
        length: of a row, a multiple of `STEP`. Sums must be below 2^31.
        x_scale, scale, bias: addresses of 2, 4 and 4 float32.
        out: address of 2 rows of 4 float32.
        apart: bytes from one to the next.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, weight, length, x_scale, scale, bias, out, apart = arguments
        count = 32 if has("avx512bw") else 16
        stride = builder.mul(length, long(2))

        def numbers(start: Any, row: int, place: Any) -> Any:
            address = builder.add(builder.add(start, builder.mul(stride, long(row))), place)
            return load(builder, address, vector(SHORT, count))

        def products(step: Any, totals: list[Any]) -> list[Any]:
            for part in range(0, 2 * STEP, 2 * count):
                place = builder.add(builder.mul(step, long(2 * STEP)), long(part))
                left = [numbers(x, row, place) for row in range(ROWS)]
                right = [numbers(weight, column, place) for column in range(COLUMNS)]
                both = [_pair_sums(builder, one, other, count) for one in left for other in right]
                totals = [builder.add(total, one) for total, one in zip(totals, both, strict=True)]
            return totals

        zeros = [ir.Constant(vector(WORD, count // 2), [0] * (count // 2))] * (ROWS * COLUMNS)
        totals = looped(builder, builder.sdiv(length, long(STEP)), zeros, products)
        if count == 32:
            low, high = list(range(8)), list(range(8, 16))
            totals = [_added(builder, total, total, low, high) for total in totals]
        found = builder.sitofp(_summed(builder, totals), vector(REAL, 8))
        rows = load(builder, x_scale, vector(REAL, ROWS))
        found = builder.fmul(found, shuffled(builder, rows, rows, [0] * 4 + [1] * 4))
        columns, added = (load(builder, place, vector(REAL, COLUMNS)) for place in (scale, bias))
        found = builder.fmul(found, shuffled(builder, columns, columns, [0, 1, 2, 3] * 2))
        found = builder.fadd(found, shuffled(builder, added, added, [0, 1, 2, 3] * 2))
        for row in range(ROWS):
            address = builder.add(out, builder.mul(apart, long(row)))
            pointer = builder.inttoptr(address, vector(REAL, COLUMNS).as_pointer())
            own = shuffled(builder, found, found, list(range(4 * row, 4 * row + 4)))
            builder.store(own, pointer, align=4)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8), generate
