"""All that `attention` does on CUDA, with numbers in it: see `pretend_cuda`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pellucid
from pellucid import AttentionWeights, masks
from pellucid.attention import triton_statistics
from pellucid.attention.backends import fused_kernels
from pellucid.attention.functional import attention_weights
from pellucid.attention.masks import Extent
from pellucid.attention.masks.row_ranges import row_ranges
from tests.attention.cases import Case, assert_within_budget, random
from tests.attention.pretend_cuda import OnCuda, cuda, on_cuda

N = 37
IDS = torch.tensor([3] * 11 + [5] * 11 + [8] * 15)
UNEVEN = torch.tensor([1] * 5 + [2] * 19 + [4] * 13)
SAME = IDS[:, None] == IDS
LOWER = torch.ones(N, N).tril().bool()
MASKS: dict[str, tuple[Any, Tensor | None]] = {
    "none": (None, None),
    "causal": (masks.causal(), LOWER),
    "offset": (masks.causal(offset=2), torch.ones(N, N).tril(2).bool()),
    "early": (masks.causal(offset=-3), torch.ones(N, N).tril(-3).bool()),
    "window": (masks.window(7, 2), torch.ones(N, N).tril(2).triu(-7).bool()),
    "padding": (masks.padding(29), (torch.arange(N) < 29).expand(N, N)),
    "documents": (masks.documents(IDS), SAME),
    "causal documents": (masks.documents(IDS) & masks.causal(), SAME & LOWER),
    "uneven documents": (masks.documents(UNEVEN), UNEVEN[:, None] == UNEVEN),
    "dense": (masks.dense(LOWER | SAME), LOWER | SAME),
}


@pytest.fixture(autouse=True)
def _no_shape_is_planned(monkeypatch):
    monkeypatch.setattr(fused_kernels, "_planned", {})
    monkeypatch.setattr(fused_kernels, "CUDNN_SCORES", 0)
    # Of the kernels of our own: test_triton_statistics.py.
    monkeypatch.setattr(triton_statistics, "is_best", lambda scores, top: False)


def given(dtype: torch.dtype, queries: int = N) -> list[Tensor]:
    sizes = (6, queries, 11), (3, N, 11), (3, N, 13)
    return [random(2, *size, seed=i, dtype=dtype) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("name", "biased"),
    [*((name, False) for name in MASKS), ("none", True), ("early", True), ("window", True)],
)
@pytest.mark.parametrize(
    ("dtype", "preferred"), [(torch.float32, 2), (torch.bfloat16, 1), (torch.bfloat16, 3)]
)
def test_context_weights_and_gradients(monkeypatch, name, biased, dtype, preferred) -> None:
    mask, visible = MASKS[name]
    query, key, value = given(dtype)
    options = {"bias": random(6, N, N, seed=5, dtype=dtype)} if biased else {}
    case = Case(query, key, value, mask, visible, options)
    exact, plain, single = (case.reference(t) for t in (torch.float64, dtype, torch.float32))
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    here = {name: on_cuda(x) for name, x in options.items()}
    with cuda((9, 0), monkeypatch) as pretence:
        pretence.preferred = preferred
        there = [on_cuda(x) for x in leaves]
        if name == "dense":
            mask = on_cuda(visible)
        context, weights = pellucid.attention(*there, mask, **here, backend="sdpa")
        with torch.no_grad():
            received, entropy = weights.received(), weights.entropy()
        ran = {call.split("_")[4] for call in pretence.calls}
        assert set(weights.kernel.split(" and ")) <= ran
        assert not any("backward" in call for call in pretence.calls)
        if biased and preferred != 3:
            assert ran == {"efficient"}
        elif preferred == 3:
            assert ran == {"cudnn"}
        loss = context.double().square().sum() + (weights.logsumexp.clamp_min(-9).double()).sum()
        monkeypatch.setattr(OnCuda, "is_strict", False)
        found = torch.autograd.grad(loss, leaves)
        assert any("backward" in call for call in pretence.calls)
    eps = torch.finfo(dtype).eps
    assert_within_budget(context, plain.context, exact.context, eps, exact.masked)
    statistics = (
        (received, lambda weights: weights.sum(-2)),
        (entropy, lambda weights: torch.special.entr(weights).sum(-1)),
    )
    for ours, of in statistics:
        assert_within_budget(ours, of(single.weights), of(exact.weights), 2**-20, exact.masked)
    wide = [x.detach().double().requires_grad_() for x in (query, key, value)]
    options = {name: x.double() for name, x in options.items()}
    context, weights = pellucid.attention(*wide, visible, **options, backend="blockwise")
    loss = context.square().sum() + weights.logsumexp.clamp_min(-9).sum()
    wanted = torch.autograd.grad(loss, wide)
    for ours, truth in zip(found, wanted, strict=True):
        assert (ours.double() - truth).norm() < 16 * eps * truth.norm()


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_old_gpus_have_no_flash(monkeypatch, capability) -> None:
    with cuda(capability, monkeypatch):
        _, weights = pellucid.attention(*map(on_cuda, given(torch.float16)))
        assert weights.kernel == ("flash" if capability >= (8, 0) else "efficient")


def test_flash_never_has_a_causal_mask_whose_sides_differ(monkeypatch) -> None:
    """It would align the last query with the last key."""
    query, key, value = given(torch.bfloat16, queries=29)
    visible = torch.ones(29, N).tril().bool()
    exact = Case(query, key, value, None, visible).reference()
    plain = Case(query, key, value, None, visible).reference(torch.bfloat16)
    with cuda((9, 0), monkeypatch):
        out, _, kernel = fused_kernels.forward(
            *map(on_cuda, (query, key, value)), True, None, 11**-0.5
        )
    assert kernel == "efficient"
    assert_within_budget(out.cpu(), plain.context, exact.context, 2**-7, exact.masked)


def test_cudnn_has_few_shapes_and_keeps_them(monkeypatch) -> None:
    monkeypatch.setattr(fused_kernels, "CUDNN_SHAPES", 2)
    with cuda((9, 0), monkeypatch) as pretence:
        pretence.preferred = 3
        kernels = [
            pellucid.attention(*map(on_cuda, given(torch.bfloat16, queries)))[1].kernel
            for queries in (5, 7, 11, 13, 7, 11, 5)
        ]
    assert kernels == ["cudnn", "cudnn", "flash", "flash", "cudnn", "flash", "cudnn"]


def test_cudnn_has_no_small_call(monkeypatch) -> None:
    monkeypatch.setattr(fused_kernels, "CUDNN_SCORES", 2 * 6 * N * N + 1)
    with cuda((9, 0), monkeypatch) as pretence:
        pretence.preferred = 3
        assert pellucid.attention(*map(on_cuda, given(torch.bfloat16)))[1].kernel == "flash"


def test_the_kernel_is_named_wherever_it_ran() -> None:
    query, key, value = given(torch.float32)
    attend = pellucid.attention
    assert attend(query, key, value)[1].kernel == "cpu flash"
    assert attend(query, key, value, softcap=3.0)[1].kernel == "blockwise"
    weights = attend(query, key, value, backend="reference")[1]
    assert weights.kernel == weights.batch_item(1).kernel == weights.detach().kernel == "reference"
    weights = attention_weights(query, key)
    assert weights.kernel is None
    logsumexp = weights.logsumexp
    assert weights.kernel == "cpu flash"
    weights.set_logsumexp(logsumexp)
    assert weights.kernel is None


def test_a_logsumexp_asked_for_later_is_computed_in_16_bits(monkeypatch) -> None:
    """In which the kernels are as exact and many times as fast."""
    query, key, value = given(torch.bfloat16)
    exact = Case(query, key, value).reference()
    with cuda((9, 0), monkeypatch):
        weights = attention_weights(on_cuda(query), on_cuda(key))
        entropy = weights.entropy()
    assert weights.kernel == "flash"
    truth = torch.special.entr(exact.weights).sum(-1)
    assert (entropy.cpu() - truth).abs().max() < 1e-5


QUESTIONS: dict[str, Callable[[AttentionWeights], Any]] = {
    "block": lambda w: w[1, :, 3:9, 5],
    "places": lambda w: w[:, 2, [3, 1, 30], torch.tensor([5, 7, 11])],
    "row": lambda w: w[..., -1, :],
    "transpose": lambda w: w.T[0, 1, 3:5],
    "dense": lambda w: w.dense(),
    "product": lambda w: w @ torch.ones(N, 2, device=w.device),
    "product of the transpose": lambda w: torch.ones(2, N, device=w.device) @ w,
    "top": lambda w: w.top(3).values,
    "top of products": lambda w: w.top(3, torch.ones(2, 6, N, device=w.device)).values,
    "some received": lambda w: w.received([1, 2, 30]),
    "many received": lambda w: w.received(range(0, N, 2)),
    "statistics": lambda w: w.statistics(3).mean_distance,
    "max_logit": lambda w: w.max_logit(),
    "collect": lambda w: w.collect(("entropy",))["entropy"],
    "visible": lambda w: w.visible(),
    "pool": lambda w: w.pool(3, 4),
    "pool of a part": lambda w: w.pool(3, 4, "max", (slice(5, 19), slice(7, 23))),
    "cells": lambda w: w.cells((5, 7)).sums,
    "cells of rows": lambda w: w.cells((5, 7), ([1, 5, 6], slice(0, N))).largest,
    "rows": lambda w: w.rows(slice(5, 9)).entropy(),
    "head": lambda w: w.head(1, 2).received(),
    "sample": lambda w: w.sample([3, -1]),
    "largest": lambda w: w.max(-1).values,
    "largest of columns": lambda w: w.max(-2).values,
    "mean": lambda w: w.mean((0, 1)),
}


@pytest.mark.parametrize("name", [name for name in MASKS if "causal " not in name])
def test_every_question_stays_on_its_device(monkeypatch, name) -> None:
    tensors = given(torch.float32)
    mask, visible = MASKS[name]
    _, here = pellucid.attention(*tensors, mask)
    with cuda((9, 0), monkeypatch):
        if name == "dense":
            mask = on_cuda(visible)
        _, there = pellucid.attention(*map(on_cuda, tensors), mask)
        for question, ask in QUESTIONS.items():
            answer, wanted = ask(there), ask(here)
            assert answer.device.type == "cuda", question
            assert (answer.cpu() - wanted).abs().max() < 1e-4, question


@pytest.mark.parametrize("name", [name for name in MASKS if name not in ("none", "dense")])
def test_plans_of_our_own_kernels_are_made_on_the_device(monkeypatch, name) -> None:
    mask, visible = MASKS[name]
    with cuda((9, 0), monkeypatch):
        device = on_cuda(torch.zeros(1)).device
        bound = mask.bind(Extent(torch.Size((2,)), 3, N, N, device))
        ranges = row_ranges(bound, N, N, device)
        plans = [triton_statistics.plan_of(ranges, N, 16, 8, by_keys) for by_keys in (False, True)]
        assert {x.device.type for x in (*ranges, *plans)} == {"cuda"}
    places = torch.arange(N)
    begins, ends = (x.cpu()[0, :, None] for x in ranges)
    assert torch.equal((places >= begins) & (places < ends), visible)
