"""The embedding of a text: the files of sentence-transformers, read and written.

modules.json                         Transformer, Pooling, Dense and Normalize, with their paths
1_Pooling/config.json                how the tokens of a text become one vector
2_Dense/config.json                  a linear layer; its weights are in model.safetensors beside it
sentence_bert_config.json            the maximum number of tokens
config_sentence_transformers.json    prompts, which come before each text

The transformer's files are in the directory itself, or in older models in its 0_Transformer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import reason_of, write_whole
from pellucid.common.untrusted import json_in, json_list_in
from pellucid.common.wording import listing
from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.layers.head_configs import DenseConfig

MODULES, TOKENIZER = "modules.json", "tokenizer_config.json"
LENGTHS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
LENGTH, *OLDER_LENGTHS = (f"sentence_{name}_config.json" for name in LENGTHS)
PROMPTS = "config_sentence_transformers.json"
MODES = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "root_mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""Their names of poolings and ours, in the order in which older versions join them."""
PARTS = ("Transformer", "Pooling", "Dense", "Normalize")
OLDER = ("BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa", "MPNet")
"""Older names of a Transformer."""
ACTIVATIONS = {"Tanh": "tanh", "Identity": "none", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}
"""torch's classes, and our names."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Text that comes before each text to embed, as the model was trained."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """By name, such as "query" and "document"."""
    default: str | None = None
    """The name of the one that is used unless another is asked for."""
    pooled: bool = True
    """Whether the tokens of a prompt count in the embedding."""


@dataclass(frozen=True)
class Part:
    """A module of modules.json."""

    kind: str
    path: str


def is_embedder(directory: Path) -> bool:
    """Whether sentence-transformers wrote the model."""
    return (directory / MODULES).is_file()


def parts(directory: Path) -> list[Part]:
    """The modules of a model, in their order; none without modules.json.

    Raises:
        FileError: modules.json cannot be read, or has modules that are not known here.
    """
    if not is_embedder(directory):
        return []
    modules = []
    for part in json_list_in(directory, MODULES):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise FileError(f"its {MODULES} is not a list of modules")
        kind = part["type"].rpartition(".")[2]
        kind = "Transformer" if kind in OLDER else kind
        modules.append(Part(kind, str(part.get("path", ""))))
    kinds = [part.kind for part in modules]
    unknown = sorted(set(kinds) - set(PARTS))
    if unknown:
        raise FileError(f"its {MODULES} has {listing(unknown)}; known are {listing(list(PARTS))}")
    order = sorted(kinds, key=PARTS.index)
    if kinds != order or any(kinds.count(kind) > 1 for kind in PARTS if kind != "Dense"):
        raise FileError(f"its {MODULES} has {listing(kinds)}, which is not supported in this order")
    return modules


def root(directory: Path) -> Path:
    """The directory of the transformer's own files.

    Raises:
        FileError: modules.json cannot be read, or names another directory than one of the model.
    """
    paths = [part.path for part in parts(directory) if part.kind == "Transformer"]
    return untrusted.inside(directory, paths[0], MODULES) if paths and paths[0] else directory


def read(directory: Path, config: Config) -> Config:
    """The config with what these files say, if they exist.

    Raises:
        FileError: they cannot be read, or are not supported by `Config`.
    """
    if config.kind != "encoder" or not is_embedder(directory):
        return config
    modules, config = parts(directory), replace(config, dense=())
    for part in modules:
        name = str(Path(part.path, "config.json"))
        if part.kind == "Pooling":
            config = replace(config, pooling=_pooling(name, json_in(directory, name)))
        elif part.kind == "Dense":
            with untrusted.guarded(f"its {name} has a value that does not fit"):
                layer = _dense(name, json_in(directory, name))
            config = replace(config, dense=(*config.dense, layer))
    most = _most_tokens(root(directory))
    if most is not None and config.positions is not None and most >= config.positions:
        most = None  # the positions are the limit
    normalised = any(part.kind == "Normalize" for part in modules)
    cut = _settings(directory).get("truncate_dim")
    with untrusted.guarded(f"its {PROMPTS} has a value that does not fit"):
        cut = None if cut is None else untrusted.whole(cut, "truncate_dim", 1)
        return replace(config, normalised=normalised, most_tokens=most, truncated=cut)


def prompts(directory: Path) -> Prompts:
    """The prompts of a model.

    Raises:
        FileError: they cannot be read, or the default is not one of them.
    """
    stored = _settings(directory)
    with untrusted.guarded(f"its {PROMPTS} has a value that does not fit"):
        # Newer versions write null for prompts that a model does not have.
        known = {
            name: text for name, text in (stored.get("prompts") or {}).items() if text is not None
        }
        texts, default = untrusted.texts(known, "prompts"), stored.get("default_prompt_name")
        if default is not None and untrusted.text(default, "default_prompt_name") not in texts:
            raise FileError(f"its {PROMPTS} has no prompt '{default}', its default_prompt_name")
    pooled = True
    for part in parts(directory):
        if part.kind == "Pooling":
            settings = json_in(directory, str(Path(part.path, "config.json")))
            pooled = settings.get("include_prompt", True) is not False
    return Prompts(texts=texts, default=default, pooled=pooled)


def dense_directories(directory: Path) -> list[Path]:
    """Where the weights of the linear layers are.

    Raises:
        FileError: modules.json cannot be read, or names a directory outside.
    """
    return [
        untrusted.inside(directory, part.path, MODULES)
        for part in parts(directory)
        if part.kind == "Dense"
    ]


def is_lowercase(directory: Path) -> bool:
    """Whether texts are lowercased, whatever the tokenizer does."""
    file = _length_file(root(directory))
    return file is not None and json_in(root(directory), file).get("do_lower_case") is True


def write(directory: Path, config: Config, prompts: Prompts) -> None:
    """Write these files for an encoder, but for weights.

    Raises:
        FileError: the directory cannot be written to.
    """
    if config.kind != "encoder":
        return
    theirs = {ours: name for name, ours in MODES.items()}
    modes = [theirs[mode] for mode in config.poolings]
    pooling: dict[str, Any] = {
        "word_embedding_dimension": config.width,
        "pooling_mode_cls_token": modes == ["cls"],
        "pooling_mode_mean_tokens": modes == ["mean"],
    }
    if modes not in (["cls"], ["mean"]):
        pooling = {"embedding_dimension": config.width, "pooling_mode": modes}
    if not prompts.pooled:
        pooling["include_prompt"] = False
    files: dict[str, Any] = {
        "1_Pooling/config.json": pooling,
        LENGTH: {"max_seq_length": config.longest, "do_lower_case": False},
    }
    names, width = ["", "1_Pooling"], len(modes) * config.width
    for number, layer in enumerate(config.dense, 2):
        names.append(f"{number}_Dense")
        files[f"{names[-1]}/config.json"] = _dense_settings(layer, width)
        width = layer.width
    names += [f"{len(names)}_Normalize"] * config.normalised
    settings: dict[str, Any] = {
        "prompts": dict(prompts.texts),
        "default_prompt_name": prompts.default,
    }
    settings |= {} if config.truncated is None else {"truncate_dim": config.truncated}
    if prompts.texts or config.truncated is not None or (directory / PROMPTS).exists():
        files[PROMPTS] = settings
    modules = []
    for number, path in enumerate(names):
        kind = f"sentence_transformers.models.{path.partition('_')[2] or 'Transformer'}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": kind})
    for file, value in (files | {MODULES: modules}).items():
        try:
            (directory / file).parent.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error
        write_whole(directory / file, json.dumps(value, indent=2) + "\n")


def _settings(directory: Path) -> dict[str, Any]:
    return json_in(directory, PROMPTS) if (directory / PROMPTS).is_file() else {}


def _pooling(name: str, settings: Mapping[str, Any]) -> str:
    modes = settings.get("pooling_mode")
    if modes is None:  # older versions have a flag per mode
        flags = {f"pooling_mode_{mode.removesuffix('_tokens')}_tokens": mode for mode in MODES}
        flags |= {"pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "lasttoken"}
        on = {
            flags.get(flag, flag)
            for flag, is_on in settings.items()
            if flag.startswith("pooling_mode_") and is_on is True
        }
        modes = [mode for mode in MODES if mode in on] + sorted(on - MODES.keys())
        modes = modes or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or any(mode not in MODES for mode in modes):
        raise FileError(f"its {name} pools by {modes}; known are {listing(list(MODES))}")
    return "+".join(MODES[mode] for mode in modes)


def _dense(name: str, settings: Mapping[str, Any]) -> DenseConfig:
    inputs = (settings.get("module_input_name"), settings.get("module_output_name"))
    if settings.get("use_residual") or any(x not in (None, "sentence_embedding") for x in inputs):
        raise FileError(f"its {name} has a Dense that is not on the embedding alone")
    path = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = path.rpartition(".")[2]
    if not path.startswith("torch.nn.") or kind not in ACTIVATIONS:
        known = listing(list(ACTIVATIONS))
        raise FileError(f"its {name} has the activation {path!r:.100}; known are {known}")
    return DenseConfig(
        width=untrusted.whole(settings["out_features"], "out_features", 1),
        activation=ACTIVATIONS[kind],  # type: ignore[arg-type]
        bias=untrusted.flag(settings.get("bias", True), "bias"),
    )


def _dense_settings(layer: DenseConfig, width: int) -> dict[str, Any]:
    classes = {ours: name for name, ours in ACTIVATIONS.items()} | {"gelu_tanh": "GELU"}
    module = "linear" if layer.activation == "none" else "activation"
    return {
        "in_features": width,
        "out_features": layer.width,
        "bias": layer.bias,
        "activation_function": f"torch.nn.modules.{module}.{classes[layer.activation]}",
    }


def _length_file(directory: Path) -> str | None:
    names = (LENGTH, *OLDER_LENGTHS)
    return next((name for name in names if (directory / name).is_file()), None)


def _most_tokens(directory: Path) -> int | None:
    """The limit of sentence-transformers, or else that of the tokenizer, if any."""
    for name, key in ((_length_file(directory), "max_seq_length"), (TOKENIZER, "model_max_length")):
        if name is not None and (directory / name).is_file():
            most = json_in(directory, name).get(key)
            # transformers writes 1e30 for a tokenizer without a limit.
            if isinstance(most, int | float) and 0 < most < 2**31:
                return int(most)
    return None
