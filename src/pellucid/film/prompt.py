"""What is wanted, said in words: a small grammar, and a plain answer to what is not of it.

    [show | film | explain] [how]
        ['WORD' [finds | looks at | attends to 'WORDS'] in] 'SENTENCE'
        [, slowly | quickly] [, with a mask] [, translated] [, going on]

Words in quotes are taken as they are; everything else has to be one of these. A text without such a
verb and without quotes is the sentence itself.
"""

import re
from dataclasses import dataclass

from pellucid.common.wording import listing
from pellucid.errors import ArgumentError
from pellucid.film.voices import QUICK, SLOW, USUAL_PACE

GRAMMAR = (
    "show [how] ['WORD' [finds | looks at | attends to 'WORDS'] in] 'SENTENCE' "
    "[, slowly | quickly] [, with a mask] [, translated] [, going on]"
)
_VERB = re.compile(r"\s*(show|film|explain|translate)\b", re.IGNORECASE)
_QUOTED = re.compile(
    r"""(?<!\w)'(?P<a>.+?)'(?!\w)|"(?P<b>.+?)"|‘(?P<c>.+?)’(?!\w)|“(?P<d>.+?)”|«\s*(?P<e>.+?)\s*»"""
)
_MARK = "§"
_OPTIONS = {
    "slowly": r"slowly|slow",
    "quickly": r"quickly|quick|fast",
    "mask": r"with (?:a |the )?(?:causal )?mask|masked",
    "translate": r"translate|translated|with (?:its |a |the )?translation",
    "generate": r"going on|go on|generating|with (?:the |its )?next (?:token|tokens|word|words)",
}
_FILLING = {"show", "film", "explain", "me", "how", "and", "please"}
_SHAPES = {
    f"{_MARK} R {_MARK} in {_MARK}": ("query", "finds", "sentence"),
    f"{_MARK} in {_MARK}": ("query", "sentence"),
    _MARK: ("sentence",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a film is to show."""

    sentence: str
    query: str | None = None
    finds: str | None = None
    pace: float = USUAL_PACE
    causal: bool = False
    translate: bool = False
    generate: bool = False


def looks_like_one(text: str) -> bool:
    """Whether a text that quotes nothing begins as prompts do: then it may be meant as one."""
    return bool(_VERB.match(text)) and not _QUOTED.search(text)


def understood(text: str) -> Wish:
    """What a prompt asks for; a text that is no prompt is the sentence.

    Raises:
        ArgumentError: it is a prompt, and not all of it can be understood.
    """
    quotes = list(_QUOTED.finditer(text))
    if not _VERB.match(text) or not quotes:
        return Wish(sentence=text)
    quoted = [next(group for group in quote.groups() if group is not None) for quote in quotes]
    rest = _QUOTED.sub(f" {_MARK} ", text).casefold()
    options = {}
    for name, pattern in _OPTIONS.items():
        rest, count = re.subn(rf"(?<!\w)(?:{pattern})(?!\w)", " ", rest)
        options[name] = bool(count)
    rest = re.sub(r"(?<!\w)(?:finds?|looks? at|attends? to)(?!\w)", " R ", rest)
    words = re.findall(r"\w+|§", rest)
    odd = [w for w in words if w not in _FILLING and w not in (_MARK, "R", "in")]
    if odd:
        unknown = listing([f"'{word}'" for word in odd])
        raise ArgumentError(
            f"prompt is not understood at {unknown}; say: {GRAMMAR}; or quote all of the sentence"
        )
    shape = " ".join(word for word in words if word in (_MARK, "R", "in"))
    if shape not in _SHAPES:
        raise ArgumentError(
            f"prompt has {len(quoted)} quoted parts in an order that is not understood; "
            f"say: {GRAMMAR}"
        )
    if options["slowly"] and options["quickly"]:
        raise ArgumentError("prompt asks for slowly and quickly; say one of them")
    if options["translate"] and options["generate"]:
        raise ArgumentError("prompt asks to translate and to go on; say one of them")
    return Wish(
        **dict(zip(_SHAPES[shape], quoted, strict=True)),
        pace=SLOW if options["slowly"] else QUICK if options["quickly"] else USUAL_PACE,
        causal=options["mask"],
        translate=options["translate"],
        generate=options["generate"],
    )
