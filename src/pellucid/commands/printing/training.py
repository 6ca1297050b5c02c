"""How far a run is: a line that is always there on a terminal, and elsewhere one now and then."""

import sys
from collections.abc import Sequence
from time import perf_counter

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pellucid.commands.printing.console import say, shaded_line
from pellucid.common.grid import Cell
from pellucid.training.progress_line import Line

EVERY = 10.0
"""Seconds between lines where there is no terminal."""
BAR = 10
"""Letters of a terminal that the bar shall have; the line says less where they are too few."""
FIRST_TO_GO = ("steps", "peak", "speed", "skipped", "judging", "left")
"""What a narrow terminal goes without, in turn."""


class LiveLine(Line):
    """What `Line` counts, printed."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        """Say nothing yet.

        Args:
            steps: of the whole run.
            console: where to print; stderr unless given.
        """
        super().__init__(steps)
        self.console = _stderr() if console is None else console
        self.live: Live | None = None
        self.said = perf_counter()

    @property
    def width(self) -> int:
        return self.console.width

    def start(self) -> None:
        """Be there until `stop`, where there is a terminal."""
        self.said = perf_counter()
        if self.console.is_interactive:
            # What goes to a file or a pipe is not the terminal's.
            shares = sys.stdout is not None and sys.stdout.isatty()
            self.live = Live(self, console=self.console, transient=True, redirect_stdout=shares)
            self.live.start()

    def stop(self) -> None:
        """Be gone."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def tick(self) -> None:
        """Say how it goes, where there is no line that does all the time."""
        now = perf_counter()
        if self.live is None and now - self.said >= EVERY:
            self.said = now
            self.say("  ".join(self.parts().values()))

    def say(self, text: str, *, indent: int = 0, style: str = "") -> None:
        """Print something else, above the line."""
        if self.live is not None:
            say(text, self.console, indent=indent, style=style)
        else:  # a file has no width
            self.console.print(Text(" " * indent + text, style=style), soft_wrap=True)

    def show(self, lines: Sequence[Sequence[Cell]], *, indent: int = 0) -> None:
        """Print a grid of percents above the line."""
        for cells in lines:
            told = shaded_line(cells)
            told.pad_left(indent)
            self.console.print(told, no_wrap=True, soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts = self.parts()

        def room() -> int:
            return options.max_width - sum(len(part) + 2 for part in parts.values())

        for name in FIRST_TO_GO:
            if room() < BAR:
                parts.pop(name, None)
        bar = ProgressBar(total=self.steps, completed=self.at, width=max(1, min(room(), 4 * BAR)))
        cells = {name: Text(part) for name, part in parts.items()}
        line = Table.grid(padding=(0, 2, 0, 0))
        before = [cells.pop("steps")] if "steps" in cells else []
        line.add_row(*before, bar, *cells.values())
        yield line


def _stderr() -> Console:
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    # Colours may be forced on a file, but not lines that are drawn over.
    return Console(stderr=True, force_terminal=None if is_terminal else False)
