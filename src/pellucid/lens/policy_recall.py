"""eviction_recall(): how much of the future attention the keys that policies keep will receive."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from pellucid.attention import indexing
from pellucid.errors import ArgumentError, PellucidError, ShapeError, TypeMismatchError
from pellucid.lens.eviction import (
    expected_attention_scores,
    h2o_scores,
    snapkv_scores,
    streaming_llm_scores,
)
from pellucid.lens.future_attention import future_mass
from pellucid.lens.layer_labels import label_layers
from pellucid.lens.past_record import past_record
from pellucid.lens.recall_table import RecallRow, RecallTable
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording

__all__ = ["BEST", "KeepRecent", "eviction_policies", "eviction_recall"]

Policy = Callable[[Record], Tensor]
BEST = "best possible"
"""The policy that knows the future."""


@dataclass(frozen=True)
class KeepRecent:
    """A policy that gives a share of its budget to the latest keys, and the rest by scores."""

    scores: Policy
    share: float = 0.5

    def __call__(self, past: Record) -> Tensor:
        return self.scores(past)


def eviction_policies(frequencies: Tensor | None = None) -> dict[str, Policy]:
    """The policies of the papers, by name, each with its authors' settings.

    SnapKV keeps a window of 32 keys; H2O gives half of its budget to the latest keys; StreamingLLM
    and expected attention keep 4 sinks.

    Args:
        frequencies: as for `expected_attention_scores`; of a Llama of transformers, its
            `model.rotary_emb.inv_freq`.
    """
    return {
        "StreamingLLM": streaming_llm_scores,
        "H2O": KeepRecent(h2o_scores),
        "SnapKV": snapkv_scores,
        "expected attention": lambda past: expected_attention_scores(past, frequencies),
    }


def eviction_recall(
    seen: Recording | Record | Iterable[Record],
    policies: Mapping[str, Policy] | None = None,
    *,
    steps: int | Sequence[int],
    budgets: float | Sequence[float] = (0.1, 0.25, 0.5),
    progress: Callable[[int, int], None] | None = None,
) -> RecallTable:
    """How much of the attention that is still to come goes to the keys that a policy keeps.

        recall = sum of future_mass over the keys kept / that over all keys so far

    At each step a policy sees the record as it was then, without any later token, and scores the
    keys; those with the highest scores stay, as many as the budget allows, and the later of two
    equal ones. Recall is that of each key head, whose future mass is the mean over its group of
    query heads. The row "best possible" keeps the keys with the largest future mass: no policy that
    evicts once can do better. Compare a policy also with `kept` / step, the expectation of keys
    drawn at random if all received the same.

    This is eviction once, after a step, as of a prompt; a key that is evicted takes no attention
    from the rest here, and does not change what later layers compute.

    Args:
        seen: a recording, a record, or several records, of causal attention; expected attention
            needs `pellucid.watch(model, values=True)`.
        policies: by name: functions from a record to scores (..., kv_heads, keys), infinite for
            keys that always stay. If there are fewer scores than keys, the latest keys, which have
            none, always stay, as with `snapkv_scores`. A `KeepRecent` also reserves a share of the
            budget for the latest. Those of `eviction_policies` unless given.
        steps: tokens read when keys are evicted, as for `future_mass`; one or several.
        budgets: keys that stay, at each step: ints are numbers of keys, floats shares of the keys
            so far.
        progress: called after each module with the number of modules done and the total.

    Raises:
        ArgumentError: a budget is not above 0, an attention is not causal, or a policy refuses the
            record, as `snapkv_scores` does where its window is all there is.
        ShapeError: scores of another shape.
        OutOfRangeError: a step with no query after it or before it.
        TypeMismatchError: an argument of another type.
    """
    seen = as_recording(seen)
    chosen = dict(eviction_policies() if policies is None else policies)
    if BEST in chosen:
        raise ArgumentError(f"a policy cannot be called '{BEST}', as the one that is compared with")
    for name, policy in chosen.items():
        if not callable(policy):
            raise TypeMismatchError(f"policy '{name}' must be a function, got {policy!r}")
    at = indexing.as_positions("steps", steps).flatten().tolist()
    allowed = [budgets] if isinstance(budgets, int | float) else list(budgets)
    for budget in allowed:
        if isinstance(budget, bool) or not isinstance(budget, int | float):
            raise TypeMismatchError(f"budgets must be numbers, got {budget!r}")
        if not budget > 0 or (isinstance(budget, float) and budget > 1):
            raise ArgumentError(
                "a budget must be a number of keys, an int, or a share of them, a float up to 1.0; "
                f"got {budget}"
            )
    rows: list[RecallRow] = []
    records = seen.latest()
    for done, (label, record) in enumerate(zip(label_layers(records), records, strict=True), 1):
        with torch.no_grad():
            masses = future_mass(record, at)
            for step, mass in zip(at, masses, strict=True):
                rows += _rows(record, label, step, mass[..., :step], chosen, allowed)
        if progress is not None:
            progress(done, len(records))
    return RecallTable(rows)


def _rows(
    record: Record,
    label: tuple[str, int],
    step: int,
    mass: Tensor,
    policies: Mapping[str, Policy],
    budgets: Sequence[float],
) -> list[RecallRow]:
    past = past_record(record, step)
    kv_heads = past.weights.kv_heads
    mass = mass.double().unflatten(-2, (kv_heads, -1)).mean(-2)
    ranked: dict[str, tuple[Tensor, float]] = {}
    for name, policy in policies.items():
        try:
            given = policy(past)
        except PellucidError as error:
            raise ArgumentError(f"policy '{name}' after {step} tokens: {error}") from error
        scores = _checked(name, given, mass.shape)
        ranked[name] = scores, policy.share if isinstance(policy, KeepRecent) else 0.0
    ranked[BEST] = mass, 0.0
    rows = []
    for (name, (scores, share)), budget in product(ranked.items(), budgets):
        kept = _number_of_keys(budget, step)
        recalls = _recall(mass, scores, kept, int(share * kept))
        rows += [
            RecallRow(
                policy=name,
                step=step,
                budget=budget,
                kept=kept,
                layer=label[1],
                head=head,
                name=record.name,
                stack=label[0],
                recall=recall,
            )
            for head, recall in enumerate(recalls.tolist())
        ]
    return rows


def _recall(mass: Tensor, scores: Tensor, kept: int, recent: int) -> Tensor:
    """(kv_heads,) the mean over the batch; NaN where nothing is to come."""
    if recent:
        scores = scores.clone()
        scores[..., scores.shape[-1] - recent :] = torch.inf
    # The later of two equal keys first: a stable sort of the keys from the last to the first.
    best = scores.flip(-1).sort(dim=-1, descending=True, stable=True).indices[..., :kept]
    share = mass.flip(-1).gather(-1, best).sum(-1) / mass.sum(-1)
    return share.reshape(-1, share.shape[-1]).nanmean(0)


def _checked(name: str, scores: Tensor, shape: torch.Size) -> Tensor:
    """Scores of all keys: those of the latest, if there are fewer scores, are infinite."""
    if not isinstance(scores, Tensor):
        raise TypeMismatchError(
            f"policy '{name}' must return a tensor, got {type(scores).__name__}"
        )
    missing = shape[-1] - scores.shape[-1] if scores.ndim else -1
    if scores.shape[:-1] != shape[:-1] or missing < 0:
        raise ShapeError(
            f"policy '{name}' must return scores of shape (..., kv_heads, keys) = {tuple(shape)}, "
            f"got {tuple(scores.shape)}"
        )
    scores = scores.detach().to(torch.float64).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    return torch.nn.functional.pad(scores, (0, missing), value=torch.inf)


def _number_of_keys(budget: float, keys: int) -> int:
    return math.ceil(budget * keys) if isinstance(budget, float) else min(int(budget), keys)
