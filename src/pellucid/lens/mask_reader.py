"""Masks of calls, read as rules and known again.

The layers of a model are given the same few masks one after another. A mask is told by where it
lies in memory, so it is read for the first layer alone.
"""

from typing import Any

import torch
from torch import Tensor

from pellucid.attention.masks import Rows
from pellucid.lens.interception import Call
from pellucid.lens.mask_inference import Recognised, recognise
from pellucid.lens.record import Keeper, Pieces
from pellucid.lens.visibility import Visibility, hidden, tensors

KEPT = 4
"""Masks that are known again: those of the layers of one forward pass."""


class MaskReader:
    """Reads the masks of calls, each once."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._biases: list[Pieces] = []
        # What tells a mask, the mask itself, and what was made of it. The masks stay referred to,
        # so that no other takes their memory while it tells them.
        self._rules: list[tuple[Any, list[Tensor], Any, tuple[Visibility, Tensor | None]]] = []
        self._steps: list[tuple[Any, Tensor, Any, Visibility | None]] = []

    def rule_of(self, call: Call, queries: int, keys: int) -> tuple[Visibility, Pieces | None]:
        """The rule of a call, and what is added to its scores besides.

        The latter broadcasts to (batch, heads, queries, keys); None where that is nothing.
        """
        device = self._keeper.device or call.query.device
        if call.read is not None:
            return Visibility.of(call.read, queries, keys, device), None
        # A rule without tensors is told by how it prints.
        told = str(call.rule) if not tensors(call.rule) else object()
        rare = (call.sinks is None, call.hides_with_a_number)
        known = (queries, keys, told, rare, device, *map(_memory, call.given))
        prints = [_fingerprint(given) for given in call.given]
        answer = None
        for was, of, _, made in self._rules:
            if was == known and all(map(_is_same, of, prints)):
                answer = made
                break
        if answer is None:
            found = _read(call, queries, keys, device)
            answer = Visibility.of(found, queries, keys, device), found.bias
            self._rules = [(known, prints, call.given, answer), *self._rules[: KEPT - 1]]
        visibility, bias = answer
        bias = _sum(None if call.bias is None else call.bias[..., :keys], bias)
        return visibility, None if bias is None else self._kept(bias)

    def _kept(self, bias: Tensor) -> Pieces:
        """A bias to be kept, once for all layers that add the same."""
        for known in self._biases:
            if known.is_as_added and _is_same(known.tensor, bias):
                return known
        kept = Pieces(self._keeper.keep(bias))
        self._biases = [kept, *self._biases[: KEPT - 1]]
        return kept

    def grown(
        self, visibility: Visibility, call: Call, row: int, rows: int, low: int, keys: int
    ) -> Visibility | None:
        """The rule with a step more; None where the masks of the step say something else.

        Args: as those of `Visibility.grown`.
        """
        if call.read is not None and call.read.uniform is None:
            return visibility.grown(row, rows, low, keys, call.read.mask)
        if not call.given:
            return visibility.grown(row, rows, low, keys, call.rule)
        if call.rule is not None or len(call.given) > 1:
            return None
        given = call.given[0]
        known, printed = (id(visibility), row, rows, low, keys, _memory(given)), _fingerprint(given)
        for was, of, _, made in self._steps:
            if was == known and _is_same(of, printed):
                return made
        seen = given[..., : keys - low]
        plain = True
        if seen.is_floating_point():
            shown = seen > torch.finfo(seen.dtype).min / 2
            plain = not bool(seen.masked_fill(~shown, 0).any())
            seen = shown
        answer: Visibility | None = None
        if plain and seen.ndim == 4 and seen.shape[1] == 1:
            answer = visibility.grown(row, rows, low, keys, seen.to(visibility.device))
        self._steps = [(known, printed, (given, visibility), answer), *self._steps[: KEPT - 1]]
        return answer


def _read(call: Call, queries: int, keys: int, device: torch.device) -> Recognised:
    """What all masks of a call say together."""
    rule, bias, uniform = call.rule, None, None
    for given in call.given:
        found = recognise(given[..., :keys].to(device), queries, keys)
        if found.mask is not None:
            rule = found.mask if rule is None else rule & found.mask
        bias = _sum(bias, found.bias)
        uniform = found.uniform if uniform is None else uniform
        if call.hides_with_a_number and given.dtype == torch.bool:
            blank = ~given.any(-1).any(1).expand(-1, queries)
            if bool(blank.any()):
                uniform, rule = blank, None if rule is None else rule | Rows(blank)
    if call.sinks is not None:  # which take all of a row that no key is left in
        rule, uniform = hidden(rule, uniform), None
    return Recognised(rule, bias, uniform)


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """What tells a tensor from every other that is alive."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _fingerprint(tensor: Tensor) -> Tensor:
    """Sums of the rows and of the columns, which tell whether anybody has written to a mask.

    No counter does: nobody counts in inference mode, or what is written through `data` or NumPy.
    """
    with torch.no_grad():
        for axis in range(tensor.ndim):  # what is expanded is looked at once
            if tensor.stride(axis) == 0:
                tensor = tensor.narrow(axis, 0, min(1, tensor.shape[axis]))
        bits = tensor.detach()
        bits = bits.contiguous()
        words = bits.shape[-1] > 1 and bits.shape[-1] * bits.itemsize % 8 == 0
        integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[bits.itemsize]
        bits = bits.view(torch.int64 if words else integer)
        rows = bits.sum(-1, dtype=torch.int64).flatten()
        return (
            torch.cat([rows, bits.sum(-2, dtype=torch.int64).flatten()]) if bits.ndim > 1 else rows
        )


def _is_same(kept: Tensor, bias: Tensor) -> bool:
    return kept is bias or (
        kept.dtype == bias.dtype
        and kept.device == bias.device
        and kept.shape == bias.shape
        and torch.equal(kept, bias)
    )


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return one if other is None else other if one is None else one + other
