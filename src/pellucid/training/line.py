"""How far a run is: a line that is always there on a terminal, and elsewhere one now and then."""

import sys
from time import perf_counter

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pellucid.common.terminal import say
from pellucid.common.wording import percent

EVERY = 10.0
"""Seconds between lines where there is no terminal."""
BAR = 10
"""Letters of a terminal that the bar shall have; the line says less where they are too few."""
FIRST_TO_GO = ("steps", "peak", "speed", "skipped", "judging", "left")
"""What a narrow terminal goes without, in turn."""


class Line:
    """What it says is up to whoever counts: the numbers are for them to set and add to."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        """Say nothing yet.

        Args:
            steps: of the whole run.
            console: where to print; stderr unless given.
        """
        self.steps = steps
        self.console = _stderr() if console is None else console
        self.live: Live | None = None
        self.at = self.made = self.skipped = 0
        """The step, steps of this process, and steps that were skipped."""
        self.loss, self.speed, self.share, self.pace = map(Mean, (0.98, 0.95, 0.95, 0.95))
        """In nats, tokens a second, of the machine's peak, seconds a step."""
        self.others = 0.0
        """Seconds of this process that went into evaluations and checkpoints."""
        self.share_judged = 0.0
        """Share of an evaluation that is done; 0 = there is none."""
        self.said = perf_counter()

    def start(self) -> None:
        """Be there until `stop`, where there is a terminal."""
        self.said = perf_counter()
        if self.console.is_interactive:
            # What goes to a file or a pipe is not the terminal's.
            shares = sys.stdout is not None and sys.stdout.isatty()
            self.live = Live(self, console=self.console, transient=True, redirect_stdout=shares)
            self.live.start()

    def stop(self) -> None:
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

    def parts(self) -> dict[str, str]:
        """What there is to say, by name."""
        parts = {
            "steps": f"step {self.at:,}/{self.steps:,}",
            "done": percent(self.at / self.steps),
        }
        if self.loss.weight:
            parts["loss"] = f"loss {self.loss.value:.3f}"
        if self.speed.weight:
            parts["speed"] = f"{self.speed.value:,.0f} tokens/s"
        if self.share.weight:
            parts["peak"] = f"{percent(self.share.value)} of peak"
        if self.made:
            each = self.pace.value + self.others / self.made
            parts["left"] = f"{duration((self.steps - self.at) * each)} left"
        if self.share_judged:
            parts["judging"] = f"judging: {percent(self.share_judged)}"
        if self.skipped:
            parts["skipped"] = f"{self.skipped:,} skipped"
        return parts

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


class Mean:
    """A running mean that forgets, and is right from its first number on (Kingma and Ba 2015,
    "Adam", section 3).
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.total, self.weight = decay, 0.0, 0.0

    def add(self, number: float, weight: float = 1.0) -> None:
        """Count a number that is so many times the mean: tokens, say, of so many seconds."""
        self.total = self.decay * self.total + number
        self.weight = self.decay * self.weight + weight

    @property
    def value(self) -> float:
        return self.total / self.weight


def duration(seconds: float) -> str:
    """For people: '45 s', '12 min', '3.4 h' or '2.1 days'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _stderr() -> Console:
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    # Colours may be forced on a file, but not lines that are drawn over.
    return Console(stderr=True, force_terminal=None if is_terminal else False)
