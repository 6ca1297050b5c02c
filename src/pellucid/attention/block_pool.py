"""Blocks computed on all cores, one block per core.

A block is a matrix product and a few sweeps: torch would run each of those on all cores and wait
for the slowest, hundreds of times. Here each core works through blocks of its own.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier, local
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from pellucid.attention import forking

Item = TypeVar("Item")
Result = TypeVar("Result")

_own = local()


@contextmanager
def between(call: Callable[[], None]) -> Iterator[None]:
    """Make a call before each block that this thread computes inside.

    It may wait, so that other work goes first, or raise, to cancel.
    """
    outer, _own.call = getattr(_own, "call", None), call
    try:
        yield
    finally:
        _own.call = outer


def is_transformed() -> bool:
    """Whether this thread is inside a transform of torch.func (grad, vmap, ...)."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _interrupted(items: Iterable[Item], call: Callable[[], None]) -> Iterator[Item]:
    for item in items:
        call()
        yield item


def each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    device: torch.device,
    differentiable: bool,
) -> Iterator[tuple[Item, Result]]:
    """Each item with the result of the function, in order.

    Where gradients are needed only the inputs are kept, and the function runs again in the backward
    pass (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """
    forking.go_alone()
    threads = torch.get_num_threads()
    if (call := getattr(_own, "call", None)) is not None:
        items = _interrupted(items, call)
    transformed = is_transformed()  # which forbids checkpoints, and which other threads lack
    if differentiable and not transformed:
        for item in items:
            yield item, checkpoint(function, item, use_reentrant=False)
    elif transformed:
        for item in items:
            yield item, function(item)
    elif device.type != "cpu" or threads == 1:
        for item in items:
            with torch.no_grad():
                result = function(item)
            yield item, result
    else:
        yield from _each_in_parallel(function, items, threads)


def together(function: Callable[[int], None], parts: int) -> None:
    """Call a function with each number below `parts`, at most one for each thread of torch, all at
    the same time. It calls no torch and lets others run: this thread makes the first call itself.
    """
    pool = _pool(torch.get_num_threads()) if parts > 1 else None
    others = [pool.submit(function, part) for part in range(1, parts)] if pool else []
    try:
        function(0)
    finally:
        for other in others:
            other.result()


def _each_in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    inference = torch.is_inference_mode_enabled()

    def work(item: Item) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # both are per thread
            return function(item)

    pool = _pool(threads)
    running: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            running.append((item, pool.submit(work, item)))
            if len(running) > 2 * threads:  # finished results take memory
                first, result = running.popleft()
                yield first, result.result()
        while running:
            first, result = running.popleft()
            yield first, result.result()
    finally:
        for _, result in running:
            result.cancel()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, "pellucid", initializer=_work_alone)
    # A thread takes the count last set by any thread when it first asks: start all workers now,
    # then set the count back for threads that come later.
    barrier = Barrier(threads)
    list(pool.map(lambda _: barrier.wait(), range(threads)))
    torch.set_num_threads(threads)
    return pool


def _work_alone() -> None:
    torch.set_num_threads(1)
    assert torch.get_num_threads() == 1  # asking fixes it before it is set back
