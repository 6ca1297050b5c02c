"""probe_heads(): what heads do on texts made for the purpose, and whether it matters."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from pellucid.errors import ArgumentError, TypeMismatchError, UnknownNameError
from pellucid.lens.probes.checking import LEAST, Checker, Effect, Progress
from pellucid.lens.probes.probe_table import (
    LOOKS,
    Check,
    ProbeRow,
    ProbeTable,
)
from pellucid.lens.probes.registry import PROBES, SETTINGS, Probe, Sizes
from pellucid.lens.probes.scores import Place, Scored, run, scored
from pellucid.lens.probes.vocabulary import Vocabulary

LENGTH = 128
"""How many tokens texts have at the most, unless more or fewer are asked for."""
TEXTS, MOST = 2, 4


def probe_heads(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    probes: Iterable[str] | None = None,
    length: int = LENGTH,
    texts: int = TEXTS,
    seed: int = 0,
    check: bool = True,
    most: int = MOST,
    controls: int = LEAST,
    by: Literal["mean", "zero"] = "mean",
    progress: Progress | None = None,
) -> ProbeTable:
    """Give heads the names that they earn: by where they look, and by what goes without them.

    Each probe reads texts that are made for it, and scores every head:

    - "previous token" (Elhage et al. 2021), "duplicates" (Wang et al. 2023) and "induction" (Olsson
      et al. 2022) on random tokens that are repeated, where nothing but the repetition tells what
      comes next;
    - "retrieval" (Wu et al. 2024) on a needle, a sentence that answers a question, in a haystack;
    - "name mover" and "S-inhibition" (Wang et al. 2023) on sentences with names in two places;
    - "first token", an attention sink (Xiao et al. 2024), on an ordinary text.

    The score of a head is its mean weight on the links that such a head has; for retrieval, the
    share of links that have the largest weight of their row. The baseline is the same in texts that
    are alike but for the pattern; for the previous and the first token, which every text has, it is
    what a head has that looks at all that it sees alike.

    A score is high from 0.4 (0.1 for retrieval) if it is above its baseline by half of that. Up to
    `most` heads of each probe, those with the highest of these scores, are then knocked out, each
    alone and all together, and so are random heads: for one head, `controls` others of any layer;
    for all together, up to `controls` draws of as many others of each layer. No random head is one
    that looks like another probe of the same texts, which may matter for the same behaviour. A head
    earns its name if more of the behaviour goes without it than without 95 % of the random heads
    (in a permutation test: than without all of 19). The behaviour is the log-probability of the
    repeated tokens, of the needle's words, or of the text, or how far the right name's logit is
    above the other's. A head that looks at the first token loses its links to it, not its output.
    What a model does not do (with the pattern not clearly better than without: two standard errors)
    is not checked.

    Not from the papers: texts of Pellucid's own, the answer given token by token in place of a
    generation, and a mean over the text's own queries in place of an output that is knocked out.

    Args:
        model: a decoder: of ids (items, tokens) it makes logits, as a Tensor or as `.logits`.
        tokenizer: of Pellucid or of transformers. Without one there are no needle and no names.
        probes: their names; None is all.
        length: the most tokens of a text.
        texts: the number of texts; for names, of pairs of names for each of four sentences.
        seed: of random tokens, words and heads.
        check: whether to knock out heads.
        most: the most heads of each probe that are knocked out.
        controls: the number of random heads, and of draws; at least 19, so that 95 % can be beaten.
        by: what the output of a head is replaced by, "mean" (of the queries of its text) or "zero".
        progress: called with the name of a step, its progress and its total.

    Raises:
        ArgumentError: the model is no decoder or is in training mode, or a number is too small;
            or a probe that was asked for cannot be run, or none can: the message says why.
        UnknownNameError: there is no such probe; the message lists them.
        TypeMismatchError: model is not a torch.nn.Module, or the tokenizer makes no ids.
    """
    if not isinstance(model, nn.Module):
        raise TypeMismatchError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if model.training:
        raise ArgumentError("the model is in training mode; call model.eval() first")
    chosen = check_options(probes, length=length, texts=texts, most=most, controls=controls)
    step = progress or (lambda name, done, of: None)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    vocabulary = Vocabulary(_size(model, device), tokenizer)
    sizes = Sizes(length=length, texts=texts, seed=seed)
    rows: list[ProbeRow] = []
    checks: list[Check] = []
    skipped: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        here = [probe for probe in chosen if probe.setting == name]
        if not here:
            continue
        try:
            if setting.needs_tokenizer and tokenizer is None:
                raise ArgumentError("it needs a tokenizer")
            experiment = setting.make(vocabulary, sizes)
        except ArgumentError as error:
            if probes is not None:
                raise ArgumentError(f"cannot probe for {here[0].name}: {error}") from error
            skipped |= dict.fromkeys((probe.name for probe in here), str(error))
            continue
        step(f"reading: {name}", 0, 1)
        all_here = [probe for probe in PROBES.values() if probe.setting == name]
        measures = {probe.name: probe.measure for probe in all_here}
        outcome = scored(model, experiment, measures, device)
        checker = Checker(model, experiment, outcome, setting.knocked_out, by, device, seed)
        looking = {probe.name: _looking(probe, outcome) for probe in all_here}
        for probe in here:
            heads = looking[probe.name][: most if check else 0]
            others = {
                place
                for other, heads_of in looking.items()
                if other != probe.name
                for place in heads_of
            }
            effects, made = checker.check(probe.name, heads, others, controls, step)
            rows += _rows(probe, outcome, effects)
            checks.append(made)
    if not rows:
        raise ArgumentError(f"no probe can be run: {'; '.join(dict.fromkeys(skipped.values()))}")
    return ProbeTable(rows, checks, skipped)


def check_options(
    probes: Iterable[str] | None = None,
    *,
    length: int = LENGTH,
    texts: int = TEXTS,
    most: int = MOST,
    controls: int = LEAST,
) -> list[Probe]:
    """The probes that are asked for; arguments and errors as for `probe_heads`."""
    for name, value, least in (
        ("length", length, 8),
        ("texts", texts, 1),
        ("most", most, 1),
        ("controls", controls, LEAST),
    ):
        if value < least:
            why = ": fewer cannot show that a head beats 95 % of them" if name == "controls" else ""
            raise ArgumentError(f"{name} must be {least} or more{why}, got {value}")
    names = list(PROBES) if probes is None else [probes] if isinstance(probes, str) else [*probes]
    for name in names:
        if name not in PROBES:
            raise UnknownNameError(f"no probe is called '{name}': {', '.join(PROBES)}")
    return [probe for name, probe in PROBES.items() if name in names]


def _size(model: nn.Module, device: torch.device) -> int:
    """The size of a decoder's vocabulary; refuses a model whose tokens see later ones."""
    logits = run(model, torch.tensor([[0, 0], [0, 1]], device=device)).float()
    first, second = logits[:, 0]
    if not torch.allclose(first, second, atol=1e-3 * float(first.abs().max()) + 1e-6):
        raise ArgumentError(
            f"model must be a decoder, whose tokens see none that follow; {type(model).__name__} "
            "is not"
        )
    return logits.shape[-1]


def _looking(probe: Probe, outcome: Scored) -> list[Place]:
    """The heads that look like it, from the highest score."""
    own, baselines = outcome.scores[probe.name], outcome.baselines[probe.name]
    looking = [
        place
        for place, score in own.items()
        if score >= probe.clear and score - baselines[place] >= probe.clear / 2
    ]
    return sorted(looking, key=lambda place: -own[place])


def _rows(probe: Probe, outcome: Scored, effects: dict[Place, Effect]) -> list[ProbeRow]:
    looking = set(_looking(probe, outcome))
    rows = []
    for place, score in outcome.scores[probe.name].items():
        untried = Effect(math.nan, math.nan, 0, LOOKS if place in looking else "")
        effect = effects.get(place, untried)
        rows.append(
            ProbeRow(
                probe=probe.name,
                layer=place.layer,
                head=place.head,
                name=place.name,
                stack=place.stack,
                score=score,
                baseline=outcome.baselines[probe.name][place],
                effect=effect.amount,
                beats=effect.beats,
                random=effect.random,
                verdict=effect.verdict,
            )
        )
    return rows
