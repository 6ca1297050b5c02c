"""Weights that are computed, not stored: exp(score - logsumexp). Their inputs, their logsumexp,
their parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from pellucid.attention import backends, indexing
from pellucid.attention.backends.blockwise import finite
from pellucid.attention.energies import Energy
from pellucid.attention.lazy_matrix import LazyMatrix
from pellucid.attention.masks import Mask
from pellucid.attention.masks.rules import mask_of_rows, with_offset
from pellucid.attention.scores import Scores
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError, warn_deprecated

FEW_ROWS = 8
"""Below 1/FEW_ROWS of all rows, only their own logsumexp is computed; above, that of every row."""


class LazyWeights(LazyMatrix):
    """The weights' inputs, their logsumexp, their index and their lazy parts."""

    def __init__(
        self,
        scores: Scores,
        backend: str = "auto",
        logsumexp: Tensor | None = None,
        kernel: str | None = None,
    ) -> None:
        """Made by `attention` and `attention_weights`; logsumexp is that of the keys alone."""
        super().__init__(scores, "weights")
        self._backend = backend
        self._has_graph = torch.is_grad_enabled()
        self._rows_computed = 0
        self._kernel = kernel
        self._logsumexp = None if logsumexp is None else self._with_sinks(logsumexp)
        self.collected: dict[str, Tensor] = {}
        """The statistics that `attention(..., collect=...)` was asked for, by name."""

    def _with_sinks(self, logsumexp: Tensor) -> Tensor:
        if self._of.sinks is None:
            return logsumexp
        sinks = self._of.sinks.to(logsumexp.dtype).unsqueeze(-1).expand_as(logsumexp)
        # Where both are -inf the gradient of logaddexp would be NaN.
        hidden = (logsumexp == -torch.inf) & (sinks == -torch.inf)
        logsumexp, sinks = (x.masked_fill(hidden, 0) for x in (logsumexp, sinks))
        return torch.logaddexp(logsumexp, sinks).masked_fill(hidden, -torch.inf)

    @property
    def operands(self) -> Scores:
        """All that the weights are computed from, batch dimensions flattened into one.

        For work on blocks: `operands.blocks()` covers what the mask shows, and
        `operands.of_block(block)` gives the masked scores there.
        """
        return self._of

    @property
    def query(self) -> Tensor:
        """(..., heads, queries, key_dim), as the energy compares it.

        Raises:
            ArgumentError: the weights were given as they are, without query and key.
        """
        return self._outer(self._of.query)

    @property
    def key(self) -> Tensor:
        """(..., kv_heads, keys, key_dim), as the energy compares it; errors as for `query`."""
        return self._outer(self._of.key)

    @property
    def kv_heads(self) -> int:
        """Key heads; heads // kv_heads query heads share each."""
        return self._of.key.shape[1]

    @property
    def mask(self) -> Mask | None:
        """Which query may see which key, for these sizes; None where each sees all."""
        return self._of.mask

    @property
    def bias(self) -> Tensor | None:
        """(..., heads, queries, keys), expanded; None without a bias."""
        return None if self._of.bias is None else self._outer(self._of.bias)

    @property
    def scale(self) -> float:
        """The factor on the scores."""
        return self._of.scale

    @property
    def softcap(self) -> float | None:
        """The bound of the capped scores; None without one."""
        return self._of.softcap

    @property
    def sinks(self) -> Tensor | None:
        """(heads,) one extra logit per head; None without sinks."""
        return self._of.sinks

    @property
    def energy(self) -> Energy:
        """The function from a query and a key to their score."""
        return self._of.energy

    def share_with_sinks(self, context: Tensor, logsumexp: Tensor) -> Tensor:
        """A context computed without the sinks, less the share that they take."""
        share = torch.exp(logsumexp - finite(self._with_sinks(logsumexp)))
        return context * share.unsqueeze(-1).to(context.dtype)

    def set_logsumexp(self, logsumexp: Tensor) -> None:
        """Take a logsumexp that was computed elsewhere, (..., heads, queries), sinks included.

        It is a constant: where autograd is on, it is computed again.
        """
        self._logsumexp = logsumexp.reshape(self._of.shape[:3])
        self._has_graph, self._kernel = False, None

    @property
    def is_known(self) -> bool:
        """Whether the logsumexp is known, so that a weight costs nothing but itself.

        Not where it is a constant and autograd, which is on, needs its gradient.
        """
        lost = torch.is_grad_enabled() and not self._has_graph and self._of.requires_grad
        return self._logsumexp is not None and not lost

    @property
    def _flat_logsumexp(self) -> Tensor:
        if self._logsumexp is None or not self.is_known:
            self._has_graph = torch.is_grad_enabled()
            exact = self._of if self._kernels_sum_exactly else self._exact
            backend = backends.choose(self._backend, exact, exact.key, 0.0)
            _, logsumexp, self._kernel = backend.forward(exact, exact.key, 0.0)
            self._logsumexp = self._with_sinks(logsumexp)
        return self._logsumexp

    @property
    def _kernels_sum_exactly(self) -> bool:
        """Whether the logsumexp is as exact from 16 bits as they are: CUDA kernels add products in
        float32, but take a bias, and give gradients, in the dtype of their inputs.
        """
        differentiable = torch.is_grad_enabled() and self._of.requires_grad
        return self.device.type == "cuda" and self._of.bias is None and not differentiable

    @property
    def _exact(self) -> Scores:
        """The scores in the dtype of the weights: kernels compute in that of their inputs."""
        query, key = (x.to(self.dtype) for x in (self._of.query, self._of.key))
        return replace(self._of, query=query, key=key)

    @property
    def logsumexp(self) -> Tensor:
        """(..., heads, queries): log of the sum of exp over the masked scores and any sinks.

        As the kernel returns it: in bfloat16 and float16 on the CPU to 2**-14, elsewhere to the
        rounding of its dtype.
        """
        return self._outer(self._flat_logsumexp)

    @property
    def kernel(self) -> str | None:
        """What computed the logsumexp, and the context with it: "compiled", a kernel of our own;
        "cpu flash", "flash", "cudnn" or "efficient", PyTorch's fused kernels; "blockwise" or
        "reference". Joined by "and" where a mask took several; None where the logsumexp is not
        known yet or came from elsewhere.
        """
        return self._kernel

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
        """capped + bias, -inf where the mask hides a key: the input of the softmax."""
        return LazyMatrix(self._of, "masked")

    def _with(self, scores: Scores, logsumexp: Tensor | None = None) -> Self:
        """The weights of other operands; logsumexp is (batch, heads, queries), sinks included."""
        weights = type(self)(scores, self._backend)
        if logsumexp is not None:
            weights._logsumexp, weights._has_graph = logsumexp, self._has_graph
            weights._kernel = self._kernel
        return weights

    def _part(self, scores: Scores, index: Any) -> Self:
        """The weights of a part, of which the index selects the logsumexp."""
        return self._with(scores, None if self._logsumexp is None else self._logsumexp[index])

    def _changed(self, scores: Scores, change: Callable[[Tensor], Tensor] | None) -> Self:
        if change is None or self._logsumexp is None:
            return self._with(scores)
        return self._with(scores, change(self._logsumexp))

    def bytes_held(self) -> int:
        """Bytes of memory that it keeps alive: those of its inputs and of the logsumexp."""
        return super().bytes_held() + (0 if self._logsumexp is None else self._logsumexp.nbytes)

    def placed(self, offset: int) -> Self:
        """The same weights, with query 0 at a key position, from which distances count.

        Nothing more is hidden.

        Args:
            offset: the key position of query 0.
        """
        mask = with_offset(self._of.mask, as_int("offset", offset))
        return self._part(replace(self._of, mask=mask), ...)

    def rows(self, queries: slice) -> Self:
        """The weights of some queries alone, (..., heads, chosen queries, keys), as lazy as these.

        They cost those queries alone, their logsumexp included where it is not known yet. Distances
        count from the queries' positions here.

        Args:
            queries: a slice with step 1 that is not empty; negative ends count from the last query.

        Raises:
            ArgumentError: the slice is empty or has another step.
            TypeMismatchError: it is not a slice.
        """
        if not isinstance(queries, slice):
            raise TypeMismatchError(f"queries must be a slice, got {queries!r}")
        rows = nonempty("queries", queries, self._of.shape[2])
        query, bias = self._of.query[:, :, rows], self._of.bias
        bias = None if bias is None else bias[:, :, rows]
        mask = mask_of_rows(self._of.mask, rows)
        return self._part(replace(self._of, query=query, bias=bias, mask=mask), (..., rows))

    def batch_item(self, *place: int) -> Self:
        """The weights of one batch item, (heads, queries, keys), as lazy as these.

        Args:
            place: one index per batch dimension; negative ones count from the end.

        Raises:
            OutOfRangeError: another count of indices, or one past the end.
            TypeMismatchError: an index is not an int.
        """
        item = _flat_index("batch_item", place, self._of.batch_shape)
        return self._part(self._of.at(item), slice(item, item + 1))

    def head(self, *place: int) -> Self:
        """The weights of one head of one batch item, (1, queries, keys), as lazy as these.

        They cost that head alone, its logsumexp included where it is not known yet.

        Args:
            place: one index per batch dimension, then that of the head; negative ones count from
                the end.

        Raises:
            OutOfRangeError: another count of indices, or one past the end.
            TypeMismatchError: an index is not an int.
        """
        flat = _flat_index("head", place, self.shape[:-2])
        item, head = divmod(flat, self._of.shape[1])
        of, heads = self._of.at(item), slice(head, head + 1)
        scores = replace(
            of,
            query=of.query[:, heads],
            key=of.of_heads(of.key, heads),
            bias=None if of.bias is None else of.bias[:, heads],
            mask=None if of.mask is None else of.mask.of_heads(heads),
            sinks=None if of.sinks is None else of.sinks[heads],
        )
        return self._part(scores, (slice(item, item + 1), heads))

    def one(self, *place: int) -> Self:
        """The old name of `head`."""
        warn_deprecated("AttentionWeights.one", "AttentionWeights.head")
        return self.head(*place)

    def know(self, logsumexp: Tensor) -> None:
        """The old name of `set_logsumexp`."""
        warn_deprecated("AttentionWeights.know", "AttentionWeights.set_logsumexp")
        self.set_logsumexp(logsumexp)

    def sample(self, queries: Sequence[int] | Tensor) -> Tensor:
        """The rows of any queries, (..., heads, chosen queries, keys).

        As `weights[..., queries, :]`, but where the logsumexp is not known yet each row computes
        its own, so that a few rows cost those rows however far apart they are.

        Args:
            queries: positions, (chosen,); negative ones count from the last query.

        Raises:
            OutOfRangeError, TypeMismatchError: a position past the end, or that is not an int.
        """
        positions = indexing.as_positions("queries", queries)
        if self.is_known:
            return self[..., positions, :]
        scores = self.masked[..., positions, :]
        logsumexp = self._with_sinks(scores.logsumexp(-1))
        return torch.exp(scores - finite(logsumexp).unsqueeze(-1))

    def _for_rows(self, queries: slice) -> tuple[Self, int]:
        """Weights in which these queries' logsumexp costs least, and their first query here.

        Repeated requests for a few rows cost at most one pass more than all rows at once.
        """
        count, size = queries.stop - queries.start, self._of.shape[2]
        if self.is_known or count < 1 or (self._rows_computed + count) * FEW_ROWS > size:
            return self, 0
        self._rows_computed += count
        return self.rows(queries), queries.start

    def __getitem__(self, index: Any) -> Tensor:
        """Exactly that part, a tensor; costs no more than the part.

        Where the logsumexp is not known yet, a few neighbouring rows compute their own. More than
        an eighth of all rows, asked for at once or over time, compute that of every row, which is
        kept. Index and errors as for any `LazyMatrix`.
        """
        return self._select(indexing.parse(index, self.shape, self.device))

    def _select_transposed(self, index: Any) -> Tensor:
        *outer, queries, keys = self.shape
        parsed = indexing.parse(index, (*outer, keys, queries), self.device)
        return self._select(indexing.transposed(parsed))

    def _select(self, parsed: indexing.Parsed) -> Tensor:
        weights, first = self._for_rows(indexing.hull(parsed.axes[-2]))
        parsed = indexing.counted_from(first, parsed)
        return indexing.select(weights._of, weights._flat_logsumexp, self._name, parsed)

    def _outer(self, tensor: Tensor) -> Tensor:
        """(batch, ...) with the batch dimensions as the user gave them."""
        return tensor.reshape(*self._of.batch_shape, *tensor.shape[1:])


def as_int(name: str, number: int) -> int:
    """The number itself; raises TypeMismatchError if it is not an int."""
    if type(number) is not int:
        raise TypeMismatchError(f"{name} must be an int, got {number!r}")
    return number


def nonempty(name: str, part: slice, size: int) -> slice:
    """A slice with both ends from 0 to size; raises ArgumentError if it is empty or has a step."""
    start, stop, step = part.indices(size)
    if step != 1 or stop <= start:
        raise ArgumentError(
            f"{name} must be a slice with step 1 that is not empty, of {size}; got {part}"
        )
    return slice(start, stop)


def _flat_index(method: str, place: tuple[int, ...], sizes: Sequence[int]) -> int:
    """The index along these dimensions flattened into one."""
    if len(place) != len(sizes):
        raise OutOfRangeError(
            f"{method}() takes {len(sizes)} indices, for the shape {tuple(sizes)}; got {len(place)}"
        )
    flat = 0
    for axis, (size, index) in enumerate(zip(sizes, place, strict=True)):
        if not isinstance(index, int) or isinstance(index, bool):
            raise TypeMismatchError(f"{method}() takes ints, got {index!r}")
        if not -size <= index < size:
            raise OutOfRangeError(f"{index} is out of range for axis {axis} with size {size}")
        flat = flat * size + index % size
    return flat
