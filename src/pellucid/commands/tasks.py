"""`pellucid embed`, `similar`, `cluster` and `classify`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid import pretrained
from pellucid.commands.shared import (
    COLUMNS,
    ColumnOption,
    FileOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    StrictOption,
    Texts,
    check_files,
    give,
    model_option,
    output_option,
    plain_console,
    write,
    wrote,
)
from pellucid.errors import ArgumentError

commands = typer.Typer()

Input = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="One text a line, or .csv, .tsv, .jsonl, .parquet; or -."),
]
ModelOption = Annotated[
    str | None,
    model_option("An encoder; all-MiniLM-L6-v2 unless given."),
]
VECTORS = (".npy", ".parquet", ".json")


@commands.command("embed")
def embed_texts(
    texts: Texts = None,
    file: FileOption = None,
    column: ColumnOption = None,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*VECTORS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Turn texts into vectors whose cosine says how similar they are."""
    from pellucid.commands.inputs import embedded, opened, read_texts
    from pellucid.commands.printing import embeddings
    from pellucid.tasks import open_encoder

    check_files(VECTORS, overwrite=overwrite, output=output)
    found = read_texts(texts, file, column, strict=strict)
    vectors = embedded(opened(model, open_encoder), found, strict=strict)
    give(
        output,
        json,
        overwrite=overwrite,
        said=lambda: embeddings.said(found, vectors, model),
        columns=lambda: embeddings.columns(found, vectors),
        show=lambda: embeddings.show(found, vectors, model, plain_console()),
    )


@commands.command("similar")
def rank_texts(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    file: Input = None,
    column: ColumnOption = None,
    top: Annotated[int, typer.Option(metavar="N", help="How many texts.")] = 10,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Find the texts that are nearest in meaning to a query."""
    from pellucid.commands.inputs import embedded, opened, read_texts
    from pellucid.commands.printing import similarity
    from pellucid.tasks import open_encoder, similar
    from pellucid.text.text_inputs import from_arguments

    check_files(COLUMNS, overwrite=overwrite, output=output)
    if file is None and os.path.isfile(query):
        raise ArgumentError(
            f"'{query}' is a file, and what to look for comes before it: "
            f"pellucid similar \"some words\" '{query}'"
        )
    if top < 1:
        raise ArgumentError(f"--top must be 1 or more, not {top}")
    asked = from_arguments([query])
    found = read_texts(None, file, column, strict=strict)
    encoder = opened(model, open_encoder)
    vectors = embedded(encoder, found, strict=strict)
    ranked = similar(embedded(encoder, asked, strict=strict)[0], vectors, top)
    give(
        output,
        json,
        overwrite=overwrite,
        said=lambda: similarity.said(query, found, ranked, model),
        columns=lambda: similarity.columns(found, ranked),
        show=lambda: similarity.show(query, found, ranked, plain_console()),
    )


@commands.command("cluster")
def group_texts(
    file: Input = None,
    column: ColumnOption = None,
    groups: Annotated[
        int | None,
        typer.Option("--groups", "-k", metavar="N", help="How many; what fits best if not given."),
    ] = None,
    seed: SeedOption = 0,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page: the map and every group.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the map.")] = None,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Put similar texts into groups, and say what each is about."""
    from pellucid.commands.inputs import embedded, opened, read_texts
    from pellucid.commands.printing import clusters
    from pellucid.commands.printing.console import steps
    from pellucid.tasks import cluster_map, open_encoder
    from pellucid.tasks.clustering import cluster

    check_files(COLUMNS, overwrite=overwrite, html=html, svg=svg, output=output)
    if groups is not None and groups < 1:
        raise ArgumentError(f"--groups must be 1 or more, not {groups}")
    _check_seed(seed)
    found = read_texts(None, file, column, strict=strict)
    vectors = embedded(opened(model, open_encoder), found, strict=strict)
    with steps() as step:
        step("grouping", 0, 1)
        made = cluster(found.texts, vectors, groups, seed)
        if svg is not None or html is not None:
            step("drawing the map", 0, 1)
            placed = cluster_map.places(vectors, seed)
    for kind, path, draw in (
        ("svg", svg, cluster_map.to_svg),
        ("html", html, cluster_map.to_html),
    ):
        if path is not None:
            write(path, draw(found.texts, made, placed, title=found.source), kind, overwrite)
    give(
        output,
        json,
        overwrite=overwrite,
        said=lambda: clusters.said(found, made, model),
        columns=lambda: clusters.columns(found, made),
        show=lambda: clusters.show(found, made, plain_console()),
    )


@commands.command("classify")
def label_texts(
    texts: Texts = None,
    examples: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labelled texts to learn from: .csv, .tsv, .jsonl, ..."),
    ] = None,
    head: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Or a head that --save wrote.")
    ] = None,
    file: FileOption = None,
    column: ColumnOption = None,
    label: Annotated[
        str, typer.Option(metavar="NAME", help="Which column of the examples is the label.")
    ] = "label",
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the head, a safetensors file.")
    ] = None,
    seed: SeedOption = 0,
    model: Annotated[
        str | None,
        model_option(
            "One that `pellucid train classifier` wrote; Pellucid's own, which knows reviews of "
            "films, unless given. With --examples or --head any encoder; all-MiniLM-L6-v2, or "
            "that of the head, unless given."
        ),
    ] = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Learn labels from a few examples, and give them to texts; or give those that a model was
    trained on, which for Pellucid's own are whether somebody liked a film.
    """
    if examples is None and head is None:
        model = model or str(pretrained.SENTIMENT)
        head = _trained_head(model)
    elif examples is not None and head is not None:
        raise ArgumentError("give either --examples, labelled texts, or --head, a saved head")
    if head is not None and save is not None:
        raise ArgumentError("--save goes with --examples; the head is saved already")
    from pellucid.commands.inputs import embedded, opened, read_texts
    from pellucid.commands.printing import classification
    from pellucid.common.files import to_json
    from pellucid.tasks import open_encoder
    from pellucid.tasks.classify import PROBE, Head, check_head, evaluate
    from pellucid.tasks.embedding import name_of
    from pellucid.text.text_inputs import from_arguments, has_columns

    check_files(COLUMNS, overwrite=overwrite, saves="head", save=save, output=output)
    _check_seed(seed)
    fitted = None if head is None else Head.load(head)
    if fitted is not None and model is None:
        model = fitted.model
    learnt = None
    if examples is not None:
        learnt = read_texts(None, examples, column, label, strict=strict)
    found = None
    if texts or file is not None or head is not None:
        columned = column if learnt is None or (file and has_columns(file)) else None
        found = read_texts(texts, file, columned, strict=strict)
    elif output is not None:
        raise ArgumentError("--output is for texts to classify; give some, or --file")
    encoder = opened(model, open_encoder)
    probe = embedded(encoder, from_arguments([PROBE]))[0]
    said: dict[str, Any] = {"model": name_of(model)}
    console = plain_console()
    if fitted is None:
        assert learnt is not None
        vectors = embedded(encoder, learnt, strict=strict)
        judged = evaluate(vectors, learnt.labels, seed)
        fitted = Head.fit(vectors, learnt.labels, model=model, probe=probe)
        said |= {"held_out": classification.evaluation_said(judged)}
    else:
        check_head(fitted, probe, model)
    said |= {"labels": list(fitted.labels)}
    likely = None
    if found is not None:
        likely = fitted.probabilities(embedded(encoder, found, strict=strict))
    # Nothing is printed or written before all that can fail has been done.
    if save is not None:
        fitted.save(save, overwrite=overwrite)
        wrote(save)
    if learnt is not None and not json:
        classification.show_evaluation(judged, learnt, console)
        if found is not None and output is None:
            console.print()
    if found is None or likely is None:
        if json:
            typer.echo(to_json(said))
        return
    give(
        output,
        json,
        overwrite=overwrite,
        said=lambda: said | {"items": classification.said(found, fitted, likely)},
        columns=lambda: classification.columns(found, fitted, likely),
        show=lambda: classification.show(found, fitted, likely, console),
    )


def _trained_head(model: str) -> Path:
    """The head that a model was trained with, which lies beside it."""
    from pellucid.common.files import printable
    from pellucid.models.checkpoints.source import directory_of
    from pellucid.tasks.classify import FILE

    beside = directory_of(model) / FILE
    if not beside.is_file():
        raise ArgumentError(
            f"--model '{printable(model)}' has no {FILE}, which `pellucid train classifier` writes "
            "and says what the labels are; give --examples, labelled texts, or --head, a saved head"
        )
    return beside


def _check_seed(seed: int) -> None:
    from pellucid.tasks.clustering import SEEDS
    from pellucid.tasks.whole_numbers import check_whole

    check_whole("--seed", seed, 0, SEEDS)
