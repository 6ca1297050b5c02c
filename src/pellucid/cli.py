"""The command line: it parses, calls a lesson and prints.

Nothing heavy is imported before the command that needs it, so that `pellucid --help` is instant.
"""

import os
import sys
from contextlib import suppress
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid import __version__
from pellucid.errors import ArgumentError, FileError, PellucidError

if TYPE_CHECKING:
    from pellucid.lessons.walk import Walk

app = typer.Typer(
    name="pellucid",
    help="Attention you can see through.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Weights(StrEnum):
    """How an example's weights are made."""

    parameters = "parameters"
    linear = "linear"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pellucid {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead, for scripts.")]


@app.command()
def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="SENTENCE", help='What the model reads, like "Write a poem".'),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(help="Walk an example of the notes instead: poem, journey, bright or lookup."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A Hugging Face directory or name, encoder or decoder; "
            "all-MiniLM-L6-v2 unless given."
        ),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Which layer, from 0; the most telling unless given.")
    ] = None,
    head: Annotated[
        int | None, typer.Option(help="Which head, from 0; the most telling unless given.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(metavar="WORD", help="Show the rows of one word alone.")
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal", help="Hide from each token those after it.")
    ] = False,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="How the weights of --example journey are made; parameters if not given."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with every step.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture of the weights.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show one attention head at work, number by number."""
    from pellucid.common.files import is_blank, printable

    if words and len(words) > 1:
        raise ArgumentError(f'explain takes one sentence; put it in quotes: "{" ".join(words)}"')
    sentence = words[0] if words else None
    if (sentence is None) == (example is None):
        raise ArgumentError('give either a sentence, like "Write a poem", or --example')
    if query is not None:
        if is_blank(query):
            raise ArgumentError("--query is empty; give one word of the sentence")
        query = printable(query)
    if html is not None and svg is not None and os.path.realpath(html) == os.path.realpath(svg):
        raise ArgumentError(f"--html and --svg cannot both be '{html}'")
    if example is not None:
        for name, given in (("model", model), ("layer", layer), ("head", head)):
            if given is not None:
                raise ArgumentError(f"--{name} goes with a sentence, not with --example")
        from pellucid.lessons.examples import walk_example

        walk = walk_example(
            example, causal=causal, weights=weights.value if weights else None, query=query
        )
    else:
        assert sentence is not None
        if weights is not None:
            raise ArgumentError("--weights goes with --example, not with a sentence")
        if is_blank(sentence):
            raise ArgumentError('sentence is empty; give some words, like "Write a poem"')
        from pellucid.lessons.model import walk_model

        sentence = printable(sentence)
        walk = walk_model(sentence, model=model, layer=layer, head=head, query=query, causal=causal)
    _save(walk, html, svg)
    if json:
        from pellucid.lessons.walk import to_json

        typer.echo(to_json(walk))
    else:
        from rich.console import Console

        from pellucid.lessons.terminal import show

        show(walk, Console())


@app.command()
def scaling(
    dims: Annotated[
        str, typer.Option(metavar="LIST", help="The values of d_k.")
    ] = "1,4,16,64,256,1024",
    keys: Annotated[int, typer.Option(help="How many keys each query has.")] = 64,
    samples: Annotated[int, typer.Option(help="How many random queries.")] = 512,
    seed: Annotated[int, typer.Option(help="Where the random numbers start.")] = 0,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure why attention scores are divided by √d_k."""
    try:
        sizes = [int(size) for size in dims.split(",")]
    except ValueError:
        raise ArgumentError(f"--dims must be numbers between commas, not '{dims}'") from None
    if not -(2**63) <= seed < 2**64:
        raise ArgumentError(f"--seed must be from -2**63 to 2**64 - 1, not {seed}")
    from pellucid.lessons.scaling import measure_scaling, to_json

    measured = measure_scaling(sizes, keys=keys, samples=samples, seed=seed)
    if svg is not None:
        from pellucid.lessons.scaling_picture import to_svg

        _write(svg, to_svg(measured))
    if json:
        typer.echo(to_json(measured))
    else:
        from rich.console import Console

        from pellucid.lessons.scaling_terminal import show

        show(measured, Console())


@app.command("watch")
def watch_text(
    text: Annotated[
        list[str] | None, typer.Argument(help='What the model reads, like "Write a poem".')
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the text from a UTF-8 file instead.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What the decoder of an encoder-decoder reads; the same text unless given.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A Hugging Face directory or name, encoder, decoder or both; "
            "all-MiniLM-L6-v2 unless given."
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Which layers, numbers or names between commas, from the last where negative; "
            "all unless given.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Cut what is longer than that.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", help="How many links between words.")] = 10,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the recording, a safetensors file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Watch a model read: what each head does."""
    from pellucid.common.files import printable
    from pellucid.lens import terminal

    if text and len(text) > 1:
        raise ArgumentError(f'watch takes one text; put it in quotes: "{" ".join(text)}"')
    if text and len(text[0]) < 256 and os.path.isfile(text[0]):
        name = printable(text[0])
        typer.echo(f"pellucid: reading the name '{name}'; the file is --file '{name}'", err=True)
    seen = terminal.look(
        terminal.read_text(text[0] if text else None, file),
        target=target,
        model=model,
        layers=terminal.parse_layers(layers),
        max_tokens=max_tokens,
        top=top,
        save=save,
    )
    if save is not None:
        typer.echo(f"wrote {printable(str(save))}", err=True)
    if json:
        typer.echo(terminal.to_json(seen))
    else:
        from rich.console import Console

        terminal.show(seen, Console(highlight=False))


@app.command("heads")
def show_heads(
    recording: Annotated[
        Path, typer.Argument(metavar="FILE", help="A recording that `pellucid watch` saved.")
    ],
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Order the heads by a column.")
    ] = "layer",
    json: JsonOption = False,
) -> None:
    """Show the heads of a saved recording."""
    from pellucid.lens import terminal
    from pellucid.lens.heads import COLUMNS
    from pellucid.lens.recording import Recording

    if sort not in COLUMNS:
        raise ArgumentError(f"--sort must be one of {', '.join(COLUMNS)}, not '{sort}'")
    seen = Recording.load(recording)
    table = terminal.table_of(seen).sort(sort)
    if json:
        typer.echo(terminal.recording_to_json(seen, table))
    else:
        from rich.console import Console

        terminal.show_recording(seen, table, Console(highlight=False))


def _save(walk: "Walk", html: Path | None, svg: Path | None) -> None:
    if html is not None:
        from pellucid.lessons.page import to_html

        _write(html, to_html(walk))
    if svg is not None:
        from pellucid.lessons.picture import to_svg

        _write(svg, to_svg(walk))


def _write(path: Path, text: str) -> None:
    from pellucid.common.files import printable, write_whole

    write_whole(path, text)
    typer.echo(f"wrote {printable(str(path))}", err=True)


# click's, from wherever this typer has its click.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; an expected error is one line on stderr, and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe or terminal that cannot show a character gets a question mark, not a traceback.
        if stream is not None:
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        sys.exit(_run(sys.argv[1:] or ["--help"]))
    except PellucidError as error:
        complaint = str(error)
    except _UsageError as error:
        complaint = _usage(error, sys.argv[1:])
    from pellucid.common.files import printable

    with suppress(OSError):  # where stderr cannot be written either, the status has to say it
        typer.echo(f"pellucid: {printable(' '.join(complaint.split()))}", err=True)
    sys.exit(2)


def _run(arguments: list[str]) -> int:
    """Run one command, all its output written; gives the exit status."""
    if sys.stdout is None:
        raise FileError("cannot write the output: standard output is closed")
    try:
        status = app(arguments, prog_name="pellucid", standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        return 1
    except PellucidError:
        raise
    except OSError as error:
        # Python would try to write the rest once more on its way out, and complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has seen enough
            return 1
        raise FileError(f"cannot write the output: {error.strerror or error}") from error
    return status or 0


def _usage(error: Exception, arguments: list[str]) -> str:
    """What click has to say, what came, and where to read on."""
    context, option = getattr(error, "ctx", None), getattr(error, "param", None)
    command = context.command_path if context else "pellucid"
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    if isinstance(error, typer.BadParameter):
        for name in option.opts if option else ():
            given = [after for before, after in pairwise(arguments) if before == name]
            given += [word.split("=", 1)[1] for word in arguments if word.startswith(f"{name}=")]
            if given and repr(given[-1]) not in message:
                message += f", not '{given[-1]}'"
    return f"{message}; see {command} --help"
