"""attention() against the float64 reference, in every backend, dtype, mask and layout."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pellucid
from pellucid import masks
from pellucid.attention.reference import Stages, stages
from tests.attention.cases import Case, assert_within_budget, by_rule, cases, random

HALF = (torch.bfloat16, torch.float16)
ALL = (torch.float64, torch.float32, *HALF)


def check(case: Case, backend: str) -> None:
    context, weights = pellucid.attention(
        case.query, case.key, case.value, case.mask, **case.options, backend=backend
    )
    dtype = case.query.dtype
    exact, plain = case.reference(), case.reference(dtype)
    assert context.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert_within_budget(context, plain.context, exact.context, eps, exact.masked)
    better = torch.promote_types(dtype, torch.float32)
    plain, eps = case.reference(better), torch.finfo(better).eps
    assert weights.dtype == better
    assert weights.shape == exact.weights.shape
    # In half precision the CPU kernel takes the exponentials of its logsumexp to 2**-14.
    kernel_eps = eps if dtype == better else 2**-14
    assert_within_budget(weights.dense(), plain.weights, exact.weights, kernel_eps, exact.masked)
    assert_within_budget(weights @ case.value, plain.context, exact.context, eps, exact.masked)


@given(case=cases(dtypes=ALL))
def test_any_call_is_the_formula(case: Case) -> None:
    check(case, "auto")


@given(case=cases(dtypes=ALL, fused=True))
def test_fused_kernels_are_the_formula(case: Case) -> None:
    check(case, "sdpa")


@given(case=cases(dtypes=(torch.float64, torch.float32)))
def test_blockwise_and_reference_are_the_formula(case: Case) -> None:
    check(case, "blockwise")
    check(case, "reference")


@given(case=cases())
def test_a_hidden_row_has_no_weights_and_no_context(case: Case) -> None:
    context, weights = pellucid.attention(
        case.query, case.key, case.value, case.mask, **{**case.options, "sinks": None}
    )
    visible = torch.ones(weights.shape, dtype=torch.bool)
    if case.visible is not None:
        visible = case.visible.expand(weights.shape)
    seen = visible.any(-1)
    sums = weights.dense().sum(-1)
    torch.testing.assert_close(sums, seen.to(sums.dtype), atol=1e-5, rtol=0)
    assert (context[~seen] == 0).all()
    assert (weights.dense()[~visible] == 0).all()
    assert (weights.logsumexp[~seen] == -torch.inf).all()


@pytest.mark.parametrize("backend", ["sdpa", "blockwise"])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_what_padding_holds_never_matters(backend: str, poison: float, as_tensor: bool) -> None:
    lengths = torch.tensor([4, 7])
    mask = masks.padding(lengths)
    if as_tensor:
        mask = masks.dense((torch.arange(7) < lengths[:, None])[:, None, None, :])
    q = random(2, 3, 5, 11, seed=0).requires_grad_()
    k, v = random(2, 3, 7, 11, seed=1), random(2, 3, 7, 13, seed=2)
    results = []
    for padding in (0.0, poison):
        k2, v2 = k.clone(), v.clone()
        k2[0, :, 4:] = padding
        v2[0, :, 4:] = padding
        k2.requires_grad_()
        v2.requires_grad_()
        context, weights = pellucid.attention(q, k2, v2, masks.causal(2) & mask, backend=backend)
        parts = (weights.received(), weights.entropy(), weights.top(3).values, weights[..., 3:])
        loss = sum((x**2).sum() for x in (context, *parts))
        grads = torch.autograd.grad(loss, (q, k2, v2))
        results.append([context, *parts, *grads])
    for clean, poisoned in zip(*results, strict=True):
        assert poisoned.isfinite().all()
        torch.testing.assert_close(poisoned, clean)


def test_a_hidden_query_may_hold_anything() -> None:
    q, k, v = random(1, 3, 5, 11, seed=0), random(1, 3, 7, 11, seed=1), random(1, 3, 7, 13, seed=2)
    q[:, :, 2] = torch.nan
    k.requires_grad_()
    visible = torch.ones(5, 7, dtype=torch.bool)
    visible[2] = False
    visible[3, 4] = False
    context, weights = pellucid.attention(q, k, v, visible)
    assert context.isfinite().all()
    assert (context[:, :, 2] == 0).all()
    (grad,) = torch.autograd.grad(context.sum() + weights.received().pow(2).sum(), k)
    assert grad.isfinite().all()


def test_visible_nan_spreads_as_in_torch() -> None:
    q, k, v = random(1, 1, 5, 11, seed=0), random(1, 1, 7, 11, seed=1), random(1, 1, 7, 13, seed=2)
    k[0, 0, 3] = torch.nan
    context, weights = pellucid.attention(q, k, v)
    assert context.isnan().all()
    assert weights.dense().isnan().all()
    assert weights.received().isnan().all()


@given(seed=st.integers(0, 2**16), hidden=st.integers(0, 6))
def test_changing_a_hidden_key_never_shows(seed: int, hidden: int) -> None:
    q, k, v = (random(2, 3, n, 11, seed=seed + i) for i, n in enumerate((5, 7, 7)))
    visible = torch.rand(5, 7, generator=torch.Generator().manual_seed(seed)) < 0.6
    visible[:, hidden] = False
    before = pellucid.attention(q, k, v, visible)
    k[:, :, hidden] += 100
    v[:, :, hidden] -= 100
    after = pellucid.attention(q, k, v, visible)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1].dense(), after[1].dense())
    assert torch.equal(before[1].received(), after[1].received())


@given(seed=st.integers(0, 2**16))
def test_an_item_alone_equals_the_item_in_its_batch(seed: int) -> None:
    q, k, v = (random(3, 2, n, 11, seed=seed + i) for i, n in enumerate((5, 7, 7)))
    lengths = torch.tensor([7, 2, 5])
    context, weights = pellucid.attention(q, k, v, masks.padding(lengths))
    statistics = weights.statistics(top=2)
    for b, length in enumerate(lengths.tolist()):
        part = (slice(b, b + 1), slice(None), slice(0, length))
        alone, alone_weights = pellucid.attention(q[b : b + 1], k[part], v[part])
        torch.testing.assert_close(context[b : b + 1], alone)
        torch.testing.assert_close(weights[b : b + 1, ..., :length], alone_weights.dense())
        torch.testing.assert_close(statistics.entropy[b : b + 1], alone_weights.entropy())


def test_documents_do_not_see_each_other() -> None:
    ids = torch.tensor([0] * 11 + [1] * 13 + [2] * 7)
    q, k, v = (random(1, 3, 31, 11, seed=i) for i in range(3))
    mask = masks.documents(ids) & masks.causal()
    before, _ = pellucid.attention(q, k, v, mask)
    for x in (q, k, v):
        x[:, :, 11:24] += 1
    after, _ = pellucid.attention(q, k, v, mask)
    assert torch.equal(before[:, :, :11], after[:, :, :11])
    assert torch.equal(before[:, :, 24:], after[:, :, 24:])
    assert not torch.allclose(before[:, :, 11:24], after[:, :, 11:24])
    alone, _ = pellucid.attention(q[:, :, 11:24], k[:, :, 11:24], v[:, :, 11:24], masks.causal())
    torch.testing.assert_close(after[:, :, 11:24], alone)


def test_grouped_heads_read_their_own_key_head() -> None:
    q, k, v = random(2, 6, 5, 11, seed=0), random(2, 2, 7, 11, seed=1), random(2, 2, 7, 13, seed=2)
    context, weights = pellucid.attention(q, k, v)
    for head in range(6):
        alone, alone_weights = pellucid.attention(
            q[:, head : head + 1], k[:, head // 3 : head // 3 + 1], v[:, head // 3 : head // 3 + 1]
        )
        torch.testing.assert_close(context[:, head : head + 1], alone)
        torch.testing.assert_close(weights[:, head : head + 1], alone_weights.dense())


def test_batch_shapes_broadcast() -> None:
    q, k, v = random(2, 3, 5, 11, seed=0), random(3, 7, 11, seed=1), random(1, 3, 7, 13, seed=2)
    context, weights = pellucid.attention(q, k, v)
    exact = stages(q.double(), k.double(), v.double())
    assert_within_budget(context, stages(q, k, v).context, exact.context, 2**-23)
    assert weights.shape == (2, 3, 5, 7)


def test_an_empty_batch_is_an_empty_answer() -> None:
    q, k, v = random(0, 3, 5, 11, seed=0), random(0, 3, 7, 11, seed=1), random(0, 3, 7, 13, seed=2)
    context, weights = pellucid.attention(q, k, v, masks.causal())
    assert context.shape == (0, 3, 5, 13)
    assert weights.received().shape == (0, 3, 7)


def test_dropout_drops_from_the_context_only() -> None:
    q, k = random(1, 2, 53, 11, seed=0), random(1, 2, 59, 11, seed=1)
    v = torch.eye(59).expand(1, 2, 59, 59)  # the context is then the weights that were used
    torch.manual_seed(0)
    context, weights = pellucid.attention(q, k, v, dropout=0.25)
    kept = context != 0
    torch.testing.assert_close(context[kept], weights.dense()[kept] / 0.75)
    assert abs(kept.float().mean() - 0.75) < 0.02  # 5 standard deviations of 6,254 draws
    torch.testing.assert_close(weights.dense().sum(-1), torch.ones(1, 2, 53))


def test_dropout_has_the_gradient_of_what_it_kept() -> None:
    q, k, v = (random(1, 2, n, 3, seed=i).double() for i, n in enumerate((5, 7, 7)))

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return pellucid.attention(q, k, v, dropout=0.5)[0]

    torch.autograd.gradcheck(run, [x.requires_grad_() for x in (q, k, v)])


@pytest.mark.parametrize("backend", ["auto", "blockwise"])
def test_many_blocks_equal_one(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    q, k, v = (
        random(2, 3, 101, 11, seed=0),
        random(2, 3, 103, 11, seed=1),
        random(2, 3, 103, 13, seed=2),
    )
    offsets = torch.tensor([0, 3])
    mask = masks.window(17, 5, offset=offsets) | masks.prefix(2)

    def rule(b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        apart = j - i - offsets[b]
        return (apart >= -17) & (apart <= 5) | (j < 2)

    case = Case(q, k, v, mask, by_rule(rule, 2, 101, 103))
    apart = torch.stack([torch.arange(101)[:, None] + n - torch.arange(103) for n in (0, 3)])
    truth, plain = (
        said_of(case.reference(dtype), v.to(dtype), apart) for dtype in (torch.float64, q.dtype)
    )
    scores = case.reference().masked

    def check() -> None:
        context, weights = pellucid.attention(q, k, v, mask, backend=backend)
        said = weights.statistics(top=5)
        at_top = weights.dense().gather(-1, said.top.indices)
        found = (
            *(context, said.received, said.entropy, said.mean_distance, said.top.values, at_top),
            *(weights.pool(7, 11), weights.T @ v[:, :, :101]),
        )
        for one, usual, exact in zip(found, plain, truth, strict=True):
            assert_within_budget(one, usual, exact, torch.finfo(q.dtype).eps, scores)

    check()
    monkeypatch.setattr("pellucid.attention.scores.BLOCK_NUMBERS", 211)
    monkeypatch.setattr("pellucid.attention.scores.LEAST_ROWS", 3)
    monkeypatch.setattr("pellucid.attention.backends.tiling.BAND_ROWS", 7)
    check()


def said_of(exact: Stages, value: torch.Tensor, apart: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The context, and what is said of weights, from the whole matrix."""
    weights = exact.weights
    top = weights.topk(5).values
    strips = [strip.mean(-2) for strip in weights.tensor_split(7, -2)]
    cells = [[part.mean(-1) for part in strip.tensor_split(11, -1)] for strip in strips]
    return (
        exact.context,
        weights.sum(-2),
        torch.special.entr(weights).sum(-1),
        (weights * apart.abs()[:, None]).sum(-1),
        top,
        top,  # what stands at the places of the strongest
        torch.stack([torch.stack(row, -1) for row in cells], -2),
        weights.mT @ value[:, :, : weights.shape[-2]],
    )


def test_under_autocast_weights_stay_float32() -> None:
    q, k, v = random(1, 2, 5, 11, seed=0), random(1, 2, 7, 11, seed=1), random(1, 2, 7, 13, seed=2)
    expected = pellucid.attention(q, k, v)[1]
    with torch.autocast("cpu", torch.bfloat16):
        _, weights = pellucid.attention(q, k, v)
        assert torch.equal(weights.dense(), expected.dense())
        assert torch.equal(weights.received(), expected.received())
        assert torch.equal(weights @ v, expected @ v)


def test_the_package_is_also_the_function() -> None:
    import pellucid.attention.masks

    q = random(3, 5, 11, seed=0)
    assert torch.equal(pellucid.attention(q, q, q)[0], pellucid.attention.attention(q, q, q)[0])
    assert pellucid.attention.masks is masks
