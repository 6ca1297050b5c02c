"""Who hears what: a watch hears the context that opened it, and all that is begun in it."""

import asyncio
import contextvars
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import pellucid
from pellucid.lens.interception import listeners

BATCH, HEADS, DIM = 2, 3, 11
OURS, THEIRS = 5, 7
sdpa = nn.functional.scaled_dot_product_attention


class Fused(nn.Module):
    def forward(self, x):
        return sdpa(x, x, x)


class ByHand(nn.Module):
    def forward(self, x):
        return (x @ x.mT).softmax(-1) @ x


class Held(nn.Module):
    """What only the dispatcher meets."""

    def __init__(self):
        super().__init__()
        self.call = sdpa

    def forward(self, x):
        return self.call(x, x, x)


class Torchs(nn.Module):
    """The fast path of torch's own layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(12, 3, 13, batch_first=True)

    def forward(self, x):
        return self.layer(torch.nn.functional.pad(x.flatten(0, 1), (0, 1)))


KINDS = (Fused, ByHand, Held, Torchs)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def nobody_listens_afterwards():
    yield
    assert listeners.active == ()


def run(model, tokens):
    with torch.no_grad():
        return model(torch.randn(BATCH, HEADS, tokens, DIM))


def lengths(seen):
    """How many queries each call had."""
    return sorted(record.shape[-2] for record in seen.records)


def in_thread(function, *args):
    """Run in a thread, and give on what it raised."""
    raised = []

    def work():
        try:
            function(*args)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


class Worker:
    """A thread that was begun before any watch, and does what it is told."""

    def __enter__(self):
        self.pool = ThreadPoolExecutor(1)
        self.pool.submit(int).result()
        return lambda *args: self.pool.submit(*args).result(10)

    def __exit__(self, *_):
        self.pool.shutdown()


@every_kind
def test_another_threads_pass_is_not_heard(kind):
    model = kind().eval()
    with Worker() as work, pellucid.watch(model) as seen:
        run(model, OURS)
        work(run, model, THEIRS)
    assert (lengths(seen), seen.unseen) == ([OURS], {})
    assert seen.records[0].shape[-2] == OURS


@every_kind
def test_another_threads_watch_is_its_own(kind):
    """Two threads watch one model at once: each has what it ran itself."""
    model, barrier, found = kind().eval(), threading.Barrier(2, timeout=10), {}

    def work(tokens):
        with pellucid.watch(model) as seen:
            barrier.wait()
            run(model, tokens)
            barrier.wait()
        found[tokens] = lengths(seen)

    threads = [threading.Thread(target=work, args=(tokens,)) for tokens in (OURS, THEIRS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {OURS: [OURS], THEIRS: [THEIRS]}


@every_kind
def test_threads_that_are_begun_inside_are_heard(kind):
    model = kind().eval()
    with pellucid.watch(model) as seen:
        in_thread(run, model, OURS)
        in_thread(in_thread, run, model, THEIRS)
    assert (lengths(seen), seen.unseen) == ([OURS, THEIRS], {})


@every_kind
def test_pools_that_are_begun_inside_are_heard(kind):
    model = kind().eval()
    with pellucid.watch(model) as seen, ThreadPoolExecutor(2) as pool:
        list(pool.map(run, [model] * 4, [OURS, THEIRS] * 2))
    assert lengths(seen) == [OURS] * 2 + [THEIRS] * 2


@every_kind
def test_tasks_that_are_begun_inside_are_heard(kind):
    model = kind().eval()

    async def work(tokens):
        await asyncio.sleep(0)
        run(model, tokens)

    async def main():
        with pellucid.watch(model) as seen:
            await asyncio.gather(work(OURS), work(THEIRS))
        return seen

    assert lengths(asyncio.run(main())) == [OURS, THEIRS]


@every_kind
def test_tasks_of_other_watches_are_not_heard(kind):
    """Two tasks, each with a watch of its own, in turn on one thread."""
    model = kind().eval()

    async def work(tokens):
        with pellucid.watch(model) as seen:
            for _ in range(3):
                await asyncio.sleep(0)
                run(model, tokens)
        return lengths(seen)

    async def main():
        return await asyncio.gather(work(OURS), work(THEIRS))

    assert asyncio.run(main()) == [[OURS] * 3, [THEIRS] * 3]


@every_kind
def test_asyncios_own_threads_are_heard(kind):
    """Also where the thread is older than the watch, and was used for another."""
    model = kind().eval()

    async def main():
        await asyncio.to_thread(run, model, THEIRS)
        with pellucid.watch(model) as seen:
            await asyncio.to_thread(run, model, OURS)
        await asyncio.to_thread(run, model, THEIRS)
        with pellucid.watch(model) as again:
            await asyncio.to_thread(run, model, THEIRS)
        return lengths(seen), lengths(again)

    assert asyncio.run(main()) == ([OURS], [THEIRS])


@every_kind
def test_everyone(kind):
    model = kind().eval()
    with Worker() as work:
        with pellucid.watch(model, everyone=True) as seen:
            run(model, OURS)
            work(run, model, THEIRS)
        work(run, model, THEIRS)
    assert lengths(seen) == [OURS, THEIRS]


@every_kind
def test_everyone_beside_a_watch_of_its_own(kind):
    model = kind().eval()
    with Worker() as work, pellucid.watch(model, everyone=True) as all_of_it:
        with pellucid.watch(model) as own:
            run(model, OURS)
            work(run, model, THEIRS)
        run(model, OURS)
    assert (lengths(all_of_it), lengths(own)) == ([OURS, OURS, THEIRS], [OURS])


@every_kind
def test_a_watch_inside_a_watch(kind):
    model = kind().eval()
    with pellucid.watch(model) as outer:
        run(model, OURS)
        with pellucid.watch(model) as inner:
            run(model, THEIRS)
        run(model, OURS)
    assert (lengths(outer), lengths(inner)) == ([OURS, OURS, THEIRS], [THEIRS])


@every_kind
def test_a_watch_of_a_part_inside_a_watch(kind):
    model = nn.Sequential(kind(), nn.Identity()).eval()
    with pellucid.watch(model) as outer, pellucid.watch(model[0]) as inner:
        run(model, OURS)
    assert lengths(outer) == lengths(inner) == [OURS]
    assert outer.names[0].startswith("0")


def test_a_copied_context_hears_as_long_as_the_watch_is_open():
    model = Fused()
    with pellucid.watch(model) as seen:
        context = contextvars.copy_context()
        context.run(run, model, OURS)
    context.run(run, model, THEIRS)
    assert lengths(seen) == [OURS]


def test_an_empty_context_hears_nothing():
    model = Fused()
    with pellucid.watch(model) as seen:
        contextvars.Context().run(run, model, THEIRS)
        run(model, OURS)
    assert lengths(seen) == [OURS]


@pytest.mark.parametrize("everyone", [True, False])
def test_a_watch_that_is_closed_in_another_context(everyone):
    """As a generator's or a fixture's may be: it is over everywhere."""
    model = Fused()
    seen = pellucid.watch(model, everyone=everyone)
    context = contextvars.copy_context()
    context.run(seen.__enter__)
    context.run(run, model, OURS)
    seen.__exit__(None, None, None)
    context.run(run, model, THEIRS)
    assert lengths(seen) == [OURS]
    kept = weakref.ref(seen)
    del seen
    gc.collect()
    assert kept() is None  # though the context lives


def test_a_watch_that_is_closed_in_another_thread():
    model = Fused()
    seen = pellucid.watch(model)
    seen.__enter__()
    in_thread(seen.__exit__, None, None, None)
    with pellucid.watch(model):
        run(model, THEIRS)
    assert lengths(seen) == []
    kept = weakref.ref(seen)
    del seen
    gc.collect()
    assert kept() is None


def test_a_pool_that_outlives_the_watch_is_heard_no_more_and_keeps_nothing():
    """Its threads were begun inside, and live on."""
    model = Fused()
    with ThreadPoolExecutor(1) as pool:
        with pellucid.watch(model) as seen:
            pool.submit(run, model, OURS).result(10)
        pool.submit(run, model, THEIRS).result(10)
        assert lengths(seen) == [OURS]
        kept = weakref.ref(seen)
        del seen
        gc.collect()
        assert kept() is None


def test_a_thread_that_outlives_a_watch_hears_no_later_one():
    """It was begun in a context that is not the later watch's."""
    model, go = Fused(), threading.Event()

    def work():
        go.wait(10)
        run(model, THEIRS)

    with pellucid.watch(model):
        thread = threading.Thread(target=work)
        thread.start()
    with pellucid.watch(model) as seen:
        go.set()
        thread.join(10)
        run(model, OURS)
    assert lengths(seen) == [OURS]


@every_kind
def test_a_thread_that_ends_leaves_nothing(kind):
    """Neither the watch nor what it recorded is kept by a thread, dead or alive."""
    model = kind().eval()
    with Worker() as work:

        def watched():
            with pellucid.watch(model) as seen:
                run(model, OURS)
                in_thread(run, model, THEIRS)
            return weakref.ref(seen), [weakref.ref(record) for record in seen.records]

        seen, records = work(watched)
        gc.collect()
        assert [ref() for ref in (seen, *records)] == [None] * (1 + len(records))


@every_kind
def test_threads_that_raise(kind):
    model = kind().eval()
    with pellucid.watch(model) as seen:
        with pytest.raises((RuntimeError, TypeError, AttributeError)):
            in_thread(model, "no tensor")
        in_thread(run, model, OURS)
    assert lengths(seen) == [OURS]


class Timer(threading.Thread):
    """A subclass with a `run` of its own."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def run(self):
        run(self.model, OURS)


@every_kind
def test_threads_of_another_class(kind):
    model = kind().eval()
    with pellucid.watch(model) as seen:
        thread = Timer(model)
        thread.start()
        thread.join(10)
    assert lengths(seen) == [OURS]
    assert "run" not in vars(thread) or thread.run != thread  # what is left of it hears nobody
    gc.collect()


def test_replicas_in_threads():
    """As DataParallel works: copies of the model, each in a thread; they are said or seen."""
    model = nn.Sequential(ByHand())
    replicas = [model.__class__(*model) for _ in range(2)]
    with pellucid.watch(model) as seen:
        for replica, tokens in zip(replicas, (OURS, THEIRS), strict=True):
            in_thread(run, replica, tokens)
    assert lengths(seen) == [OURS, THEIRS]
    assert seen.names == ["0"]


def test_replicas_of_each_module_in_threads():
    """As DataParallel makes them for several devices."""
    model = nn.Sequential(ByHand(), ByHand())
    with pellucid.watch(model) as seen:
        for tokens in (OURS, THEIRS):
            replica = model._replicate_for_data_parallel()
            for name, part in model.named_children():
                replica._modules[name] = part._replicate_for_data_parallel()
            in_thread(run, replica, tokens)
    assert [(record.name, record.shape[-1]) for record in seen.records] == [
        (name, tokens) for tokens in (OURS, THEIRS) for name in ("0", "1")
    ]


@pytest.mark.parametrize("everyone", [True, False])
def test_many_threads_at_once_are_all_heard_and_right(everyone):
    """Each call's weights are its own, whatever the others do meanwhile."""
    model, count = ByHand(), 12
    given = [torch.randn(1, 1, n + 2, DIM, dtype=torch.float64) for n in range(count)]
    with torch.no_grad():
        truths = {len(x[0, 0]): (x @ x.mT).softmax(-1) for x in given}

    def work(x):
        for _ in range(3):
            with torch.no_grad():
                model(x)

    with pellucid.watch(model, everyone=everyone) as seen, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, given))
    assert len(seen.records) == 3 * count
    for record in seen.records:
        torch.testing.assert_close(record.weights.dense(), truths[record.shape[-1]])
