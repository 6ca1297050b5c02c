"""Word alignment of a translation with its source, for the page's grid."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.lens.alignment import Alignment, align_by, plain_words
from pellucid.lens.layer_labels import label_layers
from pellucid.lens.record import Record
from pellucid.lens.spelling import Word
from pellucid.viewer.catalogue import Volume

MOST = 2**20
"""Pairs of tokens in one answer: 20 MB of JSON."""


def alignment(volume: Volume, item: int) -> dict[str, Any]:
    """How much each target word attended to each source word, and by which heads.

    The heads are those that the model lists for alignment; without such a list, the mean of
    all cross-attention, as in `lens.align`.

    Raises:
        ArgumentError: there is not cross-attention, there are no words, or they are too many.
        OutOfRangeError: there is no such text.
    """
    names = volume.seen.names
    named = [head for head in volume.seen.alignment_heads if head[0] in names]
    grid = _align(volume, item, named)
    return {
        "source": grid.source,
        "target": grid.target,
        "weights": grid.weights.tolist(),
        "of": _made_of(volume, named),
    }


def of_heads(volume: Volume, record: Record, item: int) -> Tensor:
    """(heads, target words, source words): the same of each head of one cross-attention.

    Raises:
        ArgumentError, OutOfRangeError: as `alignment`.
    """
    if not record.is_cross:
        raise ArgumentError(f"{record.name} is not cross-attention")
    heads = range(record.shape[-3])
    return torch.stack([_align(volume, item, [(record.name, head)]).weights for head in heads])


def _align(volume: Volume, item: int, named: Sequence[tuple[str, int]]) -> Alignment:
    for record in volume.seen.latest():
        queries, keys = record.shape[-2:]
        if record.is_cross and queries * keys > MOST:
            raise ArgumentError(
                f"{queries:,} target tokens by {keys:,} source tokens are too many to align "
                "word by word; the map shows them"
            )
    return align_by(volume.seen, named, item=item, target_words=_target(volume, item))


def _target(volume: Volume, item: int) -> list[Word] | None:
    """The generated words, with the last token, which the model did not read."""
    if volume.written is None or item:
        return None
    seen, ids = volume.seen, volume.written.ids
    return plain_words(seen.strings(torch.tensor(ids)), ids, seen.special_ids) or None


def _made_of(volume: Volume, named: Sequence[tuple[str, int]]) -> str:
    if not named:
        return "the mean over all layers and heads"
    records = volume.seen.latest()
    names = [record.name for record in records]
    labels = [label_layers(records)[names.index(name)] for name, _ in named]
    heads = ", ".join(
        f"layer {stack}{layer}, head {head}"
        for (stack, layer), (_, head) in zip(labels, named, strict=True)
    )
    listed = f"{heads}, which the model lists for alignment"
    return listed if len(named) == 1 else f"the mean of {listed}"
