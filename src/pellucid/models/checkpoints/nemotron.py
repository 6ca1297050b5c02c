"""Nemotron-4 and Minitron (Parmar et al. 2024; Muralidharan et al. 2024)."""

from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.llama_like import ATTENTION_BIAS, LAYER_NORM, family, keys
from pellucid.models.checkpoints.rope import Rope

NEMOTRON = Description(
    model_type="nemotron",
    architecture="NemotronForCausalLM",
    fixed={**LAYER_NORM, "norm_offset": True},
    keys={
        **keys(positions=4096, tied=False, eps=1e-5, eps_key="norm_eps", act="relu2"),
        **ATTENTION_BIAS,
        "head_dim": Key("head_dim", None),
        "bias": Key("mlp_bias", False),
    },
    rope=Rope(part=0.5),
    ids={"bos_token_id": 2, "eos_token_id": 3},
)
FAMILY = family(NEMOTRON)
