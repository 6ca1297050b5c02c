"""Embeddings of texts, computed without padding: the texts of a batch are packed into one row.

Texts are sorted by length, and a batch is a number of tokens rather than a number of texts.
`masks.documents` keeps texts apart, and texts of the same length share one kernel call. Each core
works on batches of its own.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid import pretrained
from pellucid.attention import masks
from pellucid.attention.block_pool import each
from pellucid.common.files import printable
from pellucid.common.wording import count, listing
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.bfloat16 import Precision, products, resolved
from pellucid.lens.interception import listeners
from pellucid.models import Encoder, load
from pellucid.tasks.checked_texts import Doubts, ids_of
from pellucid.tasks.whole_numbers import check_whole

DEFAULT = "all-MiniLM-L6-v2"
BATCH_TOKENS = 2048
"""Tokens of a forward pass, which runs on one core: enough for efficient matrix products, and few
enough that all cores stay busy to the end.
"""

PROBE = "Which encoder is this?"
"""A text whose embedding tells one encoder from another; see `is_same`."""
Progress = Callable[[int, int], None]
"""Called with the number of texts done and the total."""


def open_encoder(path: str | Path | None = None) -> Encoder:
    """Load an encoder with its tokenizer.

    Args:
        path: as for `pellucid.load`; all-MiniLM-L6-v2 by default.

    Raises:
        FileError: the model does not exist or cannot be loaded.
        ArgumentError: the model is not an encoder, or has no tokenizer.
        MissingExtraError: the default model, or an extra that loading needs, is not installed.
    """
    model = load(pretrained.MINILM if path is None else path)
    if not isinstance(model, Encoder):
        kind = "a decoder" if model.kind == "decoder" else "an encoder-decoder"
        raise ArgumentError(f"model '{path}' is {kind}; embeddings need an encoder")
    if model.tokenizer is None:
        raise ArgumentError(f"model '{path}' has no tokenizer")
    return model


def is_same(probe: Tensor, other: Tensor) -> bool:
    """Whether two embeddings of `PROBE`, (width,), are those of one encoder."""
    return probe.shape == other.shape and torch.allclose(probe, other, rtol=1e-5, atol=1e-3)


def name_of(model: str | None) -> str:
    """The display name of an encoder, given its path or hub name; None is the default encoder."""
    return DEFAULT if model is None else printable(Path(model).name or model)


def embed(
    model: Encoder,
    texts: Sequence[str],
    *,
    strict: bool = False,
    names: Sequence[str] | None = None,
    prompt: str | None = None,
    truncate_dim: int | None = None,
    precision: Precision = "float32",
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
    doubts: Doubts | None = None,
) -> Tensor:
    """Embed texts: (texts, width), float32 on the CPU, in the order given, without gradient.

    `model.config` chooses the pooling, the layers after it, and whether embeddings are normalised
    to unit length (Reimers and Gurevych 2019, "Sentence-BERT", section 3). Up to rounding, an
    embedding does not depend on the other texts.

    Args:
        model: an encoder that was loaded with its tokenizer.
        texts: any number of texts, none blank.
        strict: refuse a text that is too long instead of truncating it with a warning.
        names: what errors call each text; "texts[2]" and so on by default.
        prompt: what comes before each text: the name of one of `model.prompts`, or text; by default
            the prompt that is the model's default, if there is one.
        truncate_dim: how many numbers of each embedding to keep, the first ones; as
            `model.config.truncated` unless given.
        precision: of the products of matrices: "float32"; "bfloat16", which is some times faster on
            processors with AMX, at a cosine of 0.999 and more (see `digits_lost`); or "auto" for
            the faster one.
        batch_tokens: the most tokens of a forward pass; a longer text has a pass of its own.
        progress: called after each pass with the number of texts done and the total.
        doubts: counts texts that the model cannot read in full, instead of warnings.

    Raises:
        ArgumentError: a text is blank, not valid Unicode or, with `strict`, too long; or precision
            is unknown, or is bfloat16 where that would be slower.
        TypeMismatchError: the model is not an encoder with a tokenizer, a text is not a str, or
            batch_tokens or truncate_dim is not an int.
    """
    if not isinstance(model, Encoder) or model.tokenizer is None:
        raise TypeMismatchError("model must be an Encoder that was loaded with its tokenizer")
    check_whole("batch_tokens", batch_tokens)
    kind = resolved(precision, model.device)
    prefix = prompt_text(model, prompt)
    ids = ids_of(model, texts, strict, names, prefix, doubts)
    skipped = 0 if model.prompts.pooled or not prefix else _tokens_of(model, prefix)
    width = model.config.embedding_numbers
    if truncate_dim is not None:
        check_whole("truncate_dim", truncate_dim, 1, width)
        width = truncate_dim

    def embedded(batch: list[int]) -> Tensor:
        with products(kind):
            return model.embeddings(*_encoded(model, ids, batch), skipped)[:, :width]

    return _of_each(model, ids, embedded, width, batch_tokens, progress)


COMPARED = 8
"""The most texts that `digits_lost` embeds again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsLost:
    """How far embeddings in bfloat16 are from those in float32."""

    compared: int
    """Texts that were embedded in both."""
    lowest_cosine: float
    """Of the two embeddings of a text."""

    def __str__(self) -> str:
        cosine = math.floor(self.lowest_cosine * 1e5) / 1e5
        return (
            f"embedded in bfloat16: compared on {count(self.compared, 'text')}, the cosine with "
            f"float32 is {cosine:.5f} or more"
        )


def digits_lost(
    model: Encoder, texts: Sequence[str], vectors: Tensor, **options: Any
) -> DigitsLost:
    """Embed some texts again in float32, and compare.

    Args:
        model: the encoder.
        texts: at least one.
        vectors: their embeddings in bfloat16, (texts, width).
        options: `prompt` and `truncate_dim` of `embed`.
    """
    chosen = list(range(0, len(texts), -(-len(texts) // COMPARED)))
    exact = embed(model, [texts[number] for number in chosen], doubts=Doubts(), **options)
    cosines = torch.cosine_similarity(exact, vectors[chosen])
    return DigitsLost(compared=len(chosen), lowest_cosine=float(cosines.min()))


def predict(
    model: Encoder,
    texts: Sequence[str],
    *,
    strict: bool = False,
    names: Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Tensor:
    """What the model's own classifier says of texts: (texts, labels), float32 on the CPU.

    They are probabilities, or numbers if `model.config.classifier` is a regression. The arguments
    are those of `embed`.

    Raises:
        ArgumentError: the model has no classifier, or as `embed`.
        TypeMismatchError: as `embed`.
    """
    if not isinstance(model, Encoder) or model.tokenizer is None:
        raise TypeMismatchError("model must be an Encoder that was loaded with its tokenizer")
    if model.config.classifier is None:
        raise ArgumentError("the model has no classifier")
    check_whole("batch_tokens", batch_tokens)
    ids = ids_of(model, texts, strict, names)
    shape = model.config.classifier

    def scored(batch: list[int]) -> Tensor:
        return model.logits(*_encoded(model, ids, batch))

    scores = _of_each(model, ids, scored, len(shape.labels), batch_tokens, progress)
    if shape.scores == "softmax":
        return scores.softmax(-1)
    return scores.sigmoid() if shape.scores == "sigmoid" else scores


def _of_each(
    model: Encoder,
    ids: list[list[int]],
    computed: Callable[[list[int]], Tensor],
    width: int,
    batch_tokens: int,
    progress: Progress | None,
) -> Tensor:
    """What is computed for each text, (texts, width), batch by batch, in the order of the texts."""
    embeddings = torch.empty(len(ids), width)
    done = 0
    with torch.inference_mode():
        batches = _batches([len(text_ids) for text_ids in ids], batch_tokens)
        for batch, vectors in _embedded_batches(computed, batches, model.device):
            embeddings[batch] = vectors.float().cpu()
            done += len(batch)
            if progress is not None:
                progress(done, len(ids))
    return embeddings


def _embedded_batches(
    embedded: Callable[[list[int]], Tensor], batches: Iterable[list[int]], device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """Every batch with its embeddings, on all cores unless a watch is active.

    A watch records calls in sequence, so those of several workers would be interleaved.
    """
    if listeners.active:
        return ((batch, embedded(batch)) for batch in batches)
    return each(embedded, batches, device, False)


def _batches(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Batches of text numbers, the longest text first, with at most `most` tokens each."""
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


def _encoded(model: Encoder, all_ids: list[list[int]], batch: list[int]) -> tuple[Tensor, Tensor]:
    """The encodings of the tokens of a batch, one text after the other, and the lengths.

    Returns:
        (tokens, width), and (texts,) on the CPU.
    """
    device = model.device
    ids = [all_ids[number] for number in batch]
    lengths = torch.tensor([len(text_ids) for text_ids in ids])
    starts = lengths.cumsum(0) - lengths
    text = torch.repeat_interleave(lengths)  # the text of each token
    positions = torch.arange(len(text)) - starts[text]
    row = torch.tensor([token for text_ids in ids for token in text_ids])
    tokens: Tensor = model(
        row.unsqueeze(0).to(device),
        masks.documents(text.to(device)) if len(ids) > 1 else None,
        positions=positions.unsqueeze(0).to(device),
    ).squeeze(0)
    return tokens, lengths


def prompt_text(model: Encoder, prompt: str | None) -> str:
    """The text of a prompt, given its name or, if it is no single word, itself.

    Raises:
        ArgumentError: the model has no prompt of that name.
        TypeMismatchError: the prompt is not a str.
    """
    known = model.prompts.texts
    if prompt is None:
        return "" if model.prompts.default is None else known[model.prompts.default]
    if not isinstance(prompt, str):
        raise TypeMismatchError(f"prompt must be a str, not {prompt!r:.80}")
    if prompt in known:
        return known[prompt]
    if prompt and re.fullmatch(r"\w+", prompt):
        names = f"; its prompts are {listing(list(known))}" if known else " or of any other name"
        raise ArgumentError(
            f"the model has no prompt '{prompt}'{names}; text that is not a name ends in a colon "
            "or a space"
        )
    return prompt


QUERY = ("query",)
DOCUMENT = ("document", "passage", "corpus")
"""Names of prompts of what is searched for and of what is searched, as in sentence-transformers."""


def role_prompt(model: Encoder, names: Sequence[str]) -> str | None:
    """The first of these names of prompts that the model has; None if it has none of them."""
    return next((name for name in names if name in model.prompts.texts), None)


def _tokens_of(model: Encoder, prefix: str) -> int:
    """How many tokens at the start of a text belong to its prompt, special tokens included."""
    assert model.tokenizer is not None
    ids = model.tokenizer.encode([prefix])[0]
    return len(ids) - (ids[-1] in model.tokenizer.all_special_ids)
