"""Phi 1, 1.5 and 2 (Li et al. 2023), Phi 3 and Phi 4 (Abdin et al. 2024)."""

from collections.abc import Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.llama import BLOCK, LAYER, NAMES
from pellucid.models.checkpoints.llama_like import FUSED_NAMES, LAYER_NORM, RMS, family, keys
from pellucid.models.checkpoints.rope import ORIGINAL, Rope

PHI_NAMES = {
    **NAMES,
    BLOCK + "attention.output": LAYER + "self_attn.dense",
    BLOCK + "attention.query_norm": LAYER + "self_attn.q_layernorm",
    BLOCK + "attention.key_norm": LAYER + "self_attn.k_layernorm",
    BLOCK + "feed_forward.up": LAYER + "mlp.fc1",
    BLOCK + "feed_forward.down": LAYER + "mlp.fc2",
    "decoder.final_norm": "final_layernorm",
    "bias": "lm_head.bias",
}
PHI = Description(
    model_type="phi",
    architecture="PhiForCausalLM",
    fixed={**LAYER_NORM, "parallel": True, "shared_norm": True, "logit_bias": True},
    keys={
        **keys(positions=2048, tied=False, eps=1e-5, eps_key="layer_norm_eps", act="gelu_new"),
        "head_norm": Key("qk_layernorm", False),
    },
    rope=Rope(part=0.5),
    ids={"bos_token_id": 1, "eos_token_id": 2},
)


def _length(config: Config) -> dict[str, Any]:
    """The length in pretraining, which Phi 3 says beside the scaling."""
    length = dict(config.rope_scaling).get(ORIGINAL)
    return {} if length is None else {ORIGINAL: length}


class _Rope(Rope):
    """Of Phi 3: the length in pretraining has a default."""

    def read(self, config: Mapping[str, Any], dim: int, positions: int | None) -> dict[str, Any]:
        return super().read({ORIGINAL: 4096, **config}, dim, positions)


PHI_3 = Description(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    fixed={**RMS, "bias": False},
    keys={
        **keys(positions=4096, tied=False, eps=1e-5),
        "window": Key("sliding_window", None),
    },
    rope=_Rope(renamed={"su": "longrope", "yarn": "longrope"}),
    ids={"bos_token_id": 1, "eos_token_id": 32_000, "pad_token_id": 32_000},
    more_keys=_length,
)
FAMILIES = (family(PHI, PHI_NAMES), family(PHI_3, FUSED_NAMES))
