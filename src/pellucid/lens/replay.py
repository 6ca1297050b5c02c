"""A recorder that proves itself: what was recorded must give what the model got."""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from pellucid.attention.masks import Extent, Mask
from pellucid.lens import selection
from pellucid.lens.record import Part, Pieces, Record
from pellucid.lens.taps import Call

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far a replay may be from what the model got, over the largest number in it."""
Rows = slice | list[int]


class Prover:
    """Proves records, one for each kind of module that is called alike."""

    def __init__(self) -> None:
        self.proven: set[Hashable] = set()

    def contradiction(
        self, module: nn.Module, record: Record, call: Call, value: Part
    ) -> str | None:
        """How the record of a module's call contradicts it; None where it does not, or need not.

        Args:
            value: (..., kv_heads, keys, value_dim), of the keys that were recorded.
        """
        kind = (selection.kind(module), call.form, record.mask is None, not record.biases)
        if kind in self.proven:
            return None
        # An empty slot of a static cache has a share of a padding row; it is not kept.
        is_cut = record.keys.length < call.key.shape[-2]
        blank = record.visibility.uniform if is_cut else None
        wrong = _contradiction(record, call, Pieces(value).tensor, blank)
        if wrong is None and not call.dropout:  # which leaves nothing to be proven by
            self.proven.add(kind)
        return wrong


def _contradiction(record: Record, call: Call, value: Tensor, without: Tensor | None) -> str | None:
    """How the record contradicts what the call returned; None where it does not.

    A few rows of the first and the last item are computed again, by the formula: the last, one in
    the middle, and the first or the second, which show whether a call was causal.

    Args:
        value: (..., kv_heads, keys, value_dim), of the keys that were recorded.
        without: (batch or 1, queries) bool, rows that are left out.
    """
    if call.context is None or call.dropout or not value.numel():
        return None
    *batch, _, queries, _ = record.shape
    step = max(1, (queries - 1) // 2)
    with torch.no_grad():
        for item in {tuple(0 for _ in batch), tuple(size - 1 for size in batch)}:
            spread = slice((queries - 1) % step, queries, step)
            rows: Rows = spread
            if without is not None:
                blank = _of_item(without, item).tolist()
                rows = [row for row in range(queries)[spread] if not blank[row]]
                if not rows:
                    continue
            ours = _replay(record, call, value[item], item, rows)
            theirs = call.context[item][..., rows, :].to(ours)
            error, size = _difference(ours, theirs)
            if error != error:  # what a row is that sees nothing, zero or NaN, is the kernel's own
                error, size = _difference(ours.nan_to_num(), theirs.nan_to_num())
            tolerance = max(TOLERANCE[x.dtype] for x in (call.context, record.key))
            if error > tolerance * max(size, 1e-6):
                return (
                    f"does more than attention as Pellucid knows it: its weights give a context "
                    f"that is off by {error:.1g} where the largest number is {size:.1g}"
                )
    return None


def _replay(record: Record, call: Call, value: Tensor, item: tuple[int, ...], rows: Rows) -> Tensor:
    """The context of some rows of an item, (heads, rows, value_dim) or (rows, model_dim)."""
    query, key = record.query[item][:, rows], record.key[item]
    key = key.to(torch.promote_types(key.dtype, torch.float32))
    heads, count, dim = query.shape
    # Heads that share a key become more rows of one product.
    query = query.to(key).reshape(len(key), -1, dim)
    scale = dim**-0.5 if record.scale is None else record.scale
    scores = ((query * scale) @ key.mT).view(heads, count, -1)
    if record.softcap is not None:
        scores = record.softcap * torch.tanh(scores / record.softcap)
    if record.bias is not None:
        scores = scores + record.bias.expand(record.shape)[item][:, rows]
    uniform = record.visibility.uniform_rows(record.shape[-2])
    if uniform is not None:
        scores = scores.masked_fill(_of_item(uniform, item)[rows].unsqueeze(-1), 0)
    mask = record.mask
    if mask is not None:
        scores = scores.masked_fill(~_seen(mask, record, item, rows), -torch.inf)
    if record.logsumexps is not None:
        logsumexp = record.logsumexps.tensor[item][:, rows].to(scores)
        weights = torch.exp(scores - logsumexp.unsqueeze(-1))
    elif record.sinks is None:
        weights = scores.softmax(-1)
    else:
        sinks = record.sinks[:, None, None].to(scores).expand(heads, count, 1)
        weights = torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
    context = (weights.view(len(key), -1, weights.shape[-1]) @ value.to(key)).view(heads, count, -1)
    if call.projection is not None:
        weight, bias = (None if x is None else x.to(context) for x in call.projection)
        assert weight is not None
        context = nn.functional.linear(context.transpose(0, 1).flatten(1), weight, bias)
    return context


def _seen(mask: Mask, record: Record, item: tuple[int, ...], rows: Rows) -> Tensor:
    """(heads or 1, rows, keys) bool."""
    *batch, heads, queries, keys = record.shape
    device = record.key.device
    bound = mask.bind(Extent(torch.Size(batch), heads, queries, keys, device))
    number = torch.zeros((), dtype=torch.int64, device=device)
    for at, size in zip(item, batch, strict=True):
        number = number * size + at
    head, row, col = (torch.arange(size, device=device) for size in (heads, queries, keys))
    seen = bound.sees(number, head[:, None, None], row[rows].unsqueeze(-1), col)
    return seen if seen.ndim > 1 else seen.unsqueeze(0)


def _of_item(flags: Tensor, item: tuple[int, ...]) -> Tensor:
    """(queries,) bool, of flags that are (batch or 1, queries)."""
    return flags[int(item[0]) if len(flags) > 1 else 0]


def _difference(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """The largest difference, and the largest number."""
    error, size = (torch.linalg.vector_norm(x, torch.inf) for x in (ours - theirs, theirs))
    return float(error), float(size)
