"""llama.cpp as a peer of benchmarks.gguf, in a Python of its own that has llama-cpp-python.

    python llama_peer.py FILE THREADS

Each line of standard input is a JSON request, and each line of standard output its answer.
"""

import json
import sys
import time
from typing import Any

from llama_cpp import Llama, llama_model_get_vocab, llama_vocab_is_eog

FLOAT32 = 0
"""The type of ggml for a cache whose numbers are not rounded to float16."""


def main() -> None:
    path, threads = sys.argv[1], int(sys.argv[2])
    models: dict[tuple[bool, bool], Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        exact, has_all = asked.get("exact", False), asked["kind"] != "prefill"
        if (exact, has_all) not in models:
            cache = {"type_k": FLOAT32, "type_v": FLOAT32} if exact else {}
            models[exact, has_all] = Llama(
                path,
                n_ctx=512,
                n_threads=threads,
                n_threads_batch=threads,
                logits_all=has_all,
                verbose=False,
                **cache,
            )
        print(json.dumps(ANSWERS[asked["kind"]](models[exact, has_all], asked)), flush=True)


def greedy(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Up to `count` tokens after ids, and the seconds that they took."""
    vocabulary = llama_model_get_vocab(model.model)
    start = time.perf_counter()
    model.reset()
    model.eval(asked["ids"])
    written: list[int] = []
    while len(written) < asked["count"]:
        token = int(model.scores[model.n_tokens - 1].argmax())
        if asked.get("stops", True) and llama_vocab_is_eog(vocabulary, token):
            break
        written.append(token)
        if len(written) < asked["count"]:
            model.eval([token])
    return {"ids": written, "seconds": time.perf_counter() - start}


def choices(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The likeliest token after each of the last `count` ids."""
    model.reset()
    read = len(asked["ids"]) - asked["count"] + 1
    model.eval(asked["ids"][:read])
    found = [int(model.scores[model.n_tokens - 1].argmax())]
    for token in asked["ids"][read:]:
        model.eval([token])
        found.append(int(model.scores[model.n_tokens - 1].argmax()))
    return {"ids": found}


def prefill(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Read all ids; logits of the last alone."""
    model.reset()
    model.eval(asked["ids"])
    return {"ids": [], "logit": float(model._ctx.get_logits()[0])}  # noqa: SLF001 - waits for it


ANSWERS = {"greedy": greedy, "choices": choices, "prefill": prefill}

if __name__ == "__main__":
    main()
