"""The progress of a run in numbers, for a display.

The columns of `rich.progress` would not shorten it: none has a debiased moving average, excludes
the time of evaluations from the speed, or drops parts on a narrow terminal.
"""

from collections.abc import Sequence

from pellucid.common.grid import Cell
from pellucid.common.wording import percent


class Line:
    """The numbers, which a `Report` sets.

    This class displays nothing; `pellucid.commands.printing.training` has one that does.
    """

    def __init__(self, steps: int) -> None:
        """Start at step 0.

        Args:
            steps: of the whole run.
        """
        self.steps = steps
        self.at = self.made = self.skipped = 0
        """The current step, the steps of this process, and the skipped steps."""
        self.loss, self.speed, self.share, self.pace = map(Mean, (0.98, 0.95, 0.95, 0.95))
        """Nats, tokens per second, the share of the machine's peak, seconds per step."""
        self.others = 0.0
        """Seconds that this process spent on evaluations and checkpoints."""
        self.share_judged = 0.0
        """The share of an evaluation that is done; 0 if there is none."""

    @property
    def width(self) -> int:
        """Characters per line of the display."""
        return 80

    def start(self) -> None:
        """Start the display."""

    def stop(self) -> None:
        """Stop the display."""

    def tick(self) -> None:
        """Update the display."""

    def say(self, text: str, *, indent: int = 0, style: str = "") -> None:
        """Print a message."""

    def show(self, lines: Sequence[Sequence[Cell]], *, indent: int = 0) -> None:
        """Print a grid of percentages."""

    def parts(self) -> dict[str, str]:
        """The parts of the progress line, by name."""
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


class Mean:
    """A bias-corrected exponential moving average (Kingma and Ba 2015, "Adam", section 3)."""

    def __init__(self, decay: float) -> None:
        self.decay, self.total, self.weight = decay, 0.0, 0.0

    def add(self, number: float, weight: float = 1.0) -> None:
        """Add a number with a weight, such as a number of tokens with their seconds."""
        self.total = self.decay * self.total + number
        self.weight = self.decay * self.weight + weight

    @property
    def value(self) -> float:
        return self.total / self.weight


def duration(seconds: float) -> str:
    """A readable duration: '45 s', '12 min', '3.4 h' or '2.1 days'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
