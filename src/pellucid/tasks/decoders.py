"""Decoders to generate with: opening them, and what their generation_config.json asks for."""

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from pellucid import pretrained
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models import Decoder, EncoderDecoder, load
from pellucid.tasks.logit_rules import UNSUPPORTED, Rule, rules_of
from pellucid.tasks.sampling import Sampling
from pellucid.text.stream_decoder import Unfolding

Ends = Callable[[tuple[int, ...]], bool]
"""Whether a text, of ids after a prompt, has reached its end."""
CUTS = ("min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Settings of sampling besides temperature, top_k and top_p."""
TOP_K = 50
"""Tokens that transformers samples from where a checkpoint does not say."""


def rules_of_model(model: Decoder, penalty: float = 1.0) -> tuple[list[Rule], list[str]]:
    """What the model's generation_config.json asks for: rules, and strings that end a text.

    Args:
        model: the decoder.
        penalty: a repetition penalty that is one of the rules.

    Raises:
        ArgumentError: a setting does not fit.
    """
    settings = model.generation.others
    unsupported = {name: settings[name] for name in UNSUPPORTED if name in settings}
    if unsupported:
        named = listing([f"{name} = {value}" for name, value in sorted(unsupported.items())])
        warnings.warn(
            f"the model's generation_config.json sets {named}, which generation does not support",
            stacklevel=3,
        )
    strings = settings.get("stop_strings") or []
    strings = [strings] if isinstance(strings, str) else strings
    are_texts = isinstance(strings, list) and all(
        isinstance(text, str) and text for text in strings
    )
    if not are_texts:
        raise ArgumentError(f"the model's stop_strings are {strings!r:.80}, not texts")
    penalised = {} if penalty == 1 else {"repetition_penalty": penalty}
    rules = rules_of({**settings, **penalised}, model.config.stop, model.config.vocabulary)
    return rules, strings if model.tokenizer is not None else []


def ends_of(model: Decoder, stop: Sequence[str]) -> tuple[list[int], list[str]]:
    """Special tokens among the strings that end a text, as ids; and the other strings.

    Raises:
        ArgumentError: a string has a special token and more; the text that strings are looked for
            in has no special tokens.
    """
    ends, strings = [], []
    for string in stop:
        ids = [] if model.tokenizer is None else model.tokenizer.encode([string], special=False)[0]
        special = set() if model.tokenizer is None else set(model.tokenizer.all_special_ids)
        if len(ids) == 1 and ids[0] in special:
            ends.append(ids[0])
        elif special.intersection(ids):
            raise ArgumentError(
                f"stop {string!r} has a special token and other text; give the token alone"
            )
        else:
            strings.append(string)
    return ends, strings


def stopping(model: Decoder, prompt: Sequence[int], strings: Sequence[str]) -> "Ends | None":
    """Tells where beams end at strings, if there are any."""
    if not strings or model.tokenizer is None:
        return None
    known: dict[tuple[int, ...], Unfolding] = {(): Unfolding(model.tokenizer, prompt, strings)}

    def ends(ids: tuple[int, ...]) -> bool:
        text = copy(known[ids[:-1]])
        text.add(ids[-1])
        known[ids] = text
        return text.is_stopped

    return ends


def penalty_of(model: Decoder) -> float:
    """The repetition penalty in the model's generation_config.json, or 1."""
    penalty = model.generation.repetition_penalty
    return 1.0 if penalty is None else penalty


def sampling_of(model: Decoder) -> Sampling:
    """How the model's generation_config.json says that tokens are chosen: greedily, unless
    `do_sample` is true; then as transformers samples, from the likeliest 50 if it does not say.

    Raises:
        ArgumentError: a setting is out of range.
    """
    settings = model.generation
    penalty = penalty_of(model)
    if not settings.do_sample:
        return Sampling(temperature=0, repetition_penalty=penalty)
    top_k = TOP_K if settings.top_k is None else settings.top_k
    given: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        **{name: settings.others.get(name) for name in CUTS},
    }
    try:
        return Sampling(
            top_k=top_k or None,
            repetition_penalty=penalty,
            **{name: value for name, value in given.items() if value is not None},
        )
    except (ArgumentError, TypeMismatchError) as error:
        raise ArgumentError(f"the model's generation_config.json does not fit: {error}") from error


def open_writer(path: str | Path = pretrained.DECODER) -> Decoder:
    """Load a decoder with its tokenizer: Pellucid's own, GPT-2 or Llama, for example.

    Quantised weights stay packed.

    Args:
        path: as for `pellucid.load`.

    Raises:
        FileError: the model does not exist or cannot be loaded.
        TypeMismatchError: the model is not a decoder.
        ArgumentError: the model has no tokenizer.
        MissingExtraError: an extra that loading needs is not installed.
    """
    model = as_decoder(load(path, packed=True))
    if model.tokenizer is None:
        raise ArgumentError(f"model '{path}' has no tokenizer")
    return model


def as_decoder(model: Any) -> Decoder:
    """The model, if it is a decoder.

    Raises:
        TypeMismatchError: it is not.
    """
    if isinstance(model, EncoderDecoder):
        raise TypeMismatchError(
            "model must be a Decoder, not an EncoderDecoder; use pellucid translate for that"
        )
    if not isinstance(model, Decoder):
        raise TypeMismatchError(f"model must be a Decoder, not {type(model).__name__}")
    return model
