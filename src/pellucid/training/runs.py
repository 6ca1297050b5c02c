"""From what a user asks to a run: data made ready, a model of a fitting size, and the loop.

DIR/config.json, model.safetensors, tokenizer.json    the best weights so far; head.safetensors
beside them has a classifier's labels
DIR/results.json                                      what was measured at the end
DIR/training/run.json                                 what was asked, which --resume reads
DIR/training/data/                                    texts as ids
DIR/training/checkpoints/                             to go on from
DIR/training/log.jsonl, loss.svg, attention/          how it went
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from pellucid.common.files import write_whole
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, FileError
from pellucid.layers.config import Config, Kind
from pellucid.models import load
from pellucid.models.stacks import KINDS
from pellucid.text.items import name_of
from pellucid.training import alignment, corpus, machine
from pellucid.training.directory import alone, claim, remove, sweep
from pellucid.training.distributed import Processes
from pellucid.training.loop import Trainer
from pellucid.training.objectives import (
    Classification,
    Contrastive,
    Masked,
    NextToken,
    Objective,
    Translation,
)
from pellucid.training.report import Report
from pellucid.training.settings import Settings
from pellucid.training.shapes import shape, steps_for
from pellucid.training.vocabulary import END, MASK

What = Literal["decoder", "classifier", "translator", "encoder", "pairs"]
KIND: dict[str, Kind] = {
    "decoder": "decoder",
    "classifier": "encoder",
    "translator": "encoder-decoder",
    "encoder": "encoder",
    "pairs": "encoder",
}
PAIR_POSITIONS, ENCODER_POSITIONS = 256, 512
"""Tokens of a text, at the most, where nobody says otherwise."""
_MODEL = {one.name for one in fields(Config)} - {"kind", "vocabulary", "start", "stop", "padding"}
_OPEN = {"dropout", "attention_dropout", "most_tokens"}
"""What may be said anew of a model to go on from."""
_SETTINGS = {one.name for one in fields(Settings)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a user asks for."""

    what: What
    files: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    """Files to be judged by; a share of the others unless given."""
    columns: tuple[str | int, ...] = ()
    """Names or numbers of the columns: a text's; or text and label; or source and target."""
    vocabulary: int | None = None
    base: Path | None = None
    """A model to go on from, its tokenizer with it."""
    head_only: bool = False
    """Whether only a classifier's head is trained, and not the model below it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Settings` and of the model's `Config`."""

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise ArgumentError(f"what must be one of {listing([*get_args(What)])}")
        if self.head_only and self.what != "classifier":
            raise ArgumentError("head_only is for a classifier, which alone has such a head")
        if self.base is not None and self.vocabulary is not None:
            raise ArgumentError(
                "vocabulary is that of the model to go on from; it cannot be chosen"
            )
        if self.what != "translator" and self.options.get("guidance"):
            raise ArgumentError("guidance is for a translator, whose heads look across")
        for name in self.options:
            if name not in _MODEL | _SETTINGS:
                raise ArgumentError(
                    f"there is no option '{name}'; there are {listing(sorted(_MODEL | _SETTINGS))}"
                )
            if self.base is not None and name in _MODEL - _OPEN:
                raise ArgumentError(f"{name} is that of the model to go on from")

    def save(self, path: Path) -> None:
        """Write it so that it can be read in any directory."""
        said = asdict(self)
        for name in ("files", "held_out"):
            said[name] = [one.resolve() for one in said[name]]
        if self.base is not None and self.base.exists():
            said["base"] = self.base.resolve()
        write_whole(path, json.dumps(said, indent=2, default=str) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Run":
        """What `save` wrote.

        Raises:
            FileError: it is not there, or damaged.
        """
        try:
            said = json.loads(path.read_text())
            for name in ("files", "held_out"):
                said[name] = tuple(map(Path, said[name]))
            said["columns"] = tuple(said["columns"])
            said["base"] = None if said["base"] is None else Path(said["base"])
            return cls(**said)
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FileError(f"no run to go on with: cannot read '{path}': {reason}") from error


def options_of(path: Path) -> dict[str, Any]:
    """Those of a TOML file, by name; tables in it are for people, and may be called anything.

    Raises:
        FileError: it cannot be read, or is no TOML.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot read '{path}': {reason}") from error
    found: dict[str, Any] = {}
    for name, value in said.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


def train(
    run: Run | None,
    directory: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[str, int, int | None], None] = lambda *_: None,
) -> dict[str, Any]:
    """Train a model into a directory, or go on where a run stopped.

    Args:
        run: what to train; None goes on with what is in the directory.
        directory: where everything goes.
        overwrite: whether what is there may be removed.
        progress: told of the work on the data: what, how much is done, and of how much.

    Returns:
        What was measured of the model that is kept, on text that it did not learn from.

    Raises:
        FileError: there is something in the directory already, or nothing to go on with; or as
            `corpus.prepare` and `Trainer.run`.
        ArgumentError, TypeMismatchError: an option that makes no sense.
        DivergedError, Interrupted: as `Trainer.run`.
    """
    processes = Processes.join()
    with alone(directory, run is None) if processes.is_first else nullcontext():
        return _train(run, directory, overwrite, processes, progress)


def _train(
    run: Run | None,
    directory: Path,
    overwrite: bool,
    processes: Processes,
    progress: Callable[[str, int, int | None], None],
) -> dict[str, Any]:
    inner = directory / "training"
    resume = run is None
    if run is None:
        run = Run.read(inner / "run.json")
        if processes.is_first:
            sweep(directory)
    elif processes.is_first:
        claim(directory, overwrite)
        run.save(inner / "run.json")
    processes.wait()
    machine.keep_freed_memory()
    try:
        objective, settings = _made(run, inner / "data", resume, processes, progress)
    except BaseException:
        if not resume and processes.is_first:  # nothing was learnt that could be lost
            remove(directory)
            with suppress(OSError):  # somebody else's files may be there
                directory.rmdir()
        raise
    report = _report(objective, settings, inner, processes)
    trainer = Trainer(objective, settings, inner, report, processes)
    trainer.run(resume)
    measures = trainer.examine()
    if processes.is_first:
        write_whole(directory / "results.json", json.dumps(measures, indent=2) + "\n")
    return measures


def _made(
    run: Run,
    data: Path,
    resume: bool,
    processes: Processes,
    progress: Callable[[str, int, int | None], None],
) -> tuple[Objective, Settings]:
    """The objective and the settings, once the data is ready; the first process makes it so."""
    base = None if run.base is None else _base(run)
    asked = {name: value for name, value in run.options.items() if name in _MODEL}
    wanted = {name: value for name, value in run.options.items() if name in _SETTINGS}
    longest = asked.get("positions")
    if base is not None:
        longest = base.config.positions
    if not processes.is_first:
        processes.wait()
    make = partial(_prepared, run, data, base, longest, resume, progress)
    prepared = _as_before(run, data, make) if processes.is_first else make()
    links = None
    if wanted.get("guidance"):
        sources, targets = prepared.training.texts
        links = alignment.kept(data, sources, targets, progress)
    if processes.is_first:
        processes.wait()
    torch.manual_seed(int(wanted.get("seed", 0)))
    batch_tokens = wanted.get("batch_tokens", Settings.batch_tokens)
    tokens = _tokens(prepared)
    wanted = {"steps": steps_for(tokens, batch_tokens)} | wanted
    settings = Settings(**wanted)
    tokenizer = prepared.tokenizer
    if base is None:
        end = tokenizer.inner.token_to_id(END)
        config = shape(KIND[run.what], tokens, len(tokenizer), end, asked)
        model: Any = KINDS[config.kind](config)
        model.tokenizer = tokenizer
    else:
        model = KINDS[base.config.kind](replace(base.config, **asked))
        model.load_state_dict(base.state_dict())
        model.tokenizer = tokenizer
    return _objective(run, prepared, model, settings, links), settings


def _base(run: Run) -> Any:
    model = load(str(run.base))
    kind = KIND[run.what]
    if model.config.kind != kind:
        raise ArgumentError(
            f"'{run.base}' is of the kind {model.config.kind}; a {run.what} needs the kind {kind}"
        )
    if model.tokenizer is None:
        raise ArgumentError(f"'{run.base}' has no tokenizer")
    return model


def _as_before(run: Run, data: Path, make: Callable[[], Any]) -> Any:
    """The texts that a run began with, made anew from its files if they are damaged."""
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
        corpus.forget(data)  # for when the files are again what they were
        names = [f"'{name_of(path)}'" for path in (*run.files, *run.held_out)]
        raise FileError(
            f"'{data}' does not have the texts that the run began with, and they cannot be made "
            f"again of {listing(names)}, changed since"
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
        "whatever": resume,
        "held_out": run.held_out,
        "vocabulary": run.vocabulary,
        "tokenizer": None if base is None else base.tokenizer,
        "progress": progress,
    }
    if run.what in ("decoder", "encoder"):
        (column, *more) = run.columns or (None,)
        if more or isinstance(column, int):
            raise ArgumentError(f"a {run.what} reads one column, by its name")
        if run.what == "encoder":
            shared |= {"marks": [MASK], "longest": longest or ENCODER_POSITIONS}
        return corpus.prepare(run.files, data, column=column, **shared)
    labelled = run.what == "classifier"
    columns = run.columns or (("text", "label") if labelled else ("source", "target"))
    if len(columns) != 2:
        raise ArgumentError(f"a {run.what} reads two columns, not {len(columns)}")
    # A text to classify is cut to what the model reads; of a pair all is needed.
    cut = None if labelled else longest or PAIR_POSITIONS
    return corpus.prepare_rows(run.files, data, columns, labelled=labelled, longest=cut, **shared)


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
        return Contrastive(model, training.texts, held_out.texts, **rest)
    if run.what == "encoder":
        mask = model.tokenizer.inner.token_to_id(MASK)
        if mask is None:
            mask = model.tokenizer.inner.token_to_id("[MASK]")
        if mask is None:
            raise ArgumentError(f"'{run.base}' has no token that hides another, like [MASK]")
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
        **rest,
    )


def _report(
    objective: Objective, settings: Settings, directory: Path, processes: Processes
) -> Report:
    config = objective.model.config
    rows = min(settings.part_tokens, 4096)
    device = processes.device
    rate = machine.matrix_rate(
        rows, config.width, config.hidden, dtype=settings.dtype(device), device=device
    )
    return Report(
        directory,
        settings.steps,
        settings.batch_tokens,
        work=machine.operations(objective.model, *objective.lengths()),
        peak=rate * processes.count,
        is_first=processes.is_first,
    )
