"""Tiles are the weights that they stand for, however they came about."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid import masks
from pellucid.attention import attention_weights
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.viewer import maps
from pellucid.viewer.maps import Map, Reduce

MASKS: dict[str, masks.Mask | None] = {
    "none": None,
    "causal": masks.causal(),
    "window": masks.window(left=5, right=2),
    "padding": masks.padding(19),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles, bands and bases small enough that a small map has many."""
    monkeypatch.setattr(maps, "SIDE", 4)
    monkeypatch.setattr(maps, "BAND", 16)
    monkeypatch.setattr(maps, "BASE", 2)
    monkeypatch.setattr(maps, "SAMPLED", 3)


def made(queries: int, keys: int, mask: str = "none") -> Map:
    draw = torch.Generator().manual_seed(queries)
    query, key = (torch.randn(1, n, 5, generator=draw) for n in (queries, keys))
    return Map(attention_weights(3 * query, key, MASKS[mask]))


def pooled(weights: torch.Tensor, cell: int, reduce: Reduce) -> torch.Tensor:
    """Plainly, in float64: squares from the corner, the last ones cut."""
    down, across = (math.ceil(size / cell) for size in weights.shape)
    squares = [
        [weights[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell] for j in range(across)]
        for i in range(down)
    ]
    join = torch.Tensor.mean if reduce == "mean" else torch.Tensor.amax
    return torch.stack([torch.stack([join(one.double()) for one in row]) for row in squares])


@given(
    queries=st.integers(1, 53),
    keys=st.integers(19, 61),
    mask=st.sampled_from(sorted(MASKS)),
    reduce=st.sampled_from(["mean", "max"]),
)
def test_tiles_are_what_they_stand_for(queries: int, keys: int, mask: str, reduce: Reduce) -> None:
    whole = made(queries, keys, mask)
    dense = whole.weights.dense()[0]
    for level in range(whole.top + 1):
        expected = pooled(dense, 2**level, reduce)
        down, across = (math.ceil(size / 4) for size in expected.shape)
        rows = []
        for row in range(down):
            tiles = [whole.tile(level, row, col, reduce) for col in range(across)]
            assert all(tile.is_exact for tile in tiles)
            rows.append(torch.cat([tile.cells for tile in tiles], 1))
        # Sums of a few float32 numbers of at most 1.
        torch.testing.assert_close(torch.cat(rows).double(), expected, rtol=2e-6, atol=1e-7)
    assert down == across == 1


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
    query, key = torch.randn(1, 53, 5), torch.randn(1, 61, 5)
    weights = attention_weights(query, key)
    weights.logsumexp  # noqa: B018
    assert Map(weights, is_known=True).tile(2, 0, 0, exact=False).is_exact


def test_rows_columns_and_thumbnails() -> None:
    whole = made(53, 61, "causal")
    dense = whole.weights.dense()[0]
    torch.testing.assert_close(whole.row(37), dense[37])
    torch.testing.assert_close(whole.column(11), dense[:, 11])
    assert whole.thumbnail(7).shape == (7, 7)
    torch.testing.assert_close(whole.thumbnail(101), dense)


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
