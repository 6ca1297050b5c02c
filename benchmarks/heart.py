"""What the heart must reach: each figure as a ratio to its peer in the same run, beside its bar.

    python -m benchmarks.heart [--quick] [--cpu-time] [--only FIGURE] [--json FILE]
    python -m benchmarks.heart --device cuda --dtype bfloat16 --sizes 4096 16384 65536

Batch 1, 8 heads of 64, every core. The peer is torch's scaled_dot_product_attention (SDPA) on the
same tensors, timed before and after each call of ours; on a GPU it is whichever of torch's fused
backends is fastest there.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import pellucid
from benchmarks import measure
from benchmarks.measure import Call, Comparison
from pellucid import masks

HEADS, HEAD_DIM, TOP, WINDOW = 8, 64, 8, 512
SIZES = (256, 512, 1024, 2048, 4096, 8192)
STATISTICS_FROM = 2048
SHORT = 512
"""Keys that the CPU's fused kernel takes at once, hidden or not."""
LONG = 16_384
FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure beside its bar."""

    figure: str
    setting: str
    ours: str
    peer: str = ""
    value: float
    unit: str = "x"
    bar: float | None
    """The most it may be; None = for information."""
    at_least: bool = False
    """The bar is the least it may be."""

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return ""
        passed = self.value >= self.bar if self.at_least else self.value <= self.bar
        return "pass" if passed else "falls short"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured, where and for how long."""

    device: torch.device
    dtype: torch.dtype
    sizes: tuple[int, ...]
    quick: bool
    only: str
    cpu_time: bool = False
    """Whether the time of the processor is measured instead of the wall's."""

    def wants(self, figure: str) -> bool:
        return self.only in figure

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def tensors(self, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, (1, heads, tokens, head_dim)."""
        torch.manual_seed(tokens)
        make = partial(
            torch.randn, 1, HEADS, tokens, HEAD_DIM, device=self.device, dtype=self.dtype
        )
        return make(), make(), make()

    def beside(self, calls: dict[str, Call], peer: Call) -> dict[str, Comparison]:
        budget, least = (1.0, 2) if self.quick else (8.0, 3)
        return measure.beside(
            calls,
            peer,
            synchronize=self.synchronize,
            budget=budget,
            least=least,
            clock=time.process_time if self.cpu_time else time.perf_counter,
        )

    def sdpa(self, query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Call:
        """One call of torch's fused attention."""

        def call() -> Tensor:
            return F.scaled_dot_product_attention(query, key, value, is_causal=causal)

        if self.device.type == "cpu":
            return call

        def by(backend: SDPBackend) -> Tensor:
            with sdpa_kernel(backend):
                return call()

        timed: dict[float, Call] = {}
        for backend in FUSED:
            try:
                by(backend)
            except RuntimeError:  # not on this device, or not for this dtype
                continue
            choice = partial(by, backend)
            timed[measure.seconds(choice, 5, self.synchronize)] = choice
        return timed[min(timed)]


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def over(
    figure: str, setting: str, found: Comparison, bar: float | None, peer: str = "SDPA"
) -> Row:
    """Our time over the peer's."""
    return Row(
        figure=figure,
        setting=setting,
        ours=duration(found.ours),
        peer=f"{peer} {duration(found.peer)}",
        value=found.ratio,
        bar=bar,
    )


def speed(bench: Bench) -> Iterator[Row]:
    """attention() with its lazy weights, and what is asked of weights that are there already."""
    for tokens, causal in product(bench.sizes, (False, True)):
        query, key, value = bench.tensors(tokens)
        attend = partial(pellucid.attention, query, key, value, masks.causal() if causal else None)
        calls: dict[str, Call] = {"attention()": attend}
        bars: dict[str, float | None] = {"attention()": 1.15 if tokens == 256 else 1.05}
        if causal and tokens <= SHORT and bench.device.type == "cpu":
            bars["attention()"] = 0.75
        if tokens >= STATISTICS_FROM:
            _, weights = attend()
            calls["received()"] = weights.received
            calls["entropy()"] = weights.entropy
            calls[f"top({TOP})"] = partial(weights.top, TOP)
            calls[f"statistics(top={TOP})"] = partial(weights.statistics, top=TOP)
            calls[f"attention() and statistics(top={TOP})"] = partial(
                lambda attend: attend()[1].statistics(top=TOP), attend
            )
            bars |= dict.fromkeys(("received()", "entropy()", f"top({TOP})"), 1.3)
            bars[f"statistics(top={TOP})"] = 2.0
            if bench.device.type == "cpu":
                bars[f"attention() and statistics(top={TOP})"] = 1.8 if causal else 1.6
        calls = {name: call for name, call in calls.items() if bench.wants(name)}
        if not calls:
            continue
        peer = bench.sdpa(query, key, value, causal)
        setting = f"n = {tokens:,} {'causal' if causal else 'full'}"
        for name, found in bench.beside(calls, peer).items():
            yield over(name, setting, found, bars.get(name))


def eager_statistics(query: Tensor, key: Tensor, distance: Tensor) -> tuple[Tensor, ...]:
    """The statistics as one would write them on the full matrix of weights."""
    weights = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1)
    strongest = weights.topk(TOP, dim=-1)
    return (
        weights.sum(-2),
        torch.special.entr(weights).sum(-1),
        strongest.values,
        strongest.indices,
        weights.amax(-1),
        torch.einsum("bhqk,qk->bhq", weights, distance),
    )


def eager(bench: Bench) -> Iterator[Row]:
    """Our statistics over those by eager attention, from query and key to the answer."""
    figure, tokens = "eager over statistics()", 4096
    if not bench.wants(figure):
        return
    query, key, value = bench.tensors(tokens)
    places = torch.arange(tokens, device=bench.device)
    distance = (places[:, None] - places).abs().to(bench.dtype)

    def ours() -> object:
        return pellucid.attention(query, key, value)[1].statistics(top=TOP)

    found = bench.beside({figure: ours}, partial(eager_statistics, query, key, distance))[figure]
    yield Row(
        figure=figure,
        setting=f"n = {tokens:,} full, attention() included",
        ours=duration(found.ours),
        peer=f"eager {duration(found.peer)}",
        value=1 / found.ratio,
        bar=2.5,
        at_least=True,
    )


def window(bench: Bench) -> Iterator[Row]:
    """A causal window over SDPA with the same window as a dense mask."""
    figure = "dense mask over window"
    if not bench.wants(figure):
        return
    query, key, value = bench.tensors(LONG)
    places = torch.arange(LONG, device=bench.device)
    behind = places[:, None] - places
    dense = (behind >= 0) & (behind < WINDOW)
    del behind
    ours = partial(pellucid.attention, query, key, value, masks.window(left=WINDOW - 1, right=0))
    peer = partial(F.scaled_dot_product_attention, query, key, value, attn_mask=dense)
    found = bench.beside({figure: ours}, peer)[figure]
    yield Row(
        figure=figure,
        setting=f"n = {LONG:,}, the last {WINDOW}",
        ours=duration(found.ours),
        peer=f"SDPA {duration(found.peer)}",
        value=1 / found.ratio,
        bar=12,
        at_least=True,
    )


def memory(bench: Bench) -> Iterator[Row]:
    """The most that statistics() takes on top of query, key, value and context."""
    figure = f"memory of statistics(top={TOP})"
    if not bench.wants(figure):
        return
    if bench.device.type == "cuda":
        extra = float(cuda_memory(bench))
    else:
        extra = measure.printed_by("from benchmarks import heart; print(heart.process_memory())")
    yield Row(
        figure=figure,
        setting=f"n = {LONG:,} full",
        ours=f"{extra / 1e6:.0f} MB",
        peer=f"eager {HEADS * LONG**2 * bench.dtype.itemsize / 1e6:,.0f} MB of weights",
        value=extra / 1e6,
        unit="MB",
        bar=100,
    )


def process_memory() -> int:
    """Bytes, in a process that has done nothing else but compile what is compiled."""
    bench = Bench(device=torch.device("cpu"), dtype=torch.float32, sizes=(), quick=True, only="")
    with torch.inference_mode():
        pellucid.attention(*bench.tensors(1024))[1].statistics(top=TOP)
        _, weights = pellucid.attention(*bench.tensors(LONG))
        with measure.PeakMemory() as peak:
            weights.statistics(top=TOP)
    return peak.extra


def cuda_memory(bench: Bench) -> int:
    _, weights = pellucid.attention(*bench.tensors(LONG))
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    weights.statistics(top=TOP)
    return torch.cuda.max_memory_allocated(bench.device) - before


def one_row(bench: Bench) -> Iterator[Row]:
    """weights[..., i, :], a row of every head."""
    figure = "weights[..., i, :]"
    if not bench.wants(figure):
        return
    _, weights = pellucid.attention(*bench.tensors(LONG))
    for i in range(3):
        weights[..., i, :]
    times = [
        measure.seconds(partial(weights.__getitem__, (..., i, slice(None))), 1, bench.synchronize)
        for i in range(0, LONG, LONG // 50)
    ]
    median = statistics.median(times)
    yield Row(
        figure=figure,
        setting=f"n = {LONG:,} full",
        ours=duration(median),
        value=median * 1e3,
        unit="ms",
        bar=5,
    )


def start(bench: Bench) -> Iterator[Row]:
    """What an import costs, each in fresh processes, and how soon the command line answers."""
    rounds = 3 if bench.quick else 7
    for figure in ("import pellucid", "import pellucid; pellucid.attention"):
        if bench.wants(figure):
            pairs = [
                (measure.import_seconds(figure), measure.import_seconds("import torch"))
                for _ in range(rounds)
            ]
            found = Comparison(
                ours=statistics.median(a for a, _ in pairs),
                peer=statistics.median(b for _, b in pairs),
                ratio=statistics.median(a / b for a, b in pairs),
            )
            yield over(figure, "fresh process", found, 1.1, peer="import torch")
    figure = "pellucid --help"
    if bench.wants(figure):
        command = [sys.executable, "-m", "pellucid", "--help"]
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begin)
        median = statistics.median(times)
        yield Row(
            figure=figure,
            setting="fresh process",
            ours=duration(median),
            value=median,
            unit="s",
            bar=0.4,
        )


SECTIONS: tuple[Callable[[Bench], Iterator[Row]], ...] = (
    speed,
    eager,
    window,
    memory,
    one_row,
    start,
)


def machine(bench: Bench) -> str:
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name(bench.device)
    else:
        name = f"{platform.machine()}, {torch.get_num_threads()} threads"
    dtype = str(bench.dtype).removeprefix("torch.")
    return f"torch {torch.__version__}, {dtype}, {HEADS} heads of {HEAD_DIM}, {name}"


def show(rows: list[Row], title: str, console: Console) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("figure", "setting"):
        table.add_column(heading)
    for heading in ("ours", "peer", "value", "bar"):
        table.add_column(heading, justify="right")
    table.add_column("")
    styles = {"pass": "green", "falls short": "bold red", "": ""}
    order = list(dict.fromkeys(row.figure for row in rows))
    for row in sorted(rows, key=lambda row: order.index(row.figure)):
        sign = "≥" if row.at_least else "≤"
        table.add_row(
            row.figure.replace("[", r"\["),
            row.setting,
            row.ours,
            row.peer,
            f"{row.value:.3g} {row.unit}",
            "" if row.bar is None else f"{sign} {row.bar:g} {row.unit}",
            row.verdict,
            style=styles[row.verdict],
        )
    console.print(table)
    short = sum(row.verdict == "falls short" for row in rows)
    console.print(f"{sum(row.verdict == 'pass' for row in rows)} pass, {short} fall short")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heart", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes; noisier")
    parser.add_argument("--only", default="", metavar="FIGURE", help="figures whose name has this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and its own time: for a machine that others use too",
    )
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--sizes", nargs="+", type=int, metavar="N")
    given = parser.parse_args()
    bench = Bench(
        device=given.device,
        dtype=getattr(torch, given.dtype),
        sizes=tuple(given.sizes or ((256, 1024, 2048) if given.quick else SIZES)),
        quick=given.quick,
        only=given.only,
        cpu_time=given.cpu_time,
    )
    if given.cpu_time:
        torch.set_num_threads(1)
    elif (load := os.getloadavg()[0]) > 0.5:
        print(
            f"other processes keep {load:.1f} cores busy: expect ratios far above those of a "
            "quiet machine, since threads that wait for each other lose their turn",
            file=sys.stderr,
        )
    rows: list[Row] = []
    begin = time.perf_counter()
    with torch.inference_mode():
        for section in SECTIONS:
            for row in section(bench):
                rows.append(row)
                print(f"{row.figure}, {row.setting}: {row.value:.3g} {row.unit}", file=sys.stderr)
    # Wide enough for every column where the output is not a terminal.
    console = Console() if sys.stdout.isatty() else Console(width=130)
    show(rows, machine(bench), console)
    console.print(f"measured in {time.perf_counter() - begin:.0f} s")
    if given.json:
        facts = {"machine": machine(bench), "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
