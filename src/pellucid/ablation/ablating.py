"""ablate(): knock out every head in turn, and compare what matters most with random heads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from pellucid.ablation.controls import seed_of, turned
from pellucid.ablation.effects import Ablation, About, HeadEffect, compared, shares_below
from pellucid.ablation.journal import FINGERPRINT, Journal
from pellucid.ablation.knock_outs import By, Edit, giving
from pellucid.ablation.measures import ABOUT, MEASURES, UNKNOWN, Answer, Distributions, fall
from pellucid.ablation.trial import Figures, Subject, Trial, runs_of
from pellucid.errors import ArgumentError
from pellucid.lens.head_measures import heads
from pellucid.lens.head_table import HeadRow, HeadTable
from pellucid.lens.layer_selection import Layers, select_names
from pellucid.lens.projection import output_projection
from pellucid.lens.record import Record
from pellucid.lens.recorder import watch
from pellucid.lens.recording import Recording

CONTROLS = 20
"""Random heads for each of the heads that matter most: of 20, none may do as much at 95%."""
TOP = 10

Step = Callable[[str, int, int], None]


def ablate(
    model: nn.Module,
    inputs: Mapping[str, Tensor] | Tensor,
    *,
    measure: str | Callable[[Any], Tensor] = "kl",
    targets: Tensor | None = None,
    by: By = "zero",
    layers: Layers | None = None,
    controls: int = CONTROLS,
    top: int = TOP,
    seed: int = 0,
    tokenizer: Any = None,
    resume: str | Path | None = None,
    progress: Step = lambda name, done, of: None,
) -> Ablation:
    """Knock out every head of a model in turn, and compare those that matter most with random ones.

    A head is knocked out by putting zeros, or the mean of its output over the queries, in place of
    its output (Michel et al. 2019, "Are Sixteen Heads Really Better than One?"). Heads of a layer
    run together in a batch, and only from their own block on.

    Two things say whether an effect is large. `above` is the share of the other heads whose effect
    is smaller. `controls` are the effects of random heads of the same size: instead of taking away
    what the head writes, it is changed by vectors that are as long at every position, in the space
    in which this head can write, and turned by a random rotation. A head matters if it does more
    than 95% of random heads (see `controls.chance`).

    Args:
        model: any model that can be watched, in eval mode.
        inputs: of one text, (1, tokens) each, by the names of the model's arguments; or ids.
        measure: "kl", the KL divergence of the next token's distribution from the plain run's, in
            nats, mean over positions; "loss", the rise of its cross-entropy; or a function from the
            model's output to a number for each item, (items,), whose fall is measured.
        targets: (positions,) the token that follows each, -100 where it is not known; by default
            the next one of the text.
        by: "zero" or "mean".
        layers: as for `watch`.
        controls: how many random heads to try for each of the heads that matter most; 0 is none.
        top: for how many heads.
        seed: of the random heads.
        tokenizer: for the roles of heads, as for `watch`.
        resume: a file to which figures go as they come, and from which a stopped run goes on.
        progress: called with the name of the step, its progress and its total.

    Raises:
        ArgumentError: an option does not fit, the model is in training mode, there is more than
            one text, or no attention can be recorded.
        UnknownNameError: there is no such layer; or, with controls, the output projection of an
            attention is not found.
        ExistsError, FileError: the file to resume is another, or cannot be written.
    """
    named: Mapping[str, Tensor] = inputs if isinstance(inputs, Mapping) else {"": inputs}
    tensors = {name: one for name, one in named.items() if isinstance(one, Tensor)}
    if any(one.ndim < 2 or len(one) != 1 for one in tensors.values()):
        shapes = ", ".join(str(tuple(one.shape)) for one in tensors.values())
        raise ArgumentError(f"inputs must be of one text, (1, tokens) each, not {shapes}")
    found: Distributions | Answer
    if callable(measure):
        found = Answer(
            name="answer", about="fall of the measure", read=_columns(measure), change=fall
        )
    else:
        if measure not in ("kl", "loss"):
            raise ArgumentError(f"measure must be 'kl', 'loss' or a function, not {measure!r}")
        if targets is None:
            targets = _next_tokens(tensors)
        found = Distributions(name=measure, about=ABOUT[measure], targets=targets)
    call: Callable[..., Any] = model
    if "" in named:
        call = lambda **options: model(options.pop(""), **options)  # noqa: E731
    subject = Subject(
        model=model,
        run=runs_of(model, tensors, call),
        tokens=sum(one.shape[1] for name, one in tensors.items() if "mask" not in name),
        measure=found,
        tokenizer=tokenizer,
    )
    return knock_out_heads(
        subject,
        by=by,
        layers=layers,
        controls=controls,
        top=top,
        seed=seed,
        resume=None if resume is None else Path(resume),
        step=progress,
    )


def _columns(measure: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    return lambda output: measure(output).reshape(-1, 1)


def _next_tokens(inputs: Mapping[str, Tensor]) -> Tensor:
    """The token that follows each of the text or, in an encoder-decoder, of the target."""
    for name in ("decoder_input_ids", "target", "input_ids", "ids", ""):
        if name in inputs:
            ids = inputs[name][0]
            return torch.cat([ids[1:], ids.new_tensor([UNKNOWN])])
    raise ArgumentError(f"targets must be given: none of {', '.join(inputs)} holds the text's ids")


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
    _check(subject, by, controls, top)
    step("reading the text", 0, 1)
    table = _heads(subject, layers)
    names = list(dict.fromkeys(row.name for row in table))
    measure = subject.measure
    trial = Trial(subject, names)
    loss = trial.plain_loss()
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
    if journal.found:
        begun(journal.found)
    found = _knocked_out(trial, table, by, journal, step)
    name = measure.name
    above = shares_below([one[name] for one in found])
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
        for row, figures, share in zip(table, found, above, strict=True)
    ]
    about = About(
        measure=name,
        said=measure.about,
        by=by,
        tokens=subject.tokens,
        seed=seed,
        controls=controls,
        facts=subject.facts | ({} if loss is None else {"loss": loss}),
    )
    ablation = Ablation(rows, about)
    if not (controls and top):
        return ablation
    tried = _random_heads(trial, subject, ablation.ranked()[:top], about, journal, step)
    return Ablation([compared(row, tried.get(row.place, ())) for row in rows], about, tried)


def check_measure(measure: Any) -> None:
    """Refuse the name of a measure that is none.

    Raises:
        ArgumentError: it is none of `MEASURES`.
    """
    if measure not in MEASURES:
        raise ArgumentError(f"measure must be one of {', '.join(MEASURES)}, not {measure!r}")


def _check(subject: Subject, by: Any, controls: int, top: int) -> None:
    if by not in get_args(By):
        raise ArgumentError(f"by must be one of {', '.join(get_args(By))}, not {by!r}")
    for name, number in (("controls", controls), ("top", top)):
        if number < 0:
            raise ArgumentError(f"{name} must be 0 or more, not {number}")
    if subject.model.training:
        raise ArgumentError(
            "the model is in training mode, in which dropout changes what heads do: call "
            "model.eval() first"
        )


def _heads(subject: Subject, layers: Layers | None) -> HeadTable:
    """What each head does on the text."""
    with watch(subject.model, tokenizer=subject.tokenizer) as seen:
        subject.run(1)
    if not seen.records:
        raise ArgumentError("the model made no attention call that can be recorded")
    chosen: Recording = seen
    if layers is not None:
        select_names(list(seen.names), layers)
        chosen = seen.of_layers(layers)
    return heads(chosen)


def _knocked_out(
    trial: Trial, table: Sequence[HeadRow], by: By, journal: Journal, step: Step
) -> list[Figures]:
    """The figures of each head."""
    what = f"knocking out {len(table)} heads"
    todo = [row for row in table if _key(row) not in journal]
    done = len(table) - len(todo)
    step(what, done, len(table))
    for batch in _batches(todo, trial.at_once):
        edits = [[Edit(row.name, row.head, by)] for row in batch]
        for row, figures in zip(batch, trial.figures(edits), strict=True):
            journal.add(_key(row), figures)
        done += len(batch)
        step(what, done, len(table))
    return [journal.numbers(_key(row)) for row in table]


def _random_heads(
    trial: Trial, subject: Subject, rows: Ablation, about: About, journal: Journal, step: Step
) -> dict[str, list[float]]:
    """The effects of random heads, by the place of the head that they stand for."""
    number = about.controls
    what = f"trying {number} random heads for each of {len(rows)}"
    done, of = 0, number * len(rows)
    step(what, done, of)
    todo = {
        row.place: [n for n in range(number) if f"{_key(row)} {n}" not in journal] for row in rows
    }
    names = list(dict.fromkeys(row.name for row in rows if todo[row.place]))
    recording = _recorded(subject, names) if names else None
    found = {}
    for row in rows:
        done += number - len(todo[row.place])
        if todo[row.place]:
            assert recording is not None
            record = recording.record(row.name)
            outputs = _turned_outputs(subject.model, record, row, about)
            for batch in _batches(todo[row.place], trial.at_once):
                edits = [[Edit(row.name, row.head, giving(record, outputs[n]))] for n in batch]
                for n, figures in zip(batch, trial.figures(edits), strict=True):
                    journal.add(f"{_key(row)} {n}", figures)
                done += len(batch)
                step(what, done, of)
        keys = [f"{_key(row)} {n}" for n in range(number)]
        found[row.place] = [journal.numbers(key)[about.measure] for key in keys]
    return found


def _recorded(subject: Subject, names: Sequence[str]) -> Recording:
    """What the heads of some modules give."""
    with watch(subject.model, names, values=True) as recording:
        subject.run(1)
    return recording


def _turned_outputs(model: nn.Module, record: Record, row: HeadEffect, about: About) -> Tensor:
    """(controls, queries, value_dim): what the head gives as a random one of the same size."""
    assert record.context is not None
    output = record.context[0, row.head]
    change = -output if about.by == "zero" else output.mean(0) - output
    size = output.shape[-1]
    projection = output_projection(model, record)[:, row.head * size : (row.head + 1) * size]
    seed = seed_of(about.seed, row.name, row.head)
    return output + turned(change, projection.detach(), about.controls, seed)


def _key(row: HeadRow | HeadEffect) -> str:
    return f"{row.name} {row.head}"


def _batches(rows: Sequence[Any], most: int) -> Iterator[list[Any]]:
    """Batches of consecutive rows, of the same module where rows are heads, of even sizes."""
    for _, group in groupby(rows, key=lambda row: getattr(row, "name", "")):
        alike = list(group)
        number = -(-len(alike) // most)
        bounds = [len(alike) * n // number for n in range(number + 1)]
        yield from (alike[start:stop] for start, stop in pairwise(bounds))
