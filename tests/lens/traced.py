"""Tiny random models of each shape whose streams can be taken apart, and ids for them to read."""

import functools

import torch
import transformers

from pellucid.models import Config, Decoder, Encoder, EncoderDecoder

VOCABULARY, TOKENS, LAYERS = 61, 11, 2
SIZES = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 37,
    "max_position_embeddings": 53,
    "initializer_range": 0.4,
}
GROUPED = {"hidden_size": 66, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10}
HEADS = {"hidden_size": 33, "num_attention_heads": 3}
GPT2 = {"n_embd": 33, "n_layer": LAYERS, "n_head": 3, "n_positions": 53, "initializer_range": 0.4}
OWN = {"vocabulary": VOCABULARY, "layers": LAYERS, "width": 33, "heads": 3, "hidden": 37}
THEIRS = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED, **SIZES),
    "mistral": lambda: transformers.MistralConfig(sliding_window=5, **GROUPED, **SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED, **SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, **SIZES),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCABULARY, **GPT2),
}
"""Decoders of transformers."""
ENCODERS = {
    "bert": lambda: transformers.BertConfig(**HEADS, **SIZES),
    "roberta": lambda: transformers.RobertaConfig(pad_token_id=1, **HEADS, **SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=33,
        n_heads=3,
        n_layers=LAYERS,
        hidden_dim=37,
        max_position_embeddings=53,
        initializer_range=0.4,
    ),
}
"""Encoders of transformers."""
OURS = {
    "own decoder": lambda: Decoder(
        Config(
            kind="decoder",
            norm="rms",
            norm_first=True,
            position="rotary",
            head_dim=10,
            kv_heads=1,
            gated=True,
            activation="silu",
            bias=False,
            head_norm=True,
            **OWN,
        )
    ),
    "own sines": lambda: Decoder(
        Config(kind="decoder", position="sinusoidal", **{**OWN, "width": 36})
    ),
    "own encoder": lambda: Encoder(
        Config(kind="encoder", position="alibi", types=2, embedding_norm=True, **OWN)
    ),
    "own encoder-decoder": lambda: EncoderDecoder(
        Config(kind="encoder-decoder", position="learned", norm_first=True, **OWN)
    ),
}
"""Models of Pellucid, of shapes that differ in what a sum could miss."""
ROTARY = {"norm_first": True, "position": "rotary"}
BLOCKS = {
    "parallel": {**ROTARY, "parallel": True},
    "parallel, one norm": {
        **ROTARY,
        "parallel": True,
        "shared_norm": True,
        "rotary_pairs": "neighbours",
        "rotary_dim": 6,
    },
    "norms of outputs": {
        **ROTARY,
        "branch_norms": "after",
        "norm": "rms",
        "head_norm": True,
        "head_norm_kind": "joint",
    },
    "norms of both": {
        **ROTARY,
        "branch_norms": "both",
        "norm": "rms",
        "norm_offset": True,
        "score_softcap": 3.0,
        "logit_softcap": 9.0,
        "embedding_scale": 6.0,
    },
    "factors": {
        **ROTARY,
        "residual_scale": 0.3,
        "embedding_scale": 2.0,
        "attention_scale": 0.1,
        "logit_scale": 0.5,
    },
    "norms of each head": {**ROTARY, "head_norm": True, "head_norm_kind": "own"},
    "a norm of embeddings": {
        "norm_first": True,
        "embedding_norm": True,
        "first_norm": False,
        "position": "alibi",
    },
    "relative": {"norm_first": True, "norm": "rms", "position": "relative", "bias": False},
    "sinks": {**ROTARY, "norm": "rms", "sinks": True},
    "a bias of logits": {"norm_first": True, "tied": False, "logit_bias": True},
    "a window": {**ROTARY, "window": 4, "window_layers": (1,)},
    "segment types": {"position": "learned", "types": 2, "embedding_norm": True},
    "clipped": {**ROTARY, "qkv_clip": 0.5},
}
"""Ways to build the blocks of a decoder; the last is not linear between the stream and a score."""
DECODERS = [*THEIRS, "own decoder", "own sines"]


@functools.cache
def traced(name: str) -> torch.nn.Module:
    """A model in eval mode, with weights far from even; each is made once."""
    torch.manual_seed(23)
    if name in THEIRS:
        model = transformers.AutoModelForCausalLM.from_config(THEIRS[name]())
    elif name in ENCODERS:
        model = transformers.AutoModel.from_config(ENCODERS[name]())
    elif name in BLOCKS:
        sizes = {**OWN, "width": 36}
        model = Decoder(Config(kind="decoder", **{**sizes, **BLOCKS[name]}))
    else:
        model = OURS[name]()
    with torch.no_grad():
        for numbers in model.parameters():
            if (name in OURS or name in BLOCKS) and numbers.ndim > 1:
                numbers.normal_(std=0.4)
            if numbers.ndim == 1:  # biases and norms, which are made even
                numbers.add_(torch.randn_like(numbers) * 0.3)
    return model.eval()


def some_ids(tokens: int = TOKENS, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (1, tokens), generator=generator)


def run(model: torch.nn.Module) -> object:
    """Run a model on some ids."""
    if isinstance(model, EncoderDecoder):
        return model(some_ids(), some_ids(7, seed=5))
    return model(some_ids())
