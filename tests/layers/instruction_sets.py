"""Products by tiles with the instructions of the processor that Numba is told to compile for.

    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma python -m tests.layers.instruction_sets

It prints, as JSON, how far products are from float64, over what rounding allows, and which of some
instructions and registers the code has.
"""

import json

import numpy as np

from pellucid.attention.numba_cache import kernel
from pellucid.layers import amx_tiles, packed_kernel, packed_products, tile_kernel

NAMES = ("vpdpwssd", "vpmaddwd", "pmaddwd", "zmm", "ymm", "vpmaddubsw")
ROWS, SIZE, COLS = 5, 13, 131


@kernel
def round_all(numbers, halves):
    for i in range(len(numbers)):
        halves[i] = packed_products.through_half(numbers[i])


def main() -> None:
    random = np.random.default_rng(7)
    x = random.standard_normal((ROWS, COLS), np.float32)
    x[1], x[2] = 1e6, np.where(np.arange(COLS) % 2, -1e-6, 1e-6)
    weight = random.integers(-127, 128, (SIZE, COLS)).astype(np.int8)
    weight[3], weight[4] = 127, -127
    scale, bias = (random.random(SIZE, np.float32) for _ in range(2))
    out = np.full((ROWS, SIZE), 1e9, np.float32)
    wide = x.astype(np.float64)

    tile_kernel.project_alone(weight, scale, bias, x, out)
    sizes = np.abs(weight).astype(np.float64) * scale[:, None]
    step = np.abs(wide).max(-1, keepdims=True) / (2**15 - 1)
    allowed = step / 2 * sizes.sum(-1) + 2.0**-21 * (np.abs(wide) @ sizes.T + 1)
    truth = wide @ (weight * scale.astype(np.float64)[:, None]).T + bias
    whole = np.abs(out - truth) / allowed

    floats = random.standard_normal((SIZE, COLS), np.float32)
    tile_kernel.share_float(floats, bias, x, 0, 1, out)
    truth = wide @ floats.astype(np.float64).T + bias
    allowed = 2.0**-20 * (np.abs(wide) @ np.abs(floats).astype(np.float64).T + 1)
    real = np.abs(out - truth) / allowed

    blocks = 3
    numbers = random.integers(-128, 128, (SIZE, blocks * 32)).astype(np.int8)
    scales = random.random((SIZE, blocks)).astype(np.float16)
    scales[0], scales[1, 1], scales[2] = 6e-8, 0, -1e-5
    matrix = np.array([numbers.ctypes.data, scales.ctypes.data, 0, packed_kernel.BY_8, 0], np.int64)
    inputs = packed_kernel.rounded(random.standard_normal((2, blocks * 32), np.float32))
    found = np.zeros((2, SIZE), np.float32)
    packed_kernel.share(matrix, np.empty(0, np.float32), 0, 1, inputs, found)
    shape = (-1, blocks, 32)
    left = inputs[0].reshape(shape) * inputs[1].astype(np.float64)[..., None]
    right = numbers.reshape(shape) * scales.astype(np.float64)[..., None]
    truth = np.einsum("rbj,sbj->rs", left, right)
    packed = np.abs(found - truth) / (2.0**-20 * np.einsum("rbj,sbj->rs", abs(left), abs(right)))

    odd = [0, -0.0, 6e-8, -2.98e-8, 8.9e-8, 6.1e-5, 1.0004883, -1.0014648, 65519, 65520, 1e9]
    odd = np.array([*odd, np.inf, -np.inf, np.nan, *random.standard_normal(99)], np.float32)
    halves = np.empty_like(odd)
    round_all(odd, halves)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(halves, odd.astype(np.float16).astype(np.float32))

    text = "".join(
        code
        for function in (tile_kernel.share_whole, packed_kernel.share)
        for code in function.inspect_asm().values()
    )
    print(
        json.dumps(
            {
                "errors": [float(one.max()) for one in (whole, real, packed)],
                "instructions": [name for name in NAMES if name in text],
                "lanes": tile_kernel.LANES,
                "block": packed_products.BLOCK,
                "has_amx": amx_tiles.is_available(),
            }
        )
    )


if __name__ == "__main__":
    main()
