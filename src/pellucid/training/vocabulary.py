"""Subword vocabularies, learnt from the texts that a model will read.

Byte pairs (Sennrich et al. 2016; over bytes as in GPT-2, so that there is nothing that cannot be
spelled), by Hugging Face's tokenizers, whose file everybody can read.
"""

from collections.abc import Iterable

from pellucid.errors import ArgumentError, MissingExtraError
from pellucid.text.tokenizer import Tokenizer

END = "<|end|>"
"""Begins a text, and so ends the one before."""


def byte_pairs(texts: Iterable[str], size: int, *, ends: str) -> Tokenizer:
    """A vocabulary of at most `size` tokens.

    Args:
        texts: to learn from.
        size: at least 257: every byte, and `END`.
        ends: where END goes: "$A" is the text in "<|end|> $A", say.

    Raises:
        ArgumentError: size is too small.
        MissingExtraError: tokenizers is not installed.
    """
    try:
        from tokenizers import (
            Tokenizer as Inner,
        )
        from tokenizers import (
            decoders,
            models,
            normalizers,
            pre_tokenizers,
            processors,
            trainers,
        )
    except ImportError as error:
        raise MissingExtraError("this needs tokenizers: pip install 'pellucid[hf]'") from error
    if size < 257:
        raise ArgumentError(f"vocabulary must be at least 257, every byte and an end, not {size}")
    inner = Inner(models.BPE())
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[(END, inner.token_to_id(END))]
    )
    return Tokenizer(inner)
