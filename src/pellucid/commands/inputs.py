"""What commands read: texts, what to see of them, and the models for them.

It is imported when a command runs, and not before.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pellucid.commands.printing.console import note, noted, steps
from pellucid.common import untrusted
from pellucid.common.files import is_blank, printable, reason_of
from pellucid.common.wording import count, listing, short
from pellucid.errors import ArgumentError, FileError
from pellucid.text import text_inputs
from pellucid.text.text_inputs import Items

if TYPE_CHECKING:
    import torch

    from pellucid.lens.module_selection import Layers
    from pellucid.models import Encoder

Name = TypeVar("Name")
Model = TypeVar("Model")


def read_text(text: str | None, file: Path | None) -> str:
    """What is to be read, from the command line or from a file.

    Raises:
        ArgumentError: both or neither are given, or it is empty.
        FileError: the file cannot be read, or is not UTF-8.
    """
    if (text is None) == (file is None):
        raise ArgumentError('give either a text, like "Write a poem", or --file')
    if file is None:
        assert text is not None
        if text != text.encode(errors="ignore").decode():
            raise ArgumentError("the text holds bytes that are not UTF-8")
        if is_blank(text):
            raise ArgumentError('the text is empty; give some words, like "Write a poem"')
        return text
    try:
        with untrusted.regular(file) as opened:
            found = opened.read(untrusted.MOST_LINE)
            if opened.read(1):
                raise FileError(f"'{file}' is larger than {untrusted.MOST_LINE:,} bytes")
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot read '{short(str(file), 200)}': {reason_of(error)}") from error
    try:
        read = found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The mark at the start, if there is one, is no part of what was decoded.
        place = error.start + 3 * found.startswith(b"\xef\xbb\xbf")
        raise FileError(
            f"'{file}' is not UTF-8 text: byte {place} is 0x{found[place]:02x}"
        ) from error
    if is_blank(read):
        raise FileError(f"'{file}' is empty: there is nothing to read")
    return read


def parse_layers(given: str | None) -> "Layers | None":
    """Layer numbers and names between commas."""
    if given is None:
        return None
    parts = [part.strip() for part in given.split(",")]
    if not all(parts):
        raise ArgumentError(f"--layers must be numbers or names between commas, not '{given}'")
    return [int(part) if part.removeprefix("-").isdecimal() else part for part in parts]


def read_texts(
    texts: Sequence[str] | None,
    file: Path | None,
    column: str | None = None,
    label: str | None = None,
    *,
    strict: bool = False,
) -> Items:
    """Texts of the command line, of a file, or else of standard input; says what was left out.

    Raises:
        ArgumentError, FileError: as `text.items`; with `strict`, of blank texts too.
    """
    if texts and file is not None:
        raise ArgumentError("give either texts or --file, not both")
    if texts:
        if len(texts) == 1 and len(texts[0]) < 256 and Path(texts[0]).is_file():
            name = printable(texts[0])
            note(f"reading the name '{name}'; the file is --file '{name}'")
        return text_inputs.from_arguments(texts)
    if file is None and sys.stdin is not None and sys.stdin.isatty():
        raise ArgumentError('give texts, like "Write a poem", or a file, or pipe one in')
    found = text_inputs.from_file(text_inputs.STDIN if file is None else file, column, label)
    if found.blank:
        which = listing([str(line) for line in found.blank[:5]])
        if len(found.blank) > 5:
            which = f"{', '.join(map(str, found.blank[:5]))} and more"
        lines = count(len(found.blank), "empty line")
        if strict:
            raise ArgumentError(f"'{found.source}' has {lines}: {which}")
        note(f"left out {lines} of '{found.source}': {which}")
    return found


def opened(model: Name, reader: Callable[[Name], Model]) -> Model:
    """What the reader makes of the model's name, with a word on the terminal meanwhile."""
    with steps() as step:
        step("opening the model", 0, 1)
        return reader(model)


def embedded(model: "Encoder", found: Items, *, strict: bool = False) -> "torch.Tensor":
    """(texts, width), with a bar on a terminal, and what was cut said on stderr."""
    from pellucid.tasks.embedding import embed

    with noted(), steps() as step:
        return embed(
            model,
            found.texts,
            strict=strict,
            names=found.names,
            progress=lambda done, of: step(f"embedding {count(of, 'text')}", done, of),
        )
