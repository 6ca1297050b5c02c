"""What a page needs to compute the weights of a head itself: weight = exp(score - logsumexp).

Query and key are rounded to float16, each scaled by a power of two that uses its whole range. The
logsumexp is that of the rounded ones, so that rows sum to one. computed_heads.js reads all of it.
"""

import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.masks import Mask
from pellucid.attention.scores import Scores
from pellucid.viewer.catalogue import Catalogue, Place

MOST_RUNS = 4
"""Runs of keys that a row sees, on average; above, the mask is not sent."""
AT_ONCE = 2**24
"""Pairs of query and key of which the mask, or the bias, is computed at once."""
LARGEST = 15
"""Numbers in float16 are below 2**LARGEST."""
GZIP = 16 + zlib.MAX_WBITS


class Runs(NamedTuple):
    """Which keys each row sees."""

    counts: Tensor
    """(queries,): how many runs."""
    edges: Tensor
    """(2 * runs,): the first key of each run, and the end."""


class Bias(NamedTuple):
    """A bias that depends on the key alone, or on how far it is from the query."""

    values: Tensor
    """(keys,), or (queries + keys - 1,) from the last query's view of key 0."""
    slant: int
    """0 or 1."""


class Plan(NamedTuple):
    """How a page gets the weights of one head."""

    scores: Scores
    runs: Runs | None = None
    bias: Bias | None = None
    reason: str = ""
    """Why it cannot compute them."""


@dataclass
class ComputedHeads:
    """Which heads of a catalogue a page can compute, and what it needs for that."""

    catalogue: Catalogue
    _plans: dict[Place, Plan] = field(default_factory=dict)
    _runs: dict[tuple[Mask, int, int], Runs | None] = field(default_factory=dict)

    def plan(self, place: Place) -> Plan:
        if place not in self._plans:
            self._plans[place] = self._new_plan(self.catalogue.map(place).weights.operands)
        return self._plans[place]

    def _new_plan(self, scores: Scores) -> Plan:
        *_, queries, keys = scores.shape
        if not scores.energy.is_dot_product:
            return Plan(scores, reason="they are no softmax of dot products")
        runs = bias = None
        if scores.mask is not None:
            name = scores.mask, queries, keys
            if name not in self._runs:
                self._runs[name] = runs_of(*name, scores.query.device)
            runs = self._runs[name]
            if runs is None:
                return Plan(scores, reason="their mask follows no pattern")
        if scores.bias is not None:
            bias = bias_of(scores.bias[0, 0])
            if bias is None:
                return Plan(scores, reason="their bias follows no pattern")
        return Plan(scores, runs, bias)

    def key_of(self, place: Place) -> tuple[int, int, int]:
        """What heads that share keys have in common."""
        _, record = self.catalogue.record(place.layer)
        shape = record.weights.operands.shape
        return place.layer, place.item, place.head // (shape[1] // record.weights.kv_heads)

    def bytes_of(self, places: list[Place]) -> int:
        """Bytes of their query, key, logsumexp and bias, before compression."""
        total, keys = 0, dict[tuple[int, int, int], int]()
        for place in places:
            plan = self.plan(place)
            query, key = plan.scores.query, plan.scores.key
            keys[self.key_of(place)] = 2 * key.numel()
            total += 2 * query.numel() + 4 * query.shape[-2]
            total += 0 if plan.bias is None else 4 * len(plan.bias.values)
        return total + sum(keys.values())


class Parts:
    """What computed heads share, each once, packed as text."""

    def __init__(self) -> None:
        self.packed: list[str] = []
        self._known: dict[object, int] = {}

    def add(self, values: np.ndarray[Any, Any], name: object = None) -> int:
        """The number of a part.

        Args:
            values: numbers, little-endian.
            name: that of what is perhaps there already.
        """
        if name not in self._known or name is None:
            packer = zlib.compressobj(wbits=GZIP)
            packed = packer.compress(np.ascontiguousarray(values).tobytes()) + packer.flush()
            self._known[name] = len(self.packed)
            self.packed.append(b64encode(packed).decode())
        return self._known[name]


def described(heads: ComputedHeads, place: Place, parts: Parts) -> dict[str, Any]:
    """One head, for JSON; what it is computed from is added to `parts`."""
    scores, runs, bias, _ = heads.plan(place)
    (query, up), (key, further) = halves(scores.query), halves(scores.key)
    weights = rounded(scores)
    with torch.no_grad():
        logsumexp = weights.logsumexp.flatten().float().cpu().numpy()
    counts = edges = None
    if runs is not None:
        counts = parts.add(runs.counts.numpy().astype("<i4"), ("counts", id(runs)))
        steps = runs.edges.clone()
        steps[2:] -= runs.edges[:-2]
        edges = parts.add(steps.numpy().astype("<i4"), ("edges", id(runs)))
    return {
        "queries": scores.shape[2],
        "keys": scores.shape[3],
        "dim": query.shape[-1],
        "scale": scores.scale * 2.0 ** -(up + further),
        "softcap": scores.softcap,
        "query": parts.add(planes(query)),
        "key": parts.add(planes(key), ("key", heads.key_of(place))),
        "logsumexp": parts.add(logsumexp.astype("<f4")),
        "counts": counts,
        "runs": edges,
        "bias": None if bias is None else parts.add(bias.values.numpy().astype("<f4")),
        "slant": 0 if bias is None else bias.slant,
    }


def rounded(scores: Scores) -> AttentionWeights:
    """The weights as the page computes them: of query and key as they are in float16."""
    operands = []
    for tensor in (scores.query, scores.key):
        values, exponent = halves(tensor)
        operands.append(torch.from_numpy(values.astype("f4") * 2.0**-exponent).to(tensor.device))
    return AttentionWeights(replace(scores, query=operands[0], key=operands[1]))


def halves(values: Tensor) -> tuple[np.ndarray[Any, Any], int]:
    """values * 2**exponent in float16, and the exponent."""
    values = values.detach().float().cpu()
    largest = values.abs().nan_to_num(0, 0, 0).amax()
    exponent = LARGEST - int(torch.frexp(largest).exponent) if largest > 0 else 0
    exponent = min(max(exponent, -120), 120)
    return (values * 2.0**exponent).numpy().astype("<f2"), exponent


def planes(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """All upper bytes, then all lower ones: the upper ones are alike, and so take less space."""
    return np.concatenate([values.view("u1").reshape(-1, 2)[:, at] for at in (1, 0)])


def runs_of(mask: Mask, queries: int, keys: int, device: torch.device) -> Runs | None:
    """Which keys each row sees, of a mask of one head; None where that takes many runs."""
    counts, edges, total = [], [], 0
    step = max(1, AT_ONCE // keys)
    for start in range(0, queries, step):
        rows = slice(start, min(start + step, queries))
        visible = mask.tile(slice(0, 1), rows, slice(0, keys), device)[0].cpu()
        padded = torch.nn.functional.pad(visible, (1, 1))
        is_edge = padded[:, 1:] != padded[:, :-1]
        counts.append(is_edge.sum(1) // 2)
        total += int(counts[-1].sum())
        if total > MOST_RUNS * queries:
            return None
        edges.append(is_edge.nonzero()[:, 1])
    return Runs(torch.cat(counts).int(), torch.cat(edges).int())


def bias_of(bias: Tensor) -> Bias | None:
    """The pattern of a bias, (queries, keys); None where it has none."""
    bias = bias.detach().float().cpu()
    queries, keys = bias.shape
    step = max(1, AT_ONCE // keys)
    along = bias[0].contiguous()
    diagonal = torch.cat([bias[:, 0].flip(0), bias[0, 1:]])
    windows = diagonal.unfold(0, keys, 1)  # of row i, the one at queries - 1 - i

    def is_all(wanted: Callable[[slice], Tensor]) -> bool:
        rows = (slice(at, min(at + step, queries)) for at in range(0, queries, step))
        return all(torch.equal(bias[some], wanted(some)) for some in rows)

    if is_all(lambda rows: along.expand(rows.stop - rows.start, -1)):
        return Bias(along, 0)
    if is_all(lambda rows: windows[queries - rows.stop : queries - rows.start].flip(0)):
        return Bias(diagonal, 1)
    return None
