"""What is kept of one attention: query, key and the rule that makes weights of them.

Or, where a model has made weights that no such rule gives, the weights themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.attention import AttentionWeights, attention_weights, given_weights
from pellucid.attention.masks import Mask
from pellucid.attention.scores import unexpanded
from pellucid.errors import ArgumentError
from pellucid.lens.visibility import Visibility, tensors


@dataclass(frozen=True, eq=False)
class Lazy:
    """A tensor that is made when somebody asks."""

    shape: tuple[int, ...]
    device: torch.device
    make: Callable[[], Tensor]


Part = Tensor | Lazy
SMALLEST = 1e-30
"""Added where what may be 0 is divided by."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where tensors are kept, and in what: the one way from a model's memory into a record."""

    device: torch.device | None = None
    dtype: torch.dtype | None = None

    def keep(self, tensor: Tensor, is_lasting: bool = False) -> Tensor:
        """The tensor itself where whoever writes to it is noticed (see `Pieces`), else a copy.

        Memory that was written to before, such as a static cache or a buffer that is used again,
        will be written to again; and in inference mode nobody counts what is written.

        Args:
            tensor: what is to be kept.
            is_lasting: whether its memory outlives the pass, so that it may be written to through
                `data`, which nobody counts either.
        """
        if self.device is not None or self.dtype is not None:
            dtype = self.dtype if tensor.is_floating_point() else None
            return tensor.to(device=self.device, dtype=dtype, copy=True)
        is_safe = not (is_lasting or tensor.is_inference() or tensor._version)
        return tensor if is_safe else tensor.clone()

    def pieces(self, part: Part, axis: int = -2, is_lasting: bool = False) -> "Pieces":
        if isinstance(part, Lazy) and self.device is None and self.dtype is None:
            return Pieces(part, axis)
        return Pieces(self.keep(Pieces(part).tensor, is_lasting), axis)


class Pieces:
    """A tensor that grows along one axis. What is added is referred to, and joined when asked.

    Whoever changes in place what was added here meets an error, and no wrong numbers.
    """

    def __init__(self, part: Part, axis: int = -2) -> None:
        self._parts: list[Part] = [part]
        self._versions = [version_of(part)]
        self._axis = axis
        self._orders: list[tuple[int, Tensor]] = []
        self._shape = part.shape
        self.length = self._shape[axis]
        self._holding = 0
        """How many of the orders hold."""

    def append(self, part: Tensor) -> None:
        self._parts.append(part)
        self._versions.append(version_of(part))
        self.length += part.shape[self._axis]
        self.go_on()

    def go_on(self) -> None:
        """What was added so far is read again, in its latest order."""
        if self._holding < len(self._orders):
            self._holding = len(self._orders)
            self._shape = torch.Size((len(self._orders[-1][1]), *self._shape[1:]))

    def reorder(self, items: Tensor) -> None:
        """Put what was added so far in another order along the first axis, as beams change theirs.

        It holds from the next piece on, or from when it is read again: after the last step of a
        search nothing goes on from it.
        """
        self._orders.append((len(self._parts), items))

    def cut(self, length: int) -> None:
        """Forget what comes after the first `length`."""
        if length < self.length:  # a copy, so that what is forgotten is freed
            self._keep(self.tensor.narrow(self._axis, 0, length).clone())
            self.length = length

    def to(self, device: torch.device) -> "Pieces":
        """A copy on another device, joined."""
        tensor = self.tensor
        return Pieces(unexpanded(tensor).to(device).expand(tensor.shape), self._axis)

    @property
    def outer(self) -> tuple[int, ...]:
        """The shape before the axis along which it grows."""
        return tuple(self._shape[: self._axis])

    @property
    def is_as_added(self) -> bool:
        """Whether nobody has written to what was added."""
        return self._versions == [version_of(part) for part in self._parts]

    @property
    def tensor(self) -> Tensor:
        if not self.is_as_added:
            raise ArgumentError(
                "what was recorded has been changed in place since, by the model or its user; "
                'watch(model, device="cpu"), or dtype=..., keeps copies'
            )
        made = [part.make() if isinstance(part, Lazy) else part for part in self._parts]
        made = self._ordered(made)
        whole = made[0] if len(made) == 1 else torch.cat(made, self._axis)
        if whole is not self._parts[0]:
            self._keep(whole)
        return whole

    def _ordered(self, parts: list[Tensor]) -> list[Tensor]:
        orders, order = self._orders[: self._holding], None
        if not orders:
            return parts
        found = []
        for place in reversed(range(len(parts))):
            while orders and orders[-1][0] > place:  # x[first][second] is x[first[second]]
                _, earlier = orders.pop()
                order = earlier if order is None else earlier[order]
            part = parts[place]
            if order is not None and (len(part) > 1 or not order.any()):  # one may serve all
                part = part[order.to(part.device)]
            found.append(part)
        return found[::-1]

    def _keep(self, whole: Tensor) -> None:
        self._parts, self._versions = [whole], [version_of(whole)]
        self._orders = [(1, order) for _, order in self._orders[self._holding :]]
        self._holding = 0

    @property
    def dtype(self) -> torch.dtype:
        """That of the first piece."""
        part = self._parts[0]
        return part.dtype if isinstance(part, Tensor) else self.tensor.dtype

    @property
    def held(self) -> list[Tensor]:
        """What is kept now, for counting; what is not made yet is not kept."""
        return [part for part in self._parts if isinstance(part, Tensor)]


@dataclass(frozen=True, slots=True)
class Proof:
    """How a record is known to be what the model used."""

    rows: int
    """Rows that were computed again, each in all heads."""
    of: int
    """Rows that there are, in all items of the batch."""
    error: float = 0.0
    """The largest difference between what they give and what the model got."""
    allowed: float = 0.0
    """What rounding may do there."""
    reason: str = ""
    """Why no row was proven."""

    def joined(self, other: "Proof") -> "Proof":
        """Of two calls that make one record."""
        worst = max(self, other, key=lambda one: (one.error / max(one.allowed, SMALLEST), one.rows))
        rows = self.rows + other.rows
        reason = "" if rows else self.reason or other.reason
        return Proof(rows, self.of + other.of, worst.error, worst.allowed, reason)

    def __str__(self) -> str:
        if not self.rows:
            return f"not proven: {self.reason}"
        return f"{self.rows} of {self.of} rows, to {self.error:.1g} (rounding: {self.allowed:.1g})"


@dataclass(eq=False, kw_only=True)
class Record:
    """The attention of one module: of one call, or of all steps of one generation together.

    Query and key are the model's own tensors, still in its graph, not copies; weights are computed
    from them when they are asked for.
    """

    name: str
    """The qualified name of the module that attends, as in `model.named_modules()`."""
    queries: Pieces
    keys: Pieces
    visibility: Visibility
    kept: Literal["query and key", "weights"] = "query and key"
    """What weights come from. Where it is "weights", the model has made them by itself and no rule
    gives them again: then `queries` holds the rows of them, and there is no query or key."""
    biases: list[Pieces] = field(default_factory=list)
    """A bias for each call, (batch or 1, heads or 1, queries, keys); none, or one a call."""
    scale: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    """(heads,) or None."""
    sink_weights: Pieces | None = None
    """(..., heads, queries), where weights are kept: what a column took that was softmaxed with
    the keys and left out of the record, a sink or a null key whose value is added elsewhere."""
    logsumexps: Pieces | None = None
    """(..., heads, queries), where the model's kernel told; else it is found when first needed."""
    values: Pieces | None = None
    contexts: Pieces | None = None
    query_tokens: Pieces | None = None
    key_tokens: Pieces | None = None
    """The same pieces as `query_tokens` where each query is a key."""
    is_cross: bool = False
    """Whether keys come from another sequence than queries, as from an encoder."""
    latest_queries: int
    """Queries of the latest call: of a generation, the newest tokens."""
    output_weights: Pieces | None = None
    """(model_dim, heads * value_dim), what the context goes through next, where the call shows it:
    that of `nn.MultiheadAttention`."""
    stream: int = 0
    """Which of several texts that take turns in the model, each with a cache of its own: 0 is the
    prompt's, others are those of guidance or of a draft."""
    proof: Proof | None = None
    """How it is known to be what the model used."""
    _weights: AttentionWeights | None = field(default=None, repr=False)

    @property
    def query(self) -> Tensor:
        """(batch, heads, queries, key_dim), after any rotary embedding.

        Raises:
            ArgumentError: the record keeps the weights themselves.
        """
        self._has_query_and_key()
        return self.queries.tensor

    @property
    def key(self) -> Tensor:
        """(batch, kv_heads, keys, key_dim), after any rotary embedding, each key once.

        Raises:
            ArgumentError: the record keeps the weights themselves.
        """
        self._has_query_and_key()
        return self.keys.tensor

    def _has_query_and_key(self) -> None:
        if self.kept == "weights":
            raise ArgumentError(
                f"'{self.name}' keeps the weights that the model has made, and no query and key"
            )

    @property
    def sink_weight(self) -> Tensor | None:
        """(..., heads, queries), what each row of weights lacks to one, where a column was left out
        that was softmaxed with the keys: a sink, or a null key whose value is added elsewhere.
        """
        return None if self.sink_weights is None else self.sink_weights.tensor

    @property
    def value(self) -> Tensor | None:
        """(..., kv_heads, keys, value_dim); kept by `watch(model, values=True)`."""
        return None if self.values is None else self.values.tensor

    @property
    def context(self) -> Tensor | None:
        """(..., heads, queries, value_dim), what the model's attention returned; as `value`."""
        return None if self.contexts is None else self.contexts.tensor

    @property
    def output_weight(self) -> Tensor | None:
        """(model_dim, heads * value_dim), what the context goes through next; None if not shown."""
        return None if self.output_weights is None else self.output_weights.tensor

    @property
    def query_ids(self) -> Tensor | None:
        """(batch, queries) token ids, where they are known."""
        return _whole(self.query_tokens, self.queries.length)

    @property
    def key_ids(self) -> Tensor | None:
        """(batch, keys) token ids, where they are known."""
        return _whole(self.key_tokens, self.keys.length)

    @property
    def shape(self) -> torch.Size:
        """(..., heads, queries, keys), without making anything."""
        return torch.Size((*self.queries.outer, self.queries.length, self.keys.length))

    @property
    def mask(self) -> Mask | None:
        """Which query may see which key; None where every query sees every key."""
        return self.visibility.mask(self.queries.length, self.keys.length)

    @property
    def bias(self) -> Tensor | None:
        """What is added to the scaled scores apart from the mask; None where that is nothing.

        Position bias of a generation comes a step at a time; here the steps stand one below
        another, with zeros for the keys that were not there yet.
        """
        if not self.biases:
            return None
        if len(self.biases) > 1:
            keys = self.keys.length
            rows = [some.tensor for some in self.biases]
            rows = [nn.functional.pad(bias, (0, keys - bias.shape[-1])) for bias in rows]
            self.biases = [Pieces(torch.cat(rows, -2))]
        return self.biases[0].tensor

    @property
    def weights(self) -> AttentionWeights:
        """(..., heads, queries, keys), computed only where asked."""
        if self._weights is None or self._weights.shape != self.shape:
            if self.kept == "weights":
                self._weights = given_weights(self.queries.tensor)
                return self._weights
            query, bias = self.query, self.bias
            uniform = self.visibility.uniform_rows(self.queries.length)
            if uniform is not None:  # equal scores, for a softmax that is uniform
                uniform = uniform[:, None, :, None]
                query = query.masked_fill(uniform, 0)
                bias = None if bias is None else bias.masked_fill(uniform, 0)
            self._weights = attention_weights(
                query,
                self.key,
                self.mask,
                bias=bias,
                scale=self.scale,
                softcap=self.softcap,
                sinks=self.sinks,
            )
            if self.logsumexps is not None:
                self._weights.set_logsumexp(self.logsumexps.tensor)
        return self._weights

    def add(
        self,
        visibility: Visibility,
        query: Tensor,
        key: Tensor | None,
        *,
        value: Tensor | None = None,
        context: Tensor | None = None,
        bias: Pieces | None = None,
        logsumexp: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> None:
        """Another step: its queries and, unless they are the same as before, its keys."""
        self.visibility = visibility
        self.latest_queries = query.shape[-2]
        self._weights = None
        self.queries.append(query)
        if key is not None:
            self.keys.append(key)
            if self.values is not None and value is not None:
                self.values.append(value)
        else:
            for pieces in self._pieces()[1]:
                pieces.go_on()
        if self.contexts is not None and context is not None:
            self.contexts.append(context)
        if bias is not None:
            self.biases.append(bias)
        if logsumexp is None:
            self.logsumexps = None
        elif self.logsumexps is not None:
            self.logsumexps.append(logsumexp)
        if ids is not None:
            if self.query_tokens is not None:
                self.query_tokens.append(ids)
            if key is not None and self.key_tokens not in (None, self.query_tokens):
                self.key_tokens.append(ids)

    def forget(self, count: int, keys_too: bool = True) -> bool:
        """Take back the latest queries and their keys, as a cache that is cropped does.

        False where nothing would be left of them, or what is left had seen what is taken back: then
        the record stays as it is, what the model used.
        """
        if count <= 0:
            return True
        queries = self.queries.length - count
        keys = self.keys.length - (count if keys_too else 0)
        if queries <= 0 or not self.visibility.can_forget(keys):
            return False
        self._weights = None
        bias = self.bias
        self.biases = [] if bias is None else [Pieces(bias[..., :queries, :keys])]
        of_queries, of_keys = self._pieces()
        for pieces in of_queries:
            pieces.cut(queries)
        for pieces in of_keys:
            pieces.cut(keys)
        return True

    def reorder(self, items: Tensor, done: set[int]) -> bool:
        """Put the texts in another order, as beams change theirs.

        Args:
            items: (batch,) which text comes where.
            done: the `id`s of pieces that other records share, and that are in order already.

        Returns:
            False where the texts see different keys, so that no order but their own is right.
        """
        if not self.visibility.is_alike(items):
            return False
        self._weights = None
        of_queries, of_keys = self._pieces()
        for pieces in (*of_queries, *of_keys, *self.biases):
            if id(pieces) not in done:
                done.add(id(pieces))
                pieces.reorder(items)
        return True

    def _pieces(self) -> tuple[list[Pieces], list[Pieces]]:
        """What grows with the queries, and what grows with the keys."""
        of_queries = (
            self.queries,
            self.sink_weights,
            self.logsumexps,
            self.contexts,
            self.query_tokens,
        )
        of_keys = (self.keys, self.values, self.key_tokens)
        return [x for x in of_queries if x is not None], [x for x in of_keys if x is not None]

    def to(self, device: torch.device | str) -> "Record":
        """The same record in the memory of another device."""
        device = torch.device(device)
        moved: dict[str, Any] = {
            field.name: part.to(device)
            for field in fields(self)
            if isinstance(part := getattr(self, field.name), Pieces | Visibility)
        }
        return replace(
            self,
            **moved,
            biases=[bias.to(device) for bias in self.biases],
            sinks=None if self.sinks is None else self.sinks.to(device),
            _weights=None,
        )

    def tensors(self) -> list[Tensor]:
        """Whatever is kept alive."""
        of_queries, of_keys = self._pieces()
        held = [x for pieces in (*of_queries, *of_keys, *self.biases) for x in pieces.held]
        return [*held, *tensors(self.visibility.fixed)]

    @property
    def latest(self) -> AttentionWeights:
        """The weights of the latest call alone: of a generation, what the newest tokens see."""
        return self.weights.rows(slice(-self.latest_queries, None))


def version_of(part: Part) -> int:
    """How often a tensor was written to; those of inference mode do not count it."""
    return 0 if isinstance(part, Lazy) or part.is_inference() else part._version


def _whole(tokens: Pieces | None, length: int) -> Tensor | None:
    return tokens.tensor if tokens is not None and tokens.length == length else None
