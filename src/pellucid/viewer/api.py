"""What a page can ask, and the answers: the same for the server, the notebook and exported files.

A question is a path like `tile/0/0/3/2/1/1?reduce=mean`: its name, whole numbers, and options. An
answer is something for JSON, or numbers with a shape.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl

import torch
from torch import Tensor

from pellucid import __version__
from pellucid.attention import AttentionWeights
from pellucid.common.wording import plain
from pellucid.errors import ArgumentError, OutOfRangeError, PellucidError
from pellucid.viewer import alignment, lesson, rollout_rows
from pellucid.viewer.catalogue import Atlas, Place, Side
from pellucid.viewer.tile_pyramid import SIDE, Map, Reduce

MOST_WORDS = 4096
"""Tokens of one answer."""
LARGEST = 10**9 - 1
"""Of the numbers in a question."""

Pace = Literal["soon", "slow", "measuring"]
"""What is done at once, what may take a pass over many weights, and what takes one over all."""
Given = dict[str, Any]
"""The numbers and options of one question, by name."""


class BrokenError(PellucidError, RuntimeError):
    """What was asked for could not be worked out."""


class Numbers(NamedTuple):
    """An answer in numbers, and whether they are of all weights or of sampled rows."""

    values: Tensor
    is_exact: bool = True


Answer = Numbers | dict[str, Any]


class Whole(NamedTuple):
    """An option that is a whole number within bounds, ends included."""

    least: int
    most: int
    usual: int

    def read(self, name: str, said: str) -> int:
        if not said.isascii() or not said.isdecimal() or len(said) > len(str(LARGEST)):
            raise ArgumentError(f"{name} must be a whole number")
        if not self.least <= int(said) <= self.most:
            raise ArgumentError(f"{name} must be from {self.least} to {self.most}, not {said}")
        return int(said)


class OneOf(NamedTuple):
    """An option that is one of some words."""

    words: tuple[str, ...]
    usual: str

    def read(self, name: str, said: str) -> str:
        if said not in self.words:
            raise ArgumentError(f"{name} must be one of {', '.join(self.words)}")
        return said


@dataclass(frozen=True)
class Question:
    """A kind of question."""

    about: str
    """What the answer is, for the schema."""
    answer: "Callable[[Desk, Given], Answer]"
    numbers: tuple[str, ...] = ()
    """What the numbers in the path are."""
    options: Mapping[str, Whole | OneOf] | None = None
    pace: Pace | Callable[[Given], Pace] = "soon"
    is_json: bool = True

    def read(self, parts: list[str], said: Mapping[str, str]) -> Given:
        """The numbers and options of one question.

        Raises:
            OutOfRangeError: the path is none of this question.
            ArgumentError: an option is unknown, or its value none.
        """
        if len(parts) != len(self.numbers) or not all(map(_is_number, parts)):
            raise OutOfRangeError("there is nothing of this name")
        options = self.options or {}
        for name in said:
            if name not in options:
                raise ArgumentError(f"there is no option '{name[:40]}' here")
        given: Given = dict(zip(self.numbers, map(int, parts), strict=True))
        for name, option in options.items():
            given[name] = option.read(name, said[name]) if name in said else option.usual
        return given


class Asked(NamedTuple):
    """A question that makes sense so far."""

    pace: Pace
    find: Callable[[], Answer]
    """Works out the answer; raises none but PellucidErrors."""


class Desk:
    """Answers questions about an atlas, for several threads."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self._measured: list[dict[str, Any]] = []
        self._measuring, self._rows, self._sheets_done = Lock(), atlas.rows(), 0

    def ask(self, path: str, options: Mapping[str, str]) -> Asked:
        """Understand a question.

        Args:
            path: like "tile/0/0/3/2/1/1".
            options: what stands after "?".

        Raises:
            OutOfRangeError: there is no such question.
            ArgumentError: an option is unknown, or its value none.
        """
        name, *parts = path.split("/")
        if name not in QUESTIONS:
            raise OutOfRangeError("there is nothing of this name")
        question = QUESTIONS[name]
        given = question.read(parts, options)
        pace = question.pace(given) if callable(question.pace) else question.pace

        def find() -> Answer:
            try:
                answer = question.answer(self, given)
                return answer if isinstance(answer, Numbers) else plain(answer)
            except PellucidError:
                raise
            except Exception as error:  # of torch, with what a file claimed to be
                raise BrokenError(" ".join(str(error).split()) or type(error).__name__) from error

        return Asked(pace, find)

    def about(self, _: Given) -> Answer:
        volumes = [
            {
                "title": volume.title,
                "model": volume.seen.model,
                "prompt": None if volume.written is None else volume.written.prompt,
            }
            for volume in self.atlas.volumes
        ]
        title = " · ".join(dict.fromkeys(volume.title for volume in self.atlas.volumes))
        sheets = [sheet._asdict() for sheet in self.atlas.sheets]
        told = {"title": title, "version": __version__, "side": SIDE}
        return told | {"recordings": volumes, "sheets": sheets}

    def heads(self, _: Given) -> Answer:
        """One sheet more is measured each time, so that nothing is when nobody asks."""
        with self._measuring:
            some = next(self._rows, None)
            if some is None and self._sheets_done < len(self.atlas.sheets):
                raise BrokenError("not all heads could be measured")  # the first time, with why
            if some is not None:
                told = {"sheet": self._sheets_done}
                self._measured += [row.to_dict() | {"label": row.label} | told for row in some]
                self._sheets_done += 1
            done, rows = self._sheets_done, list(self._measured)
        return {"done": done, "of": len(self.atlas.sheets), "rows": rows}

    def words(self, side: Side, given: Given) -> Answer:
        found = self.atlas.words(given["sheet"], given["item"], side)
        first = given["first"]
        return {"words": None if found is None else found[first : first + given["count"]]}

    def thumbnails(self, given: Given) -> Answer:
        return Numbers(self.atlas.thumbnails(given["sheet"], given["item"]))

    def tile(self, given: Given) -> Answer:
        level, row, column = given["level"], given["row"], given["column"]
        exact = bool(given["exact"])
        tile = self._map(given).tile(level, row, column, given["reduce"], exact=exact)
        return Numbers(tile.cells, tile.is_exact)

    def row(self, given: Given) -> Answer:
        return Numbers(self._map(given).row(given["token"]))

    def column(self, given: Given) -> Answer:
        return Numbers(self._map(given).column(given["token"]))

    def weights(self, given: Given) -> Answer:
        queries = slice(given["query"], given["query"] + given["queries"])
        keys = slice(given["key"], given["key"] + given["keys"])
        sheet, item, head = given["sheet"], given["item"], given.get("head")
        return Numbers(self.atlas.part(sheet, item, head, queries, keys))

    def layer(self, line: Callable[[AttentionWeights, int], Tensor], given: Given) -> Answer:
        weights = self.atlas.layer(given["sheet"], given["item"], known=line is rollout_rows.column)
        token = _token(given, weights.shape[-1 if line is rollout_rows.column else -2])
        with torch.no_grad():
            return Numbers(line(weights, token))

    def rollout(
        self, line: Callable[[Sequence[AttentionWeights], int], Tensor], given: Given
    ) -> Answer:
        chain = rollout_rows.chain(self.atlas, given["sheet"])
        known = line is rollout_rows.made_of
        layers = [self.atlas.layer(sheet, given["item"], known=known) for sheet in chain]
        with torch.no_grad():
            return Numbers(line(layers, _token(given, layers[0].shape[-1])))

    def written(self, given: Given) -> Answer:
        return self.atlas.written(given["recording"])

    def alignment(self, given: Given) -> Answer:
        return alignment.alignment(self.atlas.volume(given["recording"]), given["item"])

    def aligned(self, given: Given) -> Answer:
        sheet, item = given["sheet"], given["item"]
        _, record = self.atlas.record(sheet)
        volume = self.atlas.volume(self.atlas.sheets[sheet].recording)
        return Numbers(alignment.of_heads(volume, record, item))

    def lesson(self, given: Given) -> Answer:
        sheet, item, head, token = (given[name] for name in (*HEAD, "token"))
        return lesson.head(*self.atlas.record(sheet), item, head, token)

    def _map(self, given: Given) -> Map:
        return self.atlas.map(Place(given["sheet"], given["item"], given["head"]))


TEXT = ("sheet", "item")
HEAD = (*TEXT, "head")
PART = {"first": Whole(0, LARGEST, 0), "count": Whole(1, MOST_WORDS, MOST_WORDS)}
SOME = {"queries": Whole(1, SIDE, SIDE), "keys": Whole(1, LARGEST, LARGEST)}

QUESTIONS = {
    "about": Question("What is shown: recordings and their sheets, an attention each.", Desk.about),
    "heads": Question(
        "What each head does; asked again, of one sheet more, until `done` is `of`.",
        Desk.heads,
        pace="measuring",
    ),
    "queries": Question(
        "The tokens that attend.", lambda desk, given: desk.words("queries", given), TEXT, PART
    ),
    "keys": Question(
        "The tokens attended to.", lambda desk, given: desk.words("keys", given), TEXT, PART
    ),
    "thumbnails": Question(
        "(heads, rows, columns): the strongest weights of sampled rows.",
        Desk.thumbnails,
        TEXT,
        is_json=False,
    ),
    "tile": Question(
        "(rows, columns) of a tile of the map; of sampled rows where exact is 0 and all take long.",
        Desk.tile,
        (*HEAD, "level", "row", "column"),
        {"reduce": OneOf(get_args(Reduce), "mean"), "exact": Whole(0, 1, 1)},
        pace=lambda given: "slow" if given["exact"] else "soon",
        is_json=False,
    ),
    "weights": Question(
        "(queries, keys): single weights of some tokens.",
        Desk.weights,
        (*HEAD, "query", "key"),
        SOME,
        pace="slow",
        is_json=False,
    ),
    "mean": Question(
        "(queries, keys): the same, the mean of all heads.",
        Desk.weights,
        (*TEXT, "query", "key"),
        SOME,
        pace="slow",
        is_json=False,
    ),
    "row": Question(
        "(keys,): what one token attends to.", Desk.row, (*HEAD, "token"), is_json=False
    ),
    "column": Question(
        "(queries,): what attends to one token.",
        Desk.column,
        (*HEAD, "token"),
        pace="slow",
        is_json=False,
    ),
    "layer-row": Question(
        "(keys,): what one token attends to, the mean of all heads.",
        lambda desk, given: desk.layer(rollout_rows.row, given),
        (*TEXT, "token"),
        is_json=False,
    ),
    "layer-column": Question(
        "(queries,): what attends to one token, the mean of all heads.",
        lambda desk, given: desk.layer(rollout_rows.column, given),
        (*TEXT, "token"),
        pace="slow",
        is_json=False,
    ),
    "rollout-row": Question(
        "(tokens,): how much of each token is in one position after this layer.",
        lambda desk, given: desk.rollout(rollout_rows.made_of, given),
        (*TEXT, "token"),
        pace="slow",
        is_json=False,
    ),
    "rollout-column": Question(
        "(tokens,): how much of one token is in each position after this layer.",
        lambda desk, given: desk.rollout(rollout_rows.reached, given),
        (*TEXT, "token"),
        pace="slow",
        is_json=False,
    ),
    "examples": Question(
        "The notes' examples, for lessons.", lambda desk, given: lesson.examples()
    ),
    "lesson": Question(
        "What the weights of one head are made of, around one token.",
        Desk.lesson,
        HEAD,
        {"token": Whole(0, LARGEST, 0)},
        pace="slow",
    ),
    "written": Question(
        "All tokens of a generation and, for each new one, what else it could have been.",
        Desk.written,
        ("recording",),
    ),
    "alignment": Question(
        "The words of a translation, those of its source, and how much each is made of each.",
        Desk.alignment,
        ("recording", "item"),
        pace="slow",
    ),
    "aligned": Question(
        "(heads, words, source words): the same of each head of one cross-attention.",
        Desk.aligned,
        TEXT,
        pace="slow",
        is_json=False,
    ),
}
"""All that can be asked, by name."""


def parsed(path: str) -> tuple[str, dict[str, str]]:
    """What stands before "?" in a path, and the options after it."""
    name, _, options = path.partition("?")
    return name, dict(parse_qsl(options, keep_blank_values=True))


def _token(given: Given, count: int) -> int:
    """The one asked for, of so many."""
    token: int = given["token"]
    if token >= count:
        raise OutOfRangeError(f"there is no token {token}; there are {count}")
    return token


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) <= len(str(LARGEST))
