"""What `watch` records of many families is what each model's own eager attention says."""

import itertools

import pytest
import torch
import transformers
from tests.lens.families import (
    BATCH,
    FAMILIES,
    GENERATING,
    LAYERS,
    SOURCE,
    TOKENS,
    build,
    inputs,
    own_weights,
    presence,
    present_rows,
    shared,
    some_ids,
    truth,
)
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import DynamicLayer

import pellucid
from pellucid.attention import attention_weights

NEAR = {"atol": 2e-6, "rtol": 1e-4}
NEW = 7
CASES = [
    (name, implementation, padding)
    for name, family in FAMILIES.items()
    for implementation in family.implementations
    for padding in (("none", "left", "right") if family.reads_text else ("none",))
]

SOME = ["gpt2", "llama, grouped heads", "mistral, a window", "bart", "t5"]

FLEX = [
    "bert",
    "modernbert, windows",
    "llama, grouped heads",
    "mistral, a window",
    "gemma 2, a softcap",
    "bart",
]


def grouped(seen):
    """The records of each module, in the order of their calls."""
    found = {}
    for record in seen.records:
        found.setdefault(record.name, []).append(record)
    return found


def as_context(weights, value):
    """weights @ value, each head with the value head of its group."""
    return weights @ value.repeat_interleave(weights.shape[1] // value.shape[1], 1)


def test_there_are_families_enough():
    assert len(FAMILIES) >= 35
    assert len({type(family.config()) for family in FAMILIES.values()}) == len(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_default_implementation_is_among_those_tried(name):
    assert build(name, None).config._attn_implementation in FAMILIES[name].implementations


@pytest.mark.parametrize("name", FAMILIES)
def test_the_models_weights_are_far_from_even(name):
    """Or the comparisons below would prove little."""
    for weights in (one for several in truth(name).values() for one in several):
        assert weights.amax(-1).mean() > 1.7 / weights.shape[-1]


@pytest.mark.parametrize(("name", "implementation", "padding"), CASES)
def test_recorded_weights_are_the_models_own(name, implementation, padding):
    model = shared(name, implementation)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(**inputs(name, padding))

    expected = truth(name, padding)
    found = grouped(seen)
    assert seen.unseen == {}
    assert set(found) == {*expected, *FAMILIES[name].also}
    assert set(found) <= {place for place, _ in model.named_modules()}
    for place, own in expected.items():
        for record, theirs in zip(found[place], own, strict=True):
            assert record.shape == theirs.shape
            rows = present_rows(name, place, padding, theirs.shape[-2])
            ours = record.weights.dense().transpose(1, 2)[rows]
            torch.testing.assert_close(ours, theirs.transpose(1, 2)[rows], **NEAR)


@pytest.mark.parametrize(("name", "implementation", "padding"), CASES)
def test_replay_gives_what_the_attention_returned(name, implementation, padding):
    model = shared(name, implementation)
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        model(**inputs(name, padding))

    for record in seen.records:
        if record.name in FAMILIES[name].also:
            continue  # it returns what its projection makes of the context
        near = {"atol": 2e-6 * float(record.value.abs().max()), "rtol": 1e-4}
        rows = present_rows(name, record.name, padding, record.shape[-2])
        context = record.context.transpose(1, 2)
        torch.testing.assert_close((record.weights @ record.value).transpose(1, 2), context, **near)

        moved = record.key.clone()
        moved[:, :, 5 % moved.shape[-2]] += 1.7  # no padding: all later rows see it
        again, other = (
            attention_weights(
                record.query,
                key,
                record.mask,
                bias=record.bias,
                scale=record.scale,
                softcap=record.softcap,
                sinks=record.sinks,
            )
            for key in (record.key, moved)
        )
        torch.testing.assert_close(
            (again @ record.value).transpose(1, 2)[rows], context[rows], **near
        )
        away = ((other @ record.value).transpose(1, 2)[rows] - context[rows]).abs().max()
        assert away > 1e-2 * context.abs().max()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's and transformers' own
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("name", FLEX)
def test_flex_attention(name, padding):
    """Not compiled, which takes half a minute: the same calls with the same masks."""
    model = build(name, "flex_attention")
    with (
        torch.compiler.set_stance("force_eager"),
        torch.no_grad(),
        pellucid.watch(model, values=True) as seen,
    ):
        model(**inputs(name, padding))
    assert seen.unseen == {}
    for place, own in truth(name, padding).items():
        record = seen.record(place)
        rows = present_rows(name, place, padding, record.shape[-2])
        ours, theirs = record.weights.dense().transpose(1, 2)[rows], own[0].transpose(1, 2)[rows]
        torch.testing.assert_close(ours, theirs, **NEAR)
        replayed = (record.weights @ record.value).transpose(1, 2)[rows]
        torch.testing.assert_close(replayed, record.context.transpose(1, 2)[rows], **NEAR)


# Generation.


class Asked(transformers.LogitsProcessor):
    """Asks, at every step of a generation, what the newest tokens see."""

    def __init__(self, seen):
        self.seen = seen
        self.rows = {}

    def __call__(self, input_ids, scores):
        for record in self.seen.latest():
            self.rows.setdefault(record.name, []).append(record.latest.dense())
        return scores


def prompt(name, padding="none", length=TOKENS, batch=BATCH):
    """What `generate` is given."""
    kind = FAMILIES[name].kind
    if kind == "decoder":
        present = presence(padding, length)[:batch]
        return {"input_ids": some_ids(length, batch), "attention_mask": present}
    given = inputs(name, padding)
    given.pop("decoder_attention_mask", None)
    start = torch.ones(BATCH, 1, dtype=torch.int64)
    return {**given, "decoder_input_ids": torch.cat([start, some_ids(length - 1)], 1)}


def generate(model, given, **options):
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    options = {"max_new_tokens": NEW, "do_sample": False, **options}
    if isinstance(model, transformers.WhisperForConditionalGeneration):
        # Its own cuts sound into pieces, and calls this for each.
        return transformers.GenerationMixin.generate(model, **given, **options)
    return model.generate(**given, **options)


def full_pass(name, given, sequence):
    """The eager weights of one pass over what was generated, the last token left out."""
    tokens = sequence[:, :-1]
    if FAMILIES[name].kind == "decoder":
        present = given["attention_mask"]
        new = tokens.shape[1] - present.shape[1]
        present = torch.cat([present, present.new_ones(len(present), new)], 1)
        again = {"input_ids": tokens, "attention_mask": present}
        if name != "opt":  # which counts by itself
            again["position_ids"] = (present.cumsum(-1) - 1).clamp_min(0)
    else:
        again = {**given, "decoder_input_ids": tokens}
    output = shared(name, "eager", generating=True)(**again, output_attentions=True)
    return own_weights(name, output, FAMILIES[name].generates)


def assert_triangles(name, seen, given, sequence):
    """One record an attention, equal to the weights of one pass over the whole."""
    expected = full_pass(name, given, sequence)
    found = grouped(seen)
    assert seen.unseen == {}
    assert set(found) == set(expected)
    present = given["attention_mask"] if FAMILIES[name].kind == "decoder" else None
    for place, own in expected.items():
        assert len(found[place]) == len(own) == 1
        ours, theirs = found[place][0].weights.dense(), own[0]
        assert ours.shape == theirs.shape
        if present is not None:
            rows = torch.ones(theirs.shape[0], theirs.shape[2], dtype=torch.bool)
            rows[:, : present.shape[1]] = present.bool()
            ours, theirs = ours.transpose(1, 2)[rows], theirs.transpose(1, 2)[rows]
        torch.testing.assert_close(ours, theirs, **NEAR)


def ways_to_generate():
    """Each family with either cache and with either padding; all four ways in `make slow`."""
    for number, name in enumerate(GENERATING):
        for cache, padding in itertools.product(("dynamic", "static"), ("none", "left")):
            is_other = (cache == "static") ^ (padding == "left") ^ number % 2
            yield pytest.param(name, cache, padding, marks=[pytest.mark.slow] * is_other)


@pytest.mark.parametrize(("name", "cache", "padding"), [*ways_to_generate()])
def test_a_generation_is_one_triangle(name, cache, padding):
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name, padding)
    options = {} if cache == "dynamic" else {"cache_implementation": cache}
    with torch.no_grad():
        plain = generate(model, given, **options)
        with pellucid.watch(model) as seen:
            asked = Asked(seen)
            sequence = generate(
                model, given, logits_processor=transformers.LogitsProcessorList([asked]), **options
            )
        assert torch.equal(plain, sequence)
        assert sequence.shape == (BATCH, TOKENS + NEW)
        assert_triangles(name, seen, given, sequence)

    for record in seen.records:
        if record.shape[-2] == SOURCE:
            continue  # of an encoder, which ran once
        steps = asked.rows[record.name]
        assert [rows.shape[-2] for rows in steps] == [TOKENS, *[1] * (NEW - 1)]
        whole = record.weights.dense()
        for row, rows in enumerate(steps[1:], TOKENS):
            now = rows.shape[-1]
            torch.testing.assert_close(rows, whole[:, :, row : row + 1, :now], **NEAR)
            assert not whole[:, :, row, now:].any()
        torch.testing.assert_close(steps[0], whole[:, :, :TOKENS, : steps[0].shape[-1]], **NEAR)
    assert_keys_are_held_once(seen)


def assert_keys_are_held_once(seen):
    assert len(seen.records) == len(seen.names)
    for record in seen.records:
        *_, queries, keys = record.shape
        held = [x for x in record.tensors() if x.is_floating_point()]
        numbers = sum(x.numel() for x in held) - sum(x.tensor.numel() for x in record.biases)
        query, key = record.query, record.key
        assert (query.shape[-2], key.shape[-2]) == (queries, keys)
        told = query[..., 0].numel() if record.logsumexps is not None else 0
        assert numbers == query.numel() + key.numel() + told


@pytest.mark.parametrize("name", GENERATING)
def test_a_prompt_of_one_token(name):
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name, length=1)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            sequence = generate(model, given)
        assert_triangles(name, seen, given, sequence)


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", SOME)
def test_generation_in_eager(name, cache, padding):
    model, given = build(name, "eager", generating=True), prompt(name, padding)
    options = {} if cache == "dynamic" else {"cache_implementation": cache}
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            sequence = generate(model, given, **options)
        assert_triangles(name, seen, given, sequence)


@pytest.mark.parametrize("name", SOME)
def test_two_generations_are_two_records(name):
    model = build(name, FAMILIES[name].default, generating=True)
    given, other = prompt(name), prompt(name, length=TOKENS - 4)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            first, second = generate(model, given), generate(model, other)
        assert {len(records) for records in grouped(seen).values()} == {2}
        for sequence, start, which in ((first, given, 0), (second, other, 1)):
            for place, own in full_pass(name, start, sequence).items():
                record = grouped(seen)[place][which]
                torch.testing.assert_close(record.weights.dense(), own[0], **NEAR)
                assert which == 0 or seen.record(place) is record


class NanoAttention(nn.Module):
    """As in nanoGPT: one projection for query, key and value."""

    def __init__(self, function):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(33, 99), nn.Linear(33, 33)
        self.function = function

    def forward(self, x):
        batch, length, width = x.shape
        parts = (
            part.view(batch, length, 3, 11).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=2)
        )
        context = self.function()(*parts, attn_mask=None, dropout_p=0, is_causal=True)
        return self.c_proj(context.transpose(1, 2).contiguous().view(batch, length, width))


class TimmAttention(nn.Module):
    """As in timm's vision transformer: fused, or with a softmax of its own."""

    fused_attn = True

    def __init__(self, function):
        super().__init__()
        self.qkv, self.proj = nn.Linear(33, 99), nn.Linear(33, 33)
        self.q_norm, self.k_norm = nn.LayerNorm(11), nn.LayerNorm(11)
        self.function = function

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, 3, 11).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        if self.fused_attn:
            x = self.function()(query, key, value, dropout_p=0.0)
        else:
            x = (query * 11**-0.5 @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


FUNCTIONS = {  # where a model's file finds it
    "in torch.nn.functional": lambda: nn.functional.scaled_dot_product_attention,
    "imported by name": lambda: scaled_dot_product_attention,
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", [NanoAttention, TimmAttention])
def test_models_of_anyones_own(kind, function):
    torch.manual_seed(23)
    model = nn.Sequential(kind(FUNCTIONS[function]), nn.GELU(), kind(FUNCTIONS[function]))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    given = torch.randn(BATCH, TOKENS, 33)
    with torch.no_grad():
        plain = model(given)
        with pellucid.watch(model, values=True) as seen:
            assert torch.equal(model(given), plain)
    assert (seen.names, seen.unseen) == (["0", "2"], {})
    for record in seen.records:
        query, key = record.query.double(), record.key.double()
        scores = query @ key.transpose(-1, -2) / 11**0.5
        if kind is NanoAttention:
            scores += torch.full((TOKENS, TOKENS), -torch.inf).triu(1)
        torch.testing.assert_close(record.weights.dense().double(), scores.softmax(-1), **NEAR)
        torch.testing.assert_close(record.weights @ record.value, record.context, **NEAR)
    first = seen.record("0")
    with torch.no_grad():
        again = getattr(model[0], "proj", None) or model[0].c_proj
        mixed = (first.weights @ first.value).transpose(1, 2).flatten(2)
        torch.testing.assert_close(model[0](given), again(mixed), **NEAR)
    assert vars(nn.functional)["scaled_dot_product_attention"] is scaled_dot_product_attention


def test_a_softmax_of_ones_own_is_as_lazy_as_a_fused_one():
    model = TimmAttention(lambda: nn.functional.scaled_dot_product_attention)
    x = torch.randn(BATCH, TOKENS, 33)
    with torch.no_grad(), pellucid.watch(nn.Sequential(model)) as fused:
        model(x)
    model.fused_attn = False
    with torch.no_grad(), pellucid.watch(nn.Sequential(model)) as by_hand:
        model(x)
    (one,), (other,) = fused.records, by_hand.records
    assert by_hand.unseen == {}
    assert other.kept == "query and key"
    torch.testing.assert_close(one.weights.dense(), other.weights.dense(), **NEAR)


@pytest.mark.parametrize("name", GENERATING)
def test_beams_are_followed(name):
    """A row is that of the beam that a text came to be, though its past lay in others."""
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name)
    options = {"num_beams": 3, "num_return_sequences": 3}
    with torch.no_grad():
        plain = generate(model, given, **options)
        with pellucid.watch(model) as seen:
            assert torch.equal(generate(model, given, **options), plain)
    assert seen.unseen == {}
    expanded = {part: value.repeat_interleave(3, 0) for part, value in given.items()}
    decoding = [record for record in seen.records if len(record.query) == 3 * BATCH]
    written = decoding[0].query_ids  # of the beams of the last pass, from which all texts came
    assert {tuple(row) for row in written.tolist()} >= {tuple(row[:-1]) for row in plain.tolist()}
    last = torch.zeros(len(written), 1, dtype=torch.int64)
    expected = full_pass(name, expanded, torch.cat([written, last], 1))
    for record in decoding:
        assert len([one for one in seen.records if one.name == record.name]) == 1
        ours, theirs = record.weights.dense(), expected[record.name][0]
        torch.testing.assert_close(ours, theirs, **NEAR)


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "opt", "llama, grouped heads", "cohere"])
def test_tokens_that_are_guessed_and_taken_back(name, monkeypatch):
    """Prompt lookup proposes tokens, reads them in one step, and crops the cache."""
    taken_back = []
    crop = DynamicLayer.crop

    def counted(self, tokens_to_remove):
        taken_back.append(-tokens_to_remove)
        return crop(self, tokens_to_remove)

    monkeypatch.setattr(DynamicLayer, "crop", counted)
    model = build(name, FAMILIES[name].default, generating=True)
    ids = some_ids(5, 1).repeat(1, 3)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            sequence = generate(model, given, prompt_lookup_num_tokens=3)
        assert any(count > 0 for count in taken_back)
        assert_triangles(name, seen, given, sequence)


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("name", SOME[:3])
def test_a_prompt_that_is_read_in_chunks(name, padding):
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name, padding)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            sequence = generate(model, given, prefill_chunk_size=4)
        assert_triangles(name, seen, given, sequence)


@pytest.mark.parametrize("name", SOME[:3])
def test_a_conversation_in_several_turns(name):
    """Each turn goes on with the cache of the one before: one triangle of them all."""
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name)
    cache, ids = transformers.DynamicCache(config=model.config), given["input_ids"]
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            for turn in (3, 5):
                more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                sequence = generate(model, more, past_key_values=cache)
                ids = torch.cat([sequence, some_ids(turn)], 1)
            more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            sequence = generate(model, more, past_key_values=cache)
        assert_triangles(name, seen, given, sequence)


@pytest.mark.parametrize("name", ["gpt2", "llama, grouped heads"])
def test_a_cache_that_is_cut_by_hand(name):
    """As one who tries several continuations does: what is cut is forgotten."""
    model, ids = build(name, FAMILIES[name].default, generating=True), some_ids()
    other = some_ids(5)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            cache = model(ids, use_cache=True).past_key_values
            cache.crop(7 - TOKENS)
            model(other, past_key_values=cache)
        assert_triangles(
            name,
            seen,
            {"input_ids": ids[:, :7], "attention_mask": torch.ones_like(ids[:, :7])},
            torch.cat([ids[:, :7], other, ids[:, :1]], 1),
        )


@pytest.mark.parametrize("name", ["gpt2", "llama, grouped heads"])
def test_an_assistant_that_drafts(name):
    model = build(name, FAMILIES[name].default, generating=True)
    assistant = build(name, FAMILIES[name].default, generating=True)
    with torch.no_grad():
        for parameter in assistant.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assistant.generation_config.eos_token_id = None
    ids = some_ids(TOKENS, 1)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            sequence = generate(model, given, assistant_model=assistant)
        assert_triangles(name, seen, given, sequence)


def test_a_generation_without_a_cache():
    """Every step is a whole pass, and a record."""
    name = "llama, grouped heads"
    model, given = build(name, "sdpa", generating=True), prompt(name)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            sequence = generate(model, given, use_cache=False)
        assert len(seen.records) == NEW * LAYERS
        for place, own in full_pass(name, given, sequence).items():
            torch.testing.assert_close(seen[place].dense(), own[0], **NEAR)


def test_a_generation_that_began_before_the_watch():
    name = "llama, grouped heads"
    model, ids = build(name, "sdpa", generating=True), some_ids()
    with torch.no_grad():
        cache = model(ids[:, :5], use_cache=True).past_key_values
        with pellucid.watch(model) as seen:
            for at in range(5, TOKENS):
                model(ids[:, at : at + 1], past_key_values=cache)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = full_pass(name, given, torch.cat([ids, ids[:, :1]], 1))
    assert len(seen.records) == LAYERS
    for place, own in expected.items():
        torch.testing.assert_close(seen[place].dense(), own[0][:, :, 5:], **NEAR)


@pytest.mark.parametrize("name", ["llama, grouped heads", "mistral, a window"])
def test_some_layers_of_a_generation(name):
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name, "left")
    with torch.no_grad():
        with pellucid.watch(model, layers=-1) as seen:
            sequence = generate(model, given)
        expected = full_pass(name, given, sequence)
    assert seen.names == [f"model.layers.{LAYERS - 1}.self_attn"]
    ours, theirs = seen[seen.names[0]].dense(), expected[seen.names[0]][0]
    torch.testing.assert_close(ours[0], theirs[0], **NEAR)
    torch.testing.assert_close(ours[1, :, 4:], theirs[1, :, 4:], **NEAR)


@pytest.mark.parametrize("name", SOME)
def test_replay_of_a_generation(name):
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name, "left")
    with torch.no_grad(), pellucid.watch(model, values=True) as seen:
        generate(model, given)
    for record in seen.records:
        near = {"atol": 2e-6 * float(record.value.abs().max()), "rtol": 1e-4}
        torch.testing.assert_close(record.weights @ record.value, record.context, **near)
        assert record.value.shape[-2] == record.shape[-1]


@pytest.mark.parametrize("name", ["gpt2", "llama, grouped heads", "t5", "bart"])
def test_tokens_of_a_generation(name):
    """Which token each query and each key stands for."""
    model, given = build(name, FAMILIES[name].default, generating=True), prompt(name)
    with torch.no_grad(), pellucid.watch(model) as seen:
        sequence = generate(model, given)
    for record in seen.records:
        queries = given["input_ids"] if record.shape[-2] == SOURCE else sequence[:, :-1]
        keys = given["input_ids"] if record.shape[-1] == SOURCE else sequence[:, :-1]
        assert torch.equal(record.query_ids, queries)
        assert torch.equal(record.key_ids, keys)
        assert record.is_cross == (record.shape[-2] != record.shape[-1] == SOURCE)
