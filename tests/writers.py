"""Tiny decoders that write text, with a byte-level tokenizer trained on the spot."""

from functools import cache

import tokenizers
import torch

from pellucid.models import Config, Decoder
from pellucid.text.tokenizer import Tokenizer

TEXT = """Once upon a time there was a little girl who had a red ball.
She liked to play in the park. One day the ball rolled away. "Where is my ball?" she asked.
Ünïcödé naïve café, 日本語 and 👩‍👧 too.
"""
VOCABULARY, POSITIONS, STOP = 300, 64, 0
"""Of which 256 are bytes, so that random models write pieces of letters all the time."""


@cache
def trained() -> str:
    """The JSON of a tokenizer."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer.to_str()


def tokenizer() -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(trained()))


def writer(seed: int = 3, **options: object) -> Decoder:
    """A decoder of random weights, lively enough that what it writes does not repeat at once."""
    torch.manual_seed(seed)
    model = Decoder(
        Config(
            **{
                "kind": "decoder",
                "vocabulary": VOCABULARY,
                "width": 24,
                "layers": 2,
                "heads": 3,
                "hidden": 37,
                "norm_first": True,
                "position": "learned",
                "positions": POSITIONS,
                "stop": (STOP,),
                **options,
            }
        )
    )
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    model.tokenizer = tokenizer()
    return model.eval()
