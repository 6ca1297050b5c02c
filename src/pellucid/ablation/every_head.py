"""Every head knocked out in turn, and random heads for those that matter most."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from pellucid.ablation.controls import seed_of, turned
from pellucid.ablation.effects import Ablation, About, HeadEffect, compared, shares_below
from pellucid.ablation.journal import FINGERPRINT, Journal, check_journal
from pellucid.ablation.knock_outs import By, Edit, giving
from pellucid.ablation.measures import MEASURES
from pellucid.ablation.trial import Figures, Subject, Trial
from pellucid.errors import ArgumentError
from pellucid.lens.head_measures import heads
from pellucid.lens.head_table import HeadRow, HeadTable
from pellucid.lens.layer_selection import Layers
from pellucid.lens.projection import output_projection
from pellucid.lens.record import Record
from pellucid.lens.recorder import watch
from pellucid.lens.recording import Recording

CONTROLS = 20
"""Random heads for each of the heads that matter most: of 20, none may do as much at 95%."""
TOP = 10

Step = Callable[[str, int, int], None]


def knock_out_heads(
    subject: Subject,
    *,
    by: By = "zero",
    layers: Layers | None = None,
    controls: int = CONTROLS,
    top: int = TOP,
    seed: int = 0,
    resume: Path | None = None,
    begun: Callable[[int], None] = lambda done: None,
    step: Step = lambda name, done, of: None,
) -> Ablation:
    """Every head of a model; arguments as of `ablate`.

    Args:
        subject: the model, its input and the measure.
        begun: called with the number of figures that the file to resume has.
        step: called with the name of the step, its progress and its total.
    """
    check(subject, by, controls)
    if top < 0:
        raise ArgumentError(f"top must be 0 or more, not {top}")
    if resume is not None:
        check_journal(resume)
    step("reading the text", 0, 1)
    table = heads_of(subject, layers)
    names = list(dict.fromkeys(row.name for row in table))
    if controls and top:  # what would be missed after all the work
        output_projection(subject.model, names[0])
    measure = subject.measure
    trial = Trial(subject, names)
    journal = Journal(
        resume,
        {
            "measure": measure.name,
            "by": by,
            "seed": seed,
            "tokens": subject.tokens,
            FINGERPRINT: trial.fingerprint(),
        },
    )
    if journal.resumed:
        begun(journal.resumed)
    all_figures = _knocked_out(trial, table, by, journal, step)
    name = measure.name
    above = shares_below([figures[name] for figures in all_figures])
    rows = [
        HeadEffect(
            layer=row.layer,
            head=row.head,
            name=row.name,
            role=row.role,
            stack=row.stack,
            effect=figures[name],
            above=share,
            **{
                column: figures[column] for column in ("kl", "kl_last", "loss") if column in figures
            },
        )
        for row, figures, share in zip(table, all_figures, above, strict=True)
    ]
    about = about_of(trial, by, seed, controls)
    ablation = Ablation(rows, about)
    if not (controls and top):
        return ablation
    tried = _random_heads(trial, ablation.ranked()[:top], about, journal, step)
    return Ablation([compared(row, tried.get(row.place, ())) for row in rows], about, tried)


def check_measure(measure: Any) -> None:
    """Refuse the name of a measure that is none.

    Raises:
        ArgumentError: it is none of `MEASURES`.
    """
    if measure not in MEASURES:
        raise ArgumentError(f"measure must be one of {', '.join(MEASURES)}, not {measure!r}")


def check(subject: Subject, by: Any, controls: int) -> None:
    """Refuse what does not fit.

    Raises:
        ArgumentError: an option does not fit, or the model is in training mode.
    """
    if by not in get_args(By):
        raise ArgumentError(f"by must be one of {', '.join(get_args(By))}, not {by!r}")
    if controls < 0:
        raise ArgumentError(f"controls must be 0 or more, not {controls}")
    if subject.model.training:
        raise ArgumentError(
            "the model is in training mode, in which dropout changes what heads do: call "
            "model.eval() first"
        )


def heads_of(subject: Subject, layers: Layers | None) -> HeadTable:
    """What each head does on the text.

    Raises:
        ArgumentError: no attention can be recorded.
        UnknownNameError: there is no such layer.
    """
    with watch(subject.model, tokenizer=subject.tokenizer) as seen:
        subject.run(1)
    if not seen.records:
        raise ArgumentError("the model made no attention call that can be recorded")
    return heads(seen if layers is None else seen.of_layers(layers))


def about_of(trial: Trial, by: By, seed: int, controls: int) -> About:
    """How heads are knocked out."""
    subject, loss = trial.subject, trial.plain_loss
    return About(
        measure=trial.measure.name,
        description=trial.measure.about,
        by=by,
        tokens=subject.tokens,
        seed=seed,
        controls=controls,
        facts=subject.facts | ({} if loss is None else {"loss": loss}),
    )


def _knocked_out(
    trial: Trial, table: Sequence[HeadRow], by: By, journal: Journal, step: Step
) -> list[Figures]:
    """The figures of each head."""
    what = f"knocking out {len(table)} heads"
    todo = [row for row in table if _key(row) not in journal]
    done = len(table) - len(todo)
    step(what, done, len(table))
    for batch in batches(todo, trial.at_once):
        edits = [[Edit(row.name, row.head, by)] for row in batch]
        for row, figures in zip(batch, trial.figures(edits), strict=True):
            journal.add(_key(row), figures)
        done += len(batch)
        step(what, done, len(table))
    return [journal.numbers(_key(row)) for row in table]


def _random_heads(
    trial: Trial, rows: Ablation, about: About, journal: Journal, step: Step
) -> dict[str, list[float]]:
    """The effects of random heads, by the place of the head that they stand for."""
    number = about.controls
    what = f"trying {number} random heads for each of {len(rows)}"
    done, of = 0, number * len(rows)
    step(what, done, of)
    todo = {
        row.place: [n for n in range(number) if _key_of_random(row, n) not in journal]
        for row in rows
    }
    names = list(dict.fromkeys(row.name for row in rows if todo[row.place]))
    recording = _recorded(trial.subject, names) if names else None
    effects = {}
    for row in rows:
        done += number - len(todo[row.place])
        if todo[row.place]:
            assert recording is not None
            record = recording.record(row.name)
            outputs = _turned_outputs(trial.subject.model, record, row, about)
            knocked_out = [Edit(row.name, row.head, about.by)]
            for batch in batches(todo[row.place], trial.at_once):
                edits = [[Edit(row.name, row.head, giving(record, outputs[n]))] for n in batch]
                found_here = trial.figures_before(edits, knocked_out)
                for n, figures in zip(batch, found_here, strict=True):
                    journal.add(_key_of_random(row, n), figures)
                done += len(batch)
                step(what, done, of)
        keys = [_key_of_random(row, n) for n in range(number)]
        effects[row.place] = [journal.numbers(key)[about.measure] for key in keys]
    return effects


def _recorded(subject: Subject, names: Sequence[str]) -> Recording:
    """What the heads of some modules give."""
    with watch(subject.model, names, values=True) as recording:
        subject.run(1)
    return recording


def _turned_outputs(model: nn.Module, record: Record, row: HeadEffect, about: About) -> Tensor:
    """(controls, queries, value_dim): what random heads of the same size give in its place."""
    assert record.context is not None
    output = record.context[0, row.head]
    left = torch.zeros_like(output) if about.by == "zero" else output.mean(0).expand_as(output)
    lost = output - left
    size = output.shape[-1]
    projection = output_projection(model, record)[:, row.head * size : (row.head + 1) * size]
    seed = seed_of(about.seed, row.name, row.head)
    return left + turned(lost, projection.detach(), about.controls, seed)


def _key(row: HeadRow | HeadEffect) -> str:
    return f"{row.name} {row.head}"


def _key_of_random(row: HeadEffect, number: int) -> str:
    """Of a random head in its place."""
    return f"{_key(row)} random {number}"


def batches(rows: Sequence[Any], most: int) -> Iterator[list[Any]]:
    """Batches of consecutive rows, of the same module where rows are heads, of even sizes."""
    for _, group in groupby(rows, key=lambda row: getattr(row, "name", "")):
        alike = list(group)
        number = -(-len(alike) // most)
        bounds = [len(alike) * n // number for n in range(number + 1)]
        yield from (alike[start:stop] for start, stop in pairwise(bounds))
