"""Batches as a function of the seed and the step only.

So a run can be resumed anywhere, with any number of processes: the step is the position in the
data.
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
    """Texts packed into rows without padding."""

    ids: Tensor
    """(rows, tokens)"""
    texts: Tensor | None = None
    """The number of each token's text, (rows, tokens); None if each row is one text."""
    positions: Tensor | None = None
    """(rows, tokens), from 0 in each text."""

    def to(self, device: torch.device) -> "Packed":
        """A copy on another device."""
        return Packed(
            ids=self.ids.to(device),
            texts=None if self.texts is None else self.texts.to(device),
            positions=None if self.positions is None else self.positions.to(device),
        )

    @property
    def mask(self) -> masks.Mask | None:
        """Each text attends to itself only."""
        return None if self.texts is None else masks.documents(self.texts)


def pack(texts: Sequence[Tensor]) -> Packed:
    """Pack texts, (tokens,) each, into one row."""
    lengths = torch.tensor([len(text) for text in texts])
    starts = lengths.cumsum(0) - lengths
    positions = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
    return Packed(
        ids=torch.cat(list(texts))[None],
        texts=torch.arange(len(texts)).repeat_interleave(lengths)[None],
        positions=positions[None],
    )


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers below `count`, shuffled differently in each epoch."""
    shuffled: np.ndarray = np.random.default_rng((seed, epoch)).permutation(count)
    return shuffled


class Windows:
    """Windows of equal length from concatenated texts, for a decoder.

    Each text begins with the special token that ends the one before. The windows are shifted in
    each epoch, so that no token is always the first.
    """

    def __init__(self, texts: Sequences, context: int, rows: int, seed: int) -> None:
        """Divide texts into windows.

        Args:
            texts: with at least context + 1 ids in total.
            context: tokens of a window.
            rows: windows of an update.
            seed: of the order.
        """
        self.texts, self.context, self.rows, self.seed = texts, context, rows, seed
        self.slack = min(context, len(texts.ids) - context - 1)
        self.each = max(1, (len(texts.ids) - 1 - self.slack) // context)
        """Windows of an epoch."""

    def starts(self, step: int) -> list[int]:
        """The starts of the windows of a step."""
        starts = []
        for number in range(step * self.rows, (step + 1) * self.rows):
            epoch, place = divmod(number, self.each)
            shift = int(np.random.default_rng((self.seed, epoch, 1)).integers(self.slack + 1))
            starts.append(shift + int(order(self.each, self.seed, epoch)[place]) * self.context)
        return starts

    def read(self, starts: Sequence[int], context: int | None = None) -> tuple[Packed, Tensor]:
        """The windows, and the next token of each of their tokens, (rows, tokens)."""
        context = self.context if context is None else context
        ids = torch.stack([self.texts.span(start, start + context + 1) for start in starts])
        offsets = np.array(starts)[:, None] + np.arange(context)
        texts = np.searchsorted(self.texts.ends, offsets, "right")
        if (texts[:, :1] == texts).all():  # each row is of one text and needs no mask
            return Packed(ids=ids[:, :-1]), ids[:, 1:]
        first = np.where(texts == 0, 0, self.texts.ends[texts - 1])
        positions = offsets - np.maximum(first, np.array(starts)[:, None])
        packed = Packed(
            ids=ids[:, :-1],
            texts=torch.from_numpy(texts),
            positions=torch.from_numpy(positions),
        )
        return packed, ids[:, 1:]


class LengthBatches:
    """Batches of texts of similar length, with a limit of tokens: for all but decoders.

    Texts of the same length share one attention call, so similar lengths make few large calls.
    """

    def __init__(
        self, lengths: np.ndarray, tokens: int, seed: int, sort_by: np.ndarray | None = None
    ) -> None:
        """Group texts.

        Args:
            lengths: tokens of each text, (texts,).
            tokens: of an update.
            seed: of the order.
            sort_by: the values that are similar in a batch, (texts,); lengths by default.
        """
        self.lengths, self.tokens, self.seed = lengths, tokens, seed
        self.sort_by = lengths if sort_by is None else sort_by
        self.current: tuple[int, int, list[np.ndarray]] = 0, 0, self._batches(0)
        """An epoch, its first step, and its batches."""

    def texts(self, step: int) -> np.ndarray:
        """The numbers of the texts of a step."""
        if step < self.current[1]:
            self.current = 0, 0, self._batches(0)
        while step >= self.current[1] + len(self.current[2]):
            epoch, first, batches = self.current
            self.current = epoch + 1, first + len(batches), self._batches(epoch + 1)
        return self.current[2][step - self.current[1]]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        shuffled = order(len(self.lengths), self.seed, epoch)
        # A stable sort leaves texts of the same length shuffled.
        by_length = shuffled[np.argsort(self.sort_by[shuffled], kind="stable")]
        batches = list(cut(by_length, self.lengths, self.tokens))
        return [batches[number] for number in order(len(batches), self.seed + 1, epoch)]


def cut(texts: np.ndarray, lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Cut a sequence of texts into groups of at most `tokens` tokens, but at least one text."""
    start = total = 0
    for place, text in enumerate(texts):
        if place > start and total + lengths[text] > tokens:
            yield texts[start:place]
            start, total = place, 0
        total += int(lengths[text])
    if start < len(texts):
        yield texts[start:]
