"""How a run goes: a line on the terminal, a log for programs, a picture of the loss.

    DIR/log.jsonl     a line a step, and one an evaluation
    DIR/loss.svg      drawn anew at each evaluation
    DIR/tensorboard/  where TensorBoard is installed

A line of a step, whose loss or norm is null if it was no number and the step was skipped:

    {"step": 1, "loss": 8.37, "norm": 4.1, "learning_rate": 2e-05, "tokens": 4096,
     "tokens_per_second": 3521.1, "share_of_peak": 0.61, "seconds": 1.163}

and of an evaluation:

    {"step": 250, "held_out": {"loss": 4.2, ...}, "best": true, "sample": "...", "seconds": 9.8}
"""

import json
import math
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pellucid.common.files import printable, write_whole, written_whole
from pellucid.common.terminal import say
from pellucid.common.wording import listing, percent
from pellucid.errors import FileError
from pellucid.training.curve import to_svg

EVERY = 10.0
"""Seconds between lines where there is no terminal."""
BAR = 10
"""Letters of a terminal that the bar shall have; the line says less where they are too few."""
FIRST_TO_GO = ("steps", "peak", "speed", "skipped", "judging", "left")
"""What a narrow terminal goes without, in turn."""


class Report:
    """What tells people and programs how a run goes; a context, in which the line is alive.

    Where several processes train, all may report, and the first alone prints and writes.
    """

    def __init__(
        self,
        directory: Path,
        steps: int,
        tokens: int,
        *,
        work: float = 0.0,
        peak: float = 0.0,
        is_first: bool = True,
        console: Console | None = None,
    ) -> None:
        """Report a run.

        Args:
            directory: where log and picture go.
            steps: of the whole run.
            tokens: of a step, of all processes together, where `step` is not told.
            work: floating-point operations a token, as `machine.operations`.
            peak: operations a second of the machines of all processes together, as
                `machine.matrix_rate`; 0 = not known, and then no share of it is told.
            is_first: whether this is the process that prints and writes.
            console: where to print; stderr unless given.
        """
        self.directory, self.steps, self.tokens = directory, steps, tokens
        self.work, self.peak, self.is_first = work, peak, is_first
        self.console = _stderr() if console is None else console
        self.log = Log(directory / "log.jsonl")
        self.board: Board | None = None
        self.live: Live | None = None
        self.at = self.made = self.skipped = 0
        """The step, steps of this process, and steps that were skipped."""
        self.loss, self.speed, self.pace = Mean(0.98), Mean(0.95), Mean(0.95)
        """In nats, tokens a second, seconds a step."""
        self.others = 0.0
        """Seconds of this process that went into evaluations and checkpoints."""
        self.share_judged = 0.0
        """Share of an evaluation that is done; 0 = there is none."""
        self.training, self.held_out = array("d"), array("d")
        """Pairs of a step and a loss, one after the other."""
        self.is_begun = False
        self.last = self.said = perf_counter()

    def __enter__(self) -> Self:
        self.last = self.said = perf_counter()
        if self.is_first and self.console.is_interactive:
            # What goes to a file or a pipe is not the terminal's.
            shares = sys.stdout is not None and sys.stdout.isatty()
            self.live = Live(self, console=self.console, transient=True, redirect_stdout=shares)
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        if self.board is not None:
            self.board.close()

    # What the loop says

    def step(
        self,
        step: int,
        loss: float,
        norm: float,
        rate: float,
        skipped: int,
        tokens: int | None = None,
    ) -> None:
        """A step is done.

        Args:
            step: its number, from 1.
            loss: in nats, the mean over what was predicted.
            norm: the length of the gradient before it was clipped.
            rate: the learning rate.
            skipped: steps of the run so far whose loss or norm was no number.
            tokens: that were read, of all processes together.

        Raises:
            FileError: the log cannot be written.
        """
        if not self.is_first:
            return
        seconds = self._lap()
        self._begin(0)
        tokens = self.tokens if tokens is None else tokens
        self.at, self.skipped, self.share_judged = step, skipped, 0.0
        self.made += 1
        self.speed.add(tokens, seconds)
        self.pace.add(seconds)
        speed = tokens / seconds
        share = self._share(speed)
        said = {
            "loss": _number(loss),
            "norm": _number(norm),
            "learning_rate": rate,
            "tokens": tokens,
            "tokens_per_second": round(speed, 1),
            "share_of_peak": None if share is None else round(share, 4),
            "seconds": round(seconds, 6),
        }
        self._note({"step": step, **said})
        if self.board is not None:
            self.board.add("train", said, step)
        self._tick()

    def judging(self, done: int, of: int) -> None:
        """So much of an evaluation is done."""
        if self.is_first:
            self.share_judged = done / max(1, of)
            self._tick()

    def judged(self, step: int, measures: dict[str, float], is_best: bool, sample: str) -> None:
        """An evaluation is done: print and log it, and draw the curve.

        Args:
            step: after which it was.
            measures: of the texts that are held out, by name; "loss" is drawn, if there is one.
            is_best: whether these are the best weights so far.
            sample: something that the model made; may have several lines.

        Raises:
            FileError: the log or the picture cannot be written.
        """
        if not self.is_first:
            return
        seconds = self._lap()
        self._begin(0)
        self.at, self.share_judged = step, 0.0
        self.others += seconds
        numbers = {name: _number(value) for name, value in measures.items()}
        self._note(
            {"step": step, "held_out": numbers, "best": is_best}
            | ({"sample": sample} if sample else {})
            | {"seconds": round(seconds, 6)}
        )
        if self.board is not None:
            self.board.add("held_out", numbers, step)
        if self.training:
            training, held_out = (_pairs(one) for one in (self.training, self.held_out))
            write_whole(self.directory / "loss.svg", to_svg(training, held_out))
        told = "  ".join(f"{_words(name)} {value:.4g}" for name, value in measures.items())
        self._say(f"step {step:,}: {told}{'  (best so far)' if is_best else ''}", style="bold")
        for line in printable(sample).splitlines():
            self._say(line, indent=4, style="dim")

    def saved(self) -> None:
        """A checkpoint was written; that took no step's time."""
        self.others += self._lap()

    def resumed(self, step: int, damaged: Sequence[str] = ()) -> None:
        """The run goes on where a checkpoint left it: so does the log, as if nothing had been.

        Args:
            step: of the checkpoint.
            damaged: names of newer checkpoints that could not be used.

        Raises:
            FileError: the log cannot be written.
        """
        if not self.is_first:
            return
        self._begin(step)
        self.at = step
        self._say(f"going on from step {step:,} of {self.steps:,}", style="bold")
        if damaged:
            self._say(f"damaged, and passed over: {listing([printable(one) for one in damaged])}")

    # What people see

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts = self._parts()

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

    def _parts(self) -> dict[str, str]:
        """What there is to say, by name."""
        parts = {
            "steps": f"step {self.at:,}/{self.steps:,}",
            "done": percent(self.at / self.steps),
        }
        if self.loss.weight:
            parts["loss"] = f"loss {self.loss.value:.3f}"
        if self.speed.weight:
            parts["speed"] = f"{self.speed.value:,.0f} tokens/s"
            share = self._share(self.speed.value)
            if share is not None:
                parts["peak"] = f"{percent(share)} of peak"
        if self.made:
            each = self.pace.value + self.others / self.made
            parts["left"] = f"{duration((self.steps - self.at) * each)} left"
        if self.share_judged:
            parts["judging"] = f"judging: {percent(self.share_judged)}"
        if self.skipped:
            parts["skipped"] = f"{self.skipped:,} skipped"
        return parts

    def _tick(self) -> None:
        """Say how it goes, where there is no line that does all the time."""
        now = perf_counter()
        if self.live is None and now - self.said >= EVERY:
            self.said = now
            self._say("  ".join(self._parts().values()))

    def _say(self, text: str, *, indent: int = 0, style: str = "") -> None:
        if self.live is not None:
            say(text, self.console, indent=indent, style=style)
        else:  # a file has no width
            self.console.print(Text(" " * indent + text, style=style), soft_wrap=True)

    def _share(self, speed: float) -> float | None:
        """Of the machine's peak, at so many tokens a second."""
        return speed * self.work / self.peak if self.peak and self.work else None

    def _lap(self) -> float:
        """Seconds since this was last asked."""
        now = perf_counter()
        seconds, self.last = max(now - self.last, 1e-9), now
        return seconds

    # What programs read

    def _begin(self, step: int) -> None:
        """Begin the log after a step, once."""
        if self.is_begun:
            return
        self.is_begun = True
        self.log.cut(step, self._remember)
        self.board = Board.open(self.directory / "tensorboard", step, self._say)
        self._lap()  # that took no step's time

    def _note(self, said: dict[str, Any]) -> None:
        self.log.add(said)
        self._remember(said)

    def _remember(self, said: dict[str, Any]) -> None:
        """Keep what the curve is drawn from."""
        held_out = said.get("held_out")
        loss = said.get("loss") if held_out is None else held_out.get("loss")
        if loss is None:
            return
        if held_out is None:
            self.loss.add(loss)
        (self.training if held_out is None else self.held_out).extend((said["step"], loss))


class Log:
    """Lines of JSON, in order of steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, said: dict[str, Any]) -> None:
        """Write a line.

        Raises:
            FileError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(said, allow_nan=False) + "\n")
        except OSError as error:
            raise FileError(f"cannot write '{self.path}': {error.strerror or error}") from error

    def cut(self, step: int, read: Callable[[dict[str, Any]], None]) -> None:
        """Drop the lines of later steps, which will be made again, and those that are not whole.

        Args:
            step: the last that is kept.
            read: gets each line that is.

        Raises:
            FileError: it cannot be read or written.
        """
        if not self.path.exists():
            return
        with (
            written_whole(self.path) as aside,
            aside.open("w", encoding="utf-8", newline="\n") as kept,
            self.path.open(encoding="utf-8", errors="replace") as lines,
        ):
            for line in lines:
                said = _line(line)
                if said is not None and said["step"] <= step:
                    kept.write(line if line.endswith("\n") else line + "\n")
                    read(said)


class Board:
    """TensorBoard, as long as nothing goes wrong with it."""

    def __init__(self, writer: Any, say: Callable[[str], None]) -> None:
        self.writer, self.say = writer, say

    @classmethod
    def open(cls, directory: Path, step: int, say: Callable[[str], None]) -> "Board | None":
        """One that goes on after a step, or none where TensorBoard is not installed."""
        if find_spec("tensorboard") is None:
            return None
        board = cls(None, say)
        with board._harmless():
            from torch.utils.tensorboard import SummaryWriter

            board.writer = SummaryWriter(str(directory), purge_step=step + 1)
        return board

    def add(self, group: str, numbers: dict[str, Any], step: int) -> None:
        """Curves named group/number; what is None is left out."""
        with self._harmless():
            for name, number in numbers.items():
                if number is not None and self.writer is not None:
                    self.writer.add_scalar(f"{group}/{name}", number, step)

    def close(self) -> None:
        with self._harmless():
            if self.writer is not None:
                self.writer.close()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Whatever fails, it is said once, and the run goes on without."""
        try:
            yield
        except Exception as error:
            self.writer = None
            self.say(f"TensorBoard is left out: {printable(str(error)) or type(error).__name__}")


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


def _pairs(numbers: "array[float]") -> np.ndarray[Any, Any]:
    return np.array(numbers).reshape(-1, 2)


def _number(value: float) -> float | None:
    """For JSON, which knows no other numbers than finite ones."""
    return value if math.isfinite(value) else None


def _words(name: str) -> str:
    return name.replace("_", " ")


def _line(line: str) -> dict[str, Any] | None:
    """What a line of the log says, if it is whole."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    is_ours = isinstance(said, dict) and isinstance(said.get("step"), int)
    return said if is_ours else None
