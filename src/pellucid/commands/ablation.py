"""`pellucid ablate`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.commands.lens import LayersOption, MaxTokensOption, TextFileOption
from pellucid.commands.shared import (
    COLUMNS,
    ByName,
    EncodingOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    check_files,
    check_seed,
    give,
    model_option,
    one_text,
    output_option,
    plain_console,
    write_pictures,
)
from pellucid.errors import ArgumentError

commands = typer.Typer()


class MeasureName(StrEnum):
    """How a knock-out is measured; see `pellucid.ablation.measures.ABOUT`."""

    kl = "kl"
    loss = "loss"
    logprob = "logprob"
    logit = "logit"
    cosine = "cosine"


@commands.command("ablate")
def ablate_heads(
    text: Annotated[
        list[str] | None, typer.Argument(help='What the model reads, like "Write a poem".')
    ] = None,
    file: TextFileOption = None,
    encoding: EncodingOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What an encoder-decoder is to say (default: what it says by itself).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        model_option(
            "A decoder, an encoder-decoder, a classifier or an encoder (default: Pellucid's "
            "decoder)."
        ),
    ] = None,
    measure: Annotated[
        MeasureName | None,
        typer.Option(
            help="What is measured: the divergence (kl) or the loss of the next token; the "
            "log-probability of a translation; the logit of a label; the cosine of an embedding "
            "(default: the one that fits the model)."
        ),
    ] = None,
    by: Annotated[
        ByName,
        typer.Option(help="What takes the place of a head's output: zeros, or its mean."),
    ] = ByName.zero,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help='Knock out these heads together, like 2.2,3.0 or "previous token", and compare '
            "them with random sets of as many.",
        ),
    ] = None,
    layers: LayersOption = None,
    max_tokens: MaxTokensOption = None,
    top: Annotated[
        int,
        typer.Option(metavar="N", help="How many heads to show, and to compare with random ones."),
    ] = 10,
    controls: Annotated[
        int,
        typer.Option(metavar="N", help="How many random heads to try for each of those; 0: none."),
    ] = 20,
    seed: SeedOption = 0,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep figures in a file as they come; the same command goes on from it.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the map and every head.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the map.")] = None,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Knock out every head in turn, and show which matter more than random heads."""
    argument = one_text("ablate", text)
    check_files(COLUMNS, overwrite=overwrite, html=html, svg=svg, output=output)
    for name, number in (("top", top), ("controls", controls)):
        if number < 0:
            raise ArgumentError(f"--{name} must be 0 or more, not {number}")
    check_seed(seed)
    if heads is not None:
        for name, path in {"resume": resume, "html": html, "svg": svg, "output": output}.items():
            if path is not None:
                raise ArgumentError(f"--{name} goes without --heads")
    from pellucid.ablation.every_head import knock_out_heads
    from pellucid.ablation.journal import check_journal
    from pellucid.ablation.picture import to_html, to_svg
    from pellucid.ablation.texts import subject_of
    from pellucid.ablation.together import knock_out_together
    from pellucid.commands.inputs import parse_layers, read_text
    from pellucid.commands.printing import ablation
    from pellucid.commands.printing.console import note, steps
    from pellucid.common.files import to_json
    from pellucid.common.wording import count

    if resume is not None:
        check_journal(resume)
    content, chosen = read_text(argument, file, encoding), parse_layers(layers)
    options: dict[str, Any] = {
        "by": by.value,
        "layers": chosen,
        "controls": controls,
        "seed": seed,
    }
    try:
        with steps() as step:
            subject = subject_of(
                content,
                target=target,
                model=model,
                measure=measure,
                max_tokens=max_tokens,
                step=step,
            )
            if heads is not None:
                together = knock_out_together(subject, heads.split(","), **options, step=step)
            else:
                effects = knock_out_heads(
                    subject,
                    **options,
                    top=top,
                    resume=resume,
                    begun=lambda done: note(f"{count(done, 'run')} were done before"),
                    step=step,
                )
    except KeyboardInterrupt:
        kept = "the same command goes on" if resume else "nothing is kept: --resume FILE would"
        note(f"stopped; {kept}")
        raise
    if heads is not None:
        if json:
            typer.echo(to_json(ablation.data_together(together, subject.name)))
        else:
            ablation.show_together(together, subject.name, plain_console())
        return
    letters, title = ablation.letters(), f"{subject.name}: which heads matter"
    write_pictures(
        svg,
        html,
        overwrite,
        lambda: to_svg(effects, letters, title=title),
        lambda: to_html(effects, letters, title=title),
    )
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: ablation.data(effects, subject.name),
        columns=lambda: ablation.columns(effects),
        show=lambda: ablation.show(effects, subject.name, top, plain_console()),
    )
