"""`pellucid generate` and `pellucid translate`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid import pretrained
from pellucid.commands.shared import (
    TEXTS,
    ColumnOption,
    FileOption,
    JsonOption,
    OverwriteOption,
    StrictOption,
    check_files,
    give,
    model_option,
    output_option,
    plain_console,
)
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.tasks.sampling import Sampling

commands = typer.Typer()

ALIGNMENTS = (".json", ".parquet")
"""Files that hold a grid of numbers for each text."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as a shell has it: 128 and the number of the signal."""


@commands.command()
def generate(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help='How the text begins, like "Once"; else those of --file or of standard input.',
        ),
    ] = None,
    file: FileOption = None,
    column: ColumnOption = None,
    model: Annotated[
        str | None,
        model_option(
            "A decoder; Pellucid's own, which knows the English of the Bible, unless given."
        ),
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
        int | None,
        typer.Option(metavar="N", help="Where random numbers start; the same seed, the same text."),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="How many texts of each prompt.")] = 1,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Above 1, tokens that were there are less likely. As the model asks, or 1, unless "
            "given.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text; may be given several times."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show what each new word looked at as it was written.")
    ] = False,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*TEXTS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write on where a prompt ends."""
    penalty = 1.0 if repetition_penalty is None else repetition_penalty
    sampling = _sampling(temperature, penalty, seed, samples, top_k=top_k, top_p=top_p, min_p=min_p)
    if prompt and len(prompt) > 1:
        raise ArgumentError(f'generate takes one prompt; put it in quotes: "{" ".join(prompt)}"')
    import secrets

    from pellucid.commands.inputs import opened, read_texts
    from pellucid.commands.printing import generation
    from pellucid.tasks.generation import check_numbers, open_writer, penalty_of

    check_files(TEXTS, overwrite=overwrite, output=output)
    seed = secrets.randbits(32) if seed is None else seed
    numbers: dict[str, Any] = {
        "max_tokens": max_tokens,
        "sampling": sampling,
        "samples": samples,
        "seed": seed,
    }
    check_numbers(**numbers)
    prompts = read_texts(prompt, file, column, strict=strict)
    model = model or str(pretrained.DECODER)
    loaded = opened(model, open_writer)
    if repetition_penalty is None:
        numbers["sampling"] = replace(sampling, repetition_penalty=penalty_of(loaded))
    shows = output is None and not json
    written = generation.write(
        loaded, prompts, shows=shows, stop=stop or (), strict=strict, **numbers
    )
    give(
        output,
        json,
        overwrite=overwrite,
        said=lambda: generation.said(written, model, loaded if show else None),
        columns=lambda: generation.columns(written),
        text=lambda: generation.to_text(written) + "\n",
        show=lambda: None,  # it was shown as it was written
    )
    if show and not json:
        generation.show(loaded, written, plain_console())
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
        model_option("An encoder-decoder; Pellucid's own, English to Spanish, unless given."),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Translations that run at once; 1 is greedy. As the model asks, or 4, unless "
            "given.",
        ),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Above 0 favours long translations. As the model asks, or 1, unless given.",
        ),
    ] = None,
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
    output: Annotated[Path | None, output_option(*TEXTS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Turn texts of one language into another."""
    from pellucid.commands.inputs import opened, read_texts
    from pellucid.commands.printing import translation
    from pellucid.tasks.embedding import name_of
    from pellucid.tasks.translation import open_translator, search_of
    from pellucid.text.table_writing import rows_of

    check_files(TEXTS, overwrite=overwrite, output=output)
    if align and output is not None and output.suffix.lower() not in ALIGNMENTS:
        raise ArgumentError(
            f"what --align shows goes into {' or '.join(ALIGNMENTS)}, not '{output.name}'"
        )
    model = model or str(pretrained.TRANSLATOR)
    found = read_texts(texts, file, column, strict=strict)
    loaded = opened(model, open_translator)
    beams, length_penalty = search_of(loaded, beams, length_penalty)
    options = {"beams": beams, "length_penalty": length_penalty, "max_tokens": max_tokens}
    done = translation.translated(loaded, found, strict=strict, **options)
    grids = translation.aligned(loaded, done) if align else None
    columns = translation.columns(found, done, grids)
    about = {"model": name_of(model), **options}
    give(
        output,
        json,
        overwrite=overwrite,
        said=lambda: about | {"items": rows_of(columns)},
        columns=lambda: columns,
        text=lambda: "".join(f"{line}\n" for line in translation.lines(found, done)),
        show=lambda: translation.show(
            found, done, grids, plain_console(), loaded.generation.alignment_heads
        ),
    )


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
