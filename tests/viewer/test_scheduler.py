"""What takes long waits for what is soon done, and stops where nobody waits for it."""

import threading
from collections.abc import Iterator

import pytest
import torch

from pellucid.attention.block_pool import between, each
from pellucid.viewer import scheduler as module
from pellucid.viewer.scheduler import DroppedError, Scheduler

BLOCKS = 7


@pytest.fixture
def turns() -> Iterator[Scheduler]:
    made = Scheduler()
    yield made
    made.close()


def passing(done: list[int], begun: threading.Event, go: threading.Event) -> int:
    """A pass over some blocks that stops in the first of them until it may go on."""

    def block(number: int) -> int:
        begun.set()
        assert go.wait(20)
        return number

    for number, _ in each(block, range(BLOCKS), torch.device("meta"), False):
        done.append(number)
    return len(done)


def test_what_is_soon_done_goes_first(turns: Scheduler) -> None:
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()
    long = turns.submit("slow", lambda: passing(done, begun, go))
    assert begun.wait(20)

    def short() -> list[int]:
        go.set()
        held.wait(0.2)  # the long one could end meanwhile
        return list(done)

    held = threading.Event()
    assert turns.submit("soon", short).result(20) in ([], [0])
    assert long.result(20) == BLOCKS
    assert done == list(range(BLOCKS))


@pytest.mark.parametrize("pace", ["slow", "soon"])
def test_what_nobody_waits_for_stops(turns: Scheduler, pace: str) -> None:
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()
    long = turns.submit(pace, lambda: passing(done, begun, go))  # type: ignore[arg-type]
    after = turns.submit(pace, lambda: 3)  # type: ignore[arg-type]
    other = turns.submit(pace, lambda: 5)  # type: ignore[arg-type]
    assert begun.wait(20)
    turns.drop(long)
    turns.drop(after)
    go.set()
    with pytest.raises(DroppedError):
        long.result(20)
    assert after.cancelled()
    assert other.result(20) == 5
    assert len(done) <= 1


def test_measuring_goes_on_for_whoever_asks_next(turns: Scheduler) -> None:
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()
    long = turns.submit("measuring", lambda: passing(done, begun, go))
    assert begun.wait(20)
    turns.drop(long)
    go.set()
    assert long.result(20) == BLOCKS


def test_measuring_begins_when_nothing_else_is_asked(
    turns: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 10**9)
    order: list[str] = []
    go = threading.Event()
    first = turns.submit("soon", lambda: go.wait(20))
    measured = turns.submit("measuring", lambda: order.append("measured"))
    second = turns.submit("slow", lambda: order.append("slow"))
    go.set()
    first.result(20)
    second.result(20)
    turns.submit("soon", lambda: order.append("soon")).result(20)
    monkeypatch.setattr(module, "REST", 0)
    measured.result(20)
    assert order == ["slow", "soon", "measured"]


def test_an_error_is_the_answer(turns: Scheduler) -> None:
    with pytest.raises(ZeroDivisionError):
        turns.submit("soon", lambda: 1 // 0).result(20)
    assert turns.submit("slow", lambda: 2).result(20) == 2


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_call_is_made_between_blocks(device: str) -> None:
    calls: list[int] = []
    with between(lambda: calls.append(1)):
        found = list(each(lambda n: 2 * n, range(BLOCKS), torch.device(device), False))
    assert found == [(n, 2 * n) for n in range(BLOCKS)]
    assert len(calls) == BLOCKS
    list(each(lambda n: n, range(BLOCKS), torch.device(device), False))
    assert len(calls) == BLOCKS
