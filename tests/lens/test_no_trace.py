"""A watch changes nothing of what it looks at, and leaves nothing behind."""

import copy
import gc
import itertools
import sys
import threading
import weakref

import pytest
import torch
import transformers
from tests.lens.families import FAMILIES, LAYERS, build, inputs, own_weights, some_ids, truth
from torch import nn

import pellucid
from pellucid.lens.interception import listeners

NEAR = {"atol": 2e-6, "rtol": 1e-4}
SOME = ["bert", "gpt2", "llama, grouped heads", "t5"]
IDS = some_ids()


def functions():
    """Whatever of torch and transformers could have been replaced."""
    owners = {
        "torch": torch,
        "functional": nn.functional,
        "MultiheadAttention": nn.MultiheadAttention,
        "TransformerEncoderLayer": nn.TransformerEncoderLayer,
        "Module": nn.Module,
        "Tensor": torch.Tensor,
        "AttentionInterface": transformers.modeling_utils.AttentionInterface,
        "PreTrainedModel": transformers.PreTrainedModel,
        "modeling_utils": transformers.modeling_utils,
        "sdpa": sys.modules["transformers.integrations.sdpa_attention"],
        **{
            name: value
            for name, value in vars(transformers.cache_utils).items()
            if isinstance(value, type)
        },
    }
    return {
        (owner, name): value
        for owner, holder in owners.items()
        for name, value in dict(vars(holder)).items()
        if (callable(value) or isinstance(value, staticmethod | classmethod))
        and not name.startswith("__resume_at")  # what the compiler adds to a module
    }


def hooks(model):
    kinds = [name for name in vars(model) if name.endswith("_hooks")]
    return [
        (place, kind, list(getattr(module, kind)))
        for place, module in model.named_modules()
        for kind in kinds
    ]


@pytest.fixture(scope="module")
def _used_before():
    """Models have their caches and the classes that are made when first asked for."""
    for name in SOME:
        build(name, None)
    torch.compile(lambda: None, backend="eager")()  # the compiler changes nn.Module for good


@pytest.fixture(autouse=True)
def nothing_stays(_used_before):
    """After every test here, everything is as before."""
    before = functions()
    stance = torch._dynamo.eval_frame._stance.stance
    yield
    after = functions()
    assert {key for key in before if after.get(key) is not before[key]} == set()
    assert {key for key in after if key not in before} == set()
    assert listeners.active == ()
    assert torch._dynamo.eval_frame._stance.stance == stance


def last(output):
    first = output[0] if not isinstance(output, torch.Tensor) else output
    assert isinstance(first, torch.Tensor)
    return first


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_are_equal_bit_for_bit(name, implementation):
    if implementation == "sdpa" and FAMILIES[name].default != "sdpa":
        implementation = FAMILIES[name].default
    model, given = build(name, implementation), inputs(name, "left")
    with torch.no_grad():
        plain = model(**given)
        with pellucid.watch(model, values=True) as seen:
            watched = model(**given)
            for record in seen.records:  # asking in between changes nothing either
                record.weights.dense()
        after = model(**given)
    for key, value in plain.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, watched[key]), key
            assert torch.equal(value, after[key]), key


@pytest.mark.parametrize("name", SOME)
def test_training_is_equal_bit_for_bit(name):
    """The same dropout is drawn, and the same gradients come back."""

    def trained(watched):
        model = build(name, "sdpa").train()
        torch.manual_seed(3)
        given = inputs(name)
        if watched:
            with pellucid.watch(model) as seen:
                loss = last(model(**given)).square().sum()
                loss.backward()
            assert seen.unseen == {}
        else:
            loss = last(model(**given)).square().sum()
            loss.backward()
        return loss, [p.grad for p in model.parameters() if p.grad is not None], torch.rand(3)

    loss, gradients, following = trained(False)
    other, others, next_following = trained(True)
    assert torch.equal(loss, other)
    assert torch.equal(following, next_following)  # no random number more was drawn
    assert len(gradients) == len(others) > 0
    assert all(map(torch.equal, gradients, others))


@pytest.mark.parametrize("training", [True, False])
def test_mode_hooks_and_attributes_stay(training):
    model = build("bert", None).train(training)
    model.encoder.layer[1].train(not training)
    model.encoder.layer[0].register_forward_hook(lambda *_: None)
    modes = [module.training for module in model.modules()]
    known, attributes = hooks(model), [set(vars(module)) for module in model.modules()]
    parameters = {name: (id(p), p._version) for name, p in model.named_parameters()}
    implementation = model.config._attn_implementation
    with pellucid.watch(model) as seen, torch.no_grad():
        assert hooks(model) == known
        model(IDS)
    seen[seen.names[0]].dense()
    assert [module.training for module in model.modules()] == modes
    assert hooks(model) == known
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert {n: (id(p), p._version) for n, p in model.named_parameters()} == parameters
    assert model.config._attn_implementation == implementation


class Failing(nn.Module):
    """Attends, and then breaks."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(22, 2)

    def forward(self, x):
        self.inner(x, x, x)
        raise RuntimeError("broken on purpose")


def test_an_exception_in_the_model():
    before, model = functions(), Failing()
    with pytest.raises(RuntimeError, match="broken on purpose"), pellucid.watch(model) as seen:
        model(torch.randn(5, 3, 22))
    assert functions() == before
    assert seen.names == ["inner"]
    assert seen["inner"].shape == (3, 2, 5, 5)


def test_an_exception_inside_the_attention(monkeypatch):
    model = build("bert", "sdpa")

    def broken(*args, **options):
        raise RuntimeError("no kernel today")

    with monkeypatch.context() as patched:
        patched.setattr(nn.functional, "scaled_dot_product_attention", broken)
        with pellucid.watch(model) as seen:
            with pytest.raises(RuntimeError, match="no kernel today"):
                model(IDS)
            patched.undo()
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(IDS)
    assert len(seen.records) == LAYERS
    assert seen.unseen == {}


ORDERS = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS)
def test_watches_that_overlap_close_in_any_order(order):
    before = functions()
    models = [build("bert", None), build("gpt2", None)]
    watches = [pellucid.watch(models[0]), pellucid.watch(models[1]), pellucid.watch(models[0])]
    for one in watches:
        one.__enter__()
    calls, opened = [0, 0, 0], {0, 1, 2}
    for closing in order:
        with torch.no_grad():
            for model in models:
                model(IDS)
        for one in opened:
            calls[one] += 1
        watches[closing].__exit__(None, None, None)
        opened.remove(closing)
    assert functions() == before
    with torch.no_grad():
        models[0](IDS)
    assert [len(one.records) for one in watches] == [LAYERS * count for count in calls]
    for one, name in zip(watches, ["bert", "gpt2", "bert"], strict=True):
        for place, own in truth(name).items():
            torch.testing.assert_close(one[place].dense(), own[0], **NEAR)


def test_a_patch_of_somebody_else_stays():
    """Wrapped while the watch is open, and still there afterwards; the watch is silent in it."""
    model, calls = build("bert", "sdpa"), []
    original = nn.functional.scaled_dot_product_attention
    try:
        with pellucid.watch(model) as seen:
            inner = nn.functional.scaled_dot_product_attention

            def counted(*args, **options):
                calls.append(1)
                return inner(*args, **options)

            nn.functional.scaled_dot_product_attention = counted
            with torch.no_grad():
                model(IDS)
        assert nn.functional.scaled_dot_product_attention is counted
        with torch.no_grad():
            model(IDS)
            assert (len(seen.records), len(calls)) == (LAYERS, 2 * LAYERS)
            with pellucid.watch(model) as again:
                model(IDS)
        assert nn.functional.scaled_dot_product_attention is counted
        assert len(again) == LAYERS
    finally:
        nn.functional.scaled_dot_product_attention = original


# Threads.


def together(*tasks):
    """Run tasks in threads that begin at the same time; raise what one of them raised."""
    barrier, errors = threading.Barrier(len(tasks)), []

    def run(task):
        barrier.wait()
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_two_threads_watch_two_models():
    before = functions()
    names = ["bert", "gpt2", "t5"]
    models = {name: build(name, None) for name in names}
    for name in names:
        truth(name)

    def watch(name):
        for _ in range(7):
            with torch.no_grad(), pellucid.watch(models[name]) as seen:
                models[name](**inputs(name))
            expected = truth(name)
            assert set(seen.names) == set(expected)
            assert len(seen.records) == len(expected)
            assert seen.unseen == {}
            for place, own in expected.items():
                torch.testing.assert_close(seen[place].dense(), own[0], **NEAR)

    together(*(lambda name=name: watch(name) for name in names))
    assert functions() == before


def test_a_model_that_generates_in_another_thread():
    model = build("llama, grouped heads", None, generating=True)
    model.generation_config.eos_token_id = None
    other = build("bert", None)
    made = {}

    def generate():
        with torch.no_grad():
            made["sequence"] = model.generate(
                IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=7, do_sample=False
            )

    def disturb():
        with torch.no_grad():
            for _ in range(5):
                other(IDS)

    with pellucid.watch(model) as seen:
        together(generate, disturb)
    with torch.no_grad():
        eager = build("llama, grouped heads", "eager", generating=True)
        output = eager(made["sequence"][:, :-1], output_attentions=True)
    for place, own in own_weights("llama, grouped heads", output, "model.").items():
        torch.testing.assert_close(seen[place].dense(), own[0], **NEAR)
    assert len(seen.records) == LAYERS


def test_one_model_called_from_two_threads():
    """Calls may come in any order; each record is one whole call."""
    model, ids = build("bert", None), {length: some_ids(length) for length in (7, 11)}
    with torch.no_grad():
        eager = build("bert", "eager")
        expected = {n: eager(i, output_attentions=True).attentions for n, i in ids.items()}

    def call(length):
        with torch.no_grad():
            for _ in range(5):
                model(ids[length])

    with pellucid.watch(model) as seen:
        together(lambda: call(7), lambda: call(11))
    assert len(seen.records) == 2 * 5 * LAYERS
    for record in seen.records:
        layer = int(record.name.split(".")[2])
        own = expected[record.shape[-1]][layer]
        torch.testing.assert_close(record.weights.dense(), own, **NEAR)


# Memory.


@pytest.mark.parametrize("name", SOME)
def test_the_model_is_freed_though_the_watch_is_kept(name):
    model = build(name, None)
    kept = weakref.ref(model)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(**inputs(name))
    del model
    gc.collect()
    assert kept() is None
    for place, own in truth(name).items():
        torch.testing.assert_close(seen[place].dense(), own[0], **NEAR)


@pytest.mark.parametrize("name", SOME)
def test_the_recording_is_freed_though_the_model_is_kept(name):
    model = build(name, None)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(**inputs(name))
        output = model(**inputs(name))
    tensors = [weakref.ref(record.query) for record in seen.records]
    tensors += [weakref.ref(record.key) for record in seen.records]
    recording, records = weakref.ref(seen), [weakref.ref(record) for record in seen.records]
    del seen, output
    gc.collect()
    assert recording() is None
    assert [ref for ref in (*records, *tensors) if ref() is not None] == []


def test_a_generation_is_freed():
    model = build("llama, grouped heads", None, generating=True)
    model.generation_config.eos_token_id = None
    caches = []
    for options in ({}, {"cache_implementation": "static"}):
        with torch.no_grad(), pellucid.watch(model) as seen:
            output = model.generate(
                IDS,
                attention_mask=torch.ones_like(IDS),
                max_new_tokens=3,
                return_dict_in_generate=True,
                **options,
            )
        caches.append(weakref.ref(output.past_key_values))
        record = weakref.ref(seen.records[0])
        del output, seen
        if hasattr(model, "_cache"):
            del model._cache  # transformers keeps a static one for the next time
        gc.collect()
        assert record() is None
    assert [ref() for ref in caches] == [None, None]


def test_the_recording_does_not_keep_the_cache():
    model = build("llama, grouped heads", None)
    with torch.no_grad(), pellucid.watch(model) as seen:
        cache = model(IDS, use_cache=True).past_key_values
        kept = weakref.ref(cache)
        del cache
        gc.collect()
        assert kept() is None
    assert len(seen.records) == LAYERS


# The model goes on, and the recording stays what it was.


@pytest.mark.parametrize("change", ["move", "train", "overwrite", "run"])
@pytest.mark.parametrize("name", SOME)
def test_what_was_recorded_stays(name, change):
    model, given = build(name, None), inputs(name)
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(**given)
    if change == "move":
        model.to(torch.float64)
    elif change == "train":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        last(model.train()(**given)).square().sum().backward()
        optimizer.step()
    elif change == "overwrite":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    else:
        with torch.no_grad():
            model(**inputs(name, "left"))
    for place, own in truth(name).items():
        torch.testing.assert_close(seen[place].dense(), own[0], **NEAR)


def test_a_static_cache_that_is_used_again():
    """Its memory is written over; what was recorded of the first text stays."""
    model, expected = build("llama, grouped heads", None), truth("llama, grouped heads")
    cache = transformers.StaticCache(config=model.config, max_cache_len=17)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            model(IDS, past_key_values=cache)
        cache.reset()
        model(some_ids(13), past_key_values=cache)
    for place, own in expected.items():
        torch.testing.assert_close(seen[place].dense()[..., :11], own[0], **NEAR)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama, grouped heads"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_not_recorded_twice(name, reentrant):
    model = build(name, None).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain, expected = {}, truth(name)
    last(model(IDS)).square().sum().backward()
    plain = {place: p.grad.clone() for place, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    with pellucid.watch(model) as seen:
        last(model(IDS)).square().sum().backward()
    assert seen.unseen == {}
    assert len(seen.records) == len(seen.names) == LAYERS
    for place, own in expected.items():
        torch.testing.assert_close(seen[place].dense(), own[0], **NEAR)
    for place, p in model.named_parameters():
        if place in plain:
            assert torch.equal(p.grad, plain[place])


# Compiled models.


class Attends(nn.Module):
    """Small, for compiling a model of transformers takes seconds."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(33, 99), nn.Linear(33, 33)

    def forward(self, x):
        parts = (part.unflatten(-1, (3, 11)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        context = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        return x + self.proj(context.transpose(1, 2).flatten(2))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Attends(), Attends()])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def small():
    torch.manual_seed(23)
    return Small().eval()


X = torch.randn(2, 11, 33, generator=torch.Generator().manual_seed(5))
WAYS = {
    "the whole": lambda model: torch.compile(model, backend="eager"),
    "in place": lambda model: (model.compile(backend="eager"), model)[1],
    "a part": lambda model: (
        setattr(model.layers, "1", torch.compile(model.layers[1], backend="eager")),
        model,
    )[1],
    "a method": lambda model: (
        setattr(
            model.layers[1], "forward", torch.compile(model.layers[1].forward, backend="eager")
        ),
        model,
    )[1],
}


def assert_seen(seen):
    """Both layers, as the model alone has them."""
    model = small()
    with torch.no_grad(), pellucid.watch(model) as alone:
        model(X)
    assert seen.unseen == {}
    assert [name.replace("_orig_mod.", "") for name in seen.names] == alone.names
    assert len(seen.records) == 2
    for record, expected in zip(seen.records, alone.records, strict=True):
        torch.testing.assert_close(record.weights.dense(), expected.weights.dense(), **NEAR)


def assert_seen_or_said(seen):
    """To say that compiled code cannot be seen is well enough, if it says how it could be."""
    if seen.unseen:
        assert len(seen.records) + len(seen.unseen) == 2
        assert all("compile" in reason for reason in seen.unseen.values())
    else:
        assert_seen(seen)


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own


@QUIET
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("compiler")
def test_compiled_before_the_watch(way, warm):
    model = WAYS[way](small())
    with torch.no_grad():
        if warm:
            model(X)
        with pellucid.watch(model) as seen:
            watched = model(X)
        after = model(X)
        assert torch.equal(watched, small()(X))
    assert torch.equal(after, watched)  # this compiler leaves every sum as it is
    assert_seen_or_said(seen)


@QUIET
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("compiler")
def test_compiled_inside_the_watch(way):
    model = small()
    with torch.no_grad(), pellucid.watch(model) as seen:
        faster = WAYS[way](model)
        watched = faster(X)
    with torch.no_grad():
        assert torch.equal(faster(X), watched)
        assert torch.equal(small()(X), watched)
    assert_seen_or_said(seen)


@QUIET
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.usefixtures("compiler")
def test_the_module_inside_a_compiled_one_is_watched(warm):
    """The user keeps the plain model in hand and calls the compiled one."""
    model = small()
    faster = WAYS["the whole"](model)
    with torch.no_grad():
        if warm:
            faster(X)
        with pellucid.watch(model) as seen:
            faster(X)
        faster(X)
    assert_seen_or_said(seen)


@QUIET
@pytest.mark.usefixtures("compiler")
def test_what_was_compiled_under_a_watch_forgets_it():
    """A graph that was made while functions were wrapped may not keep the wrapper, or the watch."""
    model = small()
    faster = WAYS["the whole"](model)
    with torch.no_grad():
        with pellucid.watch(model) as seen:
            faster(X)
        kept, count = weakref.ref(seen), len(seen.records)
        faster(X)
        assert len(seen.records) == count
        del seen
        gc.collect()
        assert kept() is None
        with pellucid.watch(faster) as again:
            faster(X)
    assert_seen_or_said(again)


@QUIET
@pytest.mark.parametrize("way", ["the whole", "a method"])
@pytest.mark.parametrize("watched", ["the plain one", "the compiled one"])
@pytest.mark.usefixtures("compiler")
def test_a_compiled_model_stays_compiled(watched, way):
    """Watched again and again, it runs the graph that it had, and no other is made."""
    made, ran = [], []

    def backend(graph, examples):
        made.append(graph)

        def run(*args):
            ran.append(graph)
            return graph(*args)

        return run

    model = small()
    inner = model if way == "the whole" else model.layers[1]
    inner.compile(backend=backend) if way == "a method" else None
    faster = torch.compile(model, backend=backend) if way == "the whole" else model
    with torch.no_grad():
        faster(X)
        before = len(made)
        for _ in range(torch._dynamo.config.recompile_limit + 2):
            with pellucid.watch(faster if watched == "the compiled one" else model):
                faster(X)
        compiled_meanwhile, made[:], ran[:] = len(made) - before, [], []
        faster(X)
    assert (before, len(made), len(ran)) == (1, 0, 1)
    assert compiled_meanwhile <= 1


@QUIET
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.usefixtures("compiler")
def test_watches_of_compiled_models_close_in_any_order(order):
    models = [WAYS["the whole"](small()) for _ in range(2)]
    with torch.no_grad():
        for model in models:
            model(X)
        watches = [pellucid.watch(model) for model in models]
        for one in watches:
            one.__enter__()
        watches[order[0]].__exit__(None, None, None)
        for model in models:
            model(X)
        watches[order[1]].__exit__(None, None, None)
        for model in models:
            model(X)
    stance = torch._dynamo.eval_frame._stance.stance
    torch.compiler.set_stance("default")  # whatever comes of it here
    assert stance == "default"
    assert len(watches[order[0]]) == 0
    assert_seen(watches[order[1]])


@QUIET
@pytest.mark.usefixtures("compiler")
def test_an_exception_in_a_compiled_model():
    model = WAYS["the whole"](small())
    with pytest.raises((RuntimeError, TypeError)), pellucid.watch(model):
        model(torch.ones(3))
    with torch.no_grad():
        assert torch.equal(model(X), small()(X))


@QUIET
@pytest.mark.usefixtures("compiler")
def test_a_compiled_model_of_transformers():
    model = torch.compile(build("bert", "sdpa"), backend="eager")
    with torch.no_grad():
        plain = last(model(IDS))
        with pellucid.watch(model) as seen:
            model(IDS)
        assert torch.equal(last(model(IDS)), plain)
    assert seen.unseen == {}
    assert [name.replace("_orig_mod.", "") for name in seen.names] == list(truth("bert"))
    for place, own in zip(seen.names, truth("bert").values(), strict=True):
        torch.testing.assert_close(seen[place].dense(), own[0], **NEAR)


def test_a_copy_of_the_model_is_another_model():
    model = build("bert", None)
    with torch.no_grad(), pellucid.watch(model) as seen:
        other = copy.deepcopy(model)
        other(IDS)
    assert len(seen.records) == 0
    assert set(seen.unseen) == set(truth("bert"))
