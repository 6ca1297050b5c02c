"""What AMX summed, scaled and written as rows of float32: see `amx_tiles`."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pellucid.attention.instructions import REAL, WORD, call, load, long, looped, spread, vector
from pellucid.attention.numba_cache import FAST
from pellucid.layers.amx_tiles import TILE


def _masked_load(builder: Any, address: Any, mask: Any) -> Any:
    kind = vector(REAL, 16)
    place = builder.inttoptr(address, kind.as_pointer())
    align, nothing = ir.Constant(WORD, 4), ir.Constant(kind, [0.0] * 16)
    return call(builder, "llvm.masked.load.v16f32.p0", kind, place, align, mask, nothing)


def _masked_store(builder: Any, numbers: Any, address: Any, mask: Any) -> None:
    place = builder.inttoptr(address, numbers.type.as_pointer())
    align = ir.Constant(WORD, 4)
    call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), numbers, place, align, mask)


def _masks(builder: Any, columns: Any) -> list[Any]:
    """Which lanes of two vectors are among the first `columns`."""
    count = spread(builder, builder.trunc(columns, WORD))
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
            own = spread(
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
