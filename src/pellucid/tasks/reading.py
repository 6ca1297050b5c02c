"""Texts that a model is to read: checked, and cut to what it has positions for."""

import warnings
from collections.abc import Sequence

from pellucid.common.files import is_blank
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models.stacks import Transformer


def ids_of(
    model: Transformer, texts: Sequence[str], strict: bool, names: Sequence[str] | None = None
) -> list[list[int]]:
    """The ids of each text, as many as the model reads.

    Args:
        model: with a tokenizer.
        texts: none blank.
        strict: refuse a text that is too long, rather than cut it and warn.
        names: what to call each in an error, as "line 3 of a.txt"; "texts[2]" unless given.

    Raises:
        ArgumentError: a text is blank, is no Unicode text, or, with `strict`, too long.
        TypeMismatchError: a text is no str.
    """
    assert model.tokenizer is not None
    if isinstance(texts, str):
        raise TypeMismatchError("texts must be several str, not a single one; put it in a list")

    def name(number: int) -> str:
        return f"texts[{number}]" if names is None else names[number]

    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeMismatchError(f"{name(number)} must be a str, not {type(text).__name__}")
        if is_blank(text):
            raise ArgumentError(f"{name(number)} is empty")
    try:
        ids = model.tokenizer.encode(texts)
    except UnicodeEncodeError as error:
        raise ArgumentError(f"texts hold what is no Unicode text: {error.reason}") from error
    config = model.config
    most = config.positions if config.most_tokens is None else config.most_tokens
    long = [] if most is None else [number for number, one in enumerate(ids) if len(one) > most]
    for number, one in enumerate(ids):
        if not one:
            raise ArgumentError(f"{name(number)} has no tokens that the model knows")
    if not long:
        return ids
    assert most is not None
    longest = max(long, key=lambda number: len(ids[number]))
    if strict:
        raise ArgumentError(
            f"{name(longest)} has {len(ids[longest]):,} tokens, but the model reads {most:,}"
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
