"""GPT-NeoX (Black et al. 2022), and Pythia (Biderman et al. 2023)."""

from pellucid.models.checkpoints.description import Description, Key
from pellucid.models.checkpoints.family import Family
from pellucid.models.checkpoints.llama_like import LAYER_NORM, QKV, keys
from pellucid.models.checkpoints.rope import Rope

BLOCK, LAYER = "decoder.blocks.{}.", "layers.{}."
NAMES = {
    "decoder.tokens": "embed_in",
    QKV: LAYER + "attention.query_key_value",
    BLOCK + "attention.output": LAYER + "attention.dense",
    BLOCK + "attention_norm": LAYER + "input_layernorm",
    BLOCK + "feed_forward.up": LAYER + "mlp.dense_h_to_4h",
    BLOCK + "feed_forward.down": LAYER + "mlp.dense_4h_to_h",
    BLOCK + "feed_forward_norm": LAYER + "post_attention_layernorm",
    "decoder.final_norm": "final_layer_norm",
    "head": "embed_out",
}
_KEYS = keys(positions=2048, tied=False, eps=1e-5, eps_key="layer_norm_eps", act="gelu")
NEOX = Description(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    fixed=LAYER_NORM,
    keys={name: key for name, key in _KEYS.items() if name != "kv_heads"}
    | {
        "qkv_bias": Key("attention_bias", True),
        "output_bias": Key("attention_bias", True),
        "parallel": Key("use_parallel_residual", True),
    },
    rope=Rope(theta_key="rotary_emb_base", part=0.25, part_key="rotary_pct"),
    ids={"bos_token_id": 0, "eos_token_id": 2},
)
FAMILY = Family(
    types=("gpt_neox",),
    read=NEOX.read,
    write=NEOX.write,
    names=NAMES,
    prefix="gpt_neox.",
    outside=("embed_out",),
    groups={"query_key_value": lambda config: config.heads},
    copies={"gpt_neox.embed_in.weight": ("embed_out.weight",)},
    ignored=r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$|^score\.",
)
