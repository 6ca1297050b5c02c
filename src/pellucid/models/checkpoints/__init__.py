"""Checkpoints of model families that transformers knows: reading and writing.

One file per family translates its config and maps its tensor names; see docs/add-a-family.md. Only
safetensors are read, and no code of a checkpoint is run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.untrusted import json_in
from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.models.checkpoints import (
    bart,
    bert,
    blenderbot,
    generation,
    gpt2,
    llama,
    m2m_100,
    marian,
    mbart,
    pegasus,
    t5,
)
from pellucid.models.checkpoints.family import Family

FAMILIES = (
    bert.FAMILY,
    bert.ROBERTA_FAMILY,
    gpt2.FAMILY,
    llama.FAMILY,
    t5.FAMILY,
    bart.FAMILY,
    marian.FAMILY,
    mbart.FAMILY,
    m2m_100.FAMILY,
    pegasus.FAMILY,
    blenderbot.FAMILY,
)
OWN = "pellucid"
"""The model_type of an architecture that no family has; in the config.json of a family, the key of
our own config."""
IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
NO_ID = -1
"""The value that some checkpoints give an id that does not exist, such as Llama 1's padding."""
UNFIT = "its config.json has a value that does not fit"
ANY_NAMES = Family(types=(OWN,), read=lambda config: _own(config), write=lambda _: None, names={})


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether Pellucid wrote a config.json."""
    return OWN in config or config.get("model_type") == OWN


def read_config(directory: Path) -> tuple[Config, Family]:
    """Read config.json, and the special token ids of generation_config.json.

    Raises:
        FileError: config.json is missing, not JSON, of an unknown family, or not supported by
            `Config`.
    """
    config = json_in(directory, "config.json")
    file = directory / generation.FILE
    return understood(config, json_in(directory, file.name) if file.is_file() else {})


def understood(
    config: dict[str, Any], settings: Mapping[str, Any], unfit: str = UNFIT
) -> tuple[Config, Family]:
    """The architecture that the content of a config.json describes, and its family.

    Args:
        config: of config.json, or the same from another kind of file.
        settings: of generation_config.json.
        unfit: the message about a value that does not fit.

    Raises:
        FileError: the family is unknown, or a setting is not supported by `Config`.
    """
    kind = config.get("model_type")
    if config.get("quantization_config"):
        raise FileError("its config.json says that its weights are quantised; use the original")
    families = {name: family for family in (*FAMILIES, ANY_NAMES) for name in family.types}
    if not isinstance(kind, str) or kind not in families:
        known = ", ".join(name for name in families if name != OWN)
        raise FileError(f"its config.json has model_type {kind!r}; known families are {known}")
    family = families[kind]
    with untrusted.guarded(unfit):
        try:
            return _own_of(config, family) or family.read(_with_ids(config, settings)), family
        except KeyError as error:
            raise FileError(f"its config.json has no {error}") from error


def _with_ids(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the ids of generation_config.json, which take precedence in transformers."""
    merged = config | {name: settings[name] for name in IDS if settings.get(name) is not None}
    return merged | {name: None for name in IDS if merged.get(name) == NO_ID}


def _own_of(config: Mapping[str, Any], family: Family) -> Config | None:
    """Our own config, stored beside the family's, unless the latter has been edited since."""
    if OWN not in config:
        return None
    own = _own(config[OWN])
    theirs = family.write(own)
    if theirs is None:  # earlier versions wrote encoders as model_type "llama"
        return own
    return own if theirs.items() <= config.items() else None


def _own(config: Mapping[str, Any]) -> Config:
    values = {name: value for name, value in config.items() if name in Config.__annotations__}
    for name in ("stop", "rope_scaling"):
        if name in values:
            values[name] = tuple(tuple(x) if isinstance(x, list) else x for x in values[name])
    return Config(**values)
