"""What a model does without some of its heads, beside what it does without random ones."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

import torch
from torch import nn

from pellucid.lens.interventions import intervene
from pellucid.lens.probes.experiments import Experiment
from pellucid.lens.probes.scores import Place, run

TOKENS = 2048
"""About how many tokens are read at a time: the texts of several knock-outs are one batch."""


def behaviours_without(
    model: nn.Module,
    experiment: Experiment,
    groups: Sequence[Sequence[Place]],
    *,
    knocked_out: str,
    by: Literal["mean", "zero"],
    device: torch.device,
    progress: Callable[[int], None],
) -> list[float]:
    """The model's behaviour without each group of heads.

    Args:
        model: a decoder.
        experiment: what it reads.
        groups: the heads that are knocked out together.
        knocked_out: "output" of the heads, or their links to the "first token", whose weight the
            other links get.
        by: what an output is replaced by, "mean" (of the queries of its text) or "zero".
        device: of the model.
        progress: called with the number of groups that are done.
    """
    largest = max(trial.ids.numel() for trial in experiment.trials)
    step = max(1, TOKENS // largest)
    found: list[float] = []
    for start in range(0, len(groups), step):
        some = groups[start : start + step]
        values: list[list[torch.Tensor]] = [[] for _ in some]
        for trial in experiment.trials:
            texts = len(trial.ids)
            with intervene(model) as edit:
                for number, group in enumerate(some):
                    items = list(range(number * texts, (number + 1) * texts))
                    for name, heads in _by_module(group).items():
                        if knocked_out == "output":
                            edit.knock_out(name, heads, items=items, by=by)
                        else:
                            edit.knock_out(name, heads, slice(1, None), [0], items=items)
                logits = run(model, trial.ids.to(device).repeat(len(some), 1))
            for value, part in zip(values, logits.split(texts), strict=True):
                value.append(trial.behaviour(part).cpu())
        found += [float(torch.cat(value).mean()) for value in values]
        progress(len(found))
    return found


def _by_module(group: Sequence[Place]) -> dict[str, list[int]]:
    heads = defaultdict(list)
    for place in group:
        heads[place.name].append(place.head)
    return dict(heads)


def alike(group: Sequence[Place], heads: Sequence[Place], random: Random) -> list[Place]:
    """Random heads, as many of each layer; where it has too few, those of any other layer.

    Args:
        group: the heads to replace.
        heads: those to choose from, none of the group.
        random: makes the choice.
    """
    chosen: list[Place] = []
    for place in group:
        free = [one for one in heads if one not in chosen]
        same = [one for one in free if one.name == place.name]
        if same or free:
            chosen.append(random.choice(same or free))
    return chosen
