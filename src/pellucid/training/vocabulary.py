"""Subword vocabularies, learnt from the texts that a model will read.

Byte pairs (Sennrich et al. 2016; over bytes as in GPT-2, so that there is nothing that cannot be
spelled), by Hugging Face's tokenizers, whose file everybody can read.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import (
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Inner

from pellucid.common.wording import listing
from pellucid.errors import ArgumentError
from pellucid.text.tokenizer import Tokenizer

END = "<|end|>"
"""Begins a text, and so ends the one before."""
MASK = "<|mask|>"
"""Stands for a token that is hidden from a masked encoder."""
LEAST, MOST = 512, 16_384
"""Tokens of a vocabulary whose size nobody asked for."""
READ = 100_000_000
"""Characters that a vocabulary is learnt from, at the most."""
_WORD = 64
"""Bytes of a word, at the most, that pairs are counted in: the work grows with their square."""


def suggested_size(characters: int) -> int:
    """The root of the number of characters, as a multiple of 64 between `LEAST` and `MOST`.

    New words come ever more slowly as a text goes on, about as its root (Heaps 1978); 1 MB of text
    has 1,024 tokens so, and from 268 MB on it has as many as there may be.
    """
    return min(max(round(math.sqrt(characters) / 64) * 64, LEAST), MOST)


def sampled(texts: Iterable[str], characters: int, most: int) -> Iterator[str]:
    """Texts from all over a stream, which together have about `most` characters.

    Args:
        texts: the stream.
        characters: that it has.
        most: all texts are kept where it has no more.
    """
    seen = kept = 0
    for text in texts:
        if kept * characters <= seen * most:
            kept += len(text)
            yield text
        seen += len(text)


def byte_pairs(
    texts: Iterable[str],
    size: int | None = None,
    *,
    ends: str,
    marks: Sequence[str] = (),
    characters: int | None = None,
) -> Tokenizer:
    """A vocabulary, the same each time. Text is brought to NFC, and nothing else of it is lost;
    but where it spells out END or a mark, that is what is read.

    Args:
        texts: to learn from; of more than 100 million characters, a sample from all over them.
        size: tokens, at least END, the marks and every byte; `suggested_size` unless given.
        ends: where END goes: "$A" is the text in "<|end|> $A", say.
        marks: more tokens that no text is spelled with, such as MASK.
        characters: how many there are in the texts, which are then read as a stream.

    Raises:
        ArgumentError: size is too small, or larger than the texts allow.
    """
    marks = [END, *marks]
    least = 256 + len(marks)
    if size is not None and size < least:
        raise ArgumentError(
            f"vocabulary must be at least {least}, every byte and {listing(marks)}, not {size}"
        )
    if characters is None:
        texts = list(texts)
        characters = sum(map(len, texts))
    inner = Inner(models.BPE())
    inner.normalizer = normalizers.NFC()
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    parts = pre_tokenizers.Split(Regex(f".{{{_WORD}}}"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([words, parts])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=suggested_size(characters) if size is None else size,
        min_frequency=2,  # what comes once is no pattern
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(sampled(texts, characters, READ), trainer)
    inner.pre_tokenizer = words
    if size is not None and inner.get_vocab_size() < size:
        raise ArgumentError(
            f"a vocabulary of {size:,} tokens was asked for, but the texts give no more than "
            f"{inner.get_vocab_size():,}"
        )
    inner.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[(mark, inner.token_to_id(mark)) for mark in marks]
    )
    return Tokenizer(inner)
