"""What is known of an intercepted call, in the terms of `pellucid.attention`."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.masks import Mask
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.pieces import Part
from pellucid.lens.record import Proof


@dataclass(eq=False, slots=True)
class CacheUpdate:
    """New keys that a module put into a cache, which returned those that attention reads."""

    cache: int
    """The number of the cache, which no other cache has."""
    layer: int
    keys: Tensor
    values: Tensor
    """(batch, kv_heads, length, dim): the new keys and values."""
    length: int
    before: int | Callable[[], int]
    """The number of keys before these; a function if reading it may wait for a device."""
    returned: "weakref.ref[Tensor]"
    """The keys that the cache returned."""
    returned_values: "weakref.ref[Tensor]"
    lossy: bool
    """Whether the cache returns approximations of the keys."""


@dataclass(eq=False, kw_only=True, slots=True)
class ModelWeights:
    """Weights that a model has computed itself."""

    weights: Tensor
    """(batch, heads, queries, keys), as multiplied with the values."""
    value: Tensor | None = None
    """(batch, kv_heads, keys, value_dim)"""
    context: Tensor | None = None
    """(batch, heads, queries, value_dim)"""
    attended: Tensor | None = None
    """The context before an edit replaced heads of it; None if none did."""
    sink: Tensor | None = None
    """(batch, heads, queries): the weights of a column that is not in the product: a sink, or a key
    whose value is added elsewhere."""
    is_plain: bool = False
    """Whether they are the unchanged result of a softmax."""
    is_known: bool = True
    """Whether the function that was called belongs to PyTorch, transformers or Pellucid."""


Shown = Callable[[int], Mask]
"""The rule of what is left to see, for some number of first keys of a call."""


@dataclass(eq=False, slots=True)
class SoftmaxEdit:
    """What becomes of a softmax that a model computes by hand."""

    weights: Tensor | None
    """(batch, heads, queries, keys): the edited weights; None if they stay."""
    hidden: Shown | None = None
    """What the edits of weights leave, if hiding is all that they do."""
    finish: Callable[[Tensor], Tensor] | None = None
    """Edits the context, (batch, heads, queries, value_dim), once there is one."""
    is_of_any: bool = True
    """Whether `finish` may edit the products of the weights with several values, each alone."""


@dataclass(eq=False, kw_only=True, slots=True)
class Call:
    """One attention call."""

    query: Part
    """(..., heads, queries, key_dim)"""
    key: Part
    """(..., kv_heads, keys, key_dim)"""
    value: Part
    """(..., kv_heads, keys, value_dim)"""
    masks: tuple[Tensor, ...] = ()
    """Mask tensors, each broadcasts to (..., heads, queries, keys): bool (True = visible), or float
    and additive."""
    hides_with_a_number: bool = False
    """Whether a bool mask hides keys by a large negative number instead of -inf, so that a row
    without any visible key is uniform over all of them."""
    rule: Mask | None = None
    """A rule that hides further keys."""
    inferred: InferredMask | None = None
    """The mask, if it was inferred from the scores."""
    bias: Tensor | None = None
    """Broadcasts to (..., heads, queries, keys)."""
    scale: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    """(heads,)"""
    dropout: float = 0.0
    projection: tuple[Tensor, Tensor | None] | None = None
    """Weight and bias of the output projection, if it is part of the call."""
    context: Tensor | None = None
    """The result of the call: (..., heads, queries, value_dim), or (..., queries, model_dim) after
    the projection; None if it returned something else."""
    update: CacheUpdate | None = None
    """What the module has put into a cache for this call."""
    logsumexp: Tensor | None = None
    """(..., heads, queries) of the scores, if the kernel returned it."""
    is_heads_first: bool = False
    """Whether the model has heads before items, as then has the logsumexp of its kernel."""
    model_weights: ModelWeights | None = None
    """The weights, if the model has computed them itself."""
    weights: AttentionWeights | None = None
    """The lazy weights, if `pellucid.attention` was called."""
    proof: Proof | None = None
    """The proof of every row, if there is one already."""
    as_given: Callable[[Tensor], Tensor] | None = None
    """Puts a context into the shape that the call returned, if that is another."""
    hidden: Shown | None = None
    """What edits leave, besides the masks of the call, if hiding is all that they do."""
    attended: Tensor | None = None
    """The context before an edit replaced heads of it; None if none did."""
    edited_weights: Callable[[], Tensor] | None = None
    """Computes the weights, (batch, heads, queries, keys), if an edit has changed them. They are
    those that `hidden` leaves, if it is given."""
    is_known: bool = True
    """Whether the function that was called belongs to PyTorch, transformers or Pellucid."""

    def as_used(self) -> "Call | ModelWeights":
        """The call as it is recorded: its weights alone, if an edit made them what they are."""
        if self.edited_weights is None or self.hidden is not None:
            return self
        is_projected = self.projection is not None
        return ModelWeights(
            weights=self.edited_weights().detach(),
            value=self.value if isinstance(self.value, Tensor) else None,
            context=None if is_projected else self.context,
            attended=None if is_projected else self.attended,
            is_known=self.is_known,
        )
