"""Rules on the logits of the next token, as a checkpoint's generation_config.json sets them.

Each is that of the same name in transformers (generation/logits_process.py there says which paper
it is from), applied in the same order: before sampling; and in beam search to log-probabilities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.common.untrusted import finite, whole
from pellucid.errors import ArgumentError

Rule = Callable[[Tensor, list[int], int], None]
"""Changes the logits (vocabulary,) of one text in place, given its ids and how many are its
prompt's."""


def rules_of(settings: Mapping[str, Any], stop: Sequence[int], vocabulary: int) -> list[Rule]:
    """The rules that settings ask for, in the order of transformers.

    Args:
        settings: by their names in generation_config.json; other names are left alone.
        stop: the ids that end a text.
        vocabulary: how many ids there are.

    Raises:
        ArgumentError: a value does not fit.
    """
    rules = []
    for name, make in RULES.items():
        value = settings.get(name)
        if value is not None:
            try:
                rules.append(make(value, list(stop), vocabulary))
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                reason = f"the model's generation_config.json has {name} = {value!r:.80}"
                raise ArgumentError(f"{reason}, which does not fit: {error}") from error
    return rules


def _ids(value: Any, vocabulary: int) -> list[int]:
    if not isinstance(value, list | tuple):
        raise TypeError("it is not a list of ids")
    return [whole(number, "an id", 0, vocabulary - 1) for number in value]


def _sequence_bias(value: Any, stop: list[int], vocabulary: int) -> Rule:
    pairs = value.items() if isinstance(value, Mapping) else value
    biases = [(_ids(list(ids), vocabulary), finite(bias, "a bias")) for ids, bias in pairs]
    return _biased(biases)


def _biased(biases: list[tuple[list[int], float]]) -> Rule:
    """Add a bias to the last token of each sequence, where the text ends with those before it."""
    if not all(ids for ids, _ in biases):
        raise ValueError("a sequence is empty")

    def rule(logits: Tensor, ids: list[int], prompt: int) -> None:
        for (*before, last), bias in biases:
            if len(before) < len(ids) + 1 and ids[len(ids) - len(before) :] == before:
                logits[last] += bias

    return rule


def _bad_words(value: Any, stop: list[int], vocabulary: int) -> Rule:
    words = [_ids(word, vocabulary) for word in value]
    return _biased([(word, -math.inf) for word in words if word not in [[token] for token in stop]])


def _repetition(value: Any, stop: list[int], vocabulary: int) -> Rule:
    penalty = finite(value, "a penalty")
    if penalty <= 0:
        raise ValueError("it must be above 0")

    def rule(logits: Tensor, ids: list[int], prompt: int) -> None:
        seen = sorted(set(ids))
        values = logits[seen]
        logits[seen] = torch.where(values < 0, values * penalty, values / penalty)

    return rule


def _no_repeat(value: Any, stop: list[int], vocabulary: int) -> Rule:
    size = whole(value, "a size")

    def rule(logits: Tensor, ids: list[int], prompt: int) -> None:
        if not size or len(ids) + 1 < size:
            return
        before = ids[len(ids) - size + 1 :]
        for at in range(len(ids) - size + 1):
            if ids[at : at + size - 1] == before:
                logits[ids[at + size - 1]] = -math.inf

    return rule


def _min_length(value: Any, stop: list[int], vocabulary: int) -> Rule:
    least = whole(value, "a length")

    def rule(logits: Tensor, ids: list[int], prompt: int) -> None:
        if len(ids) < least:
            logits[stop] = -math.inf

    return rule


def _min_new(value: Any, stop: list[int], vocabulary: int) -> Rule:
    least = whole(value, "a length")

    def rule(logits: Tensor, ids: list[int], prompt: int) -> None:
        if len(ids) - prompt < least:
            logits[stop] = -math.inf

    return rule


def _decay(value: Any, stop: list[int], vocabulary: int) -> Rule:
    start, factor = whole(value[0], "a start"), finite(value[1], "a factor")

    def rule(logits: Tensor, ids: list[int], prompt: int) -> None:
        past = len(ids) - prompt - start
        if past > 0:
            more = logits[stop].abs() * (factor**past - 1)
            # What another rule forbids stays forbidden; in transformers it becomes NaN.
            logits[stop] += more.where(more.isfinite(), 0.0)

    return rule


def _suppress(value: Any, stop: list[int], vocabulary: int) -> Rule:
    ids = _ids(value, vocabulary)

    def rule(logits: Tensor, text: list[int], prompt: int) -> None:
        logits[ids] = -math.inf

    return rule


def _suppress_first(value: Any, stop: list[int], vocabulary: int) -> Rule:
    ids = _ids(value, vocabulary)

    def rule(logits: Tensor, text: list[int], prompt: int) -> None:
        if len(text) == prompt:
            logits[ids] = -math.inf

    return rule


UNSUPPORTED = (
    *("encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "num_beam_groups"),
    *("diversity_penalty", "force_words_ids", "penalty_alpha", "guidance_scale"),
)
"""Settings that change a text and that no rule here is for."""
RULES: dict[str, Callable[[Any, list[int], int], Rule]] = {
    "sequence_bias": _sequence_bias,
    "repetition_penalty": _repetition,
    "no_repeat_ngram_size": _no_repeat,
    "bad_words_ids": _bad_words,
    "min_length": _min_length,
    "min_new_tokens": _min_new,
    "exponential_decay_length_penalty": _decay,
    "suppress_tokens": _suppress,
    "begin_suppress_tokens": _suppress_first,
}
