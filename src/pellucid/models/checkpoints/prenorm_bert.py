"""BERT with its norms before each part: Megatron-BERT (Shoeybi et al. 2019), RoBERTa-PreLayerNorm
(Ott et al. 2019, "fairseq"), XLM-RoBERTa-XL (Goyal et al. 2021).
"""

from collections.abc import Callable, Mapping
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints import bert
from pellucid.models.checkpoints.bert import HEAD, NAMES, OTHERS, POOLER, fields, written
from pellucid.models.checkpoints.classifying import labelled
from pellucid.models.checkpoints.family import Family

BLOCK, LAYER = "encoder.blocks.{}.", "encoder.layer.{}."


def _names(attention_norm: str, feed_forward_norm: str, final: str) -> dict[str, str]:
    return NAMES | {
        BLOCK + "attention_norm": LAYER + attention_norm,
        BLOCK + "feed_forward_norm": LAYER + feed_forward_norm,
        "encoder.final_norm": final,
    }


def read(config: Mapping[str, Any]) -> Config:
    name = config["model_type"]
    config = {**DEFAULTS.get(name, {}), "pad_token_id": 0 if name == MEGATRON else 1, **config}
    offset = 0 if name == MEGATRON else config["pad_token_id"] + 1
    has_norm = name == "roberta-prelayernorm"
    return Config(**fields(config, offset) | {"embedding_norm": has_norm, "norm_first": True})


def _writer(name: str, kind: str, has_norm: bool = False) -> Callable[[Config], Any]:
    """What writes the config.json of one of them."""

    def write(config: Config) -> dict[str, Any] | None:
        fits = bert.fits(config, norm_first=True, embedding_norm=has_norm)
        first = 0 if name == MEGATRON or config.padding is None else config.padding + 1
        if not fits or not config.types or config.position_offset != first:
            return None
        if name != MEGATRON and config.padding is None:
            return None
        return written(config, name, kind)

    return write


MEGATRON = "megatron-bert"
DEFAULTS: dict[str, dict[str, Any]] = {
    "xlm-roberta-xl": {
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 514,
    },
}
FAMILIES = (
    Family(
        types=(MEGATRON,),
        read=read,
        write=_writer(MEGATRON, "MegatronBertModel"),
        names=_names("attention.ln", "ln", "encoder.ln") | POOLER,
        prefix="bert.",
        ignored=OTHERS,
        classifier=labelled,
    ),
    Family(
        types=("roberta-prelayernorm",),
        read=read,
        write=_writer("roberta-prelayernorm", "RobertaPreLayerNormModel", has_norm=True),
        names=_names("attention.LayerNorm", "intermediate.LayerNorm", "LayerNorm") | HEAD,
        prefix="roberta_prelayernorm.",
        ignored=OTHERS,
        classifier=labelled,
    ),
    Family(
        types=("xlm-roberta-xl",),
        read=read,
        write=_writer("xlm-roberta-xl", "XLMRobertaXLModel"),
        names=_names("attention.self_attn_layer_norm", "LayerNorm", "encoder.LayerNorm") | HEAD,
        prefix="roberta.",
        ignored=OTHERS,
        classifier=labelled,
    ),
)
