"""The numbers of the Lesson view: the notes' examples, and one head of a recording.

The page does the arithmetic itself, so that users can change it. These inputs make its weights
equal to the library's.
"""

import json
import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import OutOfRangeError
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.spelling import is_special, running
from pellucid.lessons import lookup
from pellucid.lessons.examples import EXAMPLES, example_lesson
from pellucid.lessons.heads import telling_word
from pellucid.lessons.lesson import Form, Lesson
from pellucid.viewer import trained

MOST = 64
"""Tokens that are shown at once."""


def examples() -> dict[str, Any]:
    """The worked examples of the notes as lessons, and the colours that a lookup knows.

    Each example has a name, a title, and a lesson with the fields of `Lesson`; the wheel has the
    angle of each colour in degrees; those that a trained model works out have the fields of
    `trained.Example`.
    """
    ways = [(name, way) for name, example in EXAMPLES.items() for way in example.weights]
    lessons = [_example(name, way) for name, way in ways]
    causal = _example("journey", "linear", causal=True)
    wheel = list(lookup.WHEEL)
    colours = lookup.lookup_lesson(wheel).change(speaker=wheel.index("orange"))
    looked_up = {"name": "lookup", "title": "looking up a colour", "lesson": as_json(colours)}
    return {
        "examples": [*lessons, causal, looked_up],
        "wheel": lookup.WHEEL,
        "trained": [asdict(example) | {"name": name} for name, example in trained.EXAMPLES.items()],
    }


def as_json(lesson: Lesson) -> dict[str, Any]:
    """A lesson as the page reads it: what is as usual is left out."""
    read: dict[str, Any] = json.loads(lesson.to_json())
    return read


def _example(name: str, way: Form, *, causal: bool = False) -> dict[str, Any]:
    lesson = example_lesson(name, weights=way, causal=causal)
    more = [way] * (way != next(iter(EXAMPLES[name].weights))) + ["causal"] * causal
    suffixes = {"linear": "linear layers", "causal": "causal mask"}
    return {
        "name": "-".join([name, *more]),
        "title": lesson.title + "".join(f", {suffixes[suffix]}" for suffix in more),
        "lesson": as_json(lesson),
    }


def head(seen: Recording, record: Record, item: int, head: int, token: int = 0) -> dict[str, Any]:
    """One head: its queries, keys and values, and all else that determines its weights.

    At most `MOST` queries and keys are given, those around a token. All other keys are combined
    into one more logit of each query's softmax, `rest`, with the value `rest_value`.

    Args:
        seen: the recording of the record.
        record: the attention.
        item: a text of the batch.
        head: a head of the record.
        token: the index of a query to include.

    Raises:
        OutOfRangeError: there is no such text, head or token.
    """
    *outer, heads, queries, keys = record.shape
    for name, number, size in (
        ("text", item, math.prod(outer)),
        ("head", head, heads),
        ("token", token, queries),
    ):
        if not 0 <= number < size:
            raise OutOfRangeError(f"there is no {name} {number}; there are {size}")
    place = [int(index) for index in torch.unravel_index(torch.tensor(item), (1, *outer))][1:]
    weights = record.weights.head(*place, head)
    known = None if weights.mask is None else weights.mask.offset
    offset = _offset(known, record, queries, keys)
    rows = _window(token, queries)
    # In cross-attention no key is at the query's position: show those equally far along.
    cols = _window(token * keys // queries if offset is None else token + offset, keys)

    tokens = _words(seen, record.query_ids, item, rows)
    with torch.no_grad():
        masked = weights.masked[0, rows].double()
        visible = masked[:, cols] > -torch.inf
        value = None
        if record.value is not None:
            value = record.value[*place, head * record.value.shape[-3] // heads].double()
        rest, rest_value = _rest(masked, value, cols)
        bias = None if weights.bias is None else weights.bias[0, rows, cols].double()
        return {
            "title": f"{record.name}, head {head}",
            "tokens": tokens,
            "keys": _words(seen, record.key_ids, item, cols),
            "speaker": _speaker(masked[:, cols], tokens, rows == cols),
            "first": rows.start,
            "first_key": cols.start,
            "queries": queries,
            "offset": offset,
            "query": weights.query[0, rows].tolist(),
            "key": weights.key[0, cols].tolist(),
            "value": None if value is None else value[cols].tolist(),
            "scale": float(weights.scale),
            "visible": None if visible.all() else visible.tolist(),
            "bias": None if bias is None else bias.tolist(),
            "softcap": None if weights.softcap is None else float(weights.softcap),
            "sink": None if weights.sinks is None else float(weights.sinks[0]),
            "rest": None if rest is None else rest.tolist(),
            "rest_value": None if rest_value is None else rest_value.tolist(),
        }


def _speaker(masked: Tensor, tokens: list[str], is_self: bool) -> int:
    """The word that gives most to other words; the first word in cross-attention."""
    words = torch.tensor(
        [not is_special(token) and any(map(str.isalnum, token)) for token in tokens]
    )
    if not is_self:
        return int(words.int().argmax())
    return telling_word(masked.softmax(dim=-1).nan_to_num(), words)


def _offset(known: int | Tensor | None, record: Record, queries: int, keys: int) -> int | None:
    """The key at the position of the first query; None in cross-attention."""
    if record.is_cross:
        return None
    return keys - queries if known is None else int(torch.as_tensor(known).flatten()[0])


def _window(around: int, size: int) -> slice:
    """The tokens that are shown, centred on one where possible."""
    first = max(0, min(around - MOST // 2, size - MOST))
    return slice(first, min(first + MOST, size))


def _rest(masked: Tensor, value: Tensor | None, cols: slice) -> tuple[Tensor | None, Tensor | None]:
    """All keys outside, combined: a logit (queries,) and a value (queries, value_dim)."""
    if cols.stop - cols.start == masked.shape[1]:
        return None, None
    masked = masked.clone()
    masked[:, cols] = -torch.inf
    rest = masked.logsumexp(-1)
    if value is None:
        return rest, None
    shares = torch.exp(masked - rest.masked_fill(rest == -torch.inf, 0).unsqueeze(-1))
    seen = (shares > 0).any(0)  # values of padding may be anything
    return rest, shares[:, seen] @ value[seen]


def _words(seen: Recording, ids: Tensor | None, item: int, shown: slice) -> list[str]:
    """Tokens as text; their positions where they are not known."""
    if ids is None:
        return [f"#{number}" for number in range(shown.start, shown.stop)]
    texts = running(seen.strings(ids[item if len(ids) > 1 else 0]))[shown]
    return [text.strip() or text.replace("\n", "⏎").replace(" ", "␣") for text in texts]
