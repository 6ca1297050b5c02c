"""Input texts: checked, tokenized, and truncated to the model's maximum length."""

import warnings
from collections.abc import Sequence

from pellucid.common.files import is_blank, printable
from pellucid.common.wording import count, short
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models.stacks import Transformer
from pellucid.text.tokenizer import Tokenizer


def checked(kind: str, texts: Sequence[str], names: Sequence[str] | None = None) -> Sequence[str]:
    """Check the texts and return a name for each, for error messages.

    Args:
        kind: the name of the argument.
        texts: any number of texts.
        names: a name for each text; "kind[2]" and so on by default.

    Raises:
        ArgumentError: a text is blank or not valid Unicode, or `names` and `texts` differ in
            number.
        TypeMismatchError: a text is not a str, or `texts` is a single str.
    """
    if isinstance(texts, str):
        raise TypeMismatchError(f"{kind} must be a list of str, not a single str")
    if names is None:
        names = [f"{kind}[{number}]" for number in range(len(texts))]
    if len(names) != len(texts):
        raise ArgumentError(f"names must have {len(texts)} items, as {kind} has, not {len(names)}")
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise TypeMismatchError(f"{name} must be a str, not {type(text).__name__}")
        if is_blank(text):
            raise ArgumentError(f"{name} is empty")
        if text != text.encode(errors="ignore").decode():  # half of a surrogate pair
            raise ArgumentError(f"{name} is not valid Unicode")
    return names


def ids_of(
    model: Transformer,
    texts: Sequence[str],
    strict: bool,
    names: Sequence[str] | None = None,
    prefix: str = "",
) -> list[list[int]]:
    """The ids of each text, truncated to the model's maximum length.

    A warning counts texts that are truncated, and texts that are mostly unknown to the vocabulary.

    Args:
        model: a model with a tokenizer.
        texts: texts that are not blank.
        strict: refuse a text that is too long instead of truncating it with a warning.
        names: what errors call each text, such as "line 3 of a.txt"; "texts[2]" by default.
        prefix: what comes before each text.

    Raises:
        ArgumentError: a text is blank, not valid Unicode or, with `strict`, too long.
        TypeMismatchError: a text is not a str.
    """
    assert model.tokenizer is not None
    names = checked("texts", texts, names)
    texts = [prefix + text for text in texts] if prefix else texts
    ids = model.tokenizer.encode(texts)
    for name, text_ids in zip(names, ids, strict=True):
        if not text_ids:
            raise ArgumentError(f"{name} has no tokens in the model's vocabulary")
    _warn_of_unknown(model.tokenizer, texts, ids, names)
    limit = model.config.longest
    if limit is None:
        return ids
    too_long = [number for number, text_ids in enumerate(ids) if len(text_ids) > limit]
    if not too_long:
        return ids
    longest = max(too_long, key=lambda number: len(ids[number]))
    if strict:
        raise ArgumentError(
            f"{names[longest]} has {len(ids[longest]):,} tokens, but the model reads at most "
            f"{limit:,}"
        )
    lost = sum(len(ids[number]) - limit for number in too_long)
    warnings.warn(
        f"{count(len(too_long), 'text')} of {len(ids)} truncated to {limit:,} tokens, the model's "
        f"maximum: {lost:,} tokens are lost; the longest, {names[longest]}, has "
        f"{len(ids[longest]):,}",
        stacklevel=3,
    )
    for number in too_long:
        ids[number] = model.tokenizer.encode_cut(texts[number], limit)
    return ids


def _warn_of_unknown(
    tokenizer: Tokenizer, texts: Sequence[str], ids: Sequence[Sequence[int]], names: Sequence[str]
) -> None:
    """Warn of texts of whose tokens more than half are unknown: to the model they are all alike."""
    unknown = tokenizer.unknown
    if unknown is None:
        return
    marks = set(tokenizer.all_special_ids) - {unknown}
    found = []
    for number, text_ids in enumerate(ids):
        times = text_ids.count(unknown)
        if times and 2 * times > sum(token not in marks for token in text_ids):
            found.append(number)
    if found:
        first = found[0]
        shown = short(" ".join(printable(texts[first]).split()), 60)
        warnings.warn(
            f"{count(len(found), 'text')} of {len(ids)} mostly of characters or words that the "
            f"model does not know, and that are all one to it: the first is {names[first]}, "
            f"“{shown}”",
            stacklevel=4,
        )
