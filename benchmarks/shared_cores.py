"""What another program costs that keeps one of two cores busy: time beside it over time alone.

    python -m benchmarks.shared_cores [--only FIGURE] [--json FILE]

Each figure is from a process of its own on two cores, which starts the other program itself. Random
weights; float32.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import transformers

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.decoding import LLAMA, greedy, loaded, some_ids
from benchmarks.heart import Row, duration
from pellucid.attention import attention, masks
from pellucid.models import Encoder

SAMPLES = 7
BUSY = "import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
BAR = 3.0

Call = Callable[[], object]


def decode() -> Call:
    torch.manual_seed(0)
    model = loaded(transformers.AutoModelForCausalLM.from_config(LLAMA).eval())
    return lambda: greedy(model, some_ids(32), 24)


def summarise() -> Call:
    query, key, value = torch.randn(3, 1, 8, 2048, 64, generator=torch.Generator().manual_seed(0))
    return lambda: attention(query, key, value, masks.causal())[1].statistics(8)


def embed() -> Call:
    model = pellucid.load("minilm")
    assert isinstance(model, Encoder)
    texts = [f"In the beginning, number {number}, God created the heavens." for number in range(64)]
    return lambda: pellucid.tasks.embed(model, texts)


CALLS = {"decode": decode, "summarise": summarise, "embed": embed}


@contextmanager
def another_program(core: int) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", BUSY.format(core=core)]) as program:
        time.sleep(1)
        try:
            yield
        finally:
            program.kill()


@torch.no_grad()
def times(name: str) -> tuple[float, float]:
    """Seconds of a call alone and beside the other program, for a process that did nothing yet."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    call = CALLS[name]()
    call()
    alone = statistics.median(measure.seconds(call, 1, lambda: None) for _ in range(SAMPLES))
    with another_program(cores[-1]):
        call()
        return alone, statistics.median(
            measure.seconds(call, 1, lambda: None) for _ in range(SAMPLES)
        )


def rows(name: str, figure: str, setting: str) -> Iterator[Row]:
    code = f"from benchmarks.shared_cores import times; print(*times({name!r}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    alone, beside = map(float, ran.stdout.split())
    yield Row(
        figure=figure,
        setting=setting,
        ours=duration(beside),
        peer=f"alone {duration(alone)}",
        value=beside / alone,
        bar=BAR,
    )


def decoding() -> Iterator[Row]:
    yield from rows("decode", "decoding beside a busy program", "Llama, 134M, 24 tokens")


def sweep() -> Iterator[Row]:
    setting = "n = 2,048 causal, 8 heads of 64"
    yield from rows("summarise", "attention and statistics beside a busy program", setting)


def embedding() -> Iterator[Row]:
    yield from rows("embed", "embedding beside a busy program", "MiniLM, 64 sentences")


SECTIONS = (decoding, sweep, embedding)


if __name__ == "__main__":
    run("benchmarks.shared_cores", __doc__, "the same alone", SECTIONS)
