"""The languages between which a multilingual model translates.

A token names a language: en_XX (mBART), eng_Latn (NLLB), __en__ (M2M-100), >>deu<< (Marian). That
of the source stands before or after its tokens; that of the target is the first token that the
model writes, or its start. Marian alone has that of the target before the source.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pellucid.errors import ArgumentError, MissingExtraError

Place = Literal["before", "after", "target"]
"""Of the language of a source: before or after its tokens. "target": that of the target is before
them."""
TOKEN = re.compile(
    r"__(?!unk|pad|bos|eos|end|sep|cls)(?P<m2m>\w{2,3}|\w{2,}_XX)__|>>(?P<marian>[\w-]+)<<"
    r"|(?P<mbart>[a-z]{2}_[A-Z]{2})|(?P<nllb>[a-z]{3}_[A-Z][a-z]{3})"
)
NEAR = 5
"""The largest distance between languages that pass for one another, such as British English and
English; Bosnian and Croatian are 8 apart (https://unicode.org/reports/tr35/tr35.html#LanguageMatching)."""


def code_of(token: str) -> str | None:
    """The code of the language that a token names, such as "en" of "__en__"; None if it is none."""
    match = TOKEN.fullmatch(token)
    return None if match is None else match[match.lastgroup or 0]


def iso_639_1(code: str) -> str:
    """The two letters of a language, given its code; the letters there are, without langcodes."""
    tag = code.removesuffix("_XX").replace("_", "-")
    try:
        import langcodes

        tag = langcodes.standardize_tag(tag)
    except (ImportError, ValueError):
        pass
    return tag.split("-")[0]


@dataclass(frozen=True)
class Languages:
    """The languages of a model, and where their tokens stand."""

    ids: Mapping[str, int]
    """The id of each code."""
    place: Place
    source: str | None = None
    """The code of a source unless another is named."""
    target: str | None = None
    """The code of a target unless another is named."""

    def named(self, name: str, argument: str) -> str:
        """The model's code of a language, given that or a shorter or more usual one.

        Args:
            name: such as "en_XX", "en", "eng" or "en-GB".
            argument: what an error calls it.

        Raises:
            ArgumentError: the model does not have the language, or has several of this name.
            MissingExtraError: its code is found only with langcodes, which is not installed.
        """
        wanted = name.strip().strip("_<>")
        spelt = {code.lower(): code for code in self.ids}
        if wanted.lower().replace("-", "_") in spelt:
            return spelt[wanted.lower().replace("-", "_")]
        same = [code for code in self.ids if code.lower().split("_")[0] == wanted.lower()]
        if len(same) > 1:
            raise ArgumentError(f"{argument} must be one of {', '.join(same)}, not {name!r}")
        match = same[0] if same else self._nearest(wanted)
        if match is None:
            known = ", ".join(sorted(self.ids))
            raise ArgumentError(
                f"{argument} must be a language of the model, not {name!r}; it has {known}"
            )
        return match

    def _nearest(self, wanted: str) -> str | None:
        """The code of a language by the names of BCP 47, ISO 639-1 and 639-3."""
        try:
            import langcodes
            from langcodes.tag_parser import LanguageTagError
        except ImportError as error:
            raise MissingExtraError.of(
                f"'{wanted}' is none of the model's own codes, such as {next(iter(self.ids))}; "
                "other names of languages need langcodes",
                "languages",
            ) from error
        try:
            tag, distance = langcodes.closest_match(
                wanted.replace("_", "-"), list(self._tags), max_distance=NEAR
            )
        except LanguageTagError:
            return None
        return self._tags[tag] if distance <= NEAR else None

    @cached_property
    def _tags(self) -> dict[str, str]:
        """The codes by their tags of BCP 47."""
        import langcodes

        tags = {code.removesuffix("_XX").replace("_", "-"): code for code in self.ids}
        # CLDR writes Korean in the script Kore, which Hang is a part of.
        tags = {"ko" if code == "kor_Hang" else tag: code for tag, code in tags.items()}
        return {tag: code for tag, code in tags.items() if langcodes.tag_is_valid(tag)}

    def marked(self, ids: Sequence[int], code: str) -> list[int]:
        """The ids of a source in another language than its tokenizer supposed."""
        marks, mark = set(self.ids.values()), self.ids[code]
        if self.place == "before":
            return [mark, *ids[ids[0] in marks :]]
        return [*ids[: len(ids) - (ids[-1] in marks)], mark]

    def prefix(self, code: str) -> str:
        """What a source begins with, given the code of its target."""
        return f">>{code}<< " if self.place == "target" else ""


def placed(tokenizer: Any, settings: Mapping[str, Any]) -> Languages | None:
    """The languages of a tokenizer, after its marks are put where transformers puts them.

    transformers goes by the class of the tokenizer, whatever tokenizer.json says of the marks.

    Args:
        tokenizer: a `Tokenizer`.
        settings: the content of tokenizer_config.json.
    """
    tokens = {number: tokenizer.token(number) for number in tokenizer.all_special_ids}
    ids = {code: number for number, token in tokens.items() if (code := code_of(token))}
    if not ids:
        return None
    if any(token.startswith(">>") for token in tokens.values()):
        return Languages(ids, "target")
    [example] = tokenizer.encode(["a"])
    name = str(settings.get("tokenizer_class")).removesuffix("Fast")
    place = PLACES.get(name, "after" if example[-1] in ids.values() else "before")
    if name == "NllbTokenizer" and settings.get("legacy_behaviour"):
        place = "after"
    codes = {number: code for code, number in ids.items()}
    supposed = codes.get(example[0], codes.get(example[-1], SUPPOSED.get(name)))
    source, target = (_language_setting(settings, f"{side}_lang", ids) for side in ("src", "tgt"))
    source = source or supposed
    if tokenizer.inner is not None and source is not None and name in PLACES:
        _put_marks(tokenizer.inner, tokens[ids[source]], place)
    return Languages(ids, place, source, target)


PLACES: dict[str, Place] = {
    "NllbTokenizer": "before",
    "M2M100Tokenizer": "before",
    "MBart50Tokenizer": "before",
    "MBartTokenizer": "after",
    "PLBartTokenizer": "after",
}
SUPPOSED = {"NllbTokenizer": "eng_Latn", "MBartTokenizer": "en_XX", "MBart50Tokenizer": "en_XX"}
END = "</s>"


def _language_setting(settings: Mapping[str, Any], key: str, ids: Mapping[str, int]) -> str | None:
    code = settings.get(key)
    code = (code_of(code) or code) if isinstance(code, str) else None
    return code if code in ids else None


def _put_marks(inner: Any, token: str, place: Place) -> None:
    """Make a `tokenizers.Tokenizer` put the language of the source where its model wants it."""
    from tokenizers import processors

    end, mark = inner.token_to_id(END), inner.token_to_id(token)
    if end is None or mark is None:
        return
    inner.post_processor = processors.TemplateProcessing(
        single=f"{token} $A {END}" if place == "before" else f"$A {END} {token}",
        special_tokens=[(END, end), (token, mark)],
    )
