"""The languages of a translation, and what a multilingual model is told of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.errors import ArgumentError
from pellucid.text.languages import Languages


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A source and a target language."""

    start: int | None
    """The id that a target follows."""
    first: int | None
    """The first id of each target, whatever its probability."""
    languages: Languages | None = None
    """None if the model has no choice."""
    source: str | None = None
    target: str | None = None
    """The codes of the model; None if its tokenizer marks texts as they are."""

    def begun(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts with the language of the target, where the model reads it in the source."""
        if self.languages is None or self.target is None:
            return texts
        prefix = self.languages.prefix(self.target)
        return [prefix + text for text in texts] if prefix else texts

    def marked(self, sources: Sequence[list[int]]) -> list[list[int]]:
        """The ids of the texts with the language of the source."""
        if self.languages is None or self.source is None:
            return list(sources)
        return [self.languages.marked(ids, self.source) for ids in sources]


def pair_of(model: Any, source: str | None = None, target: str | None = None) -> Pair:
    """What a model is told, given the languages that the caller names.

    Args:
        model: an `EncoderDecoder` with its tokenizer.
        source, target: names of languages, such as "en" or "en_XX"; by default the checkpoint's.

    Raises:
        ArgumentError: the model does not have the language, has no choice of languages, or needs to
            be told the target.
        MissingExtraError: a short name needs langcodes, which is not installed.
    """
    languages: Languages | None = model.tokenizer.languages
    start, first = model.config.start, model.generation.forced_bos_token_id
    if languages is None:
        for name, value in (("source", source), ("target", target)):
            if value is not None:
                raise ArgumentError(
                    f"{name} must be left out: the model has no choice of languages"
                )
        return Pair(start=start, first=first)
    if source is not None and languages.place == "target":
        raise ArgumentError("source must be left out: the model is not told what it reads")
    ids = {*languages.ids.values()}
    code = None if source is None else languages.named(source, "source")
    wanted = languages.target if target is None else languages.named(target, "target")
    if languages.place == "target":
        return Pair(start=start, first=first, languages=languages, target=wanted)
    if wanted is None:
        if start is None or (first not in ids and start not in ids):
            raise ArgumentError(
                "target must be one of the languages of the model: "
                + ", ".join(sorted(languages.ids))
            )
        return Pair(start=start, first=first, languages=languages, source=code)
    mark = languages.ids[wanted]
    if start is None or start in ids:  # the language of the target is its start
        start = mark
    else:
        first = mark
    return Pair(start=start, first=first, languages=languages, source=code, target=wanted)
