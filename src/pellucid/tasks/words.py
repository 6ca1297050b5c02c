"""Words in every script, and those that tell groups of texts apart.

Words end where Unicode says (UAX #29, "Unicode Text Segmentation", section 4), which `regex` knows
and `re` does not: a word keeps its vowel signs and accents, however they are encoded. Chinese,
Japanese, Thai, Lao, Khmer and Burmese have no spaces; their words are found as strings that recur.
ICU has dictionaries for them, but PyICU must be compiled against the ICU of the machine.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from pellucid.errors import MissingExtraError

LABEL_WORDS = 3
"""Words in the label of a group."""
LONGEST = 6
"""Characters, with their marks, of the longest string that is taken for a word."""
SAME = 0.9
"""The share of its occurrences in a longer string from which a string is only a part of that."""
MORE = 1.5
"""How many times as frequent as in the other groups a word is that tells a group apart."""

MOST_TEXTS = 1000
"""Texts of a group, the first ones, in which strings are counted: each has many."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー々\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_INSIDE = (0x00AD, 0x0640, 0x200B, 0x2060, 0xFEFF)
"""Soft hyphens, the stroke that lengthens Arabic letters, and others that change no word."""
_FUNCTION = frozenset(
    "的了是在我有和就不都一也很到要去你会着没这那他她它们吗呢吧啊与及或被把从对以而但并为所个之其"
)
"""Chinese characters that are words of grammar, or begin or end them."""
_NO_START = frozenset("ะาำๅๆຯະາຳໆーっゃゅょッャュョ々")
_NO_END = frozenset("เแโใไເແໂໃໄ")
"""Letters that no syllable begins or ends with."""


@cache
def _pattern(name: str) -> Any:
    try:
        import regex
    except ImportError as error:
        raise MissingExtraError.of("words need regex", "tasks") from error
    return regex.compile(
        {
            "boundary": r"(?wV1)\b",
            "word": r"[\p{L}\p{M}\p{N}].*\p{L}|\p{L}",
            "number": r"\p{N}+",
            "points": r"(?<=[\p{Arabic}\p{Hebrew}])"
            r"[\u064b-\u065f\u0670\u06d6-\u06ed\u0591-\u05c7]+",
            "unspaced": rf"[{_UNSPACED}][{_UNSPACED}\p{{M}}\u200c\u200d]*",
            "same script": r"(?:\p{Hiragana}|ー)+|(?:\p{Katakana}|ー)+|(?:\p{Han}|々)+"
            r"|[^\p{Hiragana}\p{Katakana}\p{Han}]+",
            "hiragana": r"[\p{Hiragana}ー]+",
            "han": r"\p{Han}",
            "katakana": r"[\p{Katakana}ー]+",
            "character": r"\X",
        }[name]
    )


def words(text: str) -> list[str]:
    """The words of a text in scripts with spaces, in lower case and compatibility composition.

    A word has a letter, and may have digits: 4k, 2nd, covid-19.
    """
    result: list[str] = []
    spaced = _pattern("unspaced").sub(" ", _plain(text))
    before = ""  # "word", "hyphen" after a word, or something else
    for piece in filter(None, _pattern("boundary").split(spaced)):
        is_numbered = before == "hyphen" and _pattern("number").fullmatch(piece)
        if is_numbered or _pattern("word").match(piece):
            word = piece.removesuffix("'s").casefold()
            if before == "hyphen":
                result[-1] += f"-{word}"
            else:
                result.append(word)
            before = "word"
        else:
            before = "hyphen" if piece == "-" and before == "word" else ""
    return result


def strings(text: str) -> Iterator[tuple[str, ...]]:
    """Runs of characters, with their marks, in scripts without spaces: of one script each."""
    for run in _pattern("unspaced").findall(_plain(text)):
        for part in _pattern("same script").findall(run):
            yield tuple(_pattern("character").findall(part))


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).replace("’", "'")
    return plain.translate(dict.fromkeys(_INSIDE))


def _bare(word: str) -> str:
    """A word without the vowel points of Arabic and Hebrew, which a writer may leave out."""
    bare: str = word if word.isascii() else _pattern("points").sub("", word)
    return bare


def telling_words(documents: Sequence[Sequence[str]], most: int = LABEL_WORDS) -> list[list[str]]:
    """The characteristic words of each group of texts.

    They have the highest class-based tf-idf (Grootendorst 2022, "BERTopic", section 3.3): the
    frequency of a word in the group, times log(1 + mean words per group / its total frequency).
    Only words that are more frequent than in the other groups count, if there is one, so that words
    of grammar are recognised in any language. Stop words such as "the" count only in a group that
    has no other words. A word with its vowel points and without is one, shown as it is written
    most.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    recurring = _recurring(documents)
    counts = []
    written: dict[str, Counter[str]] = {}
    for number, texts in enumerate(documents):
        frequencies: Counter[str] = Counter()
        for word, times in Counter(word for text in texts for word in words(text)).items():
            bare = _bare(word)
            frequencies[bare] += times
            written.setdefault(bare, Counter())[word] += times
        content = {w for w in frequencies if len(w) > 1 and w not in ENGLISH_STOP_WORDS}
        own = Counter({word: frequencies[word] for word in content})
        own += recurring[number]
        counts.append(own or frequencies)
    total: Counter[str] = sum(counts, Counter())
    mean = total.total() / max(1, len(counts))
    return [
        [written[word].most_common(1)[0][0] if word in written else word for word in strongest]
        for strongest in (_strongest(own, total, mean, most) for own in counts)
    ]


def _strongest(own: Counter[str], total: Counter[str], mean: float, most: int) -> list[str]:
    """The words of a group by class-based tf-idf, without words that overlap."""
    size, others = own.total(), total.total() - own.total()

    def key(word: str) -> tuple[bool, float, str]:
        elsewhere = total[word] - own[word]
        tells = own[word] * others >= MORE * elsewhere * size
        return not tells, -own[word] * float(np.log1p(mean / total[word])), word

    chosen: list[str] = []
    for word in sorted(own, key=key):
        if len(chosen) == most or (chosen and key(word)[0]):
            break
        if not any(_overlap(word, other) for other in chosen):
            chosen.append(word)
    return chosen


def _overlap(first: str, second: str) -> bool:
    """Whether two strings without spaces share a part, so that one of them is no word."""
    if not (_pattern("unspaced").match(first) and _pattern("unspaced").match(second)):
        return False
    if first in second or second in first:
        return True
    ends = range(1, min(len(first), len(second)))
    return any(first[-n:] == second[:n] or second[-n:] == first[:n] for n in ends)


def _recurring(documents: Sequence[Sequence[str]]) -> list[Counter[str]]:
    """How often each recurring string without spaces is in each group.

    Strings of more than one text are kept, but those that are hardly ever without a longer one. If
    no string recurs, whole runs are kept.
    """
    counts: list[Counter[tuple[str, ...]]] = []
    runs: list[Counter[str]] = []
    texts_with: Counter[tuple[str, ...]] = Counter()
    for texts in documents:
        own: Counter[tuple[str, ...]] = Counter()
        whole: Counter[str] = Counter()
        for text in texts[:MOST_TEXTS]:
            in_text: Counter[tuple[str, ...]] = Counter()
            for run in strings(text):
                in_text.update(_parts(run))
                whole["".join(run)] += not _is_grammar(run)
            own += in_text
            texts_with.update(in_text.keys())
        counts.append(own)
        runs.append(+whole)
    total: Counter[tuple[str, ...]] = sum(counts, Counter())
    kept = {string for string, number in texts_with.items() if number > 1}
    parts = set()
    for string in kept:
        for start, end in combinations(range(len(string) + 1), 2):
            part = string[start:end]
            if len(part) < len(string) and total[string] >= SAME * total.get(part, 0):
                parts.add(part)
    kept -= parts
    if not kept:
        return runs
    return [Counter({"".join(x): n for x, n in own.items() if x in kept}) for own in counts]


def _parts(run: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Strings of a run that may be words."""
    text = "".join(run)
    if _pattern("katakana").fullmatch(text):  # borrowed words, which are whole
        yield run
        return
    least = 1 if _pattern("han").match(text) else 2
    for start in range(len(run)):
        for end in range(start + least, min(len(run), start + LONGEST) + 1):
            part = run[start:end]
            if not _is_grammar(part):
                yield part


def _is_grammar(part: tuple[str, ...]) -> bool:
    """Whether characters are no word, or one of grammar, as hiragana alone mostly is."""
    first, last = part[0][0], part[-1][0]
    if first in _FUNCTION | _NO_START or last in _FUNCTION | _NO_END:
        return True
    return bool(_pattern("hiragana").fullmatch("".join(part)))
