"""Why a head looks from one token to another: the largest terms, a table of all, and the sum."""

from typing import Any

from rich.console import Console
from rich.text import Text

from pellucid.commands.printing.console import isolated, plain_table, say
from pellucid.commands.printing.shades import shaded
from pellucid.common import files
from pellucid.lens.tracing.written import Source
from pellucid.readers.score_terms import ScoreTerms

ROWS, CELL = 9, 9
"""The most sources of the query in the table, and the width of a column."""


def show(explanation: ScoreTerms, top: int, console: Console) -> None:
    """Print a score and its terms."""
    say(isolated(explanation.headline()), console, style="bold")
    say(explanation.summary(), console)
    if top:
        console.print()
        say("The largest terms, query x key", console, style="bold")
        _show_top(explanation, top, console)
    console.print()
    say("The query's parts down, the key's across", console, style="bold")
    _show_table(explanation, console)
    console.print()
    _show_sum(explanation, console)
    console.print()
    say(explanation.about(), console, style="dim")


def _show_top(explanation: ScoreTerms, top: int, console: Console) -> None:
    terms = explanation.top(top)
    largest = max((abs(amount) for *_, amount in terms), default=0) or 1.0
    grid = plain_table()
    grid.show_header = False
    for justify in ("right", "left", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    room = max(4, min(30, console.width - 36))
    for of_query, of_key, amount in terms:
        bar = "█" * round(abs(amount) / largest * room)
        style = "blue" if amount > 0 else "yellow"
        grid.add_row(f"{amount:+.3f}", f"{of_query} x {of_key}", Text(bar, style=style))
    console.print(grid)


def _show_table(explanation: ScoreTerms, console: Console) -> None:
    side = max(len(name) for name in explanation.names.values())
    columns = max(2, (console.width - side - 1) // CELL)
    of_query, of_key, terms = explanation.table(ROWS, columns)
    largest = float(terms.abs().max()) or 1.0
    console.print(Text(" " * side + "".join(name.rjust(CELL) for name in of_key), style="dim"))
    for name, row in zip(of_query, terms.tolist(), strict=True):
        line = Text().append(f"{name:>{side}} ", style="dim")
        for amount in row:
            line.append_text(shaded(f"{amount:+.3f}".rjust(CELL - 1), amount / largest)).append(" ")
        line.rstrip()
        line.truncate(console.width)
        console.print(line)


def _show_sum(explanation: ScoreTerms, console: Console) -> None:
    why = explanation.why
    terms = f"{float(why.terms.sum()):.4f} together"
    added = f", and {why.position_bias:+.4f} by position" if why.position_bias else ""
    what = "the score" if why.against is None else "the difference of the scores"
    say(f"{why.terms.numel():,} terms, {terms}{added}; {what} is {why.score:.4f}.", console)
    if why.is_exact:
        say(f"Nothing is missing but rounding, {why.missing:.1e}.", console, style="dim")
    else:
        say(f"Missing: {why.missing:+.4f}, as what lies between is not linear.", console)


def to_json(explanation: ScoreTerms) -> str:
    """All of it for --json."""
    why = explanation.why
    against = why.against
    return files.to_json(
        {
            "model": explanation.model,
            "head": explanation.head,
            "name": why.layer,
            "query": _token(explanation.tokens, why.query),
            "key": _token(explanation.key_tokens, why.key),
            "against": None if against is None else _token(explanation.key_tokens, against),
            "weight": why.weight,
            "rank": explanation.rank,
            "score": why.score,
            "position_bias": why.position_bias,
            "missing": why.missing,
            "is_exact": why.is_exact,
            "query_parts": [_part(explanation, *pair) for pair in why.of_query().items()],
            "key_parts": [_part(explanation, *pair) for pair in why.of_key().items()],
            "terms": why.terms.tolist(),
        },
        indent=2,
    )


def _token(tokens: list[str], place: int) -> dict[str, Any]:
    return {"position": place, "text": tokens[place]}


def _part(explanation: ScoreTerms, source: Source, amount: float) -> dict[str, Any]:
    return {
        "part": explanation.names[source],
        "kind": source.kind,
        "layer": source.layer,
        "head": source.head,
        "name": source.name,
        "amount": amount,
    }
