"""Recordings of weights that come from elsewhere: `output_attentions=True`, or any arrays."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.errors import ArgumentError, ShapeError, TypeMismatchError
from pellucid.lens.mask_inference import Recognised
from pellucid.lens.module_names import is_cross as is_cross_name
from pellucid.lens.record import Pieces, Proof, Record
from pellucid.lens.visibility import Visibility

__all__ = ["from_attentions"]

Tokens = Sequence[str] | Sequence[Sequence[str]] | Tensor
FIELDS = {
    "encoder_attentions": "encoder.layers.{}.self_attn",
    "decoder_attentions": "decoder.layers.{}.self_attn",
    "cross_attentions": "decoder.layers.{}.cross_attn",
    "attentions": "layers.{}.attention",
}
"""What outputs of transformers call their weights, and what the records of them are called."""


def from_attentions(
    attentions: Any,
    *,
    tokens: Tokens | None = None,
    source_tokens: Tokens | None = None,
    tokenizer: Any = None,
) -> tuple[list[Record], dict[int, str]]:
    """Records of weights, and what their ids spell; see `Recording.from_attentions`."""
    own, source = _Texts(tokenizer, "tokens"), _Texts(tokenizer, "source_tokens")
    own.read(tokens)
    source.start = len(own.spelled)
    source.read(source_tokens)
    records = []
    for name, weights in _named(attentions):
        is_cross = is_cross_name(name)
        of_encoder = name.startswith("encoder.") and source_tokens is not None
        queries = source if of_encoder else own
        keys = source if is_cross or of_encoder else own
        records.append(_record(name, weights, queries, keys, is_cross))
    if not records:
        raise ArgumentError(
            "attentions holds no weights; was the model run with output_attentions?"
        )
    return records, own.vocabulary | source.vocabulary


class _Texts:
    """Tokens of a batch, as ids and what they spell."""

    def __init__(self, tokenizer: Any, what: str) -> None:
        self.what, self.start = what, 0
        self.ids: Tensor | None = None
        self.spelled: dict[str, int] = {}
        self.has_tokenizer = tokenizer is not None

    @property
    def vocabulary(self) -> dict[int, str]:
        return {self.start + number: text for text, number in self.spelled.items()}

    def read(self, tokens: Tokens | None) -> None:
        if tokens is None:
            return
        if isinstance(tokens, Tensor):
            if tokens.is_floating_point() or tokens.ndim not in (1, 2):
                raise TypeMismatchError(f"{self.what} must be texts, or ids of (batch, length)")
            self.ids = tokens.reshape(-1, tokens.shape[-1]).long()
            return
        if isinstance(tokens, str) or not isinstance(tokens, Sequence):
            raise TypeMismatchError(f"{self.what} must be a list of texts, got {tokens!r}")
        rows = [tokens] if tokens and isinstance(tokens[0], str) else list(tokens)
        if not all(isinstance(row, Sequence) for row in rows):
            raise TypeMismatchError(f"{self.what} must be texts, or lists of texts, one an item")
        if not all(isinstance(text, str) for row in rows for text in row):
            raise TypeMismatchError(f"{self.what} must be texts, or lists of texts, one an item")
        if len({len(row) for row in rows}) != 1:
            raise ShapeError(f"{self.what} must be as many in each item of the batch")
        numbers = [
            [self.start + self.spelled.setdefault(str(text), len(self.spelled)) for text in row]
            for row in rows
        ]
        self.ids = torch.tensor(numbers)

    def of(self, batch: int, length: int, name: str) -> Pieces | None:
        """(batch, length) ids; those of a generation may be more than its queries."""
        if self.ids is None:
            return None
        if len(self.ids) not in (1, batch) or self.ids.shape[1] < length:
            raise ShapeError(
                f"{self.what} are {tuple(self.ids.shape)}, and '{name}' is about "
                f"{batch} x {length} positions"
            )
        return Pieces(self.ids[:, :length].expand(batch, -1), -1)


def _named(attentions: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and weights, (batch, heads, queries, keys)."""
    is_output = hasattr(attentions, "to_tuple")  # of transformers, which leaves out what is None
    if isinstance(attentions, Mapping) and not is_output and not FIELDS.keys() & attentions.keys():
        for name, weights in attentions.items():
            yield str(name), _joined(str(name), [weights])
        return
    found = {field: _field(attentions, field) for field in FIELDS}
    if all(value is None for value in found.values()) and not is_output:
        if not isinstance(attentions, Sequence):
            raise TypeMismatchError(
                "attentions must be the output of a model, a list of arrays or a dict of them, got "
                f"{type(attentions).__name__}"
            )
        found = {"attentions": attentions}
    for field, layers in found.items():
        if layers is None:
            continue
        # Of `generate`, a tuple of steps, and of each step one of layers.
        is_steps = len(layers) > 0 and _is_step(layers[0])
        for number, parts in enumerate(zip(*layers, strict=True) if is_steps else layers):
            name = FIELDS[field].format(number)
            if parts is not None:
                yield name, _joined(name, parts if is_steps else [parts])


def _is_step(layer: Any) -> bool:
    """Whether this holds the weights of several layers, and is no array of numbers itself."""
    if not isinstance(layer, list | tuple) or not layer:
        return False
    return isinstance(layer[0], Tensor | np.ndarray) and layer[0].ndim >= 3


def _field(attentions: Any, field: str) -> Any:
    if isinstance(attentions, Mapping):
        return attentions.get(field)
    return getattr(attentions, field, None)


def _joined(name: str, parts: Sequence[Any]) -> Tensor:
    """Weights of one call, or of the steps of a generation, whose keys become more."""
    given = [_checked(name, part) for part in parts]
    width = max(part.shape[-1] for part in given)
    if len(given) == 1:
        return given[0]
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[-1])) for part in given], -2)


def _checked(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor):
        weights = given
    else:
        try:
            weights = torch.tensor(np.asarray(given))  # a copy: nobody counts what numpy writes
        except (TypeError, ValueError) as error:
            raise TypeMismatchError(
                f"the weights of '{name}' must be an array, got {type(given).__name__}"
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
            f"the weights of '{name}' go from {float(low):.3g} to {float(high):.3g}: weights are "
            "those after the softmax, none below 0"
        )
    return weights


def _record(name: str, weights: Tensor, own: _Texts, other: _Texts, is_cross: bool) -> Record:
    batch, _, queries, keys = weights.shape
    return Record(
        name=name,
        kept="weights",
        queries=Pieces(weights),
        keys=Pieces(torch.arange(keys)[None, None, :, None]),
        visibility=Visibility.of(Recognised(None, None, None), queries, keys, weights.device),
        query_tokens=own.of(batch, queries, name),
        key_tokens=other.of(batch, keys, name),
        is_cross=is_cross,
        latest_queries=queries,
        proof=Proof(batch * queries, batch * queries),
    )
