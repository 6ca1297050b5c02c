"""`pellucid trace` and `pellucid why`."""

from functools import partial
from typing import Annotated

import typer

from pellucid.commands.lens import MaxTokensOption, ReaderOption, TextFileOption
from pellucid.commands.shared import (
    EncodingOption,
    HtmlOption,
    JsonOption,
    OverwriteOption,
    SvgOption,
    check_files,
    model_option,
    one_text,
    plain_console,
    write_pictures,
)
from pellucid.errors import ArgumentError

commands = typer.Typer()


@commands.command()
def trace(
    text: Annotated[
        list[str] | None, typer.Argument(help='What the model reads, like "And God said".')
    ] = None,
    file: TextFileOption = None,
    encoding: EncodingOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What the decoder reads (default: what Pellucid's translator says by itself; of "
            "another model, the same text).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        model_option("A decoder, a classifier or a translator (default: Pellucid's decoder)."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="direct (what heads wrote to the logit), gradient (x weights), chefer or lrp.",
        ),
    ] = "direct",
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The token or label to explain (default: the one that is written there, else the "
            "likeliest).",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Another one: explain why not this one instead."),
    ] = None,
    position: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Explain what comes after token N (default: the last); of a translation, its "
            "token N.",
        ),
    ] = None,
    max_tokens: MaxTokensOption = None,
    svg: SvgOption = None,
    html: HtmlOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Show which tokens and heads made a model write a token, or say a label."""
    from pellucid.commands.inputs import read_text
    from pellucid.commands.printing import traces
    from pellucid.commands.printing.console import steps
    from pellucid.readers.trace_picture import to_html, to_svg
    from pellucid.readers.tracing import trace_text

    argument = one_text("trace", text)
    check_files(overwrite=overwrite, svg=svg, html=html)
    content = read_text(argument, file, encoding)
    with steps() as step:
        traced = trace_text(
            content,
            target=target,
            model=model,
            method=method,
            token=token,
            against=against,
            position=position,
            max_tokens=max_tokens,
            step=step,
        )
    write_pictures(svg, html, overwrite, partial(to_svg, traced), partial(to_html, traced))
    if json:
        typer.echo(traces.to_json(traced))
    else:
        traces.show(traced, plain_console())


@commands.command("why")
def explain_look(
    text: Annotated[
        list[str] | None, typer.Argument(help='What the model reads, like "And God said".')
    ] = None,
    file: TextFileOption = None,
    encoding: EncodingOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What the decoder of an encoder-decoder reads (default: what Pellucid's "
            "translator says by itself; of another model, the same text).",
        ),
    ] = None,
    model: ReaderOption = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER.HEAD",
            help="The head, like 5.3; in an encoder-decoder like e5.3, d5.3 or x5.3.",
        ),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="The token that looks, its number or its text (default: the last).",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="The token that is looked at (default: the one that it looks at most).",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="Another one: explain why not there instead."),
    ] = None,
    top: Annotated[
        int, typer.Option(metavar="N", help="How many of the largest terms to show.")
    ] = 10,
    max_tokens: MaxTokensOption = None,
    svg: SvgOption = None,
    html: HtmlOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Show why a head looks from one token to another: which parts of the two its score is of."""
    from pellucid.commands.inputs import read_text
    from pellucid.commands.printing import scores
    from pellucid.commands.printing.console import steps
    from pellucid.readers.score_picture import to_html, to_svg
    from pellucid.readers.score_terms import explain_score

    argument = one_text("why", text)
    check_files(overwrite=overwrite, svg=svg, html=html)
    if head is None:
        raise ArgumentError(
            "name a head with --head, like --head 2.0; `pellucid watch` shows what each one does"
        )
    if top < 0:
        raise ArgumentError(f"--top must be 0 or more, not {top}")
    content = read_text(argument, file, encoding)
    with steps() as step:
        explanation = explain_score(
            content,
            head=head,
            query=query,
            key=key,
            against=against,
            target=target,
            model=model,
            max_tokens=max_tokens,
            step=step,
        )
    write_pictures(
        svg, html, overwrite, partial(to_svg, explanation), partial(to_html, explanation)
    )
    if json:
        typer.echo(scores.to_json(explanation))
    else:
        scores.show(explanation, top, plain_console())
