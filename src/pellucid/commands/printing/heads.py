"""What heads do: a map with a letter per head, a table, the strongest links between words."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from pellucid.attention.limits import readable_bytes
from pellucid.commands.printing.console import plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common import files
from pellucid.common.files import printable
from pellucid.common.wording import count, percent, short
from pellucid.lens.head_table import HeadRow, HeadTable
from pellucid.lens.links import WordLink
from pellucid.lens.recording import Recording
from pellucid.readers.forward_pass import Seen

LETTERS = {
    "previous token": ("P", "cyan"),
    "next token": ("N", "blue"),
    "itself": ("S", "green"),
    "first token": ("F", "yellow"),
    "duplicates": ("D", "magenta"),
    "induction": ("I", "bold red"),
    "punctuation": ("M", "bright_black"),
    "special tokens": ("T", "bright_black"),
    "broad": ("b", "bright_black"),
    "": ("·", "bright_black"),
}
"""The letter and style of each role on the map."""
STACKS = {"e": "encoder", "d": "decoder", "x": "cross-attention"}
"""What the letters before the numbers of layers stand for."""
MEANING = {"": "no clear role"}
SHARES = {
    "first": "first",
    "itself": "self",
    "previous": "prev",
    "next": "next",
    "duplicates": "dupl",
    "induction": "indu",
    "punctuation": "punc",
    "special": "spec",
}
"""Columns of shares, and their titles in a narrow table."""
MOST_ROWS = 100
"""Up to how many heads the table shows all; above, it shows the clearest."""
CLEAREST = 5
"""Heads per role in a table of the clearest."""
MOST_UNSEEN = 20
WIDE, NARROW = 106, 60
"""Widths of a terminal from which the table has full titles, and all columns."""


def show(seen: Seen, console: Console) -> None:
    """Print the map, the table, the links, and the modules whose attention was not seen."""
    size = count(seen.tokens, "token")
    if seen.target_tokens is not None:
        size += f", its decoder {count(seen.target_tokens, 'token')}"
    say(f"{seen.model} reads {size}", console, style="bold")
    console.print()
    show_map(seen.table, console)
    show_table(seen.table, console)
    if seen.strongest:
        console.print()
        _show_links(seen.strongest, console)
    show_unseen(seen.recording, console)
    console.print()
    say(_footer(seen.recording), console, style="dim")


def show_recording(recording: Recording, table: HeadTable, console: Console) -> None:
    """Print all heads of a recording, in the order of the table."""
    say(f"{printable(recording.model)}: {count(len(table), 'head')}", console, style="bold")
    console.print()
    show_map(table, console)
    show_table(table, console, most=len(table))
    show_unseen(recording, console)
    console.print()
    say(_footer(recording), console, style="dim")


def show_map(table: HeadTable, console: Console) -> None:
    """Print a letter per head, a line per layer."""
    layers: dict[tuple[str, str], list[HeadRow]] = {}
    for row in table.sort("layer"):
        layers.setdefault((row.label, row.name), []).append(row)
    side = max(len(layer) for layer, _ in layers)
    widest = max(map(len, layers.values()))
    gap = " " if side + 2 + 2 * widest <= console.width else ""
    say("What the heads do", console, style="bold")
    for (layer, name), rows in layers.items():
        line = Text(f"{layer:>{side}} ", style="dim")
        for row in rows:
            letter, style = LETTERS[row.role]
            line.append(gap + letter, style=style)
        room = console.width - side - 4 - (1 + len(gap)) * widest
        if room >= 16:
            line.append(" " * ((1 + len(gap)) * (widest - len(rows)) + 3))
            line.append(_ending(printable(name), room), style="dim")
        line.truncate(console.width)
        console.print(line)
    present = {row.role for row in table}
    legend = ", ".join(
        f"{letter} {MEANING.get(role, role)}"
        for role, (letter, _) in LETTERS.items()
        if role in present
    )
    say(legend, console, style="dim")
    stacks = {row.stack for row in table}
    letters = ", ".join(f"{x} {stack}" for x, stack in STACKS.items() if x in stacks)
    if letters:
        say(f"Before the number of a layer: {letters}.", console, style="dim")


def show_table(table: HeadTable, console: Console, most: int = MOST_ROWS) -> None:
    """Print a row per head; of more than `most` heads, the clearest of each role."""
    shown = table if len(table) <= most else clearest(table)
    console.print()
    title = "Every head" if len(shown) == len(table) else "The clearest heads of each role"
    say(title, console, style="bold")
    # Columns without a value are left out.
    shares = [name for name in SHARES if any(row.to_dict()[name] is not None for row in table)]
    wide = console.width >= WIDE
    numbers = {"entropy": "nats", "distance": "apart"} if console.width >= NARROW else {}
    if not wide:  # as many as fit beside the head, the numbers and the role
        shares = shares[: max(1, (console.width - 21 - 6 * len(numbers)) // 5)]
    grid = plain_table()
    grid.add_column("head", justify="right", no_wrap=True)
    for name, title in numbers.items():
        grid.add_column(name if wide else title, justify="right", no_wrap=True)
    for name in shares:
        title = name if wide else SHARES[name]
        grid.add_column(title, justify="right", no_wrap=True, min_width=max(4, len(title)))
    grid.add_column("role", no_wrap=True)
    before = None
    in_order = list(shown) == list(shown.sort("layer"))
    for row in shown:
        if in_order and before not in (None, row.label):
            grid.add_row()  # a gap between layers
        before = row.label
        grid.add_row(
            f"{row.label}.{row.head}",
            *(_number(getattr(row, name)) for name in numbers),
            *(_share(row, name, len(name if wide else SHARES[name])) for name in shares),
            Text(row.role, style=LETTERS[row.role][1]),
        )
    console.print(grid)
    say(_legend(wide, shares, numbers), console, style="dim")
    if len(shown) < len(table):
        say(
            f"{len(shown)} of {count(len(table), 'head')}; --save FILE and `pellucid heads FILE` "
            "show all.",
            console,
            style="dim",
        )


def _legend(wide: bool, shares: list[str], numbers: dict[str, str]) -> str:
    """The meaning of the columns."""
    targets = {
        "first": "the first token",
        "itself": "the query itself",
        "previous": "the token before",
        "next": "the token after",
        "duplicates": "other occurrences of the query's token",
        "induction": "what followed an earlier occurrence of it",
        "punctuation": "punctuation and line breaks",
        "special": "special tokens such as [SEP]",
    }
    parts = [f"{name if wide else SHARES[name]} to {targets[name]}" for name in shares]
    text = f"Shares of attention: {', '.join(parts)}. They overlap and need not sum to 100%."
    for name, title in numbers.items():
        meaning = {
            "entropy": "the entropy of the weights, 0 where all is on one token",
            "distance": "the mean distance from query to key, in tokens",
        }
        text += f" {(name if wide else title).capitalize()}: {meaning[name]}."
    return text


def clearest(table: HeadTable) -> HeadTable:
    """The heads in which each role is clearest."""
    column = {
        "previous token": "previous",
        "next token": "next",
        "first token": "first",
        "special tokens": "special",
        "broad": "entropy",
    }
    rows: list[HeadRow] = []
    for role in LETTERS:
        if role:
            alike = HeadTable([row for row in table if row.role == role])
            rows += alike.sort(column.get(role, role))[:CLEAREST]
    return HeadTable(rows)


def _show_links(strongest: list[WordLink], console: Console) -> None:
    say("The strongest links between words", console, style="bold")
    grid = plain_table()
    grid.show_header = False
    longest = max(8, (console.width - 34) // 2)
    for justify in ("right", "left", "left", "right", "left", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    room = max(4, min(24, console.width - 2 * min(longest, 20) - 20))
    for link in strongest:
        grid.add_row(
            _word(link.query, link.query_position, longest),
            Text("→", style="dim"),
            _word(link.key, link.key_position, longest),
            Text(percent(link.weight)),
            Text("█" * max(1, round(link.weight * room)), style="blue"),
            Text(f"{link.stack}{link.layer}.{link.head}", style="dim"),
        )
    console.print(grid)


def _word(text: str, position: int, longest: int) -> Text:
    return Text(short(printable(text), longest)).append(f" {position}", style="dim")


def show_unseen(recording: Recording, console: Console) -> None:
    """Print the modules whose attention was not seen, and why."""
    unseen = recording.unseen
    if not unseen:
        return
    console.print()
    say("Unseen", console, style="bold")
    for name, reason in list(unseen.items())[:MOST_UNSEEN]:
        say(f"{printable(name)}: {printable(reason)}", console)
    if len(unseen) > MOST_UNSEEN:
        say(f"and {len(unseen) - MOST_UNSEEN} more", console)


def _held(recording: Recording) -> tuple[int, int]:
    """Bytes of the recording, and of its weights as dense float32 tensors."""
    return recording.bytes_held(), sum(record.shape.numel() * 4 for record in recording.records)


def _footer(recording: Recording) -> str:
    held, dense = _held(recording)
    text = f"{count(len(recording.records), 'attention call')} recorded in {readable_bytes(held)}"
    if dense > held:
        text += f"; dense weights would take {readable_bytes(dense)}"
    return f"{text}."


def to_json(seen: Seen) -> str:
    """The heads and links for --json."""
    recording = seen.recording
    return _json(
        model=seen.model,
        tokens=seen.tokens,
        target_tokens=seen.target_tokens,
        heads=seen.table.to_dicts(),
        links=[asdict(link) for link in seen.strongest],
        recording=recording,
    )


def recording_to_json(recording: Recording, table: HeadTable) -> str:
    """The heads of a recording for --json."""
    return _json(model=recording.model, heads=table.to_dicts(), recording=recording)


def _json(*, recording: Recording, **parts: Any) -> str:
    held, dense = _held(recording)
    facts = {"unseen": recording.unseen, "bytes_held": held, "bytes_dense": dense}
    return files.to_json(parts | facts, indent=2)


def _number(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _share(row: HeadRow, name: str, width: int) -> Text:
    value = getattr(row, name)
    if value != value:
        return Text("-", style="dim")
    value = min(max(value, 0.0), 1.0)
    return shaded(percent(value).rjust(max(4, width)), value)


def _ending(text: str, length: int) -> str:
    """The end of a text: long names differ in their ends."""
    return text if len(text) <= length else "…" + text[len(text) - length + 1 :]
