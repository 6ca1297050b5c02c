"""`pellucid train`: train a model on files of text."""

import shlex
from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.commands.shared import (
    BalancedOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    PredictOption,
    SeparatorOption,
)
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, TypeMismatchError

train = typer.Typer(
    name="train",
    help="Train a model on files of text; see docs/train.md.",
    rich_markup_mode=None,
    invoke_without_command=True,
)
INTERRUPTED = 130
USES = {
    "decoder": "generate",
    "classifier": "classify",
    "translator": "translate",
    "encoder": "embed",
}
"""The command that uses a model of each kind."""


@train.callback()
def root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _directory(name: str) -> Path:
    if not name.strip():
        raise typer.BadParameter("it is empty; name a directory")
    return Path(name)


Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE...",
        help=".txt, .csv, .tsv, .json, .jsonl, .parquet, also compressed (.gz, ...); or a folder.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", parser=_directory, help="Where to write the model."
    ),
]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Evaluate on this file, not on a share of the others."),
]
Base = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="MODEL", help="Start from a trained model, not from random weights."
    ),
]
Vocabulary = Annotated[
    int | None, typer.Option(metavar="N", help="Size of the vocabulary (default: fits the text).")
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Training steps.")]
Rate = Annotated[float | None, typer.Option(metavar="R", help="The peak learning rate.")]
Width = Annotated[
    int | None, typer.Option(metavar="N", help="Width of the model: numbers per token.")
]
Layers = Annotated[int | None, typer.Option(metavar="N", help="Number of layers.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="The random seed.")]
QkClip = Annotated[
    float | None,
    typer.Option(
        metavar="BOUND", help="Shrink the projections of heads whose attention logits exceed this."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A TOML file with options, by the same names as --set has."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="An option, of these or those in docs/train.md, like dropout=0.2.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in DIR.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in DIR.")]


def _shared(
    output: Output,
    files: Files = None,
    held_out: HeldOut = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    base: Base = None,
    vocabulary: Vocabulary = None,
    steps: Steps = None,
    learning_rate: Rate = None,
    width: Width = None,
    layers: Layers = None,
    seed: Seed = None,
    qk_clip: QkClip = None,
    config: Config = None,
    options: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: JsonOption = False,
) -> None:
    """The options that all these commands share."""


def _command(own: Callable[..., dict[str, Any]]) -> None:
    """Add a command with the shared options and those of `own`, which turns its own into a part of
    a `Run`.
    """
    parts = [signature(function).parameters for function in (_shared, own)]

    def command(context: typer.Context, **options: Any) -> None:
        if options["resume"]:
            _check_alone(context)
        try:
            options |= _configured(context, options)
            part = own(**{name: options[name] for name in parts[1]})
            measures = _train(own.__name__, part, options)
        except KeyboardInterrupt as error:
            typer.echo(_stopped(error, own.__name__, options), err=True)
            raise typer.Exit(INTERRUPTED) from error
        _show(measures, own.__name__, options)

    command.__name__, command.__doc__ = own.__name__, own.__doc__
    context = signature(command).parameters["context"]
    both = [context, *parts[0].values(), *parts[1].values()]
    keywords = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in both]
    command.__signature__ = Signature(keywords)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
    train.command()(command)


@_command
def decoder(
    column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column of the text, in tables: name or number."),
    ] = None,
) -> dict[str, Any]:
    """Train next-token prediction, evaluated by bits per byte of held-out text."""
    return {"what": "decoder", "columns": () if column is None else (_column(column),)}


@_command
def classifier(
    text: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "text",
    label: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "label",
    head_only: Annotated[
        bool, typer.Option("--head-only", help="Train only the head, not the encoder.")
    ] = False,
    predict: PredictOption = None,
    separator: SeparatorOption = None,
    balanced: BalancedOption = False,
) -> dict[str, Any]:
    """Train labels or numbers of texts, evaluated on held-out texts."""
    columns = _column(text), _column(label)
    own = {"head_only": head_only, "predict": predict, "separator": separator}
    return {"what": "classifier", "columns": columns, "balanced": balanced, **own}


@_command
def translator(
    source: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "source",
    target: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "target",
) -> dict[str, Any]:
    """Train translation, evaluated by BLEU and chrF (sacrebleu) on held-out pairs."""
    return {"what": "translator", "columns": (_column(source), _column(target))}


@_command
def encoder(
    column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column of the text, in tables: name or number."),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Train sentence embeddings on pairs of texts, from two columns.",
        ),
    ] = None,
) -> dict[str, Any]:
    """Train masked-token prediction or, with --pairs, embeddings, evaluated by retrieval."""
    if pairs is None:
        return {"what": "encoder", "columns": () if column is None else (_column(column),)}
    if column is not None:
        raise ArgumentError("--column names one text; --pairs names both columns")
    return {"what": "pairs", "columns": tuple(_column(name.strip()) for name in pairs.split(","))}


NAMED = ("steps", "learning_rate", "width", "layers", "seed", "qk_clip")
"""Options of a `Run` that are flags of all commands."""
FLAGS_ALONE = ("output", "files", "resume", "overwrite", "json", "config", "options")
"""Flags that neither a TOML file nor --set can set."""


def _configured(context: typer.Context, flags: dict[str, Any]) -> dict[str, Any]:
    """Options of a TOML file and of --set: flags override the file, and --set overrides both."""
    from pellucid.training.run_config import options_of

    def renamed(options: Any) -> dict[str, Any]:
        names = {name: "base" if name == "from" else name.replace("-", "_") for name in options}
        return {names[name]: value for name, value in options.items()}

    options = {} if flags["config"] is None else renamed(options_of(flags["config"]))
    options = {name: value for name, value in options.items() if not _is_given(context, name)}
    options |= renamed(dict(map(_option, flags["options"] or ())))
    shared = options.keys() & (flags.keys() - FLAGS_ALONE)
    for name in shared - set(NAMED):
        options[name] = _flag_value(name, options[name])
    return {name: options.pop(name) for name in shared} | {"options": options}


def _flag_value(name: str, value: Any) -> Any:
    """The value of a flag, from TOML, as the command line would give it."""
    kinds: dict[str, Any] = {"vocabulary": (int, "an int"), "head_only": (bool, "true or false")}
    kinds["balanced"] = kinds["head_only"]
    kind, word = kinds.get(name, (str, "a text"))
    if name == "held_out":
        files = value if isinstance(value, list) else [value]
        return [Path(_flag_value("file", file)) for file in files]
    if kind is str and isinstance(value, int) and not isinstance(value, bool):  # of a column
        value = str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeMismatchError(f"{name} must be {word}, not {value!r}")
    return Path(value) if name == "base" else value


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether the option is given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_alone(context: typer.Context) -> None:
    """Refuse options that --resume would ignore."""
    names = [
        "FILE" if parameter.name == "files" else max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name not in ("output", "resume", "json")
        and _is_given(context, str(parameter.name))
    ]
    if names:
        raise ArgumentError(
            f"--resume uses the files and options of the run in DIR; leave out {listing(names)}"
        )


def _train(name: str, part: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Train, and return the measures.

    Args:
        name: of the command.
        part: of a `Run`, from the command's own options.
        options: all options.
    """
    from pellucid.commands.printing.console import note
    from pellucid.commands.printing.console import steps as stages
    from pellucid.commands.printing.training import LiveLine
    from pellucid.text.table_reading import Reading
    from pellucid.training.run_config import Run
    from pellucid.training.run_directory import run_in
    from pellucid.training.run_setup import train

    output, files, resume = options["output"], tuple(options["files"] or ()), options["resume"]
    run = None
    if resume:
        kind = Run.read(run_in(output)).what
        kind = "encoder" if kind == "pairs" else kind
        if kind != name:
            raise ArgumentError(
                f"the run in '{output}' is of another kind; continue with: "
                f"pellucid train {kind} -o '{output}' --resume"
            )
    else:
        if not files or Path("-") in files:
            raise ArgumentError(
                "give one or more files of text; training cannot read standard input"
            )
        run = Run(
            files=files,
            held_out=tuple(options["held_out"] or ()),
            reading=Reading(delimiter=options["delimiter"], encoding=options["encoding"]),
            vocabulary=options["vocabulary"],
            base=options["base"],
            options={key: options[key] for key in NAMED if options[key] is not None}
            | options["options"],
            **part,
        )
    with stages() as stage:
        return train(
            run,
            output,
            overwrite=options["overwrite"],
            progress=lambda what, done, of: stage(what, done, of or 0),
            note=note,
            line=LiveLine,
        )


def _stopped(error: KeyboardInterrupt, name: str, options: dict[str, Any]) -> str:
    """The message after Ctrl-C: how to continue, if anything was saved."""
    if type(error) is KeyboardInterrupt:  # and not `loop.Interrupted`
        return "stopped before training began; nothing was saved"
    state = str(error) or "stopped and saved"
    return f"{state}; continue with: pellucid train {name} -o '{options['output']}' --resume"


def _show(measures: dict[str, Any], name: str, options: dict[str, Any]) -> None:
    from pellucid.commands.printing.measures import show
    from pellucid.commands.shared import plain_console
    from pellucid.common.files import to_json

    if options["json"]:
        typer.echo(to_json(measures))
    else:
        show(measures, plain_console())
    use = f"pellucid {USES[name]} --model {shlex.quote(str(options['output']))}"
    typer.echo(f"the model is in '{options['output']}'; use it with: {use}", err=True)


def _column(name: str) -> str | int:
    from pellucid.text.columns import parsed_column

    return parsed_column(name)


def _option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, with the value parsed as TOML, or else as a word."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals:
        raise ArgumentError(f"--set needs NAME=VALUE, not '{text}'")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
