"""Scores and logits as sums: how far the sums are off, and what they cost.

    python -m benchmarks.tracing [--only SECTION] [--json FILE]

The models that come with Pellucid, and SmolLM2-135M if it is installed, float32, batch 1. A score's
error is over |q| |k| scale, a logit's over the sum of its parts' sizes, each at least 1.
"""

from collections.abc import Iterator
from functools import cache, partial
from random import Random
from typing import Any

import torch

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid.errors import MissingExtraError
from pellucid.lens import residual_stream, trace, why
from pellucid.readers.tracing import trace_text

TEXT = (
    "In the beginning God created the heaven and the earth. And the earth was without form, and "
    "void; and darkness was upon the face of the deep. And the king sent his servant to the city, "
    "and the servant told the king all these things. "
)
PAIRS = 3
"""Of a query and a key, in each head that is tried."""
HEADS = 24
TOKENS = 200


@cache
def decoder(name: str) -> Any:
    try:
        return pellucid.load(name)
    except MissingExtraError:
        return None


def ids_of(model: Any, tokens: int) -> torch.Tensor:
    return torch.tensor(model.tokenizer.encode([TEXT * 3]))[:, :tokens]


def names() -> list[str]:
    return [name for name in ("decoder", "smollm2") if decoder(name) is not None]


def scores() -> Iterator[Row]:
    for name in names():
        model, random = decoder(name), Random(3)
        with residual_stream(model) as stream:
            model(ids_of(model, 64))
        records = stream.seen.records
        found = []
        for _ in range(HEADS):
            layer = random.randrange(len(records))
            for _ in range(PAIRS):
                query = random.randrange(64)
                head, key = random.randrange(records[layer].shape[1]), random.randrange(query + 1)
                found.append(why(stream, layer, head, query, key, each_head=True))
        worst = max(abs(one.missing) / one.allowed for one in found) * 1e-5
        yield Row(
            figure="why: the sum of a score's terms",
            setting=f"{name}, {len(found)} scores, 64 tokens",
            ours=f"{sum(one.terms.numel() for one in found):,} terms",
            value=worst,
            unit="",
            bar=1e-5,
        )


def logits() -> Iterator[Row]:
    models = dict.fromkeys((*names(), "sentiment", "translator"), TEXT)
    for name, text in models.items():
        for method in ("direct", "lrp"):
            traced = trace_text(text, model=name, method=method, step=lambda *_: None)
            found = traced.trace
            assert found.missing is not None
            sizes = float(found.tokens.abs().sum()) + sum(map(abs, found.others.values()))
            yield Row(
                figure="trace: the sum of a logit's parts",
                setting=f"{name}, {method}, {len(traced.tokens)} tokens",
                ours=f"logit {found.number:.2f}",
                value=abs(found.missing) / max(1.0, sizes),
                unit="",
                bar=1e-4,
            )


def cost() -> Iterator[Row]:
    for name in names():
        model, ids = decoder(name), ids_of(decoder(name), TOKENS)
        methods = ("direct", "gradient", "chefer", "lrp")
        ours = {method: partial(trace, model, ids, method=method) for method in methods}
        taken = measure.beside(ours, partial(model, ids), budget=12, least=3)
        for method, found in taken.items():
            yield Row(
                figure="trace: time",
                setting=f"{name}, {method}, n = {ids.shape[1]}",
                ours=duration(found.ours),
                peer=f"a forward pass {duration(found.peer)}",
                value=found.ratio,
                unit="x",
                bar=None,
            )
        with residual_stream(model) as stream:
            model(ids)
        last = len(stream.seen.records) - 1
        took = measure.beside(
            {"": partial(why, stream, last, 0, -1, 3)}, partial(model, ids), budget=8, least=3
        )[""]
        yield Row(
            figure="why: time",
            setting=f"{name}, one score of the last layer, n = {ids.shape[1]}",
            ours=duration(took.ours),
            peer=f"a forward pass {duration(took.peer)}",
            value=took.ratio,
            unit="x",
            bar=None,
        )


if __name__ == "__main__":
    run(
        "benchmarks.tracing",
        (__doc__ or "").partition("\n")[0],
        "forward passes",
        (scores, logits, cost),
    )
