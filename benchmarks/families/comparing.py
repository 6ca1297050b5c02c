"""What was recorded beside what was used: a verdict for each softmax, and one for the model."""

from dataclasses import dataclass, field
from itertools import permutations
from math import inf, prod

import torch
from torch import Tensor

from benchmarks.families.truth import Softmax
from pellucid import Recording

TOLERANCE = 2e-5
EXACT, SAID, SILENT, DIFFERENT = "exact", "said", "silent in part", "different"
NONE, NOT_BUILT = "no softmax attention", "not built"
VERDICTS = (EXACT, SAID, SILENT, DIFFERENT, NONE, NOT_BUILT)
"""From the best to the worst, as far as anything was run."""


@dataclass(eq=False)
class Recorded:
    """The weights of one record, dense."""

    name: str
    weights: Tensor | None
    """(..., heads, queries, keys) float64; None where asking for them failed."""
    kept: str
    """"lazily" where weights are worked out when asked for, "weights" where they are stored."""
    problem: str = ""
    is_matched: bool = False


def recorded(seen: Recording) -> list[Recorded]:
    """All that a watch has recorded."""
    found = []
    for record in seen.records:
        kept = str(getattr(record, "kept", "lazily"))
        try:
            with torch.no_grad():
                dense = record.weights[...].double()
        except Exception as error:
            found.append(Recorded(record.name, None, kept, f"{type(error).__name__}: {error}"))
        else:
            found.append(Recorded(record.name, dense, kept))
    return found


@dataclass
class Finding:
    """What became of one softmax."""

    module: str
    verdict: str
    error: float = 0.0
    reason: str = ""
    kept: str = ""
    shows: bool = True
    """Whether a recording whose scale is off by a thousandth would have come out as different."""
    empty_rows: int = 0
    """Rows that see nothing, and are recorded as something else than the model had there."""


@dataclass
class Comparison:
    """What became of one run of a model."""

    findings: list[Finding] = field(default_factory=list)
    extra: int = 0
    """Records that belong to no softmax that was found."""

    @property
    def verdict(self) -> str:
        found = {finding.verdict for finding in self.findings}
        return next((some for some in (DIFFERENT, SILENT, SAID, EXACT) if some in found), NONE)

    def count(self, verdict: str) -> int:
        return sum(finding.verdict == verdict for finding in self.findings)

    @property
    def error(self) -> float:
        """The largest error among those that count as exact or different."""
        return max((x.error for x in self.findings if x.verdict in (EXACT, DIFFERENT)), default=0.0)


def compared(truth: list[Softmax], records: list[Recorded], unseen: dict[str, str]) -> Comparison:
    """Match records to softmaxes by the module's name and their order, and judge each softmax."""
    findings: list[Finding | None] = [None] * len(truth)
    for at, softmax in enumerate(truth):
        match = _match(softmax, records)
        if match is not None:
            record, error, empty_rows = match
            record.is_matched = True
            findings[at] = _judged(softmax, record, error, empty_rows, unseen)
    _match_blocks(truth, records, findings, unseen)
    for at, softmax in enumerate(truth):
        if findings[at] is None:
            findings[at] = _missing(softmax, records, unseen)
    extra = sum(not record.is_matched for record in records)
    return Comparison([finding for finding in findings if finding is not None], extra)


def _judged(
    softmax: Softmax, record: Recorded, error: float, empty_rows: int, unseen: dict[str, str]
) -> Finding:
    reason = ""
    verdict = EXACT if error <= TOLERANCE else DIFFERENT
    if verdict == DIFFERENT:
        reason = (
            f"off by {error:.1g}"
            if error < inf
            else f"is shaped otherwise: {_shapes(softmax, record)}"
        )
        said = _said(softmax, unseen) or unseen.get(record.name)
        if said:
            verdict, reason = SAID, said
    nudged, _ = _distance(record.weights, softmax.nudged_weights, softmax.hidden)
    can_show = bool(((softmax.weights > 0).sum(-1) > 1)[~softmax.hidden].any())
    shows = nudged > TOLERANCE or not can_show
    return Finding(record.name, verdict, error, reason, record.kept, shows, empty_rows)


def _missing(softmax: Softmax, records: list[Recorded], unseen: dict[str, str]) -> Finding:
    name = softmax.modules[0] if softmax.modules else ""
    broken = [x for x in records if x.weights is None and x.name in softmax.modules]
    if broken:
        return Finding(name, DIFFERENT, inf, broken[0].problem, broken[0].kept)
    said = _said(softmax, unseen)
    if said:
        return Finding(name, SAID, reason=said)
    shape = " × ".join(map(str, softmax.weights.shape))
    return Finding(name, SILENT, reason=f"neither recorded nor said ({shape})")


def _said(softmax: Softmax, unseen: dict[str, str]) -> str:
    """Why the module of a softmax, a part of it or one that it is a part of is unseen."""
    inner = softmax.modules[0] if softmax.modules else ""
    for name, reason in unseen.items():
        if name == inner or (name and inner.startswith(f"{name}.")) or name.startswith(f"{inner}."):
            return reason
    return ""


def _match(softmax: Softmax, records: list[Recorded]) -> tuple[Recorded, float, int] | None:
    """The record of a softmax: of the innermost module that has one, the first that agrees."""
    for name in softmax.modules:
        best: tuple[Recorded, float, int] | None = None
        for record in records:
            if record.name != name or record.is_matched or record.weights is None:
                continue
            if record.weights.numel() != softmax.weights.numel():
                continue
            error, empty_rows = _distance(record.weights, softmax.weights, softmax.hidden)
            if error > TOLERANCE and softmax.factor is not None:
                scaled = softmax.weights * softmax.factor
                error, empty_rows = min(
                    (error, empty_rows), _distance(record.weights, scaled, softmax.hidden)
                )
            if best is None or error < best[1]:
                best = record, error, empty_rows
            if error <= TOLERANCE:
                break
        if best is not None:
            return best
    return None


def _match_blocks(
    truth: list[Softmax],
    records: list[Recorded],
    findings: list[Finding | None],
    unseen: dict[str, str],
) -> None:
    """What one side has in one piece and the other in blocks: the same numbers in another order."""
    for name in dict.fromkeys(record.name for record in records if not record.is_matched):
        mine = [x for x in records if x.name == name and not x.is_matched and x.weights is not None]
        theirs = [at for at, x in enumerate(truth) if findings[at] is None and name in x.modules]
        if not mine or not theirs:
            continue
        shown = _in_order([x.weights for x in mine if x.weights is not None])
        used = _in_order([truth[at].weights for at in theirs])
        nudged = _in_order([truth[at].nudged_weights for at in theirs])
        length = max(len(shown), len(used))
        shown, used, nudged = (_longer(x, length) for x in (shown, used, nudged[:length]))
        error, shows = (float((shown - x).abs().max()) for x in (used, nudged))
        for record in mine:
            record.is_matched = True
        for at in theirs:
            finding = _judged(truth[at], mine[0], error, 0, unseen)
            finding.shows = shows > TOLERANCE
            findings[at] = finding


def _in_order(tensors: list[Tensor]) -> Tensor:
    """All numbers, the largest first; zeros hide keys, and blocks have fewer of them."""
    numbers = torch.cat([tensor.flatten() for tensor in tensors])
    return numbers[numbers != 0].sort(descending=True).values


def _longer(numbers: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(numbers, (0, length - len(numbers)))


def _shapes(softmax: Softmax, record: Recorded) -> str:
    shapes = (softmax.weights.shape, () if record.weights is None else record.weights.shape)
    return " and ".join(" × ".join(map(str, shape)) for shape in shapes)


def _distance(ours: Tensor | None, theirs: Tensor, hidden: Tensor) -> tuple[float, int]:
    """The largest error outside of rows that see nothing, and how many of those rows differ.

    Axes before the last may be folded together or stand in another order.
    """
    assert ours is not None
    if ours.shape[-1] != theirs.shape[-1]:
        one, other = _in_order([ours]), _in_order([theirs])
        length = max(len(one), len(other))
        return float((_longer(one, length) - _longer(other, length)).abs().max()), 0
    best = inf, 0
    outer = ours.shape[:-1]
    for order in permutations(range(theirs.ndim - 1)):
        moved = theirs.permute(*order, theirs.ndim - 1)
        if prod(moved.shape[:-1]) != prod(outer):
            continue
        rows = (ours - moved.reshape(ours.shape)).abs().nan_to_num(inf).amax(-1)
        empty = hidden.permute(order).reshape(outer)
        error = float(rows.masked_fill(empty, 0.0).max()) if rows.numel() else 0.0
        if error < best[0]:
            best = error, int((rows[empty] > TOLERANCE).sum())
        if error <= TOLERANCE:
            break
    return best
