"""Tiles are the weights that they stand for, however they came about."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from pellucid import masks
from pellucid.attention import AttentionWeights, attention_weights, block_pooling
from pellucid.attention.scores import Block, Scores
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.viewer import tile_pyramid
from pellucid.viewer.tile_pyramid import Map, Reduce, TensorCache, thumbnails
from tests.fuzzing import few_or_many

MASKS: dict[str, masks.Mask | None] = {
    "none": None,
    "causal": masks.causal(),
    "window": masks.window(left=5, right=2),
    "padding": masks.padding(19),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles, bands and bases small enough that a small map has many."""
    monkeypatch.setattr(tile_pyramid, "SIDE", 4)
    monkeypatch.setattr(tile_pyramid, "BAND", 8)
    monkeypatch.setattr(tile_pyramid, "FINER", 2)
    monkeypatch.setattr(tile_pyramid, "SOON", 500)
    monkeypatch.setattr(tile_pyramid, "SAMPLED", 3)


def made(
    queries: int,
    keys: int,
    mask: str = "none",
    known: bool = False,
    kept: TensorCache | None = None,
) -> Map:
    draw = torch.Generator().manual_seed(queries)
    query, key = (torch.randn(1, n, 5, generator=draw) for n in (queries, keys))
    weights = attention_weights(3 * query, key, MASKS[mask])
    if known:
        weights.logsumexp  # noqa: B018
    return Map(weights, known, kept)


def plain(of: Map) -> torch.Tensor:
    """The weights in float64."""
    scores = of.weights.operands
    exact = replace(scores, query=scores.query.double(), key=scores.key.double())
    return AttentionWeights(exact).dense()[0]


def pooled(weights: torch.Tensor, cell: int, reduce: Reduce) -> torch.Tensor:
    """Plainly, in float64: squares from the corner, the last ones cut."""
    down, across = (math.ceil(size / cell) for size in weights.shape)
    squares = [
        [weights[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell] for j in range(across)]
        for i in range(down)
    ]
    join = torch.Tensor.mean if reduce == "mean" else torch.Tensor.amax
    return torch.stack([torch.stack([join(one.double()) for one in row]) for row in squares])


@few_or_many(12)
def test_tiles_are_what_they_stand_for(examples: settings) -> None:
    @given(
        queries=st.integers(1, 53),
        keys=st.integers(19, 61),
        mask=st.sampled_from(sorted(MASKS)),
        reduce=st.sampled_from(["mean", "max"]),
        known=st.booleans(),
    )
    @examples
    def tiles_are_pooled_weights(
        queries: int, keys: int, mask: str, reduce: Reduce, known: bool
    ) -> None:
        whole = made(queries, keys, mask, known)
        dense = plain(whole)
        for level in range(whole.top + 1):
            expected = pooled(dense, 2**level, reduce)
            down, across = (math.ceil(size / 4) for size in expected.shape)
            rows = []
            for row in range(down):
                tiles = [whole.tile(level, row, col, reduce) for col in range(across)]
                assert all(tile.is_exact for tile in tiles)
                rows.append(torch.cat([tile.cells for tile in tiles], 1))
            # Scores of up to some 30 are good to 2e-6, and so are the weights.
            torch.testing.assert_close(torch.cat(rows).double(), expected, rtol=1e-5, atol=1e-7)
        assert down == across == 1

    tiles_are_pooled_weights()


@pytest.mark.parametrize("mask", sorted(MASKS))
def test_single_weights_are_equal_to_the_last_bit(mask: str) -> None:
    whole = made(53, 61, mask)
    whole.tile(whole.top, 0, 0)  # what was found before makes no difference
    places, expected = list(itertools.product(range(14), range(16))), []
    for row, col in places:
        weights = made(53, 61, mask).weights
        with torch.no_grad():  # under autograd what is hidden is masked in a copy
            expected.append(weights[0, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4])
    for _ in range(2):
        for place, cells in zip(places, expected, strict=True):
            assert torch.equal(whole.tile(0, *place).cells, cells)


def test_what_is_kept_is_bounded() -> None:
    kept = TensorCache(9_000)
    one, other = made(53, 61, kept=kept), made(53, 61, "causal", kept=kept)
    for whole in (one, other, one):
        dense = plain(whole)
        for level in range(whole.top + 1):
            cells = whole.tile(level, 0, 0, "max").cells
            expected = pooled(dense[: 4 * 2**level, : 4 * 2**level], 2**level, "max")
            torch.testing.assert_close(cells.double(), expected, rtol=1e-5, atol=1e-7)
            assert kept.bytes <= 9_000
    held = {part.data_ptr(): part.nbytes for tensors in kept._tensors.values() for part in tensors}
    assert sum(held.values()) == kept.bytes > 4_000


@pytest.mark.parametrize("mask", ["causal", "window"])
def test_what_is_hidden_is_not_looked_at(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of rows takes the squares that any of them sees, and no more."""
    monkeypatch.setattr(block_pooling, "TOGETHER", 4)
    monkeypatch.setattr(block_pooling, "LEAST_ROWS", 4)
    whole = made(53, 61, mask)
    looked_at = []
    of_block = Scores.of_block

    def counted(scores: Scores, block: Block) -> torch.Tensor:
        found = of_block(scores, block)
        looked_at.append(found.numel())
        return found

    monkeypatch.setattr(Scores, "of_block", counted)
    whole.tile(whole.top, 0, 0)
    dense = plain(whole)
    seen = sum(
        4 * len(rows) * (block.amax((0, 2)) > 0).sum()
        for rows in dense.split(4)
        for block in [pad(rows, (0, 3)).unflatten(1, (-1, 4))]
    )
    assert 0 < sum(looked_at) <= seen


def test_what_would_take_long_is_sampled_first() -> None:
    whole = made(53, 61)
    first = whole.tile(whole.top, 0, 0, "max", exact=False)
    assert not first.is_exact
    dense = whole.weights.dense()[0]
    size = 2**whole.top
    shown = dense[[53 // 6, 53 // 2, 53 * 5 // 6]]
    expected = torch.stack([part.amax(-1) for part in shown.split(size, 1)], 1)
    places = torch.arange(first.cells.shape[0]) * 3 // first.cells.shape[0]
    torch.testing.assert_close(first.cells, expected[places])
    exact = whole.tile(whole.top, 0, 0, "max")
    assert exact.is_exact
    again = whole.tile(whole.top, 0, 0, "max", exact=False)
    assert again.is_exact
    assert torch.equal(again.cells, exact.cells)
    # One tile of single weights is soon found.
    assert made(53, 61).tile(0, 3, 2, exact=False).is_exact


def test_known_rows_need_no_sample() -> None:
    assert not made(53, 61).tile(1, 0, 0, exact=False).is_exact
    assert made(53, 61, known=True).tile(1, 0, 0, exact=False).is_exact
    # A window shows so little that all of it is soon found.
    assert made(53, 61, "window").tile(1, 0, 0, exact=False).is_exact


def test_rows_and_columns() -> None:
    whole = made(53, 61, "causal")
    dense = whole.weights.dense()[0]
    torch.testing.assert_close(whole.row(37), dense[37])
    torch.testing.assert_close(whole.column(11), dense[:, 11])


@pytest.mark.parametrize("mask", sorted(MASKS))
@pytest.mark.parametrize("size", [7, 101])
def test_thumbnails_show_the_strongest_of_some_rows(mask: str, size: int) -> None:
    query, key = torch.randn(2, 6, 53, 5), torch.randn(2, 3, 61, 5)
    bound = masks.padding(torch.tensor([19, 23])) if mask == "padding" else MASKS[mask]
    weights = attention_weights(query, key, bound, sinks=torch.randn(6))
    found = thumbnails(weights.batch_item(1), size)
    cell = math.ceil(61 / size)
    rows = [math.floor((2 * row + 1) * 53 / 14) for row in range(7)] if size == 7 else range(53)
    shown = weights.dense()[1, :, list(rows)]
    expected = torch.stack([part.amax(-1) for part in shown.split(cell, -1)], -1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "ask",
    [
        lambda one: one.tile(5, 0, 0),
        lambda one: one.tile(-1, 0, 0),
        lambda one: one.tile(0, 14, 0),
        lambda one: one.tile(0, 0, -1),
        lambda one: one.row(53),
        lambda one: one.column(61),
    ],
)
def test_there_is_nothing_outside(ask: Callable[[Map], object]) -> None:
    with pytest.raises(OutOfRangeError, match="there is no"):
        ask(made(53, 61))


def test_only_means_and_maxima_are_drawn() -> None:
    with pytest.raises(ArgumentError, match="'mean' or 'max', not 'sum'"):
        made(5, 7).tile(0, 0, 0, "sum")  # type: ignore[arg-type]
