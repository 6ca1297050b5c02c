"""How a family of checkpoints is described: what its config means, and what its tensors are called.

A family is one file here: `read` makes our `Config` of its config.json, `write` the other way
round, and `names` pairs our modules with its own. Everything else is done for all in one place.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from torch import Tensor, nn

from pellucid.errors import FileError
from pellucid.layers.config import Activation, Config, Kind

Names = Mapping[Any, str]
"""Our module (several, where theirs is one, stacked) to their module; {} is a layer's number."""


class Shaped(Protocol):
    """A model, as far as its checkpoint's tensors depend on it."""

    config: Config

    @property
    def kind(self) -> Kind: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of checkpoint that transformers writes."""

    types: tuple[str, ...]
    """What config.json may give as model_type."""
    read: Callable[[Mapping[str, Any]], Config]
    """Raises FileError for what a `Config` cannot say."""
    write: Callable[[Config], dict[str, Any] | None]
    """The config.json of this shape; None where the family has no such shape."""
    names: Names | Callable[[Config], Names]
    prefix: str = ""
    """Before all names but those in `outside`, in checkpoints that have a head."""
    outside: tuple[str, ...] = ("lm_head", "final_logits_bias")
    transposed: tuple[str, ...] = ()
    """Ends of their modules whose weight is (in, out)."""
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Their tensors, and the names under which some checkpoints have the same ones; each is written
    once."""
    untied: tuple[str, ...] = ()
    """Copies that are written too where the output has weights of its own: transformers then takes
    each of them for one of its own, and draws what is not there."""
    rows: tuple[str, ...] = ()
    """Their tensors of shape (1, n) that are ours of shape (n)."""
    ignored: str = r"$^"
    """A regular expression: tensors that no model here needs."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of theirs belongs."""

    theirs: str
    ours: tuple[str, ...]
    is_transposed: bool


def names_of(family: Family, config: Config) -> Names:
    return family.names(config) if callable(family.names) else family.names


def places(family: Family, model: Shaped) -> Iterator[Place]:
    """Each tensor that a checkpoint of this model has, and the parameters it is made of.

    Parameters that no name stands for go without saying: their own name is used.
    """
    own = dict(model.named_parameters())  # one that is shared by two modules comes once
    done: set[str] = set()
    for ours, theirs in names_of(family, model.config).items():
        group = (ours,) if isinstance(ours, str) else ours
        first = re.compile(re.escape(group[0]).replace(r"\{\}", r"(\d+)") + r"(\.\w+)?")
        for name in own:
            match = first.fullmatch(name)
            if match is None:
                continue
            *number, suffix = match.groups(default="")
            mine = tuple(one.format(*number) + suffix for one in group)
            their = theirs.format(*number)
            if not their.startswith(family.outside):
                their = family.prefix + their
            is_transposed = suffix == ".weight" and theirs.endswith(family.transposed or ("\0",))
            done.update(mine)
            yield Place(their + suffix, mine, is_transposed)
    for name in own.keys() - done:
        yield Place(name, (name,), False)


def of_theirs(tensor: Tensor, place: Place, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Our tensors, taken out of theirs."""
    if place.is_transposed:
        tensor = tensor.T
    if len(shapes) == 1:
        return [tensor.reshape(shapes[0])]
    return list(tensor.split([shape[0] for shape in shapes]))


_ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}


def activation(name: str) -> Activation:
    """Ours, by their name."""
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise FileError(f"its activation is {name!r}; known are {known}")
    return _ACTIVATIONS[name]


def activation_name(ours: Activation) -> str:
    """Theirs, by our name."""
    return {"gelu_tanh": "gelu_new"}.get(ours, ours)


def expect(config: Mapping[str, Any], **values: Any) -> None:
    """Refuse a config that says something else; what it does not say is as expected.

    Raises:
        FileError: naming what is not supported.
    """
    for name, value in values.items():
        given = config.get(name, value)
        if given != value:
            raise FileError(f"its config.json has {name} = {given!r}; only {value!r} is known")


START, TARGET_START = "bos_token_id", "decoder_start_token_id"


def marks(config: Mapping[str, Any], start: str = START, **defaults: int) -> dict[str, Any]:
    """Fields of `Config`: the ids that begin, end and fill up a text.

    Args:
        config: config.json.
        start: what it calls the first of them.
        defaults: what the family means by those that are not in it, where there is such an id.
    """
    known = {name: one for name, one in defaults.items() if one < config["vocab_size"]}
    config = {**known, **config}
    stop = config.get("eos_token_id")  # one id, or several, or none
    stops = () if stop is None else (stop,) if isinstance(stop, int) else tuple(stop)
    return {"start": config.get(start), "stop": stops, "padding": config.get("pad_token_id")}


def write_marks(config: Config, start: str = START) -> dict[str, Any]:
    """The same as config.json writes them."""
    stop = config.stop[0] if len(config.stop) == 1 else list(config.stop) or None
    return {start: config.start, "eos_token_id": stop, "pad_token_id": config.padding}


def shape_of(config: Config, says: str = "", **wanted: Any) -> bool:
    """Whether a family can say this config: no part of it would get lost.

    Args:
        config: to be written.
        says: names of fields that may have any value, besides those that every family can say.
        wanted: fields that must have this value. All others must have that of `Config` itself, so
            that a field which comes later is refused until a family knows it.
    """
    plain, free = _plain(config), {*_SAID_BY_ALL, *says.split()}
    for one in fields(config):
        if one.name in free:
            continue
        if getattr(plain, one.name) != wanted.get(one.name, one.default):
            return False
    return True


_SAID_BY_ALL = (
    *("vocabulary", "width", "layers", "heads", "hidden", "norm_eps", "activation"),
    *(
        "dropout",
        "attention_dropout",
        "pooling",
        "normalised",
        "most_tokens",
        "start",
        "stop",
        "padding",
    ),
)
_ONLY_WITH = {
    "sinusoidal": ("interleaved",),
    "learned": ("position_offset",),
    "rotary": ("rope_theta", "rope_scaling"),
    "relative": ("relative_buckets", "relative_distance"),
}
_ONLY_WITH_LOGITS = ("tied", "logit_scale", "logit_bias", "window")


def _plain(config: Config) -> Config:
    """The same model, with each field that makes no difference as `Config` itself has it."""
    same = {
        "head_dim": config.head_dim == config.width / config.heads,
        "kv_heads": config.kv_heads == config.heads,
        "qkv_bias": config.qkv_bias == config.bias,
        "output_bias": config.output_bias == config.bias,
        "attention_scale": config.attention_scale == config.dim**-0.5,
        "decoder_layers": config.kind != "encoder-decoder"
        or config.decoder_layers == config.layers,
    }
    for position, names in _ONLY_WITH.items():
        same |= dict.fromkeys(names, config.position != position)
    same |= dict.fromkeys(_ONLY_WITH_LOGITS, config.kind == "encoder")
    defaults: dict[str, Any] = {one.name: one.default for one in fields(config)}
    return replace(config, **{name: defaults[name] for name, is_same in same.items() if is_same})
