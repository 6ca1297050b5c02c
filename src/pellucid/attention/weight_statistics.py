"""What is asked of all weights together: received, entropy, the strongest keys, pooled pictures."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pellucid.attention import block_pooling, block_statistics, indexing, intervals
from pellucid.attention.block_pooling import Cells
from pellucid.attention.block_statistics import Top
from pellucid.attention.intervals import Intervals
from pellucid.attention.lazy_weights import LazyWeights, as_int, nonempty
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError

MOST_RANGES = 16
"""Ranges of queries reduced one by one; more are selected in one pass over all queries."""


COLLECTED = ("received", "entropy", "max_logit")
"""What `collect` gives."""


def check_collected(names: Collection[str]) -> None:
    """Raise ArgumentError unless all are statistics that `collect` gives."""
    if isinstance(names, str) or not set(names) <= set(COLLECTED):
        known = ", ".join(map(repr, COLLECTED))
        raise ArgumentError(f"collect must be a tuple of {known}; got {names!r}")


class Statistics(NamedTuple):
    """Figures of each key and each query, computed together in one pass."""

    received: Tensor
    """(..., heads, keys) attention each key gets, summed over the queries."""
    entropy: Tensor
    """(..., heads, queries) nats; ln(keys) for uniform attention, 0 for a single key."""
    top: Top
    """The strongest keys of each query."""
    peak: Tensor
    """(..., heads, queries) the largest weight."""
    mean_distance: Tensor
    """(..., heads, queries) mean distance in positions between a query and its keys."""
    max_logit: Tensor
    """(..., heads) the largest logit; see `AttentionWeights.max_logit`."""


class WeightStatistics(LazyWeights):
    """Lazy weights with their statistics, a block at a time."""

    def received(self, queries: slice | Sequence[int] | Tensor | None = None) -> Tensor:
        """Attention that each key gets: the sum of its column, (..., heads, keys).

        Args:
            queries: the queries to count, a slice or a set of positions; all unless given. A few
                neighbouring ones cost what they alone cost.
        """
        ranges = None if queries is None else self._ranges(queries)
        if ranges:
            weights, first = self._for_rows(slice(ranges[0][0], ranges[-1][1]))
            if weights is not self:
                return weights.received(intervals.positions(ranges, torch.device("cpu")) - first)
        if ranges is not None and len(ranges) > MOST_RANGES:
            counted = torch.zeros(self._of.shape[2], 1, dtype=self.dtype, device=self.device)
            counted[intervals.positions(ranges, self.device)] = 1
            return self._transposed_product(counted.expand(*self._of.shape[:3], 1)).squeeze(-1)
        return self._statistics(frozenset({"received"}), queries=ranges)["received"]

    def entropy(self) -> Tensor:
        """The entropy of each query: -sum(w ln w) over its keys, nats, (..., heads, queries)."""
        return self._statistics(frozenset({"entropy"}))["entropy"]

    def visible(self) -> Tensor:
        """How many keys the mask lets each query see: int64, (..., heads, queries)."""
        of = self._of
        batch, heads, queries, keys = of.shape
        count = torch.zeros(batch, heads, queries, dtype=torch.int64, device=self.device)
        if of.mask is None:
            return self._outer(count + keys)
        for block in of.blocks():
            assert block.mask is not None
            rows = count[block.items, block.heads, block.rows]
            rows += intervals.length(block.cols) - intervals.length(block.masked)
            for cols in block.masked:
                tile = block.mask.tile(block.heads, block.rows, slice(*cols), self.device)
                rows += tile.sum(-1)
        return self._outer(count)

    def work(self, queries: slice = slice(None)) -> int:
        """How many weights a pass over some queries of one head computes, in the first batch item:
        those that no mask hides, and few more.
        """
        start, stop, _ = queries.indices(self._of.shape[2])
        return block_pooling.work(self._of.at(0), slice(start, stop))

    def top(self, k: int, factors: Tensor | None = None) -> Top:
        """Each query's k strongest keys, strongest first, each (..., heads, queries, k).

        Where fewer than k keys have any weight, the rest are index -1 with weight 0.

        Args:
            k: how many.
            factors: (..., heads, keys), at least 0: multiplies the weights of each key before they
                are compared; values are then the products.

        Raises:
            ArgumentError: k is below 1 or above the number of keys.
            ShapeError: factors of another shape.
        """
        scores, k = self._of, self._checked_top(k)
        if factors is not None:
            if factors.shape != (*self.shape[:-2], self.shape[-1]):
                raise ShapeError(
                    f"factors must be (..., heads, keys) = {(*self.shape[:-2], self.shape[-1])}, "
                    f"got {tuple(factors.shape)}"
                )
            # w * factor = exp(score + ln factor - logsumexp), the logsumexp that of the weights.
            logs = factors.log().reshape(-1, *factors.shape[-2:]).unsqueeze(-2)
            logs = logs.expand(scores.shape)
            scores = replace(scores, bias=logs if scores.bias is None else scores.bias + logs)
        top = block_statistics.statistics(scores, self._flat_logsumexp, frozenset(), k)
        return Top(self._outer(top["values"]), self._outer(top["indices"]))

    def statistics(self, top: int = 8) -> Statistics:
        """Received, entropy, the strongest keys, peak and mean distance, together in one pass.

        Args:
            top: strongest keys per query; where there are fewer keys, all of them.
        """
        top = self._checked_top(min(as_int("top", top), self._of.shape[3]))
        figures = self._statistics(frozenset({"received", "entropy", "distance", "peak"}), top)
        return Statistics(
            received=figures["received"],
            entropy=figures["entropy"],
            top=Top(figures["values"], figures["indices"]),
            peak=figures["values"][..., 0],
            mean_distance=figures["distance"],
            max_logit=figures["peak"].amax(-1),
        )

    def max_logit(self) -> Tensor:
        """The largest logit of each head that no mask hides, (..., heads): scaled, capped and with
        the bias, as the softmax takes it; -inf where everything is hidden.

        It grows before a training run diverges, and QK-clip bounds it (Kimi Team 2025, "Kimi K2",
        section 2.1; Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters").
        """
        peak = block_statistics.statistics(self._of, None, frozenset({"peak"}))["peak"]
        return self._outer(peak).amax(-1)

    def collect(self, names: Collection[str]) -> dict[str, Tensor]:
        """Some statistics in one pass, without gradients, such as those of a training step.

        Args:
            names: of "received" (..., heads, keys), "entropy" (..., heads, queries) and "max_logit"
                (..., heads), each as its method gives it.

        Raises:
            ArgumentError: there is no such statistic.
        """
        check_collected(names)
        want = frozenset("peak" if name == "max_logit" else name for name in names)
        with torch.no_grad():
            knows = self._logsumexp is not None or self._of.sinks is not None
            logsumexp = self._flat_logsumexp.detach() if knows else None
            collected = block_statistics.statistics(self._of.detach(), logsumexp, want)  # type: ignore[arg-type]
            collected = {name: self._outer(figure) for name, figure in collected.items()}
            if "peak" in collected:
                collected["max_logit"] = collected.pop("peak").amax(-1)
            return collected

    def pool(
        self,
        rows: int,
        cols: int,
        reduce: Literal["mean", "max"] = "mean",
        region: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """A picture of any rectangle, (..., heads, rows, cols), in the time of that rectangle.

        Args:
            rows, cols: cells of the picture, at most one per query or key of the region. Their
                sizes differ by one at most, the larger ones first.
            reduce: what a cell shows, the "mean" or the "max" of its weights.
            region: queries and keys, two slices with step 1; everything unless given.

        Raises:
            ArgumentError: rows or cols below 1, an empty region, or another reduce.
        """
        if reduce not in ("mean", "max"):
            raise ArgumentError(f"reduce must be 'mean' or 'max', got {reduce!r}")
        if as_int("rows", rows) < 1 or as_int("cols", cols) < 1:
            raise ArgumentError(f"rows and cols must be at least 1, got {rows} and {cols}")
        queries, keys = self._region((slice(None), slice(None)) if region is None else region)
        rows, cols = min(rows, queries.stop - queries.start), min(cols, keys.stop - keys.start)
        weights, first = self._for_rows(queries)
        queries = slice(queries.start - first, queries.stop - first)
        logsumexp = weights._flat_logsumexp
        picture = block_statistics.pool(weights._of, logsumexp, rows, cols, reduce, queries, keys)
        return self._outer(picture)

    def cells(
        self,
        size: tuple[int, int],
        region: tuple[slice | Sequence[int] | Tensor, slice] | None = None,
        logsumexp: Tensor | None = None,
    ) -> Cells:
        """Sums and maxima of any rectangle in cells of one size, and the logsumexp of its rows.

        The logsumexp is computed in the same pass, from whole rows; where it is given, no key
        outside the rectangle is read. For pictures: without gradients.

        Args:
            size: queries and keys of a cell; the last row and column of cells may be smaller.
            region: queries and keys, two slices with step 1; the queries may also be ascending
                positions, (rows,). Everything unless given.
            logsumexp: (..., heads, rows) of those queries, where it is known.

        Raises:
            ArgumentError: a size below 1, or an empty region.
            TypeMismatchError, OutOfRangeError: not a region, or one past the end.
        """
        if any(as_int("size", length) < 1 for length in size):
            raise ArgumentError(f"size must be at least 1 each way, got {size}")
        queries, keys = (slice(None), slice(None)) if region is None else region
        rows: slice | Tensor
        if isinstance(queries, slice):
            rows, cols = self._region((queries, keys))
        else:
            _, cols = self._region((slice(None), keys))
            rows = indexing.as_positions("queries", queries).to(self.device)
            if rows.ndim != 1 or not len(rows) or bool((rows.diff() <= 0).any()):
                raise ArgumentError(f"queries must be ascending positions, got {queries}")
            if not 0 <= int(rows[0]) <= int(rows[-1]) < self.shape[-2]:
                raise OutOfRangeError(
                    f"queries must be from 0 to {self.shape[-2] - 1}, got {queries}"
                )
        with torch.no_grad():
            if logsumexp is not None:
                logsumexp = logsumexp.reshape(*self._of.shape[:2], -1)
            cells = block_pooling.cells(self._of, rows, cols, size, logsumexp)
            return Cells(*map(self._outer, cells))

    def _region(self, region: tuple[slice, slice]) -> tuple[slice, slice]:
        """Two slices with both ends."""
        if not (
            isinstance(region, tuple)
            and len(region) == 2
            and all(isinstance(part, slice) for part in region)
        ):
            raise TypeMismatchError(f"region must be two slices, queries and keys; got {region!r}")
        queries, keys = self.shape[-2:]
        return (
            nonempty("queries of region", region[0], queries),
            nonempty("keys of region", region[1], keys),
        )

    def _statistics(
        self,
        want: frozenset[block_statistics.Statistic],
        top: int = 0,
        queries: Intervals | None = None,
    ) -> dict[str, Tensor]:
        figures = block_statistics.statistics(self._of, self._flat_logsumexp, want, top, queries)
        return {name: self._outer(value) for name, value in figures.items()}

    def _transposed_product(self, x: Tensor) -> Tensor:
        """weights.T @ x, (..., heads, keys, m), for x (batch, heads, queries, m)."""
        return self._outer(block_statistics.transposed_product(self._of, self._flat_logsumexp, x))

    def _checked_top(self, k: int) -> int:
        keys = self._of.shape[3]
        if as_int("top", k) < 1 or k > keys:
            raise ArgumentError(f"top must be from 1 to the number of keys, {keys}; got {k}")
        return k

    def _ranges(self, queries: slice | Sequence[int] | Tensor) -> Intervals:
        size = self._of.shape[2]
        counted = torch.zeros(size, dtype=torch.bool)
        if isinstance(queries, slice):
            counted[queries] = True
        else:
            positions = indexing.as_positions("queries", queries)
            if (
                positions.numel()
                and not -size <= int(positions.min()) <= int(positions.max()) < size
            ):
                raise OutOfRangeError(f"queries must be from {-size} to {size - 1}, got {queries}")
            counted[positions] = True
        return intervals.runs(counted)
