"""A model's mask tensor, read back as the rule that made it.

A rule is proposed from the outline of the tensor: the first and the last key that each row sees,
and the keys that any row sees. Then it is proven equal to the tensor, every item, head, row and
key; what is not proven stays dense. Beyond the tensor itself this takes memory for the outline and
for one chunk of rows at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.attention import intervals, masks
from pellucid.attention.masks import And, Band, Below, Documents, Mask, PerItem, Present, Rows
from pellucid.errors import ShapeError, TypeMismatchError

__all__ = ["HIDDEN", "Recognised", "Scan", "recognise", "recognise_in_scores", "scan"]

CHUNK_NUMBERS = 2**22
"""Numbers that are looked at together."""
CHUNK_ROWS = 256
"""Most rows of a chunk: of a triangle, that much of every row is compared one by one."""
LOOK_NUMBERS = 2**19
"""Scores that are looked at together: they stay in a cache while one after another reads them."""
LOOK_COLUMNS = 512
"""Scores of a row that are added up in their own dtype."""
SAMPLE_ROWS = 16
"""Rows that are read first: if they follow no rule, all together follow none."""
MOST_RUNS = 8
"""Ranges of real keys that are compared one by one; more are compared all together."""
FAR = 2**40
"""Further than any key."""
LOWEST = -1e8
"""A number at most this large in a mask hides: beside it, float32 can tell no scores apart."""
HIDDEN = -9000.0
"""A score at most this large is a hidden key's: models add -1e4, -1e9 or the lowest number."""


@dataclass(frozen=True, eq=False)
class Recognised:
    """What a mask tensor says."""

    mask: Mask | None
    """Which query may see which key; None where every query sees every key."""
    bias: Tensor | None
    """What is added to the scores apart from the mask, 0 where a key is hidden; broadcasts to
    (batch, heads, queries, keys). None where that is nothing."""
    uniform: Tensor | None
    """(batch or 1, queries) bool: queries from which all keys are hidden by a finite number, whose
    softmax is uniform over the keys that `mask` shows them: all, as a rule. None where there are
    none."""


def recognise(given: Tensor, queries: int, keys: int) -> Recognised:
    """Read the rule off a mask tensor.

    Rules are causal, a window, padding, documents that lie one after another, a prefix, and what
    they make together; anything else is `masks.dense`. A number hides if it is at most half the
    lowest of its dtype. A row hidden by -inf alone has no weights; one that is hidden from all keys
    by finite numbers is in `uniform`: whoever zeroes the query and the bias of these rows gets what
    the model used. (That is per query; a row so hidden in some heads only stays hidden.)

    Args:
        given: bool, True = may be seen, or float, added to the scores; broadcasts to
            (batch, heads, queries, keys).
        queries, keys: the sizes it is used with.

    Raises:
        TypeMismatchError: given is neither bool nor float.
        ShapeError: it does not broadcast.
    """
    if given.dtype != torch.bool and not given.is_floating_point():
        raise TypeMismatchError(f"a mask must be bool or float, got a {given.dtype} tensor")
    if given.ndim > 4:
        raise ShapeError(f"a mask must have at most 4 dimensions, got shape {tuple(given.shape)}")
    try:
        whole = given.expand(*given.shape[:-2], queries, keys)
    except RuntimeError:
        raise ShapeError(
            f"a mask of shape {tuple(given.shape)} does not broadcast to (batch, heads, queries, "
            f"keys) = (..., {queries}, {keys})"
        ) from None
    whole = whole[(None,) * (4 - whole.ndim)]
    for axis in range(3):  # what is expanded is looked at once
        if whole.stride(axis) == 0:
            whole = whole.narrow(axis, 0, min(1, whole.shape[axis]))
    with torch.no_grad():
        reader = _Reader(whole)
        found = _plain(reader) or _by_outline(reader)
        mask, uniform = _with_uniform(reader, found, queries) if found else (None, None)
        if found is None or reader.uneven:
            mask, uniform = _dense(reader, queries)
    bias = whole.masked_fill(whole <= reader.limit, 0) if reader.biased else None
    return Recognised(mask, bias, uniform)


@dataclass(frozen=True, eq=False)
class Scan:
    """What one look at all scores of a call has told."""

    scores: Tensor
    """(batch, heads, queries, keys), float."""
    seen: Tensor
    """(batch, 1 or heads, queries, keys) bool: one head where all see the same keys."""
    sums: Tensor | None
    """(batch, heads, queries) float64: each row's scores of keys that it sees, times factors."""


def scan(scores: Tensor, factors: Tensor | None = None) -> Scan:
    """Scan once at scores that hide keys by a large negative number.

    Args:
        scores: (batch, heads, queries, keys), float.
        factors: (keys,) of the dtype of the scores, for sums of them.
    """
    batch, heads, queries, keys = scores.shape
    seen = torch.empty(batch, 1, queries, keys, dtype=torch.bool, device=scores.device)
    sums = None
    if factors is not None:
        sums = torch.zeros(batch, heads, queries, dtype=torch.float64, device=scores.device)
    items = max(1, LOOK_NUMBERS // max(1, heads * queries * keys))
    rows = max(1, LOOK_NUMBERS // max(1, heads * keys))
    alike = True
    room = scores.new_empty(
        0 if factors is None else min(items, batch) * heads * min(rows, queries) * keys
    )
    for item in range(0, batch if scores.numel() else 0, items):
        for row in range(0, queries, rows):
            place = slice(item, item + items), slice(None), slice(row, row + rows)
            block = scores[place]
            if alike:  # a NaN is neither
                every = torch.gt(block.amin(1, keepdim=True), HIDDEN, out=seen[place])
                alike = _all(every ^ (block.amax(1, keepdim=True) <= HIDDEN))
            if factors is not None and sums is not None:
                shown = room[: block.numel()].view(block.shape)
                torch.threshold(block, HIDDEN, 0, out=shown)
                for start in range(0, keys, LOOK_COLUMNS):
                    columns = slice(start, start + LOOK_COLUMNS)
                    some = shown.view(-1, keys)[:, columns].mv(factors[columns])
                    sums[place] += some.view(block.shape[:3])
    return Scan(scores, seen if alike else ~(scores <= HIDDEN), sums)


def recognise_in_scores(look: Scan) -> Recognised | None:
    """Read the rule off scores that hide keys by a large negative number.

    As `recognise`, but for a bias: what is added to the scores of keys that are seen does not show.

    Returns:
        The rule; None where a row without any key has other weights than a uniform row.
    """
    with torch.no_grad():
        reader = _Reader(look.seen, look.scores)
        found = _plain(reader) or _by_outline(reader)
        if found is None:
            seen = look.seen
            return Recognised(masks.dense(seen), None, None) if _all(seen.any(-1)) else None
        mask, uniform = _with_uniform(reader, found, look.seen.shape[-2])
    return None if reader.uneven else Recognised(mask, None, uniform)


class _Reader:
    """Blocks of the tensor, (items, heads, rows, cols), compared with what a rule expects."""

    def __init__(self, whole: Tensor, scores: Tensor | None = None) -> None:
        self.whole = whole
        self.additive = whole.dtype != torch.bool
        self.numbers = whole if self.additive else scores
        """What hides keys, where that is numbers."""
        self.limit = max(torch.finfo(whole.dtype).min / 2, LOWEST) if self.additive else 0.0
        self.biased = False
        """Whether a key that is seen has been met with a number other than 0."""
        self.uneven = False
        """Whether a row has been met whose keys are hidden by different numbers, some finite."""

    def chunks(self, items: int = 1, heads: int = 1) -> Iterator[slice]:
        """Rows to look at together, for that many items and heads."""
        rows, keys = self.whole.shape[-2:]
        step = max(1, min(CHUNK_ROWS, CHUNK_NUMBERS // max(1, items * heads * keys)))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))

    def seen(self, block: Tensor) -> Tensor:
        return ~(block <= self.limit) if self.additive else block

    def is_hidden(self, block: Tensor) -> bool:
        if not block.numel():
            return True
        if self.additive:
            return bool(block.amax() <= self.limit)
        return not block.view(torch.uint8).amax()

    def is_seen(self, block: Tensor) -> bool:
        if not block.numel():
            return True
        if not self.additive:
            return bool(block.view(torch.uint8).amin())
        low, high = block.aminmax()
        if bool((low == 0) & (high == 0)):
            return True
        if not _all(self.seen(block)):
            return False
        self.biased = True
        return True

    def agrees(self, block: Tensor, expected: Tensor) -> bool:
        if self.additive and not self.biased:
            zero = block == 0
            if _all(zero ^ (block <= self.limit)):  # what is not hidden is 0
                return _all(zero == expected)
            self.biased = True
        return _all(self.seen(block) == expected)


def _all(flags: Tensor) -> bool:
    """As `flags.all()`, which is slow on the CPU."""
    return not flags.numel() or bool(flags.view(torch.uint8).amin())


@dataclass(frozen=True)
class _Rule:
    """A rule that is proven, and the rows that see nothing."""

    mask: Mask | None
    empty: Tensor | None
    """(items, rows) bool; None where there are none."""


def _proves(reader: _Reader, mask: Mask | None, holes: Tensor | None = None) -> bool:
    """Whether the mask, and the flags of keys in `holes`, (items or 1, keys), are the tensor."""
    _, heads, _, keys = reader.whole.shape
    flags = None if holes is None else holes[:, None, None]
    parts = [(reader.whole, mask, flags)]
    if mask is not None and mask.batch is not None:
        parts = [
            (part, mask.at(item), flags if flags is None or len(flags) == 1 else flags[item])
            for item, part in enumerate(reader.whole.split(1))
        ]
    return all(
        _agree(reader, whole[:, :, rows], rule, of_keys, rows, keys)
        for whole, rule, of_keys in parts
        for rows in reader.chunks(len(whole), heads)
    )


def _agree(
    reader: _Reader, block: Tensor, rule: Mask | None, flags: Tensor | None, rows: slice, keys: int
) -> bool:
    """Whether some rows are as a rule says, which is one item's or serves all."""
    everything = intervals.clip(0, keys, keys)
    some, every = everything, everything
    if rule is not None:
        some, every = rule.spans(rows.start, rows.stop, keys)
    for start, stop in intervals.complement(some, keys):
        if not reader.is_hidden(block[..., start:stop]):
            return False
    for start, stop in every:
        part = block[..., start:stop]
        if not (
            reader.is_seen(part) if flags is None else reader.agrees(part, flags[..., start:stop])
        ):
            return False
    for start, stop in intervals.intersection(some, intervals.complement(every, keys)):
        assert rule is not None
        tile = rule.tile(slice(0, 1), rows, slice(start, stop), block.device)
        tile = tile if flags is None else tile & flags[..., start:stop]
        if not reader.agrees(block[..., start:stop], tile):
            return False
    return True


def _plain(reader: _Reader) -> _Rule | None:
    """No mask, or a causal one alike in all items: most masks there are, and the fastest to see."""
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
        return _Rule(None, None) if _proves(reader, None) else None
    offset = last - rows if last < keys else first - 1
    as_causal = [min(max(0, i + offset + 1), keys) for i in (0, rows - 1)]
    if [first, last] != as_causal or not _proves(reader, Band(None, 0, offset)):
        return None
    empty = torch.arange(rows, device=reader.whole.device) + offset < 0
    return _Rule(Band(None, 0, offset), empty.unsqueeze(0) if offset < 0 else None)


def _one_row(reader: _Reader) -> _Rule | None:
    """The same keys for every query, or a query alone: padding, as it stands there."""
    present = reader.seen(reader.whole[:, 0, 0]).clone()  # the mask may be written to later
    if not reader.agrees(reader.whole, present[:, None, None]):
        return None
    if _all(present):
        return _Rule(None, None)
    empty = ~present.any(-1, keepdim=True)
    alike = bool((present == present[:1]).all())
    mask = masks.present(present[0] if alike else present)
    return _Rule(mask, empty if bool(empty.any()) else None)


class _Outline(NamedTuple):
    """What is proposed from, of the first head; the proof is for all."""

    first: Tensor
    """(items, rows) int64: the first key that a row sees, FAR where it sees none."""
    last: Tensor
    """(items, rows) int64: the last, -1 where it sees none."""
    present: Tensor
    """(items, keys) bool: the keys that any row sees."""

    @property
    def empty(self) -> Tensor:
        return self.last < 0


def _outline(reader: _Reader) -> _Outline:
    items, _, rows, keys = reader.whole.shape
    first, last = reader.whole.new_empty(2, items, rows, dtype=torch.int64).unbind()
    present = torch.zeros(items, keys, dtype=torch.uint8, device=reader.whole.device)
    for part in reader.chunks(items):
        seen = reader.seen(reader.whole[:, 0, part]).view(torch.uint8)
        first[:, part] = seen.argmax(-1)
        last[:, part] = keys - 1 - seen.flip(-1).argmax(-1)
        present |= seen.amax(1)
        none = seen.amax(-1) == 0
        first[:, part].masked_fill_(none, FAR)
        last[:, part].masked_fill_(none, -1)
    return _Outline(first, last, present.bool())


class _Keys:
    """The keys that are present: what stands next to any position."""

    def __init__(self, present: Tensor) -> None:
        items, self.size = present.shape
        place = torch.arange(self.size, device=present.device).expand(items, -1)
        after = place.masked_fill(~present, FAR).flip(-1).cummin(-1).values.flip(-1)
        before = place.masked_fill(~present, -FAR).cummax(-1).values
        self._after = torch.nn.functional.pad(after, (0, 1), value=FAR)
        self._before = torch.nn.functional.pad(before, (1, 0), value=-FAR)

    def at_or_after(self, place: Tensor) -> Tensor:
        """(items, n): the first at or after each place, FAR where there is none."""
        return self._after.gather(-1, place.clamp(0, self.size))

    def at_or_before(self, place: Tensor) -> Tensor:
        """(items, n): the last at or before each place, -FAR where there is none."""
        return self._before.gather(-1, place.clamp(-1, self.size - 1) + 1)


class _Reach(NamedTuple):
    """Bounds on key - query that do for each item, (items,) int64 each.

    Any low bound from `least` to `low`, any high bound from `high` to `most`.
    """

    least: Tensor
    low: Tensor
    high: Tensor
    most: Tensor


def _by_outline(reader: _Reader) -> _Rule | None:
    middle = reader.whole.shape[2] // 2
    sample = reader.whole[:, :, middle : middle + SAMPLE_ROWS]
    if middle >= SAMPLE_ROWS and _by_outline(_Reader(sample)) is None:
        return None  # some rows of a rule would be a rule
    outline = _outline(reader)
    for mask, present in _proposals(outline):
        alike = bool((present == present[:1]).all())
        holes: Tensor | None = None
        padding: Mask | None = None
        if not _all(present):
            padding = masks.present(present[0] if alike else present)
            runs = torch.diff(present.to(torch.int8)).ne(0).sum(-1).amax() // 2 + 1
            if not alike or (isinstance(padding, Present) and int(runs) > MOST_RUNS):
                holes = present[:1] if alike else present
        rule = _joined(mask, padding)
        if _proves(reader, mask if holes is not None else rule, holes):
            empty = outline.empty
            return _Rule(rule, empty if bool(empty.any()) else None)
    return None


def _joined(*parts: Mask | None) -> Mask | None:
    rules = [part for part in parts if part is not None]
    return reduce(And, rules) if rules else None


def _proposals(outline: _Outline) -> Iterator[tuple[Mask | None, Tensor]]:
    """Masks, each with the keys that are no padding, (items, keys) bool; simple ones first."""
    present = outline.present
    items, rows = outline.first.shape
    keys = present.shape[-1]
    near = _Keys(present)
    row = torch.arange(rows, device=present.device).expand(items, -1)
    start, stop = torch.zeros_like(row), torch.full_like(row, keys)

    band = _band(_reach(outline, near, row, start, stop), rows, keys)
    if band is not None:
        low, high = _bounds(band, present)
        first = near.at_or_after(row + low)
        first = first.masked_fill(first > row + high, FAR)
        last = near.at_or_before(row + high)
        last = last.masked_fill(last < row + low, -1).clamp_min(-1)
        if torch.equal(first, outline.first) and torch.equal(last, outline.last):
            yield _unless_open(band), _without_far_keys(present, low, high, rows)

    query_ids, key_ids = _documents(outline)
    if bool((key_ids != 0).any() | outline.empty.any()):
        _, start, stop = _ranges(query_ids, key_ids)
        counted = outline.empty
        start, stop = start.masked_fill(counted, FAR), stop.masked_fill(counted, 0)
        band = _band(_reach(outline, near, row, start, stop), rows, keys)
        if band is not None:
            low, high = _bounds(band, present)
            query_ids = _of_empty_rows(query_ids, key_ids, outline.empty, near, row, low, high)
            if rows == keys:  # a key that no row sees may have any id
                key_ids = torch.where(present, key_ids, query_ids)
            if bool((query_ids == query_ids[:1]).all() & (key_ids == key_ids[:1]).all()):
                query_ids, key_ids = query_ids[0], key_ids[0]
            rule = _joined(_unless_open(band), Documents(query_ids, key_ids))
            yield rule, _without_far_keys(present, low, high, rows)

    length = (outline.last[:, :1] + 1).clamp_min(0)  # what row 0 sees is the prefix, or causal
    beyond = outline.last >= length
    high = (outline.last - row).masked_fill(~beyond, -FAR).amax(-1)
    place = torch.maximum(row + high.unsqueeze(-1) + 1, length)
    most = (near.at_or_after(place) - row - 1).amin(-1)
    offset = _common_or_each(high, most, keys - rows)
    if offset is not None and bool((most < keys).any()):
        each = torch.as_tensor(offset, device=present.device).expand(items)
        length = length.squeeze(-1)
        length = length.masked_fill(length <= each + 1, 0)
        prefix: PerItem = int(length[0]) if bool((length == length[0]).all()) else length
        column = torch.arange(keys, device=present.device)
        far = (column - each.unsqueeze(-1) > rows - 1) & (column >= length.unsqueeze(-1))
        yield Band(None, 0, offset) | Below(prefix, "prefix"), present | far


def _reach(outline: _Outline, near: _Keys, row: Tensor, start: Tensor, stop: Tensor) -> _Reach:
    """The bounds of a band over the keys that are present, from start to stop for each row."""
    high = (outline.last - row).masked_fill(outline.empty, -FAR).amax(-1)
    low = (outline.first - row).masked_fill(outline.empty, FAR).amin(-1)
    after = near.at_or_after(torch.maximum(row + high.unsqueeze(-1) + 1, start))
    before = near.at_or_before(torch.minimum(row + low.unsqueeze(-1) - 1, stop - 1))
    most = (after - row - 1).masked_fill(after >= stop, FAR).amin(-1)
    least = (before - row + 1).masked_fill(before < start, -FAR).amax(-1)
    return _Reach(least, low, high, most)


def _band(reach: _Reach, rows: int, keys: int) -> Band | None:
    """A band for these bounds, as people would write it; None where no band does."""
    least, low, high, most = reach
    left_open, right_open = bool((least == -FAR).all()), bool((most == FAR).all())
    square = keys - rows  # where query 0 stands if the last query stands at the last key
    if left_open and right_open:
        return Band(None, None, 0)
    if left_open:
        offset = _common_or_each(high, most, square)
        return None if offset is None else Band(None, 0, offset)
    if right_open:
        left = _common_or_each(-low, -least, 0)
        if isinstance(left, int):
            offset = max(0, -left)
            return Band(offset + left, None, offset)
        return None if left is None else Band(0, None, -left)
    right, left = _common(high, most, square), _common(-low, -least, None)
    if right is not None and left is not None:
        offset = _middle(-left, right, square)
        return Band(offset + left, right - offset, offset)
    width = int((high - low).amax().clamp_min(0))
    if width > int((most - least).amin()):
        return None
    lowest, highest = torch.maximum(high, least + width), torch.minimum(most, low + width)
    return Band(width, 0, torch.full_like(low, square).clamp(lowest, highest))


def _middle(low: int, high: int, square: int) -> int:
    """Where query 0 stands, given the least and the most of key - query in a window."""
    usual = (square, 0)
    if high in usual:  # it looks back only
        return high
    if (low + high) % 2 == 0 and (low + high) // 2 in usual:  # as far back as ahead
        return (low + high) // 2
    return 0 if square == 0 and low <= 0 <= high else high


def _common(lowest: Tensor, highest: Tensor, liked: int | None) -> int | None:
    """One number between the bounds of all items: the one we like, 0, or the lowest."""
    low, high = int(lowest.amax()), int(highest.amin())
    if low > high:
        return None
    if liked is None:
        return low
    return next((place for place in (liked, 0) if low <= place <= high), low)


def _common_or_each(lowest: Tensor, highest: Tensor, liked: int) -> PerItem | None:
    one = _common(lowest, highest, liked)
    if one is not None:
        return one
    if bool((lowest > highest).any()):
        return None
    return torch.full_like(lowest, liked).clamp(lowest, highest)


def _unless_open(band: Band) -> Band | None:
    return None if band.left is None and band.right is None else band


def _bounds(band: Band, like: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the most of key - query in a band, (items, 1)."""
    offset = torch.as_tensor(band.offset, device=like.device).expand(len(like)).unsqueeze(-1)
    low = torch.full_like(offset, -FAR) if band.left is None else offset - band.left
    high = torch.full_like(offset, FAR) if band.right is None else offset + band.right
    return low, high


def _without_far_keys(present: Tensor, low: Tensor, high: Tensor, rows: int) -> Tensor:
    """A key that the band alone hides from every row is no padding."""
    key = torch.arange(present.shape[-1], device=present.device)
    return present | (key - high > rows - 1) | (key - low < 0)


def _documents(outline: _Outline) -> tuple[Tensor, Tensor]:
    """The shortest documents that may lie side by side: (items, rows) and (items, keys) ids.

    A row that sees nothing has the id -1.
    """
    first, last, present = outline
    seeing = ~outline.empty
    edges = torch.zeros_like(present, dtype=torch.int64)
    one = seeing.to(torch.int64)
    edges.scatter_add_(-1, first.masked_fill(~seeing, 0), one)
    edges.scatter_add_(-1, last.clamp_min(0), -one)
    linked = edges.cumsum(-1) > 0  # a row sees a key up to here, and one after it
    begins = present.clone()
    begins[:, 1:] &= ~linked[:, :-1]
    key_ids = (begins.cumsum(-1) - 1).clamp_min(0)
    query_ids = key_ids.gather(-1, first.masked_fill(~seeing, 0)).masked_fill(~seeing, -1)
    return query_ids, key_ids


def _ranges(query_ids: Tensor, key_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ids, none below 0, and where the keys with the id of each row start and stop."""
    ids = query_ids.clamp_min(0).contiguous()
    start = torch.searchsorted(key_ids.contiguous(), ids)
    return ids, start, torch.searchsorted(key_ids.contiguous(), ids, right=True)


def _of_empty_rows(
    query_ids: Tensor,
    key_ids: Tensor,
    empty: Tensor,
    near: _Keys,
    row: Tensor,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Rows that see nothing join the next or the previous document, if they see nothing there."""
    last = query_ids.shape[-1] - 1
    after = row.masked_fill(empty, last).flip(-1).cummin(-1).values.flip(-1)
    before = row.masked_fill(empty, 0).cummax(-1).values
    for neighbour in (after, before):
        ids, start, stop = _ranges(query_ids.gather(-1, neighbour), key_ids)
        key = near.at_or_after(torch.maximum(row + low, start))
        nothing = (key >= stop) | (key > row + high)
        query_ids = torch.where((query_ids < 0) & nothing, ids, query_ids)
    return query_ids


def _with_uniform(reader: _Reader, rule: _Rule, queries: int) -> tuple[Mask | None, Tensor | None]:
    """The rule, which shows every key to rows that finite numbers hide, and those rows."""
    if rule.empty is None or reader.numbers is None:
        return rule.mask, None
    items, heads, _, keys = reader.numbers.shape
    uniform = rule.empty.expand(items, -1).clone()
    places = uniform.nonzero()
    for item, row in (p.unbind(-1) for p in places.split(max(1, CHUNK_NUMBERS // (heads * keys)))):
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


def _dense(reader: _Reader, queries: int) -> tuple[Mask, Tensor | None]:
    """The tensor as it is, one head where all are alike, one item where all are alike."""
    whole, uniform = reader.whole, None
    if reader.additive:
        items, heads, rows, _ = whole.shape
        visible = torch.empty(whole.shape, dtype=torch.bool, device=whole.device)
        flagged = torch.zeros(items, rows, dtype=torch.bool, device=whole.device)
        for part in reader.chunks(items, heads):
            block = whole[:, :, part]
            seen = reader.seen(block)
            reader.biased = reader.biased or not _all(~seen | (block == 0))
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
    return all(_all(one == other) for one, other in pairs)
