"""Stacks of any config, and ids for them to read."""

import torch
from hypothesis import strategies as st

from pellucid.models import Config, Decoder, Encoder, EncoderDecoder

VOCABULARY, TOKENS, BATCH = 53, 19, 3
YARN = (("rope_type", "yarn"), ("factor", 3.0), ("original_max_position_embeddings", 8))


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
    layers = draw(st.integers(1, 2))
    norm_first = draw(st.booleans())
    parallel = norm_first and kind == "decoder" and draw(st.booleans())
    branch_norms = ["before", "both"] if parallel else ["before", "after", "both"]
    some = st.sampled_from([None, (), (layers - 1,)])
    # Half of the configs have none of the settings that the compiled step does not know.
    rare = draw(st.booleans())

    def rarely(*values):
        return draw(st.sampled_from(values)) if rare else values[0]

    gated = draw(st.booleans())
    return Config(
        kind=kind,
        vocabulary=VOCABULARY,
        width=width,
        layers=layers,
        decoder_layers=draw(st.sampled_from([None, 1, 2])) if kind == "encoder-decoder" else None,
        heads=heads,
        kv_heads=pairs,
        head_dim=dim,
        hidden=draw(st.sampled_from([17, 31])),
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_weight=rarely(True, True, False),
        norm_bias=rarely(True, False),
        norm_offset=rarely(False, True),
        norm_first=norm_first,
        branch_norms=rarely(*branch_norms) if norm_first else "before",
        parallel=rare and parallel,
        shared_norm=rare and parallel and draw(st.booleans()),
        residual_scale=rarely(1.0, 0.7),
        embedding_norm=draw(st.booleans()),
        head_norm=draw(st.booleans()),
        head_norm_kind=rarely("shared", "own", "joint"),
        activation=draw(st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"])),
        gated=gated,
        feed_clamp=rarely(None, 0.3) if gated else None,
        up_offset=rarely(0.0, 1.0) if gated else 0.0,
        experts=rarely(0, 0, 4),
        experts_used=rarely(2, 3),
        experts_normalised=rarely(True, False),
        expert_hidden=rarely(None, 13),
        shared_hidden=rarely(0, 11),
        dense_layers=rarely((), (0,)),
        bias=draw(st.booleans()),
        qkv_bias=draw(st.sampled_from([None, True, False])),
        output_bias=draw(st.sampled_from([None, True, False])),
        position=position,
        positions=draw(st.sampled_from([None, 37])) if position != "learned" else 37,
        position_offset=draw(st.sampled_from([0, 2])),
        interleaved=draw(st.booleans()),
        inclusive=draw(st.booleans()),
        rope_scaling=rarely((), YARN),
        rotary_dim=rarely(None, 4),
        rotary_pairs=rarely("halves", "neighbours"),
        rotary_layers=draw(some) if rare else None,
        relative_buckets=8,
        relative_distance=13,
        relative_each=draw(st.booleans()),
        window=draw(st.sampled_from([None, 1, 5])) if causal else None,
        window_layers=draw(some) if rare else None,
        window_theta=rarely(None, 100.0),
        types=draw(st.sampled_from([0, 2])),
        embedding_scale=draw(st.sampled_from([1.0, 3.0])),
        attention_scale=draw(st.sampled_from([None, 0.7])),
        score_softcap=rarely(None, 1.5),
        sinks=rarely(False, True),
        qkv_clip=rarely(None, 1.1),
        tied=draw(st.booleans()),
        logit_scale=draw(st.sampled_from([1.0, 0.5])),
        logit_bias=draw(st.booleans()),
        logit_softcap=rarely(None, 2.0),
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
