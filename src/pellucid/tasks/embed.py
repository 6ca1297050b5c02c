"""One vector a text, with no padding computed: texts of all lengths lie end to end in one row.

Texts are sorted by length and put one after the other, so many tokens a batch rather than so many
texts. `masks.documents` keeps each to itself, and those of one length are one kernel call.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.attention import masks
from pellucid.common.files import is_blank
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models.stacks import Encoder

BATCH_TOKENS = 4096
"""Of one forward pass: enough to fill the cores, and little enough to stay near them."""

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


def embed(
    model: Encoder,
    texts: Sequence[str],
    *,
    strict: bool = False,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Tensor:
    """(texts, width) float32 on the CPU, in the order given; no gradient.

    The embedding of a text is what `model.config` says: the mean of its tokens or the first of
    them, of length 1 or as it comes (Reimers and Gurevych 2019, "Sentence-BERT", section 3). It
    is the same, up to rounding, whatever else is embedded with it.

    Args:
        model: an encoder that was loaded with its tokenizer.
        texts: any number of them, none blank.
        strict: refuse a text that is longer than the model reads, rather than cut it and warn.
        batch_tokens: how many tokens there are in a forward pass, at the most; a text that has
            more is alone in one.
        progress: called after each pass, with the texts done and all.

    Raises:
        ArgumentError: a text is blank, is no Unicode text, or, with `strict`, too long.
        TypeMismatchError: the model is no encoder with a tokenizer, or a text no str.
    """
    if not isinstance(model, Encoder) or model.tokenizer is None:
        raise TypeMismatchError("model must be an Encoder that was loaded with its tokenizer")
    if batch_tokens < 1:
        raise ArgumentError(f"batch_tokens must be at least 1, not {batch_tokens}")
    ids = _ids(model, texts, strict)
    found = torch.empty(len(ids), model.config.width)
    done = 0
    with torch.inference_mode():
        for batch in _batches([len(one) for one in ids], batch_tokens):
            found[batch] = _embedded(model, [ids[number] for number in batch]).float().cpu()
            done += len(batch)
            if progress is not None:
                progress(done, len(ids))
    return found


def _batches(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Numbers of texts, the longest first, `most` tokens at a time."""
    batch: list[int] = []
    tokens = 0
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if batch and tokens + lengths[number] > most:
            yield batch
            batch, tokens = [], 0
        batch.append(number)
        tokens += lengths[number]
    if batch:
        yield batch


def _embedded(model: Encoder, ids: list[list[int]]) -> Tensor:
    """(texts, width) of one batch."""
    device, config = model.device, model.config
    lengths = torch.tensor([len(one) for one in ids])
    starts = lengths.cumsum(0) - lengths
    text = torch.repeat_interleave(lengths)  # of each token, the number of its text
    positions = torch.arange(len(text)) - starts[text]
    row = torch.tensor([number for one in ids for number in one])
    tokens: Tensor = model(
        row.unsqueeze(0).to(device),
        masks.documents(text.to(device)) if len(ids) > 1 else None,
        positions=positions.unsqueeze(0).to(device),
    ).squeeze(0)
    if config.pooling == "first":
        pooled = tokens[starts.to(device)]
    else:
        pooled = torch.segment_reduce(tokens, "mean", lengths=lengths.to(device), axis=0)
    return F.normalize(pooled, dim=-1) if config.normalised else pooled


def _ids(model: Encoder, texts: Sequence[str], strict: bool) -> list[list[int]]:
    """Of each text, as many as the model reads."""
    assert model.tokenizer is not None
    if isinstance(texts, str):
        raise TypeMismatchError("texts must be several str, not a single one; put it in a list")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeMismatchError(f"texts[{number}] must be a str, not {type(text).__name__}")
        if is_blank(text):
            raise ArgumentError(f"texts[{number}] is empty")
    try:
        ids = model.tokenizer.encode(texts)
    except UnicodeEncodeError as error:
        raise ArgumentError(f"texts hold what is no Unicode text: {error.reason}") from error
    config = model.config
    most = config.positions if config.most_tokens is None else config.most_tokens
    long = [] if most is None else [number for number, one in enumerate(ids) if len(one) > most]
    for number, one in enumerate(ids):
        if not one:
            raise ArgumentError(f"texts[{number}] has no tokens that the model knows")
    if not long:
        return ids
    assert most is not None
    longest = max(long, key=lambda number: len(ids[number]))
    if strict:
        raise ArgumentError(
            f"texts[{longest}] has {len(ids[longest]):,} tokens, but the model reads {most:,}"
        )
    lost = sum(len(ids[number]) - most for number in long)
    warnings.warn(
        f"{count(len(long), 'text')} of {len(ids)} cut to the {most:,} tokens that the model "
        f"reads: {lost:,} tokens are lost; the longest text has {len(ids[longest]):,}",
        stacklevel=3,
    )
    for number in long:
        ids[number] = model.tokenizer.encode_cut(texts[number], most)
    return ids
