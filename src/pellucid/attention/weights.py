"""Attention weights that are there without being stored: exp(score - logsumexp), when asked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

import torch
from torch import Tensor

from pellucid.attention import (
    backends,
    block_pooling,
    block_statistics,
    indexing,
    intervals,
    reductions,
)
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.block_pooling import Cells
from pellucid.attention.block_statistics import Top
from pellucid.attention.display import Displayed
from pellucid.attention.energies import Energy
from pellucid.attention.intervals import Intervals
from pellucid.attention.limits import DENSE_LIMIT, check_size, readable_bytes
from pellucid.attention.masks import And, Band, Mask, mask_of_rows
from pellucid.attention.scores import Scores
from pellucid.errors import (
    ArgumentError,
    OutOfRangeError,
    ShapeError,
    TypeMismatchError,
    warn_deprecated,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["AttentionWeights", "Cells", "Statistics", "Top"]

FEW_ROWS = 8
"""Fewer than one in so many rows find their logsumexp alone; for more, all are found at once."""
MOST_RANGES = 16
"""Ranges of queries that are gone through one by one; more are picked out of a whole pass."""


class Statistics(NamedTuple):
    """What can be said of each key and each query, found together in one pass."""

    received: Tensor
    """(..., heads, keys) attention each key gets, summed over the queries."""
    entropy: Tensor
    """(..., heads, queries) nats; ln(keys) when a query looks everywhere alike, 0 at one key."""
    top: Top
    """The strongest keys of each query."""
    peak: Tensor
    """(..., heads, queries) the largest weight."""
    mean_distance: Tensor
    """(..., heads, queries) positions between a query and the keys it attends to, on average."""


class LazyMatrix:
    """A matrix of shape (..., heads, queries, keys) whose parts are computed when asked for."""

    __array_ufunc__ = None  # or NumPy would unroll it number by number

    def __init__(self, scores: Scores, name: str) -> None:
        self._of = scores
        self._name = name

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self._of.batch_shape, *self._of.shape[1:]))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """float32, or float64 where query and key are."""
        return self._of.dtype

    @property
    def device(self) -> torch.device:
        return self._of.query.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly that part, a tensor; costs no more than the part.

        Args:
            index: ints, slices with a step above 0, `...`, None, integer tensors and bool tensors,
                as in torch.

        Raises:
            OutOfRangeError, TypeMismatchError: an index past the end, or of another kind.
        """
        return indexing.select(self._of, None, self._name, index)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def dense(self, limit: int | None = DENSE_LIMIT) -> Tensor:
        """All of it, n x n numbers a head.

        Args:
            limit: bytes it may take; None = no limit.

        Raises:
            TooLargeError: it would take more, and how much.
        """
        check_size("dense()", self.shape, self.dtype, limit)
        return self[...]

    def numpy(self, limit: int | None = DENSE_LIMIT) -> "np.ndarray[Any, Any]":
        """All of it as NumPy's, on the CPU and without gradients; arguments and errors as `dense`.

        `np.asarray(weights)` is the same, with the limit.
        """
        with torch.no_grad():
            found: np.ndarray[Any, Any] = self.dense(limit).cpu().numpy()
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "np.ndarray[Any, Any]":
        if copy is False:
            raise ArgumentError("weights that are computed when asked for cannot be had uncopied")
        found = self.numpy()
        return found if dtype is None else found.astype(dtype)

    @property
    def requires_grad(self) -> bool:
        """Whether answers carry a graph, where autograd is on."""
        return self._of.requires_grad

    def to(self, *to: Any, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """The same on another device or in another dtype; itself where it is that already.

        Args:
            to: a device, a dtype or both, as `Tensor.to` takes them.
            device: where to.
            dtype: float32 or float64, which query, key, bias and sinks then have too.

        Raises:
            TypeMismatchError: another dtype, in which no weights are computed.
        """
        for one in to:
            device, dtype = (device, one) if isinstance(one, torch.dtype) else (one, dtype)
        device = self.device if device is None else torch.device(device)
        if dtype not in (None, torch.float32, torch.float64):
            raise TypeMismatchError(f"weights are float32 or float64, not {dtype}")
        if dtype == self.dtype:
            dtype = None
        if dtype is None and torch.empty(0, device=device).device == self.device:
            return self

        def moved(x: Tensor) -> Tensor:
            return x.to(device=device, dtype=dtype if x.is_floating_point() else None)

        return self._changed(self._of.map(moved), moved if dtype is None else None)

    def cpu(self) -> Self:
        """The same in the memory of the CPU."""
        return self.to("cpu")

    def detach(self) -> Self:
        """The same without gradients to what it is made of."""
        return self._changed(self._of.detach(), torch.Tensor.detach)

    def _changed(self, scores: Scores, known: Callable[[Tensor], Tensor] | None) -> Self:
        """Of changed operands; `known` is what a logsumexp that is there is changed by, or None."""
        return type(self)(scores, self._name)

    def bytes_held(self) -> int:
        """Bytes of memory that it keeps alive: query, key, bias, mask and what else there is."""
        return self._of.bytes_held

    def __repr__(self) -> str:
        facts = [f"shape={tuple(self.shape)}", f"dtype={str(self.dtype).removeprefix('torch.')}"]
        if self.device.type != "cpu":
            facts.append(f"device={self.device}")
        if self._of.mask is not None:
            facts.append(f"mask={self._of.mask}")
        held, dense = self.bytes_held(), self.shape.numel() * self.dtype.itemsize
        facts.append(f"holds {readable_bytes(held)}, dense would be {readable_bytes(dense)}")
        return f"{type(self).__name__}({self._name}: {', '.join(facts)})"


class AttentionWeights(LazyMatrix, Displayed):
    """All attention weights of a call, exact, in the memory of its query and key.

    A linear operator from keys to queries, (..., heads, queries, keys). It holds references to
    query and key, the mask, and one logsumexp a row; whatever is asked is computed then, in float32
    or better, and is differentiable if query and key are (answers to one call share its graph:
    add losses up before `backward`, or pass retain_graph=True). Inputs that are changed in place
    later change the answers. A weight's relative error is that of its score: scores in the
    thousands have no better than 1e-3 in float32, here as in any softmax.
    """

    def __init__(
        self, scores: Scores, backend: str = "auto", logsumexp: Tensor | None = None
    ) -> None:
        """Made by `attention` and `attention_weights`; logsumexp is that of the keys alone."""
        super().__init__(scores, "weights")
        self._backend = backend
        self._has_graph = torch.is_grad_enabled()
        self._rows_found = 0
        self._logsumexp = None if logsumexp is None else self._with_sinks(logsumexp)

    def _with_sinks(self, logsumexp: Tensor) -> Tensor:
        if self._of.sinks is None:
            return logsumexp
        sinks = self._of.sinks.to(logsumexp.dtype).unsqueeze(-1).expand_as(logsumexp)
        nothing = (logsumexp == -torch.inf) & (sinks == -torch.inf)  # its gradient would be NaN
        logsumexp, sinks = (x.masked_fill(nothing, 0) for x in (logsumexp, sinks))
        return torch.logaddexp(logsumexp, sinks).masked_fill(nothing, -torch.inf)

    @property
    def operands(self) -> Scores:
        """All that the weights are made of, batch dimensions flattened into one.

        For whoever works on blocks: `operands.blocks()` covers what the mask shows, and
        `operands.of_block(block)` are the masked scores there.
        """
        return self._of

    @property
    def query(self) -> Tensor:
        """(..., heads, queries, key_dim), as the energy compares it.

        Raises:
            ArgumentError: the weights were given as they are, and come from no query and key.
        """
        return self._outer(self._of.query)

    @property
    def key(self) -> Tensor:
        """(..., kv_heads, keys, key_dim), as the energy compares it; errors as of `query`."""
        return self._outer(self._of.key)

    @property
    def kv_heads(self) -> int:
        """Heads of the key; as many query heads share each as this is contained in heads."""
        return self._of.key.shape[1]

    @property
    def mask(self) -> Mask | None:
        """Which query may see which key, for these sizes; None where each sees all."""
        return self._of.mask

    @property
    def bias(self) -> Tensor | None:
        """(..., heads, queries, keys), expanded from what was given; None without."""
        return None if self._of.bias is None else self._outer(self._of.bias)

    @property
    def scale(self) -> float:
        """The factor on the scores."""
        return self._of.scale

    @property
    def softcap(self) -> float | None:
        """The bound of the capped scores; None without."""
        return self._of.softcap

    @property
    def sinks(self) -> Tensor | None:
        """(heads,) one extra logit a head; None without."""
        return self._of.sinks

    @property
    def energy(self) -> Energy:
        """What makes a score of a query and a key."""
        return self._of.energy

    def share_with_sinks(self, context: Tensor, logsumexp: Tensor) -> Tensor:
        """A context computed without the sinks, less the share that they take."""
        share = torch.exp(logsumexp - finite(self._with_sinks(logsumexp)))
        return context * share.unsqueeze(-1).to(context.dtype)

    def know(self, logsumexp: Tensor) -> None:
        """Take a logsumexp that was found elsewhere, (..., heads, queries), sinks included.

        A constant: autograd, where it is on, has it found again.
        """
        self._logsumexp = logsumexp.reshape(self._of.shape[:3])
        self._has_graph = False

    @property
    def is_known(self) -> bool:
        """Whether the logsumexp is here, so that nothing need be computed before a weight is.

        Not where it is a constant to autograd, which is on and must not take it for one.
        """
        lost = torch.is_grad_enabled() and not self._has_graph and self._of.requires_grad
        return self._logsumexp is not None and not lost

    @property
    def _flat_logsumexp(self) -> Tensor:
        if self._logsumexp is None or not self.is_known:
            self._has_graph = torch.is_grad_enabled()
            exact = self._exact
            run = backends.choose(self._backend, exact, exact.key, 0.0)
            self._logsumexp = self._with_sinks(run.forward(exact, exact.key, 0.0)[1])
        return self._logsumexp

    @property
    def _exact(self) -> Scores:
        """The scores in the dtype of the weights: kernels compute in that of their inputs."""
        query, key = (x.to(self.dtype) for x in (self._of.query, self._of.key))
        return replace(self._of, query=query, key=key)

    @property
    def logsumexp(self) -> Tensor:
        """(..., heads, queries): log of the sum of exp over the masked scores and any sinks.

        Kept from the kernel: in bfloat16 and float16 on the CPU good to 2**-14, elsewhere to the
        rounding of its dtype.
        """
        return self._outer(self._flat_logsumexp)

    @property
    def scores(self) -> LazyMatrix:
        """Raw scores, query . key unless another energy was chosen."""
        return LazyMatrix(self._of, "scores")

    @property
    def scaled(self) -> LazyMatrix:
        """scores * scale."""
        return LazyMatrix(self._of, "scaled")

    @property
    def capped(self) -> LazyMatrix:
        """softcap * tanh(scaled / softcap); the same as scaled without a softcap."""
        return LazyMatrix(self._of, "capped")

    @property
    def masked(self) -> LazyMatrix:
        """capped + bias, -inf where the mask hides a key: what the softmax sees."""
        return LazyMatrix(self._of, "masked")

    def _with(self, scores: Scores, logsumexp: Tensor | None = None) -> "AttentionWeights":
        """The weights of other operands; logsumexp is (batch, heads, queries), sinks included."""
        part = type(self)(scores, self._backend)
        if logsumexp is not None:
            part._logsumexp, part._has_graph = logsumexp, self._has_graph
        return part

    def _changed(self, scores: Scores, known: Callable[[Tensor], Tensor] | None) -> Self:
        part = type(self)(scores, self._backend)
        if known is not None and self._logsumexp is not None:
            part._logsumexp, part._has_graph = known(self._logsumexp), self._has_graph
        return part

    def bytes_held(self) -> int:
        """Bytes of memory that it keeps alive: query, key, bias, mask, logsumexp and what else."""
        return super().bytes_held() + (0 if self._logsumexp is None else self._logsumexp.nbytes)

    def placed(self, offset: int) -> "AttentionWeights":
        """The same weights, of which it is known where query 0 stands among the keys.

        Distances count from there. Nothing is hidden by it.

        Args:
            offset: the key that query 0 stands at.
        """
        place = Band(None, None, _whole("offset", offset))
        mask = place if self._of.mask is None else And(self._of.mask, place)
        return self._with(replace(self._of, mask=mask), self._logsumexp)

    def rows(self, queries: slice) -> "AttentionWeights":
        """The weights of some queries alone, (..., heads, chosen queries, keys), as lazy as these.

        Whatever is asked of them costs those queries alone, their logsumexp included where it is
        not known yet. Distances count from where the queries stand here.

        Args:
            queries: a slice with step 1 that holds any; negative ends count from the last query.

        Raises:
            ArgumentError: the slice is empty or has another step.
            TypeMismatchError: it is no slice.
        """
        if not isinstance(queries, slice):
            raise TypeMismatchError(f"queries must be a slice, got {queries!r}")
        start, stop, step = queries.indices(self._of.shape[2])
        if step != 1 or stop <= start:
            raise ArgumentError(
                f"queries must be a slice with step 1 that holds any of {self._of.shape[2]}, "
                f"got {queries}"
            )
        chosen = slice(start, stop)
        query, bias = self._of.query[:, :, chosen], self._of.bias
        bias = None if bias is None else bias[:, :, chosen]
        mask = mask_of_rows(self._of.mask, chosen)
        known = None if self._logsumexp is None else self._logsumexp[:, :, chosen]
        return self._with(replace(self._of, query=query, bias=bias, mask=mask), known)

    def batch_item(self, *place: int) -> "AttentionWeights":
        """The weights of one batch item, (heads, queries, keys), as lazy as these.

        Args:
            place: a number for each batch dimension; negative ones count from the end.

        Raises:
            OutOfRangeError: other than one number a dimension, or one past the end.
            TypeMismatchError: a number is no int.
        """
        item = _flat_place("one batch item", place, self._of.batch_shape)
        known = None if self._logsumexp is None else self._logsumexp[item : item + 1]
        return self._with(self._of.at(item), known)

    def head(self, *place: int) -> "AttentionWeights":
        """The weights of one head of one batch item, (1, queries, keys), as lazy as these.

        Whatever is asked of them costs that head alone, their logsumexp included where it is not
        known yet.

        Args:
            place: a number for each batch dimension, and the head's; negative ones count from the
                end.

        Raises:
            OutOfRangeError: other than one number a dimension, or one past the end.
            TypeMismatchError: a number is no int.
        """
        heads = self._of.shape[1]
        item, head = divmod(_flat_place("one head", place, self.shape[:-2]), heads)
        of, some = self._of.at(item), slice(head, head + 1)
        scores = replace(
            of,
            query=of.query[:, some],
            key=of.of_heads(of.key, some),
            bias=None if of.bias is None else of.bias[:, some],
            mask=None if of.mask is None else of.mask.of_heads(some),
            sinks=None if of.sinks is None else of.sinks[some],
        )
        known = None if self._logsumexp is None else self._logsumexp[item : item + 1, some]
        return self._with(scores, known)

    def one(self, *place: int) -> "AttentionWeights":
        """The old name of `head`."""
        warn_deprecated("AttentionWeights.one", "AttentionWeights.head")
        return self.head(*place)

    def sample(self, queries: Sequence[int] | Tensor) -> Tensor:
        """The rows of some queries, (..., heads, chosen queries, keys), wherever they stand.

        As `weights[..., queries, :]`, but where the logsumexp is not known yet each row finds its
        own, so that a few rows cost those rows however far apart they are.

        Args:
            queries: positions, (chosen,); negative ones count from the last query.

        Raises:
            OutOfRangeError, TypeMismatchError: a position past the end, or that is no int.
        """
        places = indexing.as_positions("queries", queries)
        if self.is_known:
            return self[..., places, :]
        scores = self.masked[..., places, :]
        total = self._with_sinks(scores.logsumexp(-1))
        return torch.exp(scores - finite(total).unsqueeze(-1))

    def _knowing(self, queries: slice) -> tuple["AttentionWeights", int]:
        """Weights in which these queries' logsumexp costs least, and their first query here.

        Who asks for a few rows again and again pays at most for one pass more than all at once.
        """
        count, size = queries.stop - queries.start, self._of.shape[2]
        if self.is_known or count < 1 or (self._rows_found + count) * FEW_ROWS > size:
            return self, 0
        self._rows_found += count
        return self.rows(queries), queries.start

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly that part, a tensor; costs no more than the part.

        Where the logsumexp is not known yet, few rows that lie together find their own; more than
        an eighth of all rows, asked for at once or over time, find that of all, which is kept.

        Args:
            index: ints, slices with a step above 0, `...`, None, integer tensors and bool tensors,
                as in torch.

        Raises:
            OutOfRangeError, TypeMismatchError: an index past the end, or of another kind.
        """
        return self._select(indexing.parse(index, self.shape, self.device))

    def _select_transposed(self, index: Any) -> Tensor:
        *outer, queries, keys = self.shape
        parsed = indexing.parse(index, (*outer, keys, queries), self.device)
        return self._select(indexing.transposed(parsed))

    def _select(self, parsed: indexing.Parsed) -> Tensor:
        part, first = self._knowing(indexing.hull(parsed.axes[-2]))
        parsed = indexing.counted_from(first, parsed)
        return indexing.select(part._of, part._flat_logsumexp, self._name, parsed)

    @property
    def T(self) -> "Transposed":  # noqa: N802
        """The transpose, (..., heads, keys, queries), as lazy as this."""
        return Transposed(self)

    mT = T  # noqa: N815

    def __matmul__(self, x: Tensor) -> Tensor:
        """weights @ x, one fused pass.

        Args:
            x: (keys,), or (..., heads or kv_heads or 1, keys, m), as for torch.matmul.

        Returns:
            (..., heads, queries, m), in the dtype of the weights.
        """
        if not isinstance(x, Tensor):
            return NotImplemented
        operand = self._operand("weights @ x", x, self._of.shape[3])
        exact = self._exact
        run = backends.choose(
            "auto" if self._backend == "sdpa" else self._backend, exact, operand, 0.0
        )
        product, logsumexp = run.forward(exact, operand, 0.0)
        if self._of.sinks is not None:
            product = self.share_with_sinks(product, logsumexp)
        return self._outer(product).squeeze(-1) if x.ndim == 1 else self._outer(product)

    def __rmatmul__(self, x: Tensor) -> Tensor:
        """x @ weights, streamed.

        Args:
            x: (queries,), or (..., heads or 1, m, queries).

        Returns:
            (..., heads, m, keys), in the dtype of the weights.
        """
        if not isinstance(x, Tensor):
            return NotImplemented
        product = self.T @ (x if x.ndim == 1 else x.mT)
        return product if x.ndim == 1 else product.mT

    def received(self, queries: slice | Sequence[int] | Tensor | None = None) -> Tensor:
        """Attention that each key gets: the sum of its column, (..., heads, keys).

        Args:
            queries: the queries to count, a slice or a set of positions; all unless given. Few
                that lie together cost what they alone cost.
        """
        ranges = None if queries is None else self._ranges(queries)
        if ranges:
            part, first = self._knowing(slice(ranges[0][0], ranges[-1][1]))
            if part is not self:
                return part.received(intervals.positions(ranges, torch.device("cpu")) - first)
        if ranges is not None and len(ranges) > MOST_RANGES:
            chosen = torch.zeros(self._of.shape[2], dtype=self.dtype, device=self.device)
            chosen[intervals.positions(ranges, self.device)] = 1
            return chosen @ self
        found = self._statistics(frozenset({"received"}), queries=ranges)
        return self._outer(found["received"])

    def entropy(self) -> Tensor:
        """How widely each query looks: -sum(w ln w) over the keys, nats, (..., heads, queries)."""
        return self._outer(self._statistics(frozenset({"entropy"}))["entropy"])

    def visible(self) -> Tensor:
        """How many keys each query may see, as far as the mask tells: int64, like logsumexp."""
        of = self._of
        batch, heads, queries, keys = of.shape
        count = torch.zeros(batch, heads, queries, dtype=torch.int64, device=self.device)
        if of.mask is None:
            return self._outer(count + keys)
        for block in of.blocks():
            assert block.mask is not None
            place = count[block.items, block.heads, block.rows]
            place += intervals.length(block.cols) - intervals.length(block.masked)
            for cols in block.masked:
                seen = block.mask.tile(block.heads, block.rows, slice(*cols), self.device)
                place += seen.sum(-1)
        return self._outer(count)

    def work(self, queries: slice = slice(None)) -> int:
        """Weights that a pass over some queries of one head computes, of the first batch item: all
        that no mask hides, and little more.
        """
        start, stop, _ = queries.indices(self._of.shape[2])
        return block_pooling.work(self._of.at(0), slice(start, stop))

    def top(self, k: int, factors: Tensor | None = None) -> Top:
        """Each query's k strongest keys, strongest first, each (..., heads, queries, k).

        Where fewer keys than k have any weight, the others are index -1 with weight 0.

        Args:
            k: how many.
            factors: (..., heads, keys), at least 0: what each key's weights are multiplied with
                before they are compared; values are then these products.

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
            raised = factors.log().reshape(-1, *factors.shape[-2:]).unsqueeze(-2)
            raised = raised.expand(scores.shape)
            bias = raised if scores.bias is None else scores.bias + raised
            scores = replace(scores, bias=bias)
        found = block_statistics.statistics(scores, self._flat_logsumexp, frozenset(), k)
        return Top(self._outer(found["values"]), self._outer(found["indices"]))

    def sum(
        self,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        limit: int | None = DENSE_LIMIT,
    ) -> Tensor:
        """The sum over some axes; as that of a tensor, in the dtype of the weights.

        Over keys or queries it is one pass in memory that grows with n: a row's sum is one, less
        what sinks take, and a column's is `received()`. Over heads or items alone the answer is
        itself n x n, and no more than it is held.

        Args:
            dim: one axis or several; all unless given.
            keepdim: whether what is summed over stays, with size 1.
            limit: bytes that the answer may take; None = no limit.

        Raises:
            OutOfRangeError, ArgumentError, TypeMismatchError: there is no such axis, it comes twice
                or is no int.
            TooLargeError: the answer would take more than the limit, and how much.
        """
        return reductions.total(self, dim, keepdim, limit)

    def mean(
        self,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        limit: int | None = DENSE_LIMIT,
    ) -> Tensor:
        """The mean over some axes; arguments, cost and errors as of `sum`."""
        count = math.prod(self.shape[axis] for axis in reductions.axes_of(dim, self.ndim))
        return self.sum(dim, keepdim, limit) / count

    @overload
    def max(
        self, dim: None = None, keepdim: bool = False, limit: int | None = DENSE_LIMIT
    ) -> Tensor: ...

    @overload
    def max(
        self, dim: int, keepdim: bool = False, limit: int | None = DENSE_LIMIT
    ) -> reductions.Largest: ...

    def max(
        self, dim: int | None = None, keepdim: bool = False, limit: int | None = DENSE_LIMIT
    ) -> Tensor | reductions.Largest:
        """The largest weight, or along one axis the largest and where they stand.

        Cost as of `sum`. Where several are alike, the index is that of any of them.

        Args:
            dim: the axis; without one, the largest of all, a single number.
            keepdim, limit: as of `sum`.

        Returns:
            A tensor; with dim (values, indices int64), as that of a tensor.

        Raises:
            OutOfRangeError, TypeMismatchError, TooLargeError: as of `sum`.
        """
        if dim is None:
            return self.top(1).values.amax()
        return reductions.largest(self, dim, keepdim, limit)

    def statistics(self, top: int = 8) -> Statistics:
        """Received, entropy, the strongest keys, peak and mean distance, together in one pass.

        Args:
            top: strongest keys a query; where there are fewer keys, all of them.
        """
        top = self._checked_top(min(_whole("top", top), self._of.shape[3]))
        found = self._statistics(frozenset({"received", "entropy", "distance"}), top)
        outer = {name: self._outer(value) for name, value in found.items()}
        return Statistics(
            received=outer["received"],
            entropy=outer["entropy"],
            top=Top(outer["values"], outer["indices"]),
            peak=outer["values"][..., 0],
            mean_distance=outer["distance"],
        )

    def pool(
        self,
        rows: int,
        cols: int,
        reduce: Literal["mean", "max"] = "mean",
        region: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """A picture of any rectangle, (..., heads, rows, cols), in the time of that rectangle.

        Args:
            rows, cols: cells of the picture, at most one a query or key of the region. The cells'
                sizes differ by one at most, the larger ones first.
            reduce: what a cell shows, the "mean" or the "max" of its weights.
            region: queries and keys, two slices with step 1; everything unless given.

        Raises:
            ArgumentError: rows or cols below 1, an empty region, or another reduce.
        """
        if reduce not in ("mean", "max"):
            raise ArgumentError(f"reduce must be 'mean' or 'max', got {reduce!r}")
        if _whole("rows", rows) < 1 or _whole("cols", cols) < 1:
            raise ArgumentError(f"rows and cols must be at least 1, got {rows} and {cols}")
        spans = self._region((slice(None), slice(None)) if region is None else region)
        rows, cols = (min(n, s.stop - s.start) for n, s in zip((rows, cols), spans, strict=True))
        knowing, first = self._knowing(spans[0])
        chosen = slice(spans[0].start - first, spans[0].stop - first), spans[1]
        lse = knowing._flat_logsumexp
        return self._outer(block_statistics.pool(knowing._of, lse, rows, cols, reduce, *chosen))

    def cells(
        self,
        size: tuple[int, int],
        region: tuple[slice | Sequence[int] | Tensor, slice] | None = None,
        logsumexp: Tensor | None = None,
    ) -> Cells:
        """Sums and maxima of any rectangle in cells of one size, and the logsumexp of its rows.

        The logsumexp is found in the same pass, not before it, from whole rows; where it is given
        no key outside is looked at. For pictures: without gradients.

        Args:
            size: queries and keys of a cell; those at the far edges are perhaps cut.
            region: queries and keys, two slices with step 1; the queries may be ascending
                positions, (rows,), wherever they stand. Everything unless given.
            logsumexp: (..., heads, rows) of those queries, where it is there already.

        Raises:
            ArgumentError: a size below 1, or an empty region.
            TypeMismatchError, OutOfRangeError: what is no region, or is outside.
        """
        if any(_whole("size", one) < 1 for one in size):
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
            found = block_pooling.cells(self._of, rows, cols, size, logsumexp)
            return Cells(*map(self._outer, found))

    def _region(self, region: tuple[slice, slice]) -> tuple[slice, slice]:
        """Two slices with both ends."""
        if not (
            isinstance(region, tuple)
            and len(region) == 2
            and all(isinstance(part, slice) for part in region)
        ):
            raise TypeMismatchError(f"region must be two slices, queries and keys; got {region!r}")
        spans = []
        for name, part, size in zip(("queries", "keys"), region, self.shape[-2:], strict=True):
            start, stop, step = part.indices(size)
            if step != 1 or stop <= start:
                raise ArgumentError(
                    f"region needs a slice of {name} with step 1 that holds any, got {part}"
                )
            spans.append(slice(start, stop))
        return spans[0], spans[1]

    def _statistics(
        self,
        want: frozenset[block_statistics.Statistic],
        top: int = 0,
        queries: Intervals | None = None,
    ) -> dict[str, Tensor]:
        return block_statistics.statistics(self._of, self._flat_logsumexp, want, top, queries)

    def _checked_top(self, k: int) -> int:
        keys = self._of.shape[3]
        if _whole("top", k) < 1 or k > keys:
            raise ArgumentError(f"top must be from 1 to the number of keys, {keys}; got {k}")
        return k

    def _ranges(self, queries: slice | Sequence[int] | Tensor) -> Intervals:
        size = self._of.shape[2]
        chosen = torch.zeros(size, dtype=torch.bool)
        if isinstance(queries, slice):
            chosen[queries] = True
        else:
            positions = indexing.as_positions("queries", queries)
            if (
                positions.numel()
                and not -size <= int(positions.min()) <= int(positions.max()) < size
            ):
                raise OutOfRangeError(f"queries must be from {-size} to {size - 1}, got {queries}")
            chosen[positions] = True
        return intervals.runs(chosen)

    def _operand(self, name: str, x: Tensor, length: int) -> Tensor:
        """The other side of a product, as (batch, heads or kv_heads, length, m)."""
        if x.ndim == 0:
            raise ShapeError(f"{name} needs x with {length} rows, got a single number")
        if not x.is_floating_point() or x.device != self.device:
            raise TypeMismatchError(
                f"{name} needs a float x on {self.device}, got {x.dtype} on {x.device}"
            )
        columns = x.unsqueeze(-1) if x.ndim == 1 else x
        heads, kv_heads = self._of.query.shape[1], self._of.key.shape[1]
        if columns.shape[-2] != length:
            raise ShapeError(f"{name} needs x with {length} rows, got x of shape {tuple(x.shape)}")
        grouped = columns.ndim > 2 and columns.shape[-3] == kv_heads
        wanted = (*self._of.batch_shape, kv_heads if grouped else heads, *columns.shape[-2:])
        try:
            return columns.to(self.dtype).expand(wanted).reshape(-1, *wanted[-3:])
        except RuntimeError:
            raise ShapeError(
                f"{name} needs x that broadcasts to {wanted}, got x of shape {tuple(x.shape)}"
            ) from None

    def _outer(self, tensor: Tensor) -> Tensor:
        """(batch, ...) with the batch dimensions as the user gave them."""
        return tensor.reshape(*self._of.batch_shape, *tensor.shape[1:])


class Transposed(LazyMatrix):
    """`weights.T`: keys look back at the queries, (..., heads, keys, queries)."""

    def __init__(self, weights: AttentionWeights) -> None:
        super().__init__(weights._of, "weights.T")
        self.T = self.mT = weights

    @property
    def shape(self) -> torch.Size:
        *outer, queries, keys = self.T.shape
        return torch.Size((*outer, keys, queries))

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly that part, a tensor; index, cost and errors as of the weights."""
        return self.T._select_transposed(index)

    def bytes_held(self) -> int:
        return self.T.bytes_held()

    def to(self, *to: Any, device: Any = None, dtype: torch.dtype | None = None) -> "Transposed":
        return self.T.to(*to, device=device, dtype=dtype).T

    def detach(self) -> "Transposed":
        return self.T.detach().T

    def __matmul__(self, x: Tensor) -> Tensor:
        """weights.T @ x, streamed: x (queries,) or (..., heads or 1, queries, m)."""
        if not isinstance(x, Tensor):
            return NotImplemented
        weights = self.T
        operand = weights._operand("weights.T @ x", x, self.shape[-1])
        of = weights._of
        if operand.shape[1] != of.query.shape[1]:
            operand = operand.repeat_interleave(of.group, 1)
        product = weights._outer(
            block_statistics.transposed_product(of, weights._flat_logsumexp, operand)
        )
        return product.squeeze(-1) if x.ndim == 1 else product

    def __rmatmul__(self, x: Tensor) -> Tensor:
        """x @ weights.T, as (weights @ x.T).T."""
        product = self.T @ (x if x.ndim == 1 else x.mT)
        return product if x.ndim == 1 else product.mT

    def __repr__(self) -> str:
        return f"{self.T!r}.T"


def _whole(name: str, number: int) -> int:
    if type(number) is not int:
        raise TypeMismatchError(f"{name} must be an int, got {number!r}")
    return number


def _flat_place(what: str, place: tuple[int, ...], sizes: Sequence[int]) -> int:
    """The number of a place where these sizes are flattened into one."""
    if len(place) != len(sizes):
        raise OutOfRangeError(
            f"{what} is told by {len(sizes)} numbers, for the shape {tuple(sizes)}; "
            f"got {len(place)}"
        )
    flat = 0
    for axis, (size, one) in enumerate(zip(sizes, place, strict=True)):
        if not isinstance(one, int) or isinstance(one, bool):
            raise TypeMismatchError(f"{what} is told by ints, got {one!r}")
        if not -size <= one < size:
            raise OutOfRangeError(f"{one} is out of range for axis {axis} with size {size}")
        flat = flat * size + one % size
    return flat
