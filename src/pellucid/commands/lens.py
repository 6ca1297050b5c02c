"""`pellucid watch` and `pellucid heads`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.commands.corpora import OverOption, PartOption, WorkersOption, check_alone, work_over
from pellucid.commands.shared import (
    ByName,
    ColumnOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    check_files,
    check_seed,
    given_options,
    model_option,
    one_text,
    plain_console,
    wrote,
)
from pellucid.errors import ArgumentError, FileError

commands = typer.Typer()

TextOrRecording = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT",
        help='What the model reads, like "Write a poem"; or a recording, FILE.safetensors.',
    ),
]
TextFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read the text from a file; - is standard input."),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What the decoder of an encoder-decoder reads (default: the same text).",
    ),
]
ReaderOption = Annotated[
    str | None,
    model_option("An encoder, a decoder or an encoder-decoder (default: Pellucid's decoder)."),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Layers, numbers or names separated by commas; negative numbers count from the last "
        "(default: all).",
    ),
]
MaxTokensOption = Annotated[
    int | None, typer.Option(metavar="N", help="Read only the first N tokens.")
]


@commands.command("watch")
def watch_text(
    text: Annotated[
        list[str] | None, typer.Argument(help='What the model reads, like "Write a poem".')
    ] = None,
    file: TextFileOption = None,
    encoding: EncodingOption = None,
    target: TargetOption = None,
    model: ReaderOption = None,
    layers: LayersOption = None,
    max_tokens: MaxTokensOption = None,
    top: Annotated[
        int,
        typer.Option(metavar="N", help="How many of the strongest links between words to show."),
    ] = 10,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the recording, a safetensors file.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Record a model's attention to a text, and show what each head does."""
    from pellucid.commands.inputs import parse_layers, read_text
    from pellucid.commands.printing import heads
    from pellucid.commands.printing.console import steps
    from pellucid.readers.forward_pass import look

    argument = one_text("watch", text)
    check_files(overwrite=overwrite, save=save)
    content, chosen = read_text(argument, file, encoding), parse_layers(layers)
    with steps() as step:
        seen = look(
            content,
            target=target,
            model=model,
            layers=chosen,
            max_tokens=max_tokens,
            top=top,
            save=save,
            overwrite=overwrite,
            step=step,
        )
    if save is not None:
        wrote(save)
    if json:
        typer.echo(heads.to_json(seen))
    else:
        heads.show(seen, plain_console())


PROBES = ("only", "length", "texts", "most", "controls", "by", "no_check", "seed")
PROBE_WITH = ("probe", "model", "json", *PROBES)
"""What --probe goes with."""


@commands.command("heads")
def show_heads(
    recording: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A recording that `pellucid watch` saved.")
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Sort the heads by a column.")
    ] = "layer",
    model: ReaderOption = None,
    max_tokens: MaxTokensOption = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    over: OverOption = None,
    workers: WorkersOption = "1",
    part: PartOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="For --over FOLDER: a new directory."),
    ] = None,
    overwrite: OverwriteOption = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Test the heads of a decoder on texts made for the purpose: induction, retrieval, "
            "name movers and others; and knock them out to see whether it matters.",
        ),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Probes: names of probes, separated by commas (default: all)."
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Probes: the most tokens of a text (default: 128, or the model's positions).",
        ),
    ] = None,
    texts: Annotated[
        int, typer.Option(metavar="N", help="Probes: how many texts of each kind.")
    ] = 2,
    most: Annotated[
        int, typer.Option(metavar="N", help="Probes: how many heads of each to knock out.")
    ] = 4,
    controls: Annotated[
        int,
        typer.Option(metavar="N", help="Probes: how many random heads to compare with."),
    ] = 19,
    by: Annotated[
        ByName, typer.Option(help="Probes: what takes the place of a head's output.")
    ] = ByName.mean,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Probes: knock out no heads, only score them.")
    ] = False,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Show the heads of a saved recording; or what a model's heads do over a folder of texts; or
    with --probe on texts made for the purpose.
    """
    from pellucid.commands.printing import heads
    from pellucid.commands.printing.console import steps
    from pellucid.lens.head_measures import heads as table_of
    from pellucid.lens.head_table import COLUMNS
    from pellucid.lens.recording import Recording
    from pellucid.text.table_reading import Reading

    check_alone("model", "max_tokens")
    given = given_options()
    if probe:
        for name, shown in given.items():
            if name not in PROBE_WITH:
                raise ArgumentError(f"{shown} does not go with --probe")
        check_seed(seed)
        return _probe(
            model,
            only,
            json,
            length=length,
            texts=texts,
            seed=seed,
            check=not no_check,
            most=most,
            controls=controls,
            by=by.value,
        )
    for name in PROBES:
        if name in given:
            raise ArgumentError(f"{given[name]} goes with --probe")
    if over is not None:
        from pellucid.corpora import MeasureHeads

        task = MeasureHeads(model=model, max_tokens=max_tokens)
        reading = Reading(delimiter=delimiter, encoding=encoding)
        return work_over(task, over, output, json, workers, part, column, reading, overwrite)
    only_over = {
        "--model": model,
        "--output": output,
        "--max-tokens": max_tokens,
        "--overwrite": overwrite or None,
    }
    for name, value in only_over.items():
        if value is not None:
            also = " or --probe" if name == "--model" else ""
            raise ArgumentError(f"{name} goes with --over, a folder of texts{also}")
    if recording is None:
        raise ArgumentError(
            "give a recording that `pellucid watch --save` wrote, or --over, or --probe"
        )
    if sort not in COLUMNS:
        raise ArgumentError(f"--sort must be one of {', '.join(COLUMNS)}, not '{sort}'")
    seen = Recording.load(recording)
    if not seen.records:
        raise FileError("the recording holds no attention")
    with steps() as step:
        table = table_of(seen, progress=lambda done, of: step("looking at heads", done, of))
    table = table.sort(sort)
    if json:
        typer.echo(heads.recording_to_json(seen, table))
    else:
        heads.show_recording(seen, table, plain_console())


def _probe(model: str | None, only: str | None, json: bool, **options: Any) -> None:
    """Probe a decoder's heads and print what they are."""
    from pellucid.commands.printing import probes
    from pellucid.commands.printing.console import steps
    from pellucid.readers.probed import probe_model

    names = None if only is None else [name.strip() for name in only.split(",")]
    with steps() as step:
        opened, table = probe_model(model, probes=names, step=step, **options)
    if json:
        typer.echo(probes.to_json(opened, table))
    else:
        probes.show(opened, table, plain_console())
