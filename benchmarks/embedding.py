"""What the tasks of the models must reach: each figure beside its peer in the same run.

    python -m benchmarks.embedding [--only FIGURE] [--json FILE]

all-MiniLM-L6-v2 with its trained weights, in float32, in int8 and, where the processor has AMX, in
bfloat16, every core. The peer is sentence-transformers on the same texts in float32, at whichever
of its batch sizes is fastest here; that both give the same embeddings is checked on the way.
"""

import os
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # what is needed is installed

import sentence_transformers
import torch

from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid.layers.bfloat16 import resolved
from pellucid.pretrained import minilm
from pellucid.tasks import embed, open_encoder

TEXTS, TRIED = 200, 60
PEER_BATCHES = (8, 16, 32, 64)
ROOT = Path(__file__).parent.parent


def texts(number: int) -> list[str]:
    """Stretches of the documents of this repository, from a few words to some two hundred.

    Their lengths are spread as those of real collections are: many short, few long.
    """
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    said = " ".join(page.read_text(encoding="utf-8") for page in pages)
    words = re.findall(r"[^\W\d_]+[.,;]?", said)
    draw = random.Random(0)
    found = []
    for _ in range(number):
        length = round(min(170, max(3, draw.lognormvariate(3.3, 0.9))))
        start = draw.randrange(len(words) - length)
        found.append(" ".join(words[start : start + length]))
    return found


def embedding() -> Iterator[Row]:
    ours = open_encoder()
    theirs = sentence_transformers.SentenceTransformer(minilm(), device="cpu")
    all_texts = texts(TEXTS)
    some = all_texts[:TRIED]

    def peer(batch_size: int, given: list[str] = all_texts) -> torch.Tensor:
        found: torch.Tensor = theirs.encode(
            given, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return found

    with torch.inference_mode():
        found = torch.cosine_similarity(embed(ours, all_texts), peer(32))
    yield Row(
        figure="embeddings",
        setting=f"the least cosine with the peer's, of {TEXTS:,} texts",
        ours=f"{float(found.min()):.7f}",
        value=float(found.min()),
        unit="",
        bar=0.99999,
        at_least=True,
    )
    tried: dict[int, Callable[[], object]] = {n: partial(peer, n, some) for n in PEER_BATCHES}
    times = {
        n: min(measure.seconds(call, 1, _nothing) for _ in range(2)) for n, call in tried.items()
    }
    best = min(times, key=lambda n: times[n])
    eighth = open_encoder().to_int8()
    assert ours.tokenizer is not None
    tokens = sum(map(len, ours.tokenizer.encode(all_texts)))
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "float32": partial(embed, ours, all_texts),
        "int8": partial(embed, eighth, all_texts),
    }
    bars = {"float32": 1.5, "int8": 2.5}
    if resolved("auto") == "bfloat16":
        calls["bfloat16"] = partial(embed, ours, all_texts, precision="bfloat16")
        bars["bfloat16"] = 2.5
    compared = measure.beside(calls, partial(peer, best), budget=30, least=3)
    for kind, bar in bars.items():
        one = compared[kind]
        yield Row(
            figure=f"sentence-transformers over embed(), {kind}",
            setting=f"{TEXTS:,} texts of mixed length, {tokens:,} tokens",
            ours=duration(one.ours),
            peer=f"float32, in batches of {best} {duration(one.peer)}",
            value=1 / one.ratio,
            bar=bar,
            at_least=True,
        )
    exact = calls.pop("float32")()
    for kind, call in calls.items():
        found = torch.cosine_similarity(call(), exact)
        yield Row(
            figure=f"embeddings in {kind}",
            setting=f"the least cosine with those in float32, of {TEXTS:,} texts",
            ours=f"{float(found.min()):.5f}",
            value=float(found.min()),
            unit="",
            bar=0.99,
            at_least=True,
        )


def _nothing() -> None:
    pass


SECTIONS = (embedding,)


if __name__ == "__main__":
    run(
        "benchmarks.embedding",
        __doc__,
        f"sentence-transformers {sentence_transformers.__version__}",
        SECTIONS,
    )
