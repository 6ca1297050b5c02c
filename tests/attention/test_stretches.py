"""Calls of a kernel that would take long are cut, so that they can be stopped in between."""

import pytest
import torch

from pellucid.attention import attention, masks
from pellucid.attention.backends import fused_kernels, tiling

SHAPES = {"square": (41, 41), "wide": (23, 41), "tall": (41, 23)}


def tensors(queries, keys, dtype):
    generator = torch.Generator().manual_seed(7)
    sizes = (2, 3, queries, 11), (2, 3, keys, 11), (2, 3, keys, 13)
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


@pytest.mark.parametrize("mask", [None, masks.causal(), masks.causal(offset=5), masks.prefix(17)])
@pytest.mark.parametrize("shape", SHAPES)
def test_stretches_give_what_one_call_gives(monkeypatch, mask, shape):
    given = [x.requires_grad_() for x in tensors(*SHAPES[shape], torch.float32)]
    truth = [x.detach().double().requires_grad_() for x in given]
    exact, _ = attention(*truth, mask, backend="reference")
    whole, _ = attention(*given, mask, backend="sdpa")
    by_one = torch.autograd.grad(whole.sum(), given)
    exact_grads = torch.autograd.grad(exact.sum(), truth)
    calls = []
    forward = fused_kernels.forward

    def counted(query, key, *others):
        calls.append(query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2])
        return forward(query, key, *others)

    monkeypatch.setattr(fused_kernels, "forward", counted)
    monkeypatch.setattr(tiling, "STRETCH", 2 * 3 * 5 * 29)
    context, _ = attention(*given, mask, backend="sdpa")
    assert len(calls) > 2
    assert max(calls) <= tiling.STRETCH * (1 if mask is None else 2)
    rounding = 8 * torch.finfo(torch.float32).eps * exact.abs().max()
    assert (context - exact).abs().max() <= 2 * (whole - exact).abs().max() + rounding
    grads = torch.autograd.grad(context.sum(), given)
    for found, one, true in zip(grads, by_one, exact_grads, strict=True):
        rounding = 8 * torch.finfo(torch.float32).eps * true.abs().max()
        assert (found - true).abs().max() <= 2 * (one - true).abs().max() + rounding


@pytest.mark.parametrize("tokens", [384, 389, 512, 513])
def test_a_causal_square_in_strips(tokens, monkeypatch):
    monkeypatch.setattr(tiling, "LEAST_HEADS", 6)
    given = [x.requires_grad_() for x in tensors(tokens, tokens, torch.float32)]
    truth = [x.detach().double().requires_grad_() for x in given]
    found = attention(*given, masks.causal(), backend="sdpa")
    exact = attention(*truth, masks.causal(), backend="reference")
    for ours, theirs in ((found[0], exact[0]), (found[1].logsumexp, exact[1].logsumexp)):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for context, weights in (found, exact):
        (context.sum() + weights.logsumexp.sum()).backward()
    for ours, theirs in zip(given, truth, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5)
