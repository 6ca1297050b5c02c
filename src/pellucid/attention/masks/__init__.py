"""Masks: which query may see which key, as rules and never as n x n booleans.

`factories` makes them; `mask` says what a mask is and joins masks with `&`, `|` and `~`; `rules`
are the kinds of mask there are; `checks` refuses what does not fit.
"""

from pellucid.attention.masks.checks import Extent
from pellucid.attention.masks.factories import causal, documents, padding, prefix, present, window
from pellucid.attention.masks.mask import And, Dense, Mask, Not, Or, PerItem, Spans, as_mask, dense
from pellucid.attention.masks.rules import (
    Band,
    Below,
    Documents,
    Heads,
    Present,
    Rows,
    is_causal,
)

__all__ = [
    "And",
    "Band",
    "Below",
    "Dense",
    "Documents",
    "Extent",
    "Heads",
    "Mask",
    "Not",
    "Or",
    "PerItem",
    "Present",
    "Rows",
    "Spans",
    "as_mask",
    "causal",
    "dense",
    "documents",
    "is_causal",
    "padding",
    "prefix",
    "present",
    "window",
]
