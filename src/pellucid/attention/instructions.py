"""The instructions that the intrinsics of this package are made of, as LLVM takes them."""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import config

BYTE, SHORT, WORD, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
HALF, REAL = ir.HalfType(), ir.FloatType()


def has(feature: str) -> bool:
    """Whether Numba compiles for a processor with a feature, such as "avx2"."""
    if config.CPU_FEATURES is not None or config.CPU_NAME is not None:
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get(feature))


def long(number: int) -> Any:
    return ir.Constant(LONG, number)


def vector(kind: Any, count: int) -> Any:
    return ir.VectorType(kind, count)


def splat(number: Any, count: int = 32) -> Any:
    return ir.Constant(vector(number.type, count), [number.constant] * count)


def load(builder: Any, address: Any, kind: Any, align: int = 1) -> Any:
    pointer = builder.inttoptr(address, kind.as_pointer())
    return builder.load(pointer, align=align)


def shuffled(builder: Any, first: Any, second: Any, indices: list[int]) -> Any:
    mask = ir.Constant(vector(WORD, len(indices)), indices)
    return builder.shuffle_vector(first, second, mask)


def spread(builder: Any, number: Any) -> Any:
    """A number in all of 16 lanes."""
    none = ir.Constant(vector(number.type, 16), ir.Undefined)
    first = builder.insert_element(none, number, ir.Constant(WORD, 0))
    return shuffled(builder, first, first, [0] * 16)


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call a function of LLVM's own."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def looped(builder: Any, count: Any, begun: list[Any], body: Callable[..., list[Any]]) -> list[Any]:
    """Values after a loop: `body` makes the next ones from its number and those before."""
    start = builder.block
    loop, end = (builder.append_basic_block(name) for name in ("loop", "end"))
    builder.cbranch(builder.icmp_signed(">", count, long(0)), loop, end)
    builder.position_at_end(loop)
    at = builder.phi(LONG)
    values = [builder.phi(value.type) for value in begun]
    nexts = body(at, values)
    following = builder.add(at, long(1))
    latch = builder.block
    for phi, first, later in zip(
        (at, *values), (long(0), *begun), (following, *nexts), strict=True
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
