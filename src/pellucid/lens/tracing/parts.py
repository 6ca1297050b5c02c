"""Where a model writes to its residual stream, by the names of its modules.

The tables are how families name the layers of a block. What lies between them (norms before or
after, parallel branches, factors, rotations) is not said here: the model does it.
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
    """Of query, key and value, in this order; or one that gives all three; none if their names are
    not known."""
    output: str
    """The projection after attention."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The feed-forward part of a block."""

    name: str
    """The module whose output is added to the stream."""
    ups: tuple[str, ...]
    """The first linear layers: of two, or of the halves of one, the first is activated and
    multiplies the second. None for experts, of which each token uses others."""
    down: str
    """The last linear layer."""


NUMBER = re.compile(r"(?:^|\.)\d")
LAYER_OF_BLOCK = re.compile(r"^layer\.\d+\.")
"""What T5 puts before the name of a part of a block."""
PROJECTIONS = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
    ("c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
)
OUTPUTS = ("output", "o_proj", "out_proj", "c_proj", "dense", "out_lin", "o", "Wo")
"""Beside the projections; that of BERT is `output.dense`, one level up."""
LAYERS = (
    (("gate", "up"), "down"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("c_fc",), "c_proj"),
    (("fc1",), "fc2"),
    (("fc_in",), "fc_out"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("lin1",), "lin2"),
    (("wi_0", "wi_1"), "wo"),
    (("wi",), "wo"),
    (("Wi",), "Wo"),
)
"""The first linear layers and the last of a feed-forward part; a gate may be left out."""
FEEDS = ("feed_forward", "mlp", "ffn", "DenseReluDense", "block_sparse_moe")
"""Feed-forward parts that are modules."""
APART = ((("intermediate.dense",), "output.dense"), (("fc1",), "fc2"))
"""Layers of those that are none, in a block itself."""
SHAPES = (
    "Pellucid's own models, and those built like Llama, Gemma, GPT-2, GPT-NeoX, Phi, OPT, Falcon, "
    "BERT, T5 or BART"
)


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
        inside = {f"{block}.{name}": x for name, x in modules_of(modules[block]) if name}
        layers = [name for name in inside if not NUMBER.search(_own(name, block))]
        attentions = filter(None, (_attention(inside, name) for name in layers))
        feeds = filter(None, (_feed(inside, name, block) for name in (block, *layers)))
        own_attentions, feed = list(attentions), next(feeds, None)
        if own_attentions and feed is not None:
            parts.blocks.append(block)
            parts.attentions.extend(own_attentions)
            parts.feeds.append(feed)
    if not parts.blocks:
        raise ArgumentError(
            f"{type(model).__name__} has no blocks whose parts are known; this works for {SHAPES}; "
            "of trace, the methods gradient and chefer take any model that can be watched"
        )
    return parts


def _own(name: str, block: str) -> str:
    """The name of a part inside its block, without the number of T5's layers."""
    return LAYER_OF_BLOCK.sub("", name.removeprefix(f"{block}."), 1)


def _attention(inside: dict[str, nn.Module], name: str) -> Attention | None:
    """The attention that a module of a block is, if it is one."""
    named = (tuple(f"{name}.{projection}" for projection in names) for names in PROJECTIONS)
    projections = next((names for names in named if {*names} <= {*inside}), ())
    outputs = [f"{name}.{end}" for end in OUTPUTS]
    if projections:
        outputs.append(f"{name.rpartition('.')[0]}.output.dense")
    elif not type(inside[name]).__name__.endswith("Attention"):
        return None
    outputs = [
        output for output in outputs if output in inside and hasattr(inside[output], "weight")
    ]
    return Attention(name, projections, outputs[0]) if outputs else None


def _feed(inside: dict[str, nn.Module], name: str, block: str) -> Feed | None:
    """The feed-forward part that a module of a block is, or that lies in the block itself."""
    is_block = name == block
    if not is_block and _own(name, block) not in FEEDS:
        return None
    for first, last in APART if is_block else LAYERS:
        down, ups = f"{name}.{last}", tuple(f"{name}.{up}" for up in first)
        ups = tuple(up for up in ups if up in inside)
        if ups and down in inside:
            return Feed(down if is_block else name, ups, down)
    return None if is_block else Feed(name, (), name)


def layer_of(name: str) -> int:
    """The number of the layer that a part belongs to."""
    number = layer_number(name)
    assert number is not None
    return number
