"""What the compiled decoding step is given of a stack: a table of addresses, and a shape."""

from typing import NamedTuple

import numpy as np

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "relu_squared", "quick_gelu")
RELU, GELU, GELU_TANH, SILU, RELU_SQUARED, QUICK_GELU = range(6)

# A row of the table of addresses: first the linear parts of a block, each with the address of its
# weight (out, in), of its scales (out,) if it is int8, and of its bias (out,); then the norms, each
# with that of its weight and of its bias; then those of the cache and of the sinks. 0 where there
# is none. The last is the number of the block's window and positions. Of packed weights, whose
# bytes are uint8, it is the address of what `packed_kernel` takes of them.
#
# The numbers are NumPy's. Each of Python's is a type of its own to Numba, which would compile what
# is given them once for each.
QUERY, KEY, VALUE, OUTPUT, CROSS_QUERY, CROSS_OUTPUT, GATE, UP, DOWN = np.arange(0, 27, 3)
OWN_NORM, QUERY_NORM, KEY_NORM, CROSS_NORM, CROSS_QUERY_NORM, FEED_NORM = np.arange(27, 39, 2)
OWN_OUTPUT_NORM, CROSS_OUTPUT_NORM, FEED_OUTPUT_NORM = np.arange(39, 45, 2)
KEYS, VALUES, MEMORY_KEYS, MEMORY_VALUES, SINKS, CROSS_SINKS, INPUTS = np.arange(45, 52)
FIELDS = 52


class Shape(NamedTuple):
    """What all blocks share."""

    heads: int
    kv_heads: int
    dim: int
    hidden: int
    norm_first: int
    normalises_inputs: int
    normalises_outputs: int
    is_centred: int
    """Whether norms are layer norms, not RMS norms."""
    offset: float
    """Added to the weights of norms."""
    has_joint_norm: int
    """Whether queries and keys are normalised over all heads together."""
    is_parallel: int
    has_shared_norm: int
    activation: int
    eps: float
    scale: float
    residual_scale: float
    softcap: float
    """Of scores; 0 = none."""
    clip: float
    """Of queries, keys and values; 0 = none."""
    has_neighbours: int
    """Whether neighbours are rotated together, not numbers of the two halves."""
