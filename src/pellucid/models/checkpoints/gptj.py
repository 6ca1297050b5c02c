"""GPT-J (Wang and Komatsuzaki 2021) and CodeGen (Nijkamp et al. 2022)."""

from dataclasses import replace

from pellucid.models.checkpoints.description import Description, Key, activated
from pellucid.models.checkpoints.family import Family
from pellucid.models.checkpoints.llama_like import LAYER_NORM, QKV

BLOCK, LAYER = "decoder.blocks.{}.", "h.{}."
NAMES = {
    "decoder.tokens": "wte",
    BLOCK + "attention.query": LAYER + "attn.q_proj",
    BLOCK + "attention.key": LAYER + "attn.k_proj",
    BLOCK + "attention.value": LAYER + "attn.v_proj",
    BLOCK + "attention.output": LAYER + "attn.out_proj",
    BLOCK + "attention_norm": LAYER + "ln_1",
    BLOCK + "feed_forward.up": LAYER + "mlp.fc_in",
    BLOCK + "feed_forward.down": LAYER + "mlp.fc_out",
    "decoder.final_norm": "ln_f",
    "head": "lm_head",
    "bias": "lm_head.bias",
}
GPTJ = Description(
    model_type="gptj",
    architecture="GPTJForCausalLM",
    fixed={
        **LAYER_NORM,
        "parallel": True,
        "shared_norm": True,
        "qkv_bias": False,
        "output_bias": False,
        "rotary_pairs": "neighbours",
        "logit_bias": True,
    },
    keys={
        "vocabulary": Key("vocab_size"),
        "width": Key("n_embd"),
        "layers": Key("n_layer"),
        "heads": Key("n_head"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "activation": activated("activation_function", "gelu_new"),
        "positions": Key("n_positions", 2048),
        "rotary_dim": Key("rotary_dim", 64),
        "tied": Key("tie_word_embeddings", False),
    },
    ids={"bos_token_id": 50_256, "eos_token_id": 50_256},
    more=lambda config: {"hidden": config.get("n_inner") or 4 * config["n_embd"]},
    more_keys=lambda config: {"n_inner": config.hidden},
    dropouts=(
        ("attn_pdrop", "weights_dropout"),
        ("resid_pdrop", "dropout"),
        ("embd_pdrop", "dropout"),
    ),
)
CODEGEN = replace(GPTJ, model_type="codegen", architecture="CodeGenForCausalLM")
FAMILY = Family(
    types=("gptj",),
    read=GPTJ.read,
    write=GPTJ.write,
    names=NAMES,
    prefix="transformer.",
    copies={"transformer.wte.weight": ("lm_head.weight",)},
    ignored=r"\.attn\.(bias|masked_bias|embed_positions)$|^score\.",
)
CODEGEN_FAMILY = replace(
    FAMILY,
    types=("codegen",),
    read=CODEGEN.read,
    write=CODEGEN.write,
    names={QKV[::2] + QKV[1:2]: LAYER + "attn.qkv_proj"}
    | {ours: theirs for ours, theirs in NAMES.items() if ours not in QKV},
    groups={"qkv_proj": lambda config: 4},  # the cores of the TPU that it was trained on
    ignored=r"\.attn\.(causal_mask|embed_positions)$|^score\.",
)
