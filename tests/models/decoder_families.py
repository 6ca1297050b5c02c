"""Configs of tiny decoders of the families that a table of keys describes."""

from typing import Any

import transformers as _t

from tests.sizes import GPT2, GROUPED, LAYERS, SIZES, VOCABULARY, WINDOW

WIDE = {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 2, **SIZES}
HEADS_OF_10 = {**GROUPED, **SIZES}
EVEN = {**SIZES, "hidden_size": 60, "num_attention_heads": 6}
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
LEARNED = {**GPT2, "n_embd": 30, "n_inner": 37}
BLOOM = {
    "vocab_size": VOCABULARY,
    "hidden_size": 33,
    "n_layer": LAYERS,
    "n_head": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MPT = {
    "vocab_size": VOCABULARY,
    "d_model": 33,
    "n_layers": LAYERS,
    "n_heads": 3,
    "max_seq_len": 53,
}
NEO = {
    "vocab_size": VOCABULARY,
    "hidden_size": 33,
    "num_layers": LAYERS,
    "num_heads": 3,
    "max_position_embeddings": 53,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 33,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 3,
    "ffn_dim": 37,
    "max_position_embeddings": 53,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "word_embed_proj_dim": 33,
}
ORIGINAL = "original_max_position_embeddings"
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 3.0, ORIGINAL: 16}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "short_factor": [1.0, 1.3, 1.7, 2.1, 2.9],
    "long_factor": [1.1, 2.3, 3.1, 4.7, 5.3],
    ORIGINAL: 16,
}


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1000.0, **values}}


def _decoder(config: Any, base: str = "model", **others: Any) -> dict[str, Any]:
    return {"config": config, "base": base, **others}


NEOX = {"base": "gpt_neox"}
OLD = {"base": "transformer"}
ROUGH = {"is_exact": False}
"""transformers computes some of it in float32, whatever the model."""
EXPERTS = {**ROUGH, "has_experts": True}

DECODERS = {
    "gemma": _decoder(lambda: _t.GemmaConfig(**HEADS_OF_10)),
    "gemma2": _decoder(
        lambda: _t.Gemma2Config(
            query_pre_attn_scalar=13,
            attn_logit_softcapping=1.5,
            final_logit_softcapping=2.5,
            attention_bias=True,
            **MIXED,
            **HEADS_OF_10,
        ),
        eager=True,
        **ROUGH,
    ),
    "gemma3_text": _decoder(
        lambda: _t.Gemma3TextConfig(
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
            query_pre_attn_scalar=13,
            **MIXED,
            **HEADS_OF_10,
        )
    ),
    "phi": _decoder(lambda: _t.PhiConfig(qk_layernorm=True, partial_rotary_factor=0.6, **WIDE)),
    "phi3": _decoder(
        lambda: _t.Phi3Config(sliding_window=WINDOW, partial_rotary_factor=0.6, **WIDE)
    ),
    "phi3, long": _decoder(
        lambda: _t.Phi3Config(
            rope_parameters=dict(LONG), **{ORIGINAL: 16}, tie_word_embeddings=True, **WIDE
        ),
        written_as="llama",
    ),
    "olmo": _decoder(lambda: _t.OlmoConfig(clip_qkv=1.1, **WIDE)),
    "olmo2": _decoder(lambda: _t.Olmo2Config(**WIDE)),
    "olmo3": _decoder(
        lambda: _t.Olmo3Config(
            rope_parameters={
                "full_attention": {
                    **{"rope_type": "yarn", "factor": 3.0, "rope_theta": 1000.0},
                    ORIGINAL: 16,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
            **MIXED,
            **WIDE,
        )
    ),
    "gpt_neox": _decoder(lambda: _t.GPTNeoXConfig(rotary_pct=0.4, **EVEN), **NEOX),
    "gpt_neox, in turns": _decoder(
        lambda: _t.GPTNeoXConfig(use_parallel_residual=False, attention_bias=False, **EVEN),
        **NEOX,
    ),
    "gpt_neo": _decoder(
        lambda: _t.GPTNeoConfig(
            attention_types=[[["global", "local"], 1]],
            window_size=WINDOW,
            intermediate_size=37,
            **NEO,
        ),
        **OLD,
        **ROUGH,
    ),
    "gptj": _decoder(lambda: _t.GPTJConfig(rotary_dim=4, **LEARNED), **OLD, **ROUGH),
    "codegen": _decoder(
        lambda: _t.CodeGenConfig(rotary_dim=4, **{**LEARNED, "n_embd": 40, "n_head": 4}),
        written_as="gptj",
        **OLD,
        **ROUGH,
    ),
    "gpt_bigcode": _decoder(lambda: _t.GPTBigCodeConfig(**LEARNED), **OLD),
    "gpt_bigcode, all heads": _decoder(
        lambda: _t.GPTBigCodeConfig(multi_query=False, scale_attn_weights=False, **LEARNED),
        written_as="gpt2",
        **OLD,
    ),
    "starcoder2": _decoder(lambda: _t.Starcoder2Config(sliding_window=WINDOW, **WIDE)),
    "stablelm": _decoder(
        lambda: _t.StableLmConfig(
            qk_layernorm=True, use_qkv_bias=True, partial_rotary_factor=0.4, **WIDE
        )
    ),
    "stablelm, side by side": _decoder(
        lambda: _t.StableLmConfig(use_parallel_residual=True, **{**WIDE, "hidden_size": 96})
    ),
    "falcon": _decoder(lambda: _t.FalconConfig(ffn_hidden_size=37, **EVEN), **OLD),
    "falcon, new": _decoder(
        lambda: _t.FalconConfig(
            new_decoder_architecture=True, num_kv_heads=2, bias=True, ffn_hidden_size=37, **EVEN
        ),
        **OLD,
    ),
    "falcon, new with one norm": _decoder(
        lambda: _t.FalconConfig(
            new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, **EVEN
        ),
        **OLD,
    ),
    "falcon, all heads in turns": _decoder(
        lambda: _t.FalconConfig(multi_query=False, parallel_attn=False, **EVEN),
        written_as="starcoder2",
        **OLD,
    ),
    "smollm3": _decoder(lambda: _t.SmolLM3Config(no_rope_layers=[1, 0], **WIDE)),
    "granite": _decoder(
        lambda: _t.GraniteConfig(
            embedding_multiplier=3.0,
            attention_multiplier=0.3,
            residual_multiplier=0.7,
            logits_scaling=13.0,
            **WIDE,
        )
    ),
    "cohere": _decoder(lambda: _t.CohereConfig(use_qk_norm=True, logit_scale=0.3, **WIDE), **ROUGH),
    "cohere2": _decoder(lambda: _t.Cohere2Config(**MIXED, **WIDE), **ROUGH),
    "glm": _decoder(lambda: _t.GlmConfig(partial_rotary_factor=0.4, **HEADS_OF_10)),
    "glm4": _decoder(lambda: _t.Glm4Config(partial_rotary_factor=0.4, **HEADS_OF_10)),
    "nemotron": _decoder(
        lambda: _t.NemotronConfig(partial_rotary_factor=0.4, mlp_bias=True, **HEADS_OF_10)
    ),
    "opt": _decoder(lambda: _t.OPTConfig(**OPT)),
    "opt, norms after": _decoder(
        lambda: _t.OPTConfig(do_layer_norm_before=False, enable_bias=False, **OPT)
    ),
    "bloom": _decoder(lambda: _t.BloomConfig(**BLOOM), **OLD, **ROUGH),
    "mpt": _decoder(
        lambda: _t.MptConfig(attn_config={"clip_qkv": 1.1, "softmax_scale": 0.3}, **MPT),
        **OLD,
        **ROUGH,
    ),
    "arcee": _decoder(lambda: _t.ArceeConfig(attention_bias=True, **HEADS_OF_10)),
    "seed_oss": _decoder(
        lambda: _t.SeedOssConfig(attention_out_bias=True, **HEADS_OF_10), written_as="llama"
    ),
    "ernie4_5": _decoder(lambda: _t.Ernie4_5Config(use_bias=True, **HEADS_OF_10), **ROUGH),
    "helium": _decoder(lambda: _t.HeliumConfig(mlp_bias=True, **WIDE, head_dim=10)),
    "exaone4": _decoder(lambda: _t.Exaone4Config(**MIXED, **WIDE)),
    "mixtral": _decoder(
        lambda: _t.MixtralConfig(num_local_experts=5, sliding_window=WINDOW, **HEADS_OF_10),
        **EXPERTS,
    ),
    "qwen2_moe": _decoder(
        lambda: _t.Qwen2MoeConfig(
            num_experts=5,
            num_experts_per_tok=3,
            moe_intermediate_size=13,
            shared_expert_intermediate_size=17,
            mlp_only_layers=[1],
            **WIDE,
        ),
        **EXPERTS,
    ),
    "qwen3_moe": _decoder(
        lambda: _t.Qwen3MoeConfig(
            num_experts=5,
            num_experts_per_tok=3,
            moe_intermediate_size=13,
            norm_topk_prob=True,
            head_dim=10,
            **WIDE,
        ),
        **EXPERTS,
    ),
    "olmoe": _decoder(
        lambda: _t.OlmoeConfig(num_experts=5, num_experts_per_tok=3, clip_qkv=1.1, **WIDE),
        **EXPERTS,
    ),
    "gpt_oss": _decoder(
        lambda: _t.GptOssConfig(
            **{"num_local_experts": 5, "num_experts_per_tok": 3, "swiglu_limit": 0.7},
            rope_parameters={**YARN, "truncate": False},
            **MIXED,
            **HEADS_OF_10,
        ),
        eager=True,
        has_experts=True,
    ),
    "llama, yarn": _decoder(
        lambda: _t.LlamaConfig(**_rope("yarn", factor=3.0, **{ORIGINAL: 16}), **WIDE)
    ),
    "llama, dynamic": _decoder(
        lambda: _t.LlamaConfig(
            **_rope("dynamic", factor=3.0), **{**WIDE, "max_position_embeddings": 17}
        )
    ),
    "llama, longrope": _decoder(
        lambda: _t.LlamaConfig(rope_parameters={**LONG, "factor": 3.0}, **WIDE)
    ),
    "qwen2, windows of some layers": _decoder(
        lambda: _t.Qwen2Config(
            use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1, **WIDE
        )
    ),
    "qwen3, windows of some layers": _decoder(
        lambda: _t.Qwen3Config(use_sliding_window=True, **MIXED, **HEADS_OF_10)
    ),
}
