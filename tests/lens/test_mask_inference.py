"""Mask tensors as models make them are read back as rules, and proven to be those rules."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pellucid import PellucidError, masks
from pellucid.attention.masks import Dense, Extent, Mask
from pellucid.lens import score_scan
from pellucid.lens.mask_inference import InferredMask, infer_mask, infer_mask_of_scores
from pellucid.lens.score_scan import HIDDEN, scan_scores

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def dense_of(mask: Mask | None, batch: int, heads: int, queries: int, keys: int) -> Tensor:
    """(batch, heads, queries, keys) bool."""
    if mask is None:
        return torch.ones(batch, heads, queries, keys, dtype=torch.bool)
    bound = mask.bind(Extent(torch.Size((batch,)), heads, queries, keys, torch.device("cpu")))
    items = [bound if bound.batch is None else bound.at(item) for item in range(batch)]
    sizes = (slice(0, heads), slice(0, queries), slice(0, keys))
    tiles = [item.tile(*sizes, torch.device("cpu")) for item in items]
    return torch.stack([tile.expand(heads, -1, -1) for tile in tiles])


def additive(visible: Tensor, dtype: torch.dtype, lowest: float) -> Tensor:
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, lowest)


def is_dense(mask: Mask | None) -> bool:
    parts = [mask]
    while parts:
        part = parts.pop()
        if isinstance(part, Dense):
            return True
        parts += [getattr(part, name, None) for name in ("left", "right", "hidden")]
        parts = [part for part in parts if isinstance(part, Mask)]
    return False


@st.composite
def rules(draw: Any, batch: int, queries: int, keys: int) -> Mask | None:
    """A rule that a model may have, composed as models do."""

    def numbers(low: int, high: int) -> Any:
        if draw(st.booleans()):
            return torch.tensor(
                draw(st.lists(st.integers(low, high), min_size=batch, max_size=batch))
            )
        return draw(st.integers(low, high))

    parts: list[Mask] = []
    kind = draw(st.sampled_from(["none", "causal", "window", "prefix"]))
    if kind == "causal":
        parts.append(masks.causal(numbers(-queries - 1, keys + 1)))
    if kind == "window":
        left, right = (draw(st.none() | st.integers(0, keys)) for _ in range(2))
        parts.append(masks.window(left, right, numbers(-queries, keys)))
    if kind == "prefix":
        parts.append(masks.causal(numbers(-2, keys)) | masks.prefix(numbers(0, keys)))
    if draw(st.booleans()):
        side = draw(st.sampled_from(["left", "right", "holes"]))
        if side == "holes":
            seed = draw(st.integers(0, 2**16))
            generator = torch.Generator().manual_seed(seed)
            flags = torch.rand(batch, keys, generator=generator) < 0.7
        else:
            counts = draw(st.lists(st.integers(0, keys), min_size=batch, max_size=batch))
            flags = torch.arange(keys) < torch.tensor(counts)[:, None]
            flags = flags.flip(-1) if side == "left" else flags
        parts.append(masks.padding(flags))
    if kind != "prefix" and draw(st.booleans()):
        seed = draw(st.integers(0, 2**16))
        generator = torch.Generator().manual_seed(seed)
        several = draw(st.booleans())
        starts = torch.rand(batch if several else 1, max(queries, keys), generator=generator) < 0.3
        ids = starts.cumsum(-1)
        ids = ids if several else ids[0]
        parts.append(masks.documents(ids[..., :queries], ids[..., :keys]))
    rule = None
    for part in parts:
        rule = part if rule is None else rule & part
    return rule


def check(given: Tensor, found: InferredMask, visible: Tensor, shape: tuple[int, ...]) -> None:
    """What was found says the same as the tensor, and as its rows that are hidden by numbers."""
    uniform = torch.zeros(shape[0], shape[2], dtype=torch.bool)
    if given.dtype != torch.bool:
        top = given.amax((1, 3)).expand(shape[0], shape[2])
        uniform = (top <= torch.finfo(given.dtype).min / 2) & (top > -torch.inf)
    if found.uniform is None:
        assert not uniform.any()
    else:
        assert torch.equal(found.uniform.expand_as(uniform), uniform)
    shown = visible | uniform[:, None, :, None]
    assert torch.equal(dense_of(found.mask, *shape), shown.expand(shape))


@given(
    data=st.data(),
    batch=st.integers(1, 3),
    queries=st.integers(1, 11),
    keys=st.integers(1, 13),
    square=st.booleans(),
)
def test_rules_are_read_back(data: Any, batch: int, queries: int, keys: int, square: bool) -> None:
    queries = keys if square else queries
    rule = data.draw(rules(batch, queries, keys))
    visible = dense_of(rule, batch, 1, queries, keys)
    heads = data.draw(st.sampled_from([1, 2]))
    shape = (batch, heads, queries, keys)
    tensor = visible.repeat(1, heads, 1, 1) if data.draw(st.booleans()) else visible.expand(shape)
    form = data.draw(st.sampled_from([None, *((d, low) for d in DTYPES for low in ("inf", "min"))]))
    if form is not None:
        lowest = -torch.inf if form[1] == "inf" else torch.finfo(form[0]).min
        tensor = additive(tensor, form[0], lowest)
    found = infer_mask(tensor, queries, keys)
    assert not is_dense(found.mask), found.mask
    assert found.bias is None
    check(tensor, found, visible, shape)


@given(seed=st.integers(0, 2**16), heads=st.integers(1, 3), form=st.sampled_from([None, *DTYPES]))
def test_noise_stays_dense(seed: int, heads: int, form: torch.dtype | None) -> None:
    shape = (2, heads, 7, 11)
    visible = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    visible[..., 0] |= ~visible.any(-1)
    tensor = visible if form is None else additive(visible, form, torch.finfo(form).min)
    found = infer_mask(tensor, 7, 11)
    assert is_dense(found.mask)
    assert (found.bias, found.uniform) == (None, None)
    assert torch.equal(dense_of(found.mask, *shape), visible)


def test_rules_read_well() -> None:
    keys = torch.arange(11)
    square = torch.ones(11, 11, dtype=torch.bool)
    left = (keys >= torch.tensor([0, 4])[:, None])[:, None, None]
    right = (keys < torch.tensor([11, 3])[:, None])[:, None, None]
    ids = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    same = ids[:, None] == ids
    causal = square.tril()
    window = causal & square.triu(-2)
    read = {
        "None": square,
        "causal()": causal,
        "causal(offset=6)": causal[6:],
        "(causal() & padding(left [0, 4] of 11))": causal & left,
        "(causal() & padding([11, 3]))": causal & right,
        "padding(left [0, 4] of 11)": left,
        "padding([11, 3])": right,
        "padding(10 of 11 keys)": (keys != 5).expand(2, 1, 11, 11),
        "window(left=2, right=0)": window,
        "window(left=2, right=0, offset=6)": window[6:],
        "window(left=3, right=3)": square.triu(-3).tril(3),
        "documents(3 ids over 11 queries)": same,
        "(causal() & documents(3 ids over 11 queries))": same & causal,
        "(window(left=2, right=0) & padding(left [0, 4] of 11))": window & left,
        "(causal() | prefix(3))": causal | (keys < 3),
        "(causal() | prefix([0, 3]))": torch.stack([causal, causal | (keys < 3)])[:, None],
        "causal(offset=-3)": square.tril(-3),
        "causal(offset=[0, -2])": torch.stack([causal, square.tril(-2)])[:, None],
    }
    for name, tensor in read.items():
        queries = max(tensor.shape[-2], 2)
        queries = 11 if tensor.shape[-2] == 1 else queries
        assert str(infer_mask(tensor, queries, 11).mask) == name
        hidden = additive(tensor, torch.float32, -torch.inf)
        assert str(infer_mask(hidden, queries, 11).mask) == name
    static_cache = torch.ones(5, 20, dtype=torch.bool).tril()
    assert str(infer_mask(static_cache, 5, 20).mask) == "causal()"
    assert str(infer_mask(static_cache[-1:], 1, 20).mask) == "padding(5)"


def test_rows_hidden_by_finite_numbers_are_uniform() -> None:
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    left = (torch.arange(7) >= torch.tensor([0, 3])[:, None])[:, None, None]
    lowest = torch.finfo(torch.float32).min
    found = infer_mask(additive(causal & left, torch.float32, lowest), 7, 7)
    assert str(found.mask) == "((causal() & padding(left [0, 3] of 7)) | rows(3 of 14 queries))"
    assert found.uniform is not None
    assert found.uniform.tolist() == [[False] * 7, [True] * 3 + [False] * 4]
    found = infer_mask(additive(causal & left, torch.float32, -torch.inf), 7, 7)
    assert str(found.mask) == "(causal() & padding(left [0, 3] of 7))"
    assert found.uniform is None
    # Two masks added: where both hide the sum is -inf, and only the rest is uniform.
    tensor = additive(causal, torch.float32, lowest) + additive(left, torch.float32, lowest)
    found = infer_mask(tensor, 7, 7)
    assert found.uniform is not None
    assert int(found.uniform.sum()) == 3
    weights = dense_of(found.mask, 2, 1, 7, 7).float()
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(weights, torch.softmax(tensor, -1))
    everything = infer_mask(torch.full((1, 1, 5, 7), lowest), 5, 7)
    assert everything.mask is None
    assert everything.uniform is not None
    assert everything.uniform.all()


def test_what_is_added_beside_the_mask_is_a_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(1, 3, 7, 7, generator=generator)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    given = position.masked_fill(~causal, torch.finfo(torch.float32).min).expand(2, -1, -1, -1)
    found = infer_mask(given.requires_grad_(), 7, 7)
    assert str(found.mask) == "causal()"
    assert found.bias is not None
    assert torch.equal(found.bias, position.masked_fill(~causal, 0))
    assert found.bias.requires_grad
    old = torch.zeros(2, 1, 1, 7)
    old[1, ..., 5:] = -10000.0  # hides nothing in float32: a bias, as the softmax sees it
    found = infer_mask(old, 5, 7)
    assert found.mask is None
    assert found.bias is not None
    assert torch.equal(found.bias, old)
    noise = torch.rand(2, 1, 7, 7, generator=generator) < 0.5
    found = infer_mask(given[:, :1].detach().masked_fill(~noise, -torch.inf), 7, 7)
    assert is_dense(found.mask)
    assert found.bias is not None


def test_what_is_dense_is_kept_once() -> None:
    noise = torch.rand(7, 11, generator=torch.Generator().manual_seed(0)) < 0.5
    assert str(infer_mask(noise.repeat(2, 3, 1, 1), 7, 11).mask) == "dense(7 x 11)"
    assert str(infer_mask(noise.expand(2, 3, 7, 11), 7, 11).mask) == "dense(7 x 11)"
    each = torch.stack([noise, ~noise])
    assert str(infer_mask(each[:, None].repeat(1, 3, 1, 1), 7, 11).mask) == "dense(2 x 1 x 7 x 11)"
    assert str(infer_mask(each, 7, 11).mask) == "dense(1 x 2 x 7 x 11)"


@pytest.mark.parametrize("size", [509, 769])
def test_what_takes_several_chunks_is_proven_to_its_last_number(size: int) -> None:
    keys = torch.arange(size)
    ids = keys // 37
    holes = torch.rand(2, 1, 1, size, generator=torch.Generator().manual_seed(0)) < 0.9
    causal = torch.ones(size, size, dtype=torch.bool).tril()
    for tensor in (causal, causal & holes, causal & (ids[:, None] == ids), causal.triu(-300)):
        visible = tensor.expand(len(tensor) if tensor.ndim == 4 else 1, 1, size, size).clone()
        for form in (visible, additive(visible, torch.float32, -torch.inf)):
            found = infer_mask(form, size, size)
            assert not is_dense(found.mask)
            assert torch.equal(dense_of(found.mask, len(visible), 1, size, size), visible)
        visible[-1, 0, size - 2, size // 2] ^= True
        if not ((visible == causal).all() or size // 2 == size - 2):
            found = infer_mask(visible, size, size)
            assert torch.equal(dense_of(found.mask, len(visible), 1, size, size), visible)


def test_it_works_without_gradients_and_leaves_the_tensor_alone() -> None:
    given = additive(torch.ones(5, 5, dtype=torch.bool).tril(), torch.float16, -torch.inf)
    before = given.clone()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert str(infer_mask(given, 5, 5).mask) == "causal()"
            assert str(infer_mask(given.clone(), 5, 5).mask) == "causal()"
    assert torch.equal(given, before)


def test_what_is_no_mask() -> None:
    with pytest.raises(PellucidError, match=r"must be bool or float, got a torch\.int64 tensor"):
        infer_mask(torch.ones(5, 7, dtype=torch.int64), 5, 7)
    with pytest.raises(PellucidError, match=r"a mask of shape \(5, 6\) does not broadcast"):
        infer_mask(torch.ones(5, 6), 5, 7)
    with pytest.raises(PellucidError, match="at most 4 dimensions"):
        infer_mask(torch.ones(1, 1, 1, 5, 7), 5, 7)


@pytest.mark.parametrize("at_once", [1, 7 * 3 * 13, 2**19])
@pytest.mark.parametrize("what", ["alike", "one head sees more", "one head has a NaN"])
def test_one_look_at_scores_tells_what_every_head_sees_and_their_sums(
    what: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, heads, queries, keys = 2, 3, 11, 13
    monkeypatch.setattr(score_scan, "SCAN_NUMBERS", at_once)
    monkeypatch.setattr(score_scan, "SCAN_COLUMNS", 5)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(batch, heads, queries, keys, generator=generator)
    factors = torch.randn(keys, generator=generator)
    hidden = torch.ones(queries, keys, dtype=torch.bool).triu(2)
    scores = scores.masked_fill(hidden, -torch.inf)
    if what != "alike":
        scores[1, 2, 3, 7] = 1.0 if what == "one head sees more" else torch.nan
    look = scan_scores(scores, factors)
    seen = ~(scores <= HIDDEN)
    assert torch.equal(look.seen.expand_as(seen), seen)
    shown = scores.double().masked_fill(~seen, 0)
    truth, size = shown @ factors.double(), shown.abs() @ factors.double().abs()
    assert look.sums is not None
    assert torch.equal(look.sums.isnan(), truth.isnan())
    error = (look.sums - truth).abs().nan_to_num()
    assert bool((error <= keys * 2**-24 * size.nan_to_num()).all())
    found = infer_mask_of_scores(look)
    assert found is not None
    assert torch.equal(dense_of(found.mask, *scores.shape), seen)
    assert is_dense(found.mask) == (what != "alike")
