"""Vision models of timm, small, with fused attention and without."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import timm
from timm.layers import set_fused_attn
from torch import nn

from benchmarks.libraries.case import Case, images, on

DISTRIBUTIONS = ("timm", "torchvision")
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 4}
VIT = {"img_size": 32, "patch_size": 8, **SMALL}
STAGES = {"embed_dim": 24, "depths": (2, 1), "num_heads": (2, 4)}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, **STAGES}

MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", 32, VIT),
    "ViT, QK norm": ("vit_tiny_patch16_224", 32, {**VIT, "qk_norm": True}),
    "ViT, differential attention": ("vit_tiny_patch16_224", 32, {**VIT, "attn_layer": "diff"}),
    "ViT, attention pooling": ("vit_base_patch16_siglip_224", 32, VIT),
    "ViT, relative positions": ("vit_relpos_small_patch16_224", 32, VIT),
    "ViT of SAM": ("samvit_base_patch16_224", 32, {**VIT, "window_size": 3}),
    "NaFlexViT": (
        "naflexvit_base_patch16_gap",
        64,
        {"embed_dim": 48, "depth": 2, "num_heads": 4, "patch_size": 16},
    ),
    "BEiT": ("beit_base_patch16_224", 32, VIT),
    "EVA-02, rotary": ("eva02_tiny_patch14_224", 32, VIT),
    "CaiT": ("cait_xxs24_224", 32, VIT),
    "DeiT III": ("deit3_small_patch16_224", 32, VIT),
    "Swin": ("swin_tiny_patch4_window7_224", 32, SWIN),
    "Swin v2": ("swinv2_tiny_window8_256", 32, SWIN),
    "Swin v2 CR": ("swinv2_cr_tiny_ns_224", 32, SWIN),
    "LeViT": ("levit_128s", 64, {"img_size": 64}),
    "LeViT, convolutions": ("levit_conv_128s", 64, {"img_size": 64}),
    "XCiT": ("xcit_nano_12_p16_224", 64, {"img_size": 64, **SMALL}),
    "CrossViT": ("crossvit_tiny_240", 240, {}),
    "ConViT": ("convit_tiny", 32, {**VIT, "local_up_to_layer": 1}),
    "CoaT": ("coat_lite_tiny", 64, {"img_size": 64}),
    "DaViT": (
        "davit_tiny",
        32,
        {"depths": (1, 1), "embed_dims": (24, 48), "num_heads": (2, 4), "window_size": 4},
    ),
    "EdgeNeXt": ("edgenext_xx_small", 64, {}),
    "EfficientFormer": ("efficientformer_l1", 224, {}),
    "GC ViT": ("gcvit_xxtiny", 224, {}),
    "Hiera": ("hiera_tiny_224", 64, {"img_size": (64, 64), "embed_dim": 24, "num_heads": 1}),
    "MaxViT": ("maxvit_rmlp_pico_rw_256", 64, {"img_size": 64}),
    "MobileViT": ("mobilevit_xxs", 128, {}),
    "MobileViT v2": ("mobilevitv2_050", 128, {}),
    "MViT v2": ("mvitv2_tiny", 64, {"img_size": 64}),
    "NesT": ("nest_tiny_jx", 64, {"img_size": 64}),
    "PiT": ("pit_ti_224", 64, {"img_size": 64}),
    "PVT v2": ("pvt_v2_b0", 64, {"depths": (1, 1, 1, 1)}),
    "TinyViT": ("tiny_vit_5m_224", 64, {"depths": (1, 1, 1, 1)}),
    "TNT": ("tnt_s_legacy_patch16_224", 32, {"img_size": 32, "depth": 2}),
    "Twins": ("twins_pcpvt_small", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "Visformer": ("visformer_tiny", 128, {"img_size": 128}),
    "VOLO": ("volo_d1_224", 64, {"img_size": 64}),
    "CLIP ResNet, attention pooling": ("resnet50_clip", 64, {"img_size": 64}),
    "BoTNet": ("botnet26t_256", 64, {"img_size": 64}),
    "HaloNet": ("halonet26t", 256, {}),
    "MLP-Mixer": ("mixer_s32_224", 64, {"img_size": 64}),
}


def built(name: str, options: dict[str, Any], is_fused: bool) -> nn.Module:
    set_fused_attn(is_fused, experimental=is_fused)  # read when a layer is made
    model: nn.Module = timm.create_model(name, **options)
    return model


def cases() -> Iterator[Case]:
    for title, (name, size, options) in MODELS.items():
        for is_fused in (True, False):
            yield Case(
                f"{title}, {'fused' if is_fused else 'plain'}",
                partial(built, name, options, is_fused),
                on(images(size)),
            )
