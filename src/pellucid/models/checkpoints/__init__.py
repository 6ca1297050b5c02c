"""Checkpoints of model families that transformers knows: reading and writing.

One file per family translates its config and maps its tensor names; see docs/add-a-family.md. Only
safetensors are read, and no code of a checkpoint is run.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.untrusted import json_in
from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.layers.head_configs import ClassifierConfig, DenseConfig
from pellucid.models.checkpoints import (
    bart,
    bart_relatives,
    bert,
    decoders,
    distilbert,
    generation,
    gpt2,
    llama,
    modernbert,
    mpnet,
    narrow_bert,
    prenorm_bert,
    rotary_bert,
    t5,
)
from pellucid.models.checkpoints.classifying import (
    decoder_of,
    encoder_of,
    family_for,
    first_half,
    is_encoder_alone,
    labels_texts,
    with_second_half,
    write_labels,
)
from pellucid.models.checkpoints.family import Family

FAMILIES = (
    bert.FAMILY,
    bert.ROBERTA_FAMILY,
    distilbert.FAMILY,
    mpnet.FAMILY,
    *narrow_bert.FAMILIES,
    *prenorm_bert.FAMILIES,
    *rotary_bert.FAMILIES,
    *modernbert.FAMILIES,
    gpt2.FAMILY,
    llama.FAMILY,
    t5.FAMILY,
    *bart.FAMILIES,
    *bart_relatives.FAMILIES,
    *decoders.FAMILIES,
)
OWN = "pellucid"
"""The model_type of an architecture that no family has; in the config.json of a family, the key of
our own config."""
IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
UNUSED = ("bos_token_id", "eos_token_id")
"""Those that a model may name without having them, as long as nothing needs them."""
NO_ID = -1
"""The value that some checkpoints give an id that does not exist, such as Llama 1's padding."""
UNFIT = "its config.json has a value that does not fit"
ANY_NAMES = Family(types=(OWN,), read=lambda config: _own(config), write=lambda _: None, names={})


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether Pellucid wrote a config.json."""
    return OWN in config or config.get("model_type") == OWN


def read_config(directory: Path, embeds: bool = False) -> tuple[Config, Family]:
    """Read config.json, and the special token ids of generation_config.json.

    Args:
        directory: of the two files.
        embeds: whether the model, even if it is a decoder, embeds texts.

    Raises:
        FileError: config.json is missing, not JSON, of an unknown family, or not supported by
            `Config`.
    """
    config = json_in(directory, "config.json")
    file = directory / generation.FILE
    settings = json_in(directory, file.name) if file.is_file() else {}
    return understood(config, settings, embeds=embeds)


def understood(
    config: dict[str, Any], settings: Mapping[str, Any], unfit: str = UNFIT, embeds: bool = False
) -> tuple[Config, Family]:
    """The architecture that the content of a config.json describes, and its family.

    Args:
        config: of config.json, or the same from another kind of file.
        settings: of generation_config.json.
        unfit: the message about a value that does not fit.
        embeds: whether the model, even if it is a decoder, embeds texts.

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
            read, family = _own_of(config, family)
            if read is None:
                read = family.read(_with_ids(config, settings))
                read = _as_used(read, family, config, embeds)
        except KeyError as error:
            raise FileError(f"its config.json has no {error}") from error
    return read, family_for(family, read)


def _as_used(config: Config, family: Family, settings: Mapping[str, Any], embeds: bool) -> Config:
    """The config with its classifier; of an encoder, if the decoder embeds or labels texts."""
    labels = labels_texts(settings)
    if family.encoder and (embeds or is_encoder_alone(settings)):
        return first_half(config)
    if config.kind == "decoder" and (labels or embeds):
        config = encoder_of(config)
    family = family_for(family, config)
    if not labels or family.classifier is None:
        return config
    return replace(config, classifier=family.classifier(settings))


def described(config: Config) -> tuple[dict[str, Any], Family] | None:
    """The config.json of an architecture and the family of its names; None if no family has it."""
    for family in FAMILIES:
        settings = _family_config(config, family)
        if settings is not None:
            return settings, family_for(family, config)
    return None


def _family_config(config: Config, family: Family) -> dict[str, Any] | None:
    """The config.json of a family; None if it does not have this architecture."""
    if (config.causal or family.encoder) and config.embedding_width is not None:
        return None
    whole = decoder_of(config) if config.causal else config
    if family.encoder and config.kind == "encoder":
        whole = with_second_half(config)
    settings = family.write(whole)
    family = family_for(family, config)
    if settings is None or (config.classifier and family.classifier is None):
        return None
    if config.classifier is not None:
        settings |= write_labels(config.classifier, settings["architectures"][0])
        if family.classifier is None or family.classifier(settings) != config.classifier:
            return None
    elif family.encoder and config.kind == "encoder":
        settings["architectures"] = [family.encoder]
    elif config.causal:
        base = settings["architectures"][0].removesuffix("ForCausalLM").removesuffix("LMHeadModel")
        settings["architectures"] = [base + "Model"]
    return settings


def _with_ids(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the ids of generation_config.json, which take precedence in transformers."""
    merged = config | {name: settings[name] for name in IDS if settings.get(name) is not None}
    merged |= {name: None for name in IDS if merged.get(name) == NO_ID}
    return merged | {
        name: _valid_ids(name, merged) for name in UNUSED if merged.get(name) is not None
    }


def _valid_ids(name: str, config: Mapping[str, Any]) -> Any:
    """The special ids under a key, without those that the vocabulary does not have."""
    ids, size = config[name], config.get("vocab_size")
    if type(size) is not int:
        return ids
    wrong = [
        number for number in (ids if isinstance(ids, list) else [ids]) if _is_above(number, size)
    ]
    if not wrong:
        return ids
    warnings.warn(
        f"the model's {name} {', '.join(map(str, wrong))} is left out, since its vocabulary is "
        f"0 to {size - 1:,}",
        stacklevel=2,
    )
    return [number for number in ids if number not in wrong] if isinstance(ids, list) else None


def _is_above(number: Any, size: int) -> bool:
    return type(number) is int and number >= size


def _own_of(config: Mapping[str, Any], family: Family) -> tuple[Config | None, Family]:
    """Our own config, stored beside the family's, unless the latter has been edited since; and the
    family of the names.
    """
    if OWN not in config:
        return None, family
    own = _own(config[OWN])
    theirs = _family_config(own, family)
    if theirs is None:  # earlier versions wrote encoders as model_type "llama"
        return own, ANY_NAMES
    is_same = json.loads(json.dumps(theirs)).items() <= config.items()
    return own if is_same else None, family


def _own(config: Mapping[str, Any]) -> Config:
    values = {
        name: _with_tuples(value)
        for name, value in config.items()
        if name in Config.__annotations__
    }
    if isinstance(values.get("dense"), tuple):
        values["dense"] = tuple(DenseConfig(**layer) for layer in values["dense"])
    if values.get("classifier") is not None:
        classifier = values["classifier"]
        values["classifier"] = ClassifierConfig(
            **{**classifier, "labels": tuple(classifier["labels"])}
        )
    return Config(**values)


def _with_tuples(value: Any) -> Any:
    """A value from JSON, its lists as tuples."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
