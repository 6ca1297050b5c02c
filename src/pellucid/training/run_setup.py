"""The setup of a run from its configuration: the data, a model of a suitable size, and the loop.

DIR/config.json, model.safetensors, tokenizer.json    the best model so far
DIR/head.safetensors                                  a classifier's head, with its labels
DIR/results.json                                      the final evaluation
DIR/training/run.json                                 the configuration, for --resume
DIR/training/data/                                    texts as ids
DIR/training/checkpoints/                             for --resume
DIR/training/log.jsonl, loss.svg, attention/          the progress
DIR/.pellucid-run/                                    a run being prepared to replace another
DIR/.pellucid-old/                                    the training/ of one being replaced
"""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.common.files import write_whole
from pellucid.common.wording import count, listing
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.models import load
from pellucid.models.architectures import KINDS
from pellucid.text.folders import files_in
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.utf8_files import name_of
from pellucid.training import corpus, hardware, run_directory, word_aligner
from pellucid.training.distributed import Processes
from pellucid.training.loop import Interrupted, Trainer
from pellucid.training.model_sizes import shape, steps_for
from pellucid.training.objectives import (
    Classification,
    Contrastive,
    Masked,
    NextToken,
    Objective,
    Translation,
)
from pellucid.training.progress_line import Line
from pellucid.training.report import Report
from pellucid.training.run_config import KIND, Run
from pellucid.training.settings import Settings
from pellucid.training.vocabulary import END, MASK

PAIR_POSITIONS, ENCODER_POSITIONS = 256, 512
"""The default maximum number of tokens of a text."""


def train(
    run: Run | None,
    directory: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[str, int, int | None], None] = lambda *_: None,
    note: Callable[[str], None] = lambda _: None,
    line: Callable[[int], Line] = Line,
) -> dict[str, Any]:
    """Train a model into a directory, or resume a run there.

    Args:
        run: the configuration; None resumes the run in the directory.
        directory: of all outputs.
        overwrite: whether to replace a run in the directory, once the new one is prepared.
        progress: called during the preparation of the data with a description, the amount done and
            the total.
        note: called with remarks on the data, a line each.
        line: makes the progress line, given the number of steps; none is displayed by default.

    Returns:
        The evaluation of the best model on held-out data.

    Raises:
        FileError: the directory is not empty, or has no run to resume; or as `corpus.prepare` and
            `Trainer.run`.
        ArgumentError, TypeMismatchError: an option is invalid.
        MissingExtraError: sacrebleu, which evaluates translators, is not installed.
        DivergedError: as `Trainer.run`.
        Interrupted: by Ctrl-C; the run can be resumed. Any other KeyboardInterrupt leaves the
            directory as it was.
    """
    processes = Processes.join()
    resume = run is None
    if run is None:
        run = Run.read(run_directory.run_in(directory))
    elif run.base is not None and os.path.realpath(run.base) == os.path.realpath(directory):
        raise ArgumentError(
            f"'{directory}' is the base model; choose another directory for the new one"
        )
    elif run.settings(1).shard and processes.count == 1:
        raise ArgumentError(
            "shard=true needs several processes: torchrun --nproc-per-node N -m pellucid train"
        )
    if run.what == "translator" and find_spec("sacrebleu") is None:
        raise MissingExtraError.of("BLEU needs sacrebleu", "train")
    if not resume:
        files, notes = files_in(run.files)
        held_out, others = files_in(run.held_out)
        run = replace(run, files=tuple(files), held_out=tuple(held_out))
        for remark in [*notes, *others] if processes.is_first else []:
            note(remark)
    with run_directory.alone(directory, resume) if processes.is_first else nullcontext():
        try:
            return _train(run, directory, resume, overwrite, processes, progress, note, line)
        except Interrupted:
            raise
        except KeyboardInterrupt as error:
            if resume:
                raise Interrupted("stopped") from error
            raise


def _train(
    run: Run,
    directory: Path,
    resume: bool,
    overwrite: bool,
    processes: Processes,
    progress: Callable[[str, int, int | None], None],
    note: Callable[[str], None],
    line: Callable[[int], Line],
) -> dict[str, Any]:
    training = directory / "training"
    if processes.is_first:
        if resume:
            run_directory.sweep(directory)
        else:
            run_directory.check_unread(directory, (*run.files, *run.held_out))
            run.save(run_directory.claim(directory, overwrite) / run_directory.RUN)
    processes.wait()
    hardware.keep_freed_memory()
    try:
        data = (training if resume else run_directory.place(directory)) / "data"
        objective, settings, left_out = _set_up(run, data, resume, processes, progress)
        report = _report(objective, settings, training, processes, line)
        trainer = Trainer(objective, settings, training, report, processes)
    except BaseException:
        if not resume and processes.is_first:  # no training is lost
            run_directory.give_up(directory)
        raise
    processes.wait()
    if processes.is_first:
        if not resume:
            run_directory.replace(directory)
        precision_note = trainer.precision_told()
        for remark in left_out if precision_note is None else [*left_out, precision_note]:
            note(remark)
    processes.wait()
    try:
        trainer.run(resume)
        measures = trainer.examine()
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        is_done = trainer.step == settings.steps
        raise Interrupted("trained, but not evaluated" if is_done else "stopped") from error
    measures |= {"left_out": left_out} if left_out else {}
    if processes.is_first:
        write_whole(directory / "results.json", json.dumps(measures, indent=2) + "\n")
    return measures


def _set_up(
    run: Run,
    data: Path,
    resume: bool,
    processes: Processes,
    progress: Callable[[str, int, int | None], None],
) -> tuple[Objective, Settings, list[str]]:
    """The objective, the settings, and remarks on rows that are left out; the first process
    prepares the data.
    """
    base = None if run.base is None else _base(run)
    config = None if base is None else replace(base.config, **run.of_model)
    longest = run.options.get("positions") if config is None else config.positions
    # Texts to classify are truncated to the model's length; pairs must be complete.
    defaults = {"pairs": PAIR_POSITIONS, "translator": PAIR_POSITIONS, "encoder": ENCODER_POSITIONS}
    longest = longest or defaults[run.what] if run.what in defaults else None
    if not processes.is_first:
        processes.wait()
    make = partial(_prepared, run, data, base, longest, resume, progress)
    prepared = _verified(run, data, make) if processes.is_first else make()
    links = None
    if run.options.get("guidance"):
        sources, targets = prepared.training.texts
        links = word_aligner.kept(data, sources, targets, progress)
    if processes.is_first:
        processes.wait()
    tokens = _tokens(prepared)
    settings = run.settings(steps_for(tokens, run.settings(1).batch_tokens))
    if processes.count == 1:  # when one process resumes the run of several
        settings = replace(settings, shard=False)
    torch.manual_seed(settings.seed)
    tokenizer = prepared.tokenizer
    if config is None:
        end = _special_id(tokenizer, END)
        assert end is not None
        config = shape(KIND[run.what], tokens, len(tokenizer), end, run.of_model)
    model: Any = KINDS[config.kind](config)
    if base is not None:
        model.load_state_dict(base.state_dict())
    model.tokenizer = tokenizer
    objective = _objective(run, prepared, model, settings, links)
    return objective, settings, _left_out(run, prepared, longest)


def _special_id(tokenizer: Tokenizer, *names: str) -> int | None:
    """The id of a special token under one of these names, if there is one."""
    return next((id for id in tokenizer.all_special_ids if tokenizer.token(id) in names), None)


def _left_out(run: Run, prepared: Any, longest: int | None) -> list[str]:
    """Remarks on rows that are left out, and on what was noticed in the files, for people."""
    remarks = []
    for tally, whose in zip(prepared.left_out, ("", " of the held-out data"), strict=True):
        parts = [f"{count(tally.blank, 'blank row')}"] if tally.blank else []
        if tally.too_long:
            parts.append(f"{count(tally.too_long, 'row')} of more than {longest} tokens")
        if tally.held_out:
            parts.append(f"{count(tally.held_out, 'text')} equal to a held-out one")
        if parts:
            remarks.append(f"left out {listing(parts)}{whose}")
        remarks += tally.notes
    if run.what == "classifier" and prepared.kind == "number" and run.predict is None:
        remarks.append("labels are numbers, so numbers are predicted; --predict label for labels")
    return remarks


def _base(run: Run) -> Any:
    model = load(str(run.base))
    kind = KIND[run.what]
    if model.config.kind != kind:
        raise ArgumentError(
            f"'{run.base}' is of kind {model.config.kind}, but a {run.what} needs kind {kind}"
        )
    if model.tokenizer is None:
        raise ArgumentError(f"'{run.base}' has no tokenizer")
    return model


def _verified(run: Run, data: Path, make: Callable[[], Any]) -> Any:
    """The data that a run started with, prepared again from its files if it is damaged."""
    file = data.parent / "texts.sha256"
    prepared = make()
    try:
        before = file.read_text()
    except OSError:
        write_whole(file, _checksum(prepared))
        return prepared
    if _checksum(prepared) != before:
        corpus.forget(data)
        prepared = make()
    if _checksum(prepared) != before:
        corpus.forget(data)  # in case the files are restored
        names = [f"'{name_of(path)}'" for path in (*run.files, *run.held_out)]
        raise FileError(
            f"'{data}' does not have the texts that the run started with, and {listing(names)} "
            "changed since"
        )
    return prepared


def _checksum(prepared: Any) -> str:
    parts: list[np.ndarray] = []
    for side in (prepared.training, prepared.held_out):
        for texts in getattr(side, "texts", (side,)):
            parts += texts.ids, texts.ends
        if getattr(side, "labels", None) is not None:
            parts.append(side.labels)
    return corpus.checksum(prepared.tokenizer, parts)


def _prepared(
    run: Run,
    data: Path,
    base: Any,
    longest: int | None,
    resume: bool,
    progress: Callable[[str, int, int | None], None],
) -> Any:
    shared: dict[str, Any] = {
        "ignore_changes": resume,
        "held_out": run.held_out,
        "vocabulary": run.vocabulary,
        "tokenizer": None if base is None else base.tokenizer,
        "progress": progress,
        "reading": run.reading,
    }
    if run.what in ("decoder", "encoder"):
        if run.what == "encoder":
            shared |= {"marks": [MASK], "longest": longest}
        return corpus.prepare(run.files, data, column=next(iter(run.columns), None), **shared)
    labelled = run.what == "classifier"
    columns = run.columns or (("text", "label") if labelled else ("source", "target"))
    return corpus.prepare_rows(
        run.files,
        data,
        columns,
        labelled=labelled,
        predict=run.predict,
        separator=run.separator,
        longest=longest,
        **shared,
    )


def _tokens(prepared: Any) -> int:
    if isinstance(prepared, corpus.Prepared):
        return len(prepared.training.ids)
    return sum(len(texts.ids) for texts in prepared.training.texts)


def _objective(
    run: Run, prepared: Any, model: Any, settings: Settings, links: np.ndarray | None
) -> Objective:
    rest: dict[str, Any] = {"batch_tokens": settings.batch_tokens, "seed": settings.seed}
    smoothing = settings.label_smoothing
    training, held_out = prepared.training, prepared.held_out
    if run.what == "decoder":
        return NextToken(model, training, held_out, smoothing=smoothing, **rest)
    if run.what == "translator":
        return Translation(
            model,
            training.texts,
            held_out.texts,
            smoothing=smoothing,
            links=links,
            guidance=settings.guidance,
            **rest,
        )
    if run.what == "pairs":
        keys = training.keys, held_out.keys
        return Contrastive(model, training.texts, held_out.texts, keys=keys, **rest)
    if run.what == "encoder":
        mask = _special_id(model.tokenizer, MASK, "[MASK]", "<mask>")
        if mask is None:
            raise ArgumentError(f"'{run.base}' has no mask token, such as [MASK]")
        return Masked(model, training, held_out, mask=mask, **rest)
    if run.head_only:
        model.requires_grad_(False)
    judged = held_out.texts[0], held_out.labels
    return Classification(
        model,
        training.texts[0],
        training.labels,
        judged,
        prepared.names,
        smoothing=smoothing,
        kind=prepared.kind,
        balanced=run.balanced,
        keys=held_out.keys[0],
        **rest,
    )


def _report(
    objective: Objective,
    settings: Settings,
    directory: Path,
    processes: Processes,
    line: Callable[[int], Line],
) -> Report:
    config = objective.model.config
    rows = min(settings.part_tokens, 4096)
    device = processes.device
    rate = hardware.matrix_rate(
        rows, config.width, config.hidden, dtype=settings.dtype(device), device=device
    )
    return Report(
        directory,
        settings.steps,
        settings.batch_tokens,
        work=hardware.operations(objective.model, *objective.lengths()),
        peak=rate * processes.count,
        is_first=processes.is_first,
        line=line(settings.steps),
    )
