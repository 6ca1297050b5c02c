"""Translation beside CTranslate2, in float32 and in int8, with the same weights.

    python -m benchmarks.translation [--only SECTION] [--json FILE]

Random weights in BART's shape: 6 layers of 512 on each side, beam 4, 32 sentences of 24 tokens to
24. The peer is optional; without it there is nothing to compare, and the benchmark says so.
"""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid.tasks.beam import search

SENTENCES, TOKENS, BEAMS = 32, 24, 4
PADDING, START, STOP, UNKNOWN, FIRST = 1, 0, 2, 3, 4
"""Ids; the first that is a word."""
BART = transformers.BartConfig(
    vocab_size=50_265,
    d_model=512,
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=8,
    decoder_attention_heads=8,
    encoder_ffn_dim=2048,
    decoder_ffn_dim=2048,
    max_position_embeddings=128,
    init_std=0.05,
    forced_eos_token_id=None,
    normalize_before=False,
)


def word(number: int) -> str:
    return f"w{number}"


def save(theirs: Any, place: Path) -> None:
    """The model with a tokenizer of a word for each id, which the peer's converter asks for."""
    theirs.save_pretrained(place)
    special = {PADDING: "<pad>", START: "<s>", STOP: "</s>", UNKNOWN: "<unk>"}
    words = {special.get(number, word(number)): number for number in range(BART.vocab_size)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(place)


def pair(kind: str) -> tuple[Any, Any]:
    """Ours and theirs, with the same weights of a kind."""
    import ctranslate2

    torch.manual_seed(0)
    with TemporaryDirectory() as directory:
        place = Path(directory)
        save(transformers.BartForConditionalGeneration(BART).eval(), place)
        ours = pellucid.load(place)
        converter = ctranslate2.converters.TransformersConverter(directory)
        converter.convert(str(place / "converted"))
        theirs = ctranslate2.Translator(
            str(place / "converted"), compute_type=kind, intra_threads=torch.get_num_threads()
        )
    return ours.to_int8() if kind == "int8" else ours, theirs


def our_search(model: Any, ids: torch.Tensor) -> list[list[int]]:
    found = search(
        model,
        ids,
        torch.full((len(ids),), ids.shape[1]),
        beams=BEAMS,
        max_tokens=TOKENS,
        banned=[STOP],
    )
    return [list(best[0].ids) for best in found]


def their_search(translator: Any, words: list[list[str]]) -> list[list[int]]:
    found = translator.translate_batch(
        words,
        beam_size=BEAMS,
        max_decoding_length=TOKENS,
        min_decoding_length=TOKENS,
        max_batch_size=0,
    )
    return [[int(one[1:]) for one in each.hypotheses[0] if one[1:].isdigit()] for each in found]


def sentences() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(FIRST, BART.vocab_size, (SENTENCES, TOKENS), generator=generator)


def translated(kind: str, bar: float) -> Iterator[Row]:
    model, translator = pair(kind)
    ids = sentences()
    words = [[word(number) for number in row] for row in ids.tolist()]
    ours = partial(our_search, model, ids)
    theirs = partial(their_search, translator, words)
    same = np.mean([one == other for one, other in zip(ours(), theirs(), strict=True)])
    found = measure.beside({"": ours}, theirs, budget=30, least=3)[""]
    yield Row(
        figure=f"CTranslate2 over translation, {kind}",
        setting=f"{SENTENCES} sentences of {TOKENS} tokens to {TOKENS}, beam {BEAMS}; "
        f"{same:.0%} the same",
        ours=duration(found.ours),
        peer=duration(found.peer),
        value=1 / found.ratio,
        bar=bar,
        at_least=True,
    )


def float32() -> Iterator[Row]:
    yield from translated("float32", 1.2)


def int8() -> Iterator[Row]:
    yield from translated("int8", 1.0)


SECTIONS = (float32, int8)


def main() -> None:
    if find_spec("ctranslate2") is None:
        print("CTranslate2 is not here to compare with: pip install ctranslate2")
        return
    run("benchmarks.translation", (__doc__ or "").partition("\n")[0], "CTranslate2", SECTIONS)


if __name__ == "__main__":
    main()
