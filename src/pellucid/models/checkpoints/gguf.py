"""GGUF files as checkpoints: their metadata as a config.json, their tensors under its names.

Each architecture of llama.cpp that has a family here is a row of `ARCHITECTURES`. All else is as
with the files of transformers.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.common import untrusted
from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.layers.packed import Packed
from pellucid.models.checkpoints import gguf_settings
from pellucid.models.checkpoints.gguf_file import GgufFile
from pellucid.text import gguf_vocabularies

_LLAMA_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}
_LLAMA_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "max_position_embeddings": "context_length",
    "rope_theta": "rope.freq_base",
}
_GPT2_NAMES = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.{}.attn_norm": "transformer.h.{}.ln_1",
    "blk.{}.attn_qkv": "transformer.h.{}.attn.c_attn",
    "blk.{}.attn_output": "transformer.h.{}.attn.c_proj",
    "blk.{}.ffn_norm": "transformer.h.{}.ln_2",
    "blk.{}.ffn_up": "transformer.h.{}.mlp.c_fc",
    "blk.{}.ffn_down": "transformer.h.{}.mlp.c_proj",
}
_GPT2_KEYS = {
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_inner": "feed_forward_length",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "n_positions": "context_length",
}


_SANDWICH_NAMES = {
    **_LLAMA_NAMES,
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
_OLMO2_NAMES = {
    name: theirs
    for name, theirs in _SANDWICH_NAMES.items()
    if name not in ("blk.{}.attn_norm", "blk.{}.ffn_norm")
}
_GEMMA2_KEYS = {
    **_LLAMA_KEYS,
    "query_pre_attn_scalar": "attention.key_length",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "sliding_window": "attention.sliding_window",
}
_GEMMA3_KEYS = {
    key: theirs for key, theirs in _GEMMA2_KEYS.items() if key != "attn_logit_softcapping"
} | {"rope_local_base_freq": "rope.freq_base_swa"}
_GRANITE_KEYS = {
    **_LLAMA_KEYS,
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
_STARCODER_NAMES = {
    **_LLAMA_NAMES,
    "blk.{}.ffn_up": "model.layers.{}.mlp.c_fc",
    "blk.{}.ffn_down": "model.layers.{}.mlp.c_proj",
}
_STABLELM_KEYS = {
    **_LLAMA_KEYS,
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "use_parallel_residual": "use_parallel_residual",
}
_EXPERT_KEYS = {**_LLAMA_KEYS, "num_experts_per_tok": "expert_used_count"}


def _expert_names(part: str, gate: str, up: str, down: str) -> dict[str, str]:
    """Modules with experts, of which GGUF has one tensor for each matrix of all."""
    return {
        **_LLAMA_NAMES,
        "blk.{}.ffn_gate_inp": f"model.layers.{{}}.{part}.gate",
        "blk.{}.ffn_gate_exps": f"model.layers.{{}}.{part}.experts.*.{gate}",
        "blk.{}.ffn_up_exps": f"model.layers.{{}}.{part}.experts.*.{up}",
        "blk.{}.ffn_down_exps": f"model.layers.{{}}.{part}.experts.*.{down}",
    }


_FUSED_NAMES = {
    **_LLAMA_NAMES,
    "blk.{}.attn_qkv": "model.layers.{}.self_attn.qkv_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.gate_up_proj",
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture of llama.cpp that has a family here."""

    family: str
    """The model_type of transformers."""
    names: Mapping[str, str] = field(default_factory=lambda: _LLAMA_NAMES)
    """Its modules, and those of the family; {} is a layer."""
    keys: Mapping[str, str] = field(default_factory=lambda: _LLAMA_KEYS)
    """Keys of config.json, and those of the metadata, after the architecture's name."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Keys of config.json whose value the metadata does not have."""
    is_permuted: bool = False
    """Whether rows of query and key are in the order of llama.cpp, whose rotary positions turn
    numbers that are neighbours."""
    is_partly_rotary: bool = False
    """Whether some numbers of a head may have no positions."""
    shifted: float = 0.0
    """How much larger norm weights are than those of the family, which adds it itself."""
    transposed: tuple[str, ...] = ()
    """Endings of the family's modules whose weight is (in, out); GGUF has (out, in)."""


ARCHITECTURES = {
    "llama": Architecture(family="llama", is_permuted=True),
    "qwen2": Architecture(family="qwen2"),
    "qwen3": Architecture(family="qwen3"),
    "qwen3moe": Architecture(
        family="qwen3_moe",
        names=_expert_names("mlp", "gate_proj", "up_proj", "down_proj"),
        keys={
            **_EXPERT_KEYS,
            "num_experts": "expert_count",
            "moe_intermediate_size": "expert_feed_forward_length",
        },
        fixed={"norm_topk_prob": True},
    ),
    "gemma": Architecture(family="gemma", shifted=1.0),
    "gemma2": Architecture(family="gemma2", names=_SANDWICH_NAMES, keys=_GEMMA2_KEYS, shifted=1.0),
    "gemma3": Architecture(
        family="gemma3_text", names=_SANDWICH_NAMES, keys=_GEMMA3_KEYS, shifted=1.0
    ),
    "granite": Architecture(family="granite", keys=_GRANITE_KEYS, is_permuted=True),
    "smollm3": Architecture(family="smollm3", is_permuted=True),
    "starcoder2": Architecture(
        family="starcoder2",
        names=_STARCODER_NAMES,
        keys={**_LLAMA_KEYS, "norm_epsilon": "attention.layer_norm_epsilon"},
    ),
    "stablelm": Architecture(family="stablelm", keys=_STABLELM_KEYS, is_partly_rotary=True),
    "olmo2": Architecture(family="olmo2", names=_OLMO2_NAMES),
    "phi3": Architecture(
        family="phi3",
        names=_FUSED_NAMES,
        keys={**_LLAMA_KEYS, "sliding_window": "attention.sliding_window"},
    ),
    "gpt2": Architecture(
        family="gpt2",
        names=_GPT2_NAMES,
        keys=_GPT2_KEYS,
        transposed=("c_attn", "c_proj", "c_fc"),
    ),
}
MIXTRAL = Architecture(
    family="mixtral",
    names=_expert_names("block_sparse_moe", "w1", "w3", "w2"),
    keys={**_EXPERT_KEYS, "num_local_experts": "expert_count"},
    is_permuted=True,
)
"""What files of the architecture "llama" are that have experts."""
_LARGE_GEMMAS = (("gemma2", 46), ("gemma3", 62))
"""By their layers: the models of 27B alone have another scale of scores."""
_HEADS = "num_attention_heads"
_IGNORED = re.compile(r"^rope_freqs\.weight$|\.attn_rot_embd$")


class GgufTensors:
    """The tensors of a GGUF file under the names of a family of transformers."""

    def __init__(self, file: GgufFile, architecture: Architecture, config: Config) -> None:
        """Map the names.

        Args:
            file: where they are stored.
            architecture: of the file.
            config: what the metadata describe.
        """
        self._file, self._architecture = file, architecture
        self._heads = {"attn_q": config.heads, "attn_k": config.key_heads}
        self._theirs: dict[str, str] = {}
        self._experts: dict[str, int] = {}
        """The number of the expert whose matrix is a part of a tensor."""
        self._last: tuple[str, Tensor] | None = None
        for name in file.tensors:
            if not _IGNORED.search(name):
                own = _renamed(name, architecture.names)
                self._theirs |= dict.fromkeys(self._names_in(own, file.tensors[name].shape), name)
        self.numbers = sum(file.tensors[name].numbers for name in {*self._theirs.values()})

    def _names_in(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """The names of all experts in a tensor (experts, out, in); the name, if it has none."""
        if "*" not in name:
            return [name]
        if len(shape) != 3:
            raise FileError(f"its tensor {name} has {len(shape)} dimensions, not 3")
        names = {name.replace("*", str(number)): number for number in range(shape[0])}
        self._experts |= names
        return list(names)

    def _tensor(self, name: str) -> Tensor:
        """A tensor as it is stored; the last is kept, since experts are asked for in turn."""
        theirs = self._theirs[name]
        if name not in self._experts:
            return self._file.tensor(theirs)
        if self._last is None or self._last[0] != theirs:
            self._last = theirs, self._file.tensor(theirs)
        return self._last[1][self._experts[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._theirs

    def __len__(self) -> int:
        return len(self._theirs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._theirs)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensor(name)
        rows = self._order(name, len(tensor))
        tensor = tensor if rows is None else tensor[rows]
        if self._architecture.shifted and "norm" in name:
            tensor = tensor.float() - self._architecture.shifted
        is_turned = name.removesuffix(".weight").endswith(self._architecture.transposed or "\0")
        return tensor.T if is_turned and name.endswith(".weight") else tensor

    def packed(self, name: str) -> Packed | None:
        """A matrix (out, in) as it is stored; None if it is not packed."""
        packed = self._file.packed(self._theirs[name])
        if packed is None:
            return None
        rows = self._order(name, packed.shape[0])
        return packed if rows is None else packed.rows(rows)

    def _order(self, name: str, rows: int) -> Tensor | None:
        """The rows in the order of transformers; None if they are."""
        module = self._theirs[name].split(".")[-2]
        heads = self._heads.get(module)
        if not self._architecture.is_permuted or heads is None:
            return None
        if rows % (2 * heads):
            raise FileError(f"its tensor {self._theirs[name]} does not divide into {heads} heads")
        return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The family's name of a tensor; its own, which will be unexpected, if there is none."""
    module, _, suffix = name.rpartition(".")
    number = re.search(r"\.(\d+)\.", module)
    pattern = re.sub(r"\.\d+\.", ".{}.", module)
    if pattern not in names:
        return name
    return names[pattern].format(number[1] if number else "") + "." + suffix


def architecture_of(file: GgufFile) -> Architecture:
    """The architecture of a file.

    Raises:
        FileError: it has no family here, or is a part of a model.
    """
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise FileError(f"its architecture is {name!r:.60}; known ones are {known}")
    parts = file.metadata.get("split.count", 0)
    if parts not in (0, 1):
        raise FileError(f"it is one of {parts} parts; join them with llama-gguf-split --merge")
    if file.metadata.get("general.type", "model") != "model":
        raise FileError(f"it is not a model, but of type {file.metadata['general.type']!r:.40}")
    if name == "llama" and file.metadata.get("llama.expert_count"):
        return MIXTRAL
    return ARCHITECTURES[name]


def config_of(file: GgufFile) -> dict[str, Any]:
    """The config.json of transformers that a file's metadata describe.

    Raises:
        FileError: they have a setting that is not supported, or lack one.
    """
    architecture, data = architecture_of(file), file.metadata
    name = data["general.architecture"]
    config: dict[str, Any] = {"model_type": architecture.family, **architecture.fixed}
    for key, theirs in architecture.keys.items():
        value = data.get(f"{name}.{theirs}")
        if value is not None:
            if not isinstance(value, int | float):
                raise FileError(f"its {name}.{theirs} differs between layers, or is not a number")
            config[key] = value
    if (name, config.get("num_hidden_layers")) in _LARGE_GEMMAS:
        config["query_pre_attn_scalar"] = config["hidden_size"] // config[_HEADS]
    if "rope_factors_long.weight" in file.tensors:
        raise FileError("its rotary positions have long and short factors, which is not supported")
    if data.get(f"{name}.expert_count") and "num_experts_per_tok" not in architecture.keys:
        raise FileError("it is a mixture of experts, which is not supported")
    table = file.tensors.get("token_embd.weight")
    if table is None:
        raise FileError("it has no tensor token_embd.weight")
    config["vocab_size"] = table.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    has_bias = {part: f"blk.0.{part}.bias" in file.tensors for part in ("attn_q", "ffn_up")}
    if architecture.family in ("llama", "granite", "smollm3"):
        config["attention_bias"] = has_bias["attn_q"]
        config["mlp_bias"] = has_bias["ffn_up"]
    if architecture.family == "starcoder2":
        config["use_bias"] = has_bias["ffn_up"]
    if architecture.family == "stablelm":
        config["use_qkv_bias"] = has_bias["attn_q"]
        if "blk.0.attn_q_norm.weight" in file.tensors:
            raise FileError("its queries and keys have norms of their own, which is not supported")
    config |= {
        "bos_token_id": data.get(f"{gguf_vocabularies.KEY}bos_token_id"),
        "eos_token_id": gguf_vocabularies.ends_of(data) or None,
        "pad_token_id": data.get(f"{gguf_vocabularies.KEY}padding_token_id"),
    }
    heads = untrusted.whole(config.get(_HEADS, config.get("n_head")), "attention.head_count", 1)
    dim = config.get("head_dim", config.get("hidden_size", config.get("n_embd", 0)) // heads)
    gguf_settings.check_heads(data, name, dim)
    scale = config.get("query_pre_attn_scalar", dim) ** -0.5
    gguf_settings.check(data, name, architecture.keys, scale)
    if "rope_theta" in architecture.keys:
        theta = config.get("rope_theta", 10_000.0)
        local = data.get(f"{name}.rope.freq_base_swa", theta)
        if "rope_local_base_freq" not in architecture.keys and local != theta:
            raise FileError(f"its {name}.rope.freq_base_swa differs from rope.freq_base")
        config |= gguf_settings.rope(file, name, dim, theta, architecture.is_partly_rotary)
    return config
