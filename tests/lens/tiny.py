"""Tiny random models of transformers, and ids for them to read."""

import torch
import transformers

VOCABULARY, TOKENS, LAYERS = 61, 11, 2
SIZES = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 37,
    "max_position_embeddings": 53,
}
GROUPED = {"hidden_size": 66, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(hidden_size=33, num_attention_heads=3, **SIZES),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=33, n_layer=LAYERS, n_head=3, n_positions=53, vocab_size=VOCABULARY
    ),
    "llama, grouped heads": lambda: transformers.LlamaConfig(**GROUPED, **SIZES),
    "mistral, a window of 5": lambda: transformers.MistralConfig(
        sliding_window=5, **GROUPED, **SIZES
    ),
    "gemma 2, a softcap": lambda: transformers.Gemma2Config(
        sliding_window=5, attn_logit_softcapping=0.7, query_pre_attn_scalar=7, **GROUPED, **SIZES
    ),
    "gpt-oss, sinks": lambda: transformers.GptOssConfig(
        # The experts' grouped product wants rows of whole 16 bytes.
        sliding_window=5,
        num_local_experts=3,
        num_experts_per_tok=2,
        **{**GROUPED, **SIZES, "hidden_size": 68, "intermediate_size": 36},
    ),
}


def build(name: str, implementation: str) -> torch.nn.Module:
    torch.manual_seed(23)
    config = CONFIGS[name]()
    config.initializer_range = 0.5  # weights far from even, so that a slip shows
    model = transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("sinks"):  # these are made unset
            torch.nn.init.normal_(parameter)
    return model


def some_ids(batch: int = 2, tokens: int = TOKENS) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(3))
