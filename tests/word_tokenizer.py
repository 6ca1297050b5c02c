"""A tokenizer of a few words, as transformers saves one."""

from collections.abc import Iterable
from typing import Any

import tokenizers
import transformers


def word_tokenizer(vocabulary: Iterable[str], frame: str = "bert") -> Any:
    """A tokenizer of these words, after four special tokens.

    Args:
        vocabulary: the words.
        frame: "bert" lowercases and puts [CLS] and [SEP] around a text; "cased" does not lowercase;
            "last" ends a text with [SEP], and pads on the left.
    """
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *vocabulary]
    ids = {word: number for number, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=frame != "cased")
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if frame != "last" else "$A [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        padding_side="left" if frame == "last" else "right",
    )
