"""`pellucid generate` and `pellucid translate`."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid import pretrained
from pellucid.commands.corpora import OverOption, PartOption, WorkersOption, check_alone, work_over
from pellucid.commands.shared import (
    TEXTS,
    ColumnOption,
    DelimiterOption,
    EncodingOption,
    FileOption,
    JsonOption,
    OverwriteOption,
    PrecisionOption,
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

SystemOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What a model is told before a conversation."),
]

ALIGNMENTS = (".json", ".parquet")
"""Kinds of files that can hold an alignment for each text."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as in a shell: 128 plus the number of the signal."""


@commands.command()
def generate(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help='How the text begins, like "Once" (default: from --file or standard input).',
        ),
    ] = None,
    file: FileOption = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    model: Annotated[
        str | None,
        model_option("A decoder (default: Pellucid's own, trained on the English of the Bible)."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Generate at most N tokens.")] = 128,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="0 always takes the likeliest token; higher samples more freely (default: the "
            "model's own, or 0, or 1 with an option below that samples).",
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(metavar="K", help="Sample from the K likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Sample from the likeliest tokens whose probabilities reach P together.",
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Sample from tokens at least P times as likely as the likeliest."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="The random seed; the same seed gives the same text."),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Texts per prompt.")] = 1,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Above 1, earlier tokens get less likely (default: the model's own, or 1).",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Stop before this text or special token; may be given several times.",
        ),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Reply to the prompt, by the model's chat template."),
    ] = False,
    system: SystemOption = None,
    beams: Annotated[
        int,
        typer.Option(metavar="N", help="Search for the likeliest text with N beams; 1 is greedy."),
    ] = 1,
    precision: PrecisionOption = "float32",
    show: Annotated[
        bool,
        typer.Option("--show", help="Show what each new word attended to when it was generated."),
    ] = False,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*TEXTS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Continue a prompt."""
    if system is not None and not chat:
        raise ArgumentError("--system is for conversations; give --chat too")
    penalty = 1.0 if repetition_penalty is None else repetition_penalty
    cuts = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    sampling = _sampling(temperature, penalty, seed, samples, cuts)
    if prompt and len(prompt) > 1:
        raise ArgumentError(f'generate takes one prompt; put it in quotes: "{" ".join(prompt)}"')
    import secrets

    from pellucid.commands.inputs import opened, read_texts
    from pellucid.commands.printing import generation
    from pellucid.commands.printing.console import note
    from pellucid.layers.bfloat16 import resolved
    from pellucid.tasks.conversation import prompt_of
    from pellucid.tasks.decoders import open_writer, sampling_of
    from pellucid.tasks.generation import check_numbers, digits_lost
    from pellucid.text.table_reading import Reading

    reading = Reading(delimiter=delimiter, encoding=encoding)
    check_files(TEXTS, overwrite=overwrite, output=output)
    seed = secrets.randbits(32) if seed is None else seed
    numbers: dict[str, Any] = {
        "max_tokens": max_tokens,
        "sampling": sampling,
        "samples": samples,
        "seed": seed,
    }
    check_numbers(**numbers)
    kind = resolved(precision)
    prompts = read_texts(prompt, file, column, reading=reading, strict=strict)
    model = model or str(pretrained.DECODER)
    loaded = opened(model, open_writer)
    own = sampling_of(loaded)
    if repetition_penalty is None:
        sampling = replace(sampling, repetition_penalty=own.repetition_penalty)
    if not own.is_greedy and beams == 1 and temperature != 0:
        given: dict[str, Any] = {"temperature": temperature, **cuts}
        sampling = replace(
            own,
            repetition_penalty=sampling.repetition_penalty,
            **{name: value for name, value in given.items() if value is not None},
        )
        if temperature is None:
            note(
                "tokens are sampled, as the model's generation_config.json says, at temperature "
                f"{sampling.temperature:g}; --temperature 0 takes the likeliest"
            )
    numbers["sampling"] = sampling
    written = generation.write(
        loaded,
        prompts,
        chat=[prompt_of(loaded, text, system) for text in prompts.texts] if chat else None,
        shows=output is None and not json,
        stop=stop or (),
        strict=strict,
        beams=beams,
        precision=kind,
        **numbers,
    )
    lost = {}
    if kind == "bfloat16":
        assert loaded.tokenizer is not None
        difference = digits_lost(loaded, loaded.tokenizer.encode(prompts.texts[:1])[0])
        note(str(difference))
        lost = asdict(difference)
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: (
            generation.data(written, model, loaded if show else None)
            | lost
            | {"notes": prompts.notes}
        ),
        columns=lambda: generation.columns(written),
        text=lambda: generation.to_text(written) + "\n",
        show=lambda: None,  # it was shown as it was generated
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
            metavar="TEXT", help="Texts, in quotes (default: from --file or standard input)."
        ),
    ] = None,
    file: FileOption = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    model: Annotated[
        str | None,
        model_option("An encoder-decoder (default: Pellucid's own, English to Spanish)."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LANGUAGE",
            help="That of the texts, such as en, if the model has several.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="LANGUAGE",
            help="That of the translations, such as fr, if the model has several.",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Translate each text whole, not sentence by sentence; one that is too long is "
            "then cut short.",
        ),
    ] = False,
    protect: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Which addresses, tags, placeholders and numbers to keep as they are: those that "
            "would come out changed, those unknown to the tokenizer, all or none.",
        ),
    ] = "changed",
    beams: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Beams of the search; 1 is greedy (default: the model's own, or 4).",
        ),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Above 0 favours long translations (default: the model's own, or 1).",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The most tokens per translation (default: 3 times those of its text, plus 50).",
        ),
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Show which words each word was translated from.")
    ] = False,
    strict: StrictOption = False,
    over: OverOption = None,
    workers: WorkersOption = "1",
    part: PartOption = None,
    output: Annotated[Path | None, output_option(*TEXTS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Translate texts from one language into another."""
    from pellucid.commands.inputs import opened, read_texts
    from pellucid.commands.printing import translation
    from pellucid.tasks.embedding import name_of
    from pellucid.tasks.translation import open_translator, search_of
    from pellucid.text.table_reading import Reading

    reading = Reading(delimiter=delimiter, encoding=encoding)
    division: dict[str, Any] = {"whole": whole, "protect": protect}
    check_alone(
        *("model", "source", "target", "beams", "length_penalty", "max_tokens", "strict"), *division
    )
    if over is not None:
        from pellucid.corpora import Translate

        task = Translate(
            model=model or str(pretrained.TRANSLATOR),
            source=source,
            target=target,
            beams=beams,
            length_penalty=length_penalty,
            max_tokens=max_tokens,
            strict=strict,
            **division,
        )
        return work_over(task, over, output, json, workers, part, column, reading, overwrite)
    check_files(TEXTS, overwrite=overwrite, output=output)
    if align and output is not None and output.suffix.lower() not in ALIGNMENTS:
        raise ArgumentError(
            f"--align needs a file that ends in {' or '.join(ALIGNMENTS)}, not '{output.name}'"
        )
    model = model or str(pretrained.TRANSLATOR)
    items = read_texts(texts, file, column, reading=reading, strict=strict)
    loaded = opened(model, open_translator)
    beams, length_penalty = search_of(loaded, beams, length_penalty)
    options = {"beams": beams, "length_penalty": length_penalty, "max_tokens": max_tokens}
    translations = translation.translated(
        loaded, items, strict=strict, source=source, target=target, **division, **options
    )
    grids = translation.aligned(loaded, translations) if align else None
    columns = translation.columns(items, translations, grids)
    about = {"model": name_of(model), **options}
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: (
            about | {"notes": items.notes, "items": translation.rows(columns, translations)}
        ),
        columns=lambda: columns,
        text=lambda: "".join(f"{line}\n" for line in translation.lines(items, translations)),
        show=lambda: translation.show(
            items, translations, grids, plain_console(), loaded.generation.alignment_heads
        ),
    )


def _sampling(
    temperature: float | None,
    penalty: float,
    seed: int | None,
    samples: int,
    cuts: Mapping[str, float | None],
) -> "Sampling":
    """How to sample, by the options."""
    from pellucid.tasks.sampling import Sampling

    limits = {name: value for name, value in cuts.items() if value is not None}
    if temperature is None:
        temperature = 1.0 if limits or samples > 1 or seed is not None else 0.0
    elif temperature == 0 and limits:
        name = next(iter(limits)).replace("_", "-")
        raise ArgumentError(
            f"--{name} has no effect at --temperature 0, which always takes the likeliest token"
        )
    return Sampling(temperature=temperature, repetition_penalty=penalty, **limits)  # type: ignore[arg-type]
