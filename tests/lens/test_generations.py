"""Generations whose steps see other keys than those of a triangle."""

import pytest
import torch
import transformers
from torch import nn

import pellucid

VOCABULARY, NEW = 53, 7
NAME = "model.layers.0.self_attn"
NEAR = {"atol": 2e-6, "rtol": 1e-4}


def in_chunks(implementation):
    """The first layer sees chunks of four positions, the second everything before."""
    torch.manual_seed(5)
    config = transformers.Llama4TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=22,
        intermediate_size=17,
        intermediate_size_mlp=17,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=10,
        attention_chunk_size=4,
        num_local_experts=2,
        num_experts_per_tok=1,
        layer_types=["chunked_attention", "full_attention"],
        no_rope_layers=[1, 0],
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    make = transformers.Llama4ForCausalLM._from_config
    return make(config, attn_implementation=implementation).eval()


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 11])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_chunks_are_one_record(implementation, length):
    model = in_chunks(implementation)
    prompt = torch.randint(2, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            written = model.generate(prompt, max_new_tokens=NEW, do_sample=False)
        whole = in_chunks("eager")(written[:, :-1], output_attentions=True).attentions
    assert (len(seen.records), seen.in_pieces, seen.unseen) == (2, {}, {})
    for record, expected in zip(seen.records, whole, strict=True):
        torch.testing.assert_close(record.weights.dense(), expected, **NEAR)
    assert "documents" in str(seen.record(NAME).mask)


def test_steps_that_follow_no_rule_are_pieces_and_said(tmp_path):
    """Each step looks past one key, another each time."""

    class Attention(nn.Module):
        def forward(self, x, cache):
            key, _ = cache.update(x, x, 0)
            mask = torch.ones(1, 1, x.shape[-2], key.shape[-2], dtype=torch.bool)
            if x.shape[-2] == 1:
                mask[..., 2 + key.shape[-2] % 2] = False
            return nn.functional.scaled_dot_product_attention(x, key, key, attn_mask=mask)

    model, cache = Attention(), transformers.DynamicCache()
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(torch.randn(2, 3, 5, 7), cache)
        for _ in range(3):
            model(torch.randn(2, 3, 1, 7), cache)
    assert [record.shape[-2:] for record in seen.records] == [(5, 5), (1, 6), (1, 7), (1, 8)]
    assert {record.stream for record in seen.records} == {0}
    assert "no rule that grows" in seen.in_pieces[""]
    assert "in pieces: " in repr(seen)
    seen.save(tmp_path / "x.safetensors")
    assert pellucid.Recording.load(tmp_path / "x.safetensors").in_pieces == seen.in_pieces
