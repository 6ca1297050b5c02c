"""One vector a text, with no padding computed: texts of all lengths lie end to end in one row.

Texts are sorted by length and put one after the other, so many tokens a batch rather than so many
texts. `masks.documents` keeps each to itself, and those of one length are one kernel call. Each
core has batches of its own, and waits for nobody.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid import pretrained
from pellucid.attention import masks
from pellucid.attention.block_pool import each
from pellucid.common.files import printable
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import interception
from pellucid.models import Encoder, load
from pellucid.tasks.checked_texts import ids_of
from pellucid.tasks.whole_numbers import check_whole

DEFAULT = "all-MiniLM-L6-v2"
BATCH_TOKENS = 2048
"""Of one forward pass, which has a core to itself: enough for the matrix products, and few enough
that all cores are busy to the end.
"""

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


def open_encoder(path: str | Path | None = None) -> Encoder:
    """An encoder with its tokenizer; all-MiniLM-L6-v2 unless another is given.

    Args:
        path: as for `pellucid.load`.

    Raises:
        FileError: there is no such model, or it cannot be loaded.
        ArgumentError: it is no encoder, or has no tokenizer.
        MissingExtraError: what is needed to load it, or the default model, is not installed.
    """
    model = load(pretrained.MINILM if path is None else path)
    if not isinstance(model, Encoder):
        kind = "a decoder" if model.kind == "decoder" else "an encoder-decoder"
        raise ArgumentError(f"model '{path}' is {kind}; embeddings need an encoder")
    if model.tokenizer is None:
        raise ArgumentError(f"model '{path}' has no tokenizer")
    return model


def name_of(model: str | None) -> str:
    """What people call the encoder of a directory or name; None is the default one."""
    return DEFAULT if model is None else printable(Path(model).name or model)


def embed(
    model: Encoder,
    texts: Sequence[str],
    *,
    strict: bool = False,
    names: Sequence[str] | None = None,
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
        names: what to call each text in an error; "texts[2]" and so on unless given.
        batch_tokens: how many tokens there are in a forward pass, at the most; a text that has
            more is alone in one.
        progress: called after each pass, with the texts done and all.

    Raises:
        ArgumentError: a text is blank, is no Unicode text, or, with `strict`, too long.
        TypeMismatchError: the model is no encoder with a tokenizer, a text no str, or batch_tokens
            no int.
    """
    if not isinstance(model, Encoder) or model.tokenizer is None:
        raise TypeMismatchError("model must be an Encoder that was loaded with its tokenizer")
    check_whole("batch_tokens", batch_tokens)
    ids = ids_of(model, texts, strict, names)
    found = torch.empty(len(ids), model.config.width)
    done = 0
    with torch.inference_mode():
        batches = _batches([len(one) for one in ids], batch_tokens)
        for batch, vectors in _each(partial(_embedded, model, ids), batches, model.device):
            found[batch] = vectors.float().cpu()
            done += len(batch)
            if progress is not None:
                progress(done, len(ids))
    return found


def _each(
    embedded: Callable[[list[int]], Tensor], batches: Iterable[list[int]], device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """Every batch with its vectors, on all cores unless somebody watches.

    What a watch records are calls one after another: those of two workers would be mixed up.
    """
    if interception.listeners:
        return ((batch, embedded(batch)) for batch in batches)
    return each(embedded, batches, device, False)


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


def _embedded(model: Encoder, all_ids: list[list[int]], batch: list[int]) -> Tensor:
    """(texts, width) of one batch."""
    device, config = model.device, model.config
    ids = [all_ids[number] for number in batch]
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
