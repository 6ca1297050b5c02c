"""How a run goes, for people while it runs and for programs afterwards."""

import json
import sys
import time
from pathlib import Path
from typing import Any

EVERY = 10.0
"""Seconds between lines where stderr is no terminal."""


class Report:
    """A line on the terminal, and log.jsonl."""

    def __init__(self, directory: Path, steps: int, tokens: int) -> None:
        """Log to a directory a run of so many steps of about so many tokens."""
        self.file, self.steps, self.tokens = directory / "log.jsonl", steps, tokens
        self.last = self.said = time.perf_counter()
        self.rate = 0.0

    def step(self, step: int, loss: float, norm: float, rate: float, skipped: int) -> None:
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        speed = self.tokens / seconds
        self.rate = speed if not self.rate else 0.95 * self.rate + 0.05 * speed
        self._log(step=step, loss=loss, norm=norm, learning_rate=rate, tokens_per_second=speed)
        if now - self.said >= EVERY:
            self.said = now
            left = (self.steps - step) * self.tokens / self.rate
            print(
                f"step {step}/{self.steps}  loss {loss:.3f}  {self.rate:,.0f} tokens/s  "
                f"{left / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )

    def judging(self, done: int, of: int) -> None:
        pass

    def judged(self, step: int, measures: dict[str, float], is_best: bool, sample: str) -> None:
        self._log(step=step, best=is_best, **measures)
        said = "  ".join(f"{name} {value:.4g}" for name, value in measures.items())
        print(f"step {step}: {said}{'  (best)' if is_best else ''}", file=sys.stderr, flush=True)
        if sample:
            print(f"    {sample}", file=sys.stderr, flush=True)
        self.last = time.perf_counter()

    def resumed(self, step: int, damaged: list[str]) -> None:
        print(f"going on from step {step}", file=sys.stderr)
        self.last = time.perf_counter()

    def _log(self, **said: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(said) + "\n")
