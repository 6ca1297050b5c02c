"""`pellucid embed`, `similar`, `cluster` and `classify`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.commands.shared import JsonOption, write, wrote
from pellucid.errors import ArgumentError

commands = typer.Typer()

Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts; else those of --file or of standard input."),
]
Input = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="One text a line, or .csv, .tsv, .jsonl, .parquet; or -."),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read the texts from a file: one a line, or .csv, .tsv, .jsonl, .parquet; or -.",
    ),
]
ColumnOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which column or field; text or the only one if not given."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="A directory or hub name of an encoder; all-MiniLM-L6-v2 unless given."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse texts that are empty or too long, not leave out and cut."
    ),
]
COLUMNS = (".csv", ".json", ".parquet")


def output_option(*kinds: str) -> Any:
    """-o FILE of one of these kinds."""
    told = ", ".join(kinds)
    return typer.Option("--output", "-o", metavar="FILE", help=f"Write to a file instead: {told}.")


@commands.command("embed")
def embed_texts(
    texts: Texts = None,
    file: FileOption = None,
    column: ColumnOption = None,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(".npy", ".parquet", ".json")] = None,
    json: JsonOption = False,
) -> None:
    """Turn texts into vectors whose cosine says how similar they are."""
    from pellucid.tasks import terminal
    from pellucid.text import tables

    if output is not None:
        tables.check_kind(output, (".npy", ".parquet", ".json"))
    found = terminal.read(texts, file, column, strict=strict)
    vectors = terminal.embedded(terminal.opened(model), found, strict=strict)
    said = terminal.embeddings_said(found, vectors, model) if json or _is_json(output) else {}
    if output is not None:
        terminal.put(output, said, terminal.embedding_columns(found, vectors))
        wrote(output)
    if json:
        typer.echo(terminal.to_json(said))
    elif output is None:
        terminal.show_embeddings(found, vectors, model, _console())


@commands.command("similar")
def rank_texts(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    file: Input = None,
    column: ColumnOption = None,
    top: Annotated[int, typer.Option(metavar="N", help="How many texts.")] = 10,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    json: JsonOption = False,
) -> None:
    """Find the texts that are nearest in meaning to a query."""
    from pellucid.tasks import terminal
    from pellucid.text import tables

    if output is not None:
        tables.check_kind(output, COLUMNS)
    found = terminal.read(None, file, column, strict=strict)
    ranked = terminal.matches(terminal.opened(model), query, found, top, strict)
    said = terminal.matches_said(query, found, ranked, model)
    if output is not None:
        terminal.put(output, said, terminal.match_columns(found, ranked))
        wrote(output)
    if json:
        typer.echo(terminal.to_json(said))
    elif output is None:
        terminal.show_matches(query, found, ranked, _console())


@commands.command("cluster")
def group_texts(
    file: Input = None,
    column: ColumnOption = None,
    groups: Annotated[
        int | None,
        typer.Option("--groups", "-k", metavar="N", help="How many; what fits best if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Where the random numbers start.")] = 0,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page: the map and every group.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the map.")] = None,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    json: JsonOption = False,
) -> None:
    """Put similar texts into groups, and say what each is about."""
    from pellucid.common.terminal import steps
    from pellucid.tasks import cluster_map, terminal
    from pellucid.tasks.cluster import cluster
    from pellucid.text import tables

    _check_apart({"--html": html, "--svg": svg, "--output": output})
    if output is not None:
        tables.check_kind(output, COLUMNS)
    if groups is not None and groups < 1:
        raise ArgumentError(f"--groups must be 1 or more, not {groups}")
    _check_seed(seed)
    found = terminal.read(None, file, column, strict=strict)
    vectors = terminal.embedded(terminal.opened(model), found, strict=strict)
    with steps() as step:
        step("grouping", 0, 1)
        made = cluster(found.texts, vectors, groups, seed)
        if svg is not None or html is not None:
            step("drawing the map", 0, 1)
            placed = cluster_map.places(vectors, seed)
    for path, draw in ((svg, cluster_map.to_svg), (html, cluster_map.to_html)):
        if path is not None:
            write(path, draw(found.texts, made, placed, title=found.source))
    said = terminal.groups_said(found, made, model)
    if output is not None:
        terminal.put(output, said, terminal.group_columns(found, made))
        wrote(output)
    if json:
        typer.echo(terminal.to_json(said))
    elif output is None:
        terminal.show_groups(found, made, _console())


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
    seed: Annotated[int, typer.Option(help="Where the random numbers start.")] = 0,
    model: ModelOption = None,
    strict: StrictOption = False,
    output: Annotated[Path | None, output_option(*COLUMNS)] = None,
    json: JsonOption = False,
) -> None:
    """Learn labels from a few examples, and give them to texts."""
    if (examples is None) == (head is None):
        raise ArgumentError("give either --examples, labelled texts, or --head, a saved head")
    if head is not None and save is not None:
        raise ArgumentError("--save goes with --examples; the head is saved already")
    from pellucid.tasks import terminal
    from pellucid.tasks.classify import PROBE, Head, evaluate
    from pellucid.text import tables
    from pellucid.text.items import from_arguments, has_columns

    _check_apart({"--save": save, "--output": output})
    if output is not None:
        tables.check_kind(output, COLUMNS)
    _check_seed(seed)
    fitted = None if head is None else Head.load(head)
    if fitted is not None and model is None:
        model = fitted.model
    learnt = None
    if examples is not None:
        learnt = terminal.read(None, examples, column, label, strict=strict)
    found = None
    if texts or file is not None or head is not None:
        columned = column if learnt is None or (file and has_columns(file)) else None
        found = terminal.read(texts, file, columned, strict=strict)
    elif output is not None:
        raise ArgumentError("--output is for texts to classify; give some, or --file")
    encoder = terminal.opened(model)
    probe = terminal.embedded(encoder, from_arguments([PROBE]))[0]
    said: dict[str, Any] = {"model": terminal.name_of(model)}
    console = _console()
    if fitted is None:
        assert learnt is not None
        vectors = terminal.embedded(encoder, learnt, strict=strict)
        judged = evaluate(vectors, learnt.labels, seed)
        fitted = Head.fit(vectors, learnt.labels, model=model, probe=probe)
        said |= {"held_out": terminal.evaluation_said(judged)}
        if save is not None:
            fitted.save(save)
            wrote(save)
        if not json:
            terminal.show_evaluation(judged, learnt, console)
    else:
        terminal.check_head(fitted, probe, model)
    said |= {"labels": list(fitted.labels)}
    if found is not None:
        likely = fitted.probabilities(terminal.embedded(encoder, found, strict=strict))
        said |= {"items": terminal.labels_said(found, fitted, likely)}
        if output is not None:
            terminal.put(output, said, terminal.label_columns(found, fitted, likely))
            wrote(output)
        elif not json:
            if learnt is not None:
                console.print()
            terminal.show_labels(found, fitted, likely, console)
    if json:
        typer.echo(terminal.to_json(said))


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def _is_json(path: Path | None) -> bool:
    return path is not None and path.suffix.lower() == ".json"


def _check_apart(paths: dict[str, Path | None]) -> None:
    """Refuse two options that name one file."""
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None:
            other = seen.setdefault(os.path.realpath(path), option)
            if other != option:
                raise ArgumentError(f"{other} and {option} cannot both be '{path}'")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ArgumentError(f"--seed must be from 0 to 2**32 - 1, not {seed}")
