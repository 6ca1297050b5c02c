"""What a model does without some of its heads, beside what it does without random ones."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from random import Random
from typing import Any, Literal

import torch
from torch import nn

from pellucid.lens.interventions import intervene
from pellucid.lens.probes.experiments import Experiment
from pellucid.lens.probes.scores import Place
from pellucid.lens.replays import Replay, tensor_of

TOKENS = 1024
"""About how many are read at a time: several knock-outs are a batch, which begins where the first
of them does.
"""


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
    modules = [list(_by_module(group)) for group in groups]
    attending = list(dict.fromkeys(name for names in modules for name in names))
    texts = [(trial, item) for trial in experiment.trials for item in range(len(trial.ids))]
    behaviours: list[list[torch.Tensor]] = [[] for _ in groups]
    for text, (trial, item) in enumerate(texts):
        replay = _replay(model, trial.ids[item].to(device), attending)
        # Blocks before the first one with an edit do not run again.
        firsts = [replay.first(names) for names in modules]
        order = sorted(range(len(groups)), key=lambda number: firsts[number])
        step = max(1, TOKENS // trial.ids.shape[1])
        for start in range(0, len(groups), step):
            some = order[start : start + step]
            with intervene(model) as edit:
                for place, number in enumerate(some):
                    for name, heads in _by_module(groups[number]).items():
                        if knocked_out == "output":
                            edit.knock_out(name, heads, items=place, by=by)
                        else:
                            edit.knock_out(name, heads, slice(1, None), [0], items=place)
                positions = trial.positions(item).to(device)
                ends = _ends(replay, firsts[some[0]], len(some), positions)
            for number, rows in zip(some, ends, strict=True):
                behaviours[number].append(trial.behaviour_of(item, rows).cpu())
            progress((text * len(groups) + start + len(some)) // len(texts))
    return [float(torch.cat(value).mean()) for value in behaviours]


def _replay(model: nn.Module, ids: torch.Tensor, attending: Sequence[str]) -> Replay:
    """A model that reads one text, (tokens,)."""
    keeps_keys = "use_cache" in signature(model.forward).parameters
    options = {"use_cache": False} if keeps_keys else {}  # as no tokens follow

    def read(items: int) -> Any:
        with torch.no_grad():
            return model(ids.repeat(items, 1), **options)

    return Replay(model, read, attending)


def _ends(
    replay: Replay, start: int, items: int, positions: torch.Tensor
) -> Iterator[torch.Tensor]:
    """(positions, vocabulary) for each item: its logits, of a run from a block on."""
    if not replay.ends_alone:
        return iter(tensor_of(replay.through(start, items))[:, positions])
    hidden = replay.last_block(start, items)[:, positions]
    return (tensor_of(replay.end(row))[0] for row in hidden.split(1))


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
        free = [head for head in heads if head not in chosen]
        same = [head for head in free if head.name == place.name]
        if same or free:
            chosen.append(random.choice(same or free))
    return chosen
