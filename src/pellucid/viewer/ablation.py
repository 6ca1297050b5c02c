"""What a model answers without some heads, words or links, for the page.

Edits are written as in the page's address (edits.js), joined by "_":

    head.LAYER.HEAD               a head gives nothing
    word.LAYER.KEY                nobody attends to a token, in all layers that read the same text
    link.LAYER.HEAD.QUERY.KEY     a token does not attend to another; HEAD may be "all"

Layers are numbered as in `about`. Weights of what is left sum to one again.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.lens.interventions import Intervention, intervene
from pellucid.lens.spelling import running
from pellucid.models import EncoderDecoder
from pellucid.readers.outcomes import (
    Labels,
    Outcome,
    Predicted,
    open_answering,
    outcome_of,
)
from pellucid.tasks.translation import translate
from pellucid.viewer.catalogue import Catalogue, Volume

MOST_EDITS = 4096
"""Letters of all edits of a request."""
SHOWN = 6
"""The most likely tokens, before and after."""
BATCH_TOKENS = 4096
"""Tokens of a pass in which each item misses another head."""
ALL = "all"


KINDS = {
    "head": ("layer", "head"),
    "word": ("layer", "key"),
    "link": ("layer", "head", "query", "key"),
}
"""What the numbers of an edit are."""


class Edit(NamedTuple):
    """One thing that is knocked out."""

    kind: str
    layer: int
    head: int | None
    query: int | None
    key: int | None


class Opened(NamedTuple):
    """A model with the text of a recording."""

    recording: int
    after: int
    outcome: Outcome
    before: Tensor
    """What it answers with all its parts."""
    translation: str | None
    """What it writes with all its parts; None where it was not asked to write."""


class Ablations:
    """Answers about one catalogue; thread-safe. The last model that was asked stays open."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = Lock()
        self._opened: Opened | None = None
        self._effects: list[dict[str, Any]] = []
        self._measured = 0
        self._able = [
            layer
            for layer, attention in enumerate(catalogue.layers)
            if catalogue.volume(attention.recording).rerun is not None
        ]

    def ablated(self, recording: int, text: str, after: int) -> dict[str, Any]:
        """What a model answers to the text of a recording, with all its parts and without some.

        Args:
            recording: its number.
            text: the edits.
            after: the token after which the next one is predicted, counted from 1; 0 is the last.

        Raises:
            OutOfRangeError: there is no such recording, layer, head or token.
            ArgumentError: the edits cannot be read, or the model is not at hand.
        """
        volume = self._catalogue.volume(recording)
        edits = [self._edit(recording, part) for part in text.split("_") if part]
        with self._lock:
            opened = self._open(recording, after)
            outcome, states, translation = opened.outcome, opened.before, opened.translation
            if edits:
                with intervene(outcome.checkpoint.model) as editor:
                    self._knock_out(editor, edits)
                    states = outcome.run()
                    translation = _translation(volume, outcome)
            return _answer(volume, opened, states, translation)

    def effects(self) -> dict[str, Any]:
        """How much the answer changes without each head; each request measures one layer more."""
        with self._lock:
            if self._measured < len(self._able):
                self._effects += self._of_layer(self._able[self._measured])
                self._measured += 1
            rows = list(self._effects)
            return {"done": self._measured, "of": len(self._able), "rows": rows}

    def _of_layer(self, layer: int) -> list[dict[str, Any]]:
        of = self._catalogue.layers[layer]
        opened = self._open(of.recording, 0)
        outcome = opened.outcome
        tokens = max(ids.shape[1] for ids in outcome.inputs.values())
        effects: list[float] = []
        for heads in torch.arange(of.heads).split(max(1, BATCH_TOKENS // tokens)):
            with intervene(outcome.checkpoint.model) as editor:
                for item, head in enumerate(heads.tolist()):
                    editor.knock_out(of.name, head, items=item)
                effects += outcome.effect(opened.before, outcome.run(len(heads))).tolist()
        return [
            {"layer_index": layer, "head": head, "effect": effect}
            for head, effect in enumerate(effects)
        ]

    def _open(self, recording: int, after: int) -> Opened:
        opened, volume = self._opened, self._catalogue.volume(recording)
        if opened is not None and (opened.recording, opened.after) == (recording, after):
            return opened
        if volume.rerun is None:
            raise ArgumentError("the model of this recording is not at hand")
        model, inputs = volume.rerun
        if opened is not None and opened.recording == recording:
            checkpoint = opened.outcome.checkpoint
        else:
            self._opened = opened = None  # so that two models are never in memory
            checkpoint = open_answering(model)
        tokens = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
        if after > tokens:
            raise OutOfRangeError(f"there is no token {after}; they are counted from 1 to {tokens}")
        outcome = outcome_of(checkpoint, inputs, [after - 1] if after else None, model=model)
        self._opened = Opened(
            recording, after, outcome, outcome.run(), _translation(volume, outcome)
        )
        return self._opened

    def _edit(self, recording: int, text: str) -> Edit:
        kind, *values = text.split(".")
        names = KINDS.get(kind, ())
        if not names or len(values) != len(names):
            raise ArgumentError(f"'{text[:40]}' is no edit; head.0.1, word.0.1, link.0.1.2.3 are")
        indices: dict[str, int | None] = dict.fromkeys(Edit._fields)
        for name, value in zip(names, values, strict=True):
            if kind == "link" and name == "head" and value == ALL:
                continue
            if not (value.isascii() and value.isdecimal() and len(value) < 10):
                raise ArgumentError(f"'{value[:40]}' is no {name} of '{text[:40]}'")
            indices[name] = int(value)
        assert indices["layer"] is not None
        edit = Edit(kind, indices["layer"], indices["head"], indices["query"], indices["key"])
        self._check(recording, edit)
        return edit

    def _check(self, recording: int, edit: Edit) -> None:
        layers = self._catalogue.layers
        if edit.layer >= len(layers) or layers[edit.layer].recording != recording:
            raise OutOfRangeError(f"there is no layer {edit.layer} in recording {recording}")
        of = layers[edit.layer]
        for name, value, size in (
            ("head", edit.head, of.heads),
            ("query", edit.query, of.queries),
            ("key", edit.key, of.keys),
        ):
            if value is not None and value >= size:
                raise OutOfRangeError(f"there is no {name} {value}; there are {size}")

    def _knock_out(self, editor: Intervention, edits: Sequence[Edit]) -> None:
        layers = self._catalogue.layers
        silent = {(edit.layer, edit.head) for edit in edits if edit.kind == "head"}
        for layer, head in silent:
            editor.knock_out(layers[layer].name, head)
        for edit in edits:
            if edit.kind == "head":
                continue
            wanted = [edit.layer]
            if edit.kind == "word":
                wanted = self._catalogue.sharing_keys(edit.layer)
            for layer in wanted:
                heads = range(layers[layer].heads) if edit.head is None else [edit.head]
                left = [head for head in heads if (layer, head) not in silent]
                if left:  # what gives nothing has no links to cut
                    editor.knock_out(layers[layer].name, left, queries=edit.query, keys=edit.key)


def _translation(volume: Volume, outcome: Outcome) -> str | None:
    """What an encoder-decoder writes now, if it was asked to write."""
    model = outcome.checkpoint.model
    if volume.written is None or not isinstance(model, EncoderDecoder) or not volume.text:
        return None
    most = len(volume.written.ids)
    whole: Any = {"whole": True, "protect": "none"}  # as it was written
    return translate(model, [volume.text], max_tokens=most, **whole)[0].text


def _answer(
    volume: Volume, opened: Opened, states: Tensor, translation: str | None
) -> dict[str, Any]:
    outcome, before = opened.outcome, opened.before
    answer: dict[str, Any] = {
        "kind": outcome.kind,
        "measure": outcome.measure,
        "effect": outcome.effect(before, states).item(),
        "position": None,
        "names": [],
        "before": [],
        "after": [],
        "texts": None if translation is None else [opened.translation, translation],
    }
    if isinstance(outcome, Labels):
        names = list(outcome.names)
        shares = [outcome.log_probabilities(x)[0].exp() for x in (before, states)]
    elif isinstance(outcome, Predicted):
        answer["position"] = outcome.positions[-1]
        shares = [outcome.log_probabilities(x[:, -1:])[0, 0].exp() for x in (before, states)]
        best = torch.cat([x.topk(min(SHOWN, len(x))).indices for x in shares]).unique()
        best = best[shares[0][best].argsort(descending=True)]
        names = running(volume.seen.strings(best))
        shares = [x[best] for x in shares]
    else:
        return answer
    return answer | {"names": names, "before": shares[0].tolist(), "after": shares[1].tolist()}
