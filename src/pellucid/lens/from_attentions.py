"""Records of existing weights: the output of `output_attentions=True`, or any arrays."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.module_names import is_cross as is_cross_name
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Proof, Record
from pellucid.lens.visibility import Visibility

__all__ = ["from_attentions"]

Tokens = Sequence[str] | Sequence[Sequence[str]] | Tensor
FIELDS = {
    "encoder_attentions": "encoder.layers.{}.self_attn",
    "decoder_attentions": "decoder.layers.{}.self_attn",
    "cross_attentions": "decoder.layers.{}.cross_attn",
    "attentions": "layers.{}.attention",
}
"""The fields of transformers outputs that hold weights, and the names of the records."""


def from_attentions(
    attentions: Any,
    *,
    tokens: Tokens | None = None,
    source_tokens: Tokens | None = None,
) -> tuple[list[Record], dict[int, str]]:
    """Records of weights, and their vocabulary; see `Recording.from_attentions`."""
    own = _Tokens("tokens", tokens)
    source = _Tokens("source_tokens", source_tokens, len(own.id_of))
    records = []
    for name, weights in _named_weights(attentions):
        is_cross = is_cross_name(name)
        of_encoder = name.startswith("encoder.") and source_tokens is not None
        queries = source if of_encoder else own
        keys = source if is_cross or of_encoder else own
        records.append(_record(name, weights, queries, keys, is_cross))
    if not records:
        raise ArgumentError(
            "attentions contains no weights; was the model run with output_attentions=True?"
        )
    return records, own.vocabulary | source.vocabulary


class _Tokens:
    """The tokens of a batch as ids; tokens that are given as str are numbered from `start`."""

    def __init__(self, argument: str, tokens: Tokens | None, start: int = 0) -> None:
        self.argument, self.start = argument, start
        self.id_of: dict[str, int] = {}
        self.ids = None if tokens is None else self._ids(tokens)

    @property
    def vocabulary(self) -> dict[int, str]:
        return {number: token for token, number in self.id_of.items()}

    def _ids(self, tokens: Tokens) -> Tensor:
        """(batch or 1, length) int64"""
        if isinstance(tokens, Tensor):
            if tokens.is_floating_point() or tokens.ndim not in (1, 2):
                raise TypeMismatchError(f"{self.argument} must be str, or ids of (batch, length)")
            return tokens.reshape(-1, tokens.shape[-1]).long()
        if isinstance(tokens, str) or not isinstance(tokens, Sequence):
            raise TypeMismatchError(f"{self.argument} must be a list of str, got {tokens!r}")
        rows = [tokens] if tokens and isinstance(tokens[0], str) else list(tokens)
        if not all(
            isinstance(row, Sequence) and all(isinstance(token, str) for token in row)
            for row in rows
        ):
            raise TypeMismatchError(f"{self.argument} must be str, or lists of str, one per item")
        if len({len(row) for row in rows}) != 1:
            raise ShapeError(f"{self.argument} must have the same length in all items")
        return torch.tensor(
            [
                [self.id_of.setdefault(str(x), self.start + len(self.id_of)) for x in row]
                for row in rows
            ]
        )

    def pieces(self, batch: int, length: int, name: str) -> Pieces | None:
        """(batch, length) ids; a generation may have more tokens than queries."""
        if self.ids is None:
            return None
        if len(self.ids) not in (1, batch) or self.ids.shape[1] < length:
            raise ShapeError(
                f"{self.argument} have shape {tuple(self.ids.shape)}, but '{name}' has "
                f"{batch} x {length} positions"
            )
        return Pieces(self.ids[:, :length].expand(batch, -1), -1)


def _named_weights(attentions: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and weights, (batch, heads, queries, keys)."""
    is_output = hasattr(attentions, "to_tuple")  # of transformers, which leaves out what is None
    if isinstance(attentions, Mapping) and not is_output and not FIELDS.keys() & attentions.keys():
        for name, weights in attentions.items():
            yield str(name), _joined(str(name), [weights])
        return
    fields = {field: _field(attentions, field) for field in FIELDS}
    if all(value is None for value in fields.values()) and not is_output:
        if not isinstance(attentions, Sequence):
            raise TypeMismatchError(
                "attentions must be the output of a model, a list of arrays or a dict of arrays, "
                f"got {type(attentions).__name__}"
            )
        fields = {"attentions": attentions}
    for field, layers in fields.items():
        if layers is None:
            continue
        # `generate` returns a tuple of steps, each of which is a tuple of layers.
        is_steps = len(layers) > 0 and _is_step(layers[0])
        for number, parts in enumerate(zip(*layers, strict=True) if is_steps else layers):
            name = FIELDS[field].format(number)
            if parts is not None:
                yield name, _joined(name, parts if is_steps else [parts])


def _is_step(layer: Any) -> bool:
    """Whether this is a step of a generation, with the weights of several layers."""
    if not isinstance(layer, list | tuple) or not layer:
        return False
    return isinstance(layer[0], Tensor | np.ndarray) and layer[0].ndim >= 3


def _field(attentions: Any, field: str) -> Any:
    if isinstance(attentions, Mapping):
        return attentions.get(field)
    return getattr(attentions, field, None)


def _joined(name: str, parts: Sequence[Any]) -> Tensor:
    """The weights of one call, or of the steps of a generation, each with more keys."""
    tensors = [_checked(name, part) for part in parts]
    if len(tensors) == 1:
        return tensors[0]
    keys = max(tensor.shape[-1] for tensor in tensors)
    return torch.cat([nn.functional.pad(x, (0, keys - x.shape[-1])) for x in tensors], -2)


def _checked(name: str, array: Any) -> Tensor:
    try:
        # A copy, since PyTorch does not count what NumPy writes.
        weights = array if isinstance(array, Tensor) else torch.tensor(np.asarray(array))
    except (TypeError, ValueError) as error:
        raise TypeMismatchError(
            f"the weights of '{name}' must be an array, got {type(array).__name__}"
        ) from error
    weights = weights[None] if weights.ndim == 3 else weights
    if not weights.is_floating_point():
        raise TypeMismatchError(f"the weights of '{name}' must be float, got {weights.dtype}")
    if weights.ndim != 4 or 0 in weights.shape:
        raise ShapeError(
            f"the weights of '{name}' must be (batch, heads, queries, keys) or (heads, queries, "
            f"keys), got shape {tuple(weights.shape)}"
        )
    low, high = weights.detach().aminmax()
    if bool(low < 0) or not bool(high.isfinite()):
        raise ArgumentError(
            f"the weights of '{name}' range from {float(low):.3g} to {float(high):.3g}; "
            "weights after the softmax are finite, and none is negative"
        )
    return weights


def _record(
    name: str, weights: Tensor, query_tokens: _Tokens, key_tokens: _Tokens, is_cross: bool
) -> Record:
    batch, _, queries, keys = weights.shape
    return Record(
        name=name,
        kept="weights",
        queries=Pieces(weights),
        keys=Pieces(torch.arange(keys)[None, None, :, None]),
        visibility=Visibility.of(InferredMask(None, None, None), queries, keys, weights.device),
        query_tokens=query_tokens.pieces(batch, queries, name),
        key_tokens=key_tokens.pieces(batch, keys, name),
        is_cross=is_cross,
        latest_queries=queries,
        proof=Proof(batch * queries, batch * queries),
    )
