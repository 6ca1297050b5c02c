"""A family as a table of its config's keys, which is read both ways."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.errors import FileError, PellucidError
from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import (
    START,
    activation,
    activation_name,
    expect,
    is_same,
    marks,
    write_marks,
)
from pellucid.models.checkpoints.rope import Rope


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Key:
    """One of their keys, and how its value becomes that of our field and the other way round."""

    name: str
    default: Any = ...
    """Of a key that is missing; ... = the model cannot do without it."""
    read: Callable[[Any], Any] = _same
    write: Callable[[Any], Any] = _same

    def of(self, config: Mapping[str, Any]) -> Any:
        """The value of our field, given config.json."""
        value = config[self.name] if self.default is ... else config.get(self.name, self.default)
        return self.read(value)


def activated(name: str = "hidden_act", default: str = "silu") -> Key:
    """The key of the activation."""
    tanh = default if activation(default) == "gelu_tanh" else "gelu_pytorch_tanh"
    return Key(
        name,
        default,
        activation,
        lambda ours: tanh if ours == "gelu_tanh" else activation_name(ours),
    )


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What config.json says in a family, of decoders unless `fixed` has another kind.

    `read` and `write` are those of a `Family`.
    """

    model_type: str
    architecture: str
    """The class of transformers with a language-modelling head, or of an encoder."""
    fixed: Mapping[str, Any]
    """Our fields that are the same in all models of the family."""
    keys: Mapping[str, Key]
    """Our fields, and the keys that say them."""
    rope: Rope | None = None
    """What the family says about rotary positions, if it has them."""
    ids: Mapping[str, Any] = field(default_factory=dict)
    """Default special ids."""
    expected: Mapping[str, Any] = field(default_factory=dict)
    """Their keys that must have one value."""
    more: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    """Reads our fields that depend on several keys."""
    more_keys: Callable[[Config], dict[str, Any]] = _nothing
    """The reverse of `more`."""
    dropouts: tuple[tuple[str, str], ...] = (("attention_dropout", "weights_dropout"),)
    """Their keys, and our dropout that each is; written only, since loaded models do not train."""

    def read(self, config: Mapping[str, Any]) -> Config:
        """Our config, given config.json."""
        expect(config, **self.expected)
        values = {**self.fixed, **{name: key.of(config) for name, key in self.keys.items()}}
        values |= self.more(config)
        if self.rope is not None:
            dim = values.get("head_dim") or values["width"] // values["heads"]
            values |= self.rope.read(config, dim, values.get("positions"))
        return Config(**{"kind": "decoder", **values, **marks(config, START, **self.ids)})

    def write(self, config: Config) -> dict[str, Any] | None:
        """config.json of this shape, or None if the family has no such shape."""
        same = {"kind": "decoder", "norm": "layer", **self.fixed}
        if config.kind != same["kind"] or config.norm != same["norm"]:
            return None
        settings: dict[str, Any] = dict(self.expected) | write_marks(config)
        settings |= {
            key.name: key.write(_value_of(config, name)) for name, key in self.keys.items()
        }
        settings |= {theirs: getattr(config, ours) for theirs, ours in self.dropouts}
        if self.rope is not None:
            settings |= self.rope.write(config)
        settings |= self.more_keys(config)
        settings |= {"model_type": self.model_type, "architectures": [self.architecture]}
        # A family has a shape if what it says of it is read as the same.
        try:
            again = self.read(json.loads(json.dumps(settings)))
        except PellucidError:
            return None
        return settings if is_same(config, again) else None


def _value_of(config: Config, name: str) -> Any:
    """The value of a field; of one that is left to another, what it then means."""
    meant: dict[str, Any] = {"kv_heads": config.key_heads, "head_dim": config.dim}
    if config.attention_scale is None:
        meant["attention_scale"] = config.dim**-0.5
    for own in ("qkv_bias", "output_bias", "hidden_bias"):
        value = getattr(config, own)
        meant[own] = config.bias if value is None else value
    return meant.get(name, getattr(config, name))


def layer_windows(
    config: Mapping[str, Any], layers: int, default: list[str], name: str = "sliding_window"
) -> dict[str, Any]:
    """`window` and `window_layers`, of the key `layer_types` or its default for the family."""
    types = config.get("layer_types") or default
    if len(types) != layers:
        raise FileError(f"its config.json has {len(types)} layer_types for {layers} layers")
    slid = tuple(layer for layer, kind in enumerate(types) if kind == "sliding_attention")
    others = set(types) - {"sliding_attention", "full_attention"}
    if others:
        raise FileError(f"its layer_types are {', '.join(sorted(others))}, which are not supported")
    window = config.get(name)
    if window is None or not slid:
        return {"window": None, "window_layers": None}
    return {"window": window, "window_layers": None if len(slid) == layers else slid}


def layer_types(config: Config) -> list[str]:
    """The key `layer_types` of our `window_layers`."""
    windows = [config.window_of(layer) for layer in range(config.layers)]
    return ["full_attention" if window is None else "sliding_attention" for window in windows]
