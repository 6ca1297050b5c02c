"""What policies of cache eviction keep of the attention that is still to come, on real text.

    python -m benchmarks.eviction [--model MODEL] [--file FILE] [--tokens N ...] [--texts N]
        [--steps SHARE ...] [--budgets SHARE ...] [--layers N ...] [--json FILE]

A model reads parts of a text. After a share of the tokens (a step), each policy scores the keys so
far, knowing nothing later, and keeps a budget of them. Recall is the share of the attention that
all later tokens of the part will give to those keys which goes to the kept ones: exact, for every
layer and key head (`pellucid.lens.eviction_recall`). The table shows means over layers, heads,
steps and parts, and how far the means of single parts are from each other.

The model is SmolLM2-135M-Instruct where it is installed, which reads 8,192 tokens; otherwise
Pellucid's decoder, which reads 256. The text is the documentation that Python's `pydoc` shows,
which is part of every Python, or a file.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from torch import Tensor

import pellucid
from pellucid import pretrained
from pellucid.errors import ArgumentError, MissingExtraError, PellucidError
from pellucid.lens import RecallTable, eviction_policies, eviction_recall
from pellucid.lens.policy_recall import BEST
from pellucid.readers import Checkpoint, open_checkpoint

STEPS, BUDGETS, TOKENS = (0.25, 0.5, 0.75), (0.05, 0.1, 0.25, 0.5), 2048
LEAST_STEP = 33
"""SnapKV keeps a window of 32."""


def opened(model: str | None) -> Checkpoint:
    """The model by its name, or the best default."""
    if model is None:
        try:
            pretrained.directory(pretrained.SMOLLM2)
            model = pretrained.SMOLLM2
        except MissingExtraError:
            model = "decoder"
    return open_checkpoint(model, writes=True)


def frequencies_of(model: Any) -> Tensor | None:
    """The rotary frequencies of a decoder of `pellucid.models`, or of one of transformers."""
    for module in model.modules():
        for name in ("frequencies", "inv_freq"):
            found = getattr(module, name, None)
            if isinstance(found, Tensor):
                return found
    return None


def text_of(file: Path | None) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8")
    topics = import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def parts(checkpoint: Checkpoint, text: str, tokens: int, count: int) -> list[Tensor]:
    """(1, tokens) ids of `count` parts, spread evenly over the text."""
    ids = checkpoint.tokenizer(text, verbose=False, truncation=False)["input_ids"]
    if len(ids) < tokens * count:
        raise ArgumentError(
            f"the text has {len(ids):,} tokens, fewer than {count} parts of {tokens:,}"
        )
    stride = len(ids) // count
    return [torch.tensor([ids[at * stride : at * stride + tokens]]) for at in range(count)]


def measured(
    checkpoint: Checkpoint,
    given: Sequence[Tensor],
    steps: Sequence[float],
    budgets: Sequence[float],
    layers: list[int] | None,
    progress: Progress,
) -> Iterator[RecallTable]:
    """A table for each part of the text."""
    policies = eviction_policies(frequencies_of(checkpoint.model))
    for number, ids in enumerate(given, start=1):
        tokens = ids.shape[1]
        label = f"{tokens:,} tokens, part {number} of {len(given)}"
        task = progress.add_task(f"{label}: reading", total=None)
        with pellucid.watch(checkpoint.model, layers, values=True) as seen:
            checkpoint.run(input_ids=ids)
        progress.update(task, description=label)
        yield eviction_recall(
            seen,
            policies,
            steps=[max(LEAST_STEP, round(share * tokens)) for share in steps],
            budgets=budgets,
            progress=partial(_advance, progress, task),
        )


def _advance(progress: Progress, task: TaskID, done: int, of: int) -> None:
    progress.update(task, completed=done, total=of)


def shown(tables: Sequence[RecallTable], budgets: Sequence[float]) -> Table:
    """Policies by budgets, the best first; then what keys drawn at random would have."""
    table = Table()
    table.add_column("policy")
    for budget in budgets:
        table.add_column(f"{budget:.0%} of the keys", justify="right")
    means = {
        policy: [[part.mean(policy=policy, budget=budget) for part in tables] for budget in budgets]
        for policy in dict.fromkeys(row.policy for row in tables[0])
    }
    for policy in sorted(means, key=lambda name: -statistics.mean(means[name][0])):
        cells = []
        for found in means[policy]:
            cell = f"{statistics.mean(found):.1%}"
            cells.append(f"{cell} ± {statistics.stdev(found):.1%}" if len(found) > 1 else cell)
        table.add_row(policy, *cells, style="bold" if policy == BEST else None)
    shares = [
        statistics.mean(row.kept / row.step for row in tables[0] if row.budget == budget)
        for budget in budgets
    ]
    table.add_row("keys at random, on average", *(f"{share:.1%}" for share in shares))
    return table


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.eviction", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--model", metavar="MODEL", help="a decoder, as for `pellucid watch`")
    parser.add_argument("--file", type=Path, metavar="FILE", help="the text, UTF-8")
    parser.add_argument("--tokens", type=int, nargs="+", metavar="N", help="lengths of the parts")
    parser.add_argument("--texts", type=int, default=3, metavar="N", help="parts of the text")
    parser.add_argument("--steps", type=float, nargs="+", default=STEPS, metavar="SHARE")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, metavar="SHARE")
    parser.add_argument("--layers", type=int, nargs="+", metavar="N", help="all unless given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=130)
    facts: list[dict[str, Any]] = []
    try:
        checkpoint = opened(given.model)
        text = text_of(given.file)
        limit = checkpoint.limit
        for tokens in given.tokens or [min(TOKENS, TOKENS if limit is None else limit)]:
            if limit is not None and tokens > limit:
                raise ArgumentError(f"{checkpoint.name} has {limit:,} positions, not {tokens:,}")
            ids = parts(checkpoint, text, tokens, given.texts)
            with torch.no_grad(), Progress(console=Console(stderr=True)) as progress:
                tables = list(
                    measured(checkpoint, ids, given.steps, given.budgets, given.layers, progress)
                )
            source = "Python's documentation" if given.file is None else given.file.name
            of = ", ".join(f"{share:.0%}" for share in given.steps)
            console.print(
                f"recall of future attention: {checkpoint.name}, {tokens:,} tokens of {source} "
                f"({given.texts} parts), after {of} of them",
                soft_wrap=True,
            )
            console.print(shown(tables, given.budgets))
            facts += [
                {"tokens": tokens, "part": part, **row}
                for part, table in enumerate(tables)
                for row in table.to_dicts()
            ]
    except (PellucidError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"benchmarks.eviction: {error}")
    if given.json:
        about = {"model": checkpoint.name, "python": sys.version.split()[0], "rows": facts}
        given.json.write_text(json.dumps(about, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
