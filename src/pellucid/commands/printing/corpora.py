"""What a task over a folder of files came to, and the heads of a model over all of them."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console

from pellucid.commands.printing.console import plain_table, say
from pellucid.commands.printing.heads import show_map, show_table
from pellucid.common.files import printable
from pellucid.common.wording import count, percent, short
from pellucid.corpora import CorpusHeads, Summary
from pellucid.corpora.writing import ASIDE, PARTS
from pellucid.lens.head_table import SHARES, HeadRow, HeadTable


def to_data(summary: Summary, output: Path) -> dict[str, Any]:
    """The summary for --json."""
    return {
        "output": str(output / PARTS),
        "files": summary.files,
        "texts": summary.texts,
        "of_an_earlier_run": summary.before,
        "set_aside": summary.aside,
        "files_cut": summary.unread,
        "blank": summary.blank,
        "seconds": summary.seconds,
        "notes": summary.notes,
        "warnings": summary.warnings,
    }


def show(summary: Summary, output: Path, console: Console) -> None:
    """Print how much was done, how fast, and where it is."""
    new = summary.texts - summary.before
    speed = f", {new / summary.seconds:,.0f} a second" if new and summary.seconds > 0 else ""
    before = f"; {summary.before:,} were done before" if summary.before else ""
    say(
        f"{count(new, 'text')} of {count(summary.files, 'file')} in {summary.seconds:,.0f} s"
        f"{speed}{before}",
        console,
        style="bold",
    )
    say(f"in '{printable(str(output / PARTS))}', a Parquet file for each part", console)
    if summary.blank:
        say(f"{count(summary.blank, 'empty line')} left out", console)
    if summary.aside:
        say(
            f"{count(summary.aside, 'row')} set aside, with the reasons in "
            f"'{printable(str(output / ASIDE))}'",
            console,
        )
    if summary.unread:
        say(
            f"{count(summary.unread, 'file')} cannot be read to the end, and the rest is not in "
            f"the output; the reasons are in '{printable(str(output / ASIDE))}'",
            console,
        )


def heads_to_data(summary: CorpusHeads) -> dict[str, Any]:
    """The heads for --json."""
    return {
        "documents": summary.documents,
        "tokens": summary.tokens,
        "confidence": 0.95,
        "heads": [
            {
                "layer": head.layer,
                "head": head.head,
                "name": head.name,
                "stack": head.stack,
                "documents": head.documents,
                "roles": head.roles,
                "measures": {
                    name: {
                        "documents": moments.number,
                        "mean": moments.mean,
                        "deviation": moments.deviation,
                        "interval": [
                            moments.mean - moments.half_width,
                            moments.mean + moments.half_width,
                        ],
                    }
                    for name, moments in head.measures.items()
                    if moments.number
                },
            }
            for head in summary.heads
        ],
        "unlike": [
            {name: getattr(outlier, name) for name in outlier.__slots__}
            for outlier in summary.unlike
        ],
    }


def show_heads(summary: CorpusHeads, console: Console) -> None:
    """Print what the heads do on average, how sure that is, and where they do something else."""
    table = HeadTable([_row(head) for head in summary.heads])
    say(
        f"{count(len(table), 'head')} over {count(summary.documents, 'document')}, "
        f"{count(summary.tokens, 'token')}",
        console,
        style="bold",
    )
    console.print()
    show_map(table, console)
    show_table(table, console)
    widest = max(
        (
            head.measures[name].half_width
            for head in summary.heads
            for name in SHARES
            if head.measures[name].number > 1
        ),
        default=math.nan,
    )
    sure = (
        "one document gives no interval"
        if math.isnan(widest)
        else f"with 95% confidence no mean share is off by more than {percent(widest)}"
    )
    say(f"Means over documents; {sure}. Roles are those of most documents.", console, style="dim")
    if summary.unlike:
        console.print()
        say("Where heads are unlike themselves", console, style="bold")
        grid = plain_table()
        for title in ("head", "measure", "here", "mean", "deviations"):
            grid.add_column(title, justify="left" if title == "measure" else "right", no_wrap=True)
        grid.add_column("document", overflow="fold")
        for outlier in summary.unlike:
            grid.add_row(
                f"{outlier.stack}{outlier.layer}.{outlier.head}",
                outlier.measure,
                _number(outlier.measure, outlier.value),
                _number(outlier.measure, outlier.mean),
                f"{outlier.deviations:.1f}",
                f"{short(printable(outlier.file), 60)}:{outlier.line}",
            )
        console.print(grid)


def _row(head: Any) -> HeadRow:
    """A head's means, as a row of the table of heads; its role is that of most documents."""
    means = {
        name: moments.mean if moments.number else math.nan
        for name, moments in head.measures.items()
    }
    return HeadRow(
        layer=head.layer,
        head=head.head,
        name=head.name,
        stack=head.stack,
        role=next(iter(head.roles)),
        **means,
    )


def _number(measure: str, value: float) -> str:
    return percent(value) if measure in SHARES else f"{value:.2f}"
