"""Contexts without single links, in closed form: speed and error.

    python -m benchmarks.links [--only SECTION] [--json FILE]

One causal layer of 8 heads of 64, random, float32, batch 1, every core. The peer computes the same
rows again with their links masked, many at a time. The error is that of the contexts, whose values
are normal numbers, against rows computed again in float64.
"""

import gc
import time
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid.lens import Record, link_effects, without

HEADS, DIM, MODEL_DIM = 8, 64, 512
TOKENS, LONG = 2048, 16_384
LINKS = 20_000
AT_ONCE = 512
SHARPNESS = 2.0
"""Of the queries; at 1, no key of a row stands out."""


class Layer(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)


@cache
def record(tokens: int) -> Record:
    torch.manual_seed(tokens)
    query, key, value = torch.randn(3, 1, HEADS, tokens, DIM)
    layer = Layer()
    with pellucid.watch(layer, values=True) as seen:
        layer(SHARPNESS * query, key, value)
    found = seen.records[0]
    _ = found.weights.logsumexp  # known to the kernel in some versions of torch
    return found


def any_links() -> Tensor:
    """(links, 3) drawn evenly from all heads, queries and the keys that these see."""
    torch.manual_seed(1)
    head, query = torch.randint(HEADS, (LINKS,)), torch.randint(TOKENS, (LINKS,))
    return torch.stack([head, query, (torch.rand(LINKS) * (query + 1)).long()], -1)


def strongest_links() -> Tensor:
    """(links, 3) each the strongest of its row: where the closed form cancels most."""
    links = any_links()
    strongest = record(TOKENS).weights.top(1).indices[0, ..., 0]
    links[:, 2] = strongest[links[:, 0], links[:, 1]]
    return links


def again(links: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(links, value_dim): each row computed again without its link."""
    seen = record(TOKENS)
    query, key, value = (x[0].to(dtype) for x in (seen.query, seen.key, seen.values.tensor))  # type: ignore[union-attr]
    after = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
    contexts = value.new_zeros(len(links), DIM)
    for head in range(HEADS):
        for at in (links[:, 0] == head).nonzero().flatten().split(AT_ONCE):
            _, row, gone = links[at].T
            scores = query[head, row] @ key[head].T * DIM**-0.5
            scores.masked_fill_(after[row], -torch.inf)
            scores[torch.arange(len(at)), gone] = -torch.inf
            contexts[at] = scores.softmax(-1).nan_to_num_(0) @ value[head]
    return contexts


KINDS: dict[str, Callable[[], Tensor]] = {
    "any links": any_links,
    "the strongest of rows": strongest_links,
}


def speed() -> Iterator[Row]:
    for name, make in KINDS.items():
        links = make()
        ours = partial(without, record(TOKENS), links)
        theirs = partial(again, links)
        found = measure.beside({"": ours}, theirs, budget=10, least=5)[""]
        busy, theirs_busy = (duration(measure.processor_seconds(call)) for call in (ours, theirs))
        share = f"{float(ours().recomputed.float().mean()):.1%}"
        yield Row(
            figure="links a second",
            setting=f"{LINKS:,} in one call, {name}, n = {TOKENS:,}",
            ours=f"{duration(found.ours)}, {busy} of the processor; {share} again",
            peer=f"rows again {duration(found.peer)}, {theirs_busy} of the processor",
            value=LINKS / found.ours,
            unit="a second",
            bar=10_000,
            at_least=True,
        )


def error() -> Iterator[Row]:
    for name, make in KINDS.items():
        links = make()
        truth = again(links, torch.float64)
        ours, peer = (
            float((found.double() - truth).abs().max())
            for found in (without(record(TOKENS), links).context, again(links))
        )
        yield Row(
            figure="the largest error",
            setting=f"{LINKS:,} {name}, n = {TOKENS:,}",
            ours=f"{ours:.1e}",
            peer=f"rows again in float32 {peer:.1e}",
            value=ours,
            unit="",
            bar=1e-5,
        )


def ranking() -> Iterator[Row]:
    torch.manual_seed(2)
    weight = torch.randn(MODEL_DIM, HEADS * DIM) / MODEL_DIM**0.5
    direction = torch.randn(MODEL_DIM)
    options: dict[str, dict[str, Tensor]] = {
        "the residual": {},
        "a direction": {"direction": direction},
    }
    for tokens in (TOKENS, LONG):
        seen = record(tokens)
        count = HEADS * tokens * (tokens + 1) // 2
        for name, more in options.items():
            gc.collect()
            with measure.PeakMemory() as memory:
                start = time.perf_counter()
                link_effects(seen, weight, k=100, **more)  # type: ignore[arg-type]
                took = time.perf_counter() - start
            yield Row(
                figure="all links of a layer ranked",
                setting=f"{count / 1e6:,.0f} million, by {name}, n = {tokens:,}",
                ours=f"{duration(took)}; {count / took / 1e6:.1f} million a second",
                value=memory.extra / 1e6,
                unit="MB",
                bar=None,
            )


if __name__ == "__main__":
    run(
        "benchmarks.links",
        (__doc__ or "").partition("\n")[0],
        "rows again",
        (speed, error, ranking),
    )
