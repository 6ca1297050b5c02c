"""`pellucid train`: from files of text to a model that works."""

from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.commands.shared import JsonOption
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError

train = typer.Typer(
    name="train",
    help="Train a model on files of text; see docs/train.md.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
INTERRUPTED = 130

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE...", help=".txt, .csv, .tsv, .jsonl or .parquet, also packed (.gz, .xz, ...)."
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where the model goes.")
]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Judge by this file, not by a share of the others."),
]
Base = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="Go on from a model, not from chance.")
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
    typer.Option(metavar="FILE", help="A TOML file with any of the options, by their names."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any option by its name, like dropout=0.2."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the run that is in DIR.")]


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
        _train(own.__name__, own(**{name: said[name] for name in parts[1]}), said)

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
        str | None, typer.Option(metavar="NAME", help="Column of the text, in tables.")
    ] = None,
) -> dict[str, Any]:
    """Next-token prediction, judged by bits per byte of text that it has not seen."""
    return {"what": "decoder", "columns": () if column is None else (column,)}


@_command
def classifier(
    text: Annotated[str, typer.Option(metavar="NAME", help="Column of the text.")] = "text",
    label: Annotated[str, typer.Option(metavar="NAME", help="Column of the label.")] = "label",
    head_only: Annotated[
        bool, typer.Option("--head-only", help="Train the head alone, not the model below it.")
    ] = False,
) -> dict[str, Any]:
    """What people call a text, judged by accuracy on texts that it has not seen."""
    return {"what": "classifier", "columns": (text, label), "head_only": head_only}


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
        str | None, typer.Option(metavar="NAME", help="Column of the text, in tables.")
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
        return {"what": "encoder", "columns": () if column is None else (column,)}
    if column is not None:
        raise ArgumentError("--column is of one text; --pairs names both columns")
    return {"what": "pairs", "columns": tuple(_column(one.strip()) for one in pairs.split(","))}


NAMED = ("steps", "learning_rate", "width", "layers", "seed")


def _check_alone(context: typer.Context) -> None:
    """Refuse what is said besides --resume and does not go with it: nothing is ignored."""
    said = []
    for one in context.command.params:
        source = context.get_parameter_source(str(one.name))
        is_said = source is not None and source.name == "COMMANDLINE"
        if is_said and one.name not in ("output", "resume", "json"):
            said.append("FILE" if one.name == "files" else max(one.opts, key=len))
    if said:
        raise ArgumentError(
            "--resume goes on with the files and options of the run in DIR; leave out "
            f"{listing(said)}"
        )


def _train(name: str, wanted: dict[str, Any], said: dict[str, Any]) -> None:
    """What a command does, with its own part of a `Run` and the options that all have."""
    from pellucid.common.terminal import steps as stages
    from pellucid.training import loop
    from pellucid.training.runs import Run, options_of, train

    output, files, resume = said["output"], tuple(said["files"] or ()), said["resume"]
    run = None
    if resume:
        began = Run.read(output / "training" / "run.json").what
        began = "encoder" if began == "pairs" else began
        if began != name:
            raise ArgumentError(
                f"the run in '{output}' is of another kind; go on with: "
                f"pellucid train {began} -o '{output}' --resume"
            )
    else:
        if not files:
            raise ArgumentError("give one file of text or more; - is not read here")
        options = {} if said["config"] is None else options_of(said["config"])
        options |= {name: said[name] for name in NAMED if said[name] is not None}
        options |= dict(map(_option, said["options"] or ()))
        run = Run(
            files=files,
            held_out=tuple(said["held_out"] or ()),
            vocabulary=said["vocabulary"],
            base=said["base"],
            options=options,
            **wanted,
        )
    try:
        with stages() as stage:
            measures = train(
                run,
                output,
                overwrite=said["overwrite"],
                progress=lambda what, done, of: stage(what, done, of or 0),
            )
    except loop.Interrupted as error:
        typer.echo(
            f"stopped and saved; go on with: pellucid train {name} -o '{output}' --resume", err=True
        )
        raise typer.Exit(INTERRUPTED) from error
    _show(measures, said["json"])


def _show(measures: dict[str, Any], as_json: bool) -> None:
    from pellucid.tasks.terminal import to_json

    if as_json:
        typer.echo(to_json(measures))
        return
    for name, value in measures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        typer.echo(f"{name.replace('_', ' ')}: {shown}")


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
