"""StarCoder (Li et al. 2023), with SantaCoder, and StarCoder 2 (Lozhkov et al. 2024)."""

from pellucid.models.checkpoints.description import Description, Key, activated
from pellucid.models.checkpoints.family import Family
from pellucid.models.checkpoints.gpt2 import NAMES as GPT2_NAMES
from pellucid.models.checkpoints.llama import BLOCK, LAYER, NAMES
from pellucid.models.checkpoints.llama_like import LAYER_NORM, family, keys
from pellucid.models.checkpoints.rope import Rope

BIGCODE = Description(
    model_type="gpt_bigcode",
    architecture="GPTBigCodeForCausalLM",
    fixed={"norm": "layer", "norm_first": True, "position": "learned"},
    keys={
        "vocabulary": Key("vocab_size"),
        "width": Key("n_embd"),
        "layers": Key("n_layer"),
        "heads": Key("n_head"),
        "kv_heads": Key(
            "multi_query", True, lambda is_one: 1 if is_one else None, lambda heads: heads == 1
        ),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "activation": activated("activation_function", "gelu_pytorch_tanh"),
        "positions": Key("n_positions", 1024),
        "attention_scale": Key(
            "scale_attn_weights",
            True,
            lambda is_scaled: None if is_scaled else 1.0,
            lambda scale: scale != 1.0,
        ),
        "tied": Key("tie_word_embeddings", True),
    },
    ids={"bos_token_id": 50_256, "eos_token_id": 50_256},
    expected={"add_cross_attention": False},
    more=lambda config: {"hidden": config.get("n_inner") or 4 * config["n_embd"]},
    more_keys=lambda config: {"n_inner": config.hidden},
    dropouts=(
        ("attn_pdrop", "weights_dropout"),
        ("resid_pdrop", "dropout"),
        ("embd_pdrop", "dropout"),
    ),
)
STARCODER_2 = Description(
    model_type="starcoder2",
    architecture="Starcoder2ForCausalLM",
    fixed=LAYER_NORM,
    keys={
        **keys(
            positions=4096,
            tied=True,
            eps=1e-5,
            eps_key="norm_epsilon",
            kv_heads=2,
            act="gelu_pytorch_tanh",
        ),
        "bias": Key("use_bias", True),
        "window": Key("sliding_window", None),
    },
    rope=Rope(part_key=None),
    ids={"bos_token_id": 50_256, "eos_token_id": 50_256},
)
FAMILIES = (
    Family(
        types=("gpt_bigcode",),
        read=BIGCODE.read,
        write=BIGCODE.write,
        names=GPT2_NAMES,
        prefix="transformer.",
        groups={"c_attn": lambda config: config.key_heads},
        copies={"transformer.wte.weight": ("lm_head.weight",)},
        ignored=r"\.attn\.bias$|^score\.",
    ),
    family(
        STARCODER_2,
        NAMES
        | {
            BLOCK + "feed_forward.up": LAYER + "mlp.c_fc",
            BLOCK + "feed_forward.down": LAYER + "mlp.c_proj",
        },
    ),
)
