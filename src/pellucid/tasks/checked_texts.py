"""Input texts: checked, tokenized, and truncated to the model's maximum length."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.common.files import is_blank, printable
from pellucid.common.wording import count, short
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models.architectures import Transformer
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


@dataclass(slots=True)
class Doubts:
    """Texts that the model cannot read in full, counted over one or more calls of `ids_of`."""

    texts: int = 0
    """How many were read."""
    limit: int = 0
    """The most tokens that the model reads."""
    cut: int = 0
    """Texts of more tokens, which are truncated."""
    lost: int = 0
    """Tokens that are lost so."""
    longest: tuple[int, str] = (0, "")
    """Tokens of the longest of them, and its name."""
    unknown: int = 0
    """Texts of whose tokens more than half are unknown: to the model they are all alike."""
    first_unknown: str = ""

    def messages(self) -> list[str]:
        """A line for each kind of doubt, if there is any."""
        lines = []
        if self.unknown:
            lines.append(
                f"{count(self.unknown, 'text')} of {self.texts} mostly of characters or words that "
                f"the model does not know, and that are all one to it: {self.first_unknown}"
            )
        if self.cut:
            tokens, name = self.longest
            lines.append(
                f"{count(self.cut, 'text')} of {self.texts} truncated to {self.limit:,} tokens, "
                f"the model's maximum: {self.lost:,} tokens are lost; the longest, {name}, has "
                f"{tokens:,}"
            )
        return lines


def ids_of(
    model: Transformer,
    texts: Sequence[str],
    strict: bool,
    names: Sequence[str] | None = None,
    prefix: str = "",
    doubts: Doubts | None = None,
) -> list[list[int]]:
    """The ids of each text, truncated to the model's maximum length.

    Args:
        model: a model with a tokenizer.
        texts: texts that are not blank.
        strict: refuse a text that is too long instead of truncating it with a warning.
        names: what errors call each text, such as "line 3 of a.txt"; "texts[2]" by default.
        prefix: what comes before each text.
        doubts: counts texts that are truncated, and those that are mostly unknown to the
            vocabulary; without it, a warning counts them.

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
    tally = Doubts() if doubts is None else doubts
    tally.texts += len(ids)
    _count_unknown(model.tokenizer, texts, ids, names, tally)
    limit = model.config.longest
    too_long = [
        number for number, text_ids in enumerate(ids) if limit is not None and len(text_ids) > limit
    ]
    if limit is not None and too_long:
        longest = max(too_long, key=lambda number: len(ids[number]))
        length = len(ids[longest])
        if strict:
            raise ArgumentError(
                f"{names[longest]} has {length:,} tokens, but the model reads at most {limit:,}"
            )
        tally.limit = limit
        tally.cut += len(too_long)
        tally.lost += sum(len(ids[number]) - limit for number in too_long)
        if length > tally.longest[0]:
            tally.longest = length, names[longest]
        for number in too_long:
            ids[number] = model.tokenizer.encode_cut(texts[number], limit)
    for line in tally.messages() if doubts is None else ():
        warnings.warn(line, stacklevel=3)
    return ids


def _count_unknown(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    ids: Sequence[Sequence[int]],
    names: Sequence[str],
    doubts: Doubts,
) -> None:
    unknown = tokenizer.unknown
    if unknown is None:
        return
    marks = set(tokenizer.all_special_ids) - {unknown}
    for name, text, text_ids in zip(names, texts, ids, strict=True):
        times = text_ids.count(unknown)
        if times and 2 * times > sum(token not in marks for token in text_ids):
            doubts.unknown += 1
            if not doubts.first_unknown:
                shown = short(" ".join(printable(text[:200]).split()), 60)
                doubts.first_unknown = f"the first is {name}, “{shown}”"
