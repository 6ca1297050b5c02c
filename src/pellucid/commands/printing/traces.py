"""What each token and head gave to a prediction: the text in shades, tables, and the sum."""

from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from torch import Tensor

from pellucid.commands.printing.console import isolated, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common import files
from pellucid.common.wording import listing, percent, short
from pellucid.lens.tracing.written import Source
from pellucid.readers.trace_words import ABOUT, TITLES, described, headline, quoted
from pellucid.readers.tracing import Traced

MOST_TOKENS, MOST_HEADS, SOURCES = 10, 8, 3
WIDEST_HEADS = 16
"""Heads of a layer whose numbers are shown beside each other; of more, only the shades."""


def show(traced: Traced, console: Console) -> None:
    """Print a prediction and what gave it."""
    trace = traced.trace
    say(headline(traced), console, style="bold")
    likeliest = [f"{quoted(name)} {percent(chance)}" for name, chance in traced.likeliest]
    say(f"The likeliest: {listing(likeliest)}.", console, style="dim")
    console.print()
    say(f"What each token gave to {described(traced)}", console, style="bold")
    if traced.source_tokens and trace.source_tokens is not None:
        _show_text(traced.source_tokens, trace.source_tokens.tolist(), console)
    _show_text(traced.tokens, trace.tokens.tolist(), console)
    console.print()
    _show_tokens(traced, console)
    console.print()
    say("What each head gave", console, style="bold")
    _show_map(traced, console)
    _show_heads(traced, console)
    if trace.adds_up:
        console.print()
        _show_sum(traced, console)
    console.print()
    say(ABOUT[trace.method], console, style="dim")


def _show_text(tokens: list[str], amounts: list[float], console: Console) -> None:
    """The text, each token on the shade of its amount; lines break at blanks, or else at tokens."""
    largest = max(map(abs, amounts), default=0) or 1.0
    words: list[tuple[str, list[Text]]] = []
    for token, amount in zip(tokens, amounts, strict=True):
        blank = len(token) - len(token.lstrip(" "))
        piece = shaded(token[blank:].replace("\n", "⏎"), amount / largest)
        if blank or not words:
            words.append((token[:blank], [piece]))
        else:
            words[-1][1].append(piece)
    line = Text()
    for before, pieces in words:
        whole = Text.assemble(*pieces)
        parts = [whole] if whole.cell_len <= console.width else pieces
        for part in parts:
            if line and line.cell_len + len(before) + part.cell_len > console.width:
                console.print(line)
                line = Text()
            elif part is parts[0]:
                line.append(before)
            line.append_text(part)
    console.print(line)


def _name(token: str) -> str:
    """A token beside its number."""
    return isolated(short(" ".join(token.split()) or repr(token), 20))


def _show_tokens(traced: Traced, console: Console) -> None:
    """The tokens with the largest amounts, with bars."""
    trace = traced.trace
    rows = [("", i, amount) for i, amount in enumerate(trace.tokens.tolist())]
    if trace.source_tokens is not None:
        rows += [("source", i, amount) for i, amount in enumerate(trace.source_tokens.tolist())]
    rows = sorted(rows, key=lambda row: -abs(row[2]))[:MOST_TOKENS]
    largest = abs(rows[0][2]) or 1.0
    grid = plain_table()
    grid.show_header = False
    for justify in ("right", "left", "right", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    room = max(4, min(30, console.width - 40))
    for side, place, amount in rows:
        names = traced.source_tokens if side else traced.tokens
        bar = "█" * round(abs(amount) / largest * room)
        grid.add_row(
            Text(_name(names[place])),
            Text(f"{side} {place}".strip(), style="dim"),
            f"{amount:+.3f}",
            Text(bar, style="blue" if amount > 0 else "yellow"),
        )
    console.print(grid)


def _show_map(traced: Traced, console: Console) -> None:
    """A line for each layer, and a cell for each head."""
    rows = [amounts.tolist() for amounts in traced.trace.heads.values()]
    largest = max((abs(x) for row in rows for x in row), default=0) or 1.0
    side = max(map(len, traced.labels))
    widest = max(map(len, rows))
    has_numbers = widest <= WIDEST_HEADS and side + 1 + 6 * widest <= console.width
    if has_numbers:
        titles = "".join(f"{head:>6}" for head in range(widest))
        console.print(Text(" " * side + titles, style="dim"))
    for label, row in zip(traced.labels, rows, strict=True):
        line = Text().append(f"{label:>{side}} ", style="dim")
        for amount in row:
            if has_numbers:
                line.append_text(shaded(f"{amount:+.2f}".rjust(5), amount / largest)).append(" ")
            else:
                share = abs(amount) / largest
                sign = "·" if share < 0.1 else "+" if amount > 0 else "-"
                line.append_text(shaded(sign, amount / largest))
        line.truncate(console.width)
        console.print(line)


def _show_heads(traced: Traced, console: Console) -> None:
    """The heads with the largest amounts, and the tokens that these came from."""
    trace = traced.trace
    head_amounts = [
        (abs(amount), label, head, name, amount)
        for label, (name, amounts) in zip(traced.labels, trace.heads.items(), strict=True)
        for head, amount in enumerate(amounts.tolist())
    ]
    if not trace.pairs:
        return
    console.print()
    for _, label, head, name, amount in sorted(head_amounts, reverse=True)[:MOST_HEADS]:
        given = trace.pairs[name][head]
        names = traced.tokens if len(given) == len(traced.tokens) else traced.source_tokens
        if label.startswith(("x", "e")) and traced.source_tokens:
            names = traced.source_tokens
        order = given.abs().argsort(descending=True)[:SOURCES].tolist()
        parts = [f"{_name(names[i])} {i} {float(given[i]):+.2f}" for i in order]
        line = Text().append(f"{label}.{head}".rjust(6), style="dim").append(f" {amount:+.3f}")
        line.append("  from ", style="dim")
        if line.cell_len + cell_len(parts[0]) > console.width:  # on a line of its own
            line.right_crop(1)
            console.print(line)
            line = Text(" " * 7)
        while len(parts) > 1 and line.cell_len + cell_len(", ".join(parts)) > console.width:
            parts.pop()
        line.append(", ".join(parts))
        line.truncate(console.width, overflow="ellipsis")
        console.print(line)


def _show_sum(traced: Traced, console: Console) -> None:
    """The parts, which add up to the number."""
    trace = traced.trace
    say(f"The sum: {described(traced)}", console, style="bold")
    grid = plain_table()
    grid.show_header = False
    parts = sums(traced)
    widest = max(len(f"{amount:+.4f}") for _, amount in parts)
    grid.add_column(justify="right", no_wrap=True, min_width=widest)
    grid.add_column()
    for title, amount in parts:
        grid.add_row(f"{amount:+.4f}", Text(title))
    grid.add_row(f"{trace.total:.4f}", f"together; the logit is {trace.number:.4f}")
    console.print(grid)
    missing = trace.missing
    assert missing is not None
    if trace.is_exact:
        say(f"Nothing is missing but rounding, {missing:.1e}.", console, style="dim")
    else:
        say(
            f"Missing: {missing:+.4f}, what is not linear between the stream and the logit.",
            console,
        )


def sums(traced: Traced) -> list[tuple[str, float]]:
    """The parts of the number, those of a kind together."""
    trace = traced.trace
    source = 0.0 if trace.source_tokens is None else float(trace.source_tokens.sum())
    parts = [("attention" if trace.others else "tokens", float(trace.tokens.sum()))]
    if trace.source_tokens is not None:
        parts.append((f"{'attention to the' if trace.others else 'tokens of the'} source", source))
    kinds: dict[str, list[tuple[Source, float]]] = {}
    for part, amount in trace.others.items():
        kinds.setdefault(part.kind, []).append((part, amount))
    for kind, each in kinds.items():
        name = TITLES.get(kind, kind)
        if len(each) > 1:
            part, most = max(each, key=lambda pair: abs(pair[1]))
            name += f", of which {part} {most:+.3f}"
        parts.append((name, sum(amount for _, amount in each)))
    parts += [(TITLES[name], amount) for name, amount in trace.absorbed.items() if amount]
    return parts


def to_json(traced: Traced) -> str:
    """All of it for --json."""
    trace = traced.trace
    sides: dict[str, Any] = {"tokens": _tokens(traced.tokens, trace.tokens.tolist())}
    if trace.source_tokens is not None:
        sides["source_tokens"] = _tokens(traced.source_tokens, trace.source_tokens.tolist())
    heads = [
        {
            "layer": label,
            "head": head,
            "name": name,
            "amount": amount,
            "from": _largest(trace.pairs[name][head]) if name in trace.pairs else None,
        }
        for label, (name, amounts) in zip(traced.labels, trace.heads.items(), strict=True)
        for head, amount in enumerate(amounts.tolist())
    ]
    parts = [
        {"kind": part.kind, "layer": part.layer, "name": part.name, "amount": amount}
        for part, amount in trace.others.items()
    ]
    return files.to_json(
        {
            "model": traced.model,
            "kind": traced.kind,
            "method": trace.method,
            "position": trace.position,
            "choice": traced.choice,
            "id": trace.token,
            "against": traced.against,
            "against_id": trace.against,
            "number": trace.number,
            "probability": trace.probability,
            "likeliest": [{"text": name, "probability": p} for name, p in traced.likeliest],
            **sides,
            "heads": heads,
            "parts": parts,
            "absorbed": trace.absorbed,
            "sum": trace.total if trace.adds_up else None,
            "missing": trace.missing,
            "is_exact": trace.is_exact if trace.adds_up else None,
        },
        indent=2,
    )


def _largest(given: Tensor) -> list[dict[str, Any]]:
    """The positions from which a head took most."""
    order = given.abs().argsort(descending=True)[:SOURCES].tolist()
    return [{"position": place, "amount": float(given[place])} for place in order]


def _tokens(names: list[str], amounts: list[float]) -> list[dict[str, Any]]:
    return [
        {"position": place, "text": name, "amount": amount}
        for place, (name, amount) in enumerate(zip(names, amounts, strict=True))
    ]
