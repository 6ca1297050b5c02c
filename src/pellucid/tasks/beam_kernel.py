"""The likeliest tokens of many texts, compiled: a text's logits are read while in the cache."""

from typing import Any

import numpy as np
from numba import prange

from pellucid.attention.numba_cache import kernel, parallel_kernel
from pellucid.layers.elementary import exp

f32 = np.float32
BLOCK = 128
"""Logits whose largest is found at once; one block in many has some of the likeliest."""


@kernel
def _likeliest_of(logits: Any, tokens: Any, chances: Any) -> None:
    """Those of a text, (most,) each, of logits (vocabulary,), likeliest first."""
    size, most = logits.shape[0], tokens.shape[0]
    chances[:] = f32(-np.inf)
    tokens[:] = 0
    count = 0
    for start in range(0, size, BLOCK):
        block = logits[start : start + BLOCK]
        largest = f32(-np.inf)
        for j in range(block.shape[0]):
            largest = max(largest, block[j])
        if count == most and largest <= chances[most - 1]:
            continue
        for j in range(block.shape[0]):
            if count < most or block[j] > chances[most - 1]:
                at = min(count, most - 1)
                while at > 0 and chances[at - 1] < block[j]:
                    chances[at], tokens[at] = chances[at - 1], tokens[at - 1]
                    at -= 1
                chances[at], tokens[at] = block[j], start + j
                count = min(count + 1, most)
    largest, total = chances[0], f32(0.0)
    for j in range(size):
        total += exp(logits[j] - largest)
    for j in range(most):
        chances[j] = (chances[j] - largest) - f32(np.log(total))


@parallel_kernel
def likeliest(logits: Any, tokens: Any, chances: Any, parts: Any) -> None:
    """The likeliest tokens of each text and their log-probabilities.

    Args:
        logits: (texts, vocabulary) float32.
        places: (texts, most) int64, written: the tokens, likeliest first.
        chances: (texts, most) float32, written.
        parts: how many cores to use.
    """
    texts = len(logits)
    for part in prange(parts):
        for row in range(texts * part // parts, texts * (part + 1) // parts):
            _likeliest_of(logits[row], tokens[row], chances[row])
