"""Settings of a GGUF file that change what its model computes: applied, or refused.

What a key means is llama.cpp's (ggml/docs/gguf.md), and so is what it means that one is missing.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from pellucid.common import untrusted
from pellucid.errors import FileError
from pellucid.models.checkpoints.gguf_file import GgufFile

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.shared_kv_layers": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_gating_func": (0, 1),  # softmax
    "expert_weights_scale": (0, 1),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "rope.scaling.alpha": (0,),
    "rope.scaling.attn_factor": (1,),
    "router_logit_softcapping": (0,),
    "use_parallel_residual": (False,),
}
"""Keys, after the architecture's name, and their values that change nothing."""
OF_A_HEAD = ("key_length", "value_length", "key_length_swa", "value_length_swa")
CLOSE = 1e-4
"""The relative difference of two numbers that are the same, once stored in float32."""


def check(data: Mapping[str, Any], name: str, read: Mapping[str, str], scale: float) -> None:
    """Refuse settings that would change the result, if nothing here applies them.

    Args:
        data: the metadata.
        name: of the architecture.
        read: keys of config.json, and those of the metadata that they are read from.
        scale: of the scores, in the model as it is read.

    Raises:
        FileError: there is one.
    """
    for key, values in NEUTRAL.items():
        value = data.get(f"{name}.{key}", values[0])
        if key not in read.values() and value not in values:
            raise FileError(f"its {name}.{key} is {value!r:.40}, which is not supported")
    stored_scale = data.get(f"{name}.attention.scale", 0)
    if "attention.scale" not in read.values() and stored_scale != 0:
        untrusted.finite(stored_scale, f"{name}.attention.scale")
        if not math.isclose(stored_scale, scale, rel_tol=CLOSE):
            raise FileError(
                f"its {name}.attention.scale is {stored_scale:.6g}, not {scale:.6g}, which is "
                "not supported"
            )


def check_heads(data: Mapping[str, Any], name: str, dim: int) -> None:
    """Refuse heads whose queries, keys and values are not of one size.

    Args:
        data: the metadata.
        name: of the architecture.
        dim: the numbers of a head.

    Raises:
        FileError: they are not.
    """
    for part in OF_A_HEAD:
        size = data.get(f"{name}.attention.{part}", dim)
        if size != dim:
            raise FileError(
                f"its {name}.attention.{part} is {size!r:.40}, but a head has {dim} numbers"
            )


def rope(file: GgufFile, name: str, dim: int, theta: float, in_part: bool) -> dict[str, Any]:
    """The rotary positions as keys of config.json: which part they turn, and their scaling.

    Args:
        file: with the metadata.
        name: of the architecture.
        dim: the numbers of a head.
        theta: the base of the frequencies.
        in_part: whether some numbers of a head may have no positions.

    Raises:
        FileError: they are scaled, or turn a part of a head, in a way that is not supported.
    """
    data = file.metadata
    config: dict[str, Any] = {}
    turned = untrusted.whole(
        data.get(f"{name}.rope.dimension_count", dim), "rope.dimension_count", 1
    )
    if in_part:
        config = {"partial_rotary_factor": turned / dim}
    elif turned != dim:
        raise FileError(f"only {turned} of the {dim} numbers of a head have rotary positions")
    if data.get(f"{name}.rope.dimension_count_swa", turned) != turned:
        raise FileError("its layers with a window turn another part of a head")
    kind, factor = _scaling(data, name)
    has_frequencies = "rope_freqs.weight" in file.tensors
    if has_frequencies and (in_part or factor != 1):
        raise FileError("its rope_freqs.weight is not that of Llama 3, which is not supported")
    if has_frequencies:
        return {**config, "rope_scaling": _llama3(file, theta, dim)}
    if factor != 1:
        config["rope_scaling"] = {"rope_type": kind, "factor": factor}
    return config


def _scaling(data: Mapping[str, Any], name: str) -> tuple[str, float]:
    """The kind and the factor of the scaling; a factor of 1 is none.

    Files without a kind are "linear", if they have a factor, which older ones have under another
    name; a factor of 0 is that of files without one.
    """
    kind = data.get(f"{name}.rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise FileError(f"its rotary positions are scaled by {kind!r:.40}, which is not supported")
    key = f"{name}.rope.scaling.factor"
    key = key if key in data else f"{name}.rope.scale_linear"
    factor = untrusted.finite(data.get(key, 0), key)
    if factor < 0:
        raise FileError(f"its {key} is {factor:g}, which is below 0")
    return kind, 1.0 if kind == "none" or factor == 0 else factor


def _llama3(file: GgufFile, theta: float, dim: int) -> dict[str, Any]:
    """The scaling of Llama 3.1 and later, of which a file has only what each frequency becomes."""
    from pellucid.layers.rotary import Rotary

    factors = file.tensor("rope_freqs.weight").float().flatten()
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = Rotary(dim, theta).frequencies / Rotary(dim, theta, scaling).frequencies
    if factors.shape != expected.shape or not torch.allclose(factors, expected, rtol=1e-3):
        raise FileError("its rope_freqs.weight is not that of Llama 3, which is not supported")
    return scaling
