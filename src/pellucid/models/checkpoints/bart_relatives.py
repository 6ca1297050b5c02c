"""Encoder-decoders that differ from BART in a setting or two; their tensors have BART's names.

Marian (Junczys-Dowmunt et al. 2018), the architecture of the OPUS-MT models; mBART (Liu et al.
2020) and mBART-50 (Tang et al. 2020); M2M-100 (Fan et al. 2020) and NLLB (Costa-jussà et al. 2022);
Pegasus (Zhang et al. 2020); Blenderbot (Roller et al. 2020).
"""

from dataclasses import replace

from pellucid.models.checkpoints.bart import FAMILY, LEARNED, Variant
from pellucid.models.checkpoints.family import Family

SINES = {"position": "sinusoidal", "interleaved": False}

MARIAN = Variant(
    model_type="marian",
    architecture="MarianMTModel",
    shape=SINES,
    expected={"share_encoder_decoder_embeddings": True, "normalize_embedding": False},
    ids={"pad_token_id": 58_100, "eos_token_id": 0, "decoder_start_token_id": 58_100},
)
MBART = Variant(
    model_type="mbart",
    architecture="MBartForConditionalGeneration",
    shape={**LEARNED, "norm_first": True},
    expected={"static_position_embeddings": False, "normalize_embedding": True},
    ids={"pad_token_id": 1, "eos_token_id": 2},  # a target begins with its language
)
M2M_100 = Variant(
    model_type="m2m_100",
    architecture="M2M100ForConditionalGeneration",
    shape={**SINES, "inclusive": True, "norm_first": True, "logit_bias": False},
    expected={"static_position_embeddings": True, "normalize_embedding": False},
    defaults={"activation_function": "relu", "pad_token_id": 1, "scale_embedding": True},
    ids={"eos_token_id": 2, "decoder_start_token_id": 2},
    counts_from_padding=True,
)
PEGASUS = Variant(
    model_type="pegasus",
    architecture="PegasusForConditionalGeneration",
    shape={**SINES, "norm_first": True},
    expected={"static_position_embeddings": True, "normalize_embedding": False},
    ids={"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
)
BLENDERBOT = Variant(
    model_type="blenderbot",
    architecture="BlenderbotForConditionalGeneration",
    shape={"position": "learned", "norm_first": True},
    expected={
        "static_position_embeddings": False,
        "normalize_embedding": False,
        "layernorm_variant": "prelayernorm",
    },
    defaults={"max_position_embeddings": 128},
    ids={"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1},
)


def _family(variant: Variant) -> Family:
    has_sines = variant.shape["position"] == "sinusoidal"
    return replace(
        FAMILY,
        types=(variant.model_type,),
        read=variant.read,
        write=variant.write,
        ignored=r"embed_positions\.weight$" if has_sines else FAMILY.ignored,
    )


FAMILIES = tuple(map(_family, (MARIAN, MBART, M2M_100, PEGASUS, BLENDERBOT)))
