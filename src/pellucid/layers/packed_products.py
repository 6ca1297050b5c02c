"""Products of a block of packed weights and rounded inputs, as instructions for LLVM.

A block of 32 whole numbers meets 32 of 8 bits; their products are summed in whole numbers, and
meet the scale of the block once. With AVX2 that takes two instructions for the products of a block
(`vpmaddubsw`, `vpmaddwd`), which LLVM does not find by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pellucid.attention.instructions import (
    BYTE,
    HALF,
    REAL,
    SHORT,
    WORD,
    call,
    has,
    load,
    long,
    looped,
    shuffled,
    splat,
    vector,
)
from pellucid.attention.numba_cache import FAST

f32 = np.float32
BLOCK = 32
FEW = 4
"""Rows of weights that are multiplied at once, each a stream from memory."""


def _numbers_of(builder: Any, bits: int, address: Any) -> Any:
    """A block's 32 numbers of a row: of 4 bits, packed in 16 bytes; or of 8."""
    if bits == 8:
        return load(builder, address, vector(BYTE, 32))
    pairs = load(builder, address, vector(BYTE, 16))
    low = builder.and_(pairs, splat(ir.Constant(BYTE, 15), 16))
    high = builder.lshr(pairs, splat(ir.Constant(BYTE, 4), 16))
    return shuffled(builder, low, high, list(range(32)))


def _products(builder: Any, bits: int, numbers: Any, x: Any) -> Any:
    """8 sums of 4 neighbouring products each, int32, for 32 numbers and 32 inputs of 8 bits.

    Numbers of 4 bits are not negative. Inputs are from -127 to 127.
    """
    if has("avx2"):
        if bits == 8:  # the first factor has no sign, so that the second takes it over
            bytes_ = vector(BYTE, 32)
            x = call(builder, "llvm.x86.avx2.psign.b", bytes_, x, numbers)
            no = ir.Constant(ir.IntType(1), 0)
            numbers = call(builder, "llvm.abs.v32i8", bytes_, numbers, no)
        pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", vector(SHORT, 16), numbers, x)
        ones = splat(ir.Constant(SHORT, 1), 16)
        return call(builder, "llvm.x86.avx2.pmadd.wd", vector(WORD, 8), pairs, ones)
    widened = (builder.sext if bits == 8 else builder.zext)(numbers, vector(SHORT, 32))
    both = builder.mul(widened, builder.sext(x, vector(SHORT, 32)))
    words = builder.sext(both, vector(WORD, 32))
    parts = [shuffled(builder, words, words, list(range(at, 32, 4))) for at in range(4)]
    return builder.add(builder.add(parts[0], parts[1]), builder.add(parts[2], parts[3]))


def _constant(kind: Any, number: float) -> Any:
    """Of a vector or of a single number."""
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def _of_words(kind: Any) -> Any:
    """The int32 beside a type of float32."""
    return vector(WORD, kind.count) if isinstance(kind, ir.VectorType) else WORD


def _widened(builder: Any, numbers: Any, kind: Any) -> Any:
    """float16 as float32, also where the processor cannot."""
    if has("f16c"):
        return builder.fpext(numbers, kind)
    words = _of_words(kind)
    short = vector(SHORT, words.count) if isinstance(words, ir.VectorType) else SHORT
    bits = builder.zext(builder.bitcast(numbers, short), words)
    rest = builder.and_(bits, _constant(words, 0x7FFF))
    moved = builder.shl(rest, _constant(words, 13))
    # An exponent too small by 112; what is not finite keeps the greatest.
    scaled = builder.fmul(builder.bitcast(moved, kind), _constant(kind, 2.0**112))
    is_finite = builder.icmp_unsigned("<", rest, _constant(words, 0x7C00))
    odd = builder.or_(moved, _constant(words, 0x7F800000))
    widened = builder.select(is_finite, builder.bitcast(scaled, words), odd)
    sign = builder.shl(builder.and_(bits, _constant(words, 0x8000)), _constant(words, 16))
    return builder.bitcast(builder.or_(widened, sign), kind)


def _rounded_to_half(builder: Any, number: Any) -> Any:
    """A float32 rounded to float16, also where the processor cannot."""
    if has("f16c"):
        return builder.fpext(builder.fptrunc(number, HALF), REAL)
    bits = builder.bitcast(number, WORD)
    sign = builder.and_(bits, WORD(-(2**31)))
    size = builder.and_(bits, WORD(2**31 - 1))
    # Ties go to even: half a step less one is added, and one more if the last bit is set.
    last = builder.and_(builder.lshr(size, WORD(13)), WORD(1))
    even = builder.add(builder.add(size, WORD(0xFFF)), last)
    normal = builder.and_(even, WORD(-(2**13)))
    # Below 2^-14 steps are 2^-24.
    steps = builder.fmul(builder.bitcast(size, REAL), ir.Constant(REAL, 2.0**24))
    steps = call(builder, "llvm.rint.f32", REAL, steps)
    small = builder.fmul(steps, ir.Constant(REAL, 2.0**-24))
    is_small = builder.icmp_signed("<", size, WORD(0x38800000))
    rounded = builder.select(is_small, builder.bitcast(small, WORD), normal)
    is_large = builder.icmp_signed(">=", rounded, WORD(0x47800000))
    rounded = builder.select(is_large, WORD(0x7F800000), rounded)
    is_nan = builder.icmp_signed(">", size, WORD(0x7F800000))
    return builder.bitcast(builder.or_(builder.select(is_nan, size, rounded), sign), REAL)


def row_products(bits: int, is_half: bool, rows: int, is_split: bool = False) -> Any:
    """The intrinsic that multiplies some rows of weights by one of inputs.

    Args:
        bits: of a number.
        is_half: whether scales are float16.
        rows: of weights, at equal distances.
        is_split: whether the first and second half of a block have scales of their own.
    """
    kind, size = (HALF, 2) if is_half else (REAL, 4)

    def real(builder: Any, numbers: Any, kind: Any) -> Any:
        return _widened(builder, numbers, kind) if is_half else numbers

    def times(builder: Any, total: Any, left: Any, right: Any) -> Any:
        return builder.fadd(total, builder.fmul(left, right, FAST), FAST)

    def emitted(builder: Any, arguments: Any) -> list[Any]:
        weight, scale, least, apart, x, x_scale, x_sum, blocks = arguments
        wide = builder.mul(blocks, long(size * (2 if is_split else 1)))
        far = builder.mul(apart, builder.mul(blocks, long(4 * bits)))
        eight = vector(REAL, 8)

        def at(start: Any, row: int, distance: Any, place: Any, each: int) -> Any:
            """The address of an element of a row."""
            start = builder.add(start, builder.mul(distance, long(row)))
            return builder.add(start, builder.mul(place, long(each)))

        def spread(number: Any) -> Any:
            none = ir.Constant(vector(number.type, 8), ir.Undefined)
            first = builder.insert_element(none, number, ir.Constant(WORD, 0))
            return shuffled(builder, first, first, [0] * 8)

        scales_apart = builder.mul(apart, wide)

        def products(block: Any, totals: list[Any]) -> list[Any]:
            inputs = load(builder, at(x, 0, apart, block, 32), vector(BYTE, 32))
            common = spread(load(builder, at(x_scale, 0, apart, block, 4), REAL, 4))
            sums = []
            for row, total in enumerate(totals):
                numbers = _numbers_of(builder, bits, at(weight, row, far, block, 4 * bits))
                whole = builder.sitofp(_products(builder, bits, numbers, inputs), eight)
                if is_split:
                    place = at(scale, row, scales_apart, block, 2 * size)
                    pair = load(builder, place, vector(kind, 2), size)
                    own = shuffled(builder, pair, pair, [0] * 4 + [1] * 4)
                else:
                    own = spread(
                        load(builder, at(scale, row, scales_apart, block, size), kind, size)
                    )
                factor = builder.fmul(real(builder, own, eight), common)
                sums.append(times(builder, total, whole, factor))
            return sums

        def lowest(count: int, first: Any) -> Callable[..., list[Any]]:
            def add(number: Any, totals: list[Any]) -> list[Any]:
                place = builder.add(first, builder.mul(number, long(count)))
                shape = vector(kind, count) if count > 1 else kind
                wanted = vector(REAL, count) if count > 1 else REAL
                sums = load(builder, at(x_sum, 0, apart, place, 4), wanted, 4)
                return [
                    times(
                        builder,
                        total,
                        real(
                            builder,
                            load(builder, at(least, row, scales_apart, place, size), shape, size),
                            wanted,
                        ),
                        sums,
                    )
                    for row, total in enumerate(totals)
                ]

            return add

        zeros = [ir.Constant(eight, [0.0] * 8)] * rows
        totals = looped(builder, blocks, zeros, products)
        is_there = builder.icmp_signed("!=", least, long(0))
        count = builder.select(is_there, blocks, long(0))
        whole = builder.and_(count, long(-8))
        totals = looped(builder, builder.lshr(count, long(3)), totals, lowest(8, long(0)))
        sums = []
        for total in totals:
            parts = [builder.extract_element(total, ir.Constant(WORD, i)) for i in range(8)]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [
                    builder.fadd(left, right)
                    for left, right in zip(parts[:half], parts[half:], strict=True)
                ]
            sums += parts
        return looped(builder, builder.sub(count, whole), sums, lowest(1, whole))

    @intrinsic
    def products(
        typing_context: Any,
        weight: Any,
        scale: Any,
        least: Any,
        apart: Any,
        x: Any,
        x_scale: Any,
        x_sum: Any,
        blocks: Any,
    ) -> Any:
        """`rows` sums, as a tuple of float32.

        Args:
            typing_context: of Numba.
            weight, scale, least: addresses of the first row's; least is 0 if there is none.
            apart: how many rows lie from one to the next.
            x: address of the inputs, int8.
            x_scale, x_sum: addresses of their scales and sums, float32.
            blocks: of 32.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return context.make_tuple(builder, signature.return_type, emitted(builder, arguments))

        return types.UniTuple(types.float32, rows)(*(types.int64,) * 8), generate

    return products


@intrinsic
def through_half(typing_context: Any, number: Any) -> Any:
    """A float32 rounded to float16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _rounded_to_half(builder, arguments[0])

    return types.float32(types.float32), generate
