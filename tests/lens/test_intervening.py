"""Interventions in a running program: nothing stays behind, threads, generation, watches."""

import itertools
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import writers
from tests.fuzzing import few_or_many
from tests.lens.edited_eager import assert_close, eager_edits, hidden
from tests.lens.families import SOURCE, build, inputs, some_ids
from tests.models.stacks import of
from torch import nn
from torch.utils.checkpoint import checkpoint

import pellucid
from pellucid import errors, masks
from pellucid.lens.interception import listeners, patches
from pellucid.models import Config
from pellucid.tasks.generation import generate

IDS = some_ids()


@pytest.fixture(autouse=True)
def nothing_stays():
    before = torch.softmax, nn.functional.scaled_dot_product_attention, torch.matmul
    enabled = torch.backends.mha.get_fastpath_enabled
    yield
    assert listeners.active == ()
    assert patches._patches == {}
    after = torch.softmax, nn.functional.scaled_dot_product_attention, torch.matmul
    assert after == before
    assert torch.backends.mha.get_fastpath_enabled is enabled


def output(model, ids=IDS):
    with torch.no_grad():
        return model(ids)[0]


def edited(model, ids=IDS, **options):
    with pellucid.intervene(model) as edit:
        edit.knock_out(**options)
        return output(model, ids)


def test_the_model_is_as_before():
    model = build("bert", "sdpa")
    plain = output(model)
    knocked_out = edited(model, layer=1, head=2)
    assert (knocked_out - plain).abs().max() > 1e-2
    assert torch.equal(output(model), plain)
    edit = pellucid.intervene(model)
    edit.knock_out(head=9)
    with pytest.raises(errors.OutOfRangeError, match="no head 9"), edit:
        output(model)
    assert torch.equal(output(model), plain)


def test_without_edits_nothing_changes():
    model = build("llama, grouped heads", "sdpa")
    plain = output(model)
    with pellucid.intervene(model):
        assert torch.equal(output(model), plain)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_interventions_and_watches_overlap_in_any_order(order):
    """Two edits and a watch, opened in one order and closed in another."""
    model = build("gpt2", "sdpa")
    both = pellucid.intervene(model)
    with both:
        both.knock_out(0, 1)
        both.knock_out(1, 0, keys=2)
        truth = output(model)
    first, second = pellucid.intervene(model), pellucid.intervene(model)
    first.knock_out(0, 1)
    second.knock_out(1, 0, keys=2)
    opened = [first, pellucid.watch(model, values=True), second]
    for at in order:
        opened[at].__enter__()
    ours = output(model)
    for at in reversed(order):
        opened[at].__exit__(None, None, None)
    torch.testing.assert_close(ours, truth)
    seen = opened[1]
    assert seen.unseen == {}
    assert not seen["h.0.attn"][:, 1].any()
    assert not seen["h.1.attn"][:, 0, :, 2].any()
    assert all(proof.rows and proof.error <= proof.allowed for proof in seen.proof.values())


def test_what_is_open_is_not_opened_again():
    """The inner `with` would close it, and what runs after that would not be edited."""
    model = build("gpt2", "sdpa")
    for listener in (pellucid.intervene(model), pellucid.watch(model)):
        with listener, pytest.raises(errors.ArgumentError, match="open already"):
            listener.__enter__()


def test_outputs_edited_by_two_interventions():
    """They combine; what would need the outputs of the other one undone is refused."""
    model = build("gpt2", "sdpa")
    with pellucid.watch(model) as seen, pellucid.intervene(model) as both:
        both.scale(0, 1, 3)
        both.knock_out(0, 0)
        truth = output(model)
    for turned in (False, True):
        first, second = (pellucid.intervene(model) for _ in range(2))
        one, other = (second, first) if turned else (first, second)
        one.scale(0, 1, 3)
        other.knock_out(0, 0)
        with first, second, pellucid.watch(model) as again:
            torch.testing.assert_close(output(model), truth)
        assert again.unseen == {}
        torch.testing.assert_close(again["h.0.attn"].dense(), seen["h.0.attn"].dense())
    first, second = pellucid.intervene(model), pellucid.intervene(model)
    first.scale(0, 1, 3)
    second.knock_out(0, 1, keys=2)
    with pytest.raises(errors.ArgumentError, match="put the edits into one"), first, second:
        output(model)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_on_the_left_is_not_in_the_mean(implementation):
    model = build("llama, grouped heads", implementation)
    present = torch.arange(IDS.shape[1]) >= torch.tensor([[4], [0]])
    positions = (present.long().cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad(), pellucid.intervene(model) as edit:
        edit.knock_out(1, 1, by="mean")
        padded = model(IDS, attention_mask=present.long(), position_ids=positions)[0]
        alone = model(IDS[:1, 4:])[0]
    torch.testing.assert_close(padded[:1, 4:], alone)


def test_a_query_that_pools_has_no_place_among_its_keys():
    """One query over six keys, and then over seven: no step of a generation."""
    torch.manual_seed(3)
    pool, query = nn.MultiheadAttention(12, 3, batch_first=True).eval(), torch.randn(1, 1, 12)
    found = []
    for sizes in ((6, 7), (7,)):
        with torch.no_grad(), pellucid.intervene(pool) as edit:
            edit.knock_out(head=1, queries=0)
            for size in sizes:
                keys = torch.ones(1, size, 12)
                found.append(pool(query, keys, keys)[0])
    torch.testing.assert_close(found[1], found[2])


def test_each_item_of_a_batch_has_its_own_edit():
    """The same text three times, each with another head knocked out."""
    model = build("llama, grouped heads", "sdpa")
    ids = IDS[:1].expand(3, -1)
    with pellucid.intervene(model) as edit:
        for item, head in enumerate((0, 3, 5)):
            edit.knock_out(1, head, items=item)
        together = output(model, ids)
    for item, head in enumerate((0, 3, 5)):
        alone = edited(model, IDS[:1], layer=1, head=head)
        torch.testing.assert_close(together[item : item + 1], alone)


def test_other_threads_are_left_alone():
    model = build("bert", "sdpa")
    plain, found = output(model), {}
    barrier = threading.Barrier(2)

    def elsewhere():
        barrier.wait(10)
        found["elsewhere"] = output(model)
        barrier.wait(10)

    def everywhere():
        found["everywhere"] = output(model)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with pellucid.intervene(model) as edit:
        edit.knock_out(0, 1)
        barrier.wait(10)
        here = output(model)
        barrier.wait(10)
        inherits = threading.Thread(target=everywhere)
        inherits.start()
        inherits.join()
    thread.join()
    assert torch.equal(found["elsewhere"], plain)
    assert torch.equal(found["everywhere"], here)


def test_edits_for_everyone():
    model, found = build("bert", "sdpa"), {}
    begin = threading.Event()

    def elsewhere():
        begin.wait(10)
        found["there"] = output(model)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with pellucid.intervene(model, everyone=True) as edit:
        edit.knock_out(0, 1)
        begin.set()
        thread.join()
        assert torch.equal(found["there"], output(model))


@pytest.mark.filterwarnings("ignore")  # those of torch's compiler
def test_a_compiled_model_runs_eagerly():
    model = build("bert", "sdpa")
    compiled = torch.compile(model, backend="eager")
    plain = output(compiled)
    with pellucid.intervene(compiled) as edit:
        edit.knock_out(0, 1)
        ours = output(compiled)
    assert torch.equal(ours, edited(model, layer=0, head=1))
    torch.testing.assert_close(output(compiled), plain)
    torch._dynamo.reset()


CROSS = {"bart": "*.encoder_attn", "t5": "*.EncDecAttention"}


@pytest.mark.parametrize("name", CROSS)
def test_generation_with_a_memory(name):
    """Positions of cross-attention are those of the text that is written."""
    model = build(name, "sdpa", generating=True)
    source = {key: x for key, x in inputs(name, "left").items() if "decoder" not in key}
    with torch.no_grad(), pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
        edit.knock_out(CROSS[name], 1, queries=[3, 5], keys=[2])
        edit.steer(CROSS[name], 0, keys=slice(0, 2), factor=4)
        answer = model.generate(
            **source,
            max_new_tokens=7,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert seen.unseen == {}

    def same(place, query, ones):
        if not place.endswith(CROSS[name].removeprefix("*")):
            return None, None
        added = hidden(ones, slice(None), [1], [3, 5], [2])
        added[:, 0, :, :2] = torch.tensor(4.0).log()
        return added, None

    eager = build(name, "eager", generating=True)
    with torch.no_grad(), eager_edits(eager, same):
        truth = eager(**source, decoder_input_ids=answer.sequences[:, :-1]).logits
    assert_close(torch.stack(answer.logits, 1), truth)


PLAIN = Config(kind="decoder", vocabulary=53, width=24, heads=3, kv_heads=1, hidden=17, layers=2)
PAIR = Config(kind="encoder-decoder", vocabulary=53, width=24, heads=3, hidden=17, layers=2)


def test_our_own_decoder_in_steps():
    model = of("decoder", PLAIN)
    ids = IDS % 53
    with torch.no_grad(), pellucid.intervene(model) as edit:
        edit.knock_out(1, [0, 2], keys=[1, 7])
        edit.scale(0, 1, -2, queries=[4, 8])
        whole = model(ids)
        cache = model.cache(2, ids.shape[1])
        steps = [model(ids[:, :6], cache=cache)]
        steps += [model(ids[:, at : at + 1], cache=cache) for at in range(6, ids.shape[1])]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert (model(ids) - whole).abs().max() > 1e-3


def test_our_own_encoder_decoder():
    model = of("encoder-decoder", PAIR)
    source, target = some_ids(SOURCE) % 53, IDS % 53
    mask = masks.padding(torch.tensor([SOURCE, 4]))
    with torch.no_grad(), pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
        edit.knock_out(["decoder.blocks.*.cross"], 1, queries=[3, 5], keys=[2])
        whole = model(source, target, mask)
        memory, cache = model.encode(source, mask), model.cache(2, target.shape[1])
        steps = [
            model.decode(target[:, at : at + 1], memory, mask, cache=cache)
            for at in range(target.shape[1])
        ]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)
    assert seen.unseen == {}


class Attend(nn.Module):
    def forward(self, query, key, value, mask=None):
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


ROWS, COLS, WIDTH = 5, 7, 3
CHOICES = st.one_of(
    st.none(), st.integers(-3, 2), st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True)
)


@few_or_many(40)
def test_any_links_are_what_a_mask_on_them_gives(examples):
    layer = Attend()
    generator = torch.Generator().manual_seed(3)
    query, key, value = (
        2 * torch.randn(3, 3, n, WIDTH, generator=generator) for n in (ROWS, COLS, COLS)
    )
    shown = torch.rand(ROWS, COLS, generator=generator) > 0.3

    @examples
    @given(
        head=CHOICES,
        items=CHOICES,
        queries=CHOICES,
        keys=st.one_of(st.integers(0, 6), st.builds(slice, st.integers(0, 6), st.none())),
        factor=st.sampled_from([0.0, 0.01, 7.0]),
        masked=st.booleans(),
        grad=st.booleans(),
    )
    def check(head, items, queries, keys, factor, masked, grad):
        def index(chosen):
            return (
                slice(None) if chosen is None else [chosen] if isinstance(chosen, int) else chosen
            )

        added = torch.zeros(3, 3, ROWS, COLS, dtype=torch.float64)
        place = torch.meshgrid(
            *(
                torch.arange(n)[index(x)]
                for n, x in ((3, items), (3, head), (ROWS, queries), (COLS, keys))
            ),
            indexing="ij",
        )
        added[place] = torch.tensor(factor, dtype=torch.float64).log()
        scores = query.double() @ key.double().mT * WIDTH**-0.5
        if masked:
            scores = scores.masked_fill(~shown, -torch.inf)
        truth = (scores + added).softmax(-1).nan_to_num(0) @ value.double()
        with torch.set_grad_enabled(grad), pellucid.intervene(layer) as edit:
            if factor:
                edit.steer("", head, keys, factor, queries=queries, items=items)
            else:
                edit.knock_out("", head, queries, keys, items=items)
            ours = layer(query, key, value, shown if masked else None)
        assert_close(ours, truth)

    check()


class Layer(nn.Module):
    """Attends by the fused function, or by hand."""

    def __init__(self, by_hand):
        super().__init__()
        self.by_hand, self.project = by_hand, nn.Linear(11, 11)

    def forward(self, x):
        query = self.project(x)
        if not self.by_hand:
            return nn.functional.scaled_dot_product_attention(query, x, x)
        return (query @ x.mT * 11**-0.5).softmax(-1) @ x


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_gradient_checkpointing_computes_again_is_edited_again(by_hand):
    torch.manual_seed(3)
    layer, found = Layer(by_hand).double(), []
    x = torch.randn(2, 3, 7, 11, dtype=torch.float64)
    for again in (False, True):
        layer.zero_grad()
        with pellucid.watch(layer) as seen, pellucid.intervene(layer) as edit:
            edit.knock_out(head=1, keys=2)
            edit.scale(head=0, factor=3)
            y = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
            y.square().sum().backward()
        found.append(layer.project.weight.grad.clone())
        assert len(seen.records) == 1
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("change", ["left", "cleared"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_gradient_checkpointing_computes_again_without_its_edits(by_hand, reentrant, change):
    torch.manual_seed(3)
    layer = Layer(by_hand)
    x = torch.randn(2, 3, 7, 11, requires_grad=True)
    told = "call backward inside the `with`"
    with pellucid.intervene(layer) as edit:
        edit.knock_out(head=1, keys=2)
        y = checkpoint(layer, x, use_reentrant=reentrant).sum()
        if change == "cleared":
            edit.clear()
            with pytest.raises(errors.ArgumentError, match=told):
                y.backward()
    if change == "left":
        with pytest.raises(errors.ArgumentError, match=told):
            y.backward()
    layer.zero_grad()
    checkpoint(layer, x, use_reentrant=reentrant).sum().backward()
    assert layer.project.weight.grad.any()


def in_parts(layer, x):
    """A module that reads some of its queries at a time, and always the same keys."""
    parts = layer.project(x).split(4, -2)
    if not layer.by_hand:
        attend = nn.functional.scaled_dot_product_attention
        return torch.cat([attend(part, x.clone(), x) for part in parts], -2)
    return torch.cat([(part @ x.mT * 11**-0.5).softmax(-1) @ x for part in parts], -2)


@pytest.mark.parametrize("by_hand", [False, True])
def test_queries_that_are_read_in_parts_have_no_positions(by_hand):
    class Parts(Layer):
        forward = in_parts

    torch.manual_seed(3)
    layer, x = Parts(by_hand), torch.randn(2, 3, 7, 11)
    with torch.no_grad(), pellucid.intervene(layer) as edit:
        edit.knock_out(head=1, keys=2)
        edit.scale(head=0, factor=3)
        ours = layer(x)
    truth = (layer.project(x) @ x.mT * 11**-0.5).detach()
    truth[:, 1, :, 2] = -torch.inf
    truth = truth.softmax(-1) @ x
    truth[:, 0] *= 3
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-5)
    told = r"knock_out\(head=1, queries=1\): '' reads its queries in parts"
    edit = pellucid.intervene(layer)
    edit.knock_out(head=1, queries=1)
    with pytest.raises(errors.ArgumentError, match=told), edit:
        layer(x)


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_same_keys_in_another_pass_are_no_parts(by_hand):
    class Cross(Layer):
        def forward(self, x, keys):
            query = self.project(x)
            if not self.by_hand:
                return nn.functional.scaled_dot_product_attention(query, keys, keys)
            return (query @ keys.mT * 11**-0.5).softmax(-1) @ keys

    torch.manual_seed(3)
    layer, x = Cross(by_hand), torch.randn(2, 3, 5, 11)
    keys = torch.randn(2, 3, 7, 11)
    with torch.no_grad(), pellucid.intervene(layer) as edit:
        edit.knock_out(head=1, queries=1)
        first, second = layer(x, keys), layer(x, keys)
    assert torch.equal(first, second)
    assert not first[:, 1, 1].any()
    assert first[:, 1, 0].any()


def test_sixteen_bits_are_no_less_exact_than_the_model():
    torch.manual_seed(3)
    layer = Layer(False).bfloat16()
    x = torch.randn(2, 3, 7, 11).bfloat16()
    with torch.no_grad(), pellucid.watch(layer) as seen, pellucid.intervene(layer) as edit:
        edit.knock_out(head=1, keys=2)
        ours = layer(x)
        scores = (layer.project(x) @ x.mT).double() * 11**-0.5
    assert ours.dtype == torch.bfloat16
    scores[:, 1, :, 2] = -torch.inf
    truth = scores.softmax(-1) @ x.double()
    assert (ours - truth).abs().max() < 2e-2 * truth.abs().max()
    assert seen.unseen == {}


@pytest.mark.parametrize("by_hand", [False, True])
def test_inference_mode(by_hand):
    torch.manual_seed(3)
    layer, x = Layer(by_hand), torch.randn(2, 3, 7, 11)
    found = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), pellucid.intervene(layer) as edit:
            edit.knock_out(head=1, keys=2)
            edit.knock_out(head=0, by="mean")
            found.append(layer(x).clone())
    torch.testing.assert_close(*found)
    with torch.no_grad():
        context = layer(x)[:, 0]
    torch.testing.assert_close(found[0][:, 0], context.mean(1, keepdim=True).expand_as(context))


@pytest.mark.filterwarnings("ignore")  # those of torch's compiler
def test_traced_code_is_edited():
    torch.manual_seed(3)
    layer, x = Layer(False), torch.randn(2, 3, 7, 11)
    with torch.no_grad():
        traced = torch.jit.trace(layer, x)
        with pellucid.intervene(layer) as edit:
            edit.knock_out(head=1, keys=2)
            truth = layer(x)
        with pellucid.intervene(traced) as edit:
            edit.knock_out(head=1, keys=2)
            ours = traced(x)
    torch.testing.assert_close(ours, truth)


def test_multi_head_attention_takes_outputs_of_another_run():
    torch.manual_seed(3)
    module = nn.MultiheadAttention(22, 2, batch_first=True).eval()
    here, there = torch.randn(2, 3, 5, 22)
    with torch.no_grad():
        with pellucid.watch(module, values=True) as seen:
            whole = module(there, there, there)[0]
        with pellucid.intervene(module) as edit:
            edit.knock_out(by=seen)
            ours = module(here, here, here)[0]
        torch.testing.assert_close(ours, whole)
        single = module(here[0], here[0], here[0])[0]
        with pellucid.intervene(module) as edit:
            edit.scale(factor=1)
            torch.testing.assert_close(module(here[0], here[0], here[0])[0], single)


CACHES = {
    "static": {"cache_implementation": "static", "disable_compile": True},
    "none": {"use_cache": False},
    "prefill in chunks": {"prefill_chunk_size": 4},
    "beams": {"num_beams": 2},
}


@pytest.mark.filterwarnings("ignore")  # those of transformers
@pytest.mark.parametrize("cache", CACHES)
def test_every_kind_of_cache(cache):
    """The weights that were used are those of one pass over the text that was written."""
    model = build("llama, grouped heads", "sdpa", generating=True)

    def edits(edit):
        edit.knock_out(0, 1)
        edit.knock_out(1, [0, 2], keys=[2, 12])
        edit.scale(1, 4, -2, queries=slice(11, None))

    def write(**options):
        with torch.no_grad(), pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
            edits(edit)
            ids = model.generate(
                IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False,
                pad_token_id=0, **options,
            )  # fmt: skip
        return ids, seen

    ids, seen = write(**CACHES[cache])
    assert seen.unseen == {}
    if cache != "beams":
        assert torch.equal(ids, write()[0])
    with torch.no_grad(), pellucid.watch(model) as whole, pellucid.intervene(model) as edit:
        edits(edit)
        model(ids[:, :-1])
    for name in whole:
        last = seen[name][:, :, -1]
        if cache != "beams":
            assert_close(last, whole[name][:, :, -1, : last.shape[-1]])


def test_texts_of_different_lengths_have_no_common_positions():
    model = writers.writer()
    prompts = ["And God said", "The"]
    edit = pellucid.intervene(model)
    edit.knock_out(0, 1, queries=30)
    with pytest.raises(errors.ArgumentError, match="differ in length"), edit:
        generate(model, prompts, max_tokens=3)
    with pellucid.intervene(model) as edit:
        edit.knock_out(0, 1)
        together = generate(model, prompts, max_tokens=3)
        alone = [generate(model, [prompt], max_tokens=3)[0] for prompt in prompts]
    assert [x.ids for x in together] == [x.ids for x in alone]


def test_an_edited_recording_can_be_saved(tmp_path):
    model = build("llama, grouped heads", "sdpa")
    with pellucid.watch(model) as seen, pellucid.intervene(model) as edit:
        edit.knock_out(0, [1, 3], keys=[2, 4], queries=slice(3, None), items=1)
        edit.steer(1, 2, keys=0, factor=3)
        output(model)
    seen.save(tmp_path / "edited.safetensors")
    loaded = pellucid.Recording.load(tmp_path / "edited.safetensors")
    for name in seen:
        assert torch.equal(loaded[name].dense(), seen[name].dense())
    assert not loaded["layers.0.self_attn"][1, [1, 3], 3:, 2].any()


def test_what_was_not_edited_is_listed():
    torch.manual_seed(3)
    model = nn.ModuleList([nn.MultiheadAttention(22, 2).eval() for _ in range(3)])
    x = torch.randn(5, 2, 22)
    with pellucid.intervene(model) as edit:
        edit.knock_out(head=1)
        for part in model[:2]:
            part(x, x, x)
    assert list(edit.unapplied) == ["2"]
    assert edit.unapplied["2"].startswith("was not run")
