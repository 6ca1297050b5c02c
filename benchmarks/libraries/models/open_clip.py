"""CLIP models of open_clip: a picture and a text."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import open_clip
from torch import Tensor, nn

from benchmarks.libraries.case import Case, images, on, token_ids

DISTRIBUTIONS = ("open_clip_torch",)
VISION = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
TEXT = {"layers": 2, "width": 32, "heads": 4, "context_length": 12, "vocab_size": 50}


def clip(vision: dict[str, Any], text: dict[str, Any]) -> nn.Module:
    model: nn.Module = open_clip.CLIP(
        embed_dim=16, vision_cfg={**VISION, **vision}, text_cfg={**TEXT, **text}
    )
    return model


def custom_text() -> nn.Module:
    model: nn.Module = open_clip.CustomTextCLIP(
        embed_dim=16, vision_cfg=VISION, text_cfg={**TEXT, "embed_cls": True}
    )
    return model


def padded_ids() -> Tensor:
    ids = token_ids(12)
    ids[1, 7:] = 0
    return ids


def coca() -> nn.Module:
    model: nn.Module = open_clip.CoCa(
        embed_dim=32,
        multimodal_cfg={**TEXT, "attn_pooler_heads": 4},
        text_cfg={**TEXT, "embed_cls": True, "output_tokens": True},
        vision_cfg={
            **VISION,
            "attentional_pool": True,
            "attn_pooler_queries": 5,
            "attn_pooler_heads": 4,
            "output_tokens": True,
        },
    )
    return model


def cases() -> Iterator[Case]:
    variants: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "CLIP": ({}, {}),
        "CLIP, QK norm": ({"qk_norm": True}, {"qk_norm": True}),
        "CLIP, scaled heads": ({"scale_heads": True}, {"scale_heads": True}),
        "CLIP, attention pooling": (
            {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4},
            {},
        ),
        "CLIP, ResNet": ({"layers": (1, 1, 1, 1), "width": 8, "head_width": 64}, {}),
    }
    for name, (vision, text) in variants.items():
        yield Case(
            name,
            partial(clip, vision, text),
            on(images(32), token_ids(12)),
        )
    yield Case("CLIP, padded text", custom_text, on(images(32), padded_ids()))
    yield Case("CoCa", coca, on(images(32), token_ids(12)))
