"""The classifiers of checkpoints that label texts: transformers' ...ForSequenceClassification."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pellucid.common import untrusted
from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.layers.head_configs import ClassifierConfig
from pellucid.models.checkpoints.family import Family, Names, names_of

ENDING = "ForSequenceClassification"
SCORES = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid"}


def labels_texts(config: Mapping[str, Any]) -> bool:
    """Whether config.json says that the checkpoint has a classifier of texts."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(
        isinstance(name, str) and name.endswith(ENDING) for name in architectures
    )


def is_encoder_alone(config: Mapping[str, Any]) -> bool:
    """Whether config.json says that the checkpoint has only the encoder of an encoder-decoder."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(
        isinstance(name, str) and name.endswith("EncoderModel") for name in architectures
    )


def labelled(config: Mapping[str, Any], **shape: Any) -> ClassifierConfig:
    """The classifier of config.json: its labels, and whether a text has one or several.

    Args:
        config: config.json.
        shape: the other fields of `ClassifierConfig`.
    """
    names = config.get("id2label")
    if names is None:
        most = untrusted.MOST_LABELS
        number = untrusted.whole(config.get("num_labels", 2), "num_labels", 1, most)
        labels = tuple(f"LABEL_{label}" for label in range(number))
    else:
        by_id = {int(label): name for label, name in untrusted.texts(names, "id2label").items()}
        if by_id.keys() != set(range(len(by_id))) or not by_id:
            raise FileError("its config.json has an id2label whose ids are not 0, 1, 2, ...")
        labels = tuple(by_id[label] for label in range(len(by_id)))
    kind = config.get("problem_type")
    if kind is None:  # as transformers decides it
        scores = "softmax" if len(labels) > 1 else "sigmoid"
    else:
        scores = SCORES.get(kind, "none")
    return ClassifierConfig(labels=labels, **{"scores": scores} | shape)


of_last_token = partial(labelled, pooling="last", hidden=False, bias=False)
"""The classifier of decoders: scores of the last token."""


def write_labels(classifier: ClassifierConfig, architecture: str) -> dict[str, Any]:
    """The settings of config.json that describe a classifier, given the class without one."""
    base = re.sub(r"(Model|Encoder|ForCausalLM|LMHeadModel)$", "", architecture)
    kinds = {scores: kind for kind, scores in SCORES.items()} | {"none": "regression"}
    kind = kinds[classifier.scores]
    is_plain = classifier.scores == "sigmoid" and len(classifier.labels) == 1
    return {
        "architectures": [base + ENDING],
        "id2label": {str(number): label for number, label in enumerate(classifier.labels)},
        "label2id": {label: number for number, label in enumerate(classifier.labels)},
        "problem_type": None if is_plain else kind,
    }


# A decoder that embeds or labels texts is an encoder here, a causal one.


def encoder_of(config: Config) -> Config:
    """A decoder's config as that of a causal encoder."""
    return replace(
        config, kind="encoder", causal=True, tied=True, logit_scale=1.0, logit_bias=False
    )


def decoder_of(config: Config) -> Config:
    """The config of the decoder that an encoder is made of, without what only encoders have."""
    alone: dict[str, Any] = {"embedding_width": None, "classifier": None, "dense": ()}
    return replace(config, kind="decoder", causal=False, **alone)


def first_half(config: Config) -> Config:
    """The config of the encoder of an encoder-decoder."""
    return replace(
        config, kind="encoder", decoder_layers=None, tied=True, logit_scale=1.0, logit_bias=False
    )


def with_second_half(config: Config) -> Config:
    """The config of an encoder-decoder with this encoder, without what only encoders have."""
    return replace(decoder_of(config), kind="encoder-decoder")


def family_for(family: Family, config: Config) -> Family:
    """The family; with the names of an encoder, if the config is of one and its models are not."""
    if config.kind == "encoder" and family.encoder:
        return _of_first_half(family)
    if config.kind != "encoder" or "decoder.tokens" not in names_of(family, config):
        return family

    def names(config: Config) -> Names:
        given = names_of(family, decoder_of(config))
        named = {in_encoder(ours): theirs for ours, theirs in given.items()}
        kept = {ours: theirs for ours, theirs in named.items() if ours not in ("head", "bias")}
        return {**kept, "classifier.output": "score"}

    return replace(
        family,
        names=names,
        copies={},
        classifier=of_last_token,
        ignored=rf"{family.ignored}|^(lm_head|embed_out)\.",
    )


def _of_first_half(family: Family) -> Family:
    def names(config: Config) -> Names:
        given = names_of(family, with_second_half(config))
        return {ours: theirs for ours, theirs in given.items() if ours.startswith("encoder.")}

    copies = {
        name: tuple(copy for copy in others if "encoder" in copy)
        for name, others in family.copies.items()
    }
    ignored = rf"{family.ignored}|^(decoder|lm_head)\."
    return replace(family, names=names, copies=copies, ignored=ignored)


def in_encoder(ours: Any) -> Any:
    """Our name of a module of a decoder, or several, in an encoder."""
    if isinstance(ours, tuple):
        return tuple(map(in_encoder, ours))
    return re.sub(r"^decoder\.", "encoder.", ours)
