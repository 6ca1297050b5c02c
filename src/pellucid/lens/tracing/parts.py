"""Where a model writes to its residual stream, by the names of its modules.

Each entry of the two tables is how some families name the parts of a block. What lies between the
parts (norms before or after them, parallel branches, factors) is not said here: the model does it.
"""

import re
from dataclasses import dataclass

from torch import nn

from pellucid.errors import ArgumentError
from pellucid.lens.module_names import layer_number, modules_of, stack, within

BLOCK = re.compile(r"(?:^|\.)\d+$")
"""The name of a block ends with its number."""


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention of a block."""

    name: str
    """The module that attends, as a recording names it."""
    projections: tuple[str, ...]
    """Of query, key and value, in this order; or one that gives all three."""
    output: str
    """The projection after attention."""

    def inside(self, block: str) -> "Attention":
        projections = tuple(f"{block}.{self.name}.{name}" for name in self.projections)
        return Attention(f"{block}.{self.name}", projections, f"{block}.{self.output}")


@dataclass(frozen=True, slots=True)
class Feed:
    """The feed-forward part of a block."""

    name: str
    """The module whose output is added to the stream."""
    ups: tuple[str, ...]
    """The first linear layers: of two, the first is activated and multiplies the second. None for
    experts, of which each token uses others."""
    down: str
    """The last linear layer."""

    def inside(self, block: str) -> "Feed":
        ups = tuple(f"{block}.{name}" for name in self.ups)
        return Feed(f"{block}.{self.name}", ups, f"{block}.{self.down}")


_QKV = ("query", "key", "value")
ATTENTIONS = (
    Attention("attention", _QKV, "attention.output"),  # Pellucid
    Attention("cross", _QKV, "cross.output"),
    Attention("self_attn", ("q_proj", "k_proj", "v_proj"), "self_attn.o_proj"),  # Llama
    Attention("attn", ("c_attn",), "attn.c_proj"),  # GPT-2
    Attention("attention.self", _QKV, "attention.output.dense"),  # BERT
    Attention("attention", ("q_lin", "k_lin", "v_lin"), "attention.out_lin"),  # DistilBERT
)
FEEDS = (
    Feed("feed_forward", ("feed_forward.gate", "feed_forward.up"), "feed_forward.down"),
    Feed("mlp", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    Feed("mlp", ("mlp.c_fc",), "mlp.c_proj"),
    Feed("output.dense", ("intermediate.dense",), "output.dense"),
    Feed("ffn", ("ffn.lin1",), "ffn.lin2"),
)
SHAPES = "Pellucid's own models and those of the shapes of Llama, GPT-2, BERT and DistilBERT"


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a model."""

    modules: dict[str, nn.Module]
    """All modules by name."""
    blocks: list[str]
    """The blocks that attend, in order."""
    attentions: list[Attention]
    feeds: list[Feed]

    def starts(self) -> list[str]:
        """The first block of each stack."""
        return list({stack(block): block for block in reversed(self.blocks)}.values())[::-1]

    def outside(self) -> dict[str, nn.Module]:
        """The modules that are in no block."""
        return {
            name: module
            for name, module in self.modules.items()
            if not any(within(name, block) for block in self.blocks)
        }


def parts_of(model: nn.Module) -> Parts:
    """The parts of a model.

    Raises:
        ArgumentError: its blocks have parts of other names.
    """
    modules = dict(modules_of(model))
    parts = Parts(modules, [], [], [])
    for block in modules:
        if not BLOCK.search(block):
            continue
        inside = [one.inside(block) for one in ATTENTIONS]
        found = [one for one in inside if {one.name, one.output, *one.projections} <= {*modules}]
        feeds = [one.inside(block) for one in FEEDS]
        feeds = [one for one in feeds if one.name in modules]
        if not found or not feeds:
            continue
        feed = next((one for one in feeds if one.down in modules), feeds[0])
        ups = tuple(name for name in feed.ups if name in modules)
        parts.blocks.append(block)
        parts.attentions.extend(found)
        parts.feeds.append(Feed(feed.name, ups, feed.down))
    if not parts.blocks:
        raise ArgumentError(
            f"{type(model).__name__} has no blocks whose parts are known; this works for {SHAPES}; "
            "of trace, the methods gradient and chefer take any model that can be watched"
        )
    return parts


def layer_of(name: str) -> int:
    """The number of the layer that a part belongs to."""
    number = layer_number(name)
    assert number is not None
    return number
