"""`pellucid embed`, `similar` and `cluster`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.commands.corpora import OverOption, PartOption, WorkersOption, check_alone, work_over
from pellucid.commands.shared import (
    COLUMNS,
    ColumnOption,
    DelimiterOption,
    EncodingOption,
    FileOption,
    JsonOption,
    OverwriteOption,
    PrecisionOption,
    SeedOption,
    StrictOption,
    Texts,
    check_files,
    check_seed,
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
    typer.Argument(
        metavar="FILE", help="One text per line, or .csv, .tsv, .jsonl, .parquet; or -."
    ),
]
ModelOption = Annotated[
    str | None,
    model_option("An encoder (default: all-MiniLM-L6-v2)."),
]
PromptOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Put this before each text: one of the model's prompts, by name, or text that ends in "
        "a colon or a space.",
    ),
]
VECTORS = (".npy", ".parquet", ".json")


@commands.command("embed")
def embed_texts(
    texts: Texts = None,
    file: FileOption = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    model: ModelOption = None,
    prompt: PromptOption = None,
    truncate_dim: Annotated[
        int | None,
        typer.Option(metavar="N", help="Keep the first N numbers of each vector."),
    ] = None,
    precision: PrecisionOption = "float32",
    strict: StrictOption = False,
    over: OverOption = None,
    workers: WorkersOption = "1",
    part: PartOption = None,
    output: Annotated[Path | None, output_option(*VECTORS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Turn texts into vectors whose cosine similarity measures how similar they are."""
    from functools import partial

    from pellucid.commands.inputs import embedded, embedded_file, opened, read_texts
    from pellucid.commands.printing import embeddings
    from pellucid.commands.printing.console import note
    from pellucid.layers.bfloat16 import resolved
    from pellucid.tasks import open_encoder
    from pellucid.tasks.embedding import digits_lost
    from pellucid.text.columns import parsed_column
    from pellucid.text.table_reading import Reading
    from pellucid.text.text_inputs import Source

    reading = Reading(delimiter=delimiter, encoding=encoding)
    check_alone("model", "prompt", "truncate_dim", "precision", "strict")
    options: dict[str, Any] = {"prompt": prompt, "truncate_dim": truncate_dim}
    kind = resolved(precision)
    if over is not None:
        from pellucid.corpora import Embed

        task = Embed(model=model, strict=strict, precision=kind, **options)
        return work_over(task, over, output, json, workers, part, column, reading, overwrite)
    check_files(VECTORS, overwrite=overwrite, output=output)
    is_table = output is not None and output.suffix.lower() != ".json"
    if output is not None and is_table and file and str(file) != "-" and not (texts or json):
        named = None if column is None else parsed_column(column)
        source = partial(Source, file, named, None, reading, whole=strict)
        encoder = opened(model, open_encoder)
        options |= {"precision": kind, "strict": strict, "overwrite": overwrite}
        embedded_file(encoder, source, output, model, **options)
        wrote(output)
        return
    items = read_texts(texts, file, column, reading=reading, strict=strict)
    encoder = opened(model, open_encoder)
    try:
        vectors = embedded(encoder, items, strict=strict, precision=kind, **options)
    except KeyboardInterrupt:
        note("stopped; nothing is kept: only --file FILE with -o FILE.parquet or .npy continues")
        raise
    lost = None
    if kind == "bfloat16":
        lost = digits_lost(encoder, items.texts, vectors, **options)
        note(str(lost))
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: embeddings.data(items, vectors, model, lost),
        columns=lambda: embeddings.columns(items, vectors),
        show=lambda: embeddings.show(items, vectors, model, plain_console()),
    )


@commands.command("similar")
def rank_texts(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    file: Input = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    top: Annotated[int, typer.Option(metavar="N", help="How many texts to find.")] = 10,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every saved vector, even of millions.")
    ] = False,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Find the texts nearest in meaning to a query."""
    from pellucid.commands.inputs import embedded, embedded_query, nearest_items, opened, read_texts
    from pellucid.commands.printing import similarity
    from pellucid.tasks import open_encoder, saved_vectors, similar
    from pellucid.tasks.embedding import DOCUMENT, role_prompt
    from pellucid.text.table_reading import Reading

    reading = Reading(delimiter=delimiter, encoding=encoding)
    check_files(COLUMNS, overwrite=overwrite, output=output)
    if file is None and os.path.isfile(query):
        raise ArgumentError(
            f"'{query}' is a file; the query comes before it: "
            f"pellucid similar \"some words\" '{query}'"
        )
    if top < 1:
        raise ArgumentError(f"--top must be 1 or more, not {top}")
    saved = saved_vectors.opened(file) if file and saved_vectors.is_saved(file) else None
    if saved is not None and column is None:
        model = saved.model if model is None else model
        items, matches = nearest_items(
            opened(model, open_encoder), saved, query, model, top, strict=strict, is_exact=exact
        )
        total = len(saved.vectors)
    else:
        items = read_texts(None, file, column, reading=reading, strict=strict)
        encoder = opened(model, open_encoder)
        vectors = embedded(encoder, items, strict=strict, prompt=role_prompt(encoder, DOCUMENT))
        matches = similar(embedded_query(encoder, query, strict=strict), vectors, top)
        total = len(items.texts)
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: similarity.data(query, items, matches, model, total),
        columns=lambda: similarity.columns(items, matches),
        show=lambda: similarity.show(query, items, matches, plain_console(), total),
    )


@commands.command("cluster")
def group_texts(
    file: Input = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    groups: Annotated[
        int | None,
        typer.Option(
            "--groups", "-k", metavar="N", help="How many groups (default: what fits best)."
        ),
    ] = None,
    seed: SeedOption = 0,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the map and every group.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the map.")] = None,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Group similar texts, with keywords for each group."""
    from pellucid.commands.inputs import embedded, opened, read_texts
    from pellucid.commands.printing import clusters
    from pellucid.commands.printing.console import steps
    from pellucid.tasks import cluster_map, open_encoder
    from pellucid.tasks.clustering import cluster
    from pellucid.text.table_reading import Reading

    reading = Reading(delimiter=delimiter, encoding=encoding)
    check_files(COLUMNS, overwrite=overwrite, html=html, svg=svg, output=output)
    if groups is not None and groups < 1:
        raise ArgumentError(f"--groups must be 1 or more, not {groups}")
    check_seed(seed)
    items = read_texts(None, file, column, reading=reading, strict=strict)
    vectors = embedded(opened(model, open_encoder), items, strict=strict)
    with steps() as step:
        step("grouping", 0, 1)
        clustering = cluster(items.texts, vectors, groups, seed)
        if svg is not None or html is not None:
            step("drawing the map", 0, 1)
            placed = cluster_map.project(vectors, seed)
    for kind, path, draw in (
        ("svg", svg, cluster_map.to_svg),
        ("html", html, cluster_map.to_html),
    ):
        if path is not None:
            write(path, draw(items.texts, clustering, placed, title=items.source), kind, overwrite)
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: clusters.data(items, clustering, model),
        columns=lambda: clusters.columns(items, clustering),
        show=lambda: clusters.show(items, clustering, plain_console()),
    )
