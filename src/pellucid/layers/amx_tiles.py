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
    WORD,
    call,
    has,
    long,
    looped,
    vector,
)

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
