"""Models of transformers: the same as by hooks before their output projections, in float64."""

from copy import deepcopy

import pytest
import torch
import transformers

import pellucid
from pellucid.lens.replays import Replay
from tests.ablation.by_hand import IDS, SOURCE

FAMILIES = {
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_embd=24, n_layer=3, n_head=3, n_positions=53, vocab_size=307),
        "c_proj",
    ),
    "llama": (  # six heads share the keys of two
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(
            hidden_size=66, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
            head_dim=10, intermediate_size=37, vocab_size=307,
        ),
        "o_proj",
    ),
    "gemma2": (  # logits with a cap, after the projection to the vocabulary
        transformers.Gemma2ForCausalLM,
        transformers.Gemma2Config(
            hidden_size=36, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
            head_dim=12, intermediate_size=37, vocab_size=307, final_logit_softcapping=5.0,
        ),
        "o_proj",
    ),
    "t5": (  # the first block makes the position bias of the others
        transformers.T5ForConditionalGeneration,
        transformers.T5Config(
            vocab_size=307, d_model=33, d_kv=11, d_ff=37, num_layers=2, num_heads=3
        ),
        "o",
    ),
    "bert": (
        transformers.BertForMaskedLM,
        transformers.BertConfig(
            vocab_size=307, hidden_size=33, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=37,
        ),
        "output.dense",
    ),
    "albert": (  # the same layer again and again: every run is a full one
        transformers.AlbertForMaskedLM,
        transformers.AlbertConfig(
            vocab_size=307, hidden_size=33, num_hidden_layers=3, num_attention_heads=3,
            embedding_size=17, intermediate_size=37,
        ),
        "dense",
    ),
}  # fmt: skip


def made(family):
    kind, config, _ = FAMILIES[family]
    config.initializer_range = 0.4  # weights far from even, so that a slip shows
    torch.manual_seed(13)
    model = kind(config).eval()
    inputs = {"input_ids": IDS}
    if family == "t5":
        for parameter in model.parameters():
            parameter.data = 0.3 * torch.randn_like(parameter)
        inputs = {"input_ids": SOURCE, "decoder_input_ids": IDS}
    return model, inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_each_head_as_by_hooks(family):
    model, inputs = made(family)
    found = pellucid.ablate(model, inputs, controls=2, top=1)
    assert [len(one) for one in found.controls.values()] == [2]
    exact = deepcopy(model).double()
    with torch.no_grad():
        plain = exact(**inputs).logits[0].log_softmax(-1)
        for row in found:
            place = FAMILIES[family][2]
            outside = row.name.rpartition(".")[0] if "." in place else row.name
            projection = exact.get_submodule(f"{outside}.{place}")
            heads = sum(1 for other in found if other.name == row.name)

            def zeros(module, given, heads=heads, head=row.head):
                x = given[0].clone()
                x.view(*x.shape[:-1], heads, -1)[..., head, :] = 0
                return (x,)

            handle = projection.register_forward_pre_hook(zeros)
            changed = exact(**inputs).logits[0].log_softmax(-1)
            handle.remove()
            truth = float((plain.exp() * (plain - changed)).sum(-1).mean())
            assert truth > 2e-5
            assert row.effect == pytest.approx(truth, rel=2e-4, abs=1e-6), row.place


@pytest.mark.parametrize("family", FAMILIES)
def test_which_run_from_a_later_block(family):
    model, inputs = made(family)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(**inputs)

    @torch.no_grad()
    def run(items):
        return model(**{name: one.repeat(items, 1) for name, one in inputs.items()})

    replay = Replay(model, run, list(seen.names))
    # GPT-2 takes the length of its hidden states from the ids.
    assert replay.ends_alone == (family not in ("albert", "gpt2"))
    assert (replay.first([list(seen.names)[-1]]) > 0) == (family != "albert")
