"""Scores of cached keys against the papers' formulas, and what eviction by them does."""

import pytest
import torch
import transformers
from tests.attention.cases import Case, assert_within_budget, by_rule, random

import pellucid
from pellucid import masks
from pellucid.attention import attention_weights
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.lens import h2o_scores, snapkv_scores

BATCH, HEADS, KV_HEADS, QUERIES, DIM = 2, 6, 2, 37, 11
BERT = {
    "vocab_size": 61,
    "hidden_size": 66,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 37,
    "initializer_range": 0.5,
}
LLAMA = {**BERT, "num_key_value_heads": 2, "head_dim": 10}
ROUNDING = torch.finfo(torch.float32).eps


def causal_case(dtype=torch.float32):
    query = random(BATCH, HEADS, QUERIES, DIM, seed=1, dtype=dtype)
    key = random(BATCH, KV_HEADS, QUERIES, DIM, seed=2, dtype=dtype)
    visible = by_rule(lambda b, i, j: j <= i, BATCH, QUERIES, QUERIES)
    return Case(query, key, key, masks.causal(), visible)


def lazy(case):
    return attention_weights(case.query, case.key, case.mask)


def snapkv_by_the_paper(weights, window, kernel, pool):
    """Li et al. 2024, listing 1, one key at a time; heads of a group are averaged."""
    votes = weights[..., -window:, :-window].sum(-2)
    keys, side = votes.shape[-1], kernel // 2
    columns = []
    for j in range(keys):
        near = votes[..., max(0, j - side) : j + side + 1]
        columns.append(near.sum(-1) / kernel if pool == "mean" else near.amax(-1))
    pooled = torch.stack(columns, -1)
    return pooled.unflatten(1, (KV_HEADS, HEADS // KV_HEADS)).mean(2)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(("window", "kernel"), [(5, 7), (1, 1), (29, 3), (3, 41), (36, 5)])
def test_snapkv_is_the_papers_formula(window, kernel, pool):
    case = causal_case()
    exact, plain = (
        snapkv_by_the_paper(case.reference(dtype).weights, window, kernel, pool)
        for dtype in (torch.float64, torch.float32)
    )
    actual = snapkv_scores(lazy(case), window, kernel, pool)
    assert actual.shape == (BATCH, KV_HEADS, QUERIES - window)
    assert_within_budget(actual, plain, exact, 4 * ROUNDING)


def test_h2o_is_the_papers_formula():
    case = causal_case()
    exact, plain = (
        case.reference(dtype).weights.sum(-2).unflatten(1, (KV_HEADS, -1)).mean(2)
        for dtype in (torch.float64, torch.float32)
    )
    actual = h2o_scores(lazy(case))
    assert actual.shape == (BATCH, KV_HEADS, QUERIES)
    assert_within_budget(actual, plain, exact, 4 * ROUNDING)
    torch.testing.assert_close(actual.sum(-1), torch.full((BATCH, KV_HEADS), float(QUERIES)))


def test_by_hand():
    """Two queries that look at all they see alike: rows 1, 1/2 1/2, 1/3 1/3 1/3."""
    zeros = torch.zeros(1, 3, 2)
    weights = attention_weights(zeros, zeros, masks.causal())
    torch.testing.assert_close(h2o_scores(weights), torch.tensor([[11 / 6, 5 / 6, 1 / 3]]))
    scores = snapkv_scores(weights, window=1, kernel=3)  # votes 1/3, 1/3, and nothing beside them
    torch.testing.assert_close(scores, torch.tensor([[2 / 9, 2 / 9]]))
    scores = snapkv_scores(weights, window=1, kernel=3, pool="max")
    torch.testing.assert_close(scores, torch.tensor([[1 / 3, 1 / 3]]))


def test_snapkv_asks_for_the_rows_of_the_window_alone():
    case = causal_case()
    weights = lazy(case)
    snapkv_scores(weights, window=3)
    assert weights._logsumexp is None  # the pass over all rows was not made
    changed = case.query.clone()
    changed[:, :, :-3] = torch.nan  # earlier queries are not even looked at
    again = snapkv_scores(attention_weights(changed, case.key, case.mask), window=3)
    assert torch.equal(again, snapkv_scores(lazy(case), window=3))


def test_they_train():
    query, key = (random(1, 2, 7, 3, seed=s, dtype=torch.float64) for s in (1, 2))
    query, key = query.requires_grad_(), key[:, :1].requires_grad_()
    mask = masks.causal()

    def scores(query, key):
        weights = attention_weights(query, key, mask)
        return h2o_scores(weights), snapkv_scores(weights, window=2, kernel=3)

    assert torch.autograd.gradcheck(scores, (query, key))


def test_in_the_middle_of_a_generation():
    torch.manual_seed(23)
    config = transformers.LlamaConfig(**LLAMA)
    model = transformers.AutoModel.from_config(config).eval()
    ids = torch.randint(0, 61, (2, 13), generator=torch.Generator().manual_seed(3))
    cache = transformers.DynamicCache(config=config)
    name = "layers.1.self_attn"
    with torch.no_grad():
        with pellucid.watch(model) as whole:
            model(ids)
        with pellucid.watch(model) as seen:
            model(ids[:, :7], past_key_values=cache)
            for step in range(7, 13):
                model(ids[:, step : step + 1], past_key_values=cache)
                record = seen.record(name)
                assert h2o_scores(record).shape == (2, 2, step + 1)
                assert snapkv_scores(record, window=3).shape == (2, 2, step - 2)
    for score in (h2o_scores, lambda record: snapkv_scores(record, 5, 3)):
        actual, expected = score(seen.record(name)), score(whole.record(name))
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_padding_has_no_vote(kind, implementation, side):
    torch.manual_seed(23)
    if kind == "llama":
        config = transformers.LlamaConfig(**LLAMA)
    else:
        config = transformers.BertConfig(**BERT)
    model = transformers.AutoModel.from_config(config, attn_implementation=implementation).eval()
    ids = torch.randint(0, 61, (2, 13), generator=torch.Generator().manual_seed(3))
    real = slice(6, 13) if side == "left" else slice(0, 7)
    flags = torch.ones(2, 13, dtype=torch.int64)
    flags[1] = 0
    flags[1, real] = 1
    places = torch.arange(13)[None]
    with torch.no_grad():
        with pellucid.watch(model) as together:
            model(ids, attention_mask=flags, position_ids=places)
        with pellucid.watch(model) as alone:
            model(ids[1:, real], position_ids=places[:, real])
    padding = flags[1] == 0
    for record, single in zip(together.records, alone.records, strict=True):
        scores, expected = h2o_scores(record), h2o_scores(single)
        torch.testing.assert_close(scores[1:, :, real], expected, atol=1e-5, rtol=1e-4)
        assert not scores[1][:, padding].any()
        torch.testing.assert_close(scores[0], _of_item(record, 0), atol=1e-5, rtol=1e-4)


def _of_item(record, item):
    """The scores where every query has a vote."""
    received = record.weights.received()[item]
    shared = record.key.shape[-3]
    return received.unflatten(0, (shared, -1)).mean(1)


def test_padding_has_no_vote_in_a_generation():
    torch.manual_seed(23)
    config = transformers.LlamaConfig(**LLAMA, pad_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(1, 61, (2, 11), generator=torch.Generator().manual_seed(3))
    flags = torch.ones_like(ids)
    flags[1, :4] = 0
    options = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5}
    with torch.no_grad():
        with pellucid.watch(model) as together:
            model.generate(ids, attention_mask=flags, **options)
        with pellucid.watch(model) as alone:
            model.generate(ids[1:, 4:], attention_mask=flags[1:, 4:], **options)
    for record, single in zip(together.records, alone.records, strict=True):
        scores, expected = h2o_scores(record), h2o_scores(single)
        torch.testing.assert_close(scores[1:, :, 4:], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["snapkv", "h2o"])
def test_dropping_the_lowest_moves_the_output_less_than_dropping_at_random(method):
    generator = torch.Generator().manual_seed(3)
    keys, kept, dim = 211, 53, 11
    key = torch.randn(1, KV_HEADS, keys, dim, generator=generator)
    heavy = torch.randperm(keys, generator=generator)[:23]  # what most queries look for
    key[:, :, heavy] += 2
    query = 1 + torch.randn(1, HEADS, keys, dim, generator=generator)
    value = torch.randn(1, KV_HEADS, keys, dim, generator=generator)
    weights = attention_weights(query, key, masks.causal())
    if method == "h2o":
        scores = h2o_scores(weights)
    else:
        scores = torch.nn.functional.pad(
            snapkv_scores(weights, window=7, kernel=1), (0, 7), value=torch.inf
        )
    newest = 1 + torch.randn(1, HEADS, 1, dim, generator=generator)
    full, _ = pellucid.attention(newest, key, value)

    def moved(places):  # (1, kv_heads, kept) keys that stay in the cache
        index = places.unsqueeze(-1).expand(-1, -1, -1, dim)
        less, _ = pellucid.attention(newest, key.gather(2, index), value.gather(2, index))
        return float((less - full).norm())

    by_score = moved(scores.topk(kept).indices)
    at_random = [
        moved(torch.rand(scores.shape, generator=generator).topk(kept).indices) for _ in range(11)
    ]
    assert by_score < min(at_random)


def test_errors_say_what_was_wanted():
    weights = lazy(causal_case())
    for window in (0, QUERIES, QUERIES + 1):
        with pytest.raises(ArgumentError, match=r"window must be from 1 .*37"):
            snapkv_scores(weights, window)
    for kernel in (0, 2):
        with pytest.raises(ArgumentError, match="kernel must be an odd number"):
            snapkv_scores(weights, 3, kernel)
    with pytest.raises(ArgumentError, match="pool must be"):
        snapkv_scores(weights, 3, pool="median")
    with pytest.raises(TypeMismatchError, match="window must be an int"):
        snapkv_scores(weights, 3.0)
    with pytest.raises(
        TypeMismatchError, match="AttentionWeights, a Record or a Recording, got Tensor"
    ):
        h2o_scores(torch.rand(2, 3, 5, 7))
