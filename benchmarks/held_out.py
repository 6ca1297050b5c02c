"""Held-out figures of labels that nothing can learn: are they within chance's interval?

    python -m benchmarks.held_out [--only SECTION] [--json FILE]

61 random points have random labels of two kinds, and each row is there three times, as in a table
that was joined once too often. A figure that counts equal rows on both sides finds 80 % and more.
Each seed is an evaluation of its own, as `pellucid classify --examples` makes it.
"""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.command import run
from benchmarks.heart import Row
from pellucid.tasks import evaluate

SEEDS, TEXTS, TIMES, KINDS, WIDTH = 100, 61, 3, 2, 31
COVERED = 0.95
"""What chance's interval holds of figures that are chance."""


def noise(seed: int) -> tuple[torch.Tensor, list[str]]:
    """Random points of length 1, (rows, width), and random labels; equal rows have equal labels."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(TEXTS, WIDTH)).repeat(TIMES, 0)
    labels = generator.integers(0, KINDS, TEXTS).repeat(TIMES)
    order = generator.permutation(len(labels))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return torch.from_numpy(points[order]).float(), [f"kind {number}" for number in labels[order]]


def shuffled() -> Iterator[Row]:
    """How many of the seeds are within chance's interval, and how many are said to beat it."""
    found = [evaluate(*noise(seed), seed) for seed in range(SEEDS)]
    chances = [(one.value, one.chance) for one in found if one is not None and one.chance]
    inside = sum(low <= value <= high for value, (low, high) in
                 ((value, chance.interval) for value, chance in chances))  # fmt: skip
    beaten = sum(chance.is_beaten for _, chance in chances)
    accuracy = np.mean([value for value, _ in chances])
    # The least number that 95 of 100 may well be: two standard errors below.
    least = COVERED - 2 * (COVERED * (1 - COVERED) / SEEDS) ** 0.5
    yield Row(
        figure="held-out accuracy on shuffled labels, within chance's interval",
        setting=f"{SEEDS} seeds, {TEXTS} rows {TIMES} times",
        ours=f"{inside} within, {beaten} said to beat chance, mean accuracy {accuracy:.1%}",
        peer=f"chance {1 / KINDS:.0%}",
        value=inside / SEEDS,
        bar=round(least, 2),
        at_least=True,
    )


def main() -> None:
    description = (__doc__ or "").partition("\n")[0]
    run("benchmarks.held_out", description, "no peer", (shuffled,))


if __name__ == "__main__":
    main()
