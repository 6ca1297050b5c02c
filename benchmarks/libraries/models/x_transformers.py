"""Encoders and decoders of x-transformers, with many of its options."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from x_transformers import (
    AttentionPool,
    CrossAttender,
    Decoder,
    Encoder,
    PrefixDecoder,
    TransformerWrapper,
    ViTransformerWrapper,
    XTransformer,
)

from benchmarks.libraries.case import BATCH, VOCABULARY, Case, images, on, token_ids, vectors

DISTRIBUTIONS = ("x-transformers",)
WIDTH, LENGTH = 32, 10
WRAPPER: dict[str, Any] = {"num_tokens": VOCABULARY, "max_seq_len": LENGTH}
SIZES: dict[str, Any] = {"dim": WIDTH, "depth": 2, "heads": 4, "attn_dim_head": 8}

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "flash": {"attn_flash": True},
    "rotary": {"rotary_pos_emb": True},
    "flash, rotary": {"attn_flash": True, "rotary_pos_emb": True},
    "ALiBi": {"alibi_pos_bias": True, "alibi_num_heads": 2},
    "flash, ALiBi": {"attn_flash": True, "alibi_pos_bias": True},
    "T5 bias": {"rel_pos_bias": True},
    "dynamic bias": {"dynamic_pos_bias": True},
    "QK norm": {"attn_qk_norm": True},
    "QK norm, a scale a head": {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True},
    "flash, QK norm": {"attn_flash": True, "attn_qk_norm": True},
    "talking heads before softmax": {"attn_pre_talking_heads": True},
    "talking heads after softmax": {"attn_post_talking_heads": True},
    "talking heads before and after": {"attn_pre_scale_post_talking_heads": True},
    "memory keys and values": {"attn_num_mem_kv": 3},
    "flash, memory keys and values": {"attn_flash": True, "attn_num_mem_kv": 3},
    "zero key": {"attn_add_zero_kv": True},
    "learned sink": {"attn_head_learned_sink": True},
    "soft clamp": {"attn_softclamp_logits": True},
    "one key and value head": {"attn_one_kv_head": True},
    "grouped heads": {"attn_kv_heads": 2},
    "flash, grouped heads": {"attn_flash": True, "attn_kv_heads": 2},
    "sparse top-k": {"attn_sparse_topk": 3},
    "residual attention": {"residual_attn": True},
    "L2 distance": {"attn_l2_distance": True},
    "flash, L2 distance": {"attn_flash": True, "attn_l2_distance": True},
    "gated values": {"attn_gate_values": True},
    "scaled heads": {"attn_head_scale": True},
    "signed (CoG)": {"attn_cog_signed": True},
    "sigmoid": {"attn_sigmoid": True},
    "shared latent queries and keys": {
        "attn_use_latent_q": True,
        "attn_dim_latent_q": 16,
        "attn_use_latent_kv": True,
        "attn_dim_latent_kv": 16,
    },
}
CAUSAL_ONLY: dict[str, dict[str, Any]] = {
    "selective": {"attn_selective": True},
    "CoPE": {"attn_use_cope": True},
    "data-dependent ALiBi": {"attn_data_dependent_alibi": True},
    "window": {"attn_max_attend_past": 4},
}


def language_model(kind: Callable[..., nn.Module], **options: Any) -> nn.Module:
    model: nn.Module = TransformerWrapper(**WRAPPER, attn_layers=kind(**SIZES, **options))
    return model


def vision_transformer(is_flash: bool) -> nn.Module:
    model: nn.Module = ViTransformerWrapper(
        image_size=32, patch_size=8, attn_layers=Encoder(**SIZES, attn_flash=is_flash)
    )
    return model


def padding() -> torch.Tensor:
    """(batch, length) bool, True = seen."""
    return torch.arange(LENGTH) < torch.tensor([LENGTH, LENGTH - 4]).view(BATCH, 1)


def cases() -> Iterator[Case]:
    ids = token_ids(LENGTH)
    for name, options in OPTIONS.items():
        yield Case(
            f"encoder, {name}, padded",
            partial(language_model, Encoder, **options),
            on(ids, mask=padding()),
        )
    for name, options in (OPTIONS | CAUSAL_ONLY).items():
        yield Case(
            f"decoder, {name}",
            partial(language_model, Decoder, **options),
            on(ids),
        )
    yield Case(
        "decoder, memory tokens",
        lambda: TransformerWrapper(**WRAPPER, attn_layers=Decoder(**SIZES), num_memory_tokens=3),
        on(ids),
    )
    yield Case(
        "decoder with a prefix",
        partial(PrefixDecoder, **SIZES),
        on(vectors(LENGTH, WIDTH), prefix_attn_len=4),
    )
    for is_flash in (True, False):
        flash = "flash" if is_flash else "plain"
        yield Case(
            f"encoder-decoder, {flash}",
            partial(encoder_decoder, is_flash),
            on(ids, token_ids(7), mask=padding()),
        )
        yield Case(
            f"vision transformer, {flash}",
            partial(vision_transformer, is_flash),
            on(images(32)),
        )
    yield Case(
        "cross attention alone",
        partial(CrossAttender, **SIZES),
        on(vectors(5, WIDTH), context=vectors(LENGTH, WIDTH)),
    )
    yield Case(
        "attention pooling",
        partial(AttentionPool, WIDTH, num_pooled_tokens=3),
        on(vectors(LENGTH, WIDTH)),
    )


def encoder_decoder(is_flash: bool) -> nn.Module:
    sizes = {
        f"{part}_{name}": value
        for part in ("enc", "dec")
        for name, value in {
            "depth": 2,
            "heads": 4,
            "num_tokens": VOCABULARY,
            "max_seq_len": LENGTH,
            "attn_flash": is_flash,
        }.items()
    }
    model: nn.Module = XTransformer(dim=WIDTH, **sizes)
    return model
