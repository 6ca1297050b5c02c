"""Kernels in Triton, run as Python on the CPU, against the formula in float64.

Their products in bfloat16 are wrong there, so 16 bits are float16; test_gpu.py has the rest.
"""

import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pellucid
from pellucid import masks
from pellucid.attention import block_statistics, triton_statistics
from pellucid.attention.masks import Extent, Rows, as_mask
from pellucid.attention.masks.row_ranges import RowRanges, row_ranges
from pellucid.attention.triton_statistics import Tile, plan_of
from tests.attention.cases import Case, assert_within_budget, by_rule, mask_rules, random

Q, K = 23, 37
IDS = torch.tensor([3] * 7 + [5] * 11 + [8] * 19)
CAUSAL = torch.ones(Q, K).tril(16).bool()
SAME = IDS[:Q, None] == IDS
MASKS: dict[str, tuple[Any, Tensor | None]] = {
    "none": (None, None),
    "causal": (masks.causal(offset=16), CAUSAL),
    "early": (masks.causal(offset=-3), torch.ones(Q, K).tril(-3).bool()),
    "window": (masks.window(7, 2), torch.ones(Q, K).tril(2).triu(-7).bool()),
    "documents": (masks.documents(IDS[:Q], IDS) & masks.causal(offset=16), SAME & CAUSAL),
    "padding": (
        masks.padding(torch.tensor([13, 29])),
        torch.arange(K) < torch.tensor([13, 29])[:, None, None, None],
    ),
    "prefix": (
        masks.prefix(9) | masks.causal(),
        torch.ones(Q, K).tril().bool() | (torch.arange(K) < 9),
    ),
}
STATISTICS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "received": lambda weights, masked, apart: weights.sum(-2),
    "entropy": lambda weights, masked, apart: torch.special.entr(weights).sum(-1),
    "distance": lambda weights, masked, apart: (weights * apart).sum(-1),
    "peak": lambda weights, masked, apart: masked.amax(-1),
}


@pytest.fixture
def _kernels_everywhere(monkeypatch):
    """Small tiles, so that small matrices have several, and the CPU instead of a GPU."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("kernels are not run as Python where there is a GPU")
    tile = Tile(16, 16, 1, 1)
    monkeypatch.setattr(triton_statistics, "tile_of", lambda *of: tile)
    monkeypatch.setattr(triton_statistics, "is_best", lambda scores, top: True)
    monkeypatch.setattr("triton.runtime.interpreter._patch_builtin", _patch_builtin)


def _patch_builtin(package: Any, builder: Any, scope: Any) -> None:
    """As Triton's own, which takes half the time: it looks through a package at each call."""
    interpreter = importlib.import_module("triton.runtime.interpreter")
    for name in _builtins(package):
        member = getattr(package, name)
        if interpreter.tl.core.is_builtin(member):  # it is not once it has been replaced
            interpreter._patch_attr(package, name, member, builder, scope)


@cache
def _builtins(package: Any) -> list[str]:
    core = importlib.import_module("triton.language.core")
    return [name for name, _ in inspect.getmembers(package, core.is_builtin)]


def shapes(dtype: torch.dtype, dim: int = 11, batch: int = 2, groups: int = 2) -> list[Tensor]:
    sizes = (2 * groups, Q, dim), (groups, K, dim), (groups, K, 13)
    layouts = "heads_last", "plain", "plain"
    return [
        random(batch, *size, seed=i, dtype=dtype, layout=layout)
        for i, (size, layout) in enumerate(zip(sizes, layouts, strict=True))
    ]


def check(case: Case, top: int = 5) -> None:
    exact, plain = case.reference(), case.reference(torch.float32)
    _, weights = pellucid.attention(case.query, case.key, case.value, case.mask, **case.options)
    logsumexp = exact.masked.logsumexp(-1)  # the CPU's own of 16 bits is good to 2**-14 alone
    if case.options.get("sinks") is not None:
        logsumexp = torch.logaddexp(logsumexp, case.options["sinks"].double()[:, None])
    want = frozenset({"received", "entropy", "distance", "peak"})
    found = block_statistics.statistics(weights.operands, logsumexp.float(), want, top)
    assert all(figure.dtype == torch.float32 for name, figure in found.items() if name != "indices")
    offset = 0 if case.mask is None or case.mask.offset is None else case.mask.offset
    apart = (torch.arange(Q)[:, None] + offset - torch.arange(K)).abs()
    of_all = STATISTICS | {"values": lambda weights, masked, apart: weights.topk(top).values}
    for name, of in of_all.items():
        truth, single = (of(x.weights, x.masked, apart) for x in (exact, plain))
        hidden = truth == -torch.inf
        assert torch.equal(found[name] == -torch.inf, hidden), name
        parts = (x.masked_fill(hidden, 0) for x in (found[name], single, truth))
        assert_within_budget(*parts, 2**-20, exact.masked)
    values, indices = found["values"], found["indices"]
    picked = exact.weights.gather(-1, indices.clamp_min(0)).masked_fill(indices == -1, 0)
    assert torch.equal(indices == -1, values == 0)
    assert (picked - values).abs().max() < 1e-5


@pytest.mark.usefixtures("_kernels_everywhere")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in MASKS),
        ("none", torch.float16),
        ("window", torch.float16),
    ],
)
def test_every_mask_that_is_a_range(name, dtype) -> None:
    mask, visible = MASKS[name]
    batch, groups = 2 if name == "padding" else 1, 2 if name in ("padding", "none") else 1
    check(Case(*shapes(dtype, batch=batch, groups=groups), mask, visible))


@pytest.mark.usefixtures("_kernels_everywhere")
@pytest.mark.parametrize("option", ["bias", "softcap", "sinks", "scale"])
def test_every_option(option) -> None:
    options = {
        "bias": random(4, Q, K, seed=5),
        "softcap": 1.7,
        "sinks": random(2, seed=7),
        "scale": -0.4,
    }
    mask, visible = MASKS["window"]
    given = shapes(torch.float32, batch=1, groups=2 if option == "bias" else 1)
    check(Case(*given, mask, visible, {option: options[option]}))


@pytest.mark.usefixtures("_kernels_everywhere")
@pytest.mark.parametrize("dim", [1, 129, 256])
def test_every_head_size(dim) -> None:
    query, key, value = shapes(torch.float32, dim, batch=1)
    check(Case(query[:, :1], key[:, :1], value[:, :1]))


@pytest.mark.usefixtures("_kernels_everywhere")
@pytest.mark.parametrize("top", [1, 11])
def test_few_and_many_of_the_strongest(top) -> None:
    query, key, value = shapes(torch.float32, batch=1)
    check(Case(query[:, :1], key[:, :1], value[:, :1]), top)


@pytest.mark.usefixtures("_kernels_everywhere")
def test_the_same_digits_every_time_and_some_queries_alone() -> None:
    query, key, value = shapes(torch.float32, batch=1, groups=1)
    _, weights = pellucid.attention(query, key, value, masks.causal(offset=16))
    first = weights.received()
    largest = weights.masked.dense().amax((-1, -2))
    assert (weights.max_logit() - largest).abs().max() < 1e-6
    assert torch.equal(first, weights.received())
    dense = weights.dense()
    for queries in (slice(5, 17), [0, 2, 3, 22]):
        wanted = dense[:, :, queries].sum(-2)
        assert (weights.received(queries) - wanted).abs().max() < 1e-6
    assert (weights.received([]) == 0).all()


@pytest.mark.usefixtures("_kernels_everywhere")
def test_what_padding_holds_never_matters() -> None:
    query, key, value = shapes(torch.float32, batch=1, groups=1)
    _, weights = pellucid.attention(query, key, value, masks.padding(19))
    wanted = weights.statistics(3)
    key[:, :, 19:] = torch.nan
    _, weights = pellucid.attention(query, key, value, masks.padding(19))
    found = weights.statistics(3)
    for ours, clean in zip(found[:2] + found[2], wanted[:2] + wanted[2], strict=True):
        assert torch.equal(ours, clean)


@pytest.mark.usefixtures("_kernels_everywhere")
def test_other_masks_and_gradients_take_the_other_path() -> None:
    query, key, value = shapes(torch.float32, batch=1, groups=1)
    checkered = (torch.arange(Q)[:, None] + torch.arange(K)) % 2 == 0
    _, weights = pellucid.attention(query, key, value, checkered)
    assert (weights.received() - weights.dense().sum(-2)).abs().max() < 1e-6
    query.requires_grad_()
    _, weights = pellucid.attention(query, key, value)
    weights.received().square().sum().backward()
    assert query.grad is not None


@pytest.mark.usefixtures("_kernels_everywhere")
@pytest.mark.parametrize(
    ("name", "region", "reduce"),
    [
        ("none", (slice(0, Q), slice(0, K)), "mean"),
        ("window", (slice(3, Q), slice(5, 31)), "mean"),
        ("documents", (slice(0, 19), slice(2, K)), "max"),
        ("padding", (slice(0, Q), slice(0, K)), "max"),
    ],
)
def test_pictures(monkeypatch, name, region, reduce) -> None:
    monkeypatch.setattr(triton_statistics, "LEAST_CELL", 1)
    query, key, value = shapes(torch.float32)
    options = {"bias": random(4, Q, K, seed=5)} if name == "window" else {}
    mask, _ = MASKS[name]
    _, weights = pellucid.attention(query, key, value, mask, **options)
    found = weights.pool(2, 3, reduce, region)
    monkeypatch.setattr(triton_statistics, "is_best", lambda scores, top: False)
    assert (found - weights.pool(2, 3, reduce, region)).abs().max() < 1e-6


@given(st.data())
@settings(max_examples=60)
def test_ranges_of_rows_are_the_mask_or_are_not_given(data) -> None:
    batch, queries, keys = 2, 5, 7
    mask, rule = data.draw(mask_rules((batch,), queries, keys))
    visible = by_rule(rule, batch, queries, keys)
    device = torch.device("cpu")
    bound = as_mask(mask).bind(Extent(torch.Size((batch,)), 3, queries, keys, device))
    ranges = row_ranges(bound, queries, keys, device)
    if ranges is not None:
        places = torch.arange(keys)
        begins, ends = (x[:, None, :, None] for x in ranges)
        assert torch.equal(((places >= begins) & (places < ends)).expand(visible.shape), visible)


@pytest.mark.parametrize(
    "mask",
    [
        *(mask for mask, _ in MASKS.values() if mask is not None),
        masks.window(2, 2) & masks.padding(torch.arange(K) > 3),
        ~masks.padding(torch.ones(K, dtype=torch.bool)) | Rows(torch.arange(Q) % 2 == 0),
    ],
)
def test_masks_in_use_have_ranges(mask) -> None:
    device = torch.device("cpu")
    bound = mask.bind(Extent(torch.Size((2,)), 3, Q, K, device))
    if "~" in repr(mask):
        assert row_ranges(bound, Q, K, device) is None
        return
    begins, ends = row_ranges(bound, Q, K, device)
    places = torch.arange(K)
    visible = (places >= begins[..., None]) & (places < ends[..., None])
    assert torch.equal(visible.expand(2, Q, K)[:, None], mask.dense(Q, K).expand(2, 1, Q, K))


@given(
    st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), min_size=1, max_size=29),
    st.booleans(),
)
@settings(max_examples=100)
def test_a_plan_visits_what_is_seen_and_asks_wherever_something_is_hidden(pairs, by_keys) -> None:
    keys, rows, cols = 23, 5, 4
    begins, ends = torch.tensor(pairs).T[:, None]
    empty = begins >= ends
    begins, ends = begins.masked_fill(empty, 0), ends.masked_fill(empty, 0)
    plan = plan_of(RowRanges(begins, ends), keys, rows, cols, by_keys)[0].tolist()
    places = torch.arange(keys)
    seen = (places >= begins[0][:, None]) & (places < ends[0][:, None])
    step, other = (cols, rows) if by_keys else (rows, cols)
    seen = seen.T if by_keys else seen
    count = -(-seen.shape[1] // other)
    assert len(plan) == -(-len(seen) // step)
    for program, (low, full_low, full_high, high) in enumerate(plan):
        assert 0 <= low <= full_low <= full_high <= high <= count
        for tile in range(count):
            part = seen[program * step :, tile * other :][:step, :other]
            if not low <= tile < high:
                assert not part.any()
            if full_low <= tile < full_high:
                assert part.all()
                # A key past the last would be seen by all.
                assert by_keys or part.shape[1] == other


def compiled(*cases: str) -> dict[str, int]:
    """Bytes of shared memory of kernels compiled for a GPU that need not be there."""
    pytest.importorskip("triton")
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.attention.compiled_kernels", *cases]
    ran = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    lines = (line.partition(": ") for line in ran.stdout.splitlines())
    return {case: int(figures.split()[0]) for case, _, figures in lines}


def test_the_kernels_compile_for_hopper() -> None:
    """Types that change in a loop, which the interpreter takes, the compiler refuses."""
    cases = "received,90,128,bfloat16,none", "of_rows,90,64,bfloat16,bias"
    assert list(compiled(*cases)) == list(cases)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["received", "of_rows", "pooled"])
def test_the_kernels_fit_every_gpu(kernel) -> None:
    """Those with the least shared memory have 99 KiB for a program."""
    shapes = [(128, "bfloat16"), (256, "float16"), (128, "float32"), (256, "float32")]
    options = ["none", "bias", "softcap"]
    for capability in (80, 86, 90, 100, 120):
        cases = [f"{kernel},{capability},{d},{t},{o}" for d, t in shapes for o in options]
        assert max(compiled(*cases).values()) <= 99 * 1024
