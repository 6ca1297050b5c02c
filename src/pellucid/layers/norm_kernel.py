"""Layer norms and RMS norms before and after the parts of a block, compiled."""

import math
from typing import Any

import numpy as np

from pellucid.attention.numba_cache import kernel
from pellucid.layers.matrix_vector_kernel import vector_at

f32 = np.float32


@kernel
def _normalise(table: Any, field: Any, shape: Any, x: Any, out: Any) -> None:
    """out (rows, size): a layer norm or an RMS norm of x, each with or without a weight."""
    size = x.shape[1]
    weight, bias = vector_at(table[field], size), vector_at(table[field + 1], size)
    for row in range(x.shape[0]):
        mean = f32(0.0)
        if shape.is_centred:
            for j in range(size):
                mean += x[row, j]
            mean /= f32(size)
        square = f32(0.0)
        for j in range(size):
            square += (x[row, j] - mean) * (x[row, j] - mean)
        factor = f32(1.0) / f32(math.sqrt(square / f32(size) + f32(shape.eps)))
        for j in range(size):
            out[row, j] = (x[row, j] - mean) * factor
        if weight.shape[0]:
            for j in range(size):
                out[row, j] *= weight[j] + f32(shape.offset)
        if bias.shape[0]:
            for j in range(size):
                out[row, j] += bias[j]


@kernel
def normalised_input(table: Any, norm: Any, shape: Any, x: Any) -> Any:
    """The input of a part: x (rows, width), normalised if its norm comes before it."""
    if not (shape.norm_first and shape.normalises_inputs):
        return x
    y = np.empty_like(x)
    _normalise(table, norm, shape, x, y)
    return y


@kernel
def normalise_output(table: Any, norm: Any, shape: Any, part: Any) -> None:
    """Normalise and scale the output of a part, (rows, width), in place, where the shape says."""
    if shape.normalises_outputs:
        _normalise(table, norm, shape, part, part)
    if shape.residual_scale != 1.0:
        for row in range(part.shape[0]):
            for j in range(part.shape[1]):
                part[row, j] *= f32(shape.residual_scale)


@kernel
def add_residual(table: Any, norm: Any, shape: Any, x: Any, part: Any) -> None:
    """Add the output of a part to x, and normalise if the norm comes after."""
    for row in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[row, j] += part[row, j]
    if not shape.norm_first:
        _normalise(table, norm, shape, x, x)


@kernel
def normalise_heads(table: Any, norm: Any, shape: Any, x: Any) -> None:
    """Normalise each head of x (rows, heads * dim) in place, if there is such a norm."""
    if table[norm]:
        split = x.reshape(-1, x.shape[1] if shape.has_joint_norm else shape.dim)
        _normalise(table, norm, shape, split, split)
