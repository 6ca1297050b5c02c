"""Blocks worked off on every core at once.

A block is a matrix product and a few sweeps: torch would put each of those on all cores and wait
for the slowest, hundreds of times. Here each core has blocks of its own, and waits for nobody.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier, local
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Item = TypeVar("Item")
Result = TypeVar("Result")


_own = local()


@contextmanager
def between(call: Callable[[], None]) -> Iterator[None]:
    """Before each block of whatever this thread asks for inside, make a call.

    It may wait, so that others go first, or raise, where nobody wants the answer any more.
    """
    before, _own.call = getattr(_own, "call", None), call
    try:
        yield
    finally:
        _own.call = before


def is_transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is going on, in this thread alone."""
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
    """Every item with what the function makes of it, in order.

    Where gradients are wanted only the inputs are kept, and the function runs again in the backward
    pass (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """
    threads = torch.get_num_threads()
    if (call := getattr(_own, "call", None)) is not None:
        items = _interrupted(items, call)
    if is_transformed():  # which knows no checkpoints, and other threads nothing of it
        for item in items:
            yield item, function(item)
    elif differentiable:
        for item in items:
            yield item, checkpoint(function, item, use_reentrant=False)
    elif device.type != "cpu" or threads == 1:
        for item in items:
            yield item, function(item)
    else:
        yield from _each_in_parallel(function, items, threads)


def _each_in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    inference = torch.is_inference_mode_enabled()

    def work(item: Item) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # both are a thread's own
            return function(item)

    pool = _pool(threads)
    running: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            running.append((item, pool.submit(work, item)))
            if len(running) > 2 * threads:  # results that wait to be used are memory
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
    # The number of threads is each thread's own, but a thread takes the last one set by anybody
    # when it first asks: start all workers now, and set it back for whoever comes later.
    barrier = Barrier(threads)
    list(pool.map(lambda _: barrier.wait(), range(threads)))
    torch.set_num_threads(threads)
    return pool


def _work_alone() -> None:
    torch.set_num_threads(1)
    assert torch.get_num_threads() == 1  # asked for, and so settled, before it is set back


if hasattr(os, "register_at_fork"):  # threads do not survive a fork, and a pool without them hangs
    os.register_at_fork(after_in_child=_pool.cache_clear)
