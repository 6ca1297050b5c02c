"""What interventions must reach: each figure as a ratio to its peer in one run, beside its bar.

    python -m benchmarks.interventions [--only SECTION] [--json FILE]

The model is a GPT-2 as wide as all-MiniLM-L6-v2 (384 wide, 12 heads), one layer deep, with random
weights and room for 16,384 tokens; float32, batch 1, every core. The peer of an edit is the
same forward pass without edits. The peer of the comparison at 4,096 tokens is the ablation that
people write with hooks: eager attention, whose mask a hook replaces by one for each head.
"""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration, over

WIDTH, HEADS, LONG, VOCABULARY, LAYERS = 384, 12, 16_384, 30_522, 1
PEERS_AT = 4096
SHORT, PROCESSES = 64, 3
RETURNED_FROM = "65536"
"""Bytes from which memory is mapped on its own, and so returned to the system once it is free."""
HEAD, COLUMN = 5, 7
Edits = Callable[[pellucid.lens.Intervention], None]


def decoder(implementation: str) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=LONG,
        activation_function="gelu_pytorch_tanh",  # the same function, without six temporary arrays
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()  # type: ignore[no-any-return]


def some_ids(length: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(3))


def edited(model: nn.Module, ids: Tensor, edits: Edits) -> Tensor:
    with pellucid.intervene(model) as edit:
        edits(edit)
        output: Tensor = model(ids)[0]
    return output


def extra_memory(call: Callable[[], object]) -> int:
    measure.release()
    with measure.PeakMemory() as memory:
        call()
    return memory.extra


def one_head() -> Iterator[Row]:
    yield from long_text("a head", lambda edit: edit.knock_out(head=HEAD))


def one_column() -> Iterator[Row]:
    yield from long_text("a column of every head", lambda edit: edit.knock_out(keys=COLUMN))


def long_text(name: str, edits: Edits) -> Iterator[Row]:
    """Time and memory of an edit at 16,384 tokens, beside the plain pass."""
    model, ids = decoder("sdpa"), some_ids(LONG)
    ours, plain = partial(edited, model, ids, edits), partial(model, ids)
    more = -extra_memory(plain) + extra_memory(ours)
    found = measure.beside({"": ours}, plain, budget=10, least=2)[""]
    setting = f"{name}, n = {LONG:,}"
    yield over("an edited pass", f"{setting}: time", found, 1.05, "not edited")
    vectors = LONG * WIDTH * 4
    yield Row(
        figure="an edited pass",
        setting=f"{setting}: memory",
        ours=f"{more / 1e6:.0f} MB more",
        peer=f"all queries {vectors / 1e6:.0f} MB",
        value=max(0, more) / vectors,
        bar=8,
    )


def hooked(model: nn.Module, ids: Tensor) -> Tensor:
    """A column knocked out of one head of each layer, as it is written for eager attention."""
    tokens = ids.shape[1]
    mask = torch.full((tokens, tokens), -torch.inf).triu(1).expand(1, HEADS, -1, -1).clone()
    mask[:, HEAD, :, COLUMN] = -torch.inf

    def give_mask(module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        return args, options | {"attention_mask": mask}

    hooks = [
        part.register_forward_pre_hook(give_mask, with_kwargs=True)
        for name, part in model.named_modules()
        if name.endswith(".attn")
    ]
    output: Tensor = model(ids, output_attentions=True)[0]
    for hook in hooks:
        hook.remove()
    return output


def one_column_of_one_head(edit: pellucid.lens.Intervention) -> None:
    edit.knock_out(head=HEAD, keys=COLUMN)


PASSES: dict[str, tuple[str, Callable[[nn.Module, Tensor], Tensor]]] = {
    "ours": ("sdpa", partial(edited, edits=one_column_of_one_head)),
    "hooks": ("eager", hooked),
    "not edited": ("sdpa", lambda model, ids: model(ids)[0]),
}
"""Attention and pass of each side."""


@torch.no_grad()
def memory_of(side: str) -> tuple[int, int]:
    """The most bytes in use over those before a pass: until its attention is over, and in all.

    A short pass of the same kind and a plain one of the full length come first, for what is made
    only once: imports, threads, room of the libraries.
    """
    attention, call = PASSES[side]
    model, ids = decoder(attention), some_ids(PEERS_AT)
    call(model, ids[:, :SHORT])
    model(ids)
    measure.release()
    until: list[int] = []
    with measure.PeakMemory() as memory:
        model.h[0].attn.register_forward_hook(lambda *_: until.append(memory.so_far))  # type: ignore[index, union-attr]
        call(model, ids)
    return until[0], memory.extra


def peers() -> Iterator[Row]:
    """The same column of one head, by hooks on eager attention and by an intervention."""
    ids = some_ids(PEERS_AT)
    ours, theirs = (
        partial(call, decoder(attention), ids)
        for attention, call in (PASSES[side] for side in ("ours", "hooks"))
    )
    torch.testing.assert_close(ours(), theirs(), atol=1e-4, rtol=1e-4)
    found = measure.beside({"": ours}, theirs, budget=20, least=2)[""]
    setting = f"a column of one head, n = {PEERS_AT:,}"
    yield Row(
        figure="hooks on eager attention over ours",
        setting=f"{setting}: time",
        ours=duration(found.ours),
        peer=f"hooks {duration(found.peer)}",
        value=1 / found.ratio,
        bar=5,
        at_least=True,
    )
    # Memory is given back as soon as it is free, so that what is counted is in use.
    code = "from benchmarks import interventions as x; print(*x.memory_of({!r}))"
    found_memory = {
        side: [
            measure.all_printed_by(code.format(side), MALLOC_MMAP_THRESHOLD_=RETURNED_FROM)
            for _ in range(PROCESSES)
        ]
        for side in PASSES
    }
    for at, part in enumerate(("until attention is over", "the whole pass")):
        each = {side: [x[at] / 1e6 for x in runs] for side, runs in found_memory.items()}
        middle = {side: statistics.median(numbers) for side, numbers in each.items()}
        yield Row(
            figure="hooks on eager attention over ours",
            setting=f"{setting}: memory, {part}",
            ours=f"{spread(each['ours'])}; not edited {middle['not edited']:.0f} MB",
            peer=f"hooks {spread(each['hooks'])}",
            value=middle["hooks"] / middle["ours"],
            bar=20,
            at_least=True,
        )


def spread(numbers: list[float]) -> str:
    """The median of some megabytes, and how far they are apart."""
    middle = f"{statistics.median(numbers):,.0f} MB"
    return f"{middle} ({min(numbers):,.0f} to {max(numbers):,.0f})"


SECTIONS = (one_head, one_column, peers)


if __name__ == "__main__":
    run("benchmarks.interventions", __doc__, f"transformers {transformers.__version__}", SECTIONS)
