"""Tiles of scores and what is read of them, as instructions for LLVM.

A tile of a matrix product stays in registers while it is summed. Logarithms are to base 2, which
saves the exponential a product and a rounding.
"""

from functools import partial, reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pellucid.attention.instructions import (
    LONG,
    REAL,
    WORD,
    call,
    has,
    load,
    long,
    looped,
    shuffled,
    vector,
)

LANES, VECTORS = (16, 4) if has("avx512f") else (8, 2)
"""Numbers of float32 in a register, and registers in a row of a tile."""
TILE_ROWS, TILE_COLS = 6, VECTORS * LANES
"""A tile's sums, a row of the other matrix and one number fill the registers."""
PANEL = 64
"""Columns that are stored together; also those of a group, of which the largest is kept."""
LOWEST = -127.0
"""Here the exponent field in `_exp2` reaches 0: 2 to this and to all below is exactly 0."""
MAGIC = float(3 * 2**22 + 127)
"""Added to a small float, leaves its nearest integer plus 127 in the lowest bits."""
SERIES = (
    1.534579205176594e-04,
    1.3399925063907192e-03,
    9.618488971097568e-03,
    5.550328792383451e-02,
    2.4022646891086039e-01,
    6.931472057300583e-01,
    1.0,
)
"""The polynomial nearest to 2^x from -0.5 to 0.5, from the highest power: to 2e-9 of itself."""


def _constant(number: float) -> Any:
    return ir.Constant(vector(REAL, LANES), [float(np.float32(number))] * LANES)


def _splat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector(REAL, LANES), ir.Undefined), number, WORD(0))
    return shuffled(builder, one, one, [0] * LANES)


def _store(builder: Any, numbers: Any, address: Any) -> None:
    builder.store(numbers, builder.inttoptr(address, numbers.type.as_pointer()), align=4)


def _larger(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", one, other), one, other)


def _fused(builder: Any, one: Any, other: Any, added: Any) -> Any:
    """one * other + added, rounded once where the processor can."""
    return call(builder, f"llvm.fmuladd.v{LANES}f32", one.type, one, other, added)


def _sum(builder: Any, one: Any, other: Any) -> Any:
    return builder.fadd(one, other)


def _across(builder: Any, numbers: Any, join: Any) -> Any:
    """One number from those of a register."""
    width = LANES
    while width > 1:
        width //= 2
        places = [(lane + width) % LANES for lane in range(LANES)]
        numbers = join(builder, numbers, shuffled(builder, numbers, numbers, places))
    return builder.extract_element(numbers, WORD(0))


def _bounded(builder: Any, x: Any) -> Any:
    """No less than LOWEST; NaN stays."""
    lowest = _constant(LOWEST)
    return builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)


def _exp2(builder: Any, x: Any) -> Any:
    """2^x for x from LOWEST to 0, to 2 units in the last place; NaN stays."""
    magic = _constant(MAGIC)
    shifted = builder.fadd(x, magic)
    r = builder.fsub(x, builder.fsub(shifted, magic))
    series = _constant(SERIES[0])
    for number in SERIES[1:]:
        series = _fused(builder, series, r, _constant(number))
    bits = builder.bitcast(shifted, vector(WORD, LANES))
    power = builder.shl(bits, ir.Constant(bits.type, [23] * LANES))
    return builder.fmul(series, builder.bitcast(power, series.type))


@intrinsic
def multiply(
    typing_context: Any,
    a: Any,
    a_apart: Any,
    b: Any,
    b_apart: Any,
    depth: Any,
    c: Any,
    c_apart: Any,
    is_more: Any,
) -> Any:
    """c = a @ b, or more of c: (TILE_ROWS, depth) times (depth, TILE_COLS), of float32.

    Args:
        typing_context: of Numba.
        a, b, c: addresses; numbers of a row are one right after the other.
        a_apart, b_apart, c_apart: bytes from one row to the next.
        depth: numbers that are summed.
        is_more: whether c has a part of the sums already, 1 or 0.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, a_apart, b, b_apart, depth, c, c_apart, is_more = arguments
        rows = [builder.add(a, builder.mul(a_apart, long(row))) for row in range(TILE_ROWS)]

        def products(step: Any, totals: list[Any]) -> list[Any]:
            start = builder.add(b, builder.mul(step, b_apart))
            right = [
                load(builder, builder.add(start, long(4 * LANES * part)), vector(REAL, LANES), 4)
                for part in range(VECTORS)
            ]
            found, place = [], builder.mul(step, long(4))
            for row, begin in enumerate(rows):
                one = _splat(builder, load(builder, builder.add(begin, place), REAL, 4))
                for part, other in enumerate(right):
                    found.append(_fused(builder, one, other, totals[row * VECTORS + part]))
            return found

        places = [
            builder.add(builder.add(c, builder.mul(c_apart, long(row))), long(4 * LANES * part))
            for row in range(TILE_ROWS)
            for part in range(VECTORS)
        ]
        zero, keeps = _constant(0.0), builder.icmp_signed("!=", is_more, long(0))
        before = [load(builder, place, zero.type, 4) for place in places]
        begun = [builder.select(keeps, numbers, zero) for numbers in before]
        for place, total in zip(places, looped(builder, depth, begun, products), strict=True):
            _store(builder, total, place)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8), generate


@intrinsic
def weigh(
    typing_context: Any,
    logits: Any,
    panels: Any,
    shift: Any,
    position: Any,
    received: Any,
    largest: Any,
    highest: Any,
    sums: Any,
) -> Any:
    """Add the weights 2^(logit - shift) of a row to those that its keys received, and sum them.

    Args:
        typing_context: of Numba.
        logits: address of panels * PANEL float32, to base 2.
        panels: how many.
        shift: float32.
        position: float32, that of the query minus that of the first key.
        received: address of as many sums.
        largest: address of one float32 for each panel, written: its largest logit.
        highest: address of LANES float32, written: the largest of all that are LANES apart.
        sums: address of 2 float32, written: of weight * (logit - shift), of weight * distance.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        logits, panels, shift, position, received, largest, highest, sums = arguments
        shift = _splat(builder, shift)
        lanes = ir.Constant(vector(REAL, LANES), [float(lane) for lane in range(LANES)])
        position = builder.fsub(_splat(builder, position), lanes)
        kind = position.type

        def panel(step: Any, before: list[Any]) -> list[Any]:
            apart, logs, distances, most = before
            own = _constant(-np.inf)
            for part in range(PANEL // LANES):
                place = builder.add(builder.mul(step, long(4 * PANEL)), long(4 * LANES * part))
                logit = load(builder, builder.add(logits, place), kind, 4)
                own = _larger(builder, logit, own)
                log = builder.fsub(logit, shift)
                log = _bounded(builder, log)
                weight = _exp2(builder, log)
                total = load(builder, builder.add(received, place), kind, 4)
                _store(builder, builder.fadd(total, weight), builder.add(received, place))
                logs = _fused(builder, weight, log, logs)
                distance = call(builder, f"llvm.fabs.v{LANES}f32", kind, apart)
                distances = _fused(builder, weight, distance, distances)
                apart = builder.fsub(apart, _constant(LANES))
            place = builder.add(largest, builder.mul(step, long(4)))
            _store(builder, _across(builder, own, _larger), place)
            return [apart, logs, distances, _larger(builder, own, most)]

        begun = [position, _constant(0.0), _constant(0.0), _constant(-np.inf)]
        _, logs, distances, most = looped(builder, panels, begun, panel)
        for at, numbers in enumerate((logs, distances)):
            _store(builder, _across(builder, numbers, _sum), builder.add(sums, long(4 * at)))
        _store(builder, most, highest)
        return context.get_dummy_value()

    whole, real = types.int64, types.float32
    return types.void(whole, whole, real, real, whole, whole, whole, whole), generate


@intrinsic
def largest_of(typing_context: Any, logits: Any, panels: Any) -> Any:
    """The largest of some panels of logits at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        logits, panels = arguments

        def panel(step: Any, before: list[Any]) -> list[Any]:
            start = builder.add(logits, builder.mul(step, long(4 * PANEL)))
            places = [builder.add(start, long(4 * at)) for at in range(0, PANEL, LANES)]
            found = [load(builder, place, before[0].type, 4) for place in places]
            return [reduce(partial(_larger, builder), [*found, before[0]])]

        [most] = looped(builder, panels, [_constant(-np.inf)], panel)
        return _across(builder, most, _larger)

    return types.float32(types.int64, types.int64), generate


@intrinsic
def exponentials(typing_context: Any, logits: Any, panels: Any, shift: Any) -> Any:
    """Replace each logit of some panels by 2^(logit - shift); returns their sum."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        logits, panels, shift = arguments
        shift = _splat(builder, shift)

        def panel(step: Any, before: list[Any]) -> list[Any]:
            [total] = before
            for part in range(PANEL // LANES):
                place = builder.add(builder.mul(step, long(4 * PANEL)), long(4 * LANES * part))
                place = builder.add(logits, place)
                log = builder.fsub(load(builder, place, shift.type, 4), shift)
                weight = _exp2(builder, _bounded(builder, log))
                _store(builder, weight, place)
                total = builder.fadd(total, weight)
            return [total]

        [total] = looped(builder, panels, [_constant(0.0)], panel)
        return _across(builder, total, _sum)

    return types.float32(types.int64, types.int64, types.float32), generate


@intrinsic
def at_least(typing_context: Any, logits: Any, bound: Any) -> Any:
    """The columns of a panel that are no smaller than a bound, a bit each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        logits, bound = arguments
        numbers = load(builder, logits, vector(REAL, PANEL), 4)
        one = builder.insert_element(ir.Constant(numbers.type, ir.Undefined), bound, WORD(0))
        is_large = builder.fcmp_ordered(">=", numbers, shuffled(builder, one, one, [0] * PANEL))
        return builder.bitcast(is_large, LONG)

    return types.uint64(types.int64, types.float32), generate


@intrinsic
def lowest_bit(typing_context: Any, bits: Any) -> Any:
    """Which bit is the lowest that is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def number(typing_context: Any, address: Any, place: Any) -> Any:
    """One of the float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, place = arguments
        return load(builder, builder.add(address, builder.mul(place, long(4))), REAL, 4)

    return types.float32(types.int64, types.int64), generate


@intrinsic
def store_number(typing_context: Any, address: Any, place: Any, value: Any) -> Any:
    """Write one of the float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, place, value = arguments
        _store(builder, value, builder.add(address, builder.mul(place, long(4))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), generate


@intrinsic
def copy(typing_context: Any, source: Any, count: Any, factor: Any, target: Any) -> Any:
    """Write count * LANES numbers from one address to another, times a factor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, count, factor, target = arguments
        factor = _splat(builder, factor)

        def step(at: Any, before: list[Any]) -> list[Any]:
            place = builder.mul(at, long(4 * LANES))
            numbers = load(builder, builder.add(source, place), factor.type, 4)
            _store(builder, builder.fmul(numbers, factor), builder.add(target, place))
            return []

        looped(builder, count, [], step)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64), generate


@intrinsic
def transpose(typing_context: Any, source: Any, apart: Any, target: Any, target_apart: Any) -> Any:
    """Write LANES rows of LANES numbers as columns; addresses, and bytes between rows."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, apart, target, target_apart = arguments

        def place(start: Any, stride: Any, row: int) -> Any:
            return builder.add(start, builder.mul(stride, long(row)))

        rows = [
            load(builder, place(source, apart, row), vector(REAL, LANES), 4) for row in range(LANES)
        ]
        width = 1
        while width < LANES:  # squares of this width change places with their neighbours
            low = [lane if not lane & width else LANES + lane - width for lane in range(LANES)]
            high = [lane + width if not lane & width else LANES + lane for lane in range(LANES)]
            for row in range(LANES):
                if not row & width:
                    pair = rows[row], rows[row + width]
                    rows[row] = shuffled(builder, *pair, low)
                    rows[row + width] = shuffled(builder, *pair, high)
            width *= 2
        for row, numbers in enumerate(rows):
            _store(builder, numbers, place(target, target_apart, row))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4), generate
