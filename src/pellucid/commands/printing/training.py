"""The progress of a run: a live line on a terminal, and a line now and then elsewhere."""

import sys
from collections.abc import Sequence
from time import perf_counter

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pellucid.commands.printing.console import say
from pellucid.commands.printing.shades import shaded_line
from pellucid.common.grid import Cell
from pellucid.training.progress_line import Line

EVERY = 10.0
"""Seconds between lines where there is no terminal."""
BAR = 10
"""Least width of the bar, in characters; a narrower terminal shows fewer parts of the line."""
FIRST_TO_GO = ("steps", "peak", "speed", "skipped", "judging", "left")
"""The parts that a narrow terminal leaves out, in this order."""


class LiveLine(Line):
    """Prints a run's progress."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        """Print nothing yet.

        Args:
            steps: of the whole run.
            console: where to print; stderr unless given.
        """
        super().__init__(steps)
        self.console = _stderr() if console is None else console
        self.live: Live | None = None
        self.printed_at = perf_counter()

    @property
    def width(self) -> int:
        return self.console.width

    def start(self) -> None:
        """Show the line until `stop`, if stderr is a terminal."""
        self.printed_at = perf_counter()
        if self.console.is_interactive:
            # Output to a file or pipe does not disturb the line.
            shares = sys.stdout is not None and sys.stdout.isatty()
            self.live = Live(self, console=self.console, transient=True, redirect_stdout=shares)
            self.live.start()

    def stop(self) -> None:
        """Remove the line."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def tick(self) -> None:
        """Print the progress now and then, if there is no line that is always shown."""
        now = perf_counter()
        if self.live is None and now - self.printed_at >= EVERY:
            self.printed_at = now
            self.say("  ".join(self.parts().values()))

    def say(self, text: str, *, indent: int = 0, style: str = "") -> None:
        """Print a message above the line."""
        if self.live is not None:
            say(text, self.console, indent=indent, style=style)
        else:  # a file has no width
            self.console.print(Text(" " * indent + text, style=style), soft_wrap=True)

    def show(self, lines: Sequence[Sequence[Cell]], *, indent: int = 0) -> None:
        """Print a grid of percentages above the line."""
        for cells in lines:
            line = shaded_line(cells)
            line.pad_left(indent)
            self.console.print(line, no_wrap=True, soft_wrap=True)

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
    # Colours may be forced for a file, but not a line that is redrawn.
    return Console(stderr=True, force_terminal=None if is_terminal else False)
