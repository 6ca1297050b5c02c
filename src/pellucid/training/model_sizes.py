"""The size of a model, chosen by the amount of data and the machine."""

import os
from typing import Any

import torch

from pellucid.layers.config import Config, Kind

TIERS = (
    (0, 128, 4),
    (500_000, 256, 6),
    (10_000_000, 384, 6),
    (50_000_000, 512, 8),
    (500_000_000, 768, 12),
)
"""Minimum tokens, width and layers: some five to twenty tokens per parameter are read in total
(Hoffmann et al. 2022, "Chinchilla", section 3), in several epochs if there are few."""
CPU_WIDTH = 384
"""The largest width on a CPU of a few cores, which would take days beyond it."""
HEAD = 64
"""The dimension of a head."""
PASSES = 10
"""Epochs over up to `REPEATED` tokens, and fewer over more: further repetition teaches nothing
(Muennighoff et al. 2023, section 5)."""
REPEATED = 10_000_000


def shape(kind: Kind, tokens: int, vocabulary: int, end: int, options: dict[str, Any]) -> Config:
    """The config of a model for an amount of data: pre-norm, RMS norm, rotary positions, SwiGLU.

    Args:
        kind: of the model.
        tokens: of the training data.
        vocabulary: its size.
        end: the id that begins a decoder's text and ends any text.
        options: fields of `Config` that replace the defaults.

    Raises:
        ArgumentError, TypeMismatchError: an option is invalid.
    """
    _, width, layers = next(tier for tier in reversed(TIERS) if tokens >= tier[0])
    if not torch.cuda.is_available() and (os.cpu_count() or 1) <= 16 and width > CPU_WIDTH:
        _, width, layers = next(tier for tier in reversed(TIERS) if tier[1] <= CPU_WIDTH)
    if isinstance(options.get("width"), int):
        width = options["width"]
    defaults: dict[str, Any] = {
        "width": width,
        "layers": layers if kind != "encoder-decoder" else max(2, layers // 2),
        "heads": max(1, width // HEAD),
        "hidden": max(32, round(width * 8 / 3 / 32) * 32),
        "norm": "rms",
        "norm_first": True,
        "activation": "silu",
        "gated": True,
        "bias": False,
        "position": "rotary",
        "positions": 512 if kind == "encoder" else 256,
        "dropout": 0.1 if tokens < 10 * REPEATED else 0.0,
        "attention_dropout": 0.0,  # the fused kernels do not support it
        "start": None if kind == "encoder" else end,
        "stop": () if kind == "encoder" else (end,),
    }
    return Config(kind=kind, vocabulary=vocabulary, **(defaults | options))


def steps_for(tokens: int, batch_tokens: int) -> int:
    """The number of updates: `PASSES` epochs over few tokens, and at least one over many."""
    passes = max(1.0, min(PASSES, PASSES * REPEATED / max(tokens, 1)))
    return max(100, round(passes * tokens / batch_tokens))
