"""What a watch says about a model beside the truth."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations
from math import inf, prod

import torch
from torch import Tensor

import pellucid
from benchmarks.libraries.case import Case
from benchmarks.libraries.truth import Truth, Used
from pellucid.lens import Record

TOLERANCE = 2e-5
VERDICTS = ("exact", "said", "silent", "different")
"""From the best to the worst.

exact: recorded, and every weight is the one that was used. said: not recorded, and `unseen` has the
module, a part of it, or what it is a part of. silent: neither. different: recorded, and a weight is
another.
"""


@dataclass
class Outcome:
    """One model."""

    library: str
    model: str
    counts: dict[str, int] = field(default_factory=dict)
    """Attention calls by verdict."""
    error: float = 0.0
    """The largest difference of a weight, of those that were recorded."""
    peak: float = 0.0
    """The largest weight of a row, in the mean: 1 where every query looks at one key."""
    notes: list[str] = field(default_factory=list)
    failure: str = ""
    """Why the model could not be built or run, where that is so."""

    @property
    def verdict(self) -> str:
        """The worst of all calls."""
        if self.failure:
            return "not run"
        found = [verdict for verdict in VERDICTS if self.counts.get(verdict)]
        return found[-1] if found else "no attention"


def judge(library: str, case: Case) -> Outcome:
    """Run a model twice, once for the truth and once watched, and compare."""
    outcome = Outcome(library, case.name)
    try:
        model = case.model()
        torch.manual_seed(0)
        with torch.no_grad(), Truth(model) as truth:
            case.run(model)
    except Exception as error:
        outcome.failure = first_line(error)
        return outcome
    try:
        torch.manual_seed(0)
        with torch.no_grad(), pellucid.watch(model, values=True) as seen:
            case.run(model)
    except Exception as error:
        outcome.counts = {"different": len(truth.used)}
        outcome.notes.append(f"fails while it is watched: {first_line(error)}")
        return outcome
    _compare(outcome, truth.used, seen.records, seen.unseen)
    try:
        complaint = case.complaint(model, seen)
    except Exception as error:
        complaint = first_line(error)
    if complaint:
        outcome.counts["different"] = outcome.counts.get("different", 0) + 1
        outcome.notes.append(complaint)
    return outcome


def first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _compare(
    outcome: Outcome, used: list[Used], records: list[Record], unseen: dict[str, str]
) -> None:
    counts: Counter[str] = Counter()
    notes: list[str] = []
    left = list(records)
    for attention in used:
        nearest, error = _nearest(attention, left)
        reasons = [why for name, why in unseen.items() if _related(name, attention.name)]
        if nearest is not None:
            left = [record for record in left if record is not nearest]
            outcome.error = max(outcome.error, error)
            verdict = "exact" if error <= TOLERANCE else "different"
        else:
            verdict = "said" if reasons else "silent"
        if verdict == "said":
            notes.append(reasons[0])
        elif verdict != "exact":
            notes.append(f"{verdict}: {attention.name or outcome.model}")
        counts[verdict] += 1
    left = [record for record in left if record.shape[-1] > 1]  # of one key, nobody's truth tells
    if left:
        notes.append(f"recorded besides: {', '.join(dict.fromkeys(x.name for x in left))}")
    outcome.counts = dict(counts)
    outcome.notes += dict.fromkeys(notes)
    if used:
        peaks = [float(one.weights.nan_to_num().amax(-1).mean()) for one in used]
        outcome.peak = sum(peaks) / len(peaks)


def _nearest(attention: Used, records: list[Record]) -> tuple[Record | None, float]:
    """The first record of the same module that is exact, else the nearest, and how far it is."""
    named = [record for record in records if record.name == attention.name]
    others = [record for record in records if _related(record.name, attention.name)]
    best: Record | None = None
    least = inf
    for record in dict.fromkeys((*named, *others)):
        error = _difference(attention.weights, record)
        if best is None or error < least:
            best, least = record, error
        if least <= TOLERANCE:
            break
    return best, least


def _related(one: str, other: str) -> bool:
    """Whether two modules are the same, or one is a part of the other."""
    return one == other or _within(one, other) or _within(other, one)


def _within(inner: str, outer: str) -> bool:
    return outer == "" or inner.startswith(outer + ".")


def _difference(truth: Tensor, record: Record) -> float:
    """The largest difference of a weight, rows that see nothing aside."""
    if prod(record.shape) != truth.numel() or record.shape[-1] != truth.shape[-1]:
        return inf
    try:
        recorded = record.weights[...].double()
    except pellucid.PellucidError:
        return inf
    truth = truth.double()
    least = inf
    for one in _arranged(truth, record.shape):
        seen = one.isfinite().all(-1) & (one != 0).any(-1)
        difference = (one - recorded).abs()[seen]
        error = float(difference.max()) if difference.numel() else 0.0
        if error < least:  # NaN is no better
            least = error
        if least <= TOLERANCE:
            break
    return least


def _arranged(weights: Tensor, shape: torch.Size) -> Iterator[Tensor]:
    """The weights in every order of axes that gives the shape, the last axis being what it is.

    A model may hold them as (batch * heads, queries, keys) or (batch, queries, heads, keys).
    """
    outer = weights.ndim - 1
    for order in permutations(range(outer)):
        yield weights.permute(*order, outer).reshape(shape)
    outer = len(shape) - 1
    for order in permutations(range(outer)):
        back = [order.index(axis) for axis in range(outer)]
        split = weights.reshape(*(shape[axis] for axis in order), shape[-1])
        yield split.permute(*back, outer)
