"""Texts that a model is to read: checked, and cut to what it has positions for."""

import warnings
from collections.abc import Sequence

from pellucid.common.files import is_blank
from pellucid.common.wording import count
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models.stacks import Transformer


def checked(kind: str, texts: Sequence[str], names: Sequence[str] | None = None) -> Sequence[str]:
    """What to call each text in an error, where all of them are texts with something to read.

    Args:
        kind: what the argument is called.
        texts: any number of them.
        names: what to call each; "kind[2]" unless given.

    Raises:
        ArgumentError: a text is blank, or no Unicode text; or there is not one name for each.
        TypeMismatchError: a text is no str, or they are a single one.
    """
    if isinstance(texts, str):
        raise TypeMismatchError(f"{kind} must be several str, not a single one; put it in a list")
    if names is None:
        names = [f"{kind}[{number}]" for number in range(len(texts))]
    if len(names) != len(texts):
        raise ArgumentError(f"names must be as many as {kind}, {len(texts)}, not {len(names)}")
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise TypeMismatchError(f"{name} must be a str, not {type(text).__name__}")
        if is_blank(text):
            raise ArgumentError(f"{name} is empty")
        if text != text.encode(errors="ignore").decode():  # half of a surrogate pair
            raise ArgumentError(f"{name} is no Unicode text")
    return names


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
    names = checked("texts", texts, names)
    ids = model.tokenizer.encode(texts)
    config = model.config
    most = config.longest
    long = [] if most is None else [number for number, one in enumerate(ids) if len(one) > most]
    for number, one in enumerate(ids):
        if not one:
            raise ArgumentError(f"{names[number]} has no tokens that the model knows")
    if not long:
        return ids
    assert most is not None
    longest = max(long, key=lambda number: len(ids[number]))
    if strict:
        raise ArgumentError(
            f"{names[longest]} has {len(ids[longest]):,} tokens, but the model reads {most:,}"
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
