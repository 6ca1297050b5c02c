"""Every call is proven: a record gives what the model got, or it is said that it does not."""

import math

import pytest
import torch
import transformers
from tests.lens.families import VOCABULARY, build, some_ids
from torch import nn
from transformers.masking_utils import AttentionMaskInterface, eager_mask

import pellucid
from pellucid.errors import ArgumentError
from pellucid.lens.proof import ROWS, Contradiction, Evidence, prove
from pellucid.lens.record import Proof

BATCH, HEADS, TOKENS, DIM, LAYERS = 2, 3, 7, 11, 4
SCALE = DIM**-0.5
NEAR = {"atol": 2e-6, "rtol": 1e-4}
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
sdpa = nn.functional.scaled_dot_product_attention


def draw(*shape, seed=3, size=1.0):
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_true_or_said(seen, truths):
    """No record that differs from what its module used."""
    for name, truth in truths.items():
        if name in seen:
            torch.testing.assert_close(seen[name].dense().float(), truth.float(), **NEAR)
        else:
            assert name in seen.unseen


# Interventions in later layers.

INTERVENTIONS = {
    "a link": lambda s: s.index_put_(
        (torch.tensor(0), torch.tensor(2), torch.tensor(5), torch.tensor(2)),
        torch.tensor(-torch.inf),
    ),
    "a small change of a link": lambda s: s.index_put_(
        (torch.tensor(0), torch.tensor(2), torch.tensor(5), torch.tensor(2)),
        torch.tensor(0.3),
        accumulate=True,
    ),
    "a key of all": lambda s: s[..., 3:, 3].fill_(-torch.inf),
    "a head": lambda s: s[:, 1].zero_(),
    "a scale": lambda s: s.mul_(1.001),
    "one row's scale": lambda s: s[0, 1, 4].mul_(1.05),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", INTERVENTIONS)
def test_an_attention_function_of_the_users_own(what, mode, monkeypatch):
    """It does something else in the third layer alone; no layer is believed for another's sake."""
    used = {}

    def intervened(module, query, key, value, attention_mask, scaling, **options):
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        scores = query @ key.mT * scaling + attention_mask
        if module.layer_idx == 2:
            INTERVENTIONS[what](scores)
        used[f"layers.{module.layer_idx}.self_attn"] = weights = scores.softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    mapping = transformers.AttentionInterface._global_mapping
    monkeypatch.setitem(mapping, "intervened", intervened)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "intervened", eager_mask)
    model = llama("intervened")
    with MODES[mode](), pellucid.watch(model) as seen:
        model(some_ids(TOKENS))
    assert (len(seen.records), seen.unseen) == (LAYERS, {})
    for name, truth in used.items():
        torch.testing.assert_close(seen[name].dense(), truth, **NEAR)
        assert seen.proof[name].rows == seen.proof[name].of == BATCH * TOKENS


def llama(implementation):
    torch.manual_seed(23)
    config = transformers.LlamaConfig(
        hidden_size=66,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        intermediate_size=37,
        initializer_range=0.5,
    )
    return transformers.LlamaModel._from_config(config, attn_implementation=implementation).eval()


class Layer(nn.Module):
    """One that keeps, as the truth, the weights of its own formula."""

    def __init__(self):
        super().__init__()
        self.qkv, self.truth = nn.Linear(HEADS * DIM, 3 * HEADS * DIM), None
        nn.init.normal_(self.qkv.weight, std=0.15, generator=torch.Generator().manual_seed(5))

    def forward(self, x, mask):
        q, k, v = (
            part.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        with torch.no_grad():
            scores = torch.einsum("bhqd,bhkd->bhqk", q.double(), k.double()) * SCALE
            hidden = ~mask if mask.dtype == torch.bool else mask < -1
            scores = scores.masked_fill(hidden, -torch.inf)
            weights = (scores - scores.amax(-1, keepdim=True)).exp()  # no softmax that is seen
            self.truth = weights / weights.sum(-1, keepdim=True)
        return sdpa(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


EDITS = {
    "in place": lambda mask, value: mask[..., 5, 2].fill_(value),
    "its data": lambda mask, value: mask.data[..., 5, 2].fill_(value),
    "through NumPy": lambda mask, value: mask.numpy().__setitem__((..., 5, 2), value),
    "detached": lambda mask, value: mask.detach()[..., 5, 2].fill_(value),
}


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("edit", EDITS)
def test_a_mask_that_is_edited_between_layers(edit, mode, kind):
    """Also where nobody counts versions: read anew, or said, however rows are drawn."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Layer() for _ in range(3))

        def forward(self, x):
            mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None].clone()
            if kind is not torch.bool:
                mask = torch.zeros(1, 1, TOKENS, TOKENS).masked_fill(~mask, -1e9)
            for number, layer in enumerate(self.layers):
                if number == 1:
                    EDITS[edit](mask, False if kind is torch.bool else -1e9)
                x = x + layer(x, mask)
            return x

    net = Net().eval()
    for _ in range(8):
        with MODES[mode](), pellucid.watch(net) as seen:
            net(draw(BATCH, TOKENS, HEADS * DIM))
        truths = {f"layers.{number}": layer.truth for number, layer in enumerate(net.layers)}
        assert_true_or_said(seen, truths)


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_whose_memory_is_another_masks_next(mode):
    """Made anew in each layer, of the same shape: it may lie where the one before lay."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Layer() for _ in range(5))

        def forward(self, x):
            for number, layer in enumerate(self.layers):
                mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril(number)
                x = x + layer(x, mask)
                del mask
            return x

    net = Net().eval()
    with MODES[mode](), pellucid.watch(net) as seen:
        net(draw(BATCH, TOKENS, HEADS * DIM))
    assert seen.unseen == {}
    for number, layer in enumerate(net.layers):
        torch.testing.assert_close(seen[f"layers.{number}"].dense().double(), layer.truth, **NEAR)


# What a slip of the scale, or of a head, is found by.


class Bare(nn.Module):
    def forward(self, q, k, v):
        return sdpa(q, k, v)


def record_of(q, k, v):
    """The record and the context of a call."""
    with torch.no_grad(), pellucid.watch(Bare()) as seen:
        context = seen._model(q, k, v)
    return seen.record(""), context


def qkv(dtype=torch.float32, seed=3, size=2.0, tokens=TOKENS):
    shapes = [(BATCH, HEADS, tokens, DIM)] * 3
    return [draw(*shape, seed=seed + n, size=size).to(dtype) for n, shape in enumerate(shapes)]


def plain(q, k, v, scale=SCALE):
    """(context, weights) by the formula, in the dtype of q."""
    weights = (q @ k.mT * scale).softmax(-1)
    return weights @ v, weights


@pytest.mark.parametrize("seed", range(7))
def test_a_scale_that_is_off_by_a_thousandth_shows_in_float32(seed):
    q, k, v = qkv(seed=seed)
    record, _ = record_of(q, k, v)
    context, weights = plain(q, k, v, SCALE * 1.001)
    for wrong in ({"context": context}, {"weights": weights}):
        with pytest.raises(Contradiction, match="rounding allows"):
            prove(Evidence(record=record, value=v, **wrong))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", ["another head", "another item", "another row", "no mask"])
def test_what_is_wrong_shows_in_every_dtype(dtype, change):
    q, k, v = qkv(dtype)
    record, _ = record_of(q, k, v)
    context, _ = plain(q.float(), k.float(), v.float())
    if change == "another head":
        wrong = context.roll(1, 1)
    elif change == "another item":
        wrong = context.flip(0)
    elif change == "another row":
        wrong = context.roll(1, 2)
    else:
        seen = torch.ones(TOKENS, TOKENS).tril().bool()
        weights = (q.float() @ k.float().mT * SCALE).masked_fill(~seen, -torch.inf).softmax(-1)
        wrong = weights @ v.float()
    with pytest.raises(Contradiction):
        prove(Evidence(record=record, value=v, context=wrong.to(dtype), every_row=True))


@pytest.mark.parametrize("size", [0.1, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("by", ["sdpa", "weights in the dtype", "softmax in float32"])
@pytest.mark.parametrize(
    "seeds", [range(7), pytest.param(range(7, 97), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_what_is_right_is_never_refused(seeds, by, dtype, size):
    """Of flat and of sharp attention, in whichever order a model rounds."""
    for seed in seeds:
        q, k, v = qkv(dtype, seed=7 * seed, size=size, tokens=13)
        record, context = record_of(q, k, v)
        if by == "sdpa":
            wrong = {"context": context}
        else:
            scores = q @ k.mT * SCALE
            weights = scores.softmax(-1)
            if by == "softmax in float32":
                weights = nn.functional.softmax(scores, -1, dtype=torch.float32).to(dtype)
            wrong = {"context": weights @ v, "weights": weights}
        for name, theirs in wrong.items():
            found = prove(Evidence(record=record, value=v, every_row=True, **{name: theirs}))
            assert found.error <= found.allowed
            assert found.rows == found.of == BATCH * 13


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "llama, grouped heads", "gpt2"])
def test_a_model_in_short_floats_is_never_refused(name, implementation, dtype):
    model = build(name, implementation).to(dtype)
    truth = build(name, "eager").to(dtype)
    for seed in range(5):
        ids = torch.randint(0, VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad(), pellucid.watch(model, proof="every row") as seen:
            model(ids)
        with torch.no_grad():
            own = truth(ids, output_attentions=True).attentions
        assert seen.unseen == {}
        for record, weights in zip(seen.records, own, strict=True):
            assert record.kept == "query and key"
            actual = record.weights.dense().float()
            assert record.proof.rows == record.proof.of
            if record is seen.records[0]:  # later ones are given what the first has rounded
                torch.testing.assert_close(actual, weights.float(), atol=0.06, rtol=0)


def test_the_allowance_of_bfloat16_is_no_licence():
    """A tenth in absolute numbers proves nothing where contexts are small."""
    q, k, v = qkv(torch.bfloat16, size=1.0)
    v = v / 64
    record, _ = record_of(q, k, v)
    wrong = v.float().mean(-2, keepdim=True).expand(v.shape)
    with pytest.raises(Contradiction):
        prove(Evidence(record=record, value=v, context=wrong.to(torch.bfloat16), every_row=True))


def test_a_large_value_elsewhere_hides_nothing():
    """What rounding may do in one head is no excuse in another."""
    q, k, v = qkv()
    v[:, 0] *= 1e6
    record, context = record_of(q, k, v)
    wrong = context.clone()
    wrong[:, 1] = wrong[:, 1].roll(1, -2)
    with pytest.raises(Contradiction):
        prove(Evidence(record=record, value=v, context=wrong, every_row=True))


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_context_of_no_numbers_is_no_proof(number):
    q, k, v = qkv()
    record, context = record_of(q, k, v)
    with pytest.raises(Contradiction):
        prove(
            Evidence(
                record=record, value=v, context=torch.full_like(context, number), every_row=True
            )
        )


def test_values_that_are_no_numbers_are_refused_of_nobody():
    q, k, v = qkv()
    v[0, 1, 2] = torch.nan
    with torch.no_grad(), pellucid.watch(Bare(), proof="every row") as seen:
        seen._model(q, k, v)
    assert (seen.names, seen.unseen) == ([""], {})


def test_float64_is_proven_to_its_own_rounding():
    q, k, v = (x.double() for x in qkv())
    record, context = record_of(q, k, v)
    found = prove(Evidence(record=record, value=v, context=context))
    assert found.allowed < 1e-12
    with pytest.raises(Contradiction):
        prove(Evidence(record=record, value=v, context=context * (1 + 1e-9), every_row=True))


# Which rows.


def test_other_rows_each_time():
    """One row that is wrong is found after a while, though only a few are looked at."""
    tokens = 13
    q, k, v = qkv(tokens=tokens)
    record, context = record_of(q, k, v)
    wrong = context.clone()
    wrong[1, :, 8] += 1
    found = 0
    for _ in range(200):
        try:
            prove(Evidence(record=record, value=v, context=wrong))
        except Contradiction:
            found += 1
    expected = 200 * ROWS / (BATCH * tokens)
    assert abs(found - expected) < 5 * math.sqrt(expected)


def test_a_row_that_tells_something_is_found_among_padding():
    """One query of 1009 has a key that is not zero; a scale that is wrong shows in it alone."""
    tokens = 1009
    q, k, v = qkv(tokens=tokens)
    q[:, :, torch.arange(tokens) != 17] = 0
    q[1] = 0
    record, context = record_of(q, k, v)
    assert prove(Evidence(record=record, value=v, context=context)).rows == 1
    wrong, _ = plain(q, k, v, 1.1 * SCALE)
    with pytest.raises(Contradiction):
        prove(Evidence(record=record, value=v, context=wrong))


def test_the_generator_of_the_program_is_left_alone():
    """Rows are drawn by a generator of their own."""
    import random

    torch.manual_seed(5)
    random.seed(5)
    states = torch.get_rng_state(), random.getstate()
    with torch.no_grad(), pellucid.watch(Bare()) as seen:
        seen._model(*qkv())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("tokens", [1, 2, ROWS, 101])
def test_a_few_rows_or_all_that_there_are(tokens):
    with torch.no_grad(), pellucid.watch(Bare()) as seen:
        seen._model(*qkv(tokens=tokens))
    (found,) = seen.proof.values()
    assert (found.rows, found.of) == (min(ROWS, tokens), BATCH * tokens)


@pytest.mark.parametrize("name", ["bert", "llama, grouped heads", "gpt2", "t5"])
def test_every_row(name):
    model = build(name, None)
    ids = some_ids()
    given = {"decoder_input_ids": some_ids(7)} if name == "t5" else {}
    with torch.no_grad(), pellucid.watch(model, proof="every row") as seen:
        model(ids, **given)
    assert seen.unseen == {}
    assert set(seen.proof) == set(seen.names)
    for record in seen.records:
        assert record.proof.rows == record.proof.of == 2 * record.shape[-2]
        assert 0 <= record.proof.error <= record.proof.allowed
        assert record.proof.allowed < 1e-2


def test_every_row_finds_what_some_rows_may_miss():
    """A context that is changed in one row, by a function that bears the name of torch's."""
    q, k, v = qkv(tokens=53)
    record, context = record_of(q, k, v)
    context[0, 2, 41, 5] += 0.01
    with pytest.raises(Contradiction):
        prove(Evidence(record=record, value=v, context=context, every_row=True))


def test_another_proof_is_refused():
    with pytest.raises(ArgumentError, match=r"some rows, every row; got 'all'"):
        pellucid.watch(Bare(), proof="all")


# What is told.


def test_proofs_of_all_calls_of_a_module_are_joined():
    with torch.no_grad(), pellucid.watch(Bare()) as seen:
        for seed in range(5):
            seen._model(*qkv(seed=seed))
    found = seen.proof[""]
    assert (found.rows, found.of) == (5 * ROWS, 5 * BATCH * TOKENS)
    errors = [record.proof.error for record in seen.records]
    assert found.error in errors
    assert f"proven: {5 * ROWS} of {5 * BATCH * TOKENS} rows" in repr(seen)


def test_of_two_proofs_the_worse_is_told():
    near, far = Proof(3, 11, 1e-7, 1e-3), Proof(5, 13, 1e-6, 2e-6)
    for joined in (near.joined(far), far.joined(near)):
        assert joined == Proof(8, 24, 1e-6, 2e-6)
    none = Proof(0, 7, reason="dropout is random")
    assert near.joined(none) == none.joined(near) == Proof(3, 18, 1e-7, 1e-3)
    assert none.joined(none) == Proof(0, 14, reason="dropout is random")
    assert str(none) == "not proven: dropout is random"
    assert str(far) == "5 of 13 rows, to 1e-06 (rounding: 2e-06)"


def test_dropout_of_the_fused_function_is_not_proven_and_says_so():
    class Drops(nn.Module):
        def forward(self, q, k, v):
            return sdpa(q, k, v, dropout_p=0.3)

    model = Drops()
    with torch.no_grad(), pellucid.watch(model, proof="every row") as seen:
        model(*qkv())
    (record,) = seen.records
    assert (record.proof.rows, record.proof.reason) == (0, "dropout is random")
    assert "not proven" in repr(seen)
    torch.testing.assert_close(seen[""].dense(), plain(*qkv())[1], **NEAR)


def test_a_proof_is_saved(tmp_path):
    with torch.no_grad(), pellucid.watch(build("bert", None)) as seen:
        seen._model(some_ids())
    seen.save(tmp_path / "x.safetensors")
    assert pellucid.Recording.load(tmp_path / "x.safetensors").proof == seen.proof


def test_proofs_make_no_graph_and_leave_gradients_alone():
    q, k, v = (x.requires_grad_() for x in qkv())
    model = Bare()
    with pellucid.watch(model, proof="every row") as seen:
        context = model(q, k, v)
    assert seen.unseen == {}
    (gradient,) = torch.autograd.grad(context.sum(), q)
    (expected,) = torch.autograd.grad(sdpa(q, k, v).sum(), q)
    assert torch.equal(gradient, expected)


# Generations.


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("proof", ["some rows", "every row"])
@pytest.mark.parametrize("name", ["llama, grouped heads", "mistral, a window"])
def test_a_generation_is_proven_step_by_step(name, proof, implementation):
    """Also where a window forgets the keys that earlier rows have seen."""
    model, ids = build(name, implementation, generating=True), some_ids()
    with torch.no_grad(), pellucid.watch(model, proof=proof) as seen:
        out = model.generate(
            ids, max_new_tokens=13, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        own = build(name, "eager", generating=True)(out[:, :-1], output_attentions=True).attentions
    assert (len(seen.records), seen.unseen) == (2, {})
    for record, truth in zip(seen.records, own, strict=True):
        torch.testing.assert_close(record.weights.dense(), truth, **NEAR)
        assert record.proof.rows > ROWS
        assert record.proof.of == 2 * record.shape[-2]
        if proof == "every row":
            assert record.proof.rows == record.proof.of


def test_a_step_that_is_knocked_out_shows(monkeypatch):
    """A link that is hidden from the ninth step on, in the last layer."""

    def late(module, query, key, value, attention_mask, scaling, **options):
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        scores = query @ key.mT * scaling
        if attention_mask is not None:
            scores = scores + attention_mask
        if module.layer_idx == 1 and key.shape[-2] > 15:
            scores[..., 3] = -torch.inf
        weights = scores.softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, "late", late)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "late", eager_mask)
    model = build("llama, grouped heads", "sdpa", generating=True)
    model.set_attn_implementation("late")
    with torch.no_grad(), pellucid.watch(model) as seen:
        model.generate(
            some_ids(), max_new_tokens=11, do_sample=False, pad_token_id=0, eos_token_id=None
        )
    first, last = (f"model.layers.{layer}.self_attn" for layer in range(2))
    assert first in seen
    for record in seen.records:
        if record.name == last and record.shape[-1] > 16:
            assert not record.weights.dense()[:, :, 15:, 3].any()
    assert last in seen.unseen or seen[last].shape[-2] <= 15 or seen.record(last).kept == "weights"
