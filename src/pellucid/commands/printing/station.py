"""The stations of `pellucid learn`: listed, or gone through one by one."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from pellucid.commands.printing import walk as walks
from pellucid.commands.printing.console import say
from pellucid.lessons.stations import Question, Station
from pellucid.lessons.steps import walk_lesson

Ask = Callable[[int], int]
"""Gets one of so many numbers from a person, from 1."""


def show_path(titles: dict[str, str], console: Console) -> None:
    """Print the stations in their order."""
    say("Ten stations, from a soft database to a translation", console, style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for number, (name, title) in enumerate(titles.items(), start=1):
        table.add_row(f"{number:>2}", name, title)
    console.print(table)
    console.print()
    say("Start with: pellucid learn lookup", console)


def show(station: Station, console: Console, ask: Ask | None, following: str | None) -> None:
    """Go through one station.

    Args:
        station: where we are.
        console: where to print.
        ask: gets an answer before it is explained; None explains each answer at once.
        following: the station after this one, if there is one.
    """
    say(station.title, console, style="bold")
    say(station.idea, console)
    say(station.source, console, style="dim")
    _pose("Guess first", station.predict, console, ask)

    _head("What the numbers say", console)
    walks.show_step(station.walk, station.step, console)
    _head("Change one thing", console)
    say(station.change.text, console)
    before = station.walk if station.lesson is None else walk_lesson(station.lesson)
    shown = {"before": before, "after": station.change.walk}
    if station.change.step == station.step:  # what was before stands above
        del shown["before"]
    for title, walk in shown.items():
        console.print()
        say(title, console, style="dim")
        walks.show_step(walk, station.change.step, console)
    _head("Try your own sentence", console)
    say(station.own, console, indent=2, style="cyan")
    _pose("Check yourself", station.check, console, ask)
    console.print()
    after = 'the last station is behind you: pellucid explain "your own sentence"'
    say(f"Next: {f'pellucid learn {following}' if following else after}", console)


def _head(title: str, console: Console) -> None:
    console.print()
    say(title, console, style="bold")


def _pose(title: str, question: Question, console: Console, ask: Ask | None) -> None:
    _head(title, console)
    say(question.text, console)
    for number, choice in enumerate(question.choices, start=1):
        say(f"{number}  {choice.text}", console, indent=2)
    given = None if ask is None else ask(len(question.choices)) - 1
    if given is not None:
        chosen = question.choices[given]
        say(f"{'Right' if chosen.is_right else 'Not quite'}. {chosen.why}", console)
    if given != question.right:
        right = question.choices[question.right]
        say(f"The answer is {question.right + 1}: {right.text.rstrip('.')}. {right.why}", console)
