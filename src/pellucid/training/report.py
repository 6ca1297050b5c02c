"""How a run goes, said to people and to programs.

    DIR/log.jsonl         a line a step, and one an evaluation
    DIR/loss.svg          drawn anew at each evaluation
    DIR/attention/*.svg   what one head sees in a short text, at each evaluation
    DIR/tensorboard/      where TensorBoard is installed

A line of a step, whose loss or norm is null if it was no number and the step was skipped:

    {"step": 1, "loss": 8.37, "norm": 4.1, "learning_rate": 2e-05, "tokens": 4096,
     "tokens_per_second": 3521.1, "share_of_peak": 0.61, "seconds": 1.163}

and of an evaluation:

    {"step": 250, "held_out": {"loss": 4.2, ...}, "best": true, "sample": "...",
     "attention": {"layer": 1, "head": 3, "entropy": 0.83}, "seconds": 9.8}
"""

import math
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pellucid.common.files import printable, write_whole
from pellucid.common.wording import listing
from pellucid.training.log import Log
from pellucid.training.loss_curve import to_svg
from pellucid.training.progress_line import Line
from pellucid.training.tensorboard import Board

if TYPE_CHECKING:  # torch is not needed to report
    from pellucid.training.attention_snapshot import Glance

INDENT = 4
"""Blanks before what belongs to the line above."""


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
        line: Line | None = None,
    ) -> None:
        """Report a run.

        Args:
            directory: where log and pictures go.
            steps: of the whole run.
            tokens: of a step, of all processes together, where `step` is not told.
            work: floating-point operations a token, as `hardware.operations`.
            peak: operations a second of the machines of all processes together, as
                `hardware.matrix_rate`; 0 = not known, and then no share of it is told. It may be
                measured too low, on a machine that is busy: a step that does more raises it.
            is_first: whether this is the process that prints and writes.
            line: tells people; nobody is told unless given.
        """
        self.directory, self.steps, self.tokens = directory, steps, tokens
        self.work, self.peak, self.is_first = work, peak, is_first
        self.line = Line(steps) if line is None else line
        self.log = Log(directory / "log.jsonl")
        self.board: Board | None = None
        self.training, self.held_out = array("d"), array("d")
        """Pairs of a step and a loss, one after the other."""
        self.is_begun = False
        self.last = perf_counter()

    def __enter__(self) -> Self:
        self.last = perf_counter()
        if self.is_first:
            self.line.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.line.stop()
        if self.board is not None:
            self.board.close()

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
        share = self._share(tokens / seconds)
        line = self.line
        line.at, line.skipped, line.share_judged = step, skipped, 0.0
        line.made += 1
        line.speed.add(tokens, seconds)
        line.pace.add(seconds)
        if share is not None:
            line.share.add(share * seconds, seconds)
        said = {
            "loss": _number(loss),
            "norm": _number(norm),
            "learning_rate": rate,
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1),
            "share_of_peak": None if share is None else round(share, 4),
            "seconds": round(seconds, 6),
        }
        self._note({"step": step, **said})
        if self.board is not None:
            self.board.add("train", said, step)
        line.tick()

    def judging(self, done: int, of: int) -> None:
        """So much of an evaluation is done."""
        if self.is_first:
            self.line.share_judged = done / max(1, of)
            self.line.tick()

    def judged(
        self,
        step: int,
        measures: dict[str, float],
        is_best: bool,
        sample: str,
        glance: "Glance | None" = None,
    ) -> None:
        """An evaluation is done: print and log it, and draw the curve.

        Args:
            step: after which it was.
            measures: of the texts that are held out, by name; "loss" is drawn, if there is one.
            is_best: whether these are the best weights so far.
            sample: something that the model made; may have several lines.
            glance: what one head sees, which is drawn.

        Raises:
            FileError: the log or a picture cannot be written.
        """
        if not self.is_first:
            return
        seconds = self._lap()
        self._begin(0)
        self.line.at, self.line.share_judged = step, 0.0
        self.line.others += seconds
        numbers = {name: _number(value) for name, value in measures.items()}
        self._note(
            {"step": step, "held_out": numbers, "best": is_best}
            | ({"sample": sample} if sample else {})
            | ({} if glance is None else {"attention": glance.numbers()})
            | {"seconds": round(seconds, 6)}
        )
        if self.training:
            training, held_out = (_pairs(one) for one in (self.training, self.held_out))
            write_whole(self.directory / "loss.svg", to_svg(training, held_out))
        told = "  ".join(f"{_words(name)} {value:.4g}" for name, value in measures.items())
        self.line.say(f"step {step:,}: {told}{'  (best so far)' if is_best else ''}", style="bold")
        lines = printable(sample).splitlines()
        for line in lines:
            self.line.say(line, indent=INDENT, style="dim")
        if self.board is not None:
            self.board.add("held_out", numbers, step)
            self.board.tell("sample", lines, step)
        if glance is not None:
            self._show(step, glance)

    def saved(self) -> None:
        """A checkpoint was written; that took no step's time."""
        self.line.others += self._lap()

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
        self.line.at = step
        self.line.say(f"going on from step {step:,} of {self.steps:,}", style="bold")
        if damaged:
            named = listing([printable(one) for one in damaged])
            self.line.say(f"damaged, and passed over: {named}")

    def _show(self, step: int, glance: "Glance") -> None:
        """Print and draw what a head sees."""
        folder = self.directory / "attention"
        with suppress(OSError):  # which the picture then says
            folder.mkdir(exist_ok=True)
        write_whole(folder / f"step-{step:07d}.svg", glance.to_svg(step))
        lines = glance.lines(self.line.width - INDENT)
        self.line.show(lines, indent=INDENT)
        if self.board is not None:
            plain = [" " * INDENT + "".join(cell.text for cell in line) for line in lines]
            self.board.tell("attention", plain, step)

    def _share(self, speed: float) -> float | None:
        """Of the machine's peak, at so many tokens a second."""
        if not (self.peak and self.work):
            return None
        self.peak = max(self.peak, speed * self.work)
        return speed * self.work / self.peak

    def _lap(self) -> float:
        """Seconds since this was last asked."""
        now = perf_counter()
        seconds, self.last = max(now - self.last, 1e-9), now
        return seconds

    def _begin(self, step: int) -> None:
        """Begin the log after a step, once."""
        if self.is_begun:
            return
        self.is_begun = True
        self.log.cut(step, self._remember)
        self.board = Board.open(self.directory / "tensorboard", step, self.line.say)
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
            self.line.loss.add(loss)
        (self.training if held_out is None else self.held_out).extend((said["step"], loss))


def _pairs(numbers: "array[float]") -> np.ndarray[Any, Any]:
    return np.array(numbers).reshape(-1, 2)


def _number(value: float) -> float | None:
    """For JSON, which knows no other numbers than finite ones."""
    return value if math.isfinite(value) else None


def _words(name: str) -> str:
    return name.replace("_", " ")
