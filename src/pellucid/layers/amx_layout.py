"""Inputs and weights laid out as tiles of AMX, and split into parts: see `amx_tiles`."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pellucid.attention.instructions import (
    BYTE,
    REAL,
    WORD,
    call,
    load,
    long,
    shuffled,
    spread,
    vector,
)
from pellucid.layers.amx_tiles import PARTS, ROWS, TILE


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


def _fetch(builder: Any, address: Any) -> None:
    """Begin to read a line of memory into the second cache."""
    place = builder.inttoptr(address, BYTE.as_pointer())
    hints = (ir.Constant(WORD, number) for number in (0, 2, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), place, *hints)


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
        factors, eight = spread(builder, factor), ir.Constant(words, [8] * 16)
        for quarter in range(4):
            number = load(builder, builder.add(x, long(64 * quarter)), real)
            scaled = builder.fmul(number, factors)
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
