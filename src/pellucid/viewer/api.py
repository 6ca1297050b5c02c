"""The API of the page: the same for the server, the notebook and exported files.

A request is a path like `tile/0/0/3/2/1/1?reduce=mean`: the name of an endpoint, whole numbers,
and options. An answer is JSON, or an array of numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, get_args

import torch
from torch import Tensor

from pellucid import __version__
from pellucid.attention import AttentionWeights
from pellucid.common.wording import plain
from pellucid.errors import OutOfRangeError, PellucidError
from pellucid.viewer import ablation, alignment, learning, lesson, rollout_rows, telling, trained
from pellucid.viewer.catalogue import Catalogue, Place, Side
from pellucid.viewer.requests import (
    LARGEST,
    Answer,
    BrokenError,
    ChoiceOption,
    Endpoint,
    Given,
    IntegerOption,
    Numbers,
    PendingAnswer,
    TextOption,
)
from pellucid.viewer.tile_pyramid import SIDE, Map, Reduce

MOST_WORDS = 4096
"""Tokens of one answer."""


class Api:
    """Answers requests about a catalogue; thread-safe."""

    def __init__(self, catalogue: Catalogue, models: Sequence[str] = (), edition: int = 0) -> None:
        """Get ready.

        Args:
            catalogue: what it answers about.
            models: those that can read a text here.
            edition: how many catalogues there were before.
        """
        self.catalogue = catalogue
        self.models, self.edition = list(models), edition
        self._measured: list[dict[str, Any]] = []
        self._race = learning.Race()
        self._ablations = ablation.Ablations(catalogue)
        self._measuring, self._rows, self._layers_done = Lock(), catalogue.rows(), 0

    def ask(self, path: str, options: Mapping[str, str]) -> PendingAnswer:
        """Parse a request.

        Args:
            path: like "tile/0/0/3/2/1/1".
            options: those after "?".

        Raises:
            OutOfRangeError: there is no such endpoint.
            ArgumentError: an option is unknown, or its value is invalid.
        """
        name, *parts = path.split("/")
        if name not in ENDPOINTS:
            raise OutOfRangeError("there is no such endpoint")
        question = ENDPOINTS[name]
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

        return PendingAnswer(pace, find)

    def about(self, _: Given) -> Answer:
        named = self.catalogue.volumes
        known = [volume.title for volume in named]
        volumes = [
            {
                # The same text, read by two models, is told apart.
                "title": f"{volume.title} ({volume.model})"
                if volume.model and known.count(volume.title) > 1
                else volume.title,
                "model": volume.model or volume.seen.model,
                "prompt": None if volume.written is None else volume.written.prompt,
                "text": volume.text,
                "can_run": volume.rerun is not None,
            }
            for volume in named
        ]
        title = " · ".join(dict.fromkeys(known))
        layers = [layer._asdict() for layer in self.catalogue.layers]
        about = {"title": title, "version": __version__, "side": SIDE}
        about |= {"models": self.models, "edition": self.edition}
        return about | {"recordings": volumes, "layers": layers}

    def heads(self, _: Given) -> Answer:
        """Measure one layer more, so that nothing is measured unless requested."""
        with self._measuring:
            some = next(self._rows, None)
            if some is None and self._layers_done < len(self.catalogue.layers):
                raise BrokenError("not all heads could be measured")  # the first time, with why
            if some is not None:
                index = {"layer_index": self._layers_done}
                self._measured += [row.to_dict() | {"label": row.label} | index for row in some]
                self._layers_done += 1
            done, rows = self._layers_done, list(self._measured)
        return {"done": done, "of": len(self.catalogue.layers), "rows": rows}

    def words(self, side: Side, given: Given) -> Answer:
        words = self.catalogue.words(given["layer"], given["item"], side)
        first = given["first"]
        return {"words": None if words is None else words[first : first + given["count"]]}

    def thumbnails(self, given: Given) -> Answer:
        return Numbers(self.catalogue.thumbnails(given["layer"], given["item"]))

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
        layer, item, head = given["layer"], given["item"], given.get("head")
        return Numbers(self.catalogue.part(layer, item, head, queries, keys))

    def layer(self, line: Callable[[AttentionWeights, int], Tensor], given: Given) -> Answer:
        weights = self.catalogue.layer(
            given["layer"], given["item"], known=line is rollout_rows.column
        )
        token = _token(given, weights.shape[-1 if line is rollout_rows.column else -2])
        with torch.no_grad():
            return Numbers(line(weights, token))

    def rollout(
        self, line: Callable[[Sequence[AttentionWeights], int], Tensor], given: Given
    ) -> Answer:
        chain = rollout_rows.chain(self.catalogue, given["layer"])
        known = line is rollout_rows.made_of
        layers = [self.catalogue.layer(layer, given["item"], known=known) for layer in chain]
        with torch.no_grad():
            return Numbers(line(layers, _token(given, layers[0].shape[-1])))

    def written(self, given: Given) -> Answer:
        return self.catalogue.written(given["recording"])

    def telling(self, given: Given) -> Answer:
        return telling.telling(self.catalogue, given["recording"])

    def alignment(self, given: Given) -> Answer:
        return alignment.alignment(self.catalogue.volume(given["recording"]), given["item"])

    def aligned(self, given: Given) -> Answer:
        layer, item = given["layer"], given["item"]
        _, record = self.catalogue.record(layer)
        volume = self.catalogue.volume(self.catalogue.layers[layer].recording)
        return Numbers(alignment.of_heads(volume, record, item))

    def lesson(self, given: Given) -> Answer:
        layer, item, head, token = (given[name] for name in (*HEAD, "token"))
        return lesson.head(*self.catalogue.record(layer), item, head, token)

    def ablated(self, given: Given) -> Answer:
        return self._ablations.ablated(given["recording"], given["edits"], given["after"])

    def effects(self, _: Given) -> Answer:
        return self._ablations.effects()

    def training(self, given: Given) -> Answer:
        return self._race.steps(given["d_k"], given["seed"], given["first"])

    def _map(self, given: Given) -> Map:
        return self.catalogue.map(Place(given["layer"], given["item"], given["head"]))


TEXT = ("layer", "item")
HEAD = (*TEXT, "head")
PART = {"first": IntegerOption(0, LARGEST, 0), "count": IntegerOption(1, MOST_WORDS, MOST_WORDS)}
SOME = {"queries": IntegerOption(1, SIDE, SIDE), "keys": IntegerOption(1, LARGEST, LARGEST)}

ENDPOINTS = {
    "about": Endpoint("The recordings and their layers.", Api.about),
    "heads": Endpoint(
        "Measures of all heads so far; each request measures one layer more, until `done` is `of`.",
        Api.heads,
        pace="measuring",
    ),
    "queries": Endpoint(
        "The tokens that attend.", lambda api, given: api.words("queries", given), TEXT, PART
    ),
    "keys": Endpoint(
        "The tokens that are attended to.", lambda api, given: api.words("keys", given), TEXT, PART
    ),
    "thumbnails": Endpoint(
        "(heads, rows, columns): the strongest weights of sampled rows.",
        Api.thumbnails,
        TEXT,
        is_json=False,
    ),
    "tile": Endpoint(
        "(rows, columns): a tile of the map; if exact is 0, perhaps made of sampled rows.",
        Api.tile,
        (*HEAD, "level", "row", "column"),
        {"reduce": ChoiceOption(get_args(Reduce), "mean"), "exact": IntegerOption(0, 1, 1)},
        pace=lambda given: "slow" if given["exact"] else "soon",
        is_json=False,
    ),
    "weights": Endpoint(
        "(queries, keys): the weights between some tokens.",
        Api.weights,
        (*HEAD, "query", "key"),
        SOME,
        pace="slow",
        is_json=False,
    ),
    "mean": Endpoint(
        "(queries, keys): the same, averaged over heads.",
        Api.weights,
        (*TEXT, "query", "key"),
        SOME,
        pace="slow",
        is_json=False,
    ),
    "row": Endpoint(
        "(keys,): what one token attends to.", Api.row, (*HEAD, "token"), is_json=False
    ),
    "column": Endpoint(
        "(queries,): what attends to one token.",
        Api.column,
        (*HEAD, "token"),
        pace="slow",
        is_json=False,
    ),
    "layer-row": Endpoint(
        "(keys,): what one token attends to, averaged over heads.",
        lambda api, given: api.layer(rollout_rows.row, given),
        (*TEXT, "token"),
        is_json=False,
    ),
    "layer-column": Endpoint(
        "(queries,): what attends to one token, averaged over heads.",
        lambda api, given: api.layer(rollout_rows.column, given),
        (*TEXT, "token"),
        pace="slow",
        is_json=False,
    ),
    "rollout-row": Endpoint(
        "(tokens,): how much of each token is in one position after this layer.",
        lambda api, given: api.rollout(rollout_rows.made_of, given),
        (*TEXT, "token"),
        pace="slow",
        is_json=False,
    ),
    "rollout-column": Endpoint(
        "(tokens,): how much of one token is in each position after this layer.",
        lambda api, given: api.rollout(rollout_rows.reached, given),
        (*TEXT, "token"),
        pace="slow",
        is_json=False,
    ),
    "examples": Endpoint(
        "The worked examples of the notes, for lessons.", lambda api, given: lesson.examples()
    ),
    "walk": Endpoint(
        "An example that a trained model works out, for a text of one's own if it is given.",
        lambda api, given: trained.walk(given["example"], given["text"], given["query"]),
        options={
            "example": ChoiceOption(tuple(trained.EXAMPLES), next(iter(trained.EXAMPLES))),
            "text": TextOption(trained.MOST_TEXT),
            "query": TextOption(trained.MOST_QUERY),
        },
        pace="slow",
    ),
    "lesson": Endpoint(
        "How the weights of one head are computed, around one token.",
        Api.lesson,
        HEAD,
        {"token": IntegerOption(0, LARGEST, 0)},
        pace="slow",
    ),
    "stations": Endpoint("The stations of the path, in order.", lambda api, given: learning.path()),
    "station": Endpoint(
        "One station: its idea, questions, lesson and change.",
        lambda api, given: learning.station(given["station"]),
        ("station",),
        pace="slow",
    ),
    "station-file": Endpoint(
        "One station as a notebook or slides.",
        lambda api, given: learning.station_file(given["station"], given["kind"]),
        ("station",),
        {"kind": ChoiceOption(("notebook", "slides"), "notebook")},
        pace="slow",
    ),
    "training": Endpoint(
        "The next steps of two models in training, one of which does not divide its scores.",
        Api.training,
        options={
            "d_k": IntegerOption(1, 256, 64),
            "seed": IntegerOption(0, LARGEST, 0),
            "first": IntegerOption(0, learning.MORE * learning.RACE, 0),
        },
        pace="slow",
    ),
    "ablated": Endpoint(
        "What the model answers without some heads, words or links, beside what it answers.",
        Api.ablated,
        ("recording",),
        {
            "edits": TextOption(ablation.MOST_EDITS),
            "after": IntegerOption(0, LARGEST, 0),
        },
        pace="slow",
    ),
    "effects": Endpoint(
        "How much the answer changes without each head; each request measures one layer more, "
        "until `done` is `of`.",
        Api.effects,
        pace="measuring",
    ),
    "written": Endpoint(
        "All tokens of a generation and, for each new one, the most likely alternatives.",
        Api.written,
        ("recording",),
    ),
    "telling": Endpoint(
        "The head of a recording that has most to show, and the token that gives most to others.",
        Api.telling,
        ("recording",),
        pace="slow",
    ),
    "alignment": Endpoint(
        "The words of a translation and of its source, and the attention between them.",
        Api.alignment,
        ("recording", "item"),
        pace="slow",
    ),
    "aligned": Endpoint(
        "(heads, words, source words): the same for each head of one cross-attention layer.",
        Api.aligned,
        TEXT,
        pace="slow",
        is_json=False,
    ),
}
"""All endpoints, by name."""


def _token(given: Given, count: int) -> int:
    """The token of a request, checked against their count."""
    token: int = given["token"]
    if token >= count:
        raise OutOfRangeError(f"there is no token {token}; there are {count}")
    return token
