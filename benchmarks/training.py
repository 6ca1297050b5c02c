"""What training must reach: each figure as a ratio to its peer in the same run, beside its bar.

    python -m benchmarks.training [--only FIGURE] [--json FILE]

The peer is nanoGPT's loop, written as it is in plain PyTorch: the same shape, weights and data, and
so the same losses, which is checked on the way. Ids are random; float32, on the CPU, every core.
"""

import gc
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F

from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid.layers.bfloat16 import fast_dtype
from pellucid.layers.config import Config
from pellucid.lens import watch
from pellucid.models import Decoder, Encoder
from pellucid.models.stack import Stack
from pellucid.training import hardware
from pellucid.training.batches import order
from pellucid.training.distributed import Processes
from pellucid.training.loop import Trainer
from pellucid.training.objectives import Classification, NextToken, Objective
from pellucid.training.report import Report
from pellucid.training.sequences import Sequences
from pellucid.training.settings import Settings

ROWS, CONTEXT, VOCABULARY = 8, 256, 4096
WIDTH, LAYERS, HEADS = 384, 6, 6
SHAPE: dict[str, Any] = {
    "vocabulary": VOCABULARY,
    "width": WIDTH,
    "layers": LAYERS,
    "heads": HEADS,
    "hidden": 4 * WIDTH,
    "norm_first": True,
    "activation": "gelu",
    "position": "learned",
}
ALIKE, STEPS = 8, 6
"""Steps whose losses are compared; steps of a process that are timed."""
REVIEWS, LONGEST, TOGETHER = 25_000, 512, 32
"""Long reviews, the most tokens of one, and how many the peer pads to the longest of them."""
SMALLER = {"width": 256, "heads": 4, "hidden": 1024}
"""A classifier of the size that so many reviews are enough for."""
UPDATES = 4
SETTINGS = Settings(steps=1000, batch_tokens=ROWS * CONTEXT, precision="float32")

Loss = Callable[[Sequence[int]], Tensor]


# --------------------------------------------------------------------------------------- the peer


class PlainBlock(nn.Module):
    def __init__(self, config: Config, causal: bool) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.heads, self.causal = config.heads, causal

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.query_key_value(self.attention_norm(x)).chunk(3, -1)
        )
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=self.causal
        )
        x = x + self.output(context.transpose(1, 2).flatten(2))
        added: Tensor = x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))
        return added


class Plain(nn.Module):
    """A transformer as one writes it, with the weights of ours."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        config = stack.config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions or 0, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config, stack.causal) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        weights = dict(stack.state_dict())
        for number in range(config.layers):
            for kind in ("weight", "bias"):
                parts = [
                    weights.pop(f"blocks.{number}.attention.{name}.{kind}")
                    for name in ("query", "key", "value")
                ]
                weights[f"blocks.{number}.query_key_value.{kind}"] = torch.cat(parts)
        for old in ("attention.", "feed_forward."):
            weights = {name.replace(f".{old}", "."): one for name, one in weights.items()}
        self.load_state_dict(weights)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x, mask)
        normed: Tensor = self.final_norm(x)
        return normed


def plain_updates(model: nn.Module, loss: Loss) -> Callable[[Sequence[int]], float]:
    """An update of the weights from a batch, as nanoGPT's loop does it."""
    matrices = [one for one in model.parameters() if one.ndim >= 2]
    vectors = [one for one in model.parameters() if one.ndim < 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": SETTINGS.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=SETTINGS.learning_rate,
        betas=(SETTINGS.beta1, SETTINGS.beta2),
    )
    steps = count()

    def update(batch: Sequence[int]) -> float:
        rate = SETTINGS.rate(next(steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.enable_grad():
            found = loss(batch)
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return found.item()

    return update


# ------------------------------------------------------------------------------------------- ours


def trainer(
    objective: Objective, directory: Path, processes: Processes, settings: Settings = SETTINGS
) -> Trainer:
    report = Report(directory, settings.steps, settings.batch_tokens, is_first=False)
    return Trainer(objective, settings, directory, report, processes)


def update(training: Trainer) -> float:
    """The loss of the next update of a run."""
    with torch.enable_grad():
        loss, _, _ = training.update()
    training.step += 1
    return loss


def some_ids(size: int) -> list[int]:
    """Some more often than others, so that there is something to learn."""
    often = 1 / (10 + np.arange(VOCABULARY))
    drawn = np.random.default_rng(3).choice(VOCABULARY, size, p=often / often.sum())
    found: list[int] = drawn.tolist()
    return found


def next_token(directory: Path) -> NextToken:
    torch.manual_seed(0)
    model = Decoder(Config(kind="decoder", positions=CONTEXT, **SHAPE))
    texts = Sequences.build(directory / "texts", [some_ids(200_000)], VOCABULARY)
    return NextToken(model, texts, texts, batch_tokens=ROWS * CONTEXT)


def pair(
    directory: Path, settings: Settings = SETTINGS
) -> tuple[NextToken, dict[str, Callable[[], Any]]]:
    """Ours, and an update of ours and of the peer, which multiplies in the same precision."""
    objective = next_token(directory)
    model = Plain(objective.model.decoder)
    steps = count()

    def loss(batch: Sequence[int]) -> Tensor:
        packed, targets = objective.windows.read(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            logits = F.linear(model(packed.ids), model.tokens.weight)
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    change = plain_updates(model, loss)
    training = trainer(objective, directory, Processes(), settings)
    return objective, {
        "ours": partial(update, training),
        "plain": lambda: change(objective.batch(next(steps))),
    }


def plain(directory: Path, settings: Settings = SETTINGS) -> measure.Call:
    """The peer's alone, for a process whose memory nobody has set up."""
    return pair(directory, settings)[1]["plain"]


# --------------------------------------------------------------------------------------- figures


def step() -> Iterator[Row]:
    hardware.keep_freed_memory()
    with TemporaryDirectory() as place:
        objective, updates = pair(Path(place))
        updates["plain"] = measure.Elsewhere(partial(plain, Path(place) / "peer"))
        losses = {name: [one() for _ in range(ALIKE)] for name, one in updates.items()}
        np.testing.assert_allclose(losses["ours"], losses["plain"], rtol=1e-5)
        # As many operations as an update has, and as long: the machine's speed moves.
        left, right = torch.randn(ROWS * CONTEXT, WIDTH), torch.randn(WIDTH, 4 * WIDTH)
        result = torch.empty(ROWS * CONTEXT, 4 * WIDTH)
        work = hardware.operations(objective.model, CONTEXT) * ROWS * CONTEXT
        each = 2 * ROWS * CONTEXT * WIDTH * 4 * WIDTH
        times = round(work / each)

        def products() -> None:
            for _ in range(times):
                torch.mm(left, right, out=result)

        calls = {"ours": updates["ours"], "products": products}
        both = measure.beside(calls, updates["plain"], budget=60, least=5)
    found, tokens = both["ours"], ROWS * CONTEXT
    size = sum(one.numel() for one in objective.model.parameters())
    share = work / (each * times) * both["products"].ratio / found.ratio
    rate = each * times / both["products"].ours
    setting = f"decoder of {size / 1e6:.0f}M, {ROWS} x {CONTEXT} tokens"
    yield Row(
        figure="plain PyTorch over a training step",
        setting=f"{setting}, the same losses",
        ours=f"{duration(found.ours)}, {tokens / found.ours:,.0f} tokens a second",
        peer=f"plain {duration(found.peer)}",
        value=1 / found.ratio,
        bar=1.15,
        at_least=True,
    )
    yield Row(
        figure="share of the rate of matrix products",
        setting=setting,
        ours=f"{work / found.ours / 1e9:.0f} GFLOP/s",
        peer=f"products {rate / 1e9:.0f} GFLOP/s, plain {share * found.ratio:.1%}",
        value=100 * share,
        unit="%",
        bar=85,
        at_least=True,
    )


def low_step() -> Iterator[Row]:
    """In bfloat16, both ours and the peer, by autocast; and what it does to the losses."""
    if fast_dtype(torch.device("cpu")) is torch.float32:
        return
    hardware.keep_freed_memory()
    settings = replace(SETTINGS, precision="bfloat16")
    with TemporaryDirectory() as place:
        _, updates = pair(Path(place), settings)
        _, exact = pair(Path(place) / "exact")
        elsewhere = measure.Elsewhere(partial(plain, Path(place) / "peer", settings))
        losses = [[one() for _ in range(ALIKE)] for one in (updates["ours"], exact["ours"])]
        calls = {"bfloat16": updates["ours"], "float32": exact["ours"]}
        both = measure.beside(calls, elsewhere, budget=60, least=5)
    found, tokens = both["bfloat16"], ROWS * CONTEXT
    setting = f"{ROWS} x {CONTEXT} tokens"
    yield Row(
        figure="plain PyTorch over a training step, both in bfloat16",
        setting=setting,
        ours=f"{duration(found.ours)}, {tokens / found.ours:,.0f} tokens a second",
        peer=f"plain {duration(found.peer)}",
        value=1 / found.ratio,
        bar=1.15,
        at_least=True,
    )
    yield Row(
        figure="a training step in float32 over one in bfloat16",
        setting=setting,
        ours=duration(found.ours),
        peer=f"float32 {duration(both['float32'].ours)}",
        value=both["float32"].ratio / found.ratio,
        bar=2.0,
        at_least=True,
    )
    apart = max(abs(low - high) for low, high in zip(*losses, strict=True))
    yield Row(
        figure="losses in bfloat16 and in float32",
        setting=f"{setting}, {ALIKE} steps",
        ours=f"{apart:.1g} apart",
        value=apart,
        unit="nats",
        bar=0.02,
    )


def peak(name: str) -> int:
    """The memory that some updates need, in bytes, over what there was before the first."""
    with torch.no_grad(), TemporaryDirectory() as place:
        _, updates = pair(Path(place))
        gc.collect()
        with measure.PeakMemory() as memory:
            for _ in range(4):
                updates[name]()
    return memory.extra


def memory() -> Iterator[Row]:
    code = "from benchmarks.training import peak; print(peak({!r}))"
    ours, plain = (measure.printed_by(code.format(name)) for name in ("ours", "plain"))
    yield Row(
        figure="memory of a training step",
        setting=f"{ROWS} x {CONTEXT} tokens",
        ours=f"{ours / 1e6:.0f} MB",
        peer=f"plain {plain / 1e6:.0f} MB",
        value=ours / plain,
        bar=0.9,
    )


def collecting() -> Iterator[Row]:
    """A step with the largest logit and the entropy of each head, over one without."""
    hardware.keep_freed_memory()
    with TemporaryDirectory() as place:
        training = trainer(next_token(Path(place)), Path(place), Processes())
        objective = training.objective

        def collected() -> None:
            with watch(objective, collect=("received", "entropy", "max_logit")) as seen:
                update(training)
            assert len(seen.collected) == LAYERS

        plain = partial(update, training)
        found = measure.beside({"collected": collected}, plain, budget=90, least=15)["collected"]
    yield Row(
        figure="collecting statistics in a training step",
        setting=f"{ROWS} x {CONTEXT} tokens; received, entropy, max logit",
        ours=duration(found.ours),
        peer=f"without {duration(found.peer)}",
        value=found.ratio,
        bar=1.03,
    )


def classifier() -> Iterator[Row]:
    """Lengths as long reviews have them, in two classes."""
    drawn = np.random.default_rng(5)
    lengths = drawn.lognormal(5.65, 0.6, REVIEWS).clip(16, LONGEST).astype(int)
    ids, starts = some_ids(int(lengths.sum())), lengths.cumsum() - lengths
    labels = drawn.integers(2, size=REVIEWS)
    torch.manual_seed(0)
    config = Config(kind="encoder", positions=LONGEST, **SHAPE | SMALLER)
    model = Encoder(config)
    with TemporaryDirectory() as place:
        read = (ids[start : start + length] for start, length in zip(starts, lengths, strict=True))
        texts = Sequences.build(Path(place) / "texts", read, VOCABULARY)
        objective = Classification(
            model, texts, labels, (texts, labels), ("bad", "good"), batch_tokens=TOGETHER * 300
        )
        encoder, head = Plain(model.encoder), nn.Linear(config.width, 2)
        head.load_state_dict(objective.head.state_dict())

        def padded(batch: Sequence[int]) -> Tensor:
            read = nn.utils.rnn.pad_sequence([texts[text] for text in batch], batch_first=True)
            present = torch.arange(read.shape[1]) < torch.from_numpy(lengths[batch])[:, None]
            x = encoder(read, present[:, None, None]) * present[..., None]
            logits = head(x.sum(1) / present.sum(1, keepdim=True))
            return F.cross_entropy(logits, torch.from_numpy(labels[batch]))

        some = order(REVIEWS, 0, 0)[:TOGETHER].tolist()
        torch.testing.assert_close(objective(some) / TOGETHER, padded(some), rtol=1e-4, atol=1e-5)

        training = trainer(objective, Path(place), Processes())
        plain = plain_updates(nn.ModuleList([encoder, head]), padded)
        # As many tokens for both, always the same.
        batches = [objective.batch(step) for step in range(UPDATES)]
        tokens = sum(map(objective.tokens, batches))
        shuffled = order(REVIEWS, 1, 0)
        shuffled = shuffled[: np.searchsorted(lengths[shuffled].cumsum(), tokens)]

        def ours() -> None:
            training.step = 0
            for _ in range(UPDATES):
                update(training)

        def theirs() -> None:
            for start in range(0, len(shuffled), TOGETHER):
                plain(shuffled[start : start + TOGETHER].tolist())

        found = measure.beside({"": ours}, theirs, budget=60, least=2)[""]
    longest = [
        lengths[shuffled[at : at + TOGETHER]].max() for at in range(0, len(shuffled), TOGETHER)
    ]
    filled = lengths[shuffled].sum() / (np.mean(longest) * len(shuffled))
    yield Row(
        figure="padded batches over a packed classifier",
        setting=f"texts of {lengths.mean():.0f} tokens in the mean, {LONGEST} at the most",
        ours=f"{tokens / found.ours:,.0f} tokens a second",
        peer=f"padded {tokens / found.peer:,.0f}, and {1 / filled - 1:.0%} as many of padding",
        value=1 / found.ratio,
        bar=1.5,
        at_least=True,
    )


def work(rank: int, processes: int, port: int, place: Path) -> None:
    """Train as one of some processes, and leave losses and the time of a step behind."""
    torch.set_num_threads(2 // processes)
    if processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    training = trainer(next_token(place / str(rank)), place, Processes.join())
    losses, times = [], []
    for _ in range(2 + STEPS):
        start = time.perf_counter()
        losses.append(update(training))
        times.append(time.perf_counter() - start)
    if rank == 0:
        np.savez(place / "found.npz", losses=losses, seconds=statistics.median(times[2:]))
    if processes > 1:
        torch.distributed.destroy_process_group()


def trained(processes: int) -> tuple[np.ndarray, float]:
    with TemporaryDirectory() as place, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        spawn(work, (processes, port, Path(place)), nprocs=processes)
        found = np.load(Path(place) / "found.npz")
        return found["losses"], float(found["seconds"])


def processes() -> Iterator[Row]:
    runs = [trained(count) for count in (1, 2, 1, 2, 1)]
    apart = max(np.abs(losses - runs[0][0]).max() for losses, _ in runs)
    alone = [seconds for _, seconds in runs[::2]]
    both = [seconds for _, seconds in runs[1::2]]
    ratios = [
        (alone[number] + alone[number + 1]) / 2 / seconds for number, seconds in enumerate(both)
    ]
    setting = f"the same {ROWS} x {CONTEXT} tokens"
    yield Row(
        figure="2 processes of a thread over 1 of 2",
        setting=setting,
        ours=f"{duration(statistics.median(both))} a step",
        peer=f"alone {duration(statistics.median(alone))}",
        value=statistics.median(ratios),
        bar=0.9,
        at_least=True,
    )
    yield Row(
        figure="losses of 2 processes and of 1",
        setting=f"{setting}, {len(runs[0][0])} steps",
        ours=f"{apart:.1g} apart",
        value=float(apart),
        unit="nats",
        bar=1e-5,
    )


SECTIONS = (step, low_step, collecting, memory, classifier, processes)


if __name__ == "__main__":
    run("benchmarks.training", __doc__, "plain PyTorch", SECTIONS)
