"""The scores of heads: their weights at the links of an experiment, beside the baseline."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError
from pellucid.lens.layer_labels import label_layers
from pellucid.lens.probes.experiments import Experiment, Trial
from pellucid.lens.record import Record
from pellucid.lens.recorder import watch

Measure = Callable[[Record, Tensor], Tensor]
"""Of a record and (links, 3) items, queries and keys: (links, heads)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a head is."""

    stack: str
    layer: int
    name: str
    """The name of the module."""
    head: int


def weight(record: Record, links: Tensor) -> Tensor:
    """The weight of each link."""
    item, query, key = links.to(record.weights.device).unbind(-1)
    return _picked(record, item, query, key)


def is_largest(record: Record, links: Tensor) -> Tensor:
    """1 where a link has the largest weight of its row, else 0."""
    item, query, key = links.to(record.weights.device).unbind(-1)
    rows = _picked(record, item, query)  # (links, heads, keys)
    return (rows.argmax(-1) == key[:, None]).to(rows.dtype)


def even(record: Record, links: Tensor) -> Tensor:
    """The weight of each link if its query looked at all that it sees alike."""
    visible = record.weights.visible()
    visible = visible.reshape(-1, *visible.shape[-2:])
    item, query, _ = links.to(visible.device).unbind(-1)
    return 1 / visible[item, :, query].clamp(min=1).double()


def _picked(record: Record, item: Tensor, query: Tensor, key: Tensor | None = None) -> Tensor:
    weights = record.weights
    outer = weights.shape[:-3]
    items = torch.unravel_index(item, outer) if outer else ()
    keys = slice(None) if key is None else key
    picked = weights[(*items, slice(None), query, keys)]
    return picked if outer else picked.movedim(0, 1)


def run(model: nn.Module, ids: Tensor) -> Tensor:
    """(items, tokens, vocabulary): the logits of a decoder, without gradients.

    Raises:
        ArgumentError: the model gives something else.
    """
    with torch.no_grad():
        output: Any = model(ids)
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.shape[:-1] != ids.shape:
        raise ArgumentError(
            "model must be a decoder: of ids (items, tokens) it must make logits (items, tokens, "
            f"vocabulary), as a Tensor or as `.logits`; {type(model).__name__} does not"
        )
    return logits


@dataclass(frozen=True, slots=True)
class Scored:
    """What an experiment gives."""

    scores: dict[str, dict[Place, float]]
    """By probe and head: the mean over the links."""
    baselines: dict[str, dict[Place, float]]
    """The same without the pattern; or if each query looked at all that it sees alike."""
    behaviour: float
    """The mean over the predictions."""
    absent: float
    """The same without the pattern; NaN if no text is without."""
    is_there: bool
    """Whether the first is above the second by two standard errors; True if no text is without."""


def scored(
    model: nn.Module, experiment: Experiment, measures: dict[str, Measure], device: torch.device
) -> Scored:
    """The scores of all heads in an experiment, their baselines, and the model's behaviour.

    Args:
        model: a decoder.
        experiment: what it reads.
        measures: by probe: what is measured of its links.
        device: of the model.
    """
    measured = {(probe, ""): (probe, measure) for probe, measure in measures.items()}
    evenly = {probe for probe in measures if probe in experiment.in_every_text}
    measured |= {(probe, "even"): (probe, even) for probe in evenly}
    scores, values = _means(model, experiment.trials, measured, device)
    baselines = {probe: scores.pop((probe, "even")) for probe in evenly}
    absent, is_there = math.nan, True
    if experiment.controls:
        others = {key: entry for key, entry in measured.items() if key[0] not in evenly}
        without, absents = _means(model, experiment.controls, others, device)
        baselines |= {probe: by_place for (probe, _), by_place in without.items()}
        above = values - absents
        error = float(above.std()) / math.sqrt(len(above)) if len(above) > 1 else math.inf
        absent, is_there = float(absents.mean()), float(above.mean()) > 2 * error
    own = {probe: by_place for (probe, _), by_place in scores.items()}
    return Scored(own, baselines, float(values.mean()), absent, is_there)


def _means(
    model: nn.Module,
    trials: Sequence[Trial],
    measured: dict[tuple[str, str], tuple[str, Measure]],
    device: torch.device,
) -> tuple[dict[tuple[str, str], dict[Place, float]], Tensor]:
    """By key of `measured` and head: the mean of a measure over a probe's links.

    And the model's behaviour at each prediction.
    """
    sums: dict[tuple[str, str], Counter[Place]] = {key: Counter() for key in measured}
    values: list[Tensor] = []
    for trial in trials:
        with watch(model) as seen:
            logits = run(model, trial.ids.to(device))
        values.append(trial.behaviour(logits).cpu())
        records = [record for record in seen.latest() if not record.is_cross]
        if not records:
            raise ArgumentError(f"{type(model).__name__} made no attention that can be recorded")
        with torch.no_grad():
            for (stack, layer), record in zip(label_layers(records), records, strict=True):
                for key, (probe, measure) in measured.items():
                    total = measure(record, trial.links[probe]).double().sum(0).tolist()
                    for head, value in enumerate(total):
                        sums[key][Place(stack, layer, record.name, head)] += value
    means = {}
    for key, (probe, _) in measured.items():
        count = sum(len(trial.links[probe]) for trial in trials)
        means[key] = {place: total / count for place, total in sums[key].items()}
    return means, torch.cat(values)
