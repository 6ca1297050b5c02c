"""Subword vocabularies, trained on a model's texts.

Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2) by Hugging Face's tokenizers, so that
every text can be encoded and others can read the file.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Inner

from pellucid.common.wording import listing
from pellucid.errors import ArgumentError
from pellucid.text.tokenizer import Tokenizer

END = "<|end|>"
"""Begins a text, and so ends the one before."""
MASK = "<|mask|>"
"""Replaces the masked tokens of an encoder."""
LEAST, MOST = 512, 16_384
"""The limits of the default vocabulary size."""
READ = 100_000_000
"""The most characters that a vocabulary is trained on."""
_WORD = 64
"""The most bytes of a word in which pairs are counted, since the work is quadratic."""


def suggested_size(characters: int) -> int:
    """The square root of the number of characters, as a multiple of 64 from `LEAST` to `MOST`.

    The number of different words grows about as the square root of a text (Heaps 1978). 1 MB of
    text gets 1,024 tokens, and 268 MB or more gets the maximum.
    """
    return min(max(round(math.sqrt(characters) / 64) * 64, LEAST), MOST)


def sampled(texts: Iterable[str], characters: int, most: int) -> Iterator[str]:
    """Sample texts evenly from a stream, with about `most` characters in total.

    Args:
        texts: the stream.
        characters: its total length.
        most: the whole stream is used if it is no longer than this.
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
    """Train a tokenizer, deterministically. It is lossless after NFC normalisation, except that END
    and marks spelled out in a text become special tokens.

    Args:
        texts: to train on; if there are more than 100 million characters, a sample of them.
        size: of the vocabulary, at least END, the marks and every byte; by default
            `suggested_size`.
        ends: the template of special tokens, such as "<|end|> $A", where "$A" is the text.
        marks: more special tokens, such as MASK.
        characters: the total length of the texts, which are then read as a stream.

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
        min_frequency=2,  # a single occurrence is no pattern
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(sampled(texts, characters, READ), trainer)
    inner.pre_tokenizer = words
    if size is not None and inner.get_vocab_size() < size:
        raise ArgumentError(
            f"vocabulary must be at most {inner.get_vocab_size():,} for these texts, not {size:,}"
        )
    inner.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[(mark, inner.token_to_id(mark)) for mark in marks]
    )
    return Tokenizer(inner)
