"""Programs compiled to weights, of which each head's function is known, as torch models.

`recipes/compiled_programs.py` has compiled them with Tracr, whose conventions these are: a token
BOS comes first, and a row that selects nothing looks at it; positions and tokens are directions of
the residual stream, so that there is no norm; scores are divided by the square root of the key's
size; the feed-forward layers use ReLU; nothing is learned.

Source: Lindner et al. 2023, "Tracr: Compiled Transformers as a Laboratory for Interpretability".
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

DATA = Path(__file__).parent / "data" / "compiled_programs.safetensors"
NAMES = ("previous", "share", "histogram", "reverse", "sort", "neighbours", "induction")
RANDOM = 5
"""The seed of the weights of heads that are added."""


@dataclass(frozen=True)
class Facts:
    """What a program is and does."""

    causal: bool
    heads: int
    layers: int
    words: list
    """The word of each id."""
    labels: list
    """The meaning of each direction of the residual stream."""
    values: list | None
    """The value of each output, or None for a number."""
    functions: dict
    """By head, "layer.head": "aggregate", the mean over what it selects, or "width"."""
    texts: torch.Tensor
    """(texts, 1 + length) ids."""
    results: list
    """What the program returns for each token but the first; None where it returns nothing."""
    selected: dict
    """By head: (texts, length, length) bool, which queries select which keys."""


class Attention(nn.Module):
    def __init__(self, weights, heads, causal, inert):
        super().__init__()
        width = len(weights["query"])
        self.heads, self.causal = heads + inert, causal
        generator = torch.Generator().manual_seed(RANDOM)
        size = weights["query"].shape[1] // heads * inert
        for name in ("query", "key", "value"):
            more = torch.randn(width, size, generator=generator)
            setattr(self, name, linear(torch.cat([weights[name], more], 1)))
        self.output = linear(torch.cat([weights["linear"], torch.zeros(size, width)]))

    def forward(self, x):
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        context = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.output(context.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, up, down):
        super().__init__()
        self.up, self.down = linear(up), linear(down)

    def forward(self, x):
        return self.down(self.up(x).relu())


class Layer(nn.Module):
    def __init__(self, weights, heads, causal, inert):
        super().__init__()
        parts = {name.removeprefix("attn/"): one for name, one in weights.items()}
        self.attention = Attention(parts, heads, causal, inert)
        self.feed_forward = FeedForward(weights["mlp/linear_1"], weights["mlp/linear_2"])

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class Program(nn.Module):
    """Of ids (batch, tokens) it makes (batch, tokens, values): one output for each value, which is
    1 where the program returns it; or (batch, tokens, 1), a number.
    """

    def __init__(self, tensors, facts, inert=0):
        super().__init__()
        self.tokens, self.positions = (
            nn.Embedding.from_pretrained(tensors[name]) for name in ("tokens", "positions")
        )
        self.layers = nn.ModuleList(
            Layer(inside(tensors, f"layers.{layer}."), facts.heads, facts.causal, inert)
            for layer in range(facts.layers)
        )
        self.register_buffer("outputs", tensors["output"])
        self.facts = facts

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1])[None])
        for layer in self.layers:
            x = layer(x)
        return x[..., self.outputs]


def linear(weight):
    """A linear layer without bias of (inputs, outputs) weights."""
    layer = nn.Linear(*weight.shape, bias=False)
    layer.weight = nn.Parameter(weight.T.contiguous())
    return layer


def inside(tensors, prefix):
    return {
        name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)
    }


@cache
def _read():
    with safe_open(DATA, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["about"])["programs"]


def program(name, inert=0, dtype=torch.float32):
    """A program's model.

    Args:
        name: one of NAMES.
        inert: how many heads are added to each layer, which look around at random and write
            nothing.
        dtype: of the weights.
    """
    everything, programs = _read()
    tensors, told = inside(everything, f"{name}."), dict(programs[name])
    del told["does"]
    facts = Facts(texts=tensors["texts"], selected=inside(tensors, "selected."), **told)
    return Program(tensors, facts, inert).to(dtype).eval()
