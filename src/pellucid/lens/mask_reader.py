"""Masks of calls, read as rules and remembered.

The layers of a model get the same few masks one after another. A mask is identified by its memory
and its contents, so that it is read for the first layer only.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pellucid.attention.masks import Mask, Rows
from pellucid.lens.interception.calls import Call
from pellucid.lens.mask_inference import InferredMask, infer_mask
from pellucid.lens.pieces import Keeper, Pieces
from pellucid.lens.visibility import Visibility, hidden, tensors

KEPT = 4
"""Masks that are remembered: those of the layers of one forward pass."""


class MaskReader:
    """Reads the masks of calls, each once."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._biases: list[Pieces] = []
        # Identity and fingerprints of masks, the masks, and the result. The masks are kept alive,
        # so that no other tensor gets their memory.
        self._rules: list[tuple[Any, list[Tensor], Any, tuple[Visibility, Tensor | None]]] = []
        self._steps: list[tuple[Any, Tensor, Any, Visibility | None]] = []

    def rule_of(self, call: Call, queries: int, keys: int) -> tuple[Visibility, Pieces | None]:
        """The rule of a call, and the bias that is added to its scores, or None.

        The bias broadcasts to (batch, heads, queries, keys).
        """
        device = self._keeper.device or call.query.device
        if call.inferred is not None:
            inferred = replace(call.inferred, mask=_with_edits(call.inferred.mask, call, keys))
            return Visibility.of(inferred, queries, keys, device), None
        # A rule without tensors is identified by its text.
        is_text = call.hidden is None and not tensors(call.rule)
        rule = str(call.rule) if is_text else object()
        options = (call.sinks is None, call.hides_with_a_number)
        identity = (queries, keys, rule, options, device, *map(_memory, call.masks))
        prints = [_fingerprint(mask) for mask in call.masks]
        result = None
        for known, known_prints, _, known_result in self._rules:
            if known == identity and all(map(_is_same, known_prints, prints)):
                result = known_result
                break
        if result is None:
            inferred = _read(call, queries, keys, device)
            inferred = replace(inferred, mask=_with_edits(inferred.mask, call, keys))
            result = Visibility.of(inferred, queries, keys, device), inferred.bias
            self._rules = [(identity, prints, call.masks, result), *self._rules[: KEPT - 1]]
        visibility, bias = result
        bias = _sum(None if call.bias is None else call.bias[..., :keys], bias)
        return visibility, None if bias is None else self._kept(bias)

    def _kept(self, bias: Tensor) -> Pieces:
        """A bias as pieces, which all layers with the same bias share."""
        for known in self._biases:
            if known.is_as_added and _is_same(known.tensor, bias):
                return known
        kept = Pieces(self._keeper.keep(bias))
        self._biases = [kept, *self._biases[: KEPT - 1]]
        return kept

    def grown(
        self, visibility: Visibility, call: Call, row: int, rows: int, low: int, keys: int
    ) -> Visibility | None:
        """The rule with one more step; None if the masks of the step contradict it.

        Args: as those of `Visibility.grown`.
        """
        if call.hidden is not None:
            return None
        if call.inferred is not None and call.inferred.uniform is None:
            return visibility.grown(row, rows, low, keys, call.inferred.mask)
        if not call.masks:
            return visibility.grown(row, rows, low, keys, call.rule)
        if call.rule is not None or len(call.masks) > 1:
            return None
        mask = call.masks[0]
        identity = (id(visibility), row, rows, low, keys, _memory(mask))
        fingerprint = _fingerprint(mask)
        for known, known_print, _, known_result in self._steps:
            if known == identity and _is_same(known_print, fingerprint):
                return known_result
        seen, has_bias = mask[..., : keys - low], False
        if seen.is_floating_point():
            shown = seen > torch.finfo(seen.dtype).min / 2
            has_bias = bool(seen.masked_fill(~shown, 0).any())
            seen = shown
        result: Visibility | None = None
        if not has_bias and seen.ndim == 4 and seen.shape[1] == 1:
            result = visibility.grown(row, rows, low, keys, seen.to(visibility.device))
        self._steps = [
            (identity, fingerprint, (mask, visibility), result),
            *self._steps[: KEPT - 1],
        ]
        return result


def _read(call: Call, queries: int, keys: int, device: torch.device) -> InferredMask:
    """All masks of a call together."""
    rule, bias, uniform = call.rule, None, None
    for mask in call.masks:
        part = infer_mask(mask[..., :keys].to(device), queries, keys)
        if part.mask is not None:
            rule = part.mask if rule is None else rule & part.mask
        bias = _sum(bias, part.bias)
        uniform = part.uniform if uniform is None else uniform
        if call.hides_with_a_number and mask.dtype == torch.bool:
            blank = ~mask.any(-1).any(1).expand(-1, queries)
            if bool(blank.any()):
                uniform, rule = blank, None if rule is None else rule | Rows(blank)
    if call.sinks is not None:  # they take all of a row that sees no key
        rule, uniform = hidden(rule, uniform), None
    return InferredMask(rule, bias, uniform)


def _with_edits(rule: Mask | None, call: Call, keys: int) -> Mask | None:
    """The rule, and of what it shows only what edits of the call leave."""
    if call.hidden is None:
        return rule
    return call.hidden(keys) if rule is None else rule & call.hidden(keys)


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """The identity of a tensor among all that are alive."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _fingerprint(tensor: Tensor) -> Tensor:
    """Sums of rows and of columns, which show whether a mask was written to.

    Version counters do not show it: inference mode does not count, nor do `data` and NumPy.
    """
    with torch.no_grad():
        for axis in range(tensor.ndim):  # an expanded axis is read once
            if tensor.stride(axis) == 0:
                tensor = tensor.narrow(axis, 0, min(1, tensor.shape[axis]))
        bits = tensor.detach().contiguous()
        words = bits.shape[-1] > 1 and bits.shape[-1] * bits.itemsize % 8 == 0
        integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[bits.itemsize]
        bits = bits.view(torch.int64 if words else integer)
        rows = bits.sum(-1, dtype=torch.int64).flatten()
        if bits.ndim < 2:
            return rows
        return torch.cat([rows, bits.sum(-2, dtype=torch.int64).flatten()])


def _is_same(kept: Tensor, bias: Tensor) -> bool:
    return kept is bias or (
        kept.dtype == bias.dtype
        and kept.device == bias.device
        and kept.shape == bias.shape
        and torch.equal(kept, bias)
    )


def _sum(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right
