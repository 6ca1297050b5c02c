"""Random heads: what a head writes, turned at random, as a control for taking it away.

A knock-out takes away what a head writes to the residual stream, some vector at each position. That
any head which writes as much would be missed as much is the null hypothesis. So a control is a
random head in its place, which writes vectors of the same length at every position, in the same
space (all that this head can write), turned by one rotation drawn uniformly (Haar): lengths and
angles between positions stay, directions do not. Its effect is that of knocking it out in turn:
both the head and the random one are taken out of a stream that holds them, and leave the same.

If the directions in which the head writes have no meaning, the head is one draw among the random
ones, so that its p-value is exact: chance gives 5% or less in one of 20 heads.
"""

import math
from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor

SURE = 0.95
"""What is said to matter does more than this share of random heads."""
THIN = 1e-4
"""Directions in which the head writes less than this share of the strongest are left alone."""


def turned(output: Tensor, projection: Tensor, number: int, seed: int) -> Tensor:
    """What a head gives, turned at random, (number, queries, value_dim).

    Args:
        output: (queries, value_dim), what the knock-out takes from the head's output.
        projection: (model_dim, value_dim), the head's columns of the output projection.
        number: how many controls.
        seed: for the rotations.
    """
    generator = torch.Generator().manual_seed(seed)
    _, sizes, directions = torch.linalg.svd(projection.double().cpu(), full_matrices=False)
    kept = sizes > THIN * sizes[0] if sizes[0] > 0 else sizes > 0
    sizes, directions = sizes[kept], directions[kept]  # (rank,), (rank, value_dim)
    written = (output.double().cpu() @ directions.T) * sizes  # in axes of the residual stream
    width = len(sizes)
    outputs = []
    for _ in range(number):
        matrix = torch.randn(width, width, generator=generator, dtype=torch.float64)
        # The sign of the diagonal makes the rotation uniform (Mezzadri 2007, section 5).
        rotation, upper = torch.linalg.qr(matrix)
        rotation = rotation * upper.diagonal().sign()
        outputs.append(((written @ rotation) / sizes) @ directions)
    return torch.stack(outputs).to(output)


def seed_of(seed: int, name: str, head: int) -> int:
    """The seed of a head's controls, whatever is computed before."""
    return crc32(f"{seed} {name} {head}".encode())


def chance(effect: float, controls: Sequence[float]) -> float:
    """The p-value: how likely a random head would do as much (Phipson and Smyth 2010).

    (1 + controls that do as much) / (1 + controls), whatever the sign; NaN without controls.
    """
    if not controls:
        return math.nan
    as_much = sum(abs(control) >= abs(effect) for control in controls)
    return (1 + as_much) / (1 + len(controls))
