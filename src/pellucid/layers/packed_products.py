"""Products of a block of packed weights and rounded inputs, as instructions for LLVM.

A block of 32 whole numbers meets 32 of 8 bits; their products are summed in whole numbers, and
meet the scale of the block once. With AVX2 that takes two instructions for the products of a block
(`vpmaddubsw`, `vpmaddwd`), which LLVM does not find by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

from pellucid.attention.numba_cache import FAST

f32 = np.float32
BLOCK = 32
FEW = 4
"""Rows of weights that are multiplied at once, each a stream from memory."""
BYTE, SHORT, WORD, REAL = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
HALF, LONG = ir.HalfType(), ir.IntType(64)


def _has_avx2() -> bool:
    """Whether Numba compiles for a processor with AVX2."""
    if config.CPU_FEATURES is not None or config.CPU_NAME is not None:
        return "+avx2" in (config.CPU_FEATURES or "")
    return bool(binding.get_host_cpu_features().get("avx2"))


def _long(number: int) -> Any:
    return ir.Constant(LONG, number)


def _vector(kind: Any, count: int) -> Any:
    return ir.VectorType(kind, count)


def _splat(number: Any, count: int = 32) -> Any:
    return ir.Constant(_vector(number.type, count), [number.constant] * count)


def _load(builder: Any, address: Any, kind: Any, align: int = 1) -> Any:
    pointer = builder.inttoptr(address, kind.as_pointer())
    return builder.load(pointer, align=align)


def _shuffled(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    mask = ir.Constant(_vector(WORD, len(places)), places)
    return builder.shuffle_vector(first, second, mask)


def _numbers_of(builder: Any, bits: int, address: Any) -> Any:
    """A block's 32 numbers of a row: of 4 bits, packed in 16 bytes; or of 8."""
    if bits == 8:
        return _load(builder, address, _vector(BYTE, 32))
    pairs = _load(builder, address, _vector(BYTE, 16))
    low = builder.and_(pairs, _splat(ir.Constant(BYTE, 15), 16))
    high = builder.lshr(pairs, _splat(ir.Constant(BYTE, 4), 16))
    return _shuffled(builder, low, high, list(range(32)))


def _products(builder: Any, bits: int, numbers: Any, x: Any) -> Any:
    """8 sums of 4 neighbouring products each, int32, for 32 numbers and 32 inputs of 8 bits.

    Numbers of 4 bits are not negative. Inputs are from -127 to 127.
    """
    if _has_avx2():
        module = builder.module

        def call(name: str, result: Any, *arguments: Any) -> Any:
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            function = module.globals.get(name) or ir.Function(module, kind, name)
            return builder.call(function, arguments)

        if bits == 8:  # the first factor has no sign, so that the second takes it over
            bytes_ = _vector(BYTE, 32)
            x = call("llvm.x86.avx2.psign.b", bytes_, x, numbers)
            no = ir.Constant(ir.IntType(1), 0)
            numbers = call("llvm.abs.v32i8", bytes_, numbers, no)
        pairs = call("llvm.x86.avx2.pmadd.ub.sw", _vector(SHORT, 16), numbers, x)
        ones = _splat(ir.Constant(SHORT, 1), 16)
        return call("llvm.x86.avx2.pmadd.wd", _vector(WORD, 8), pairs, ones)
    widened = (builder.sext if bits == 8 else builder.zext)(numbers, _vector(SHORT, 32))
    both = builder.mul(widened, builder.sext(x, _vector(SHORT, 32)))
    words = builder.sext(both, _vector(WORD, 32))
    parts = [_shuffled(builder, words, words, list(range(at, 32, 4))) for at in range(4)]
    return builder.add(builder.add(parts[0], parts[1]), builder.add(parts[2], parts[3]))


def _looped(
    builder: Any, count: Any, begun: list[Any], body: Callable[..., list[Any]]
) -> list[Any]:
    """Values after a loop: `body` makes the next ones from its number and those before."""
    start = builder.block
    loop, end = (builder.append_basic_block(name) for name in ("loop", "end"))
    builder.cbranch(builder.icmp_signed(">", count, _long(0)), loop, end)
    builder.position_at_end(loop)
    at = builder.phi(LONG)
    values = [builder.phi(value.type) for value in begun]
    nexts = body(at, values)
    following = builder.add(at, _long(1))
    latch = builder.block
    for phi, first, later in zip(
        (at, *values), (_long(0), *begun), (following, *nexts), strict=True
    ):
        phi.add_incoming(first, start)
        phi.add_incoming(later, latch)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, end)
    builder.position_at_end(end)
    results = [builder.phi(value.type) for value in begun]
    for phi, first, later in zip(results, begun, nexts, strict=True):
        phi.add_incoming(first, start)
        phi.add_incoming(later, latch)
    return results


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
        return builder.fpext(numbers, kind) if is_half else numbers

    def times(builder: Any, total: Any, one: Any, other: Any) -> Any:
        return builder.fadd(total, builder.fmul(one, other, FAST), FAST)

    def emitted(builder: Any, arguments: Any) -> list[Any]:
        weight, scale, least, apart, x, x_scale, x_sum, blocks = arguments
        wide = builder.mul(blocks, _long(size * (2 if is_split else 1)))
        far = builder.mul(apart, builder.mul(blocks, _long(4 * bits)))
        eight = _vector(REAL, 8)

        def at(start: Any, row: int, distance: Any, place: Any, each: int) -> Any:
            """The address of an element of a row."""
            start = builder.add(start, builder.mul(distance, _long(row)))
            return builder.add(start, builder.mul(place, _long(each)))

        def spread(number: Any) -> Any:
            none = ir.Constant(_vector(number.type, 8), ir.Undefined)
            first = builder.insert_element(none, number, ir.Constant(WORD, 0))
            return _shuffled(builder, first, first, [0] * 8)

        scales_apart = builder.mul(apart, wide)

        def products(block: Any, totals: list[Any]) -> list[Any]:
            inputs = _load(builder, at(x, 0, apart, block, 32), _vector(BYTE, 32))
            common = spread(_load(builder, at(x_scale, 0, apart, block, 4), REAL, 4))
            sums = []
            for row, total in enumerate(totals):
                numbers = _numbers_of(builder, bits, at(weight, row, far, block, 4 * bits))
                whole = builder.sitofp(_products(builder, bits, numbers, inputs), eight)
                if is_split:
                    place = at(scale, row, scales_apart, block, 2 * size)
                    pair = _load(builder, place, _vector(kind, 2), size)
                    own = _shuffled(builder, pair, pair, [0] * 4 + [1] * 4)
                else:
                    own = spread(
                        _load(builder, at(scale, row, scales_apart, block, size), kind, size)
                    )
                factor = builder.fmul(real(builder, own, eight), common)
                sums.append(times(builder, total, whole, factor))
            return sums

        def lowest(count: int, first: Any) -> Callable[..., list[Any]]:
            def add(number: Any, totals: list[Any]) -> list[Any]:
                place = builder.add(first, builder.mul(number, _long(count)))
                shape = _vector(kind, count) if count > 1 else kind
                wanted = _vector(REAL, count) if count > 1 else REAL
                sums = _load(builder, at(x_sum, 0, apart, place, 4), wanted, 4)
                return [
                    times(
                        builder,
                        total,
                        real(
                            builder,
                            _load(builder, at(least, row, scales_apart, place, size), shape, size),
                            wanted,
                        ),
                        sums,
                    )
                    for row, total in enumerate(totals)
                ]

            return add

        zeros = [ir.Constant(eight, [0.0] * 8)] * rows
        totals = _looped(builder, blocks, zeros, products)
        is_there = builder.icmp_signed("!=", least, _long(0))
        count = builder.select(is_there, blocks, _long(0))
        whole = builder.and_(count, _long(-8))
        totals = _looped(builder, builder.lshr(count, _long(3)), totals, lowest(8, _long(0)))
        sums = []
        for total in totals:
            parts = [builder.extract_element(total, ir.Constant(WORD, i)) for i in range(8)]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [
                    builder.fadd(one, other)
                    for one, other in zip(parts[:half], parts[half:], strict=True)
                ]
            sums += parts
        return _looped(builder, builder.sub(count, whole), sums, lowest(1, whole))

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
        return builder.fpext(builder.fptrunc(arguments[0], HALF), REAL)

    return types.float32(types.float32), generate
