"""The inputs of commands: texts, layers and models. Imported only when a command runs."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pellucid.commands.printing.console import note, noted, steps
from pellucid.common import untrusted
from pellucid.common.files import is_blank, printable
from pellucid.common.wording import count
from pellucid.errors import ArgumentError
from pellucid.text import text_inputs
from pellucid.text.columns import parsed_column
from pellucid.text.folders import READ
from pellucid.text.table_reading import PLAIN, Reading
from pellucid.text.text_inputs import Items, Source
from pellucid.text.utf8_files import STDIN, nothing_in, text_blocks, too_long

if TYPE_CHECKING:
    import torch

    from pellucid.lens.layer_selection import Layers
    from pellucid.models import Encoder
    from pellucid.tasks.saved_vectors import Saved
    from pellucid.tasks.similarity import Match

Name = TypeVar("Name")
Model = TypeVar("Model")


def read_text(text: str | None, file: Path | None, encoding: str | None = None) -> str:
    """The text to process, from the command line or from a file.

    Raises:
        ArgumentError: both or neither are given, the text is empty or not UTF-8, or the encoding is
            unknown or without a file.
        FileError: the file cannot be read, has another encoding, or is empty or too large.
    """
    if (text is None) == (file is None):
        raise ArgumentError('give either a text, like "Write a poem", or --file')
    if file is None:
        assert text is not None
        if encoding is not None:
            raise ArgumentError("--encoding goes with --file")
        if text != text.encode(errors="ignore").decode():
            raise ArgumentError("the text holds bytes that are not UTF-8")
        if is_blank(text):
            raise ArgumentError('the text is empty; give some words, like "Write a poem"')
        return text
    blocks, length = [], 0
    for block in text_blocks(file, Reading(encoding=encoding).encoding):
        length += len(block)
        if length > untrusted.MOST_LINE:
            raise too_long("the text", file, untrusted.MOST_LINE)
        blocks.append(block)
    if all(map(is_blank, blocks)):
        raise nothing_in(file)
    return "".join(blocks)


def parse_layers(text: str | None) -> "Layers | None":
    """Layer numbers and names, separated by commas."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ArgumentError(f"--layers must be numbers or names separated by commas, not '{text}'")
    return [int(part) if part.removeprefix("-").isdecimal() else part for part in parts]


def read_texts(
    texts: Sequence[str] | None,
    file: Path | None,
    column: str | None = None,
    label: str | None = None,
    *,
    reading: Reading = PLAIN,
    strict: bool = False,
    may_lack: bool = False,
) -> Items:
    """Texts from the command line, a file or standard input; notes count blank and odd ones.

    Raises:
        ArgumentError, FileError: as `text_inputs`; with `strict`, also for blank texts and for a
            file of a folder that cannot be read.
    """
    if texts and file is not None:
        raise ArgumentError("give either texts or --file, not both")
    if texts:
        if len(texts) == 1 and len(texts[0]) < 256:
            name = printable(texts[0])
            if Path(texts[0]).is_file():
                note(f"'{name}' is read as a text; use --file '{name}' to read the file")
            elif " " not in name and Path(name).suffix in READ:
                note(f"'{name}' is read as a text; there is no file of this name")
        return text_inputs.from_arguments(texts)
    if file is None and sys.stdin is not None and sys.stdin.isatty():
        raise ArgumentError('give texts, like "Write a poem", or --file, or pipe a file in')
    items = text_inputs.from_file(
        STDIN if file is None else file,
        None if column is None else parsed_column(column),
        None if label is None else parsed_column(label),
        reading,
        may_lack=may_lack,
        whole=strict,
    )
    if items.blank and strict:
        raise ArgumentError(f"'{items.source}' has {items.blanks}")
    for line in items.notes:
        note(line)
    return items


def opened(model: Name, reader: Callable[[Name], Model]) -> Model:
    """Open a model by its name, with a progress bar on a terminal."""
    with steps() as step:
        step("opening the model", 0, 1)
        return reader(model)


def embedded_file(
    model: "Encoder",
    source: Callable[[], Source],
    output: Path,
    name: str | None,
    **options: Any,
) -> None:
    """Embed the texts of a file into another, with a progress bar and with notes on stderr.

    Args:
        model: the encoder.
        source: opens the texts.
        output: the file to write.
        name: of the encoder, as the user gave it.
        options: of `pellucid.tasks.vector_writing.embed_file`.
    """
    from pellucid.tasks.vector_writing import embed_file

    try:
        with steps() as step:
            step("reading", 0, 1)
            written = embed_file(
                model,
                source,
                output,
                name=name,
                progress=lambda done, of: step(f"embedding {count(of, 'text')}", done, of),
                begun=lambda done, of: note(f"{done:,} of {of:,} texts were embedded before"),
                **options,
            )
    except KeyboardInterrupt:
        note("stopped; the same command continues after the last part that is finished")
        raise
    for line in written.notes:
        note(line)


def embedded(
    model: "Encoder",
    items: Items,
    *,
    strict: bool = False,
    compute: "Callable[..., torch.Tensor] | None" = None,
    **options: Any,
) -> "torch.Tensor":
    """Embeddings, (texts, width), with a progress bar and with warnings on stderr.

    Args:
        model: the encoder.
        items: the texts.
        strict: refuse a text that is too long.
        compute: what to compute instead, such as `pellucid.tasks.predict`.
        options: of `pellucid.tasks.embed`.
    """
    from pellucid.tasks.embedding import embed

    with noted(items.notes), steps() as step:
        return (compute or embed)(
            model,
            items.texts,
            strict=strict,
            names=items.names,
            **options,
            progress=lambda done, of: step(f"embedding {count(of, 'text')}", done, of),
        )


def embedded_query(
    model: "Encoder", query: str, *, strict: bool, truncate_dim: int | None = None
) -> "torch.Tensor":
    """The embedding of what is looked for, (width,)."""
    from pellucid.tasks.embedding import QUERY, role_prompt

    query_items = text_inputs.from_arguments([query])
    prompt = role_prompt(model, QUERY)
    return embedded(model, query_items, strict=strict, prompt=prompt, truncate_dim=truncate_dim)[0]


def nearest_items(
    model: "Encoder",
    saved: "Saved",
    query: str,
    name: str | None,
    top: int,
    *,
    strict: bool,
    is_exact: bool,
) -> "tuple[Items, list[Match]]":
    """The texts of a file of embeddings that are nearest to a query, the nearest first.

    Args:
        model: the encoder.
        saved: the embeddings.
        query: what to look for.
        name: of the encoder, as the user gave it.
        top: how many to find.
        strict: refuse a query that is too long.
        is_exact: compare with every embedding, however many there are.

    Raises:
        ArgumentError: the embeddings are those of another encoder.
    """
    from pellucid.tasks.embedding import PROBE, embed
    from pellucid.tasks.similarity import Match, nearest
    from pellucid.tasks.vector_index import has_index, nearest_cells

    with steps() as step:
        step("opening the embeddings", 0, 1)
        width = min(saved.vectors.shape[1], model.config.embedding_numbers)
    saved.check(embed(model, [PROBE], prompt="", truncate_dim=width)[0], name)
    query_vector = embedded_query(model, query, strict=strict, truncate_dim=width)
    left_out: list[str] = []
    if is_exact or not has_index(saved):
        with noted(left_out):
            matches = nearest(query_vector, saved.vectors, top)
    else:
        with noted(left_out), steps() as step:
            what = f"indexing {count(len(saved.vectors), 'text')}, once"
            matches = nearest_cells(query_vector, saved, top, lambda done, of: step(what, done, of))
        note("the nearest cells of an index were searched; --exact compares every text")
    items = saved.items([match.index for match in matches])
    for line in items.notes:
        note(line)
    items.notes.extend(left_out)
    return items, [Match(number, match.score) for number, match in enumerate(matches)]
