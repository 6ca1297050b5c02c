"""docs/families.md, and the table in the terminal."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.families.comparing import (
    DIFFERENT,
    EXACT,
    NONE,
    NOT_BUILT,
    SAID,
    SILENT,
    TOLERANCE,
)

WORST_FIRST = (DIFFERENT, SILENT, SAID, EXACT, NONE, NOT_BUILT)
MEANING = {
    EXACT: "every softmax is recorded, with the weights that the model used",
    SAID: "some weights are not recorded, and `seen.unseen` says of which modules and why",
    SILENT: "some weights are neither recorded nor said to be missing",
    DIFFERENT: "something recorded is not what the model used",
    NONE: "no softmax is multiplied by anything: convolutions, recurrences, other attention",
    NOT_BUILT: "no tiny model could be made and run",
}
LONGEST_REASON = 160

Outcomes = list[dict[str, Any]]


@dataclass
class Line:
    """One class, in all implementations in which it ran."""

    family: str
    kind: str
    implementations: str
    softmaxes: int
    lazily: int
    stored: int
    error: float
    empty_rows: int
    verdict: str
    reason: str


def lines(outcomes: Iterable[dict[str, Any]]) -> list[Line]:
    """One line a class, which is what the worst of its implementations is."""
    grouped: dict[tuple[str, str], Outcomes] = {}
    for outcome in outcomes:
        grouped.setdefault((outcome["family"], outcome["kind"]), []).append(outcome)
    found = []
    for (family, kind), group in sorted(grouped.items()):
        worst = min(group, key=lambda outcome: WORST_FIRST.index(outcome["verdict"]))
        reason = "; ".join(worst["reasons"])
        if len({outcome["verdict"] for outcome in group}) > 1:
            reason = f"in {worst['implementation']}: {reason}"
        found.append(
            Line(
                family=family,
                kind=kind,
                implementations=", ".join(x["implementation"] for x in group),
                softmaxes=worst["softmaxes"],
                lazily=worst["lazily"],
                stored=worst["stored"],
                error=max(outcome["error"] for outcome in group),
                empty_rows=max(outcome["empty_rows"] for outcome in group),
                verdict=worst["verdict"],
                reason=reason,
            )
        )
    return found


def by_family(all_lines: Iterable[Line]) -> dict[str, str]:
    """The verdict on each family: the worst of its classes that ran."""
    found: dict[str, str] = {}
    for line in all_lines:
        before = found.get(line.family, NOT_BUILT)
        found[line.family] = min(before, line.verdict, key=WORST_FIRST.index)
    return found


def summary(all_lines: list[Line]) -> list[tuple[str, int, int, str]]:
    """Verdict, families, classes and what it means."""
    families, kinds = Counter(by_family(all_lines).values()), Counter(x.verdict for x in all_lines)
    order = (EXACT, SAID, SILENT, DIFFERENT, NONE, NOT_BUILT)
    return [(verdict, families[verdict], kinds[verdict], MEANING[verdict]) for verdict in order]


def document(outcomes: Outcomes, versions: str) -> str:
    """The whole of docs/families.md."""
    all_lines = lines(outcomes)
    ran = [line for line in all_lines if line.verdict != NOT_BUILT]
    softmaxes = sum(outcome["softmaxes"] for outcome in outcomes)
    blind = sum(outcome["blind"] for outcome in outcomes)
    parts = [
        INTRODUCTION.format(
            versions=versions,
            families=len({line.family for line in ran}),
            of=len({line.family for line in all_lines}),
            classes=len(ran),
            runs=sum(outcome["verdict"] != NOT_BUILT for outcome in outcomes),
            softmaxes=softmaxes,
            tolerance=f"{TOLERANCE:.0e}".replace("e-0", "e-"),
            blind=f"would have come out as different at all but {blind:,} of the exact ones"
            if blind
            else "would have come out as different at every one of the exact ones",
        ),
        _table(
            ("verdict", "families", "classes", "what it means"),
            [
                (verdict, str(some), str(kinds), text)
                for verdict, some, kinds, text in summary(all_lines)
            ],
        ),
        BETWEEN,
        _table(
            ("family", "class", "run in", "softmaxes", "lazily", "as weights", "error", "verdict"),
            [_row(line) for line in all_lines if line.verdict != NOT_BUILT],
        ),
        "## Not built\n",
        _table(
            ("family", "class", "reason"),
            [
                (line.family, line.kind, _short(line.reason))
                for line in all_lines
                if line.verdict == NOT_BUILT
            ],
        ),
    ]
    return "\n".join(parts)


def _row(line: Line) -> tuple[str, ...]:
    verdict = line.verdict if not line.reason else f"{line.verdict}: {_short(line.reason)}"
    return (
        line.family,
        line.kind,
        line.implementations,
        str(line.softmaxes),
        str(line.lazily),
        str(line.stored),
        f"{line.error:.0e}" if line.lazily + line.stored or line.verdict == DIFFERENT else "",
        verdict.removeprefix(f"{line.verdict}: ")
        if line.reason.startswith(line.verdict)
        else verdict,
    )


def _short(text: str) -> str:
    text = text.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(head), line("---" for _ in head), *map(line, rows), ""])


INTRODUCTION = """\
# Which families of models are seen

    make families                                          all of them, half an hour
    python -m benchmarks.families --only bert,t5           some, in the terminal
    python -m benchmarks.families --resume                 go on where a run was stopped
    python -m benchmarks.families --check                  would a wrong number be noticed?

This file is written by the first command; the source is
[benchmarks/families](../benchmarks/families).

Every family of transformers that has a model in PyTorch is built from its own configuration, made
small: two layers, or one of each kind where kinds take turns, four heads, random weights that make
attention far from uniform. It reads two texts, one padded on the left and one on the right,
images, sounds or series, whatever it takes; it does so in its own eager attention, and again in the
implementation that it chooses by itself, each time under `pellucid.watch(model)`. Of a family, the
model itself runs, and every other class that has attention of a kind that has not run yet.

The truth does not come from Pellucid. A second run of the eager model is followed number by
number: each softmax is noted, and so is what becomes of its result on the way through masks,
dropout, slices and casts, until a matrix product sums over it. The operand of that product is what
the model used. Of fused kernels, which show no weights, it is worked out in float64 from what they
were given. Records are matched to it by the module's name and order, and may differ by {tolerance}.
Rows that see nothing at all, as a query that is padding, mean nothing and are not compared. A sink
that a model applies to the product and not to the weights counts with either.

{versions}: {families} families of {of} were built, {classes} classes in {runs} runs, with
{softmaxes:,} softmaxes whose result is multiplied by something. A scale that is off by a thousandth
{blind}.

## Summary
"""

BETWEEN = """\
A class counts as the worst of its runs, a family as the worst of its classes.

## Families

`lazily` counts the softmaxes whose weights are exact and worked out when asked for, `as weights`
those that are exact and kept as such, both of one pass.
"""
