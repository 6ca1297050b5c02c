"""Training without the division by the square root, what the heads' monitor sees, and QK-clip.

    python -m recipes.unstable_training [FILE...] [--steps N] [--learning-rate R] [--seed N]

Three small decoders learn the same texts, by default this project's documents, from the same start:
one with scores divided by the square root of the head's size, one without, and one without whose
logits QK-clip bounds. One head of 128 dimensions a layer makes the undivided scores eleven times as
large.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pellucid.training.run_config import Run
from pellucid.training.run_setup import train

DOCUMENTS = sorted(Path(__file__).parent.parent.glob("docs/*.md"))
SHAPE = {"width": 128, "heads": 1, "layers": 2, "hidden": 256, "positions": 128}
BOUND = 30.0
RUNS: dict[str, dict[str, Any]] = {
    "divided": {},
    "undivided": {"attention_scale": 1.0},
    f"undivided, qk_clip {BOUND:.0f}": {"attention_scale": 1.0, "qk_clip": BOUND},
}
REPORTS = 5


def figures(files: list[Path], options: dict[str, Any]) -> dict[int, tuple[float, float, float]]:
    """Of some steps of a run: the mean loss since the one before, the largest logit of all heads
    and the least entropy of one.
    """
    with TemporaryDirectory() as place:
        run = Run(what="decoder", files=tuple(files), vocabulary=1000, options=SHAPE | options)
        train(run, Path(place) / "model", note=print)
        lines = (Path(place) / "model/training/log.jsonl").read_text(encoding="utf-8").splitlines()
    found, losses = {}, []
    heads: list[dict[str, Any]] = []
    for entry in map(json.loads, lines):
        if "loss" in entry:
            losses.append(entry["loss"])
        elif "head" in entry:
            heads.append(entry)
        else:
            largest = max(head["max_logit"] for head in heads)
            least = min(head["entropy"] for head in heads)
            found[entry["step"]] = (sum(losses) / len(losses), largest, least)
            losses, heads = [], []
    return found


def main() -> None:
    about, *_ = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shared = {
        "steps": given.steps,
        "learning_rate": given.learning_rate,
        "seed": given.seed,
        "evaluate_every": max(1, given.steps // REPORTS),
        "batch_tokens": 1024,
        "precision": "float32",
    }
    print(f"{'run':<24} {'step':>5} {'loss':>7} {'largest logit':>14} {'least entropy':>14}")
    for name, options in RUNS.items():
        for step, numbers in figures(given.files or DOCUMENTS, shared | options).items():
            loss, largest, least = numbers
            print(f"{name:<24} {step:>5} {loss:>7.3f} {largest:>14.1f} {least:>9.3f} nats")


if __name__ == "__main__":
    main()
