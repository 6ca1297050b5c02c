"""Products of matrices by AMX, the matrix unit of Intel's processors since 2023, as instructions.

One instruction multiplies a tile of 16 rows of x and a tile of 16 rows of weights along 64 bytes:
of int8, or of bfloat16. Both kinds of product here keep more digits than that:

    whole numbers of 16 bits    x = 256 * high + low, each times the int8 weights
    float32                     a number is a sum of three of bfloat16, exactly, and of their nine
                                products the six largest are added up, in float32

(the latter: Henry, Tang and Heinecke 2019, "Leveraging the bfloat16 artificial intelligence
datatype for higher-precision computations"). In a tile of weights, 4 bytes of a row are next to
those of the next row; two numbers of bfloat16 in them stand for numbers that are 16 apart. A tile
is loaded right before it is used: the processor waits for loads that come all at once.
"""

import ctypes
import platform
import sys
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pellucid.attention.instructions import (
    BYTE,
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
from pellucid.attention.numba_cache import FAST

ROWS, TILE = 16, 1024
"""Rows of a tile, and its bytes."""
WHOLE_STEP, FLOAT_STEP = 64, 32
"""Numbers along a row of a tile."""
LINES = 6
"""Lines of the output that are fetched at each step."""
PARTS = 3
"""Numbers of bfloat16 whose sum is one of float32."""
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18
"""Of Linux: a system call by which a process asks for the registers of AMX."""


@cache
def is_available() -> bool:
    """Whether the processor has AMX, and Linux lets this process use it."""
    needed = ("amx-tile", "amx-int8", "amx-bf16", "avx512f", "avx512bw")
    is_linux = sys.platform == "linux" and platform.machine() == "x86_64"
    if not is_linux or not all(map(has, needed)):
        return False
    return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0)


def _do(builder: Any, name: str, *arguments: Any) -> None:
    call(builder, f"llvm.x86.{name}", ir.VoidType(), *arguments)


def _tile(number: int) -> Any:
    return ir.Constant(BYTE, number)


def _at(builder: Any, address: Any, distance: int) -> Any:
    return builder.inttoptr(builder.add(address, long(distance)), BYTE.as_pointer())


def _loaded(builder: Any, tile: int, address: Any, distance: int) -> None:
    _do(builder, "tileloadd64", _tile(tile), _at(builder, address, distance), long(64))


def _stored_tiles(builder: Any, address: Any) -> None:
    for tile in range(4):
        _do(builder, "tilestored64", _tile(tile), _at(builder, address, tile * TILE), long(64))


def _stored(builder: Any, numbers: Any, address: Any, distance: int) -> None:
    place = builder.inttoptr(builder.add(address, long(distance)), numbers.type.as_pointer())
    builder.store(numbers, place, align=1)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """16 vectors of 16 as the columns of a matrix, given its rows."""
    for step in (1, 2, 4, 8):
        low = [lane if not lane & step else lane - step + 16 for lane in range(16)]
        high = [lane + step if not lane & step else lane + 16 for lane in range(16)]
        exchanged = list(rows)
        for index in range(16):
            if not index & step:
                pair = rows[index], rows[index + step]
                exchanged[index] = shuffled(builder, *pair, low)
                exchanged[index + step] = shuffled(builder, *pair, high)
        rows = exchanged
    return rows


def _pairs(builder: Any, first: Any, second: Any) -> list[Any]:
    """Three vectors of 16 pairs of bfloat16: those of a number of `first` and one of `second`.

    The sum of the three is the number. Each is the upper half of the bits of what is left.
    """
    words, upper = vector(WORD, 16), ir.Constant(vector(WORD, 16), [-(2**16)] * 16)
    sixteen = ir.Constant(words, [16] * 16)
    pairs = []
    for _ in range(PARTS):
        low, high = (builder.and_(builder.bitcast(left, words), upper) for left in (first, second))
        pairs.append(builder.or_(builder.lshr(low, sixteen), high))
        first = builder.fsub(first, builder.bitcast(low, first.type))
        second = builder.fsub(second, builder.bitcast(high, second.type))
    return pairs


def _starts(builder: Any, first: Any, stride: Any, ahead: Any) -> list[Any]:
    """Addresses of 16 rows; what lies ahead of them begins to be read."""
    starts = [first]
    for _ in range(1, ROWS):
        starts.append(builder.add(starts[-1], stride))
    for start in starts:
        _fetch(builder, builder.add(start, ahead))
    return starts


@intrinsic
def configure(typing_context: Any) -> Any:
    """Set up 8 tiles of 16 rows of 64 bytes, until `release`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        setting = [1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[ROWS] * 8, *[0] * 8]
        kind = vector(BYTE, 64)
        place = builder.alloca(kind)
        builder.store(ir.Constant(kind, setting), place, align=1)
        _do(builder, "ldtilecfg", builder.bitcast(place, BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def release(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _do(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def lay_out_bytes(typing_context: Any, weight: Any, stride: Any, ahead: Any, out: Any) -> Any:
    """Lay 16 rows of 64 int8 weights out as a tile.

    Args:
        typing_context: of Numba.
        weight: address of the first row's.
        stride: bytes from one to the next.
        ahead: bytes to the rows that are needed next.
        out: address of the tile.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weight, stride, ahead, out = arguments
        starts = _starts(builder, weight, stride, ahead)
        rows = [load(builder, start, vector(WORD, 16)) for start in starts]
        for place, column in enumerate(_transposed(builder, rows)):
            _stored(builder, column, out, 64 * place)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4), generate


@intrinsic
def lay_out_floats(typing_context: Any, weight: Any, stride: Any, ahead: Any, out: Any) -> Any:
    """Lay 16 rows of 32 float32 weights out as the three tiles of their parts.

    Args:
        typing_context: of Numba.
        weight: address of the first row's.
        stride: bytes from one to the next.
        ahead: bytes to the rows that are needed next.
        out: address of the tiles.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weight, stride, ahead, out = arguments
        columns = []
        for half in range(2):
            starts = _starts(builder, builder.add(weight, long(64 * half)), stride, ahead)
            rows = [load(builder, start, vector(REAL, 16)) for start in starts]
            columns.append(_transposed(builder, rows))
        for place, (first, second) in enumerate(zip(*columns, strict=True)):
            for part, pair in enumerate(_pairs(builder, first, second)):
                _stored(builder, pair, out, part * TILE + 64 * place)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4), generate


@intrinsic
def round_floats(typing_context: Any, x: Any, factor: Any, out: Any) -> Any:
    """Round 64 float32 times a factor to 16 bits, and write their bytes as rows of two tiles.

    Args:
        typing_context: of Numba.
        x: address of the numbers.
        factor: float32.
        out: address of the row in the tile of the higher bytes.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, factor, out = arguments
        real, words, bytes_ = (vector(kind, 16) for kind in (REAL, WORD, BYTE))
        spread, eight = _spread(builder, factor), ir.Constant(words, [8] * 16)
        for quarter in range(4):
            number = load(builder, builder.add(x, long(64 * quarter)), real)
            scaled = builder.fmul(number, spread)
            whole = builder.fptosi(call(builder, "llvm.rint.v16f32", real, scaled), words)
            _stored(builder, builder.trunc(builder.ashr(whole, eight), bytes_), out, 16 * quarter)
            _stored(builder, builder.trunc(whole, bytes_), out, TILE + 16 * quarter)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), generate


@intrinsic
def split_floats(typing_context: Any, x: Any, out: Any) -> Any:
    """Write 32 float32 as rows of the three tiles of their parts.

    Args:
        typing_context: of Numba.
        x: address of the numbers.
        out: address of the row in the first tile.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, out = arguments
        first, second = (
            load(builder, builder.add(x, long(64 * half)), vector(REAL, 16)) for half in range(2)
        )
        for part, pair in enumerate(_pairs(builder, first, second)):
            _stored(builder, pair, out, part * TILE)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 2), generate


def _masked_load(builder: Any, address: Any, mask: Any) -> Any:
    kind = vector(REAL, 16)
    place = builder.inttoptr(address, kind.as_pointer())
    align, nothing = ir.Constant(WORD, 4), ir.Constant(kind, [0.0] * 16)
    return call(builder, "llvm.masked.load.v16f32.p0", kind, place, align, mask, nothing)


def _masked_store(builder: Any, numbers: Any, address: Any, mask: Any) -> None:
    place = builder.inttoptr(address, numbers.type.as_pointer())
    align = ir.Constant(WORD, 4)
    call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), numbers, place, align, mask)


def _spread(builder: Any, number: Any) -> Any:
    none = ir.Constant(vector(number.type, 16), ir.Undefined)
    first = builder.insert_element(none, number, ir.Constant(WORD, 0))
    return shuffled(builder, first, first, [0] * 16)


def _masks(builder: Any, columns: Any) -> list[Any]:
    """Which lanes of two vectors are among the first `columns`."""
    count = _spread(builder, builder.trunc(columns, WORD))
    lanes = [ir.Constant(vector(WORD, 16), list(range(at, at + 16))) for at in (0, 16)]
    return [builder.icmp_signed("<", vector_lanes, count) for vector_lanes in lanes]


@intrinsic
def write_whole(
    typing_context: Any,
    sums: Any,
    rows: Any,
    columns: Any,
    x_scale: Any,
    scale: Any,
    bias: Any,
    out: Any,
    apart: Any,
) -> Any:
    """out = sums * x_scale * scale + bias, for what `whole_products` wrote.

    Args:
        typing_context: of Numba.
        sums: address of four tiles.
        rows, columns: how many of them are wanted, of 16 and 32.
        x_scale, scale, bias: addresses of float32.
        out: address of rows of float32.
        apart: bytes from one to the next.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, rows, columns, x_scale, scale, bias, out, apart = arguments
        masks = _masks(builder, columns)
        halves = [builder.add(start, long(64)) for start in (scale, bias, out)]
        scales = [
            _masked_load(builder, *pair) for pair in zip((scale, halves[0]), masks, strict=True)
        ]
        biases = [
            _masked_load(builder, *pair) for pair in zip((bias, halves[1]), masks, strict=True)
        ]
        real, high = vector(REAL, 16), ir.Constant(vector(REAL, 16), [256.0] * 16)

        def written(row: Any, nothing: list[Any]) -> list[Any]:
            own = _spread(
                builder, load(builder, builder.add(x_scale, builder.mul(row, long(4))), REAL, 4)
            )
            place = builder.add(sums, builder.mul(row, long(64)))
            for half in range(2):
                upper, lower = (
                    builder.sitofp(
                        load(
                            builder,
                            builder.add(place, long((half + more) * TILE)),
                            vector(WORD, 16),
                            64,
                        ),
                        real,
                    )
                    for more in (0, 2)
                )
                total = builder.fadd(builder.fmul(upper, high, FAST), lower, FAST)
                total = builder.fmul(builder.fmul(total, own), scales[half])
                target = builder.add((out, halves[2])[half], builder.mul(row, apart))
                _masked_store(builder, builder.fadd(total, biases[half]), target, masks[half])
            return nothing

        looped(builder, rows, [], written)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 8), generate


@intrinsic
def write_floats(
    typing_context: Any,
    sums: Any,
    rows: Any,
    columns: Any,
    added: Any,
    added_apart: Any,
    out: Any,
    apart: Any,
) -> Any:
    """out = sums + added, for what `float_products` wrote; whether all of it is finite.

    Args:
        typing_context: of Numba.
        sums: address of four tiles.
        rows, columns: how many of them are wanted, of 32 and 32.
        added, out: addresses of rows of float32.
        added_apart, apart: bytes from one to the next.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, rows, columns, added, added_apart, out, apart = arguments
        masks, zero = _masks(builder, columns), ir.Constant(vector(REAL, 16), [0.0] * 16)

        def written(row: Any, totals: list[Any]) -> list[Any]:
            [total] = totals
            # Rows of the second 16 are two tiles further.
            place = builder.add(sums, builder.mul(row, long(64)))
            place = builder.add(place, builder.mul(builder.lshr(row, long(4)), long(TILE)))
            source = builder.add(added, builder.mul(row, added_apart))
            target = builder.add(out, builder.mul(row, apart))
            for half, mask in enumerate(masks):
                own = builder.add(place, long(half * TILE))
                number = load(builder, own, vector(REAL, 16), 64)
                more = _masked_load(builder, builder.add(source, long(64 * half)), mask)
                number = builder.fadd(number, more)
                total = builder.fadd(total, builder.fmul(number, zero))
                _masked_store(builder, number, builder.add(target, long(64 * half)), mask)
            return [total]

        [total] = looped(builder, rows, [zero], written)
        bits = builder.bitcast(builder.fcmp_unordered("uno", total, total), ir.IntType(16))
        return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(16), 0))

    return types.boolean(*(types.int64,) * 7), generate


def _fetch(builder: Any, address: Any) -> None:
    """Begin to read a line of memory into the second cache."""
    place = builder.inttoptr(address, BYTE.as_pointer())
    hints = (ir.Constant(WORD, number) for number in (0, 2, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), place, *hints)


def _expect(builder: Any, step: Any, out: Any, apart: Any) -> None:
    """Begin to fetch some lines of what is written after all steps."""
    for line in range(0, LINES, 2):
        row = builder.add(builder.mul(step, long(LINES // 2)), long(line // 2))
        start = builder.add(out, builder.mul(row, apart))
        for more in (0, 64):
            place = builder.inttoptr(builder.add(start, long(more)), BYTE.as_pointer())
            hints = (ir.Constant(WORD, number) for number in (1, 3, 1))
            call(builder, "llvm.prefetch.p0", ir.VoidType(), place, *hints)


def _zeroed(builder: Any) -> None:
    for tile in range(4):
        _do(builder, "tilezero", _tile(tile))


def _multiplied(builder: Any, name: str, total: int, x: int, weight: int) -> None:
    _do(builder, name, _tile(total), _tile(x), _tile(weight))


@intrinsic
def whole_products(
    typing_context: Any, x: Any, weight: Any, steps: Any, out: Any, later: Any, apart: Any
) -> Any:
    """Sums of products of 16 rows of x, in two parts each, and 32 of int8 weights.

    Args:
        typing_context: of Numba.
        x: address of tiles: at each step, of the higher and of the lower bytes.
        weight: address of two tiles for each step.
        steps: how many there are.
        out: address of four tiles of int32: those of the higher bytes with either tile of
            weights, then those of the lower.
        later: address of rows that are written from these.
        apart: bytes from one to the next.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, weight, steps, out, later, apart = arguments
        _zeroed(builder)

        def products(step: Any, totals: list[Any]) -> list[Any]:
            _expect(builder, step, later, apart)
            place = builder.mul(step, long(2 * TILE))
            left, right = builder.add(x, place), builder.add(weight, place)
            _loaded(builder, 4, left, 0)
            _loaded(builder, 6, right, 0)
            _multiplied(builder, "tdpbssd", 0, 4, 6)
            _loaded(builder, 7, right, TILE)
            _multiplied(builder, "tdpbssd", 1, 4, 7)
            _loaded(builder, 5, left, TILE)
            _multiplied(builder, "tdpbusd", 2, 5, 6)
            _multiplied(builder, "tdpbusd", 3, 5, 7)
            return totals

        looped(builder, steps, [], products)
        _stored_tiles(builder, out)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6), generate


@intrinsic
def float_products(
    typing_context: Any,
    x: Any,
    other: Any,
    weight: Any,
    steps: Any,
    out: Any,
    later: Any,
    apart: Any,
) -> Any:
    """Sums of products of twice 16 rows of x and 32 of weights, float32 in parts of bfloat16.

    Args:
        typing_context: of Numba.
        x, other: addresses of three tiles for each step.
        weight: address of twice three tiles for each step.
        steps: how many there are.
        out: address of four tiles of float32: those of x, then those of other, each with either 16
            rows of weights.
        later: address of rows that are written from these.
        apart: bytes from one to the next.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, other, weight, steps, out, later, apart = arguments
        _zeroed(builder)

        def products(step: Any, totals: list[Any]) -> list[Any]:
            _expect(builder, step, later, apart)
            place = builder.mul(step, long(PARTS * TILE))
            first, second = builder.add(x, place), builder.add(other, place)
            right = builder.add(weight, builder.add(place, place))
            before_x = before_weight = -1
            # Each pair differs from the one before in one part only.
            for own, part in [(0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0)]:
                is_new, is_other = own != before_x, part != before_weight
                if is_new:
                    _loaded(builder, 4, first, own * TILE)
                if is_other:
                    _loaded(builder, 6, right, part * TILE)
                _multiplied(builder, "tdpbf16ps", 0, 4, 6)
                if is_other:
                    _loaded(builder, 7, right, (PARTS + part) * TILE)
                _multiplied(builder, "tdpbf16ps", 1, 4, 7)
                if is_new:
                    _loaded(builder, 5, second, own * TILE)
                _multiplied(builder, "tdpbf16ps", 2, 5, 6)
                _multiplied(builder, "tdpbf16ps", 3, 5, 7)
                before_x, before_weight = own, part
            return totals

        looped(builder, steps, [], products)
        _stored_tiles(builder, out)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7), generate
