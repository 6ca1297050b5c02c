"""Whatever is asked of lazy weights is what the dense ones would say."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pellucid
from pellucid import AttentionWeights, PellucidError, energies, masks
from pellucid.attention import attention_weights, numba_statistics
from pellucid.attention.reference import stages
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError
from tests.attention.cases import (
    Case,
    Rule,
    assert_within_budget,
    by_rule,
    cases,
    indices,
    random,
)

EPS = 2**-23


def weights_of(case: Case) -> AttentionWeights:
    return attention_weights(case.query, case.key, case.mask, **case.options)


def pooled(dense: Tensor, rows: int, cols: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    strips = [
        torch.stack([reduce(cell) for cell in strip.tensor_split(cols, -1)], -1)
        for strip in dense.tensor_split(rows, -2)
    ]
    return torch.stack(strips, -2)


@given(case=cases(), seed=st.integers(0, 99))
def test_everything_asked_of_weights_is_the_dense_answer(case: Case, seed: int) -> None:
    weights = weights_of(case)
    exact, plain = case.reference(), case.reference(torch.float32)
    scores = exact.masked

    def close(found: Tensor, of: Callable[[Tensor], Tensor]) -> None:
        assert_within_budget(found, of(plain.weights), of(exact.weights), EPS, scores)

    close(weights.dense(), lambda w: w)
    close(weights.received(), lambda w: w.sum(-2))
    close(weights.entropy(), lambda w: torch.special.entr(w).sum(-1))
    queries, keys = weights.shape[-2:]
    some = slice(queries // 3, queries - queries // 4)
    close(weights.received(some), lambda w: w[..., some, :].sum(-2))
    k = min(3, keys)
    close(weights.top(k).values, lambda w: w.topk(k).values)
    rows, cols = min(queries, 4), min(keys, 5)
    close(weights.pool(rows, cols), lambda w: pooled(w, rows, cols, lambda c: c.mean((-2, -1))))
    close(
        weights.pool(rows, cols, "max"), lambda w: pooled(w, rows, cols, lambda c: c.amax((-2, -1)))
    )
    x = random(keys, 3, seed=seed)
    close(weights @ x, lambda w: w @ x.to(w.dtype))
    y = random(queries, 3, seed=seed)
    close(weights.T @ y, lambda w: w.mT @ y.to(w.dtype))
    assert torch.equal(y.mT @ weights, (weights.T @ y).mT)
    assert torch.equal(x.mT @ weights.T, (weights @ x).mT)


@given(case=cases())
def test_statistics_are_those_asked_for_one_by_one(case: Case) -> None:
    weights = weights_of(case)
    statistics = weights.statistics(top=3)
    k = min(3, weights.shape[-1])
    assert torch.equal(statistics.received, weights.received())
    assert torch.equal(statistics.entropy, weights.entropy())
    assert torch.equal(statistics.top.values, weights.top(k).values)
    assert torch.equal(statistics.top.indices, weights.top(k).indices)
    assert torch.equal(statistics.peak, weights.top(1).values[..., 0])


@given(case=cases(), k=st.integers(1, 9))
def test_top_indices_point_at_top_values(case: Case, k: int) -> None:
    weights = weights_of(case)
    k = min(k, weights.shape[-1])
    values, indices = weights.top(k)
    dense = weights.dense()
    found = dense.gather(-1, indices.clamp_min(0)).masked_fill(indices < 0, 0)
    torch.testing.assert_close(found, values)
    assert ((indices < 0) == (values == 0)).all()
    ordered = indices.sort(-1).values
    repeated = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    assert not repeated.any()


def test_mean_distance_counts_from_where_the_query_stands() -> None:
    q, k = random(2, 3, 5, 11, seed=0), random(2, 3, 7, 11, seed=1)
    for offset in (0, 2):
        weights = attention_weights(q, k, masks.causal(offset))
        apart = (torch.arange(5)[:, None] + offset - torch.arange(7)).abs()
        expected = (weights.dense() * apart).sum(-1)
        torch.testing.assert_close(weights.statistics().mean_distance, expected)


@given(case=cases(), data=st.data())
def test_any_index_is_that_part_of_the_dense_tensor(case: Case, data: Any) -> None:
    weights = weights_of(case)
    dense = weights.dense()
    index = tuple(data.draw(indices(dense.shape)))
    torch.testing.assert_close(weights[index], dense[index])
    stage = case.reference(torch.float32)
    torch.testing.assert_close(weights.masked[index], stage.masked[index], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(weights.scores[index], stage.scores[index], atol=1e-4, rtol=1e-4)


@given(case=cases(), data=st.data())
def test_some_rows_are_those_rows_of_all(case: Case, data: Any) -> None:
    whole = weights_of(case)
    size = whole.shape[-2]
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    if data.draw(st.booleans()):
        whole.logsumexp  # noqa: B018  known before, or found for these rows alone
    negative = slice(start - size, None if stop == size else stop - size)
    part = whole.rows(data.draw(st.sampled_from([slice(start, stop), negative])))
    assert part.shape == (*whole.shape[:-2], stop - start, whole.shape[-1])
    exact, plain = (
        case.reference(dtype).weights[..., start:stop, :]
        for dtype in (torch.float64, torch.float32)
    )
    scores = case.reference().masked
    assert_within_budget(part.dense(), plain, exact, EPS, scores)
    assert_within_budget(part.received(), plain.sum(-2), exact.sum(-2), EPS, scores)
    x = random(whole.shape[-1], 3, seed=0)
    assert_within_budget(part @ x, plain @ x, exact @ x.double(), EPS, scores)
    torch.testing.assert_close(part.logsumexp, whole.logsumexp[..., start:stop])
    of_all = whole.statistics(2 if whole.shape[-1] > 1 else 1)
    found = part.statistics(2 if whole.shape[-1] > 1 else 1)
    torch.testing.assert_close(
        found.mean_distance, of_all.mean_distance[..., start:stop], rtol=1e-4, atol=1e-4
    )


@given(case=cases(), data=st.data())
def test_one_head_is_that_head_of_all(case: Case, data: Any) -> None:
    whole = weights_of(case)
    place = tuple(data.draw(st.integers(-size, size - 1)) for size in whole.shape[:-2])
    if data.draw(st.booleans()):
        whole.logsumexp  # noqa: B018  known before, or found for this head alone
    part = whole.head(*place)
    assert part.shape == (1, *whole.shape[-2:])
    exact, plain = (
        case.reference(dtype).weights[place][None] for dtype in (torch.float64, torch.float32)
    )
    scores = case.reference().masked[place][None]
    assert_within_budget(part.dense(), plain, exact, EPS, scores)
    assert_within_budget(part.received(), plain.sum(-2), exact.sum(-2), EPS, scores)
    x = random(whole.shape[-1], 3, seed=0)
    assert_within_budget(part @ x, plain @ x, exact @ x.double(), EPS, scores)
    torch.testing.assert_close(part.logsumexp, whole.logsumexp[place][None])


@given(case=cases(), data=st.data())
def test_a_sample_is_those_rows_of_all(case: Case, data: Any) -> None:
    weights = weights_of(case)
    size = weights.shape[-2]
    places = data.draw(st.lists(st.integers(-size, size - 1), max_size=5))
    if is_known := data.draw(st.booleans()):
        weights.logsumexp  # noqa: B018
    found = weights.sample(places)
    exact, plain = (
        case.reference(dtype).weights[..., places, :] for dtype in (torch.float64, torch.float32)
    )
    assert_within_budget(found, plain, exact, EPS, case.reference().masked[..., places, :])
    assert is_known or weights._logsumexp is None


def test_one_head_is_told_by_its_numbers() -> None:
    weights = attention_weights(random(2, 3, 5, 11, seed=0), random(2, 3, 7, 11, seed=1))
    for bad in ((), (0,), (0, 0, 0), (2, 0), (0, -4)):
        with pytest.raises(OutOfRangeError):
            weights.head(*bad)
    with pytest.raises(TypeMismatchError, match=r"ints, got 1\.0"):
        weights.head(0, 1.0)  # type: ignore[arg-type]


@given(case=cases(queries_and_keys=((37, 53), (7, 41))), data=st.data())
def test_few_rows_are_answered_alone(case: Case, data: Any) -> None:
    known = weights_of(case)
    known.logsumexp  # noqa: B018
    size = known.shape[-2]
    start = data.draw(st.integers(0, size - 4))
    some = slice(start, start + 4)
    near = torch.tensor([[start + 3, start], [start + 1, start - size]])
    asked: list[Callable[[AttentionWeights], Tensor]] = [
        lambda w: w[..., start, :],
        lambda w: w[..., some, 1:3],
        lambda w: w[..., slice(start, start + 4, 3), :],
        lambda w: w[..., near, 2],
        lambda w: w[..., near, near % 7],
        lambda w: w.received(some),
        lambda w: w.received([start, start + 2]),
        lambda w: w.pool(2, 3, region=(some, slice(1, None))),
    ]
    for question in asked:
        fresh = weights_of(case)
        torch.testing.assert_close(question(fresh), question(known), rtol=1e-4, atol=1e-6)
        assert fresh._logsumexp is None


def test_rows_asked_for_again_and_again_end_in_one_pass() -> None:
    weights = weights_of(Case(*(random(1, 2, 80, 5, seed=i) for i in range(3))))
    rows = [weights[0, 0, i] for i in range(11)]
    assert weights._logsumexp is not None
    assert_within_budget(torch.stack(rows), weights[0, 0, :11], weights[0, 0, :11].double(), EPS)


def test_few_rows_of_a_call_without_gradients_get_theirs() -> None:
    q, k, v = (random(1, 2, 37, 5, seed=i).double().requires_grad_() for i in range(3))
    with torch.no_grad():
        _, weights = pellucid.attention(q, k, v, masks.causal())
    expected = torch.autograd.grad(stages(q, k, v, torch.ones(37, 37).tril().bool()).weights[
        0, 0, 7].square().sum(), q)  # fmt: skip
    assert torch.equal(weights[0, 0, 7] > 0, torch.arange(37) < 8)
    torch.testing.assert_close(torch.autograd.grad(weights[0, 0, 7].square().sum(), q), expected)
    part = weights.rows(slice(7, 8))
    torch.testing.assert_close(torch.autograd.grad(part[0, 0, 0].square().sum(), q), expected)


def test_rows_print_where_they_stand() -> None:
    q, k = random(2, 3, 5, 11, seed=0), random(2, 3, 7, 11, seed=1)
    offsets = torch.tensor([1, 2])
    assert "mask=causal(offset=5)" in repr(
        attention_weights(q, k, masks.causal(2)).rows(slice(3, 4))
    )
    item = attention_weights(q, k, masks.causal(offsets)).rows(slice(3, None))
    assert "mask=causal(offset=[4, 5])" in repr(item)
    assert "mask=window(offset=4)" in repr(attention_weights(q, k).rows(slice(-1, None)))
    for bad in (slice(2, 2), slice(0, 5, 2), slice(None, None, -1)):
        with pytest.raises(PellucidError, match="queries must be a slice with step 1"):
            attention_weights(q, k).rows(bad)
    with pytest.raises(PellucidError, match="queries must be a slice, got 3"):
        attention_weights(q, k).rows(3)  # type: ignore[arg-type]


def assert_gradients(
    found: Callable[..., tuple[Tensor, ...]],
    wanted: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    some_without: bool = True,
) -> None:
    """Each output has the gradients that autograd finds through the dense formula."""
    outputs = zip(found(*inputs), wanted(*inputs), strict=True)
    for place, (lazy, dense) in enumerate(outputs):
        torch.testing.assert_close(lazy, dense)
        grad = random(*dense.shape, seed=place).double()
        options = {"retain_graph": True, "materialize_grads": True}
        torch.testing.assert_close(
            torch.autograd.grad(lazy, inputs, grad, **options),
            torch.autograd.grad(dense, inputs, grad, **options),
        )
    # That they are the same when asked for again, and that an output may have none.
    torch.autograd.gradcheck(found, inputs, fast_mode=True, check_undefined_grad=some_without)


def entropy_of(weights: Tensor) -> Tensor:
    """With a gradient where weights are 0, which torch.special.entr has not."""
    return -(weights * weights.where(weights > 0, 1).log()).sum(-1)


@pytest.mark.parametrize(
    ("mask", "rule", "offset"),
    [
        (None, lambda b, i, j: j >= 0, 0),
        (masks.causal(2), lambda b, i, j: j <= i + 2, 2),
        (masks.window(1, 1) | masks.prefix(1), lambda b, i, j: (abs(i - j) <= 1) | (j < 1), 0),
    ],
    ids=["None", "causal", "window"],
)
@pytest.mark.parametrize(
    "options", [{}, {"softcap": 1.5}, {"sinks": True}, {"bias": True}], ids=str
)
def test_gradients_of_all_that_is_lazy(
    mask: Any, rule: Rule, offset: int, options: dict[str, Any]
) -> None:
    q, k = (random(1, 4, n, 3, seed=n).double().requires_grad_() for n in (5, 7))
    k = k[:, :2].detach().requires_grad_()
    v = random(1, 2, 7, 2, seed=3).double().requires_grad_()
    extra = {
        "sinks": random(4, seed=4).double().requires_grad_(),
        "bias": random(4, 5, 7, seed=5).double().requires_grad_(),
    }
    names = [name for name, on in options.items() if on is True]
    y = random(5, 2, seed=6).double()
    some = (0, torch.tensor([0, 3]), 2, torch.tensor([1, 0]))

    def everything(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = {**options, **dict(zip(names, rest, strict=True))}
        context, weights = pellucid.attention(q, k, v, mask, **given)
        return (
            context,
            weights.logsumexp,
            weights[0, 1, 2:4, ::2],
            weights[some],
            weights.received(),
            weights.received(slice(1, 4)),
            weights.entropy(),
            weights.top(2).values,
            weights.pool(2, 3),
            weights.statistics(2).mean_distance,
            weights @ v,
            weights.T @ y,
            weights.scaled[0, 0],
            weights.rows(slice(1, 3)).entropy(),
        )

    def meant(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = {**options, **dict(zip(names, rest, strict=True))}
        exact = stages(q, k, v, by_rule(rule, 1, 5, 7), **given)
        weights, logits = exact.weights, exact.masked
        if "sinks" in given:
            logits = torch.cat([logits, given["sinks"][:, None, None].expand(1, 4, 5, 1)], -1)
        apart = (torch.arange(5)[:, None] + offset - torch.arange(7)).abs()
        return (
            exact.context,
            logits.logsumexp(-1),
            weights[0, 1, 2:4, ::2],
            weights[some],
            weights.sum(-2),
            weights[..., 1:4, :].sum(-2),
            entropy_of(weights),
            weights.topk(2).values,
            pooled(weights, 2, 3, lambda cell: cell.mean((-2, -1))),
            (weights * apart).sum(-1),
            weights @ v.repeat_interleave(2, -3),
            weights.mT @ y,
            exact.scaled[0, 0],
            entropy_of(weights[..., 1:3, :]),
        )

    given = (q, k, v, *(extra[name] for name in names))
    assert_gradients(everything, meant, given, some_without=offset > 0)


@pytest.mark.parametrize("backend", ["sdpa", "blockwise", "reference"])
def test_gradients_where_rows_and_keys_are_hidden(backend: str) -> None:
    q, k, v = (random(2, 2, n, 3, seed=n).double().requires_grad_() for n in (5, 7, 7))
    lengths = torch.tensor([1, 6])
    mask = masks.causal(-2) & masks.padding(lengths)
    visible = by_rule(lambda b, i, j: (j <= i - 2) & (j < lengths[b]), 2, 5, 7)

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        context, weights = pellucid.attention(q, k, v, mask, backend=backend)
        return context, weights.received(), weights.entropy(), weights[:, :, 1:]

    def meant(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        *_, weights, context = stages(q, k, v, visible)
        return context, weights.sum(-2), entropy_of(weights), weights[:, :, 1:]

    assert_gradients(run, meant, (q, k, v))


def test_a_loss_on_entropy_trains() -> None:
    q, k = (random(1, 2, n, 3, seed=n).requires_grad_() for n in (11, 13))
    optimizer = torch.optim.SGD([q, k], lr=0.5)
    before = attention_weights(q, k).entropy().mean()
    for _ in range(20):
        optimizer.zero_grad()
        attention_weights(q, k).entropy().mean().backward()
        optimizer.step()
    assert attention_weights(q, k).entropy().mean() < before - 0.1


class Gaussian(energies.Energy):
    """A user's own energy."""

    is_dot_product = False

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        return -torch.cdist(query, key).square()


W, V, U = random(5, 3, seed=0).double(), random(7, 3, seed=1).double(), random(3, seed=2).double()
ENERGIES: list[tuple[Any, Callable[[Tensor, Tensor], Tensor], float]] = [
    ("dot_product", lambda q, k: q @ k.mT, 1.0),
    ("scaled_dot_product", lambda q, k: q @ k.mT, 5**-0.5),
    (
        "cosine",
        lambda q, k: (q / q.norm(dim=-1, keepdim=True)) @ (k / k.norm(dim=-1, keepdim=True)).mT,
        1.0,
    ),
    (
        energies.Bilinear(random(5, 5, seed=3).double()),
        lambda q, k: q @ random(5, 5, seed=3).double() @ k.mT,
        1.0,
    ),
    (
        energies.Additive(W, V[:5], U),
        lambda q, k: torch.tanh((q @ W)[..., :, None, :] + (k @ V[:5])[..., None, :, :]) @ U,
        1.0,
    ),
    (Gaussian(), lambda q, k: -((q[..., :, None, :] - k[..., None, :, :]) ** 2).sum(-1), 1.0),
    (lambda q, k: (q @ k.mT).relu(), lambda q, k: (q @ k.mT).relu(), 1.0),
]


@pytest.mark.parametrize(("score", "formula", "scale"), ENERGIES)
@pytest.mark.parametrize("backend", ["auto", "blockwise", "reference"])
def test_energies(score: Any, formula: Any, scale: float, backend: str) -> None:
    q, k, v = (random(2, 3, n, 5, seed=n).double().requires_grad_() for n in (7, 11, 11))
    visible = torch.ones(7, 11).tril(3).bool()
    exact = stages(q, k, v, visible, scale=scale, score=formula)
    context, weights = pellucid.attention(q, k, v, masks.causal(3), score=score, backend=backend)
    torch.testing.assert_close(context, exact.context)
    torch.testing.assert_close(weights.dense(), exact.weights)
    torch.testing.assert_close(weights.scores[...], exact.scores)
    torch.testing.assert_close(weights.received(), exact.weights.sum(-2))
    loss = context.square().sum() + weights[..., 1, :].square().sum()
    expected = exact.context.square().sum() + exact.weights[..., 1, :].square().sum()
    for found, wanted in zip(
        torch.autograd.grad(loss, (q, k, v)), torch.autograd.grad(expected, (q, k, v)), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@given(case=cases(), compiled=st.booleans(), known=st.booleans())
def test_what_is_collected_is_the_dense_answer(case: Case, compiled: bool, known: bool) -> None:
    exact, plain = case.reference(), case.reference(torch.float32)
    names = ("received", "entropy", "max_logit")
    with mock.patch.object(numba_statistics, "WORTHWHILE", 1 if compiled else 2**62):
        if known:
            value = torch.ones_like(case.key)
            weights = pellucid.attention(case.query, case.key, value, case.mask, **case.options)[1]
            found = weights.collect(names)
        else:
            found = weights_of(case).collect(names)
    assert tuple(sorted(found)) == tuple(sorted(names))
    of_weights = {
        "received": lambda w: w.sum(-2),
        "entropy": lambda w: torch.special.entr(w).sum(-1),
    }
    for name, of in of_weights.items():
        assert_within_budget(found[name], of(plain.weights), of(exact.weights), EPS, exact.masked)
    largest = exact.masked.amax((-2, -1))
    error = 16 * EPS * exact.masked.where(exact.masked.isfinite(), 0).abs().amax((-2, -1))
    assert ((found["max_logit"] - largest).nan_to_num(0, 0, 0).abs() <= error + EPS).all()
    assert (found["max_logit"].isneginf() == largest.isneginf()).all()


def test_attention_collects_without_gradients() -> None:
    q, k, v = (random(2, 3, n, 5, seed=n).requires_grad_() for n in (7, 11, 11))
    context, weights = pellucid.attention(q, k, v, masks.causal(4), collect=("entropy", "received"))
    assert set(weights.collected) == {"entropy", "received"}
    assert not any(figure.requires_grad for figure in weights.collected.values())
    torch.testing.assert_close(weights.collected["entropy"], weights.entropy().detach())
    context.sum().backward()
    assert pellucid.attention(q, k, v)[1].collected == {}
    for wrong in ("entropy", ("entropies",)):
        with pytest.raises(ArgumentError, match="collect must be a tuple of 'received', 'entropy'"):
            pellucid.attention(q, k, v, collect=wrong)


@pytest.mark.parametrize("kind", ["bilinear", "additive"])
def test_trainable_energies_get_gradients(kind: str) -> None:
    q, k, v = (random(1, 2, n, 5, seed=n).double() for n in (3, 7, 7))

    def run(*parameters: Tensor) -> Tensor:
        energy = (
            energies.Bilinear(*parameters) if kind == "bilinear" else energies.Additive(*parameters)
        )
        return pellucid.attention(q, k, v, score=energy)[0]

    shapes = [(5, 5)] if kind == "bilinear" else [(5, 3), (5, 3), (3,)]
    parameters = [
        random(*shape, seed=i).double().requires_grad_() for i, shape in enumerate(shapes)
    ]
    torch.autograd.gradcheck(run, parameters)


@pytest.mark.parametrize("shape", [(1, 2, 701, 1009), (1, 1, 257, 256), (3, 2, 5, 300)])
@pytest.mark.parametrize("mask", [None, masks.causal(5), masks.window(200, 3) | masks.prefix(2)])
def test_the_compiled_sweep_says_what_torch_says(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], mask: Any
) -> None:
    pytest.importorskip("numba")
    batch, heads, queries, keys = shape
    q, k = random(batch, heads, queries, 11, seed=0), random(batch, heads, keys, 11, seed=1)
    weights = attention_weights(q, k, mask, scale=2.0)  # wide scores: some weights underflow
    monkeypatch.setattr(numba_statistics, "WORTHWHILE", 1)
    swept = weights.statistics(top=13)
    monkeypatch.setattr(numba_statistics, "is_best", lambda scores: False)
    plain = weights.statistics(top=13)
    exact = stages(q.double(), k.double(), k.double(), None, scale=2.0).scaled
    largest = 1 + float(exact.abs().max())
    for name in ("received", "entropy", "peak", "mean_distance"):
        found, wanted = getattr(swept, name), getattr(plain, name)
        torch.testing.assert_close(found, wanted, rtol=8 * EPS * largest, atol=8 * EPS * largest)
    torch.testing.assert_close(swept.top.values, plain.top.values, rtol=8 * EPS * largest, atol=0)
    # Weights that underflow are 0 in the sweep, subnormal in torch.
    same = (swept.top.indices == plain.top.indices) | (plain.top.values < 1e-30)
    ties = plain.top.values.diff(dim=-1).abs() < 1e-7
    assert same[..., 1:][~ties].all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"softcap": 3.0},
        {"bias": random(2, 4, 5, 7, seed=2)},
        {"sinks": torch.tensor([9.0, -2.0, 0.5, -torch.inf])},
    ],
)
def test_the_largest_logit_is_that_of_what_may_be_seen(options: dict[str, Any]) -> None:
    q, k = random(2, 4, 5, 11, seed=0), random(2, 2, 7, 11, seed=1)
    rule = masks.causal()
    weights = attention_weights(q, k, rule, scale=0.7, **options)
    exact = {name: x.double() if isinstance(x, Tensor) else x for name, x in options.items()}
    visible = by_rule(lambda _, query, key: key <= query, 1, 5, 7)
    masked = stages(q.double(), k.double(), k.double(), visible, scale=0.7, **exact).masked
    expected = masked.amax((-2, -1)).float()
    for found in (weights.max_logit(), weights.statistics().max_logit):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_largest_logit_of_nothing_is_minus_infinity() -> None:
    q, k = random(1, 2, 3, 5, seed=0), random(1, 2, 7, 5, seed=1)
    nothing = torch.zeros(3, 7, dtype=torch.bool)
    assert attention_weights(q, k, nothing).max_logit().tolist() == [[-torch.inf, -torch.inf]]


def test_gradients_of_the_largest_logit() -> None:
    q, k = (random(1, 2, 5, 3, seed=seed).double().requires_grad_() for seed in (0, 1))
    torch.autograd.gradcheck(lambda q, k: attention_weights(q, k).max_logit(), (q, k))


def test_the_sweep_lets_nan_through(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(numba_statistics, "WORTHWHILE", 1)
    q, k = random(1, 1, 5, 11, seed=0), random(1, 1, 7, 11, seed=1)
    q[0, 0, 3] = torch.nan
    weights = attention_weights(q, k)
    assert weights.entropy()[0, 0].isnan().tolist() == [False, False, False, True, False]
    assert weights.received().isnan().all()


def test_several_threads_say_what_one_says() -> None:
    q, k, v = (random(2, 3, n, 11, seed=i) for i, n in enumerate((307, 401, 401)))
    weights = attention_weights(q, k, masks.causal(100), softcap=3.0)
    y = random(307, 5, seed=4)

    def all_of_it() -> list[Tensor]:
        statistics = weights.statistics(top=5)
        context = pellucid.attention(q, k, v, masks.causal(100), softcap=3.0)[0]
        return [*statistics.top, statistics.received, weights.pool(7, 11), weights.T @ y, context]

    alone = all_of_it()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = all_of_it()
        with torch.inference_mode():
            assert weights.received().isfinite().all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for one, two in zip(alone, together, strict=True):
        torch.testing.assert_close(two, one)


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def broken(query: Tensor, key: Tensor) -> Tensor:
        raise ZeroDivisionError("in the user's own energy")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad(), pytest.raises(ZeroDivisionError, match="own energy"):
            pellucid.attention(*(random(1, 2, 7, 5, seed=0),) * 3, score=broken)
    finally:
        torch.set_num_threads(before)


def test_dense_refuses_above_its_limit_and_says_what_it_needs() -> None:
    weights = attention_weights(torch.zeros(1, 8, 16384, 64), torch.zeros(1, 8, 16384, 64))
    with pytest.raises(PellucidError, match=r"needs 8\.0 GiB, above the limit of 1\.0 GiB"):
        weights.dense()
    small = attention_weights(random(1, 5, 3, seed=0), random(1, 7, 3, seed=1))
    assert small.dense(limit=140).shape == (1, 5, 7)
    assert small.T.dense(limit=None).shape == (1, 7, 5)
    with pytest.raises(PellucidError, match="needs 140 B"):
        small.dense(limit=139)


def test_it_reads_well() -> None:
    q, k = random(2, 3, 5, 11, seed=0), random(2, 3, 7, 11, seed=1)
    weights = attention_weights(q, k, masks.causal(2))
    assert "shape=(2, 3, 5, 7)" in repr(weights)
    assert "causal(offset=2)" in repr(weights)
    assert repr(weights.T).endswith(".T")
    assert len(weights) == 2
    assert weights.ndim == 4
    assert weights.T.shape == (2, 3, 7, 5)
    assert weights.T.T is weights
