"""GLM 4 (GLM Team 2024), and its later version with norms of outputs (GLM-4-0414, 2025)."""

from dataclasses import replace
from typing import Any

from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.llama import BLOCK, LAYER, NAMES
from pellucid.models.checkpoints.llama_like import GATE_AND_UP, RMS, family, keys
from pellucid.models.checkpoints.rope import Rope

GLM = Description(
    model_type="glm",
    architecture="GlmForCausalLM",
    fixed={**RMS, "bias": False, "output_bias": False, "rotary_pairs": "neighbours"},
    keys={
        **keys(positions=131_072, tied=False, eps=1.5625e-7, kv_heads=2),
        "head_dim": Key("head_dim", 128),
        "qkv_bias": Key("attention_bias", True),
    },
    rope=Rope(part=0.5),
    ids={"pad_token_id": 151_329, "eos_token_id": [151_329, 151_336, 151_338]},
)
GLM_4 = replace(
    GLM,
    model_type="glm4",
    architecture="Glm4ForCausalLM",
    fixed={**GLM.fixed, "branch_norms": "both"},
)
GLM_NAMES: dict[Any, str] = {
    **{ours: theirs for ours, theirs in NAMES.items() if ours not in GATE_AND_UP},
    GATE_AND_UP: LAYER + "mlp.gate_up_proj",
}
OUTPUT_NORMS = {
    BLOCK + "attention_output_norm": LAYER + "post_self_attn_layernorm",
    BLOCK + "feed_forward_output_norm": LAYER + "post_mlp_layernorm",
}
FAMILIES = (family(GLM, GLM_NAMES), family(GLM_4, {**GLM_NAMES, **OUTPUT_NORMS}))
