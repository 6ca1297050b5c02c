"""Stacks of any config, and ids for them to read."""

import torch
from hypothesis import strategies as st

from pellucid.models import Config, Decoder, Encoder, EncoderDecoder

VOCABULARY, TOKENS, BATCH = 53, 19, 3


@st.composite
def configs(draw, kind):
    position = draw(
        st.sampled_from(["sinusoidal", "learned", "rotary", "relative", "alibi", "none"])
    )
    pairs, group = draw(st.sampled_from([(1, 1), (1, 3), (2, 1), (2, 3)]))
    dim = draw(st.sampled_from([6, 10, 14]))
    heads = pairs * group
    width = heads * dim if draw(st.booleans()) else 22
    causal = kind != "encoder"
    return Config(
        kind=kind,
        vocabulary=VOCABULARY,
        width=width,
        layers=draw(st.integers(1, 2)),
        decoder_layers=draw(st.sampled_from([None, 1, 2])) if kind == "encoder-decoder" else None,
        heads=heads,
        kv_heads=pairs,
        head_dim=dim,
        hidden=draw(st.sampled_from([17, 31])),
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_first=draw(st.booleans()),
        embedding_norm=draw(st.booleans()),
        head_norm=draw(st.booleans()),
        activation=draw(st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"])),
        gated=draw(st.booleans()),
        bias=draw(st.booleans()),
        qkv_bias=draw(st.sampled_from([None, True, False])),
        output_bias=draw(st.sampled_from([None, True, False])),
        position=position,
        positions=draw(st.sampled_from([None, 37])) if position != "learned" else 37,
        position_offset=draw(st.sampled_from([0, 2])),
        interleaved=draw(st.booleans()),
        inclusive=draw(st.booleans()),
        relative_buckets=8,
        relative_distance=13,
        relative_each=draw(st.booleans()),
        window=draw(st.sampled_from([None, 1, 5])) if causal else None,
        types=draw(st.sampled_from([0, 2])),
        embedding_scale=draw(st.sampled_from([1.0, 3.0])),
        attention_scale=draw(st.sampled_from([None, 0.7])),
        tied=draw(st.booleans()),
        logit_scale=draw(st.sampled_from([1.0, 0.5])),
        logit_bias=draw(st.booleans()),
    )


def of(kind, config, seed=0):
    """A model whose every number matters: the usual start leaves biases at zero."""
    torch.manual_seed(seed)
    model = {"encoder": Encoder, "decoder": Decoder, "encoder-decoder": EncoderDecoder}[kind](
        config
    )
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def some_ids(batch=BATCH, tokens=TOKENS, seed=1):
    return torch.randint(
        0, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(seed)
    )
