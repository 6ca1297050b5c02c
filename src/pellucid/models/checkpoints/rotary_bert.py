"""BERT with rotary positions: Nomic BERT (Nussbaum et al. 2024), GTE (Zhang et al. 2024), Jina
Embeddings 3 (Sturua et al. 2024), RoFormer (Su et al. 2021).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import bert
from pellucid.models.checkpoints.bert import HEAD, OTHERS, POOLER
from pellucid.models.checkpoints.classifying import labelled
from pellucid.models.checkpoints.description import Description, Key, activated
from pellucid.models.checkpoints.family import Family, Names, expect
from pellucid.models.checkpoints.rope import Rope

BLOCK, LAYER = "encoder.blocks.{}.", "layers.{}."
TABLES = {name: theirs for name, theirs in bert.EMBEDDINGS.items() if "positions" not in name}
QUERY, KEY, VALUE = (BLOCK + f"attention.{part}" for part in ("query", "key", "value"))
GATE, UP, DOWN = (BLOCK + f"feed_forward.{part}" for part in ("gate", "up", "down"))
NAMES = {
    **TABLES,
    QUERY: LAYER + "self_attn.q_proj",
    KEY: LAYER + "self_attn.k_proj",
    VALUE: LAYER + "self_attn.v_proj",
    BLOCK + "attention.output": LAYER + "self_attn.o_proj",
    BLOCK + "attention_norm": LAYER + "post_attention_layernorm",
    BLOCK + "feed_forward_norm": LAYER + "post_mlp_layernorm",
}
GATED = {GATE: LAYER + "mlp.gate_proj", UP: LAYER + "mlp.up_proj", DOWN: LAYER + "mlp.down_proj"}


def _older(tokens: Mapping[str, str], layer: str, parts: Mapping[Any, str]) -> Names:
    """The names of an older layout, given those of a layer's parts."""
    return {**TABLES, **tokens, **{ours: layer + theirs for ours, theirs in parts.items()}}


_FIRST_NORM = {"encoder.embedding_norm": "emb_ln"}
_OLD_NOMIC = _older(
    _FIRST_NORM,
    "encoder.layers.{}.",
    {
        (QUERY, KEY, VALUE): "attn.Wqkv",
        BLOCK + "attention.output": "attn.out_proj",
        BLOCK + "attention_norm": "norm1",
        UP: "mlp.fc11",
        GATE: "mlp.fc12",
        DOWN: "mlp.fc2",
        BLOCK + "feed_forward_norm": "norm2",
    },
)
_OLD_GTE = _older(
    {},
    "encoder.layer.{}.",
    {
        (QUERY, KEY, VALUE): "attention.qkv_proj",
        BLOCK + "attention.output": "attention.o_proj",
        BLOCK + "attention_norm": "attn_ln",
        (UP, GATE): "mlp.up_gate_proj",
        DOWN: "mlp.down_proj",
        BLOCK + "feed_forward_norm": "mlp_ln",
    },
)
_OLD_JINA = _older(
    _FIRST_NORM,
    "encoder.layers.{}.",
    {
        (QUERY, KEY, VALUE): "mixer.Wqkv",
        BLOCK + "attention.output": "mixer.out_proj",
        BLOCK + "attention_norm": "norm1",
        UP: "mlp.fc1",
        DOWN: "mlp.fc2",
        BLOCK + "feed_forward_norm": "norm2",
    },
)
SHAPE = {"kind": "encoder", "embedding_norm": True, "position": "rotary"}
DROPOUTS = (
    ("hidden_dropout_prob", "dropout"),
    ("attention_probs_dropout_prob", "weights_dropout"),
)


def _keys(*, positions: int, types: int, eps: float = 1e-12, act: str = "gelu") -> dict[str, Key]:
    return {
        "vocabulary": Key("vocab_size"),
        "width": Key("hidden_size"),
        "layers": Key("num_hidden_layers"),
        "heads": Key("num_attention_heads"),
        "hidden": Key("intermediate_size"),
        "norm_eps": Key("layer_norm_eps", eps),
        "activation": activated("hidden_act", act),
        "positions": Key("max_position_embeddings", positions),
        "types": Key("type_vocab_size", types),
    }


_HEAD_DIM = {"head_dim": Key("head_dim", None)}
NOMIC = Description(
    model_type="nomic_bert",
    architecture="NomicBertModel",
    fixed={**SHAPE, "gated": True, "bias": False},
    keys={**_keys(positions=2048, types=2, act="silu"), **_HEAD_DIM},
    rope=Rope(part_key=None, theta=1000.0),
    ids={"pad_token_id": 0},
    dropouts=DROPOUTS,
)
GTE = Description(
    model_type="gte",
    architecture="GteModel",
    fixed={**SHAPE, "gated": True, "hidden_bias": False},
    keys=_keys(positions=8192, types=1),
    rope=Rope(part_key=None, theta=160_000.0),
    ids={"pad_token_id": 1},
    dropouts=DROPOUTS,
)
JINA = Description(
    model_type="jina_embeddings_v3",
    architecture="JinaEmbeddingsV3Model",
    fixed=SHAPE,
    keys=_keys(positions=8194, types=1, eps=1e-5),
    rope=Rope(part_key=None, theta=20_000.0),
    ids={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    dropouts=DROPOUTS,
)
ROFORMER = Description(
    model_type="roformer",
    architecture="RoFormerModel",
    fixed={**SHAPE, "rotary_pairs": "neighbours"},
    keys=_keys(positions=1536, types=2),
    ids={"pad_token_id": 0},
    expected={"rotary_value": False, "is_decoder": False},
    more=lambda config: _narrow(config),
    more_keys=lambda config: {"embedding_size": config.embedding_width or config.width},
    dropouts=DROPOUTS,
)
_OLD_KEYS = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}


def read_nomic(config: Mapping[str, Any]) -> Config:
    if "hidden_size" not in config:  # of the code that Nomic published first
        renamed = {_OLD_KEYS.get(name, name): value for name, value in config.items()}
        config = {**renamed, "hidden_act": "silu"}
        expected = {"activation_function": "swiglu", "prenorm": False, "qkv_proj_bias": False}
        expected |= {"mlp_fc1_bias": False, "mlp_fc2_bias": False, "rotary_emb_fraction": 1.0}
        expect(config, **expected, rotary_emb_interleaved=False, rotary_emb_scale_base=None)
    return NOMIC.read(config)


def _narrow(config: Mapping[str, Any]) -> dict[str, Any]:
    narrow, width = config.get("embedding_size"), config["hidden_size"]
    return {"embedding_width": None if narrow in (None, width) else narrow}


def _family(description: Description, names: Names, older: Names, **others: Any) -> Family:
    arguments = {"read": description.read, "classifier": labelled, **others}
    heads = {ours: theirs for ours, theirs in names.items() if ours.startswith("classifier")}
    return Family(
        types=(description.model_type,),
        write=description.write,
        names=names,
        older=({**older, **heads},) if older else (),
        ignored=rf"{OTHERS}|inv_freq$|embed_positions\.weight$",
        **arguments,
    )


FAMILIES = (
    _family(NOMIC, {**NAMES, **GATED, **POOLER}, _OLD_NOMIC, prefix="nomic_bert.", read=read_nomic),
    _family(
        GTE,
        {**NAMES, **GATED, **POOLER},
        _OLD_GTE,
        prefix="gte.",
        renamed=((r"^new\.", "gte."),),
    ),
    _family(
        JINA,
        {**NAMES, UP: LAYER + "mlp.fc1", DOWN: LAYER + "mlp.fc2", **HEAD},
        _OLD_JINA,
        prefix="roberta.",
    ),
    _family(
        ROFORMER,
        {**TABLES, **bert.NAMES, **HEAD, "encoder.projection": "embeddings_project"},
        {},
        prefix="roformer.",
        classifier=partial(labelled, activation="gelu"),
    ),
)
