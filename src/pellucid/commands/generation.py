"""`pellucid generate` and `pellucid translate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.shared import JsonOption, write, wrote
from pellucid.commands.tasks import ColumnOption, FileOption, StrictOption, output_option
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.tasks.sampling import Sampling

commands = typer.Typer()

TRANSLATIONS = (".txt", ".csv", ".json", ".parquet")
ALIGNMENTS = (".json", ".parquet")
"""Files that hold a grid of numbers for each text."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as a shell has it: 128 and the number of the signal."""


@commands.command()
def generate(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(help='How the text begins, like "Once"; else --file or standard input.'),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read prompts from a file, one a line; or -."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A directory with a decoder, or its name on the hub.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="The most tokens that are written.")
    ] = 128,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="0 takes the likeliest token each time; more is more daring. 0 unless given, or 1 "
            "where an option below asks to draw.",
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(metavar="K", help="Draw from the K likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(metavar="P", help="Draw from the likeliest tokens that together reach P."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(metavar="P", help="Draw from tokens P times as likely as the likeliest."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Where random numbers start; the same seed, the same text.")
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="How many texts of each prompt.")] = 1,
    repetition_penalty: Annotated[
        float, typer.Option(metavar="R", help="Above 1, tokens that were there are less likely.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text; may be given several times."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show what each new word looked at as it was written.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a prompt that is too long rather than cut it.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to a file instead, as JSON where it ends so.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write on where a prompt ends."""
    sampling = _sampling(
        temperature, repetition_penalty, seed, samples, top_k=top_k, top_p=top_p, min_p=min_p
    )
    if prompt and len(prompt) > 1:
        raise ArgumentError(f'generate takes one prompt; put it in quotes: "{" ".join(prompt)}"')
    if model is None:
        raise ArgumentError(
            "generate needs --model, a directory with a decoder such as GPT-2's or its name on the "
            "Hugging Face hub: Pellucid comes with none yet"
        )
    import secrets

    from pellucid.common.terminal import steps
    from pellucid.models import load
    from pellucid.tasks import generate_terminal as terminal
    from pellucid.tasks.generate import as_decoder
    from pellucid.tasks.terminal import read

    prompts = read(prompt, file, strict=strict)
    with steps() as step:
        step("opening the model", 0, 1)
        loaded = as_decoder(load(model))
    written = terminal.write(
        loaded,
        prompts.texts,
        names=prompts.names,
        shows=output is None and not json,
        max_tokens=max_tokens,
        sampling=sampling,
        stop=stop or (),
        samples=samples,
        seed=secrets.randbits(32) if seed is None else seed,
        strict=strict,
    )
    is_json = output is not None and output.suffix.lower() == ".json"
    said = terminal.to_json(written, model, loaded if show else None) if json or is_json else ""
    if output is not None:
        write(output, (said if is_json else terminal.to_text(written)) + "\n")
    if json:
        typer.echo(said)
    if show and not json:
        from rich.console import Console

        terminal.show(loaded, written, Console(highlight=False))
    if written.is_interrupted:
        raise typer.Exit(INTERRUPTED)


@commands.command("translate")
def translate_texts(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="Texts, in quotes; else those of --file or of standard input."
        ),
    ] = None,
    file: FileOption = None,
    column: ColumnOption = None,
    model: Annotated[
        str | None,
        typer.Option(help="A directory with an encoder-decoder, or its name on the hub."),
    ] = None,
    beams: Annotated[
        int, typer.Option(metavar="N", help="Translations that run at once; 1 is greedy.")
    ] = 4,
    length_penalty: Annotated[
        float, typer.Option(metavar="P", help="Above 0 favours long translations.")
    ] = 1.0,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Of a translation; thrice those of its text and 50 unless given."
        ),
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Show which words each word was made of.")
    ] = False,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*TRANSLATIONS)] = None,
    json: JsonOption = False,
) -> None:
    """Turn texts of one language into another."""
    from pellucid.common.files import printable
    from pellucid.tasks import terminal as shared
    from pellucid.tasks import translate_terminal as terminal
    from pellucid.text import tables

    if output is not None:
        tables.check_kind(output, TRANSLATIONS)
        if align and output.suffix.lower() not in ALIGNMENTS:
            raise ArgumentError(
                f"what --align shows goes into {' or '.join(ALIGNMENTS)}, not '{output.name}'"
            )
    if model is None:
        raise ArgumentError(
            "translate needs --model, a directory with an encoder-decoder such as Marian's or its "
            "name on the Hugging Face hub: Pellucid comes with none yet"
        )
    found = shared.read(texts, file, column, strict=strict)
    loaded = terminal.opened(model)
    options = {"beams": beams, "length_penalty": length_penalty, "max_tokens": max_tokens}
    done = terminal.translated(loaded, found, strict=strict, **options)
    grids = terminal.aligned(loaded, done) if align else None
    columns = terminal.columns(found, done, grids)
    said = {"model": shared.name_of(model), **options, "items": terminal.rows(columns)}
    if output is not None:
        terminal.put(output, said, found, done, columns)
        wrote(output)
    if json:
        typer.echo(shared.to_json(said))
    elif output is None and grids is not None:
        from rich.console import Console

        terminal.show_aligned(done, grids, Console(highlight=False))
    elif output is None:
        for line in terminal.lines(found, done):
            typer.echo(printable(line))


def _sampling(
    temperature: float | None,
    penalty: float,
    seed: int | None,
    samples: int,
    **cuts: float | None,
) -> "Sampling":
    """What the options say together."""
    from pellucid.tasks.sampling import Sampling

    given = {name: value for name, value in cuts.items() if value is not None}
    if temperature is None:
        temperature = 1.0 if given or samples > 1 or seed is not None else 0.0
    elif temperature == 0 and given:
        name = next(iter(given)).replace("_", "-")
        raise ArgumentError(f"--{name} has nothing to choose from at --temperature 0")
    return Sampling(temperature=temperature, repetition_penalty=penalty, **given)  # type: ignore[arg-type]
