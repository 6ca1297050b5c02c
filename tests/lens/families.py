"""Tiny random models of many families, and what their own eager attention says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
import transformers
from tests import sizes
from tests.sizes import BATCH, GROUPED, HEADS, LAYERS, VOCABULARY, WINDOW
from torch import Tensor, nn

TOKENS, SOURCE = 11, 13
GAIN = 1.3
"""Standard deviation of what a projection gives: weights far from even, so that a slip shows."""

SIZES = {**sizes.SIZES, "eos_token_id": None}
"""Texts that are generated end where they are told to."""
EXPERTS = {**GROUPED, **SIZES, "hidden_size": 68, "intermediate_size": 36}
"""The grouped product of experts wants rows of whole 16 bytes."""
PAIR = {
    "vocab_size": VOCABULARY,
    "d_model": 33,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 41,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "forced_eos_token_id": None,
    "decoder_start_token_id": 1,
}
PAIR_PLACES = {
    "encoder.layers.{}.self_attn": "encoder_attentions",
    "decoder.layers.{}.self_attn": "decoder_attentions",
    "decoder.layers.{}.encoder_attn": "cross_attentions",
}
IMAGE = {"image_size": 14, "patch_size": 5, "num_channels": 2, "num_hidden_layers": LAYERS}
AUDIO = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 37,
    "conv_dim": (7, 7),
    "conv_kernel": (5, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 5,
    "num_conv_pos_embedding_groups": 3,
    **HEADS,
}


@dataclass(frozen=True)
class Family:
    """How to make a tiny model, and where it attends."""

    config: Callable[[], Any]
    places: Mapping[str, str]
    """Names of modules, {} for the layer, and the output that holds their weights."""
    kind: str = "encoder"
    """"encoder", "decoder" or "pair" of text; "image", "audio", "speech pair" or "both"."""
    default: str = "sdpa"
    eager_is_seen: bool = True
    """False for models whose eager attention is inline code, which nothing can see."""
    also: tuple[str, ...] = ()
    """Modules that attend too, whose weights the model does not give."""
    generates: str | None = None
    """What stands before the names in the model that generates."""

    @property
    def reads_text(self) -> bool:
        return self.kind in ("encoder", "decoder", "pair")

    @property
    def implementations(self) -> list[str]:
        return list(dict.fromkeys([self.default, *["eager"] * self.eager_is_seen]))


def _of(place: str, config: Callable[[], Any], **others: Any) -> Family:
    return Family(config, {place: "attentions"}, **others)


def _decoder(
    config: Callable[[], Any], place: str = "layers.{}.self_attn", **others: Any
) -> Family:
    others = {"kind": "decoder", "generates": "model.", **others}
    return _of(place, config, **others)


def _pair(config: Callable[[], Any], **others: Any) -> Family:
    return Family(config, PAIR_PLACES, **{"kind": "pair", "generates": "model.", **others})


_t = transformers
FAMILIES = {
    # Encoders of text.
    "bert": _of("encoder.layer.{}.attention.self", lambda: _t.BertConfig(**HEADS, **SIZES)),
    "roberta": _of("encoder.layer.{}.attention.self", lambda: _t.RobertaConfig(**HEADS, **SIZES)),
    "electra": _of(
        "encoder.layer.{}.attention.self",
        lambda: _t.ElectraConfig(embedding_size=33, **HEADS, **SIZES),
    ),
    "distilbert": _of(
        "transformer.layer.{}.attention",
        lambda: _t.DistilBertConfig(
            vocab_size=VOCABULARY, dim=33, n_heads=3, n_layers=LAYERS, hidden_dim=37
        ),
    ),
    "albert": _of(  # one layer, used twice
        "encoder.albert_layer_groups.0.albert_layers.0.attention",
        lambda: _t.AlbertConfig(embedding_size=17, **HEADS, **SIZES),
    ),
    "modernbert, windows": _of(
        "layers.{}.attn",
        lambda: _t.ModernBertConfig(
            local_attention=6,
            global_attn_every_n_layers=2,
            cls_token_id=1,
            sep_token_id=2,
            **{**SIZES, "hidden_size": 30, "num_attention_heads": 3},
        ),
    ),
    # Decoders.
    "gpt2": _decoder(
        lambda: _t.GPT2Config(**{**sizes.GPT2, "pad_token_id": 0, "eos_token_id": None}),
        "h.{}.attn",
        generates="transformer.",
    ),
    "gpt-neox": _decoder(
        lambda: _t.GPTNeoXConfig(**{**SIZES, "hidden_size": 30, "num_attention_heads": 3}),
        "layers.{}.attention",
        generates="gpt_neox.",
    ),
    "opt": _decoder(
        lambda: _t.OPTConfig(ffn_dim=37, word_embed_proj_dim=33, **HEADS, **SIZES),
        "decoder.layers.{}.self_attn",
    ),
    "llama, grouped heads": _decoder(lambda: _t.LlamaConfig(**GROUPED, **SIZES)),
    "qwen2": _decoder(lambda: _t.Qwen2Config(**{**GROUPED, **SIZES, "hidden_size": 60})),
    "qwen3": _decoder(lambda: _t.Qwen3Config(**GROUPED, **SIZES)),
    "mistral, a window": _decoder(
        lambda: _t.MistralConfig(sliding_window=WINDOW, **GROUPED, **SIZES)
    ),
    "mixtral": _decoder(
        lambda: _t.MixtralConfig(num_local_experts=3, num_experts_per_tok=2, **EXPERTS)
    ),
    "phi3": _decoder(lambda: _t.Phi3Config(**{**GROUPED, **SIZES, "hidden_size": 60})),
    "gemma": _decoder(lambda: _t.GemmaConfig(**GROUPED, **SIZES)),
    "gemma 2, a softcap": _decoder(
        lambda: _t.Gemma2Config(
            sliding_window=WINDOW,
            attn_logit_softcapping=0.7,
            query_pre_attn_scalar=7,
            **GROUPED,
            **SIZES,
        ),
        default="eager",
    ),
    "gemma 3": _decoder(
        lambda: _t.Gemma3TextConfig(
            sliding_window=WINDOW,
            query_pre_attn_scalar=7,
            layer_types=["sliding_attention", "full_attention"],
            **GROUPED,
            **SIZES,
        )
    ),
    "gpt-oss, sinks": _decoder(
        lambda: _t.GptOssConfig(
            sliding_window=WINDOW,
            num_local_experts=3,
            num_experts_per_tok=2,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            **EXPERTS,
        ),
        default="eager",
    ),
    "olmo2": _decoder(lambda: _t.Olmo2Config(**{**GROUPED, **SIZES, "hidden_size": 60})),
    "cohere": _decoder(lambda: _t.CohereConfig(**{**GROUPED, **SIZES, "hidden_size": 60})),
    "starcoder2": _decoder(lambda: _t.Starcoder2Config(**{**GROUPED, **SIZES, "hidden_size": 60})),
    "falcon": _decoder(
        lambda: _t.FalconConfig(
            new_decoder_architecture=True,
            num_kv_heads=2,
            **{**SIZES, "hidden_size": 60, "num_attention_heads": 6},
        ),
        "h.{}.self_attention",
        generates="transformer.",
        eager_is_seen=False,
    ),
    "deepseek-v3": _decoder(
        lambda: _t.DeepseekV3Config(
            num_key_value_heads=3,
            q_lora_rank=7,
            kv_lora_rank=5,
            qk_nope_head_dim=11,
            qk_rope_head_dim=4,
            v_head_dim=13,
            first_k_dense_replace=LAYERS,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            num_experts_per_tok=2,
            **HEADS,
            **SIZES,
        )
    ),
    # Encoder and decoder.
    "t5": Family(
        lambda: _t.T5Config(
            vocab_size=VOCABULARY,
            d_model=33,
            d_kv=11,
            d_ff=37,
            num_layers=LAYERS,
            num_heads=3,
            pad_token_id=0,
            eos_token_id=None,
            decoder_start_token_id=1,
        ),
        {
            "encoder.block.{}.layer.0.SelfAttention": "encoder_attentions",
            "decoder.block.{}.layer.0.SelfAttention": "decoder_attentions",
            "decoder.block.{}.layer.1.EncDecAttention": "cross_attentions",
        },
        kind="pair",
        generates="",
    ),
    "bart": _pair(lambda: _t.BartConfig(max_position_embeddings=53, **PAIR)),
    "mbart": _pair(lambda: _t.MBartConfig(max_position_embeddings=53, **PAIR)),
    "marian": _pair(lambda: _t.MarianConfig(max_position_embeddings=53, **PAIR)),
    "pegasus": _pair(lambda: _t.PegasusConfig(max_position_embeddings=53, **PAIR)),
    "whisper": _pair(
        lambda: _t.WhisperConfig(
            num_mel_bins=7,
            max_source_positions=SOURCE,
            max_target_positions=53,
            begin_suppress_tokens=None,
            suppress_tokens=None,
            **{**PAIR, "d_model": 30},
        ),
        kind="speech pair",
    ),
    # Sound.
    "wav2vec2": _of(
        "encoder.layers.{}.attention", lambda: _t.Wav2Vec2Config(**AUDIO), kind="audio"
    ),
    "hubert": _of("encoder.layers.{}.attention", lambda: _t.HubertConfig(**AUDIO), kind="audio"),
    # Pictures.
    "vit": _of(
        "layers.{}.attention",
        lambda: _t.ViTConfig(intermediate_size=37, **HEADS, **IMAGE),
        kind="image",
    ),
    "dinov2": _of(
        "encoder.layer.{}.attention",
        lambda: _t.Dinov2Config(mlp_ratio=2, **HEADS, **IMAGE),
        kind="image",
    ),
    "clip": Family(
        lambda: _t.CLIPConfig(
            text_config={**HEADS, **SIZES, "eos_token_id": 2},
            vision_config={"intermediate_size": 37, **HEADS, **IMAGE},
            projection_dim=7,
        ),
        {
            "text_model.encoder.layers.{}.self_attn": "text_model_output.attentions",
            "vision_model.encoder.layers.{}.self_attn": "vision_model_output.attentions",
        },
        kind="both",
    ),
    "siglip": Family(
        lambda: _t.SiglipConfig(
            text_config={**HEADS, **SIZES},
            vision_config={"intermediate_size": 37, **HEADS, **IMAGE},
        ),
        {
            "text_model.encoder.layers.{}.self_attn": "text_model_output.attentions",
            "vision_model.encoder.layers.{}.self_attn": "vision_model_output.attentions",
        },
        kind="both",
        also=("vision_model.head.attention",),
    ),
}
TEXT = [name for name, family in FAMILIES.items() if family.reads_text]
GENERATING = [name for name, family in FAMILIES.items() if family.generates is not None]
DECODERS = [name for name in GENERATING if FAMILIES[name].kind == "decoder"]
WINDOWED = [name for name in DECODERS if hasattr(FAMILIES[name].config(), "sliding_window")]


def build(name: str, implementation: str, generating: bool = False) -> nn.Module:
    """A model in eval mode, the same numbers in it every time."""
    family = FAMILIES[name]
    config = family.config()
    if not generating:
        make = transformers.AutoModel
    elif family.kind == "decoder":
        make = transformers.AutoModelForCausalLM
    elif family.kind == "speech pair":
        make = transformers.AutoModelForSpeechSeq2Seq
    else:
        make = transformers.AutoModelForSeq2SeqLM
    torch.manual_seed(23)
    model = make.from_config(config, attn_implementation=implementation).eval()
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    generator = torch.Generator().manual_seed(29)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if id(parameter) in embeddings:
                parameter.copy_(noise)
            elif parameter.ndim > 1:
                parameter.copy_(noise * GAIN / parameter[0].numel() ** 0.5)
            else:
                parameter.nan_to_num_().add_(0.2 * noise)
    return model


@lru_cache(maxsize=3)
def shared(name: str, implementation: str, generating: bool = False) -> nn.Module:
    """The same, for tests that do no more than call it: several of one model follow each other."""
    return build(name, implementation, generating)


def presence(padding: str, length: int) -> Tensor:
    """(batch, length) int64: 1 for tokens, 0 for padding, of which the second item has four."""
    present = torch.ones(BATCH, length, dtype=torch.int64)
    if padding == "left":
        present[1, :4] = 0
    elif padding == "right":
        present[1, -4:] = 0
    return present


def some_ids(length: int = TOKENS, batch: int = BATCH) -> Tensor:
    return torch.randint(3, VOCABULARY, (batch, length), generator=_generator(length))


def inputs(name: str, padding: str = "none") -> dict[str, Tensor]:
    """What a model is called with."""
    kind = FAMILIES[name].kind
    sound = {"input_values": torch.randn(BATCH, 173, generator=_generator(5))}
    picture = {"pixel_values": torch.randn(BATCH, 2, 14, 14, generator=_generator(7))}
    text = {"input_ids": some_ids(), "attention_mask": presence(padding, TOKENS)}
    if kind == "audio":
        return sound
    if kind == "image":
        return picture
    if kind == "both":
        return {**picture, **text}
    if kind == "pair":
        return {
            "input_ids": some_ids(SOURCE),
            "attention_mask": presence(padding, SOURCE),
            "decoder_input_ids": some_ids(),
            "decoder_attention_mask": presence(padding, TOKENS),
        }
    if kind == "speech pair":
        features = torch.randn(BATCH, 7, 2 * SOURCE, generator=_generator(3))
        return {"input_features": features, "decoder_input_ids": some_ids()}
    return text


def own_weights(name: str, output: Any, prefix: str = "") -> dict[str, list[Tensor]]:
    """What a model's `output_attentions=True` gave, in the order of the calls, by module."""
    found: dict[str, list[Tensor]] = {}
    for place, field in FAMILIES[name].places.items():
        holder = output
        for part in field.split("."):
            holder = getattr(holder, part)
        for layer, weights in enumerate(holder):
            found.setdefault(prefix + place.format(layer), []).append(weights)
    return found


@cache
def truth(name: str, padding: str = "none") -> dict[str, list[Tensor]]:
    """The weights of the family's own eager attention, by module."""
    with torch.no_grad():
        output = build(name, "eager")(**inputs(name, padding), output_attentions=True)
    return own_weights(name, output)


def present_rows(name: str, place: str, padding: str, length: int) -> Tensor:
    """(batch, length) bool: queries of a module that are no padding."""
    if padding == "none" or not FAMILIES[name].reads_text:
        return torch.ones(BATCH, length, dtype=torch.bool)
    return presence(padding, length).bool()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
