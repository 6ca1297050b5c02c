"""Which tokens an update learns from: a function of the seed and the step, and of nothing else.

So a run may stop anywhere and go on, with as many processes as there are then: the place in the
data is the number of the step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import masks
from pellucid.training.sequences import Sequences


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Packed:
    """Texts that lie end to end in rows, with no padding."""

    ids: Tensor
    """(rows, tokens)"""
    texts: Tensor | None = None
    """(rows, tokens), the number of the text that each token is of; None where a row is one."""
    positions: Tensor | None = None
    """(rows, tokens), from 0 in each text."""

    def to(self, device: torch.device) -> "Packed":
        """The same on another device."""
        parts = (self.ids, self.texts, self.positions)
        ids, texts, positions = (None if one is None else one.to(device) for one in parts)
        assert ids is not None
        return Packed(ids=ids, texts=texts, positions=positions)

    @property
    def mask(self) -> masks.Mask | None:
        """Each text sees itself alone."""
        return None if self.texts is None else masks.documents(self.texts)


def pack(texts: Sequence[Tensor]) -> Packed:
    """Texts (tokens,) in one row."""
    lengths = torch.tensor([len(text) for text in texts])
    starts = lengths.cumsum(0) - lengths
    positions = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
    return Packed(
        ids=torch.cat(list(texts))[None],
        texts=torch.arange(len(texts)).repeat_interleave(lengths)[None],
        positions=positions[None],
    )


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers below `count`, shuffled: another way in each epoch."""
    shuffled: np.ndarray = np.random.default_rng((seed, epoch)).permutation(count)
    return shuffled


class Windows:
    """Stretches of the same length from texts that lie end to end: what a decoder reads.

    Each text begins with the mark that ends the one before. In each epoch the stretches begin
    elsewhere, so that no token is always the first.
    """

    def __init__(self, texts: Sequences, context: int, rows: int, seed: int) -> None:
        """Look through texts.

        Args:
            texts: with at least context + 1 ids together.
            context: tokens of a stretch.
            rows: stretches of an update.
            seed: of the order.
        """
        self.texts, self.context, self.rows, self.seed = texts, context, rows, seed
        self.slack = min(context, len(texts.ids) - context - 1)
        self.each = max(1, (len(texts.ids) - 1 - self.slack) // context)
        """Stretches of an epoch."""

    def starts(self, step: int) -> list[int]:
        """Where the stretches of a step begin."""
        found = []
        for number in range(step * self.rows, (step + 1) * self.rows):
            epoch, place = divmod(number, self.each)
            shift = int(np.random.default_rng((self.seed, epoch, 1)).integers(self.slack + 1))
            found.append(shift + int(order(self.each, self.seed, epoch)[place]) * self.context)
        return found

    def read(self, starts: Sequence[int], context: int | None = None) -> tuple[Packed, Tensor]:
        """Stretches, and the token that follows each of theirs, (rows, tokens)."""
        context = self.context if context is None else context
        ids = torch.stack([self.texts.span(start, start + context + 1) for start in starts])
        places = np.array(starts)[:, None] + np.arange(context)
        texts = np.searchsorted(self.texts.ends, places, "right")
        if (texts[:, :1] == texts).all():  # each row is of one text: nothing to hide
            return Packed(ids=ids[:, :-1]), ids[:, 1:]
        first = np.where(texts == 0, 0, self.texts.ends[texts - 1])
        positions = places - np.maximum(first, np.array(starts)[:, None])
        packed = Packed(
            ids=ids[:, :-1],
            texts=torch.from_numpy(texts),
            positions=torch.from_numpy(positions),
        )
        return packed, ids[:, 1:]


class Bunches:
    """Texts of like lengths together, so many tokens at once: what the others read.

    Lengths that are alike make attention few large calls, since texts of one length are one.
    """

    def __init__(
        self, lengths: np.ndarray, tokens: int, seed: int, alike: np.ndarray | None = None
    ) -> None:
        """Sort texts.

        Args:
            lengths: tokens of each text, (texts,).
            tokens: of an update.
            seed: of the order.
            alike: what texts of an update have nearly the same of, (texts,); lengths unless given.
        """
        self.lengths, self.tokens, self.seed = lengths, tokens, seed
        self.alike = lengths if alike is None else alike
        self.known: tuple[int, int, list[np.ndarray]] = 0, 0, self._bunches(0)
        """An epoch, its first step, and what it reads."""

    def texts(self, step: int) -> np.ndarray:
        """Numbers of the texts of a step."""
        if step < self.known[1]:
            self.known = 0, 0, self._bunches(0)
        while step >= self.known[1] + len(self.known[2]):
            epoch, first, bunches = self.known
            self.known = epoch + 1, first + len(bunches), self._bunches(epoch + 1)
        return self.known[2][step - self.known[1]]

    def _bunches(self, epoch: int) -> list[np.ndarray]:
        shuffled = order(len(self.lengths), self.seed, epoch)
        # Those of one length stay as they were shuffled.
        by_length = shuffled[np.argsort(self.alike[shuffled], kind="stable")]
        bunches = list(cut(by_length, self.lengths, self.tokens))
        return [bunches[number] for number in order(len(bunches), self.seed + 1, epoch)]


def cut(texts: np.ndarray, lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Texts in their order, at the most `tokens` together; at least one."""
    start = total = 0
    for place, text in enumerate(texts):
        if place > start and total + lengths[text] > tokens:
            yield texts[start:place]
            start, total = place, 0
        total += int(lengths[text])
    if start < len(texts):
        yield texts[start:]
