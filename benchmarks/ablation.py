"""Which heads matter: `pellucid.ablate` beside ablations as people write them by hand.

    python -m benchmarks.ablation [--only SECTION] [--json FILE]

The peer is the same model in transformers, in eager attention: a hook before the output projection
puts zeros in place of a head, and there is one forward pass for each head. Both give the same
divergences, which is checked. SmolLM2-135M is optional (see docs/gguf.md); the heads of two of its
30 layers are knocked out, and the time of all follows from that. The long text is read by two
layers with three heads and random weights.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row
from pellucid import pretrained
from pellucid.errors import MissingExtraError
from pellucid.lens import probe_heads
from pellucid.models import Decoder
from pellucid.tasks.decoders import as_decoder

EVERY = 15
"""One of so many layers of SmolLM2 is measured, the middle one of them."""
LONG, LONG_LAYERS = 4096, 2
ROUNDS = 3
"""In which ours and the peer take turns; their median counts."""


def by_hand(model: Any, ids: torch.Tensor, layers: range) -> list[float]:
    """KL(plain || without the head), mean over positions, of each head of these layers."""
    config = model.config
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    plain = model(ids).logits[0].log_softmax(-1)
    found = []
    for layer in layers:
        for head in range(heads):

            def zeros(module: Any, inputs: Any, head: int = head) -> Any:
                x = inputs[0].clone()
                x[..., head * size : (head + 1) * size] = 0
                return (x, *inputs[1:])

            projection = model.model.layers[layer].self_attn.o_proj
            handle = projection.register_forward_pre_hook(zeros)
            changed = model(ids).logits[0].log_softmax(-1)
            handle.remove()
            found.append(float((plain.exp() * (plain - changed)).sum(-1).mean()))
    return found


def ours(model: Decoder, ids: torch.Tensor, layers: range, **options: Any) -> list[float]:
    found = pellucid.ablate(model, ids, layers=list(layers), **{"controls": 0, **options})
    return [row.effect for row in found]


def in_eager(model: Decoder) -> Any:
    """The same model in transformers."""
    with tempfile.TemporaryDirectory() as name:
        model.save(Path(name) / "model")
        return transformers.AutoModelForCausalLM.from_pretrained(
            Path(name) / "model", attn_implementation="eager", dtype=torch.float32
        ).eval()


def some_ids(model: Decoder, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(3, model.config.vocabulary, (1, tokens), generator=generator)


def beside(
    figure: str, model: Decoder, tokens: int, layers: range, rounds: int = ROUNDS
) -> Iterator[Row]:
    """The ratio of times, in turns, after a check that both find the same; and of peak memory."""
    ids, peer = some_ids(model, tokens), in_eager(model)
    calls = (partial(ours, model, ids, layers), partial(by_hand, peer, ids, layers))
    times, held, found = [], [0, 0], [list[float]()] * 2
    for _ in range(rounds):
        took = []
        for number, call in enumerate(calls):
            start = time.perf_counter()
            with measure.PeakMemory() as memory:
                found[number] = call()
            took.append(time.perf_counter() - start)
            held[number] = max(held[number], memory.extra)
        times.append(took)
    assert all(abs(x - y) <= 1e-3 * y + 1e-5 for x, y in zip(*found, strict=True))
    setting = f"{len(found[0])} heads, {tokens:,} tokens"
    yield Row(
        figure=figure,
        setting=setting,
        ours=f"{median(one for one, _ in times):.3g} s",
        peer=f"{median(one for _, one in times):.3g} s",
        value=median(one / other for one, other in times),
        bar=1,
    )
    yield Row(
        figure=figure.replace("time", "memory"),
        setting=setting,
        ours=f"{held[0] / 2**20:,.0f} MiB",
        peer=f"{held[1] / 2**20:,.0f} MiB",
        value=held[0] / held[1],
        bar=1,
    )


def decoder() -> Iterator[Row]:
    """All heads of the model that the command takes unless told."""
    model = as_decoder(pellucid.load(pretrained.DECODER))
    layers, ids = range(model.config.layers), some_ids(model, 256)
    for controls in (0, 20):
        took = seconds(partial(ours, model, ids, layers, controls=controls))
        beside_them = f" and {controls} random heads for each of 10" if controls else ""
        yield Row(
            figure=f"all 24 heads of the packaged decoder{beside_them}",
            setting="256 tokens",
            ours=f"{took:.3g} s",
            value=took,
            unit="s",
            bar=20,
        )
    yield from beside("time over hooks by hand", model, 256, layers)


def opened() -> Decoder | None:
    """SmolLM2, if it is installed."""
    try:
        return as_decoder(pellucid.load(pretrained.smollm2()))
    except MissingExtraError as error:
        print(error)
        return None


def smollm2() -> Iterator[Row]:
    model = opened()
    if model is None:
        return
    every = range(EVERY // 2, model.config.layers, EVERY)
    ids = some_ids(model, 512)
    marks = [clocks()]
    found = ours(model, ids, every, progress=lambda *_: marks.append(clocks()))
    # Up to the first head, and all heads from those of these layers.
    took, used = (
        marks[2][clock] - marks[0][clock] + EVERY * (marks[-1][clock] - marks[2][clock])
        for clock in range(2)
    )
    yield Row(
        figure="all 270 heads of SmolLM2-135M",
        setting=f"512 tokens, from {len(found)} of them",
        ours=f"{took / 60:.3g} min, {used / 60:.3g} of a core",
        value=took / 60,
        unit="min",
        bar=10,
    )


def probes() -> Iterator[Row]:
    """`pellucid heads --probe`, and a longer needle."""
    model = opened()
    if model is None:
        return
    needle = {"probes": "retrieval", "length": 1024, "texts": 1}
    asked: dict[str, dict[str, Any]] = {
        "all probes of SmolLM2-135M's 270 heads": {},
        "retrieval heads of SmolLM2-135M, one text": needle,
    }
    for figure, options in asked.items():
        wall, core = clocks()
        table = probe_heads(model, model.tokenizer, **options)
        took, used = (now - before for now, before in zip(clocks(), (wall, core), strict=True))
        earned = sum(row.verdict == "earned" for row in table)
        yield Row(
            figure=figure,
            setting=f"{options.get('length', 128):,} tokens, {earned} names earned",
            ours=f"{took / 60:.3g} min, {used / 60:.3g} of a core",
            value=took / 60,
            unit="min",
            bar=10,
        )


def clocks() -> tuple[float, float]:
    """Seconds so far, and those of a core that this process had."""
    return time.perf_counter(), time.process_time()


def long() -> Iterator[Row]:
    """A text of which eager attention holds every weight."""
    torch.manual_seed(0)
    config = pellucid.models.Config(
        kind="decoder", vocabulary=2048, width=192, layers=LONG_LAYERS, heads=3,
        hidden=512, norm="rms", norm_first=True, activation="silu", gated=True, bias=False,
        position="rotary", positions=LONG,
    )  # fmt: skip
    model = Decoder(config).eval()
    ours(model, some_ids(model, 64), range(1))  # which compiles and imports
    yield from beside("time over hooks by hand", model, LONG, range(LONG_LAYERS), rounds=1)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    peer = f"transformers {transformers.__version__} in eager attention, with hooks"
    run(
        "benchmarks.ablation",
        (__doc__ or "").partition("\n")[0],
        peer,
        (decoder, smollm2, probes, long),
    )


if __name__ == "__main__":
    main()
