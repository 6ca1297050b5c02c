"""The command line: it parses, calls a lesson and prints.

Nothing heavy is imported before the command that needs it, so that `pellucid --help` is instant.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid import __version__
from pellucid.errors import ArgumentError, PellucidError

if TYPE_CHECKING:
    from pellucid.lessons.walk import Walk

app = typer.Typer(
    name="pellucid",
    help="Attention you can see through.",
    no_args_is_help=True,
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
    sentence: Annotated[
        str | None, typer.Argument(help='What the model reads, like "Write a poem".')
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
    if (sentence is None) == (example is None):
        raise ArgumentError('give either a sentence, like "Write a poem", or --example')
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
        from pellucid.lessons.model import walk_model

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


def _save(walk: "Walk", html: Path | None, svg: Path | None) -> None:
    if html is not None:
        from pellucid.lessons.page import to_html

        _write(html, to_html(walk))
    if svg is not None:
        from pellucid.lessons.picture import to_svg

        _write(svg, to_svg(walk))


def _write(path: Path, text: str) -> None:
    from pellucid.lessons.files import write_whole

    write_whole(path, text)
    typer.echo(f"wrote {path}", err=True)


def main() -> None:
    """Run the command line; an expected error is one line on stderr, and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe or terminal that cannot show a character gets a question mark, not a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app()
    except PellucidError as error:
        typer.echo(f"pellucid: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
