"""What must hold on a GPU: first its tests, then a table, within 12 minutes.

    make gpu                                   or: python -m benchmarks.gpu
    python -m benchmarks.gpu --out FILE        the rows, a line of JSON each, as they come

bfloat16, batch 1, 32 heads of 128, full and causal. The peer of `attention()` is the fastest of
PyTorch's fused kernels; the statistics are what they cost beyond it. Other ways to the same sums
stand beside ours: identity values, atomic additions in Triton, FlexAttention's logsumexp. Whatever
goes wrong is one row that says so, and the rest goes on.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import pellucid
from benchmarks import measure
from benchmarks.heart import Bench, Row, over, show
from benchmarks.measure import Call
from pellucid import AttentionWeights, masks

ROOT = Path(__file__).parent.parent
TESTS = ("tests/attention/test_gpu.py",)
SIZES = (4096, 16_384, 65_536)
TOP, CELLS = 8, 128
LEAST_SECONDS = 20.0
"""Left below which no more is begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of the heads, and of the layer that is watched."""

    heads: int
    head_dim: int
    kv_heads: int
    hidden: int
    inner: int
    watched_tokens: int


LARGE = Shape(heads=32, head_dim=128, kv_heads=8, hidden=4096, inner=14_336, watched_tokens=32_768)
TINY = Shape(heads=2, head_dim=16, kv_heads=1, hidden=32, inner=64, watched_tokens=37)


@dataclass
class Run:
    """The time that is left, and the rows so far, in a file too."""

    bench: Bench
    shape: Shape
    out: Path
    deadline: float
    rows: list[Row] = field(default_factory=list)

    def has_time(self) -> bool:
        return time.monotonic() + LEAST_SECONDS < self.deadline

    def say(self, row: Row) -> None:
        self.rows.append(row)
        line = f"{row.figure}, {row.setting}: {row.value:.3g} {row.unit} {row.verdict}"
        print(line, file=sys.stderr, flush=True)
        self.write(asdict(row) | {"verdict": row.verdict})

    def write(self, facts: dict[str, object]) -> None:
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def attempt(self, name: str, section: Callable[[], Iterator[Row]]) -> None:
        """The rows of a section; an error is written down and ends that section alone."""
        if not self.has_time():
            self.write({"left out": name})
            return
        try:
            for row in section():
                self.say(row)
        except Exception as error:
            message = f"{name}: {type(error).__name__}: {str(error)[:500]}"
            print(message, file=sys.stderr, flush=True)
            self.write({"failed": message})

    def beside(self, calls: dict[str, Call], peer: Call) -> dict[str, measure.Comparison]:
        synchronize = self.bench.synchronize
        budget, least = (0.0, 1) if self.shape is TINY else (1.5, 3)
        return measure.beside(calls, peer, synchronize=synchronize, budget=budget, least=least)


def run_tests(run: Run, seconds: float) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TESTS]
    began = time.monotonic()
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
        said, status = ran.stdout + ran.stderr, ran.returncode
    except subprocess.TimeoutExpired as error:
        said, status = f"{error.stdout!r}", 124
    print(said[-6000:], flush=True)
    run.write({"tests": status, "seconds": time.monotonic() - began, "said": said[-20_000:]})


def tensors(run: Run, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(tokens)
    size = (1, run.shape.heads, tokens, run.shape.head_dim)
    make = partial(torch.randn, size, device=run.bench.device, dtype=run.bench.dtype)
    return make(), make(), make()


def error_of_received(weights: AttentionWeights) -> float:
    """Of a few columns, the largest relative error beside their weights one by one."""
    tokens = weights.shape[-1]
    some = torch.tensor([0, tokens // 3, tokens - 1], device=weights.device)
    sums = weights[..., some].double().sum(-2)
    found = weights.received()[..., some].double()
    return float(((found - sums).abs() / sums).max())


def table(run: Run, tokens: int, causal: bool) -> Iterator[Row]:
    query, key, value = tensors(run, tokens)
    setting = f"n = {tokens:,} {'causal' if causal else 'full'}"
    peer = run.bench.sdpa(query, key, value, causal)
    attend = partial(pellucid.attention, query, key, value, masks.causal() if causal else None)
    _, weights = attend()
    calls: dict[str, Call] = {
        "attention()": attend,
        "received()": weights.received,
        "entropy()": weights.entropy,
        f"top({TOP})": partial(weights.top, TOP),
        f"statistics(top={TOP})": partial(weights.statistics, top=TOP),
        "max_logit()": weights.max_logit,
        f"pool({CELLS}, {CELLS})": partial(weights.pool, CELLS, CELLS),
    }
    bars = {"attention()": 1.03, "received()": 0.7, "entropy()": 0.7}
    bars[f"statistics(top={TOP})"] = 1.2
    for name, call in calls.items():
        if not run.has_time():
            return
        found = run.beside({name: call}, peer)[name]
        kernel = f", {weights.kernel}" if name == "attention()" else ""
        yield over(name, setting + kernel, found, bars.get(name))
    value_of_error = error_of_received(weights)
    yield Row(
        figure="error of received()",
        setting=setting,
        ours=f"{value_of_error:.1e}",
        value=value_of_error,
        unit="",
        bar=1e-3,
    )


def by_identity(query: Tensor, key: Tensor, causal: bool) -> Tensor:
    """Column sums through values that are parts of the identity: tokens / head_dim passes."""
    tokens, width = query.shape[-2:]
    sums = []
    for start in range(0, tokens, width):
        value = torch.zeros_like(key)
        count = min(width, tokens - start)
        places = torch.arange(count, device=key.device)
        value[..., start + places, places] = 1
        passed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=causal
        )
        sums.append(passed[..., :count].float().sum(-2))
    return torch.cat(sums, -1)


def by_atomics(run: Run, tokens: int, causal: bool) -> Iterator[Row]:
    from benchmarks.atomic_column_sums import column_sums

    yield from beside_received(run, tokens, causal, "received() over atomic additions", column_sums)


def by_identities(run: Run, tokens: int, causal: bool) -> Iterator[Row]:
    def sums(query: Tensor, key: Tensor, logsumexp: Tensor, causal: bool) -> Tensor:
        return by_identity(query, key, causal)

    yield from beside_received(run, tokens, causal, "received() over identity values", sums)


def by_flex(run: Run, tokens: int, causal: bool) -> Iterator[Row]:
    """FlexAttention gives the logsumexp with the context, and no sums."""
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

    on_gpu = run.bench.device.type == "cuda"
    flex: Any = torch.compile(flex_attention) if on_gpu else flex_attention
    query, key, value = tensors(run, tokens)
    visible = None
    if causal:
        visible = create_block_mask(
            lambda batch, head, row, col: row >= col, None, None, tokens, tokens, query.device
        )
    mask = masks.causal() if causal else None
    name = "attention() over FlexAttention's logsumexp"
    ours = partial(pellucid.attention, query, key, value, mask)
    aux = AuxRequest(lse=True)
    flexed = partial(flex, query, key, value, block_mask=visible, return_aux=aux)
    found = run.beside({name: ours}, flexed)[name]
    yield over(name, f"n = {tokens:,} {'causal' if causal else 'full'}", found, None, "flex")


def beside_received(
    run: Run,
    tokens: int,
    causal: bool,
    name: str,
    sums: Callable[[Tensor, Tensor, Tensor, bool], Tensor],
) -> Iterator[Row]:
    query, key, value = tensors(run, tokens)
    _, weights = pellucid.attention(query, key, value, masks.causal() if causal else None)
    peer = partial(sums, query, key, weights.logsumexp, causal)
    apart = float((peer() - weights.received()).abs().max() / weights.received().abs().max())
    if apart > 0.02:
        raise ArithmeticError(f"the peer's sums differ from ours by {apart:.1e}")
    found = run.beside({name: weights.received}, peer)[name]
    yield over(name, f"n = {tokens:,} {'causal' if causal else 'full'}", found, 1.0, "peer")


def watching(run: Run) -> Iterator[Row]:
    """A layer of the shape of Llama 3 8B, watched."""
    import transformers

    shape = run.shape
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=1,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.watched_tokens,
    )
    model = transformers.AutoModel.from_config(config, attn_implementation="sdpa")
    model = model.eval().to(run.bench.device, run.bench.dtype)
    ids = torch.arange(shape.watched_tokens, device=run.bench.device)[None] % 128

    def watched() -> None:
        with pellucid.watch(model):
            model(ids, use_cache=False)

    found = run.beside({"watch()": watched}, partial(model, ids, use_cache=False))["watch()"]
    setting = f"a layer {shape.hidden} wide, n = {shape.watched_tokens:,}"
    yield over("watch()", setting, found, 1.03, "not watched")


def measure_all(run: Run) -> None:
    """The table first, small sizes before large ones; then the peers, the slow ones last."""
    for tokens in run.bench.sizes:
        for causal in (True, False):
            run.attempt(f"table at {tokens}", partial(table, run, tokens, causal))
    run.attempt("watch", partial(watching, run))
    smallest = run.bench.sizes[0]
    for peer in (by_atomics, by_identities, by_flex):
        for causal in (True, False):
            run.attempt(peer.__name__, partial(peer, run, smallest, causal))
    for tokens in run.bench.sizes[1:]:
        run.attempt("by_atomics", partial(by_atomics, run, tokens, True))


def main(arguments: list[str] | None = None) -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), metavar="FILE")
    parser.add_argument("--minutes", type=float, default=11.5, help="no more begins after them")
    parser.add_argument("--no-tests", action="store_true", help="the table alone")
    # For the test of this script, which runs each of its lines without a GPU.
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        sys.exit("python -m benchmarks.gpu needs a GPU, and PyTorch finds none")
    bench = Bench(
        device=torch.device("cpu" if given.tiny else "cuda"),
        dtype=torch.float32 if given.tiny else torch.bfloat16,
        sizes=(33, 47) if given.tiny else SIZES,
        quick=True,
        only="",
    )
    shape = TINY if given.tiny else LARGE
    run = Run(bench, shape, given.out, began + 60 * given.minutes)
    name = "the CPU" if given.tiny else torch.cuda.get_device_name()
    dtype = str(bench.dtype).removeprefix("torch.")
    about = f"torch {torch.__version__}, {dtype}, {shape.heads} heads of {shape.head_dim}, {name}"
    run.write({"machine": about, "minutes": given.minutes})
    print(about, flush=True)
    if not given.no_tests:
        run_tests(run, seconds=60 * given.minutes / 3)
    with torch.no_grad():
        measure_all(run)
    show(run.rows, about, Console(width=130))
    print(f"{time.monotonic() - began:.0f} s; rows in {given.out}")


if __name__ == "__main__":
    main()
