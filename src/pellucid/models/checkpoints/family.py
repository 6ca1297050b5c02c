"""The description of a family of checkpoints: its config and the names of its tensors.

Each family has a file here: `read` turns its config.json into our `Config`, `write` does the
reverse, and `names` maps our modules to its own. Everything else is shared.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pellucid.errors import FileError
from pellucid.layers.config import Activation, Config, Kind
from pellucid.layers.head_configs import ClassifierConfig

Names = Mapping[Any, str]
"""Our module, or a tuple of modules stacked into one of theirs, to their module; {} is a layer, and
* the number of one of several tensors that are stacked into one of ours."""


class Shaped(Protocol):
    """The part of a model that the tensors of its checkpoint depend on."""

    config: Config

    @property
    def kind(self) -> Kind: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of checkpoint that transformers writes."""

    types: tuple[str, ...]
    """The values of model_type in config.json."""
    read: Callable[[Mapping[str, Any]], Config]
    """Converts config.json; raises FileError for settings that `Config` does not support."""
    write: Callable[[Config], dict[str, Any] | None]
    """The config.json of an architecture; None if the family does not support it."""
    names: Names | Callable[[Config], Names]
    prefix: str = ""
    """The prefix of all tensors except those in `outside`, in checkpoints with a head."""
    outside: tuple[str, ...] = ("lm_head", "final_logits_bias", "classifier", "score")
    transposed: tuple[str, ...] = ()
    """Suffixes of their modules whose weight is (in, out), or (experts, in, out)."""
    groups: Mapping[str, Callable[[Config], int]] = field(default_factory=dict)
    """Suffixes of their modules that hold several of ours in turns, and the number of turns: one
    for each head, if a row of each query, key and value head follows the others."""
    stacked: tuple[str, ...] = ()
    """Suffixes of their modules that hold several of ours for each expert."""
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Their tensors, and other names of the same tensor in some checkpoints; only the first name
    is written."""
    untied: tuple[str, ...] = ()
    """Copies that are written as well if the output has weights of its own, since transformers
    would otherwise initialise them at random."""
    rows: tuple[str, ...] = ()
    """Their tensors of shape (1, n) that are (n,) here."""
    ignored: str = r"$^"
    """A regular expression of tensors that the models here do not need."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Regular expressions of parts of names in some checkpoints, and what these are called here."""
    older: tuple[Names, ...] = ()
    """Other names of all tensors, in checkpoints that were written by other code."""
    encoder: str = ""
    """Of encoder-decoders whose encoder is used alone, the class of transformers for that."""
    classifier: Callable[[Mapping[str, Any]], ClassifierConfig] | None = None
    """Converts the config.json of a model that labels texts; None if the family has none."""


@dataclass(frozen=True, slots=True)
class Place:
    """The name of one of their tensors, and our parameters in it."""

    theirs: str
    ours: tuple[str, ...]
    is_transposed: bool = False
    groups: int = 1
    """In how many turns theirs has the rows of ours."""
    axis: int = 0
    """Of the rows; 1 if experts come before."""


def names_of(family: Family, config: Config) -> Names:
    return family.names(config) if callable(family.names) else family.names


def places(family: Family, model: Shaped) -> Iterator[Place]:
    """Each tensor of a checkpoint of this model, with the parameters that it holds.

    Parameters that `names` does not mention keep their own name.
    """
    own = dict(model.named_parameters())  # a shared parameter occurs once
    done: set[str] = set()
    for ours, theirs in names_of(family, model.config).items():
        group = (ours,) if isinstance(ours, str) else ours
        first = re.compile(re.escape(group[0]).replace(r"\{\}", r"(\d+)") + r"(\.\w+)?")
        for name in own:
            match = first.fullmatch(name)
            if match is None:
                continue
            *number, suffix = match.groups(default="")
            mine = tuple(module.format(*number) + suffix for module in group)
            their = theirs.format(*number)
            if not their.startswith(family.outside):
                their = family.prefix + their
            is_transposed = mine[0].endswith(".weight") and theirs.endswith(family.transposed)
            turns = (of for end, of in family.groups.items() if theirs.endswith(end))
            groups = next(turns, lambda _: 1)(model.config)
            axis = int(theirs.endswith(family.stacked))
            done.update(mine)
            yield Place(their + suffix, mine, is_transposed, groups, axis)
    for name in own.keys() - done:
        yield Place(name, (name,))


def of_theirs(tensor: Tensor, place: Place, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Our tensors, split out of one of theirs."""
    if place.is_transposed:
        tensor = tensor.mT
    if len(shapes) == 1:
        return [tensor.reshape(shapes[0])]
    axis, groups = place.axis, place.groups
    turns = tensor.unflatten(axis, (groups, -1))
    parts = turns.split([shape[axis] // groups for shape in shapes], axis + 1)
    return [part.flatten(axis, axis + 1) for part in parts]


def to_theirs(parts: list[Tensor], place: Place) -> Tensor:
    """Their tensor, put together from ours."""
    whole = parts[0]
    if len(parts) > 1:
        axis = place.axis
        turns = [part.unflatten(axis, (place.groups, -1)) for part in parts]
        whole = torch.cat(turns, axis + 1).flatten(axis, axis + 1)
    return whole.mT if place.is_transposed else whole


_ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "quick_gelu": "quick_gelu",
    "relu2": "relu_squared",
}


def activation(name: str) -> Activation:
    """Our name of an activation, given theirs."""
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise FileError(f"its activation is {name!r}; known are {known}")
    return _ACTIVATIONS[name]


def activation_name(ours: Activation) -> str:
    """Their name of an activation, given ours."""
    return {"gelu_tanh": "gelu_new", "relu_squared": "relu2"}.get(ours, ours)


def expect(config: Mapping[str, Any], **values: Any) -> None:
    """Refuse a config with other values; missing keys are accepted.

    Raises:
        FileError: a value is not supported.
    """
    for name, expected in values.items():
        actual = config.get(name, expected)
        if actual != expected:
            raise FileError(
                f"its config.json has {name} = {actual!r}; only {expected!r} is supported"
            )


START, TARGET_START = "bos_token_id", "decoder_start_token_id"


def marks(
    config: Mapping[str, Any], start: str = START, **defaults: int | list[int]
) -> dict[str, Any]:
    """The start, stop and padding ids, as fields of `Config`.

    Args:
        config: config.json.
        start: the key of the start id.
        defaults: the family's default ids; those outside the vocabulary are ignored.
    """
    valid = {
        name: number
        for name, number in defaults.items()
        if all(
            token < config["vocab_size"] for token in (number if type(number) is list else [number])
        )
    }
    config = {**valid, **config}
    stop = config.get("eos_token_id")  # one id, a list, or None
    stops = () if stop is None else (stop,) if isinstance(stop, int) else tuple(stop)
    return {"start": config.get(start), "stop": stops, "padding": config.get("pad_token_id")}


def write_marks(config: Config, start: str = START) -> dict[str, Any]:
    """The start, stop and padding ids, as config.json has them."""
    stop = config.stop[0] if len(config.stop) == 1 else list(config.stop) or None
    return {start: config.start, "eos_token_id": stop, "pad_token_id": config.padding}


def shape_of(config: Config, says: str = "", **wanted: Any) -> bool:
    """Whether a family can express this config without loss.

    Args:
        config: the config to write.
        says: names of fields that may have any value, besides those that every family expresses.
        wanted: fields that must have this value. All others must have their default, so that a
            field added to `Config` later is refused until a family supports it.
    """
    plain, free = _plain(config), {*_IN_ALL_FAMILIES, *says.split()}
    return all(
        field.name in free or getattr(plain, field.name) == wanted.get(field.name, field.default)
        for field in fields(config)
    )


def is_same(config: Config, other: Config) -> bool:
    """Whether two configs are of the same model, but for what matters only in training or tasks."""
    plain, others = _plain(config), _plain(other)
    return all(
        field.name in _OF_TASKS or getattr(plain, field.name) == getattr(others, field.name)
        for field in fields(config)
    )


_OF_TASKS = (
    *("dropout", "attention_dropout", "pooling", "dense", "normalised", "truncated", "most_tokens"),
    *("classifier", "start", "stop", "padding"),
)
_IN_ALL_FAMILIES = (
    *("vocabulary", "width", "layers", "heads", "hidden", "norm_eps", "activation"),
    *_OF_TASKS,
)
_ONLY_WITH = {
    "sinusoidal": ("interleaved", "inclusive"),
    "rotary": (
        *("rope_theta", "rope_scaling", "rotary_dim", "rotary_pairs", "rotary_layers"),
        "window_theta",
    ),
}
_RELATIVE = ("relative_buckets", "relative_distance", "relative_each")
_ONLY_WITH_LOGITS = ("tied", "logit_scale", "logit_bias", "logit_softcap")


def _plain(config: Config) -> Config:
    """The config with every field that has no effect set to its default."""
    every = tuple(range(config.layers))
    of_experts = ("experts_used", "experts_normalised", "shared_hidden", "dense_layers")
    same = {
        "norm_bias": config.norm == "rms" or not config.norm_weight,
        "norm_offset": not config.norm_weight,
        "head_norm_kind": not config.head_norm,
        "window_layers": config.window is None or config.window_layers == every,
        "rotary_dim": config.rotary_dim == config.dim,
        "rotary_layers": config.rotary_layers == every,
        "window_theta": config.window is None
        or (config.window_theta == config.rope_theta and not config.rope_scaling),
        "head_dim": config.head_dim == config.width / config.heads,
        "kv_heads": config.kv_heads == config.heads,
        "qkv_bias": config.qkv_bias == config.bias,
        "output_bias": config.output_bias == config.bias,
        "hidden_bias": config.hidden_bias == config.bias,
        "attention_scale": config.attention_scale == config.dim**-0.5,
        "decoder_layers": config.kind != "encoder-decoder"
        or config.decoder_layers == config.layers,
    }
    same |= dict.fromkeys(of_experts, not config.experts)
    same["expert_hidden"] = not config.experts or config.expert_hidden == config.hidden
    same["position_offset"] = config.position not in ("learned", "sinusoidal")
    for position, names in _ONLY_WITH.items():
        for name in names:
            same[name] = same.get(name, False) or config.position != position
    same |= dict.fromkeys(_RELATIVE, not config.has_buckets)
    same |= dict.fromkeys(_ONLY_WITH_LOGITS, config.kind == "encoder")
    defaults: dict[str, Any] = {field.name: field.default for field in fields(config)}
    return replace(config, **{name: defaults[name] for name, is_same in same.items() if is_same})
