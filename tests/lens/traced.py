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
DECODERS = [*THEIRS, "own decoder", "own sines"]


@functools.cache
def traced(name: str) -> torch.nn.Module:
    """A model in eval mode, with weights far from even; each is made once."""
    torch.manual_seed(23)
    if name in THEIRS:
        model = transformers.AutoModelForCausalLM.from_config(THEIRS[name]())
    elif name in ENCODERS:
        model = transformers.AutoModel.from_config(ENCODERS[name]())
    else:
        model = OURS[name]()
    with torch.no_grad():
        for numbers in model.parameters():
            if name in OURS and numbers.ndim > 1:
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
