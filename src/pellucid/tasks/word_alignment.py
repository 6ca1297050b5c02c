"""The words of a translation and the source words that they attend to."""

import torch

from pellucid.errors import ArgumentError
from pellucid.lens.alignment import Alignment, align_by, plain_words
from pellucid.models import EncoderDecoder
from pellucid.tasks.translated import Sentence, Translation
from pellucid.tasks.translation import check_translator


def alignment(model: EncoderDecoder, translation: Translation) -> Alignment:
    """Align the words of a translation with those of its source, by cross-attention.

    The weights, (target words, source words), are the mean over the model's alignment heads
    (`model.generation.alignment_heads`), or over all heads if it names none. Special tokens are
    left out, and no word is aligned with one of another sentence. It takes a watched pass for each
    sentence; `pellucid.lens.align` can choose layers and heads.

    Raises:
        ArgumentError: the source or the translation has no words.
        TypeMismatchError: the model is not an encoder-decoder with a tokenizer.
    """
    check_translator(model)
    grids = []
    for sentence in translation.sentences or (translation,):
        try:
            grids.append(_aligned(model, sentence, translation.start))
        except ArgumentError:
            if len(translation.sentences) < 2:
                raise
    if not grids:
        raise ArgumentError("no words of the target remain besides special tokens")
    return Alignment(
        torch.block_diag(*(grid.weights for grid in grids)),
        [word for grid in grids for word in grid.source],
        [word for grid in grids for word in grid.target],
    )


def _aligned(
    model: EncoderDecoder, sentence: Sentence | Translation, start: int | None
) -> Alignment:
    """The alignment of a sentence; a name in it is written as what it stands for."""
    assert model.tokenizer is not None
    start = model.config.start if start is None else start
    assert start is not None
    device, target = model.device, [start, *sentence.ids]
    with torch.no_grad():
        _, recording = model(
            torch.tensor([sentence.source_ids], device=device),
            torch.tensor([target[:-1]], device=device),
            watch=True,
        )
    marks = {*model.config.stop, start, model.config.padding}
    if model.tokenizer.languages is not None:
        marks |= {*model.tokenizer.languages.ids.values()}
    source_words, target_words = (
        plain_words([model.tokenizer.token(number) for number in ids], ids, marks)
        for ids in (sentence.source_ids, target)
    )
    grid = align_by(
        recording, model.alignment_heads, source_words=source_words, target_words=target_words
    )
    names = sentence.names if isinstance(sentence, Sentence) else {}
    sides = ([names.get(word, word) for word in side] for side in (grid.source, grid.target))
    return Alignment(grid.weights, *sides)
