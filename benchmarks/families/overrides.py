"""What no rule finds out: settings and inputs of single models."""

from collections.abc import Callable
from typing import Any

import torch

SERIES = {"prediction_length": 4, "context_length": 12, "num_time_features": 1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16}

SETTINGS: dict[str, dict[str, Any]] = {
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "audio-spectrogram-transformer": {"max_length": 96},
    "autoformer": SERIES,
    "bamba": MAMBA,
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "chameleon": {"vocabulary_map": {"<image>": 10, "IMGIMGAZ": 20, "IMGIMGBZ": 21}},
    "cvt": {"depth": [1, 2, 3]},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"]}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "diffusion_gemma": {
        "text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
    },
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
    },
    "donut-swin": {"image_size": 224},
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": {"mrope_section": [3, 3, 2]}}},
    "ernie4_5_vl_moe_text": {"rope_parameters": {"mrope_section": [3, 3, 2]}},
    "esm": {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": MAMBA,
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "informer": SERIES,
    "kosmos-2": {"latent_query_num": 4},
    "kosmos-2.5": {"latent_query_num": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4": {"vision_config": {"intermediate_size": 256}},
    "llama4_vision_model": {"intermediate_size": 256},
    "llava_next": {"image_grid_pinpoints": [[64, 64]]},
    "llava_next_video": {"image_grid_pinpoints": [[64, 64]]},
    "llava_onevision": {"image_grid_pinpoints": [[64, 64]]},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 16},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "mllama": {"vision_config": {"intermediate_layers_indices": [0, 1]}},
    "mllama_vision_model": {"intermediate_layers_indices": [0, 1]},
    "muse_glimmer_audio": {"num_hidden_layers": 4},
    "muse_spark": {"audio_config": {"num_hidden_layers": 4}},
    "muse_spark_audio": {"num_hidden_layers": 4},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2},
    "swin2sr": {"depths": [2, 2], "num_heads": [6, 6]},
    "swin": {"image_size": 224},
    "swinv2": {"image_size": 224},
    "time_series_transformer": SERIES,
    "vipllava": {"vision_feature_layers": [-1, -2]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
}
"""By model type: what to set besides what the rules make small."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "longt5": ("several blocks", {"local_radius": 3, "global_block_size": 4}),
    "pegasus_x": ("several blocks", {"block_size": 4, "num_global_tokens": 3}),
}
"""By model type: another setting in which its models run as well, and a name for it."""

LENGTHS: dict[str, int] = {"big_bird": 48, "bigbird_pegasus": 48}
"""By model type: how many tokens a text has, where attention is another for long ones."""


def _tiles(vision: Any) -> dict[str, Any]:
    """An image for each text, in tiles."""
    tiles, size = vision.max_num_tiles, vision.image_size
    return {
        "pixel_values": torch.randn(2, 1, tiles, 3, size, size),
        "aspect_ratio_ids": torch.tensor([[1], [2]]),
        "aspect_ratio_mask": torch.tensor(
            [[[1] + [0] * (tiles - 1)], [[1, 1] + [0] * (tiles - 2)]]
        ),
    }


def _described() -> dict[str, Any]:
    """Texts beside them."""
    return {
        "input_ids": torch.randint(64, 128, (2, 13)),
        "attention_mask": torch.tensor([[0] * 3 + [1] * 10, [1] * 11 + [0] * 2]),
    }


INPUTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "DecisionTransformerModel": lambda config: {
        "states": torch.randn(2, 5, config.state_dim),
        "actions": torch.randn(2, 5, config.act_dim),
        "returns_to_go": torch.randn(2, 5, 1),
        "timesteps": torch.arange(5).expand(2, -1),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]),
    },
    "DiaModel": lambda config: {
        "input_ids": torch.randint(64, 128, (2, 13)),
        "attention_mask": torch.tensor([[1] * 13, [1] * 11 + [0] * 2]),
        "decoder_input_ids": torch.randint(0, 100, (2, 7, config.decoder_config.num_channels)),
    },
    "KyutaiSpeechToTextModel": lambda config: {
        "input_ids": torch.randint(0, 60, (2, 13, config.num_codebooks + 1)),
    },
    "MllamaModel": lambda config: _tiles(config.vision_config) | _described(),
    "MllamaForConditionalGeneration": lambda config: _tiles(config.vision_config) | _described(),
    "MllamaVisionModel": lambda config: _tiles(config),
    "MusicgenModel": lambda config: {
        "input_ids": torch.randint(0, 60, (2 * config.num_codebooks, 13)),
    },
    "MusicgenMelodyModel": lambda config: {
        "input_ids": torch.randint(0, 60, (2 * config.num_codebooks, 13)),
    },
    "MusicgenForConditionalGeneration": lambda config: {
        "input_ids": torch.randint(64, 128, (2, 13)),
        "attention_mask": torch.tensor([[1] * 13, [1] * 11 + [0] * 2]),
        "decoder_input_ids": torch.randint(0, 60, (2 * config.decoder.num_codebooks, 7)),
    },
}
"""By class: what to give, made from the configuration."""

UNBUILT: dict[str, str] = {}
"""By class: why it is left out."""
