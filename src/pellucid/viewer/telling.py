"""The head and the word of a recording with which a page opens."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pellucid.lens.spelling import is_special
from pellucid.lessons.heads import telling_word, worth
from pellucid.viewer.catalogue import Catalogue

MOST_TOKENS = 512
"""Of a text whose weights are all looked at."""


class Telling(NamedTuple):
    """A layer, one of its heads and a token."""

    layer: int
    head: int
    token: int


def telling(catalogue: Catalogue, recording: int) -> dict[str, Any]:
    """The head of self-attention that has most to show, and the word that gives most to others.

    Nothing for longer texts than `MOST_TOKENS`, and where no word attends to another.

    Raises:
        OutOfRangeError: there is no such recording.
    """
    catalogue.volume(recording)
    best: tuple[float, Telling] | None = None
    for number, layer in enumerate(catalogue.layers):
        is_self = layer.recording == recording and not layer.is_cross
        if not is_self or layer.queries != layer.keys or layer.keys > MOST_TOKENS:
            continue
        with torch.no_grad():
            weights = catalogue.layer(number, 0, known=False)
            dense, visible = weights[:].float().cpu(), (weights.masked[:] > -torch.inf).cpu()
        words = _words(catalogue, number, layer.keys)
        for head, value in enumerate(worth(dense, visible, words)):
            if value.total > 0 and (best is None or value.total > best[0]):
                best = value.total, Telling(number, head, telling_word(dense[head], words))
    return {"telling": None if best is None else best[1]._asdict()}


def _words(catalogue: Catalogue, layer: int, count: int) -> Tensor:
    """(tokens,) bool, False for punctuation and the model's own marks."""
    spelt = catalogue.words(layer, 0, "keys")
    if spelt is None:
        return torch.ones(count, dtype=torch.bool)
    return torch.tensor(
        [not is_special(word.strip()) and any(map(str.isalnum, word)) for word in spelt]
    )
