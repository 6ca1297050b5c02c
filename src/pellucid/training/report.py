"""The report of a run's progress, on the terminal and in files.

    DIR/log.jsonl         a line per step, and one per evaluation
    DIR/loss.svg          redrawn at each evaluation
    DIR/attention/*.svg   the attention of one head in a short text, at each evaluation
    DIR/tensorboard/      if TensorBoard is installed

The line of a step; loss and norm are null if they were not finite and the step was skipped:

    {"step": 1, "loss": 8.37, "norm": 4.1, "learning_rate": 2e-05, "tokens": 4096,
     "tokens_per_second": 3521.1, "share_of_peak": 0.61, "seconds": 1.163}

Before each evaluation, the line of each head: its largest logit in the last step, and the mean
entropy of its queries, in nats:

    {"step": 250, "module": "decoder.blocks.0.attention", "head": 3, "max_logit": 7.1,
     "entropy": 2.04}

The line of an evaluation:

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

if TYPE_CHECKING:  # a report does not need torch
    from pellucid.training.attention_snapshot import Glance
    from pellucid.training.head_monitor import HeadFigures

INDENT = 4
"""Spaces before details of the line above."""


class Report:
    """The progress of a run, as a context manager that displays the progress line.

    If several processes train, all may call it, and only the first prints and writes.
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
        """Prepare a report.

        Args:
            directory: for the log and pictures.
            steps: of the whole run.
            tokens: of a step, of all processes together, if `step` is not given any.
            work: floating-point operations per token, as from `hardware.operations`.
            peak: operations per second of all processes together, as from
                `hardware.matrix_rate`; 0 if unknown. A busy machine may have measured it too low,
                so a faster step raises it.
            is_first: whether this process prints and writes.
            line: the progress line; none is displayed by default.
        """
        self.directory, self.steps, self.tokens = directory, steps, tokens
        self.work, self.peak, self.is_first = work, peak, is_first
        self.line = Line(steps) if line is None else line
        self.log = Log(directory / "log.jsonl")
        self.board: Board | None = None
        self.training, self.held_out = array("d"), array("d")
        """Step, loss, step, loss and so on."""
        self.is_open = False
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
        """Report a step.

        Args:
            step: its number, from 1.
            loss: the mean over predicted tokens, in nats.
            norm: the gradient norm before clipping.
            rate: the learning rate.
            skipped: the number of skipped steps of the run.
            tokens: read by all processes together.

        Raises:
            FileError: the log cannot be written.
        """
        if not self.is_first:
            return
        seconds = self._lap()
        self._open(0)
        tokens = self.tokens if tokens is None else tokens
        share = self._share(tokens / seconds)
        line = self.line
        line.at, line.skipped, line.share_judged = step, skipped, 0.0
        line.made += 1
        line.speed.add(tokens, seconds)
        line.pace.add(seconds)
        if share is not None:
            line.share.add(share * seconds, seconds)
        numbers = {
            "loss": _number(loss),
            "norm": _number(norm),
            "learning_rate": rate,
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1),
            "share_of_peak": None if share is None else round(share, 4),
            "seconds": round(seconds, 6),
        }
        self._log({"step": step, **numbers})
        if self.board is not None:
            self.board.add("train", numbers, step)
        line.tick()

    def heads(self, step: int, figures: "Sequence[HeadFigures]") -> None:
        """Log the figures of the heads, and print the range of their largest logits.

        Args:
            step: the number of the last step.
            figures: of each head.

        Raises:
            FileError: the log cannot be written.
        """
        if not (self.is_first and figures):
            return
        for head in figures:
            numbers = {"max_logit": _number(head.max_logit), "entropy": _number(head.entropy)}
            self._log({"step": step, "module": head.module, "head": head.head, **numbers})
            if self.board is not None:
                for name, number in numbers.items():
                    self.board.add(name, {f"{head.module}/{head.head}": number}, step)
        top = max(figures, key=lambda head: head.max_logit)
        low = min(figures, key=lambda head: head.entropy)
        self.line.say(
            f"step {step:,}: largest logit {top.max_logit:.3g} ({top.module}, head {top.head}); "
            f"least entropy {low.entropy:.2f} nats ({low.module}, head {low.head})",
            style="dim",
        )

    def judging(self, done: int, of: int) -> None:
        """Report the progress of an evaluation."""
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
        """Print and log an evaluation, and draw the loss curve.

        Args:
            step: the number of steps before it.
            measures: of the held-out data, by name; "loss" is drawn, if there is one.
            is_best: whether these are the best weights so far.
            sample: output of the model, in one or several lines.
            glance: the attention of one head, to be drawn.

        Raises:
            FileError: the log or a picture cannot be written.
        """
        if not self.is_first:
            return
        seconds = self._lap()
        self._open(0)
        self.line.at, self.line.share_judged = step, 0.0
        self.line.others += seconds
        numbers = {name: _number(value) for name, value in measures.items()}
        self._log(
            {"step": step, "held_out": numbers, "best": is_best}
            | ({"sample": sample} if sample else {})
            | ({} if glance is None else {"attention": glance.numbers()})
            | {"seconds": round(seconds, 6)}
        )
        if self.training:
            training, held_out = (_pairs(numbers) for numbers in (self.training, self.held_out))
            write_whole(self.directory / "loss.svg", to_svg(training, held_out))
        summary = "  ".join(
            f"{name.replace('_', ' ')} {value:.4g}" for name, value in measures.items()
        )
        best = "  (best so far)" if is_best else ""
        self.line.say(f"step {step:,}: {summary}{best}", style="bold")
        lines = printable(sample).splitlines()
        for line in lines:
            self.line.say(line, indent=INDENT, style="dim")
        if self.board is not None:
            self.board.add("held_out", numbers, step)
            self.board.tell("sample", lines, step)
        if glance is not None:
            self._show(step, glance)

    def saved(self) -> None:
        """Exclude the time that a checkpoint took from the next step's."""
        self.line.others += self._lap()

    def resumed(self, step: int, damaged: Sequence[str] = ()) -> None:
        """Report that the run resumes from a checkpoint, and cut the log there.

        Args:
            step: of the checkpoint.
            damaged: the names of newer checkpoints that are damaged.

        Raises:
            FileError: the log cannot be written.
        """
        if not self.is_first:
            return
        self._open(step)
        self.line.at = step
        self.line.say(f"resuming from step {step:,} of {self.steps:,}", style="bold")
        if damaged:
            names = listing([printable(name) for name in damaged])
            self.line.say(f"skipped damaged checkpoints: {names}")

    def _show(self, step: int, glance: "Glance") -> None:
        """Print and draw the attention of a head."""
        folder = self.directory / "attention"
        with suppress(OSError):  # writing the picture raises it again
            folder.mkdir(exist_ok=True)
        write_whole(folder / f"step-{step:07d}.svg", glance.to_svg(step))
        lines = glance.lines(self.line.width - INDENT)
        self.line.show(lines, indent=INDENT)
        if self.board is not None:
            plain = [" " * INDENT + "".join(cell.text for cell in line) for line in lines]
            self.board.tell("attention", plain, step)

    def _share(self, speed: float) -> float | None:
        """The share of the machine's peak at `speed` tokens per second, if the peak is known."""
        if not (self.peak and self.work):
            return None
        self.peak = max(self.peak, speed * self.work)
        return speed * self.work / self.peak

    def _lap(self) -> float:
        """Seconds since the last call."""
        now = perf_counter()
        seconds, self.last = max(now - self.last, 1e-9), now
        return seconds

    def _open(self, step: int) -> None:
        """Open the log and TensorBoard after a step, once."""
        if self.is_open:
            return
        self.is_open = True
        self.log.cut(step, self._remember)
        self.board = Board.open(self.directory / "tensorboard", step, self.line.say)
        self._lap()  # not part of a step's time

    def _log(self, entry: dict[str, Any]) -> None:
        self.log.add(entry)
        self._remember(entry)

    def _remember(self, entry: dict[str, Any]) -> None:
        """Store the loss for the curve."""
        held_out = entry.get("held_out")
        loss = entry.get("loss") if held_out is None else held_out.get("loss")
        if loss is None:
            return
        if held_out is None:
            self.line.loss.add(loss)
        (self.training if held_out is None else self.held_out).extend((entry["step"], loss))


def _pairs(numbers: "array[float]") -> np.ndarray[Any, Any]:
    return np.array(numbers).reshape(-1, 2)


def _number(value: float) -> float | None:
    """A number for JSON, which has only finite ones."""
    return value if math.isfinite(value) else None
