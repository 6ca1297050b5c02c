"""The table of heads: heads built to do one thing, and every number from dense float64 weights."""

import json
import math
from types import MappingProxyType

import pytest
import torch
from tests.attention.cases import assert_within_budget
from tests.lens.given import IDS, TOKENS, Model, Tokenizer, pointing, some, watched
from torch import nn

import pellucid
from pellucid.attention.reference import stages
from pellucid.errors import TypeMismatchError, UnknownNameError
from pellucid.lens.head_measures import heads
from pellucid.lens.head_table import COLUMNS, HeadTable

PUNCTUATION, SPECIAL = {3, 9}, {0, 7}
SHARES = (
    "first", "itself", "previous", "next", "duplicates", "induction", "punctuation", "special",
)  # fmt: skip


def truth(weights, visible, ids, padding):
    """A list of columns a head, read off dense weights as `heads` says them.

    weights: (batch, heads, n, n) float64; visible: (batch, 1, n, n) bool; padding: (batch, n) bool.
    """
    batch, count, n, _ = weights.shape
    weights, visible, ids, padding = (x.tolist() for x in (weights, visible, ids, padding))
    rows = []
    for head in range(count):
        found = {name: [] for name in ("entropy", "distance", *SHARES)}
        for b in range(batch):
            real = [i for i in range(n) if not padding[b][i]]
            for i in real:
                row, sees = weights[b][head][i], visible[b][0][i]
                found["entropy"].append(-sum(w * math.log(w) for w in row if w > 0))
                found["distance"].append(sum(w * abs(i - j) for j, w in enumerate(row)))
                found["first"].append(row[real[0]])
                found["itself"].append(row[i])
                for name, j in (("previous", i - 1), ("next", i + 1)):
                    if j in real and sees[j]:
                        found[name].append(row[j])
                alike = [j for j in real if ids[b][j] == ids[b][i] and j != i]
                if any(sees[j] for j in alike):
                    found["duplicates"].append(sum(row[j] for j in alike))
                before = [j for j in alike if j < i]
                if before and before[-1] + 1 < i and sees[before[-1] + 1]:
                    found["induction"].append(row[before[-1] + 1])
                for name, marks in (("punctuation", PUNCTUATION), ("special", SPECIAL)):
                    found[name].append(
                        sum(w for w, token in zip(row, ids[b], strict=True) if token in marks)
                    )
        rows.append([sum(x) / len(x) if x else math.nan for x in found.values()])
    return torch.tensor(rows, dtype=torch.float64)


def numbers(table):
    return torch.tensor(
        [[getattr(row, name) for name in ("entropy", "distance", *SHARES)] for row in table],
        dtype=torch.float64,
    )


def rules(kind, side, n):
    """(batch, 1, n, n) what may be seen and (batch, n) what is padding, for three items."""
    padding = torch.zeros(3, n, dtype=torch.bool)
    if side == "left":
        padding[1, :5] = True
    if side == "right":
        padding[1, -5:] = True
    visible = ~padding[:, None, None, :].expand(3, 1, n, n)
    apart = torch.arange(n)[:, None] - torch.arange(n)
    if kind != "both ways":
        visible = visible & (apart >= 0)
    if kind == "window":
        visible = visible & (apart < 7)
    return visible, padding


@pytest.mark.parametrize("repeats", ["some", "all alike"])
@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("kind", ["causal", "both ways", "window"])
@pytest.mark.parametrize("hidden_by", [-torch.inf, torch.finfo(torch.float32).min])
def test_every_column_is_that_of_dense_weights(kind, side, repeats, hidden_by):
    n = 29
    query, key = 3 * some(3, 6, n, 11, seed=1), some(3, 2, n, 11, seed=2)
    ids = torch.randint(len(TOKENS), (3, n), generator=torch.Generator().manual_seed(3))
    ids = ids if repeats == "some" else ids * 0
    visible, padding = rules(kind, side, n)
    bias = torch.zeros(visible.shape).masked_fill(~visible, hidden_by)
    seen = watched(ids, query, key, Tokenizer(), attn_mask=bias)
    exact = stages(query.double(), key.double(), key.double(), visible)
    plain = stages(query, key, key, visible).weights.double()
    expected = truth(exact.weights, visible, ids, padding)
    table = numbers(heads(seen))
    known = ~expected.isnan()
    assert torch.equal(~table.isnan(), known)
    assert known[:, 2 + SHARES.index("next")].all() == (kind == "both ways")
    plain = truth(plain, visible, ids, padding)
    scores = exact.masked[exact.masked.isfinite()]
    assert_within_budget(table[known], plain[known], expected[known], 2**-24, scores)


def test_long_texts_of_rare_and_of_frequent_tokens():
    n = 331  # several blocks of equal tokens, and several tokens in a block
    query, key = 2 * some(1, 2, n, 7, seed=1), some(1, 2, n, 7, seed=2)
    for causal in (True, False):
        visible = torch.ones(1, 1, n, n, dtype=torch.bool)
        visible = visible.tril() if causal else visible
        weights = stages(query.double(), key.double(), key.double(), visible).weights
        plain = stages(query, key, key, visible).weights
        for ids in (
            torch.arange(n)[None] % 83 % len(TOKENS),
            torch.cat([torch.zeros(1, 179, dtype=torch.int64), torch.arange(152)[None] % 10], 1),
        ):
            alike = (ids[:, :, None] == ids[:, None, :])[:, None] & visible
            alike = alike & ~torch.eye(n, dtype=torch.bool)
            has = alike.any(-1)
            expected = (weights * alike).sum(-1)[has.expand(1, 2, n)].reshape(2, -1).mean(-1)
            rough = (plain * alike).sum(-1)[has.expand(1, 2, n)].reshape(2, -1).mean(-1).double()
            found = heads(watched(ids, query, key, is_causal=causal))
            found = torch.tensor([row.duplicates for row in found], dtype=torch.float64)
            assert_within_budget(found, rough, expected, 2**-24, (query @ key.mT) / 7**0.5)


#                    C the cat sat on the mat , the cat sat . S
DOES = {
    "previous token": [max(0, i - 1) for i in range(13)],
    "first token": [0] * 13,
    "itself": list(range(13)),
    "duplicates": [0, 5, 9, 10, 0, 1, 0, 0, 5, 2, 3, 0, 0],
    "induction": [0, 0, 0, 0, 0, 2, 0, 0, 6, 3, 4, 0, 0],
    "punctuation": [7] * 13,
    "special tokens": [12] * 13,
    "next token": [min(12, i + 1) for i in range(13)],
    "": [6] * 13,
}


def test_heads_that_do_one_thing_are_called_so():
    query, key = pointing(DOES.values(), 13)
    seen = watched(IDS, query, key, Tokenizer())
    assert [row.role for row in heads(seen)] == list(DOES)
    by_role = {row.role: row for row in heads(seen)}
    for role, name in {"previous token": "previous", "next token": "next"}.items():
        assert getattr(by_role[role], name) == pytest.approx(1)
    for role in ("itself", "duplicates", "induction", "punctuation"):
        assert getattr(by_role[role], role) == pytest.approx(1)
    assert by_role["punctuation"].special == pytest.approx(0, abs=1e-6)
    assert by_role["special tokens"].special == pytest.approx(1)
    assert by_role["special tokens"].punctuation == pytest.approx(0, abs=1e-6)
    assert by_role["first token"].first == pytest.approx(1)
    assert by_role["itself"].entropy == pytest.approx(0, abs=1e-6)
    assert by_role["next token"].distance == pytest.approx(12 / 13)


def test_special_tokens_are_those_that_the_tokenizer_says():
    """Also if they look like words or signs, or if only their marks of added tokens say so."""

    class Added:
        def __init__(self, content, special):
            self.content, self.special = content, special

    class Knowing(Tokenizer):
        all_special_ids = (9,)  # "."
        added_tokens_decoder = MappingProxyType(
            {6: Added("mat", True), 7: Added("[SEP]", False), 2: Added("cat", False)}
        )

    query, key = pointing([[place] * 13 for place in (6, 7, 11, 12, 2)], 13)
    seen = watched(IDS, query, key, Knowing())
    assert [row.role for row in heads(seen)] == [
        "special tokens", "punctuation", "special tokens", "special tokens", "",
    ]  # fmt: skip
    assert heads(watched(IDS, query, key, Knowing()))[2].punctuation == pytest.approx(0, abs=1e-6)
    seen = seen._with(seen.records)
    seen._placeholders = frozenset({6})  # stands for an image, whatever its tokenizer says
    assert heads(seen)[0].role == ""


def test_causal_heads_that_do_one_thing():
    names = ("previous token", "first token", "itself", "induction")
    query, key = pointing([DOES[name] for name in names], 13)
    table = heads(watched(IDS, query, key, Tokenizer(), is_causal=True))
    assert [row.role for row in table] == list(names)
    assert all(math.isnan(row.next) for row in table)


@pytest.mark.parametrize("causal", [True, False])
def test_a_head_that_looks_everywhere_is_broad(causal):
    query, key = 0.1 * some(1, 3, 13, 5), some(1, 1, 13, 5, seed=1)
    table = heads(watched(IDS, query, key, Tokenizer(), is_causal=causal))
    assert [row.role for row in table] == ["broad"] * 3
    if not causal:
        assert table[0].entropy == pytest.approx(math.log(13), abs=0.1)


class Sequence(nn.Module):
    """Modules of the given names, called one after another."""

    def __init__(self, names):
        super().__init__()
        self.names = names
        for name in names:
            *outer, own = name.split(".")
            place = self
            for part in outer:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place._modules[part]
            place.add_module(own, Model())

    def forward(self, ids, query, key):
        for name in self.names:
            self.get_submodule(name)(ids, query, key)


def labels(*names):
    query, key = some(1, 2, 13, 5), some(1, 2, 13, 5, seed=1)
    model = Sequence(names)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(IDS, query, key)
    assert len(seen.records) == len(names), seen.unseen
    return [row.label for row in heads(seen) if row.head == 0]


def test_layers_keep_their_numbers():
    encoder = ["encoder.0.attn", "encoder.7.attn"]
    assert labels(*encoder) == ["0", "7"]
    assert labels(*encoder, "decoder.3.attn") == ["0", "7", "3"]
    decoder = ["decoder.0.attn", "decoder.0.cross_attn", "decoder.7.attn", "decoder.7.cross_attn"]
    assert labels(*encoder, *decoder) == ["e0", "e7", "d0", "x0", "d7", "x7"]
    assert labels("h.0.attn", "h.0.crossattention") == ["0", "x0"]
    assert labels("left.0.attn", "right.0.attn") == ["0", "1"]  # nothing tells these apart
    assert labels("first.attn", "second.attn") == ["0", "1"]


def test_the_order_of_layers_is_that_of_calls():
    names = ["encoder.0.attn", "encoder.1.attn"]
    for layer in "01":
        names += [f"decoder.{layer}.attn", f"decoder.{layer}.cross_attn"]
    model, query = Sequence(names), some(1, 2, 13, 5)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(IDS, query, query)
    table = heads(seen)
    assert list(table.sort("entropy").sort("layer")) == list(table)
    assert [line.split()[0] for line in repr(table).splitlines()[1:6]] == [
        "e0", "e0", "e1", "e1", "d0",
    ]  # fmt: skip


def test_what_is_no_recording_is_refused():
    with pytest.raises(TypeMismatchError, match=r"seen must be a Recording, .* got Model"):
        heads(Model())


def test_what_needs_tokens_is_unknown_without_them():
    query, key = some(1, 2, 13, 5), some(1, 2, 13, 5, seed=1)
    row = heads(watched(IDS, query, key))[0]  # ids, but nobody who can spell them
    assert math.isnan(row.punctuation)
    assert math.isnan(row.special)
    assert 0 < row.duplicates < 1
    row = heads(watched(IDS[:, :11], query, key))[0]  # ids of another length are not these
    assert math.isnan(row.duplicates)
    assert math.isnan(row.induction)
    assert 0 < row.previous < 1


def test_cross_attention_has_no_places_of_its_own():
    query, key = some(1, 2, 5, 3), some(1, 2, 13, 3, seed=1)
    seen = watched(IDS, query, key, Tokenizer())
    weights = seen.latest()[0].weights.dense().double()
    assert seen.latest()[0].is_cross
    for head, row in enumerate(heads(seen)):
        unknown = {name for name in COLUMNS[5:] if math.isnan(getattr(row, name))}
        assert unknown >= {"distance", "itself", "previous", "next", "duplicates", "induction"}
        assert row.first == pytest.approx(weights[0, head, :, 0].mean().item())


def test_rows_that_see_nothing_do_not_count():
    query, key = some(1, 2, 13, 5), some(1, 2, 13, 5, seed=1)
    visible = torch.ones(1, 1, 13, 13, dtype=torch.bool).tril()
    visible[..., 3, :] = False
    table = numbers(heads(watched(IDS, query, key, Tokenizer(), attn_mask=visible)))
    weights = stages(query.double(), key.double(), key.double(), visible).weights
    kept = [i for i in range(13) if i != 3]
    assert table[:, 2].tolist() == pytest.approx(weights[0, :, kept, 0].mean(-1).tolist())


def test_the_table():
    query, key = pointing(DOES.values(), 13)
    done = []
    table = heads(
        watched(IDS, query, key, Tokenizer(), is_causal=True),
        progress=lambda *counts: done.append(counts),
    )
    assert done == [(1, 1)]
    assert len(table) == len(list(table)) == len(DOES)
    assert table[1].head == 1
    assert isinstance(table[2:4], HeadTable)
    assert tuple(table.to_dicts()[0]) == COLUMNS
    assert table.to_dicts()[0]["next"] is None
    assert json.loads(json.dumps(table.to_dicts(), allow_nan=False))[3]["head"] == 3
    shares = [row.itself for row in table.sort("itself")]
    assert shares == sorted(shares, reverse=True)
    assert [row.head for row in table.sort("itself").sort("head")] == list(range(len(DOES)))
    roles = [row.role for row in table.sort("role")]
    named = [role for role in roles if role]
    assert roles == sorted(named) + [""] * (len(roles) - len(named))
    with pytest.raises(UnknownNameError, match="no column is called 'size': layer, head, "):
        table.sort("size")
    text = repr(table).splitlines()
    assert text[0].split() == [
        "layer", "head", "entropy", "distance", "first", "itself", "previous", "next",
        "duplicates", "induction", "punctuation", "special", "role",
    ]  # fmt: skip
    assert text[3].split()[-1] == "itself"
    assert text[1].split()[7] == "-"
    assert "<td" in table._repr_html_()


def test_a_long_table_is_cut():
    query, key = some(1, 67, 13, 5), some(1, 1, 13, 5, seed=1)
    lines = repr(heads(watched(IDS, query, key))).splitlines()
    assert len(lines) == 66
    assert lines[-1] == "... and 3 more"


def test_a_generation_of_which_the_start_was_missed():
    """Queries that are the last of the keys, with and without a mask that says so."""
    for queries in (1, 4):
        query, key = some(1, 2, queries, 5), some(1, 2, 13, 5, seed=1)
        visible = torch.ones(queries, 13, dtype=torch.bool).tril(13 - queries)
        seen = watched(IDS, query, key, Tokenizer(), attn_mask=visible)
        record = seen.latest()[0]
        record.is_cross = False
        weights = stages(query.double(), key.double(), key.double(), visible).weights
        own = range(13 - queries, 13)
        row = heads(seen)[0]
        assert row.itself == pytest.approx(
            sum(weights[0, 0, i, j].item() for i, j in enumerate(own)) / queries
        )
        apart = torch.tensor([[abs(i - j) for j in range(13)] for i in own])
        assert row.distance == pytest.approx((weights[0, 0] * apart).sum().item() / queries)


def test_a_bidirectional_head_under_a_position_bias():
    n = 23
    query, key, bias = some(1, 2, n, 5), some(1, 2, n, 5, seed=1), 3 * some(1, 2, n, n, seed=2)
    ids = torch.arange(n)[None] % 7
    table = numbers(heads(watched(ids, query, key, Tokenizer(), attn_mask=bias)))
    visible = torch.ones(1, 1, n, n, dtype=torch.bool)
    exact = stages(query.double(), key.double(), key.double(), bias=bias.double())
    plain = stages(query, key, key, bias=bias).weights.double()
    none = torch.zeros(1, n, dtype=torch.bool)
    expected, rough = (truth(x, visible, ids, none) for x in (exact.weights, plain))
    assert_within_budget(table, rough, expected, 2**-24, exact.masked)
