"""How large a model is made, from how much there is to learn and on what machine."""

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
"""From so many tokens on, such a width and so many layers: some five to twenty tokens a weight are
read in all (Hoffmann et al. 2022, "Chinchilla", section 3), in several passes over few."""
CPU_WIDTH = 384
"""Beyond it a CPU of a few cores would take days."""
HEAD = 64
"""Numbers of a head."""
PASSES = 10
"""Over texts of up to `REPEATED` tokens, fewer over longer ones: beyond that a repetition teaches
nothing (Muennighoff et al. 2023, section 5)."""
REPEATED = 10_000_000


def shape(kind: Kind, tokens: int, vocabulary: int, end: int, asked: dict[str, Any]) -> Config:
    """A model for so many tokens, with what is asked in place of what is usual.

    It is of today's usual parts: norms before, RMS norms, rotary positions, SwiGLU.

    Args:
        kind: of the model.
        tokens: to learn from.
        vocabulary: its size.
        end: id that begins a decoder's text and ends any.
        asked: fields of `Config`.

    Raises:
        ArgumentError, TypeMismatchError: what is asked does not fit.
    """
    _, width, layers = next(tier for tier in reversed(TIERS) if tokens >= tier[0])
    if not torch.cuda.is_available() and (os.cpu_count() or 1) <= 16 and width > CPU_WIDTH:
        _, width, layers = next(tier for tier in reversed(TIERS) if tier[1] <= CPU_WIDTH)
    if isinstance(asked.get("width"), int):
        width = asked["width"]
    usual: dict[str, Any] = {
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
        "attention_dropout": 0.0,  # for which the fused kernels would have to go
        "start": None if kind == "encoder" else end,
        "stop": () if kind == "encoder" else (end,),
    }
    return Config(kind=kind, vocabulary=vocabulary, **(usual | asked))


def steps_for(tokens: int, batch_tokens: int) -> int:
    """Updates that make `PASSES` over few tokens, and at least one over many."""
    passes = max(1.0, min(PASSES, PASSES * REPEATED / max(tokens, 1)))
    return max(100, round(passes * tokens / batch_tokens))
