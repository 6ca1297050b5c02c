"""`pellucid embed`, `similar`, `cluster` and `classify`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid import pretrained
from pellucid.commands.corpora import OverOption, PartOption, WorkersOption, check_alone, work_over
from pellucid.commands.shared import (
    COLUMNS,
    BalancedOption,
    ColumnOption,
    DelimiterOption,
    EncodingOption,
    FileOption,
    JsonOption,
    OverwriteOption,
    PredictOption,
    SeedOption,
    SeparatorOption,
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
    from pellucid.tasks import open_encoder
    from pellucid.text.columns import parsed_column
    from pellucid.text.table_reading import Reading
    from pellucid.text.text_inputs import Source

    reading = Reading(delimiter=delimiter, encoding=encoding)
    check_alone("model", "prompt", "truncate_dim", "strict")
    if over is not None:
        from pellucid.corpora import Embed

        task = Embed(model=model, prompt=prompt, truncate_dim=truncate_dim, strict=strict)
        return work_over(task, over, output, json, workers, part, column, reading)
    check_files(VECTORS, overwrite=overwrite, output=output)
    asked: dict[str, Any] = {"prompt": prompt, "truncate_dim": truncate_dim}
    is_table = output is not None and output.suffix.lower() != ".json"
    if output is not None and is_table and file and str(file) != "-" and not (texts or json):
        named = None if column is None else parsed_column(column)
        source = partial(Source, file, named, None, reading, whole=strict)
        encoder = opened(model, open_encoder)
        embedded_file(encoder, source, output, model, strict=strict, overwrite=overwrite, **asked)
        wrote(output)
        return
    items = read_texts(texts, file, column, reading=reading, strict=strict)
    encoder = opened(model, open_encoder)
    try:
        vectors = embedded(encoder, items, strict=strict, **asked)
    except KeyboardInterrupt:
        note("stopped; nothing is kept: only --file FILE with -o FILE.parquet or .npy continues")
        raise
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: embeddings.data(items, vectors, model),
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
    from pellucid.commands.inputs import embedded, embedded_query, found, opened, read_texts
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
        items, matches = found(
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
    _check_seed(seed)
    items = read_texts(None, file, column, reading=reading, strict=strict)
    vectors = embedded(opened(model, open_encoder), items, strict=strict)
    with steps() as step:
        step("grouping", 0, 1)
        clustering = cluster(items.texts, vectors, groups, seed)
        if svg is not None or html is not None:
            step("drawing the map", 0, 1)
            placed = cluster_map.places(vectors, seed)
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


@commands.command("classify")
def label_texts(
    texts: Texts = None,
    examples: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labelled texts to learn from: .csv, .tsv, .jsonl, ..."),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A head that --save wrote, so that --examples are not needed."
        ),
    ] = None,
    file: FileOption = None,
    column: ColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    label: Annotated[
        str, typer.Option(metavar="NAME", help="The column of the examples with the label.")
    ] = "label",
    predict: PredictOption = None,
    separator: SeparatorOption = None,
    balanced: BalancedOption = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the head, a safetensors file.")
    ] = None,
    seed: SeedOption = 0,
    model: Annotated[
        str | None,
        model_option(
            "A model that labels texts, from `pellucid train classifier` or Hugging Face (default: "
            "Pellucid's own, for film reviews). With --examples or --head any encoder (default: "
            "all-MiniLM-L6-v2, or that of the head)."
        ),
    ] = None,
    strict: StrictOption = False,
    over: OverOption = None,
    workers: WorkersOption = "1",
    part: PartOption = None,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Label texts: learn the labels from examples, or use a trained model (by default, whether a
    film review is positive).
    """
    has_own = False
    if examples is None and head is None:
        model = model or str(pretrained.SENTIMENT)
        head = _trained_head(model)
        has_own = head is None
    elif examples is not None and head is not None:
        raise ArgumentError("give either --examples, labelled texts, or --head, a saved head")
    if head is not None and save is not None:
        raise ArgumentError("--save goes with --examples; the head is saved already")
    if head is not None and (predict is not None or separator is not None or balanced):
        raise ArgumentError("--predict, --separator and --balanced go with --examples")
    from dataclasses import replace

    from pellucid.commands.inputs import embedded, opened, read_texts
    from pellucid.commands.printing import classification
    from pellucid.commands.printing.console import note
    from pellucid.common.files import to_json
    from pellucid.tasks import evaluate, open_encoder, targets
    from pellucid.tasks import predict as predict_labels
    from pellucid.tasks.classify import Head, OwnClassifier, check_head
    from pellucid.tasks.embedding import PROBE, name_of
    from pellucid.text.table_reading import Reading, has_columns
    from pellucid.text.text_inputs import from_arguments

    reading = Reading(delimiter=delimiter, encoding=encoding)
    check_alone("model", "head", "strict")
    if over is not None:
        from pellucid.corpora import Classify

        task = Classify(head=head, model=model, strict=strict)
        return work_over(task, over, output, json, workers, part, column, reading)
    check_files(COLUMNS, overwrite=overwrite, saves="head", save=save, output=output)
    _check_seed(seed)
    classifier = None if head is None else Head.load(head)
    if classifier is not None and model is None:
        model = classifier.model
    labelled = learnt = None
    if examples is not None:
        several = predict == "labels" or separator is not None
        labelled = read_texts(
            None, examples, column, label, reading=reading, strict=strict, may_lack=several
        )
        learnt = targets.read(labelled.labels, targets.kind_named(predict), separator)
        if predict is None and separator is None and isinstance(learnt[0], float):
            note(f"'{label}' is a number, so numbers are predicted; --predict label for labels")
    items = None
    if texts or file is not None or examples is None:
        columned = (
            column
            if labelled is None or (file and (file.is_dir() or has_columns(file, reading)))
            else None
        )
        items = read_texts(texts, file, columned, reading=reading, strict=strict)
    elif output is not None:
        raise ArgumentError("--output needs texts to classify; give some, or --file")
    encoder = opened(model, open_encoder)
    report: dict[str, Any] = {"model": name_of(model)}
    console = plain_console()
    if has_own and items is not None:
        own = OwnClassifier.of(encoder)
        shares = embedded(encoder, items, strict=strict, compute=predict_labels)
        report |= {"kind": own.kind, "labels": list(own.labels)}
        give(
            output,
            json,
            overwrite=overwrite,
            data=lambda: (
                report | {"notes": items.notes} | {"items": classification.data(items, own, shares)}
            ),
            columns=lambda: classification.columns(items, own, shares),
            show=lambda: classification.show(items, own, shares, console),
        )
        return
    probe = embedded(encoder, from_arguments([PROBE]))[0]
    if classifier is None:
        assert labelled is not None
        assert learnt is not None
        vectors = embedded(encoder, labelled, strict=strict)
        evaluation = evaluate(vectors, learnt, seed, texts=labelled.texts, balanced=balanced)
        classifier = Head.fit(vectors, learnt, balanced=balanced, model=model, probe=probe)
        if evaluation is not None:
            classifier = replace(
                classifier, temperature=evaluation.temperature, margin=evaluation.margin
            )
        report |= {"held_out": None if evaluation is None else evaluation.data()}
    else:
        check_head(classifier, probe, model)
    report |= {"kind": classifier.kind, "labels": list(classifier.labels)}
    said = None
    if items is not None:
        said = classifier.predictions(embedded(encoder, items, strict=strict))
    # Nothing is printed or written until everything that can fail has been done.
    if save is not None:
        classifier.save(save, overwrite=overwrite)
        wrote(save)
    if labelled is not None and not json:
        classification.show_evaluation(evaluation, labelled, console)
        if items is not None and output is None:
            console.print()
    if items is None or said is None:
        if json:
            typer.echo(to_json(report))
        return
    give(
        output,
        json,
        overwrite=overwrite,
        data=lambda: (
            report
            | {"notes": [*(labelled.notes if labelled else ()), *items.notes]}
            | {"items": classification.data(items, classifier, said)}
        ),
        columns=lambda: classification.columns(items, classifier, said),
        show=lambda: classification.show(items, classifier, said, console),
    )


def _trained_head(model: str) -> Path | None:
    """The head in the directory of a model; None if the model has a classifier of its own."""
    from pellucid.common.files import printable
    from pellucid.common.untrusted import inside, json_in
    from pellucid.models.checkpoints.classifying import labels_texts
    from pellucid.models.checkpoints.source import directory_of, opening
    from pellucid.tasks.classify import FILE

    directory = directory_of(model)
    with opening(model):
        file = inside(directory, FILE)
        has_config = (directory / "config.json").is_file()
        if not file.is_file() and has_config and labels_texts(json_in(directory, "config.json")):
            return None
    if not file.is_file():
        raise ArgumentError(
            f"--model '{printable(model)}' has neither a {FILE} with labels, which `pellucid train "
            "classifier` writes, nor a classifier of its own; give --examples, labelled "
            "texts, or --head, a saved head"
        )
    return file


def _check_seed(seed: int) -> None:
    from pellucid.tasks.clustering import SEEDS
    from pellucid.tasks.whole_numbers import check_whole

    check_whole("--seed", seed, 0, SEEDS)
