"""A checkpoint's generation settings: generation_config.json, or config.json in older ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pellucid.common.files import write_whole
from pellucid.common.untrusted import json_in
from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import START, TARGET_START, write_marks

FILE = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Generation settings under the names of transformers; None if the checkpoint sets none.

    Tasks use them as defaults.
    """

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    """Whether beam search stops as soon as it has as many texts as beams."""
    forced_bos_token_id: int | None = None
    """The first token after the start token, whatever its probability."""
    forced_eos_token_id: int | None = None
    """The last token of a text that reaches its maximum length."""
    max_length: int | None = None
    """The maximum length, including the start token or prompt."""
    max_new_tokens: int | None = None
    """The maximum number of new tokens, which takes precedence over `max_length`."""
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    alignment_heads: tuple[tuple[int, int], ...] | None = None
    """(layer, head) of the cross-attention heads that align words, as in Whisper's checkpoints."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Unsupported settings that would change the text."""


_KINDS: dict[Any, Any] = {int | None: int, float | None: int | float, bool | None: bool}
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "encoder_repetition_penalty": (1,),
    "exponential_decay_length_penalty": (),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ([], {}),
    "stop_strings": ([],),
    "num_beam_groups": (1,),
    "diversity_penalty": (0,),
    "force_words_ids": ([],),
    "penalty_alpha": (0,),
    "min_p": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "guidance_scale": (1,),
}
"""Unsupported settings, and their values (besides null) that have no effect."""


def read(directory: Path, config: Config) -> Generation:
    """Read the generation settings of a checkpoint.

    Args:
        directory: the checkpoint.
        config: of its model.

    Raises:
        FileError: the file cannot be read.
    """
    settings = json_in(directory, FILE if (directory / FILE).is_file() else "config.json")
    supported: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, annotation in ((setting.name, setting.type) for setting in fields(Generation)):
        value = settings.get(name)
        if value is None or name == "others":
            continue
        if name == "alignment_heads":
            heads = _alignment_heads(value, config)
            (supported if heads else others)[name] = heads or value
            continue
        kind: Any = _KINDS[annotation]
        is_valid = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        is_valid = is_valid and abs(value) < 2**62  # neither infinite nor NaN
        if is_valid and not (name.endswith("_id") and not 0 <= value < config.vocabulary):
            supported[name] = value
        else:
            others[name] = value
    for name, without_effect in _WITHOUT_EFFECT.items():
        value = settings.get(name)
        # Padding is never generated anyway.
        is_padding = name == "bad_words_ids" and value == [[config.padding]]
        if value is not None and value not in without_effect and not is_padding:
            others[name] = value
    return Generation(**supported, others=others)


def _alignment_heads(value: Any, config: Config) -> tuple[tuple[int, int], ...] | None:
    """The heads that a setting names, if they exist."""
    layers = config.layers if config.decoder_layers is None else config.decoder_layers
    try:
        heads = tuple((range(layers).index(x), range(config.heads).index(y)) for x, y in value)
    except (TypeError, ValueError):
        return None
    return heads if config.kind == "encoder-decoder" else None


def write(directory: Path, generation: Generation, config: Config) -> None:
    """Write the settings and the special token ids, which transformers reads from the same file.

    Without settings, the file is written only to replace that of another model.

    Raises:
        FileError: the directory cannot be written to.
    """
    if generation == Generation() and not (directory / FILE).exists():
        return
    settings = {item.name: getattr(generation, item.name) for item in fields(generation)}
    settings |= settings.pop("others")
    settings |= write_marks(config, TARGET_START if config.kind == "encoder-decoder" else START)
    settings = {name: value for name, value in settings.items() if value is not None}
    write_whole(directory / FILE, json.dumps(settings, indent=2) + "\n")
