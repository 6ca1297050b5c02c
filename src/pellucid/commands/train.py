"""`pellucid train`: from files of text to a model that works."""

import shlex
from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.commands.shared import JsonOption
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
"""The command that reads what one of these wrote."""


@train.callback()
def root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _directory(said: str) -> Path:
    if not said.strip():
        raise typer.BadParameter("it is empty; name a directory")
    return Path(said)


Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE...", help=".txt, .csv, .tsv, .jsonl or .parquet, also packed (.gz, .xz, ...)."
    ),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", parser=_directory, help="Where the model goes."),
]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Judge by this file, not by a share of the others."),
]
Base = Annotated[
    Path | None,
    typer.Option("--from", metavar="MODEL", help="Go on from a model, not from chance."),
]
Vocabulary = Annotated[
    int | None, typer.Option(metavar="N", help="Subwords; as many as suit the text unless given.")
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Updates of the weights.")]
Rate = Annotated[float | None, typer.Option(metavar="R", help="The highest learning rate.")]
Width = Annotated[int | None, typer.Option(metavar="N", help="Numbers of a token.")]
Layers = Annotated[int | None, typer.Option(metavar="N", help="Blocks.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Where the random numbers start.")]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A TOML file with options by their names, as --set."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="One of these options or of those in docs/train.md, like dropout=0.2.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in DIR.")]


def _shared(
    output: Output,
    files: Files = None,
    held_out: HeldOut = None,
    base: Base = None,
    vocabulary: Vocabulary = None,
    steps: Steps = None,
    learning_rate: Rate = None,
    width: Width = None,
    layers: Layers = None,
    seed: Seed = None,
    config: Config = None,
    options: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: JsonOption = False,
) -> None:
    """The options that all commands have."""


def _command(own: Callable[..., dict[str, Any]]) -> None:
    """Add a command with the options of `own`, which says what they mean for a `Run`, and those
    that all have.
    """
    parts = [signature(one).parameters for one in (_shared, own)]

    def command(context: typer.Context, **said: Any) -> None:
        if said["resume"]:
            _check_alone(context)
        try:
            said |= _told(context, said)
            measures = _train(own.__name__, own(**{name: said[name] for name in parts[1]}), said)
        except KeyboardInterrupt as error:
            typer.echo(_stopped(error, own.__name__, said), err=True)
            raise typer.Exit(INTERRUPTED) from error
        _show(measures, own.__name__, said)

    command.__name__, command.__doc__ = own.__name__, own.__doc__
    context = signature(command).parameters["context"]
    both = [context, *parts[0].values(), *parts[1].values()]
    keywords = [one.replace(kind=one.KEYWORD_ONLY) for one in both]
    command.__signature__ = Signature(keywords)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in both}
    train.command()(command)


@_command
def decoder(
    column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of the text, in tables: name or number.")
    ] = None,
) -> dict[str, Any]:
    """Next-token prediction, judged by bits per byte of text that it has not seen."""
    return {"what": "decoder", "columns": () if column is None else (_column(column),)}


@_command
def classifier(
    text: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "text",
    label: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "label",
    head_only: Annotated[
        bool, typer.Option("--head-only", help="Train the head alone, not the model below it.")
    ] = False,
) -> dict[str, Any]:
    """What people call a text, judged by accuracy on texts that it has not seen."""
    columns = _column(text), _column(label)
    return {"what": "classifier", "columns": columns, "head_only": head_only}


@_command
def translator(
    source: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "source",
    target: Annotated[str, typer.Option(metavar="COLUMN", help="Name or number.")] = "target",
) -> dict[str, Any]:
    """From one language into another, judged by BLEU and chrF (sacrebleu) on unseen pairs."""
    return {"what": "translator", "columns": (_column(source), _column(target))}


@_command
def encoder(
    column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of the text, in tables: name or number.")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Learn which texts belong together, from two columns, not hidden tokens.",
        ),
    ] = None,
) -> dict[str, Any]:
    """Hidden tokens, or with --pairs sentence embeddings, judged by retrieval of unseen pairs."""
    if pairs is None:
        return {"what": "encoder", "columns": () if column is None else (_column(column),)}
    if column is not None:
        raise ArgumentError("--column is of one text; --pairs names both columns")
    return {"what": "pairs", "columns": tuple(_column(one.strip()) for one in pairs.split(","))}


NAMED = ("steps", "learning_rate", "width", "layers", "seed")
"""Options of a `Run` that have a flag."""
FLAGS_ALONE = ("output", "files", "resume", "overwrite", "json", "config", "options")
"""What neither a TOML file nor --set says."""


def _told(context: typer.Context, said: dict[str, Any]) -> dict[str, Any]:
    """What a TOML file and --set say: a flag goes before the file, and --set before both."""
    from pellucid.training.run_config import options_of

    def plain(found: Any) -> dict[str, Any]:
        return {"base" if name == "from" else name.replace("-", "_"): found[name] for name in found}

    flags = said.keys() - FLAGS_ALONE
    told = {} if said["config"] is None else plain(options_of(said["config"]))
    told = {name: value for name, value in told.items() if not _is_said(context, name)}
    told |= plain(dict(map(_option, said["options"] or ())))
    for name in flags & told.keys() - set(NAMED):
        told[name] = _as_said(name, told[name])
    return {name: told.pop(name) for name in flags & told.keys()} | {"options": told}


def _as_said(name: str, value: Any) -> Any:
    """The value of a flag that the command line has as text."""
    kinds: dict[str, Any] = {"vocabulary": (int, "an int"), "head_only": (bool, "true or false")}
    kind, word = kinds.get(name, (str, "a text"))
    if name == "held_out":
        return [
            Path(_as_said("file", one)) for one in (value if isinstance(value, list) else [value])
        ]
    if kind is str and isinstance(value, int) and not isinstance(value, bool):  # of a column
        value = str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeMismatchError(f"{name} must be {word}, not {value!r}")
    return Path(value) if name == "base" else value


def _is_said(context: typer.Context, name: str) -> bool:
    """Whether the command line has it."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_alone(context: typer.Context) -> None:
    """Refuse what is said besides --resume and does not go with it: nothing is ignored."""
    said = []
    for one in context.command.params:
        is_said = _is_said(context, str(one.name))
        if is_said and one.name not in ("output", "resume", "json"):
            said.append("FILE" if one.name == "files" else max(one.opts, key=len))
    if said:
        raise ArgumentError(
            "--resume goes on with the files and options of the run in DIR; leave out "
            f"{listing(said)}"
        )


def _train(name: str, wanted: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What a command does, with its own part of a `Run` and the options that all have."""
    from pellucid.commands.printing.console import note
    from pellucid.commands.printing.console import steps as stages
    from pellucid.commands.printing.training import LiveLine
    from pellucid.training.run_config import Run
    from pellucid.training.run_directory import run_in
    from pellucid.training.run_setup import train

    output, files, resume = said["output"], tuple(said["files"] or ()), said["resume"]
    run = None
    if resume:
        began = Run.read(run_in(output)).what
        began = "encoder" if began == "pairs" else began
        if began != name:
            raise ArgumentError(
                f"the run in '{output}' is of another kind; go on with: "
                f"pellucid train {began} -o '{output}' --resume"
            )
    else:
        if not files or Path("-") in files:
            raise ArgumentError("give one file of text or more; - is not read here")
        run = Run(
            files=files,
            held_out=tuple(said["held_out"] or ()),
            vocabulary=said["vocabulary"],
            base=said["base"],
            options={one: said[one] for one in NAMED if said[one] is not None} | said["options"],
            **wanted,
        )
    with stages() as stage:
        return train(
            run,
            output,
            overwrite=said["overwrite"],
            progress=lambda what, done, of: stage(what, done, of or 0),
            note=note,
            line=LiveLine,
        )


def _stopped(error: KeyboardInterrupt, name: str, said: dict[str, Any]) -> str:
    """What to say after Ctrl-C: how to go on, if there is anything to go on with."""
    if type(error) is KeyboardInterrupt:  # and not `loop.Interrupted`
        return "stopped before training began; nothing is left of it"
    told = str(error) or "stopped and saved"
    return f"{told}; go on with: pellucid train {name} -o '{said['output']}' --resume"


def _show(measures: dict[str, Any], name: str, said: dict[str, Any]) -> None:
    from pellucid.commands.printing.measures import show
    from pellucid.commands.shared import plain_console
    from pellucid.common.files import to_json

    if said["json"]:
        typer.echo(to_json(measures))
    else:
        show(measures, plain_console())
    use = f"pellucid {USES[name]} --model {shlex.quote(str(said['output']))}"
    typer.echo(f"the model is in '{said['output']}'; use it with: {use}", err=True)


def _column(name: str) -> str | int:
    return int(name) if name.isdecimal() else name


def _option(said: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as TOML has it, or a word as it stands."""
    import tomllib

    name, equals, value = said.partition("=")
    if not equals:
        raise ArgumentError(f"--set needs NAME=VALUE, not '{said}'")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
