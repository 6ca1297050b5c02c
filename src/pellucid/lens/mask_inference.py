"""A mask tensor, read back as the rule that made it.

A rule is proposed from the outline of the tensor (see `mask_proposals`), and then compared with
every item, head, row and key of it (see `MaskTensor`). What follows no rule stays dense. Beyond the
tensor itself, this takes memory for the outline and for one chunk of rows at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attention import masks
from pellucid.attention.masks import Band, Mask, Present, Rows
from pellucid.errors import ShapeError, TypeMismatchError
from pellucid.lens.mask_proposals import joined, outline_of, proposals
from pellucid.lens.mask_tensor import CHUNK_NUMBERS, CHUNK_ROWS, MaskTensor, all_true
from pellucid.lens.score_scan import ScoreScan

__all__ = ["InferredMask", "infer_mask", "infer_mask_of_scores"]

SAMPLE_ROWS = 16
"""Rows that are read first: if they follow no rule, all rows together follow none."""
MOST_RUNS = 8
"""Ranges of real keys that are compared one by one; more are compared together."""


@dataclass(frozen=True, eq=False)
class InferredMask:
    """A mask as a rule, with its bias and its uniform rows."""

    mask: Mask | None
    """Which query sees which key; None if every query sees every key."""
    bias: Tensor | None
    """What is added to the scores besides the mask, 0 where a key is hidden; broadcasts to (batch,
    heads, queries, keys). None if nothing is."""
    uniform: Tensor | None
    """(batch or 1, queries) bool: queries from which finite numbers hide every key, so that the
    softmax is uniform over the keys that `mask` shows them, usually all. None if there are none."""


def infer_mask(tensor: Tensor, queries: int, keys: int) -> InferredMask:
    """Infer the rule of a mask tensor.

    Rules are causal, a window, padding, documents in a row, a prefix, and combinations of these;
    anything else is `masks.dense`. A number hides a key if it is at most half the lowest number of
    its dtype, or -1e8. A row in which -inf hides every key has no weights. A row in which finite
    numbers hide every key is in `uniform`: with the query and bias of these rows set to 0, the
    weights are those of the model. (A row that is so hidden in some heads only stays hidden.)

    Args:
        tensor: bool, True = visible, or float, added to the scores; broadcasts to (batch, heads,
            queries, keys).
        queries, keys: the sizes of the scores.

    Raises:
        TypeMismatchError: tensor is neither bool nor float.
        ShapeError: it does not broadcast.
    """
    if tensor.dtype != torch.bool and not tensor.is_floating_point():
        raise TypeMismatchError(f"a mask must be bool or float, got a {tensor.dtype} tensor")
    if tensor.ndim > 4:
        raise ShapeError(f"a mask must have at most 4 dimensions, got shape {tuple(tensor.shape)}")
    try:
        whole = tensor.expand(*tensor.shape[:-2], queries, keys)
    except RuntimeError:
        raise ShapeError(
            f"a mask of shape {tuple(tensor.shape)} does not broadcast to (batch, heads, queries, "
            f"keys) = (..., {queries}, {keys})"
        ) from None
    whole = whole[(None,) * (4 - whole.ndim)]
    for axis in range(3):  # an expanded axis is read once
        if whole.stride(axis) == 0:
            whole = whole.narrow(axis, 0, min(1, whole.shape[axis]))
    with torch.no_grad():
        reader = MaskTensor(whole)
        rule = _plain(reader) or _by_outline(reader)
        mask, uniform = _with_uniform(reader, rule, queries) if rule else (None, None)
        if rule is None or reader.uneven:
            mask, uniform = _dense(reader, queries)
    bias = whole.masked_fill(whole <= reader.limit, 0) if reader.biased else None
    return InferredMask(mask, bias, uniform)


def infer_mask_of_scores(scan: ScoreScan) -> InferredMask | None:
    """Infer the rule by which scores hide keys, as `infer_mask` does; a bias cannot be seen.

    Returns:
        The rule; None if a row that sees no key has weights that are not uniform.
    """
    with torch.no_grad():
        reader = MaskTensor(scan.seen, scan.scores)
        rule = _plain(reader) or _by_outline(reader)
        if rule is None:
            seen = scan.seen
            return InferredMask(masks.dense(seen), None, None) if all_true(seen.any(-1)) else None
        mask, uniform = _with_uniform(reader, rule, scan.seen.shape[-2])
    return None if reader.uneven else InferredMask(mask, None, uniform)


@dataclass(frozen=True)
class _Rule:
    """A rule that equals the tensor, and the rows that see no key."""

    mask: Mask | None
    empty: Tensor | None
    """(items, rows) bool; None if there are none."""


def _plain(reader: MaskTensor) -> _Rule | None:
    """No mask, or one causal mask for all items: most masks, and the fastest to recognise."""
    _, _, rows, keys = reader.whole.shape
    if not reader.whole.numel():
        return _Rule(None, None)
    if rows == 1:
        return _one_row(reader)
    ends = reader.seen(reader.whole[:, :, :: max(1, rows - 1)][:, :, :2])
    counts = ends.sum(-1)
    low, high = (counts.amin((0, 1)).tolist(), counts.amax((0, 1)).tolist())
    if low != high:
        return None
    first, last = low[0], low[-1]
    if first == keys == last:
        return _Rule(None, None) if reader.equals(None) else None
    offset = last - rows if last < keys else first - 1
    as_causal = [min(max(0, i + offset + 1), keys) for i in (0, rows - 1)]
    if [first, last] != as_causal or not reader.equals(Band(None, 0, offset)):
        return None
    empty = torch.arange(rows, device=reader.whole.device) + offset < 0
    return _Rule(Band(None, 0, offset), empty.unsqueeze(0) if offset < 0 else None)


def _one_row(reader: MaskTensor) -> _Rule | None:
    """The rule of a single row, of one query or of all: padding."""
    present = reader.seen(reader.whole[:, 0, 0]).clone()  # the mask may be written to later
    if not reader.agrees(reader.whole, present[:, None, None]):
        return None
    if all_true(present):
        return _Rule(None, None)
    empty = ~present.any(-1, keepdim=True)
    alike = bool((present == present[:1]).all())
    mask = masks.present(present[0] if alike else present)
    return _Rule(mask, empty if bool(empty.any()) else None)


def _by_outline(reader: MaskTensor) -> _Rule | None:
    middle = reader.whole.shape[2] // 2
    sample = reader.whole[:, :, middle : middle + SAMPLE_ROWS]
    if middle >= SAMPLE_ROWS and _by_outline(MaskTensor(sample)) is None:
        return None  # if the whole followed a rule, so would some of its rows
    outline = outline_of(reader)
    for mask, present in proposals(outline):
        alike = bool((present == present[:1]).all())
        holes: Tensor | None = None
        padding: Mask | None = None
        if not all_true(present):
            padding = masks.present(present[0] if alike else present)
            runs = torch.diff(present.to(torch.int8)).ne(0).sum(-1).amax() // 2 + 1
            if not alike or (isinstance(padding, Present) and int(runs) > MOST_RUNS):
                holes = present[:1] if alike else present
        rule = joined(mask, padding)
        if reader.equals(mask if holes is not None else rule, holes):
            empty = outline.empty
            return _Rule(rule, empty if bool(empty.any()) else None)
    return None


def _with_uniform(
    reader: MaskTensor, rule: _Rule, queries: int
) -> tuple[Mask | None, Tensor | None]:
    """The rule with every key visible to uniform rows, and the uniform rows."""
    if rule.empty is None or reader.numbers is None:
        return rule.mask, None
    items, heads, _, keys = reader.numbers.shape
    uniform = rule.empty.expand(items, -1).clone()
    positions = uniform.nonzero()
    for item, row in (
        p.unbind(-1) for p in positions.split(max(1, CHUNK_NUMBERS // (heads * keys)))
    ):
        values = reader.numbers[item, :, row]
        low, high = values.amin((-2, -1)), values.amax((-2, -1))
        uniform[item, row] = high > -torch.inf
        if bool(((low != high) & (high > -torch.inf)).any()):
            reader.uneven = True
            return rule.mask, None
    if not bool(uniform.any()):
        return rule.mask, None
    if bool((uniform == uniform[:1]).all()):
        uniform = uniform[:1]
    uniform = uniform.expand(-1, queries)
    if rule.mask is None or bool(uniform.all()):
        return None, uniform
    return rule.mask | Rows(uniform[0] if len(uniform) == 1 else uniform), uniform


def _dense(reader: MaskTensor, queries: int) -> tuple[Mask, Tensor | None]:
    """The tensor as a dense mask, with one head or item if all are equal; and uniform rows."""
    whole, uniform = reader.whole, None
    if reader.additive:
        items, heads, rows, _ = whole.shape
        visible = torch.empty(whole.shape, dtype=torch.bool, device=whole.device)
        flagged = torch.zeros(items, rows, dtype=torch.bool, device=whole.device)
        for part in reader.chunks(items, heads):
            block = whole[:, :, part]
            seen = reader.seen(block)
            reader.biased = reader.biased or not all_true(~seen | (block == 0))
            most = block.amax(-1, keepdim=True)
            empty = ((most <= reader.limit) & (most > -torch.inf)).all(1, keepdim=True)
            visible[:, :, part] = seen | (empty & (block == most))
            flagged[:, part] = empty[:, 0, :, 0]
        uniform = flagged.expand(-1, queries) if bool(flagged.any()) else None
    else:
        visible = whole.clone()  # it may be written to later
    for axis in (1, 0):
        first = visible.narrow(axis, 0, 1)
        others = (visible.narrow(axis, at, 1) for at in range(1, visible.shape[axis]))
        if visible.shape[axis] > 1 and all(_same(first, other) for other in others):
            visible = first.clone()
    if visible.stride(3) == 0:
        visible = visible[..., :1]
    return masks.dense(visible[0, 0] if visible.shape[:2] == (1, 1) else visible), uniform


def _same(left: Tensor, right: Tensor) -> bool:
    pairs = zip(left.split(CHUNK_ROWS, 2), right.split(CHUNK_ROWS, 2), strict=True)
    return all(all_true(x == y) for x, y in pairs)
