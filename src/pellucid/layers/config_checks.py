"""What a `Config` refuses: values of a wrong type or range, and values that do not fit together."""

import math
from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.head_configs import ClassifierConfig, DenseConfig

Pooling = Literal["first", "last", "mean", "root_mean", "weighted_mean", "max"]

_ABOVE_ZERO = (
    *("norm_eps", "rope_theta", "window_theta"),
    *("score_softcap", "logit_softcap", "qkv_clip", "feed_clamp"),
)
_FRACTIONS = ("dropout", "attention_dropout")
_LAYERS = ("window_layers", "rotary_layers", "dense_layers")
_IDS = ("start", "stop", "padding")
_MAY_BE_ZERO = {"experts", "shared_hidden", "types", "position_offset", "decoder_layers"}
_ENCODERS_OWN = ("embedding_width", "causal", "classifier", "dense")
_TYPES: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (int, "an int"),
    float: (int | float, "a number"),
    str: (str, "a str"),
}


def check(config: Any) -> None:
    """Check all fields of a config.

    Raises:
        ArgumentError: sizes that do not fit together, or an unknown choice.
        TypeMismatchError: a value of another type than the field's.
    """
    for field in fields(config):
        _check_field(field.name, getattr(config, field.name), field.type)
    _check_heads(config)
    _check_positions(config)
    _check_ranges(config)
    _check_blocks(config)
    _check_ids(config)
    if config.has_buckets:
        _check_buckets(config)
    if config.kind != "encoder":
        for name in _ENCODERS_OWN:
            if getattr(config, name):
                raise ArgumentError(f"only an encoder has {name}, not a {config.kind}")


def _check_field(name: str, value: Any, kind: Any) -> None:
    """Check the type of one value, and the least of a size."""
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ArgumentError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")
    wanted, may_be_none = _plain_type(kind)
    if wanted is not None and not (may_be_none and value is None):
        types, word = _TYPES[wanted]
        is_flag = isinstance(value, bool) and wanted is not bool  # a bool is an int in Python
        if is_flag or not isinstance(value, types):
            raise TypeMismatchError(f"{name} must be {word}, not {value!r}")
        if wanted is float and not math.isfinite(value):
            raise ArgumentError(f"{name} must be finite, not {value}")
    if name == "classifier" and not isinstance(value, ClassifierConfig | None):
        raise TypeMismatchError(f"classifier must be a ClassifierConfig, not {value!r}")
    if name == "dense" and not _are_all(DenseConfig, value):
        raise TypeMismatchError(f"dense must be a tuple of DenseConfig, not {value!r:.80}")
    if (name == "stop" or (name in _LAYERS and value is not None)) and not (
        isinstance(value, tuple) and all(type(number) is int for number in value)
    ):
        what = "ids" if name == "stop" else "layers"
        raise TypeMismatchError(f"{name} must be a tuple of {what}, not {value!r}")
    if name == "rope_scaling" and not (_are_all(tuple, value) and all(map(_is_pair, value))):
        raise TypeMismatchError(f"rope_scaling must be pairs of name and value, not {value!r}")
    least = 0 if name in _MAY_BE_ZERO else 1
    is_size = wanted is int and name not in _IDS
    if is_size and value is not None and value < least:
        raise ArgumentError(f"{name} must be at least {least}, not {value}")


@cache
def _plain_type(kind: Any) -> tuple[Any, bool]:
    """Which of _TYPES a field has, None for none of them, and whether it may be None instead."""
    for wanted in _TYPES:
        if kind in (wanted, wanted | None):
            return wanted, kind != wanted
    return None, False


def _are_all(kind: type, value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, kind) for item in value)


def _is_pair(value: Any) -> bool:
    return len(value) == 2 and isinstance(value[0], str)


def _check_heads(config: Any) -> None:
    if config.heads % config.key_heads:
        raise ArgumentError(f"heads {config.heads} is not a multiple of kv_heads {config.kv_heads}")
    if config.head_dim is None and config.width % config.heads:
        raise ArgumentError(
            f"width {config.width} does not divide into {config.heads} heads; give head_dim"
        )


def _check_positions(config: Any) -> None:
    if config.position == "rotary" and config.rotated % 2:
        name = "head_dim" if config.rotary_dim is None else "rotary_dim"
        raise ArgumentError(f"rotary positions rotate pairs: {name} {config.rotated} must be even")
    if config.rotated > config.dim:
        raise ArgumentError(f"rotary_dim {config.rotated} is above head_dim {config.dim}")
    if config.position == "sinusoidal" and config.width % 2:
        raise ArgumentError(f"sinusoidal positions need an even width, not {config.width}")
    if config.position == "learned" and config.positions is None:
        raise ArgumentError("learned positions need a number of positions")


def _check_ranges(config: Any) -> None:
    for name in _FRACTIONS:
        if not 0 <= (getattr(config, name) or 0) < 1:
            raise ArgumentError(f"{name} must be in [0, 1), not {getattr(config, name)}")
    for part in config.poolings:
        if part not in get_args(Pooling):
            known = ", ".join(get_args(Pooling))
            raise ArgumentError(f"pooling must be of {known}, joined by +, not {part!r:.80}")
    for name in _ABOVE_ZERO:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ArgumentError(f"{name} must be above 0, not {value}")


def _check_blocks(config: Any) -> None:
    """Settings of a block that only have a meaning together with others."""
    if config.branch_norms != "before" and not config.norm_first:
        raise ArgumentError(f"branch_norms {config.branch_norms!r} needs norm_first")
    if config.parallel and (not config.norm_first or config.branch_norms == "after"):
        raise ArgumentError("parallel needs norm_first, with norms before each part")
    if not config.first_norm and (not config.norm_first or config.shared_blocks):
        raise ArgumentError("first_norm = False needs norm_first, and blocks of their own")
    if config.shared_norm and not config.parallel:
        raise ArgumentError("shared_norm needs parallel")
    if config.experts and config.experts_used > config.experts:
        raise ArgumentError(
            f"experts_used {config.experts_used} is above the number of experts, {config.experts}"
        )
    if not config.gated and (config.feed_clamp is not None or config.up_offset):
        raise ArgumentError("feed_clamp and up_offset need gated")
    most = max(config.layers, config.decoder_layers or 0)
    for name in _LAYERS:
        for layer in getattr(config, name) or ():
            if not 0 <= layer < most:
                raise ArgumentError(f"{name} has layer {layer}, but there are 0 to {most - 1}")


def _check_ids(config: Any) -> None:
    for name in _IDS:
        value = getattr(config, name)
        for token in value if name == "stop" else () if value is None else (value,):
            if not 0 <= token < config.vocabulary:
                raise ArgumentError(
                    f"{name} {token} is not in the vocabulary, 0 to {config.vocabulary - 1}"
                )


def _check_buckets(config: Any) -> None:
    """The first buckets are single distances, and the others grow from there."""
    both_ways = 1 if config.kind == "decoder" else 2  # an encoder also has keys that come later
    if config.relative_buckets < 2 * both_ways:
        raise ArgumentError(
            f"relative_buckets must be at least {2 * both_ways}, not {config.relative_buckets}"
        )
    single = config.relative_buckets // (4 if config.kind == "encoder" else 2)
    if config.relative_distance <= single:
        raise ArgumentError(
            f"relative_distance must be above {single}, since the first {single} of "
            f"{config.relative_buckets} relative_buckets are a distance each, "
            f"not {config.relative_distance}"
        )
