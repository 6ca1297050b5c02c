"""How a checkpoint wants its texts to be written: generation_config.json, which counts before what
older checkpoints say in config.json.
"""

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
    """What a checkpoint says, under the names of transformers; None where it says nothing.

    A task takes from it what its caller does not say.
    """

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    """Whether a search ends as soon as it has as many texts as beams."""
    forced_bos_token_id: int | None = None
    """The first token after the start, whatever its probability."""
    forced_eos_token_id: int | None = None
    """The last token of a text that has reached its limit."""
    max_length: int | None = None
    """Of a text with its start or prompt."""
    max_new_tokens: int | None = None
    """Of a text without it, which counts before `max_length`."""
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    alignment_heads: tuple[tuple[int, int], ...] | None = None
    """Layers and heads of cross-attention that know where words come from; Whisper's checkpoints
    name theirs so."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Settings that would change the text, and that are not supported here."""


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
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "guidance_scale": (1,),
}
"""Settings that are not supported, and their values (besides null) that have no effect."""


def read(directory: Path, config: Config) -> Generation:
    """The settings of a checkpoint.

    Args:
        directory: of the checkpoint.
        config: of its model.

    Raises:
        FileError: the file cannot be read.
    """
    said = json_in(directory, FILE if (directory / FILE).is_file() else "config.json")
    found: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for one in fields(Generation):
        value = said.get(one.name)
        if value is None or one.name == "others":
            continue
        if one.name == "alignment_heads":
            heads = _alignment_heads(value, config)
            (found if heads else others)[one.name] = heads or value
            continue
        kind: Any = _KINDS[one.type]
        is_so = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        is_so = is_so and abs(value) < 2**62  # nor infinite or NaN
        if is_so and not (one.name.endswith("_id") and not 0 <= value < config.vocabulary):
            found[one.name] = value
        else:
            others[one.name] = value
    for name, plain in _WITHOUT_EFFECT.items():
        value = said.get(name)
        # Padding is never written anyway.
        is_padding = name == "bad_words_ids" and value == [[config.padding]]
        if value is not None and value not in plain and not is_padding:
            others[name] = value
    return Generation(**found, others=others)


def _alignment_heads(said: Any, config: Config) -> tuple[tuple[int, int], ...] | None:
    """What is said, if these heads are there."""
    layers = config.layers if config.decoder_layers is None else config.decoder_layers
    try:
        heads = tuple((range(layers).index(x), range(config.heads).index(y)) for x, y in said)
    except (TypeError, ValueError):
        return None
    return heads if config.kind == "encoder-decoder" else None


def write(directory: Path, generation: Generation, config: Config) -> None:
    """Write the settings, if there are any, with the ids that transformers looks for beside them.

    Those of another model that was saved here before are not left.


    Raises:
        FileError: the directory cannot be written to.
    """
    if generation == Generation() and not (directory / FILE).exists():
        return
    said = {one.name: getattr(generation, one.name) for one in fields(generation)}
    said |= said.pop("others")
    said |= write_marks(config, TARGET_START if config.kind == "encoder-decoder" else START)
    said = {name: value for name, value in said.items() if value is not None}
    write_whole(directory / FILE, json.dumps(said, indent=2) + "\n")
