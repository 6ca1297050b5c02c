"""Tiles of a product of weights and a few rows of inputs, as instructions for LLVM.

Rows of both are read along their length, and the sums of all pairs stay in registers, so that a
number which is loaded once is used several times, and nothing is laid out anew.

For int8 weights and inputs of 16 bits, one instruction (`vpmaddwd`; with VNNI `vpdpwssd`, which
also adds) multiplies 16 or 32 pairs of whole numbers and sums neighbours in 32 bits: twice the
products of one for float32, and nothing is lost. Those of 8 bits would be as many, and need inputs
of 7 bits.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pellucid.attention.instructions import (
    LONG,
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
from pellucid.attention.numba_cache import FAST

COLUMNS = 4
"""Rows of weights of a tile: the columns of what it writes."""
WHOLE_ROWS, FLOAT_ROWS = 2, 3
"""Rows of inputs of a tile: with more, its sums would not fit in 16 registers."""
STEP = 32
"""The length of a row of whole numbers is a multiple of it."""
LANES = 16 if has("avx512f") else 8
"""Numbers of float32 that are multiplied at once: the least length of a row."""


def _pair_sums(builder: Any, left: Any, right: Any, count: int) -> Any:
    """(count / 2,) int32, the sums of neighbouring products of (count,) int16 each."""
    half = vector(WORD, count // 2)
    if count == 32:
        return call(builder, "llvm.x86.avx512.pmaddw.d.512", half, left, right)
    if has("avx2"):
        return call(builder, "llvm.x86.avx2.pmadd.wd", half, left, right)
    words = vector(WORD, count)
    both = builder.mul(builder.sext(left, words), builder.sext(right, words))
    return _added(builder, both, both, list(range(0, count, 2)), list(range(1, count, 2)))


def _stored(builder: Any, numbers: Any, address: Any) -> None:
    builder.store(numbers, builder.inttoptr(address, numbers.type.as_pointer()), align=4)


def _added(
    builder: Any, first: Any, second: Any, indices: list[int], other_indices: list[int]
) -> Any:
    """The numbers of two vectors at some indices, plus those at others."""
    left, right = (shuffled(builder, first, second, some) for some in (indices, other_indices))
    is_whole = isinstance(left.type.element, ir.IntType)
    return builder.add(left, right) if is_whole else builder.fadd(left, right)


def _halved(builder: Any, total: Any) -> Any:
    """(8,) of the same sum as a vector (8,) or (16,)."""
    low, high = list(range(8)), list(range(8, 16))
    return total if total.type.count == 8 else _added(builder, total, total, low, high)


def _sums_of_four(builder: Any, totals: list[Any]) -> list[Any]:
    """(8,) of each 4 vectors (8,): a sum of the lower half of each, then of the upper."""
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    pairs = [
        _added(builder, left, right, low, high)
        for left, right in zip(totals[::2], totals[1::2], strict=True)
    ]
    low, high = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    return [
        _added(builder, left, right, low, high)
        for left, right in zip(pairs[::2], pairs[1::2], strict=True)
    ]


@intrinsic
def whole_tile(
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
                left = [numbers(x, row, place) for row in range(WHOLE_ROWS)]
                right = [numbers(weight, column, place) for column in range(COLUMNS)]
                both = [_pair_sums(builder, row, column, count) for row in left for column in right]
                totals = [
                    builder.add(total, product) for total, product in zip(totals, both, strict=True)
                ]
            return totals

        zeros = [ir.Constant(vector(WORD, count // 2), [0] * (count // 2))] * (WHOLE_ROWS * COLUMNS)
        totals = looped(builder, builder.sdiv(length, long(STEP)), zeros, products)
        totals = [_halved(builder, total) for total in totals]
        low, high = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]
        first, second = _sums_of_four(builder, totals)
        sums = _added(builder, first, second, low, high)
        scaled = builder.sitofp(sums, vector(REAL, 8))
        rows = load(builder, x_scale, vector(REAL, WHOLE_ROWS))
        scaled = builder.fmul(scaled, shuffled(builder, rows, rows, [0] * 4 + [1] * 4))
        columns, added = (load(builder, place, vector(REAL, COLUMNS)) for place in (scale, bias))
        scaled = builder.fmul(scaled, shuffled(builder, columns, columns, [0, 1, 2, 3] * 2))
        scaled = builder.fadd(scaled, shuffled(builder, added, added, [0, 1, 2, 3] * 2))
        for row in range(WHOLE_ROWS):
            own = shuffled(builder, scaled, scaled, list(range(4 * row, 4 * row + 4)))
            _stored(builder, own, builder.add(out, builder.mul(apart, long(row))))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8), generate


def _float_tile(rows: int) -> Any:
    """The intrinsic for so many rows of float32."""
    several = vector(REAL, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, weight, length, bias, out, apart = arguments
        stride = builder.mul(length, long(4))

        def numbers(start: Any, row: int, place: Any) -> Any:
            address = builder.add(builder.add(start, builder.mul(stride, long(row))), place)
            return load(builder, address, several)

        def added(totals: list[Any], left: list[Any], place: Any) -> list[Any]:
            sums = list(totals)
            for column in range(COLUMNS):
                right = numbers(weight, column, place)
                for row, values in enumerate(left):
                    at = row * COLUMNS + column
                    product = builder.fmul(values, right, FAST)
                    sums[at] = builder.fadd(totals[at], product, FAST)
            return sums

        def products(step: Any, totals: list[Any]) -> list[Any]:
            place = builder.mul(step, long(4 * LANES))
            return added(totals, [numbers(x, row, place) for row in range(rows)], place)

        zeros = [ir.Constant(several, [0.0] * LANES)] * (rows * COLUMNS)
        totals = looped(builder, builder.sdiv(length, long(LANES)), zeros, products)
        # The last numbers are read again, with 0 in the place of those that are counted already.
        rest = builder.srem(length, long(LANES))
        remainder = builder.insert_element(
            ir.Constant(vector(LONG, LANES), ir.Undefined), rest, WORD(0)
        )
        first = shuffled(builder, remainder, remainder, [0] * LANES)
        order = ir.Constant(vector(LONG, LANES), [LANES - lane for lane in range(LANES)])
        is_new = builder.icmp_signed("<=", order, first)
        place = builder.mul(builder.sub(length, long(LANES)), long(4))
        left = [builder.select(is_new, numbers(x, row, place), zeros[0]) for row in range(rows)]
        is_odd = builder.icmp_signed("!=", rest, long(0))
        done = added(totals, left, place)
        totals = [builder.select(is_odd, new, old) for new, old in zip(done, totals, strict=True)]
        for row in range(rows):
            own = totals[row * COLUMNS : (row + 1) * COLUMNS]
            [sums] = _sums_of_four(builder, [_halved(builder, total) for total in own])
            values = _added(builder, sums, sums, [0, 1, 2, 3], [4, 5, 6, 7])
            values = builder.fadd(values, load(builder, bias, vector(REAL, COLUMNS)))
            _stored(builder, values, builder.add(out, builder.mul(apart, long(row))))
        return context.get_dummy_value()

    @intrinsic
    def tile(
        typing_context: Any, x: Any, weight: Any, length: Any, bias: Any, out: Any, apart: Any
    ) -> Any:
        """out = x @ weight.T + bias, for a few rows of x and 4 of weight, all float32.

        Args:
            typing_context: of Numba.
            x, weight: addresses of rows, one right after the other.
            length: of a row, at least 8.
            bias: address of 4.
            out: address of rows of 4.
            apart: bytes from one to the next.
        """
        return types.void(*(types.int64,) * 6), generate

    return tile


float_tile, float_tile_of_two = _float_tile(FLOAT_ROWS), _float_tile(2)
