"""The pooling of an encoder: the files of sentence-transformers, read and written.

modules.json                 Transformer, Pooling and optionally Normalize, with their paths
1_Pooling/config.json        mean pooling, or the first token
sentence_bert_config.json    the maximum number of tokens
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.common.files import reason_of, write_whole
from pellucid.common.untrusted import json_in, json_list_in
from pellucid.common.wording import listing
from pellucid.errors import FileError
from pellucid.layers.config import Config, Pooling

MODULES, LENGTH, TOKENIZER = "modules.json", "sentence_bert_config.json", "tokenizer_config.json"
PROMPTS = "config_sentence_transformers.json"
MODES: dict[str, Pooling] = {"mean": "mean", "cls": "first"}
PARTS = ("Transformer", "Pooling", "Normalize")


def is_embedder(directory: Path) -> bool:
    """Whether sentence-transformers wrote the model."""
    return (directory / MODULES).is_file()


def read(directory: Path, config: Config) -> Config:
    """The config with the pooling of these files, if they exist.

    Raises:
        FileError: they cannot be read, or are not supported by `Config`.
    """
    if config.kind != "encoder" or not is_embedder(directory):
        return config
    parts = {}
    for part in json_list_in(directory, MODULES):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise FileError(f"its {MODULES} is not a list of modules")
        parts[part["type"].rpartition(".")[2]] = str(part.get("path", ""))
    unknown = sorted(parts.keys() - set(PARTS))
    if unknown:
        raise FileError(f"its {MODULES} has {listing(unknown)}; known are {listing(list(PARTS))}")
    if (directory / PROMPTS).is_file():
        name = json_in(directory, PROMPTS).get("default_prompt_name")
        if name is not None:
            raise FileError(
                f"its {PROMPTS} sets default_prompt_name to '{name}', which is not supported"
            )
    if "Pooling" in parts:
        name = str(Path(parts["Pooling"], "config.json"))
        config = replace(config, pooling=_pooling(name, json_in(directory, name)))
    most = _most_tokens(directory)
    if most is not None and config.positions is not None and most >= config.positions:
        most = None  # the positions are the limit
    return replace(config, normalised="Normalize" in parts, most_tokens=most)


def write(directory: Path, config: Config) -> None:
    """Write these files for an encoder.

    Raises:
        FileError: the directory cannot be written to.
    """
    if config.kind != "encoder":
        return
    names = PARTS if config.normalised else PARTS[:2]
    modules = []
    for number, name in enumerate(names):
        path = f"{number}_{name}" if number else ""
        kind = f"sentence_transformers.models.{name}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": kind})
    pooling = {
        "word_embedding_dimension": config.width,
        "pooling_mode_cls_token": config.pooling == "first",
        "pooling_mode_mean_tokens": config.pooling == "mean",
    }
    length = {"max_seq_length": config.longest, "do_lower_case": False}
    try:
        (directory / "1_Pooling").mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error
    for file, value in (("1_Pooling/config.json", pooling), (LENGTH, length), (MODULES, modules)):
        write_whole(directory / file, json.dumps(value, indent=2) + "\n")


def _pooling(name: str, settings: Mapping[str, Any]) -> Pooling:
    modes = settings.get("pooling_mode")
    if modes is None:  # older versions have a flag per mode
        flags = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
        modes = [
            flags.get(flag, flag)
            for flag, is_on in settings.items()
            if flag.startswith("pooling_mode_") and is_on is True
        ]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in MODES:
        raise FileError(f"its {name} pools by {modes}; known are {listing(list(MODES))}")
    return MODES[modes[0]]


def _most_tokens(directory: Path) -> int | None:
    """The limit of sentence-transformers, or else that of the tokenizer, if any."""
    for name, key in ((LENGTH, "max_seq_length"), (TOKENIZER, "model_max_length")):
        if (directory / name).is_file():
            settings = json_in(directory, name)
            if name == LENGTH and settings.get("do_lower_case"):
                raise FileError(f"its {name} has do_lower_case = true; only false is supported")
            most = settings.get(key)
            # transformers writes 1e30 for a tokenizer without a limit.
            if isinstance(most, int | float) and 0 < most < 2**31:
                return int(most)
    return None
