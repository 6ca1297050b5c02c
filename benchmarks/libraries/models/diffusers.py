"""Diffusion models of diffusers, with the processors of attention that they offer."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import diffusers
import torch
from diffusers.models import attention_processor as processors
from torch import nn

from benchmarks.libraries.case import BATCH, Case, images, on, token_ids, vectors

DISTRIBUTIONS = ("diffusers",)
GROUPS = {"norm_num_groups": 8}
BLOCKS: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    **GROUPS,
}
TIME = torch.full((BATCH,), 3)
TEXT = vectors(7, 24)
POOLED = TEXT[:, 0]


def unet(**options: Any) -> nn.Module:
    model: nn.Module = diffusers.UNet2DConditionModel(
        **BLOCKS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,
        **options,
    )
    return model


def unet_with(processor: Callable[[], object]) -> nn.Module:
    model: Any = unet()
    model.set_attn_processor(processor())
    whole: nn.Module = model
    return whole


def unet_of_pixels() -> nn.Module:
    model: nn.Module = diffusers.UNet2DModel(
        **BLOCKS,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )
    return model


def kandinsky() -> nn.Module:
    model: nn.Module = diffusers.UNet2DConditionModel(
        **BLOCKS,
        down_block_types=("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=24,
        attention_head_dim=4,
    )
    return model


def run_unet(model: nn.Module) -> object:
    return model(images(8, 4), TIME, TEXT)


def run_masked(model: nn.Module) -> object:
    seen = torch.arange(7) < torch.tensor([[7], [4]])
    return model(images(8, 4), TIME, TEXT, encoder_attention_mask=seen)


def dit() -> nn.Module:
    model: nn.Module = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        sample_size=8,
        **GROUPS,
    )
    return model


def transformer_2d() -> nn.Module:
    model: nn.Module = diffusers.Transformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=32,
        num_layers=1,
        cross_attention_dim=24,
        **GROUPS,
    )
    return model


def pixart() -> nn.Module:
    model: nn.Module = diffusers.PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        cross_attention_dim=32,
        caption_channels=24,
        **GROUPS,
    )
    return model


def stable_diffusion_3() -> nn.Module:
    model: nn.Module = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=24,
        caption_projection_dim=32,
        pooled_projection_dim=24,
        out_channels=4,
        pos_embed_max_size=16,
    )
    return model


def flux() -> nn.Module:
    model: nn.Module = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=24,
        axes_dims_rope=(4, 4, 8),
    )
    return model


def run_flux(model: nn.Module) -> object:
    return model(
        hidden_states=vectors(16, 4),
        encoder_hidden_states=TEXT,
        pooled_projections=POOLED,
        timestep=TIME.float(),
        img_ids=torch.arange(48.0).view(16, 3),
        txt_ids=torch.zeros(7, 3),
    )


def wan() -> nn.Module:
    model: nn.Module = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    return model


def run_wan(model: nn.Module) -> object:
    video = images(8, 4).unsqueeze(2).repeat(1, 1, 2, 1, 1)
    return model(hidden_states=video, timestep=TIME, encoder_hidden_states=TEXT)


def sana() -> nn.Module:
    model: nn.Module = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=4,
        attention_head_dim=8,
        num_cross_attention_heads=4,
        cross_attention_head_dim=8,
        cross_attention_dim=32,
        caption_channels=24,
        sample_size=8,
    )
    return model


def autoencoder() -> nn.Module:
    model: nn.Module = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **GROUPS,
    )
    return model


def prior() -> nn.Module:
    model: nn.Module = diffusers.PriorTransformer(
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=2,
        embedding_dim=24,
        num_embeddings=7,
        additional_embeddings=4,
    )
    return model


def run_text(model: nn.Module, **options: Any) -> object:
    return model(hidden_states=images(8, 4), timestep=TIME, encoder_hidden_states=TEXT, **options)


def cases() -> Iterator[Case]:
    for name, processor in {
        "AttnProcessor2_0": processors.AttnProcessor2_0,
        "AttnProcessor": processors.AttnProcessor,
        "SlicedAttnProcessor": partial(processors.SlicedAttnProcessor, 2),
    }.items():
        yield Case(
            f"UNet with text, {name}",
            partial(unet_with, processor),
            run_unet,
        )
    yield Case("UNet with text, masked", unet, run_masked)
    yield Case("UNet with text, upcast", partial(unet, upcast_attention=True), run_unet)
    yield Case("UNet with added keys and values", kandinsky, run_unet)
    yield Case("UNet of pixels", unet_of_pixels, on(images(8), TIME))
    others: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], object]]] = {
        "DiT": (dit, on(images(8, 4), TIME, class_labels=token_ids(1)[:, 0])),
        "Transformer2DModel": (
            transformer_2d,
            on(images(8, 32), encoder_hidden_states=TEXT),
        ),
        "PixArt": (
            pixart,
            partial(run_text, added_cond_kwargs={}),
        ),
        "Stable Diffusion 3": (
            stable_diffusion_3,
            partial(run_text, pooled_projections=POOLED),
        ),
        "Flux": (flux, run_flux),
        "Wan": (wan, run_wan),
        "Sana, linear attention": (sana, run_text),
        "AutoencoderKL": (autoencoder, on(images(16))),
        "PriorTransformer": (
            prior,
            on(POOLED, TIME, proj_embedding=POOLED, encoder_hidden_states=TEXT),
        ),
    }
    for name, (build, run) in others.items():
        yield Case(name, build, run)
