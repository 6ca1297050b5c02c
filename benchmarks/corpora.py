"""What a task over a corpus must reach: each figure beside its bar.

    python -m benchmarks.corpora [--only SECTION] [--json FILE]

Sentences of random words in a few files, embedded by all-MiniLM-L6-v2: by one process with all
cores, and by a Ray worker for each core.
"""

import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid import corpora

TEXTS = 20_000
FILES = 5
DOCUMENTS = 300
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "cold",
    "rain",
    "falls",
    "on",
    "old",
    "roofs",
]


def corpus(folder: Path, texts: int) -> Path:
    """A folder of files with sentences of 5 to 40 words."""
    drawn = random.Random(0)
    for number in range(FILES):
        with (folder / f"{number}.txt").open("w", encoding="utf-8") as file:
            for _ in range(texts // FILES):
                print(" ".join(drawn.choices(WORDS, k=drawn.randint(5, 40))), file=file)
    return folder


def timed(folder: Path, output: Path, workers: int) -> tuple[float, float]:
    """Seconds from the call to the end, and texts a second from the first part on."""
    moments: list[tuple[float, int]] = []
    begun = time.perf_counter()
    corpora.run(
        folder,
        output,
        corpora.Embed(),
        workers=workers,
        progress=lambda done, _: moments.append((time.perf_counter(), done.texts)),
    )
    (first, before), (last, after) = moments[0], moments[-1]
    return time.perf_counter() - begun, (after - before) / (last - first)


def workers() -> Iterator[Row]:
    """A Ray worker for each core, beside one process with all of them."""
    cores = os.cpu_count() or 1
    with TemporaryDirectory() as place:
        (Path(place) / "texts").mkdir()
        folder = corpus(Path(place) / "texts", TEXTS)
        one, one_rate = timed(folder, Path(place) / "one", 1)
        many, many_rate = timed(folder, Path(place) / "many", cores)
    setting = f"{TEXTS:,} texts, {cores} workers over one process"
    yield Row(
        figure="texts a second, once at work",
        setting=setting,
        ours=f"{many_rate:,.0f}",
        peer=f"{one_rate:,.0f}",
        value=many_rate / one_rate,
        bar=0.9,
        at_least=True,
    )
    yield Row(
        figure="the whole, Ray's start included",
        setting=setting,
        ours=duration(many),
        peer=duration(one),
        value=one / many,
        bar=None,
    )


def heads() -> Iterator[Row]:
    """Heads over documents: time of one, and memory of the merge."""
    with TemporaryDirectory() as place:
        (Path(place) / "texts").mkdir()
        folder = corpus(Path(place) / "texts", DOCUMENTS)
        output = Path(place) / "out"
        summary = corpora.run(folder, output, corpora.MeasureHeads())
        yield Row(
            figure="the heads of a document",
            setting=f"{DOCUMENTS} documents of 5 to 40 words",
            ours=duration(summary.seconds / summary.texts),
            value=summary.seconds / summary.texts * 1e3,
            unit="ms",
            bar=None,
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        corpora.summarise_heads(output)
        took = time.perf_counter() - begun
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        yield Row(
            figure="merging them",
            setting=f"{DOCUMENTS} documents",
            ours=duration(took),
            value=more / 2**10 / (2**10 if sys.platform == "darwin" else 1),
            unit="MiB more",
            bar=None,
        )


if __name__ == "__main__":
    run("benchmarks.corpora", __doc__, f"ray {version('ray')}", (workers, heads))
