"""Rollout against the paper's product of dense matrices, in float64."""

import importlib

import pytest
import torch
import transformers
from tests.attention.cases import assert_within_budget

import pellucid
from pellucid.errors import (
    ArgumentError,
    OutOfRangeError,
    TooLargeError,
    TypeMismatchError,
    UnknownNameError,
)
from pellucid.lens import Recording, rollout
from pellucid.lens.attention_rollout import FEW_QUERIES

VOCABULARY, TOKENS, LAYERS = 61, 37, 3
FUSE = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}
ROUNDING = torch.finfo(torch.float32).eps


def build(kind, implementation="sdpa", **options):
    torch.manual_seed(23)
    if kind == "bert":
        sizes = {"hidden_size": 33, "num_attention_heads": 3, "intermediate_size": 37}
        config = transformers.BertConfig(
            vocab_size=VOCABULARY, num_hidden_layers=LAYERS, initializer_range=0.5, **sizes
        )
    elif kind == "mistral":
        sizes = {"hidden_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = transformers.MistralConfig(
            vocab_size=VOCABULARY,
            num_hidden_layers=LAYERS,
            intermediate_size=37,
            sliding_window=5,
            initializer_range=0.5,
            **sizes,
        )
    elif kind == "albert":  # one layer, used by all
        config = transformers.AlbertConfig(
            vocab_size=VOCABULARY,
            embedding_size=11,
            hidden_size=33,
            num_hidden_layers=LAYERS,
            num_attention_heads=3,
            intermediate_size=37,
        )
    elif kind == "marian":
        config = transformers.MarianConfig(
            vocab_size=VOCABULARY,
            d_model=22,
            encoder_layers=LAYERS,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=13,
            decoder_ffn_dim=13,
            pad_token_id=0,
            decoder_start_token_id=0,
            max_position_embeddings=53,
            init_std=0.5,
        )
    else:
        config = transformers.GPT2Config(
            n_embd=33,
            n_layer=LAYERS,
            n_head=3,
            n_positions=53,
            vocab_size=VOCABULARY,
            initializer_range=0.5,
            bos_token_id=1,
            eos_token_id=1,
        )
    return transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()


def some_ids(tokens=TOKENS, batch=2):
    return torch.randint(1, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(3))


def watched(model, ids, **inputs):
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(ids, **inputs)
    return seen


def by_the_paper(layers, heads="mean", residual=0.5):
    """Abnar and Zuidema 2020, section 3, in the dtype of the weights of each layer."""
    product = None
    for weights in layers:
        raw = (1 - residual) * FUSE[heads](weights, dim=1)
        raw = raw + residual * torch.eye(raw.shape[-1], dtype=raw.dtype)
        raw = raw / raw.sum(-1, keepdim=True).masked_fill(raw.sum(-1, keepdim=True) == 0, 1)
        product = raw if product is None else raw @ product
    return product


def attentions(kind, ids, dtype, **inputs):
    with torch.no_grad():
        model = build(kind, "eager").to(dtype)
        return model(ids, output_attentions=True, **inputs).attentions


@pytest.mark.parametrize("residual", [0.5, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("heads", ["mean", "max", "min"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "mistral"])
def test_it_is_the_papers_product(kind, heads, residual, monkeypatch):
    # Blocks of a few rows, as those of long texts are.
    module = importlib.import_module("pellucid.lens.attention_rollout")
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 5 * 2 * 4 * TOKENS)
    ids = some_ids()
    exact, plain = (
        by_the_paper(attentions(kind, ids, dtype), heads, residual)
        for dtype in (torch.float64, torch.float32)
    )
    seen = watched(build(kind), ids)
    for queries in (None, 5, -1, [3, -2], slice(7, 11), torch.tensor([29, 0])):
        chosen = slice(None) if queries is None else queries
        chosen = [chosen] if isinstance(chosen, int) else chosen
        actual = rollout(seen, queries, heads=heads, residual=residual)
        # Scores of these models reach some tens.
        assert_within_budget(actual, plain[:, chosen], exact[:, chosen], 32 * ROUNDING)
        torch.testing.assert_close(actual.sum(-1), torch.ones(actual.shape[:-1]))


def test_few_and_many_queries_agree():
    seen = watched(build("gpt2"), some_ids())
    assert TOKENS > FEW_QUERIES
    torch.testing.assert_close(rollout(seen)[:, :5], rollout(seen, slice(0, 5)))


class Attends(torch.nn.Module):
    """Self-attention of what it is made with, under a mask."""

    def __init__(self, mask, x):
        super().__init__()
        self.mask, self.x = mask, x

    def forward(self):
        return torch.nn.functional.scaled_dot_product_attention(
            self.x, self.x, self.x, attn_mask=self.mask
        )


def test_by_hand():
    """Query 1 looks at 0 and at itself alike, so that A' is [[1, 0], [1/4, 3/4]] twice."""
    causal = torch.ones(2, 2, dtype=torch.bool).tril()
    model = torch.nn.Sequential(*(Attends(causal, torch.zeros(1, 1, 2, 3)) for _ in range(2)))
    with torch.no_grad(), pellucid.watch(model) as seen:
        for layer in model:
            layer()
    expected = torch.tensor([[[1.0, 0.0], [1 / 4 + 3 / 16, 9 / 16]]])
    torch.testing.assert_close(rollout(seen), expected)


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_padding_is_not_reached_and_does_not_matter(heads):
    ids, length = some_ids(), 29
    present = torch.ones_like(ids)
    present[1, length:] = 0
    padded = rollout(watched(build("bert"), ids, attention_mask=present), heads=heads)
    assert not padded[1, :length, length:].any()
    alone = rollout(watched(build("bert"), ids[1:, :length]), heads=heads)
    torch.testing.assert_close(padded[1:, :length, :length], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("queries", "heads"), [(2, "mean"), (None, "mean"), (2, "max")])
def test_a_row_that_sees_nothing_goes_through_the_residual_alone(queries, heads):
    shown = torch.ones(5, 5, dtype=torch.bool)
    shown[2] = False
    x = torch.randn(1, 2, 5, 3, generator=torch.Generator().manual_seed(3))
    model = Attends(shown, x)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model()
    row = rollout(seen, queries, heads=heads)[0, 0 if queries else 2]
    assert torch.equal(row, torch.eye(5)[2])
    without = rollout(seen, queries, heads=heads, residual=0)[0, 0 if queries else 2]
    assert torch.equal(without, torch.zeros(5))


def test_it_trains():
    ids = some_ids(7)
    for heads, queries in (("mean", 3), ("max", 3), ("mean", None)):
        gradients = []
        for implementation in ("eager", "sdpa"):
            model = build("bert", implementation).double()
            with pellucid.watch(model) as seen:
                weights = model(ids, output_attentions=implementation == "eager").attentions
            if implementation == "eager":
                answer = by_the_paper(weights, heads)
                answer = answer if queries is None else answer[:, [queries]]
            else:
                answer = rollout(seen, queries, heads=heads)
            answer[..., 2].square().sum().backward()
            gradients.append(model.encoder.layer[0].attention.self.query.weight.grad)
        torch.testing.assert_close(gradients[1], gradients[0])


def test_an_encoder_decoder_has_two_chains():
    model = build("marian")
    ids = some_ids(11)
    for target in (7, 11):  # told apart even where they are of one length
        seen = watched(model, ids, decoder_input_ids=some_ids(target))
        with pytest.raises(ArgumentError, match=r"not form a chain: encoder\.layers\.0.*layers="):
            rollout(seen)
        eager = build("marian", "eager")
        with torch.no_grad():
            truth = eager(ids, decoder_input_ids=some_ids(target), output_attentions=True)
        for layers, expected in (
            ("encoder.*", truth.encoder_attentions),
            ("decoder.*", truth.decoder_attentions),
        ):
            actual = rollout(seen, layers=layers)
            torch.testing.assert_close(actual, by_the_paper(expected), atol=1e-5, rtol=1e-4)


def test_a_layer_that_all_share_is_given_as_records():
    ids = some_ids()
    seen = watched(build("albert"), ids)
    assert len(seen.records) == LAYERS
    with pytest.raises(ArgumentError, match="several times in a row"):
        rollout(seen)
    expected = by_the_paper(attentions("albert", ids, torch.float32))
    torch.testing.assert_close(rollout(seen.records), expected, atol=1e-5, rtol=1e-4)


def test_layers_are_chosen():
    ids = some_ids()
    seen = watched(build("gpt2"), ids)
    weights = attentions("gpt2", ids, torch.float32)
    expected = by_the_paper(weights[:2])
    for layers in ([0, 1], ["h.0.attn", "h.1.*"], [0, -2]):
        torch.testing.assert_close(rollout(seen, layers=layers), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(UnknownNameError, match=r"'encoder'.*h\.0\.attn"):
        rollout(seen, layers="encoder")


def test_errors_say_what_to_do():
    seen = watched(build("gpt2"), some_ids())
    with pytest.raises(ArgumentError, match="heads must be"):
        rollout(seen, heads="median")
    with pytest.raises(ArgumentError, match="residual must be from 0 to 1"):
        rollout(seen, residual=1.5)
    with pytest.raises(OutOfRangeError, match="from -37 to 36"):
        rollout(seen, TOKENS)
    with pytest.raises(ArgumentError, match="at least one"):
        rollout(seen, slice(3, 3))
    with pytest.raises(TooLargeError, match=r"shape \(2, 37, 37\) needs 10\.7 KiB"):
        rollout(seen, limit=2**10)
    with torch.no_grad(), pellucid.watch(build("gpt2")) as nothing:
        pass
    with pytest.raises(ArgumentError, match="recorded: nothing"):
        rollout(nothing)
    for other in (build("gpt2"), [3], 3):
        with pytest.raises(TypeMismatchError, match=r"seen must be a Recording, .* or its records"):
            rollout(other)


def test_what_was_not_seen_is_told():
    ids = some_ids(11)
    for name in ("h.2.attn", "decoder.layers.0.self_attn"):
        nothing = Recording("Model")
        nothing.unseen[name] = "was not told"
        with pytest.raises(ArgumentError, match=rf"nothing; unseen: {name}, which was not told"):
            rollout(nothing)
    seen = watched(build("gpt2"), ids)
    seen.unseen["decoder.0.attn"] = "was not told"
    with pytest.raises(UnknownNameError, match=r"'decoder\.\*'.*; unseen: decoder\.0\.attn, which"):
        rollout(seen, layers="decoder.*")
