"""Granite (Granite Team 2024), whose multipliers come from muP (Yang et al. 2022)."""

from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, RMS, family, keys
from pellucid.models.checkpoints.rope import Rope

MULTIPLIERS = {
    "embedding_scale": Key("embedding_multiplier", 1.0),
    "attention_scale": Key("attention_multiplier", 1.0),
    "residual_scale": Key("residual_multiplier", 1.0),
    "logit_scale": Key("logits_scaling", 1.0, lambda by: 1 / by, lambda scale: round(1 / scale, 9)),
}
GRANITE = Description(
    model_type="granite",
    architecture="GraniteForCausalLM",
    fixed=RMS,
    keys={
        **keys(positions=2048, tied=False),
        **ATTENTION_BIAS,
        **MULTIPLIERS,
        "head_dim": Key("head_dim", None),
        "bias": Key("mlp_bias", False),
    },
    rope=Rope(part_key=None),
    ids={"bos_token_id": 1, "eos_token_id": 2},
)
FAMILY = family(GRANITE)
