"""The same claims on an accelerator: its fused kernels against the float64 reference."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import pellucid
from pellucid import masks
from pellucid.attention import triton_statistics
from pellucid.attention.backends import fused_kernels
from tests.attention.cases import Case, assert_within_budget, random

pytestmark = pytest.mark.gpu

IDS = torch.tensor([3] * 31 + [5] * 47 + [8] * 25)
MASKS: list[tuple[Any, torch.Tensor | None]] = [
    (None, None),
    (masks.causal(), torch.ones(101, 103).tril().bool()),
    (masks.causal(offset=2), torch.ones(101, 103).tril(2).bool()),
    (masks.window(17, 5), torch.ones(101, 103).tril(5).triu(-17).bool()),
    (masks.padding(53), (torch.arange(103) < 53).expand(101, 103)),
    (masks.documents(IDS[:101], IDS), IDS[:101, None] == IDS),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("mask", "visible"), MASKS)
@pytest.mark.parametrize("biased", [False, True])
def test_kernels_and_streams(dtype: torch.dtype, mask: Any, visible: Any, biased: bool) -> None:
    q, k, v = (
        random(2, heads, n, 16, seed=n, dtype=dtype).cuda()
        for heads, n in ((6, 101), (3, 103), (3, 103))
    )
    options = {"bias": random(6, 101, 103, seed=5, dtype=dtype).cuda()} if biased else {}
    visible = None if visible is None else visible.cuda()
    case = Case(q, k, v, mask, visible, options)
    exact, plain, single = (case.reference(t) for t in (torch.float64, dtype, torch.float32))
    for x in (q, k, v):
        x.requires_grad_()
    context, weights = pellucid.attention(q, k, v, mask, **options, backend="sdpa")
    rounding = torch.finfo(dtype).eps
    assert_within_budget(context, plain.context, exact.context, rounding, exact.masked)
    tf32 = 2**-11  # torch may take float32 products in TF32
    for found, of in (
        (weights.dense(), lambda w: w),
        (weights.received(), lambda w: w.sum(-2)),
        (weights.entropy(), lambda w: torch.special.entr(w).sum(-1)),
        (weights.top(3).values, lambda w: w.topk(3).values),
    ):
        assert_within_budget(found, of(single.weights), of(exact.weights), tf32, exact.masked)
    loss = context.double().square().sum() + weights.entropy().double().sum()
    found_grads = torch.autograd.grad(loss, (q, k, v))
    q64, k64, v64 = (x.detach().double().requires_grad_() for x in (q, k, v))
    options64 = {name: x.double() for name, x in options.items()}
    context, weights = pellucid.attention(q64, k64, v64, visible, **options64, backend="blockwise")
    wanted = torch.autograd.grad(context.square().sum() + weights.entropy().sum(), (q64, k64, v64))
    for grad, exact_grad in zip(found_grads, wanted, strict=True):
        error = (grad.double() - exact_grad).norm() / exact_grad.norm()
        assert error < 32 * max(rounding, tf32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("mask", "visible"), MASKS)
@pytest.mark.parametrize("biased", [False, True])
def test_cudnn_where_it_may_be_had(monkeypatch, dtype, mask, visible, biased) -> None:
    monkeypatch.setattr(fused_kernels, "CUDNN_SCORES", 0)
    monkeypatch.setattr(fused_kernels, "CUDNN_SHAPES", 2**20)
    monkeypatch.setattr(fused_kernels, "_planned", {})
    q, k, v = (
        random(2, heads, n, 64, seed=n, dtype=dtype).cuda()
        for heads, n in ((6, 101), (3, 103), (3, 103))
    )
    options = {"bias": random(6, 101, 103, seed=5, dtype=dtype).cuda()} if biased else {}
    visible = None if visible is None else visible.cuda()
    case = Case(q, k, v, mask, visible, options)
    exact, plain = case.reference(torch.float64), case.reference(dtype)
    for x in (q, k, v):
        x.requires_grad_()
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION], True):
        context, weights = pellucid.attention(q, k, v, mask, **options, backend="sdpa")
        if "cudnn" not in weights.kernel:
            pytest.skip(f"PyTorch takes {weights.kernel} here")
        found = torch.autograd.grad(context.double().square().sum(), (q, k, v))
    rounding = torch.finfo(dtype).eps
    assert_within_budget(context, plain.context, exact.context, rounding, exact.masked)
    q64, k64, v64 = (x.detach().double().requires_grad_() for x in (q, k, v))
    options64 = {name: x.double() for name, x in options.items()}
    context, _ = pellucid.attention(q64, k64, v64, visible, **options64, backend="blockwise")
    wanted = torch.autograd.grad(context.square().sum(), (q64, k64, v64))
    for grad, truth in zip(found, wanted, strict=True):
        assert (grad.double() - truth).norm() < 32 * rounding * truth.norm()


OPTIONS = [  # each is compiled, which takes seconds
    (torch.float32, "none"),
    (torch.bfloat16, "none"),
    (torch.float16, "none"),
    (torch.bfloat16, "bias"),
    (torch.float16, "softcap"),
    (torch.bfloat16, "sinks"),
]


@pytest.mark.parametrize(("dtype", "option"), OPTIONS)
@pytest.mark.parametrize(("mask", "visible"), MASKS)
def test_statistics_by_kernels_of_our_own(dtype, mask, visible, option) -> None:
    q, k, v = (
        random(2, heads, n, 64, seed=n, dtype=dtype).cuda()
        for heads, n in ((6, 101), (3, 103), (3, 103))
    )
    options = {
        "none": {},
        "bias": {"bias": random(6, 101, 103, seed=5, dtype=dtype).cuda()},
        "softcap": {"softcap": 2.3},
        "sinks": {"sinks": random(6, seed=7).cuda()},
    }[option]
    visible = None if visible is None else visible.cuda()
    case = Case(q, k, v, mask, visible, options)
    exact, single = (case.reference(t) for t in (torch.float64, torch.float32))
    _, weights = pellucid.attention(q, k, v, mask, **options)
    assert triton_statistics.is_best(weights.operands, 3)
    found = weights.statistics(top=3)
    for ours, of in (
        (found.received, lambda w: w.sum(-2)),
        (found.entropy, lambda w: torch.special.entr(w).sum(-1)),
        (found.top.values, lambda w: w.topk(3).values),
    ):
        assert_within_budget(ours, of(single.weights), of(exact.weights), 2**-11, exact.masked)
    parts = exact.weights[:, :, :64, :64].unflatten(-1, (2, 32)).unflatten(-3, (2, 32))
    picture = weights.pool(2, 2, "mean", (slice(0, 64), slice(0, 64)))
    assert (picture - parts.mean((-1, -3))).abs().max() < 2**-11
    assert torch.equal(weights.received(), found.received)  # the same digits every time
    indices = found.top.indices
    picked = exact.weights.gather(-1, indices.clamp_min(0)).masked_fill(indices == -1, 0)
    assert (picked - found.top.values).abs().max() < 2**-8


def test_statistics_of_more_scores_than_32_bits_count() -> None:
    tokens = 65_537
    q, k, v = (random(1, 2, tokens, 64, seed=i, dtype=torch.bfloat16).cuda() for i in range(3))
    _, weights = pellucid.attention(q, k, v, masks.causal())
    found = weights.statistics(top=4)
    assert (found.received.double().sum(-1) - tokens).abs().max() < 1
    rows = [0, 1, 40_009, tokens - 1]
    some = weights[:, :, rows]
    assert (some.topk(4).values - found.top.values[:, :, rows]).abs().max() < 1e-3
    entropy = torch.special.entr(some).sum(-1)
    assert (entropy - found.entropy[:, :, rows]).abs().max() < 1e-2
