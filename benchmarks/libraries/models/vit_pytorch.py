"""Vision transformers of vit-pytorch: attention in einsum and einops, a file for each paper."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from benchmarks.libraries.case import Case, images, on

DISTRIBUTIONS = ("vit-pytorch",)
SIZE = 32
COMMON: dict[str, Any] = {"image_size": SIZE, "patch_size": 8, "num_classes": 10, "dim": 32}
VIT: dict[str, Any] = {**COMMON, "depth": 2, "heads": 4, "dim_head": 8, "mlp_dim": 64}
CONVOLVED: dict[str, Any] = {"num_classes": 10, "dim_head": 8}

MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ViT": ("vit.ViT", SIZE, VIT),
    "SimpleViT": ("simple_vit.SimpleViT", SIZE, VIT),
    "SimpleViT, QK norm": ("simple_vit_with_qk_norm.SimpleViT", SIZE, VIT),
    "SimpleViT, registers": ("simple_vit_with_register_tokens.SimpleViT", SIZE, VIT),
    "SimpleViT, value residual": ("simple_vit_with_value_residual.SimpleViT", SIZE, VIT),
    "SimpleViT, flash": ("simple_flash_attn_vit.SimpleViT", SIZE, {**VIT, "use_flash": True}),
    "DeepViT": ("deepvit.DeepViT", SIZE, VIT),
    "CaiT": ("cait.CaiT", SIZE, {**VIT, "cls_depth": 1}),
    "XCiT": ("xcit.XCiT", SIZE, {**VIT, "cls_depth": 1}),
    "ViT for small datasets": ("vit_for_small_dataset.ViT", SIZE, VIT),
    "parallel ViT": ("parallel_vit.ViT", SIZE, VIT),
    "normalised ViT": ("normalized_vit.nViT", SIZE, VIT),
    "rotary ViT": ("rvt.RvT", SIZE, VIT),
    "adaptive token sampling": ("ats_vit.ViT", SIZE, {**VIT, "max_tokens_per_depth": (9, 5)}),
    "patch merger": (
        "vit_with_patch_merger.ViT",
        SIZE,
        {**VIT, "depth": 3, "patch_merge_layer": 1, "patch_merge_num_tokens": 5},
    ),
    "ViT 5": ("vit_5.ViT", SIZE, VIT),
    "JumboViT": ("jumbo_vit.JumboViT", SIZE, {**VIT, "num_jumbo_cls": 1, "jumbo_cls_k": 2}),
    "simple U-ViT": ("simple_uvit.SimpleUViT", SIZE, VIT),
    "T2T-ViT": (
        "t2t.T2TViT",
        SIZE,
        {
            **{name: value for name, value in VIT.items() if name != "patch_size"},
            "t2t_layers": ((7, 4), (3, 2)),
        },
    ),
    "PiT": ("pit.PiT", SIZE, {**VIT, "depth": (1, 1)}),
    "LeViT": (
        "levit.LeViT",
        64,
        {
            "image_size": 64,
            "num_classes": 10,
            "stages": 2,
            "dim": (32, 48),
            "depth": 1,
            "heads": (2, 3),
            "mlp_mult": 2,
            "dim_key": 8,
            "dim_value": 8,
        },
    ),
    "CvT": ("cvt.CvT", SIZE, {"num_classes": 10, "s1_emb_dim": 64, "s2_emb_dim": 64}),
    "CCT": (
        "cct.CCT",
        SIZE,
        {
            "img_size": SIZE,
            "embedding_dim": 32,
            "num_layers": 2,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "num_classes": 10,
        },
    ),
    "CrossViT": (
        "cross_vit.CrossViT",
        SIZE,
        {
            "image_size": SIZE,
            "num_classes": 10,
            "sm_dim": 32,
            "lg_dim": 48,
            "sm_patch_size": 8,
            "lg_patch_size": 16,
            "depth": 1,
        },
    ),
    "CrossFormer": (
        "crossformer.CrossFormer",
        64,
        {
            "dim": (32, 32, 64, 64),
            "depth": (1, 1, 1, 1),
            "global_window_size": (4, 2, 2, 1),
            "local_window_size": (4, 4, 4, 2),
            "num_classes": 10,
        },
    ),
    "MaxViT": ("max_vit.MaxViT", 64, {**CONVOLVED, "dim": 32, "depth": (1, 1), "window_size": 4}),
    "MobileViT": (
        "mobile_vit.MobileViT",
        64,
        {
            "image_size": (64, 64),
            "dims": [32, 48, 64],
            "channels": [16, 16, 24, 24, 32, 32, 48, 48, 64, 64, 96],
            "num_classes": 10,
        },
    ),
    "NesT": (
        "nest.NesT",
        64,
        {**COMMON, "image_size": 64, "heads": 2, "num_hierarchies": 3, "block_repeats": (1, 1, 1)},
    ),
    "RegionViT": (
        "regionvit.RegionViT",
        64,
        {"dim": 32, "depth": 1, "window_size": 2, "num_classes": 10},
    ),
    "ScalableViT": (
        "scalable_vit.ScalableViT",
        64,
        {
            "num_classes": 10,
            "dim": 32,
            "heads": (2, 2),
            "depth": (1, 1),
            "ssa_dim_key": (8, 8),
            "reduction_factor": (4, 2),
            "window_size": (8, 4),
        },
    ),
    "SepViT": (
        "sep_vit.SepViT",
        56,
        {**CONVOLVED, "dim": 32, "depth": (1, 1), "heads": (2, 2), "window_size": 4},
    ),
    "Twins-SVT": (
        "twins_svt.TwinsSVT",
        64,
        {
            "num_classes": 10,
            "s1_local_patch_size": 4,
            "s2_local_patch_size": 4,
            "s3_local_patch_size": 2,
            "s4_local_patch_size": 1,
            "s4_global_k": 1,
            "s3_global_k": 2,
        },
    ),
}


def built(place: str, options: dict[str, Any]) -> nn.Module:
    module, _, kind = place.partition(".")
    model: nn.Module = getattr(import_module(f"vit_pytorch.{module}"), kind)(**options)
    return model


def cases() -> Iterator[Case]:
    for title, (place, size, options) in MODELS.items():
        yield Case(
            title,
            partial(built, place, options),
            on(images(size)),
        )
