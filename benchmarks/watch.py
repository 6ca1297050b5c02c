"""What watching must reach: each figure as a ratio to its peer in the same run, beside its bar.

    python -m benchmarks.watch [--only FIGURE] [--json FILE]

The model is an encoder of the size of all-MiniLM-L6-v2 (6 layers, 384 wide, 12 heads) with random
weights and room for 16,384 tokens, and a decoder of the same size for generation; float32, batch 1,
every core. The peer of watching is the same model unwatched; that of the statistics is the same
model in Hugging Face's eager attention with `output_attentions=True` and the same sums over it;
that of a softmax written by hand is the same model that returns its weights.
"""

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import transformers
from torch import nn

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration, over

WIDTH, HEADS, LONG, VOCABULARY = 384, 12, 16_384, 30_522
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 6,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
}
LENGTHS = (512, 2048, 4096, LONG)
STATISTICS_AT = 4096
PROMPT, NEW = 128, 256
VERY_LONG = 65_536
BY_HAND_AT = (512, 2048)


def encoder(implementation: str) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, max_position_embeddings=LONG)
    return transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()  # type: ignore[no-any-return]


def some_ids(length: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(3))


def time_watched() -> Iterator[Row]:
    model = encoder("sdpa")
    for length in LENGTHS:
        ids = some_ids(length)

        def watched(ids: torch.Tensor = ids) -> None:
            with pellucid.watch(model):
                model(ids)

        def held(ids: torch.Tensor = ids) -> None:
            """What any recorder must do: the memory of query and key is not there to be reused."""
            kept: list[torch.Tensor] = []
            hooks = [
                module.register_forward_hook(lambda module, given, made: kept.append(made))
                for name, module in model.named_modules()
                if name.endswith(("query", "key"))
            ]
            model(ids)
            for hook in hooks:
                hook.remove()

        calls = {"watch()": watched} if length == LONG else {"watch()": watched, "held": held}
        found = measure.beside(calls, partial(model, ids), budget=20, least=2)
        setting = f"encoder, n = {length:,}"
        yield over("watch()", setting, found["watch()"], 1.05, "not watched")
        if "held" in found:
            yield over("q and k held by hooks", setting, found["held"], None, "not held")


def memory_kept() -> Iterator[Row]:
    model = encoder("sdpa")
    with pellucid.watch(model) as seen:
        model(some_ids(LONG))
    needed = sum(record.query.nbytes + record.key.nbytes for record in seen.records)
    kept = seen.bytes_held()
    yield Row(
        figure="memory of watch()",
        setting=f"encoder, n = {LONG:,}",
        ours=f"{kept / 1e6:.0f} MB",
        peer=f"query and key {needed / 1e6:.0f} MB",
        value=kept / needed,
        bar=1.1,
    )


def statistics_of_all_heads() -> Iterator[Row]:
    ids = some_ids(STATISTICS_AT)
    model, eager = encoder("sdpa"), encoder("eager")

    def ours() -> list[torch.Tensor]:
        with pellucid.watch(model) as seen:
            model(ids)
        found = [record.weights.statistics(top=1) for record in seen.records]
        return [x for one in found for x in (one.received, one.entropy)]

    def theirs() -> list[torch.Tensor]:
        found = []
        for weights in eager(ids, output_attentions=True).attentions:
            found += [weights.sum(-2), -(weights * weights.clamp_min(1e-38).log()).sum(-1)]
        return found

    for one, other in zip(ours(), theirs(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    extra = []
    for call in (ours, theirs):
        gc.collect()
        with measure.PeakMemory() as memory:
            call()
        extra.append(memory.extra)
    found = measure.beside({"ours": ours}, theirs, budget=30, least=2)["ours"]
    setting = f"received and entropy, all heads, n = {STATISTICS_AT:,}"
    yield Row(
        figure="eager output_attentions over watch()",
        setting=f"{setting}: time",
        ours=duration(found.ours),
        peer=f"eager {duration(found.peer)}",
        value=1 / found.ratio,
        bar=4,
        at_least=True,
    )
    yield Row(
        figure="eager output_attentions over watch()",
        setting=f"{setting}: memory",
        ours=f"{extra[0] / 1e6:.0f} MB",
        peer=f"eager {extra[1] / 1e6:,.0f} MB",
        value=extra[1] / max(1, extra[0]),
        bar=30,
        at_least=True,
    )


def generation() -> Iterator[Row]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, max_position_embeddings=PROMPT + NEW)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = some_ids(PROMPT)

    def generate() -> None:
        model.generate(ids, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0)

    def watched() -> pellucid.lens.Watch:
        with pellucid.watch(model) as seen:
            generate()
        return seen

    seen = watched()
    cache = 2 * sum(record.key.nbytes for record in seen.records)
    setting = f"{NEW} tokens after {PROMPT}"
    found = measure.beside({"": watched}, generate, budget=60, least=5)[""]
    yield over("generate() under watch()", f"{setting}: time", found, 1.05, "not watched")
    yield Row(
        figure="generate() under watch()",
        setting=f"{setting}: memory",
        ours=f"{seen.bytes_held() / 1e6:.2f} MB",
        peer=f"KV cache {cache / 1e6:.2f} MB",
        value=seen.bytes_held() / cache,
        bar=1.2,
    )


def very_long() -> Iterator[Row]:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).train()
    x = torch.randn(1, VERY_LONG, WIDTH)

    with measure.PeakMemory() as memory, pellucid.watch(layer) as seen:
        layer(x, x, x, need_weights=False)
    weights = seen[seen.names[0]]
    questions: dict[str, Callable[[], torch.Tensor]] = {
        "any row": lambda: weights[0, :, 40_009],
        "any tile": lambda: weights[0, :, 40_009:40_109, 1_009:1_109],
        "received": weights.received,
    }
    for name, ask in questions.items():
        with measure.PeakMemory() as asking:
            start = time.perf_counter()
            answer = ask()
            took = time.perf_counter() - start
        if name == "received":
            assert abs(float(answer.double().sum()) / (HEADS * VERY_LONG) - 1) < 1e-3
        yield Row(
            figure=f"{name} at {VERY_LONG:,} tokens",
            setting=f"one layer of {HEADS} heads, watched",
            ours=duration(took),
            value=(memory.extra + asking.extra) / 2**30,
            unit="GiB",
            bar=4.0,
        )


class ByHand(nn.Module):
    """Attention as textbooks write it; nobody's that PyTorch or transformers ship."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.ahead = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, float("-inf")).softmax(-1)
        x = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        return x + self.wide(self.ahead(x)), weights


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ByHand() for _ in range(6))

    def forward(self, x: torch.Tensor, output_attentions: bool = False) -> list[torch.Tensor]:
        kept = []
        for layer in self.layers:
            x, weights = layer(x)
            kept += [weights] if output_attentions else []
        return [x, *kept]


def by_hand() -> Iterator[Row]:
    torch.manual_seed(0)
    config = transformers.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_layers=6,
        num_heads=HEADS,
        intermediate_size=4 * WIDTH,
        attention_types=[[["global"], 6]],
        max_position_embeddings=LONG,
    )
    models = {
        "GPT-Neo": (transformers.GPTNeoModel(config).eval(), some_ids),
        "a user's own, every row proven": (Layers().eval(), lambda n: torch.randn(1, n, WIDTH)),
    }
    for name, (model, given) in models.items():
        for length in BY_HAND_AT:
            inputs = given(length)

            def watched(model: nn.Module = model, x: torch.Tensor = inputs) -> object:
                with pellucid.watch(model) as seen:
                    model(x)
                return seen

            def returned(model: nn.Module = model, x: torch.Tensor = inputs) -> object:
                return model(x, output_attentions=True)

            extra = []
            for call in (watched, returned):
                call()  # what is loaded and kept once
                gc.collect()
                with measure.PeakMemory() as memory:
                    kept = call()
                extra.append(memory.extra)
                del kept
            found = measure.beside({"": watched}, returned, budget=20, least=3)[""]
            setting = f"{name}, n = {length:,}"
            yield over(
                "softmax by hand, watch()", f"{setting}: time", found, 1.1, "weights returned"
            )
            yield Row(
                figure="softmax by hand, watch()",
                setting=f"{setting}: memory",
                ours=f"{extra[0] / 1e6:.0f} MB",
                peer=f"weights returned {extra[1] / 1e6:.0f} MB",
                value=extra[0] / max(1, extra[1]),
                bar=1.1,
            )


SECTIONS = (time_watched, memory_kept, by_hand, statistics_of_all_heads, generation, very_long)


if __name__ == "__main__":
    run("benchmarks.watch", __doc__, f"transformers {transformers.__version__}", SECTIONS)
