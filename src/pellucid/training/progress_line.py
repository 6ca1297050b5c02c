"""How far a run is, counted: what there is to say, for whoever shows it."""

from collections.abc import Sequence

from pellucid.common.grid import Cell
from pellucid.common.wording import percent


class Line:
    """What it says is up to whoever counts: the numbers are for them to set and add to.

    It shows nothing. A command has one that prints (`pellucid.commands.printing.training`).
    """

    def __init__(self, steps: int) -> None:
        """Count nothing yet.

        Args:
            steps: of the whole run.
        """
        self.steps = steps
        self.at = self.made = self.skipped = 0
        """The step, steps of this process, and steps that were skipped."""
        self.loss, self.speed, self.share, self.pace = map(Mean, (0.98, 0.95, 0.95, 0.95))
        """In nats, tokens a second, of the machine's peak, seconds a step."""
        self.others = 0.0
        """Seconds of this process that went into evaluations and checkpoints."""
        self.share_judged = 0.0
        """Share of an evaluation that is done; 0 = there is none."""

    @property
    def width(self) -> int:
        """Letters that there are in a line of what is shown."""
        return 80

    def start(self) -> None:
        """The run begins."""

    def stop(self) -> None:
        """The run is over."""

    def tick(self) -> None:
        """A number has changed."""

    def say(self, text: str, *, indent: int = 0, style: str = "") -> None:
        """There is something else to say, so far from the margin and in such a style."""

    def show(self, lines: Sequence[Sequence[Cell]], *, indent: int = 0) -> None:
        """There is a grid of percents to see, line by line."""

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
