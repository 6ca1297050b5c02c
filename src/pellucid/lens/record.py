"""The record of one attention: its query, its key, and the rule that gives the weights.

If no such rule gives the model's weights, the record holds the weights themselves.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.attention import AttentionWeights, attention_weights, given_weights
from pellucid.attention.masks import Mask
from pellucid.errors import ArgumentError
from pellucid.lens.pieces import Pieces
from pellucid.lens.visibility import Visibility, tensors

SMALLEST = 1e-30
"""Added to divisors that may be 0."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Evidence that a record is what the model used."""

    rows: int
    """The number of rows that were recomputed, each in all heads."""
    of: int
    """The number of all rows, in all items of the batch."""
    error: float = 0.0
    """The largest difference between the recomputed rows and the model's."""
    allowed: float = 0.0
    """The difference that rounding allows there."""
    reason: str = ""
    """Why no row was proven."""

    def joined(self, other: "Proof") -> "Proof":
        """The proof of two calls together."""
        worst = max(self, other, key=lambda x: (x.error / max(x.allowed, SMALLEST), x.rows))
        rows = self.rows + other.rows
        reason = "" if rows else self.reason or other.reason
        return Proof(rows, self.of + other.of, worst.error, worst.allowed, reason)

    def __str__(self) -> str:
        if not self.rows:
            return f"not proven: {self.reason}"
        return f"{self.rows} of {self.of} rows, to {self.error:.1g} (rounding: {self.allowed:.1g})"


@dataclass(eq=False, kw_only=True)
class Record:
    """The attention of one module, in one call or in all steps of one generation.

    Query and key are the model's own tensors, in its graph; weights are computed from them lazily.
    """

    name: str
    """The qualified name of the module, as in `model.named_modules()`."""
    queries: Pieces
    keys: Pieces
    visibility: Visibility
    kept: Literal["query and key", "weights"] = "query and key"
    """What the weights are computed from. With "weights", `queries` holds the model's own weights,
    and there is no query and no key."""
    biases: list[Pieces] = field(default_factory=list)
    """(batch or 1, heads or 1, queries, keys) for each call; or empty."""
    scale: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    """(heads,) or None."""
    sink_weights: Pieces | None = None
    """(..., heads, queries): the weights of a column that is not in the record, if the record holds
    weights: a sink, or a null key whose value is added elsewhere."""
    logsumexps: Pieces | None = None
    """(..., heads, queries), if the model's kernel returned it; else it is computed when needed."""
    values: Pieces | None = None
    contexts: Pieces | None = None
    has_edited_outputs: bool = False
    """Whether an intervention changed contexts after the weights had met the values."""
    query_tokens: Pieces | None = None
    key_tokens: Pieces | None = None
    """The same object as `query_tokens` if each query is a key."""
    is_cross: bool = False
    """Whether the keys belong to another sequence than the queries, such as an encoder's."""
    latest_queries: int
    """The number of queries of the latest call: in a generation, of the newest tokens."""
    output_weights: Pieces | None = None
    """(model_dim, heads * value_dim): the output projection, if it is part of the call, as in
    `nn.MultiheadAttention`."""
    stream: int = 0
    """Which of several texts that take turns in the model, each with its own cache: 0 is the
    prompt, others belong to guidance or a draft."""
    proof: Proof | None = None
    """Evidence that the record is what the model used."""
    _weights: AttentionWeights | None = field(default=None, repr=False)

    @property
    def query(self) -> Tensor:
        """(batch, heads, queries, key_dim), after any rotary embedding.

        Raises:
            ArgumentError: the record holds the weights instead.
        """
        self._has_query_and_key()
        return self.queries.tensor

    @property
    def key(self) -> Tensor:
        """(batch, kv_heads, keys, key_dim), after any rotary embedding, each key once.

        Raises:
            ArgumentError: the record holds the weights instead.
        """
        self._has_query_and_key()
        return self.keys.tensor

    def _has_query_and_key(self) -> None:
        if self.kept == "weights":
            raise ArgumentError(
                f"the record of '{self.name}' keeps the weights, and has no query and key"
            )

    @property
    def sink_weight(self) -> Tensor | None:
        """(..., heads, queries): the weight of a column that is not in the record, if the record
        holds weights: a sink, or a null key whose value is added elsewhere.
        """
        return None if self.sink_weights is None else self.sink_weights.tensor

    @property
    def value(self) -> Tensor | None:
        """(..., kv_heads, keys, value_dim), if recorded with `watch(model, values=True)`."""
        return None if self.values is None else self.values.tensor

    @property
    def context(self) -> Tensor | None:
        """(..., heads, queries, value_dim), the attention's result; recorded like `value`."""
        return None if self.contexts is None else self.contexts.tensor

    @property
    def output_weight(self) -> Tensor | None:
        """(model_dim, heads * value_dim): the output projection, if it is part of the call."""
        return None if self.output_weights is None else self.output_weights.tensor

    @property
    def query_ids(self) -> Tensor | None:
        """(batch, queries) token ids, if they are known."""
        return _whole(self.query_tokens, self.queries.length)

    @property
    def key_ids(self) -> Tensor | None:
        """(batch, keys) token ids, if they are known."""
        return _whole(self.key_tokens, self.keys.length)

    @property
    def shape(self) -> torch.Size:
        """(..., heads, queries, keys)"""
        return torch.Size((*self.queries.outer, self.queries.length, self.keys.length))

    @property
    def mask(self) -> Mask | None:
        """Which query sees which key; None if every query sees every key."""
        return self.visibility.mask(self.queries.length, self.keys.length)

    @property
    def bias(self) -> Tensor | None:
        """What is added to the scaled scores besides the mask; None if nothing is.

        For a generation, the biases of its steps are joined, with 0 for keys that came later.
        """
        if not self.biases:
            return None
        if len(self.biases) > 1:
            keys = self.keys.length
            rows = [bias.tensor for bias in self.biases]
            rows = [nn.functional.pad(bias, (0, keys - bias.shape[-1])) for bias in rows]
            self.biases = [Pieces(torch.cat(rows, -2))]
        return self.biases[0].tensor

    @property
    def weights(self) -> AttentionWeights:
        """(..., heads, queries, keys), computed lazily."""
        if self._weights is None or self._weights.shape != self.shape:
            if self.kept == "weights":
                self._weights = given_weights(self.queries.tensor)
                return self._weights
            query, bias = self.query, self.bias
            uniform = self.visibility.uniform_rows(self.queries.length)
            if uniform is not None:  # equal scores give a uniform softmax
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
        """Add a step: its queries and, unless the keys stay the same, its keys."""
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
        """Remove the latest `count` queries, and their keys, as cropping a cache does.

        Returns:
            False if no query would be left, or if a query that is left saw a key that would be
            removed; then the record stays unchanged.
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
        """Reorder the texts, as beam search does.

        Args:
            items: (batch,) which text comes where.
            done: the `id`s of pieces that are shared with other records and already reordered.

        Returns:
            False if the texts see different keys, so that they cannot be reordered.
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
        """The pieces that grow with the queries, and those that grow with the keys."""
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
        """A copy of the record on another device."""
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
        """All tensors that the record keeps alive."""
        of_queries, of_keys = self._pieces()
        held = [x for pieces in (*of_queries, *of_keys, *self.biases) for x in pieces.held]
        return [*held, *tensors(self.visibility.fixed)]

    @property
    def latest(self) -> AttentionWeights:
        """The weights of the latest call: in a generation, those of the newest tokens."""
        return self.weights.rows(slice(-self.latest_queries, None))


def _whole(tokens: Pieces | None, length: int) -> Tensor | None:
    return tokens.tensor if tokens is not None and tokens.length == length else None
