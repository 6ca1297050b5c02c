"""Which heads matter: `pellucid.ablate` beside ablations as people write them by hand.

    python -m benchmarks.ablation [--only SECTION] [--json FILE]

The peer is the same model in transformers, in eager attention: a hook before the output projection
puts zeros in place of a head, and there is one forward pass for each head. Both give the same
divergences, which is checked. SmolLM2-135M is optional (see docs/gguf.md); of its 30 layers every
fifth is measured, and the time of all follows from that.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row
from pellucid import pretrained
from pellucid.errors import MissingExtraError
from pellucid.models import Decoder
from pellucid.tasks.decoders import as_decoder

EVERY = 5
"""Of the layers of SmolLM2, which are measured."""
LONG, LONG_LAYERS = 4096, 4


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


def beside(figure: str, model: Decoder, tokens: int, layers: range) -> Iterator[Row]:
    """The ratio of times, after a check that both find the same."""
    ids, peer = some_ids(model, tokens), in_eager(model)
    found, expected = ours(model, ids, layers), by_hand(peer, ids, layers)
    assert all(abs(x - y) <= 1e-3 * y + 1e-5 for x, y in zip(found, expected, strict=True))
    timed = measure.beside(
        {"": partial(ours, model, ids, layers)},
        partial(by_hand, peer, ids, layers),
        budget=60,
        least=2,
    )[""]
    yield Row(
        figure=figure,
        setting=f"{len(found)} heads, {tokens:,} tokens",
        ours=f"{timed.ours:.3g} s",
        peer=f"{timed.peer:.3g} s",
        value=timed.ratio,
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


def smollm2() -> Iterator[Row]:
    try:
        model = as_decoder(pellucid.load(pretrained.smollm2()))
    except MissingExtraError as error:
        print(error)
        return
    every = range(0, model.config.layers, EVERY)
    ids = some_ids(model, 512)
    took = seconds(partial(ours, model, ids, every)) * EVERY
    yield Row(
        figure="all 270 heads of SmolLM2-135M",
        setting=f"512 tokens, from {len(every)} of {model.config.layers} layers",
        ours=f"{took / 60:.3g} min",
        value=took / 60,
        unit="min",
        bar=10,
    )
    middle = range(model.config.layers // 2, model.config.layers // 2 + 1)
    yield from beside("time over hooks by hand", model, 512, middle)


def long() -> Iterator[Row]:
    """A long text, of a model of random weights as wide as SmolLM2-135M."""
    torch.manual_seed(0)
    config = pellucid.models.Config(
        kind="decoder", vocabulary=8192, width=576, layers=LONG_LAYERS, heads=9, kv_heads=3,
        hidden=1536, norm="rms", norm_first=True, activation="silu", gated=True, bias=False,
        position="rotary", positions=LONG,
    )  # fmt: skip
    model = Decoder(config).eval()
    layers = range(LONG_LAYERS)
    yield from beside("time over hooks by hand", model, LONG, layers)
    ids, peer = some_ids(model, LONG), in_eager(model)
    held = []
    for call in (partial(ours, model, ids, layers), partial(by_hand, peer, ids, layers)):
        with measure.PeakMemory() as memory:
            call()
        held.append(memory.extra)
    yield Row(
        figure="memory over hooks by hand",
        setting=f"{LONG:,} tokens",
        ours=f"{held[0] / 2**20:,.0f} MiB",
        peer=f"{held[1] / 2**20:,.0f} MiB",
        value=held[0] / held[1],
        bar=1,
    )


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    peer = (
        f"transformers {transformers.__version__}, eager, a hook and a forward pass for each head"
    )
    run("benchmarks.ablation", (__doc__ or "").partition("\n")[0], peer, (decoder, smollm2, long))


if __name__ == "__main__":
    main()
