"""One family: its classes are built, run, and watched."""

import math
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import transformers
import transformers.modeling_utils
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import pellucid
from benchmarks.families import catalogue, comparing, overrides
from benchmarks.families.building import Built, NotBuiltError, built
from benchmarks.families.comparing import DIFFERENT, NONE, NOT_BUILT, Comparison
from benchmarks.families.truth import Softmax, weights_of

MOST_REASONS = 4


@dataclass
class Outcome:
    """What became of one class in one implementation of attention."""

    family: str
    kind: str
    implementation: str
    verdict: str
    softmaxes: int = 0
    lazily: int = 0
    """Softmaxes that are recorded exactly, their weights worked out when asked for."""
    stored: int = 0
    """Softmaxes that are recorded exactly, their weights kept as such."""
    said: int = 0
    silent: int = 0
    different: int = 0
    error: float = 0.0
    empty_rows: int = 0
    blind: int = 0
    """Softmaxes for which a scale that is off by a thousandth would not have shown."""
    extra: int = 0
    sharpness: float = 0.0
    """The mean of the largest weight of a row over what it is where all are equal."""
    seconds: float = 0.0
    inputs: list[str] = field(default_factory=list)
    left_out: str = ""
    """Why it was not given all that it may be given."""
    reasons: list[str] = field(default_factory=list)


class Coverage:
    """Which kinds of attention of a family have run, so that none runs twice for nothing."""

    def __init__(self) -> None:
        self.ran: set[str] = set()
        self._tried: set[tuple[Any, frozenset[str]]] = set()

    def wants(self, kind: Any, model: nn.Module) -> bool:
        """Whether a model has attention that has not run, and was not tried in vain."""
        missing = frozenset(catalogue.attention_kinds(model) - self.ran)
        is_new = (kind.config_class, missing) not in self._tried
        self._tried.add((kind.config_class, missing))
        return is_new and (bool(missing) or len(self._tried) == 1)


def examined(family: str) -> Iterator[dict[str, Any]]:
    """What became of each class of a family that has an attention of its own."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    try:
        kinds = catalogue.classes(family)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        yield asdict(Outcome(family, "", "", NOT_BUILT, reasons=[reason]))
        return
    coverage = Coverage()
    failed: list[tuple[set[str], Outcome]] = []
    has_run = False
    for kind in kinds:
        start = time.perf_counter()
        alike: set[str] = set()

        def is_wanted(model: nn.Module, kind: Any = kind, alike: set[str] = alike) -> bool:
            alike |= catalogue.attention_kinds(model)
            return coverage.wants(kind, model)

        try:
            model = built(kind, is_wanted)
        except NotBuiltError as error:
            outcome = Outcome(family, kind.__name__, "", NOT_BUILT, reasons=[str(error)])
            failed.append((alike, outcome))
            continue
        if model is None:
            continue
        has_run = True
        coverage.ran |= catalogue.running_kinds(model.model, model.run)
        for outcome in (*_outcomes(family, model), *_in_another_setting(family, kind)):
            outcome.seconds = round(time.perf_counter() - start, 2)
            yield asdict(outcome)
            start = time.perf_counter()
    for alike, outcome in failed:
        if not alike <= coverage.ran or not has_run:
            yield asdict(outcome)
            coverage.ran |= alike
            has_run = True


def _in_another_setting(family: str, kind: Any) -> Iterator[Outcome]:
    if kind.config_class.model_type in overrides.VARIANTS:
        name, settings = overrides.VARIANTS[kind.config_class.model_type]
        model = built(kind, lambda model: True, settings)
        assert model is not None
        for outcome in _outcomes(family, model):
            outcome.kind = f"{kind.__name__}, {name}"
            yield outcome


def _outcomes(family: str, model: Built) -> Iterator[Outcome]:
    truth = weights_of(model.model, model.run)
    yield _watched(family, model, "eager", truth)
    other = model.otherwise()
    name = _implementation(other.model)
    if name != "eager":
        yield _watched(family, other, name, truth)


def _implementation(model: nn.Module) -> str:
    names = {
        part.config._attn_implementation
        for part in model.modules()
        if isinstance(part, transformers.PreTrainedModel)
    }
    return next(iter(sorted(name for name in names if name and name != "eager")), "eager")


def _watched(family: str, model: Built, implementation: str, truth: list[Softmax]) -> Outcome:
    outcome = Outcome(family, model.kind.__name__, implementation, NONE)
    outcome.inputs, outcome.left_out = sorted(model.inputs), model.left_out
    try:
        plain = model.run()
        with pellucid.watch(model.model) as seen:
            output = model.run()
        records = comparing.recorded(seen)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome.verdict = DIFFERENT
        outcome.reasons = [f"watching failed: {type(error).__name__}: {error} ({where.name})"]
        return outcome
    unseen = dict(seen.unseen)
    found = comparing.compared(truth, records, unseen)
    if implementation != "eager" and found.count(DIFFERENT):
        # Rows that see nothing differ among implementations, and so does what is made of them.
        own = weights_of(model.model, model.run)
        records = comparing.recorded(seen)
        beside = comparing.compared(own, records, unseen)
        if beside.count(DIFFERENT) < found.count(DIFFERENT):
            found, truth = beside, own
    _tell(outcome, found, truth)
    if not _alike(plain, output):
        outcome.verdict = DIFFERENT
        outcome.reasons.insert(0, "watching changed what the model returns")
    return outcome


def _tell(outcome: Outcome, found: Comparison, truth: list[Softmax]) -> None:
    outcome.verdict = found.verdict
    outcome.softmaxes = len(found.findings)
    exact = [finding for finding in found.findings if finding.verdict == comparing.EXACT]
    outcome.stored = sum(finding.kept == "weights" for finding in exact)
    outcome.lazily = len(exact) - outcome.stored
    outcome.said = found.count(comparing.SAID)
    outcome.silent = found.count(comparing.SILENT)
    outcome.different = found.count(DIFFERENT)
    outcome.error = found.error
    outcome.empty_rows = sum(finding.empty_rows for finding in exact)
    outcome.blind = sum(not finding.shows for finding in exact)
    outcome.extra = found.extra
    outcome.sharpness = _sharpness(truth)
    reasons = Counter(
        f"{finding.verdict}: {finding.module}: {finding.reason}"
        for finding in found.findings
        if finding.reason
    )
    outcome.reasons = [
        reason if count == 1 else f"{reason} ({count} times)"
        for reason, count in reasons.most_common(MOST_REASONS)
    ]
    if len(reasons) > MOST_REASONS:
        outcome.reasons.append(f"and {len(reasons) - MOST_REASONS} more")


def _sharpness(truth: list[Softmax]) -> float:
    largest = [
        (softmax.result.amax(-1) * softmax.result.shape[-1])[~softmax.hidden].flatten()
        for softmax in truth
    ]
    numbers = torch.cat(largest) if largest else torch.zeros(0)
    return float(numbers.mean()) if numbers.numel() else math.nan


def _alike(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(
        torch.allclose(x, y, atol=1e-5, rtol=1e-4, equal_nan=True)
        for x, y in pairs
        if isinstance(x, Tensor) and x.is_floating_point() and x.shape == y.shape
    )
