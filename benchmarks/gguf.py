"""GGUF files beside llama.cpp, on the same file with the same number of threads.

    LLAMA_PYTHON=PYTHON [GGUF=FILE] python -m benchmarks.gguf [--only SECTION] [--json FILE]

The peer is optional: PYTHON is one that has llama-cpp-python, which need not be that of Pellucid;
without it there is nothing to compare, and the benchmark says so.

llama.cpp rounds the inputs of every product to 8 bits, and so do packed models here, but no two
ways of adding up round alike: llama.cpp with its cache in float32 writes other texts than
llama.cpp. How often it chooses the same next token as itself is the measure of how often we can.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid import pretrained
from pellucid.models.checkpoints.source import directory_of
from pellucid.tasks.conversation import prompt_of
from pellucid.tasks.decoders import open_writer
from pellucid.tasks.generation import generate

NEW, PREFILL = 64, 512
PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a",
    "def fibonacci(n):",
    "In 1969, the first",
)
MESSAGES = (
    "Write a poem about rain.",
    "What is gravity?",
    "List three fruits and explain why each is healthy.",
    "Explain how a bicycle stays upright, in two sentences.",
)


class Peer:
    """llama.cpp in a process of its own."""

    def __init__(self, python: str, path: Path, threads: int) -> None:
        script = Path(__file__).with_name("llama_peer.py")
        self.process = subprocess.Popen(
            [python, str(script), str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, kind: str, ids: list[int], **options: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"kind": kind, "ids": ids, "count": NEW, **options}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def prompts_of(model: Any) -> list[list[int]]:
    texts = [*PROMPTS, *(prompt_of(model, message) for message in MESSAGES)]
    ids: list[list[int]] = model.tokenizer.encode(texts, special=False)
    return ids


def choices(model: Any, ids: list[int], count: int) -> list[int]:
    """The likeliest token after each of the last `count` ids, by steps as in generation."""
    cache, read = model.cache(1, len(ids)), len(ids) - count + 1
    with torch.no_grad():
        found = [int(model(torch.tensor([ids[:read]]), cache=cache, last=True).argmax())]
        for token in ids[read:]:
            found.append(int(model(torch.tensor([[token]]), cache=cache, last=True).argmax()))
    return found


def agreement() -> Iterator[Row]:
    """How often each chooses llama.cpp's next token, and whether it writes the same text."""
    model, peer = pair()
    ours, theirs, same, their_same, total = 0, 0, 0, 0, 0
    for ids in prompts_of(model):
        text = peer.ask("greedy", ids)["ids"]
        read, count = (ids + text)[:-1], len(text)
        mine = choices(model, read, count)
        other = peer.ask("choices", read, count=count, exact=True)["ids"]
        ours += sum(one == token for one, token in zip(mine, text, strict=True))
        theirs += sum(one == token for one, token in zip(other, text, strict=True))
        same += generate(model, torch.tensor([ids]), max_tokens=NEW)[0].ids == text
        their_same += peer.ask("greedy", ids, exact=True)["ids"] == text
        total += count
    texts = len(PROMPTS) + len(MESSAGES)
    yield Row(
        figure="next tokens as llama.cpp chooses them",
        setting=f"along {texts} of its texts, {total} tokens",
        ours=f"{ours / total:.1%}; {same} of {texts} texts the same",
        value=ours / theirs,
        bar=0.98,
        at_least=True,
    )
    yield Row(
        figure="llama.cpp against itself, its cache in float32",
        setting=f"the same {total} tokens",
        ours="",
        peer=f"{theirs / total:.1%}; {their_same} of {texts} texts the same",
        value=theirs / total,
        bar=None,
    )


def speed() -> Iterator[Row]:
    model, peer = pair()
    ids = prompts_of(model)[4]
    tokens = torch.tensor([ids])
    found = measure.beside(
        {"": partial(write, model, tokens)},
        partial(peer.ask, "greedy", ids, stops=False),
        budget=60,
        least=5,
    )[""]
    yield Row(
        figure="tokens a second over llama.cpp",
        setting=f"{NEW} tokens after {len(ids)}",
        ours=f"{NEW / found.ours:.0f} a second",
        peer=f"{NEW / found.peer:.0f} a second",
        value=1 / found.ratio,
        bar=0.9,
        at_least=True,
    )


def prefill() -> Iterator[Row]:
    model, peer = pair()
    ids = torch.randint(100, 40_000, (1, PREFILL), generator=torch.Generator().manual_seed(3))

    def ours() -> None:
        with torch.no_grad():
            model(ids, cache=model.cache(1, PREFILL), last=True)

    found = measure.beside(
        {"": ours}, partial(peer.ask, "prefill", ids[0].tolist()), budget=12, least=3
    )[""]
    yield Row(
        figure="prefill over llama.cpp",
        setting=f"{PREFILL} tokens",
        ours=duration(found.ours),
        peer=duration(found.peer),
        value=1 / found.ratio,
        bar=1.3,
        at_least=True,
    )


def write(model: Any, ids: torch.Tensor) -> None:
    """Write `NEW` tokens, whatever they are."""
    with torch.no_grad():
        cache = model.cache(1, ids.shape[1] + NEW)
        for _ in range(NEW):
            ids = model(ids, cache=cache, last=True).argmax(-1, keepdim=True)


def python_of_llama() -> str | None:
    """A Python that has llama-cpp-python: $LLAMA_PYTHON, or this one."""
    return os.environ.get("LLAMA_PYTHON") or (sys.executable if find_spec("llama_cpp") else None)


@cache
def pair() -> tuple[Any, Peer]:
    """Ours, packed, and llama.cpp, of the same file."""
    python = python_of_llama()
    assert python is not None
    path = directory_of(os.environ.get("GGUF", pretrained.SMOLLM2))
    return open_writer(path), Peer(python, path, torch.get_num_threads())


def main() -> None:
    if python_of_llama() is None:
        print("there is no llama-cpp-python here; $LLAMA_PYTHON may name a Python that has it")
        return
    sections = (agreement, speed, prefill)
    run("benchmarks.gguf", (__doc__ or "").partition("\n")[0], "llama.cpp", sections)
    pair()[1].close()


if __name__ == "__main__":
    main()
