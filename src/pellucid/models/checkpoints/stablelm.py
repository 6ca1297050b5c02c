"""StableLM (Bellagente et al. 2024, "Stable LM 2")."""

from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.llama import BLOCK, LAYER, NAMES
from pellucid.models.checkpoints.llama_like import LAYER_NORM, family, keys
from pellucid.models.checkpoints.rope import Rope

STABLELM = Description(
    model_type="stablelm",
    architecture="StableLmForCausalLM",
    fixed={
        **LAYER_NORM,
        "gated": True,
        "bias": False,
        "output_bias": False,
    },
    keys={
        **keys(positions=4096, tied=False, eps=1e-5, eps_key="layer_norm_eps", kv_heads=32),
        "qkv_bias": Key("use_qkv_bias", False),
        "head_norm": Key("qk_layernorm", False),
        "head_norm_kind": Key(
            "qk_layernorm",
            False,
            lambda has_norm: "own" if has_norm else "shared",
            lambda kind: kind == "own",
        ),
        "parallel": Key("use_parallel_residual", False),
        "shared_norm": Key("use_parallel_residual", False),
    },
    rope=Rope(part=0.25),
    ids={"bos_token_id": 0, "eos_token_id": 0},
)
FAMILY = family(
    STABLELM,
    NAMES
    | {
        BLOCK + "attention.query_norm": LAYER + "self_attn.q_layernorm.norms.*",
        BLOCK + "attention.key_norm": LAYER + "self_attn.k_layernorm.norms.*",
    },
)
