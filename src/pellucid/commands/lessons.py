"""`pellucid explain` and `pellucid scaling`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.shared import (
    JsonOption,
    OverwriteOption,
    SeedOption,
    check_files,
    model_option,
    write,
)
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.lessons.walk import Walk

commands = typer.Typer()


class Weights(StrEnum):
    """How an example's weights are made."""

    parameters = "parameters"
    linear = "linear"


@commands.command()
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
        model_option(
            "An encoder or decoder, or the encoder of both; Pellucid's decoder unless given."
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
    overwrite: OverwriteOption = False,
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
    check_files(overwrite=overwrite, html=html, svg=svg)
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
    _save(walk, html, svg, overwrite)
    if json:
        from pellucid.lessons.walk import to_json

        typer.echo(to_json(walk))
    else:
        from rich.console import Console

        from pellucid.commands.printing.walk import show

        show(walk, Console())


@commands.command()
def scaling(
    dims: Annotated[
        str, typer.Option(metavar="LIST", help="The values of d_k.")
    ] = "1,4,16,64,256,1024",
    keys: Annotated[int, typer.Option(help="How many keys each query has.")] = 64,
    samples: Annotated[int, typer.Option(help="How many random queries.")] = 512,
    seed: SeedOption = 0,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Measure why attention scores are divided by √d_k."""
    try:
        sizes = [int(size) for size in dims.split(",")]
    except ValueError:
        raise ArgumentError(f"--dims must be numbers between commas, not '{dims}'") from None
    if not -(2**63) <= seed < 2**64:
        raise ArgumentError(f"--seed must be from -2**63 to 2**64 - 1, not {seed}")
    check_files(overwrite=overwrite, svg=svg)
    from pellucid.lessons.scaling import measure_scaling, to_json

    measured = measure_scaling(sizes, keys=keys, samples=samples, seed=seed)
    if svg is not None:
        from pellucid.lessons.scaling_picture import to_svg

        write(svg, to_svg(measured), "svg", overwrite)
    if json:
        typer.echo(to_json(measured))
    else:
        from rich.console import Console

        from pellucid.commands.printing.scaling import show

        show(measured, Console())


def _save(walk: "Walk", html: Path | None, svg: Path | None, overwrite: bool) -> None:
    if html is not None:
        from pellucid.lessons.page import to_html

        write(html, to_html(walk), "html", overwrite)
    if svg is not None:
        from pellucid.lessons.picture import to_svg

        write(svg, to_svg(walk), "svg", overwrite)
