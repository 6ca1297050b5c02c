"""link_effects(): the links of which the next residual, or a direction in it, would lose most."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pellucid.attention import intervals
from pellucid.attention.block_pool import each
from pellucid.attention.block_statistics import top_places, weights_of
from pellucid.attention.lazy_weights import as_int
from pellucid.attention.scores import Block
from pellucid.errors import ArgumentError
from pellucid.lens.layer_labels import label_layers
from pellucid.lens.layer_selection import Layers, select_records
from pellucid.lens.link_measures import Along, Length, Measure
from pellucid.lens.link_removal import LEAST_REST, Entries, removed_from
from pellucid.lens.link_table import LinkRow, LinkTable
from pellucid.lens.mixing import Mixing, nonzero, unravelled
from pellucid.lens.query_positions import Queries, query_positions
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording, as_recording

__all__ = ["link_effects"]

SPARE = 2
"""Candidates for each link that is asked for: those are measured exactly, and the best stay."""
HEAVY_AT_ONCE = 2**16


def link_effects(
    seen: Recording | Record | Iterable[Record],
    output_weight: Tensor | Mapping[str, Tensor] | None = None,
    *,
    direction: Tensor | None = None,
    k: int = 100,
    layers: Layers | None = None,
    queries: Queries = None,
    renormalize: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> LinkTable:
    """The k links without which the next residual would change most, of all heads together.

        change = W_output (context without the link - context)         see `without`
        lost   = ||change||, or -direction . change

    The residual after the attention is its input plus W_output context, so `change` is what the
    link's removal adds to it, if no norm lies between. With a direction in model space, such as the
    difference between two columns of the unembedding, `lost` is what the dot product with the
    residual loses: above 0 the link supports the direction, below 0 it opposes it. These are direct
    effects: what later layers make of the change is not in them.

    Every visible link is measured, block by block, in O(n) memory: one pass over the weights, a
    second product for the lengths, and, where single links hold more than half of their rows,
    up to one pass more for these rows. The numbers returned are exact, as those of `without`. A
    link of which the effect is a thousandth of its value's length may be ranked by rounding.

    Args:
        seen: a record of `pellucid.watch(model, values=True)`, several, or a recording.
        output_weight: (model_dim, heads * value_dim), as `output_projection(model, seen)` returns
            it: by name for several modules. Defaults to the records' own. Without either, the
            change is that of the context, and there is no direction.
        direction: (model_dim,)
        k: the number of links.
        layers: as for `watch`: which records are measured; all if None.
        queries: positions of the queries whose links are measured, such as [-1]; all if None.
        renormalize: as for `without`.
        progress: called after each module with the number of modules done and the total.

    Returns:
        A table of the links, the largest |lost| first.

    Raises:
        ArgumentError: k is below 1, a record has no values, or a direction has no projection.
        ShapeError: output_weight or direction has the wrong shape.
        UnknownNameError: there are no such layers.
        OutOfRangeError, TypeMismatchError: a position past the end, an argument of another type.
    """
    seen = as_recording(seen)
    if as_int("k", k) < 1:
        raise ArgumentError(f"k must be 1 or more, got {k}")
    latest = seen.latest()
    labels = {
        record.name: label for record, label in zip(latest, label_layers(latest), strict=True)
    }
    records = select_records(latest, layers)
    if isinstance(output_weight, Tensor) and len(records) > 1:
        raise ArgumentError(
            "output_weight is that of one module: give one for each name, as "
            "output_projection(model, seen) returns them"
        )
    rows: list[LinkRow] = []
    for done, record in enumerate(records, start=1):
        weight = record.output_weight
        if isinstance(output_weight, Tensor):
            weight = output_weight
        elif output_weight is not None:
            weight = output_weight.get(record.name, weight)
        with torch.no_grad():
            rows += _rows(
                seen,
                record,
                labels[record.name],
                _strongest(Mixing(record), weight, direction, k, queries, renormalize),
            )
        rows = sorted(rows, key=lambda row: -abs(row.lost))[:k]
        if progress is not None:
            progress(done, len(records))
    return LinkTable(rows)


def _strongest(
    mixing: Mixing,
    weight: Tensor | None,
    direction: Tensor | None,
    k: int,
    queries: Queries,
    renormalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The k strongest links (links, 4), their weights and what is lost without them."""
    positions = query_positions(queries, mixing.operands.shape[2])
    ranges = _ranges(positions, mixing.operands.shape[2])
    if not ranges:
        empty = mixing.value.new_zeros(0)
        return torch.zeros(0, 4, dtype=torch.int64), empty, empty
    hull = slice(ranges[0][0], ranges[-1][1])
    means = None
    if renormalize:
        means = mixing.contexts(hull)
        if mixing.total is not None:
            means = means / nonzero(mixing.total[..., hull, None])
    measure: Measure
    if direction is None:
        measure = Length(mixing, weight, means, hull.start)
    elif weight is None:
        raise ArgumentError("a direction needs output_weight, as output_projection returns it")
    else:
        measure = Along(mixing, weight, means, hull.start, direction)
    links = _candidates(mixing, measure, ranges, SPARE * k, renormalize)
    weights, lost = [], []
    for part in links.split(HEAVY_AT_ONCE):
        number = torch.arange(len(part), device=part.device)
        entries = Entries(part[:, :3], number, number, part[:, 3])
        removal = removed_from(mixing, entries, renormalize)
        weights.append(removal.removed)
        lost.append(measure.of(part, removal.change))
    sizes = torch.cat(lost)
    order = sizes.abs().argsort(descending=True, stable=True)[:k]
    return links[order], torch.cat(weights)[order], sizes[order]


def _candidates(
    mixing: Mixing,
    measure: Measure,
    ranges: intervals.Intervals,
    count: int,
    renormalize: bool,
) -> Tensor:
    """(links, 4): those of most effect, and those that hold more than half of their rows."""
    scores, device = mixing.operands, mixing.value.device
    hull = slice(ranges[0][0], ranges[-1][1])
    logsumexp = scores.query.new_full(scores.shape[:3], torch.inf, dtype=scores.dtype)
    own = mixing.weights.rows(hull).logsumexp.detach()
    logsumexp[:, :, hull] = own.reshape(*scores.shape[:2], -1)

    def strongest(block: Block) -> tuple[Tensor, Tensor, Tensor]:
        shares = weights_of(scores, logsumexp, block)
        if mixing.total is not None:
            rows = mixing.total[block.items, block.heads, block.rows]
            shares = shares / nonzero(rows).unsqueeze(-1)
        effect, heavy = shares, shares[..., 0, 0].new_zeros(0, dtype=torch.bool)
        if renormalize:
            rest = 1 - shares
            heavy = rest < LEAST_REST
            effect = shares.masked_fill(heavy, 0).div_(rest.clamp_min_(LEAST_REST))
        effect = (effect * measure.in_block(block)).flatten()
        if mixing.total is not None:
            effect = (effect.view_as(shares) * rows.unsqueeze(-1)).flatten()
        best = top_places(effect.unsqueeze(0), min(count, len(effect)))[0]
        best = best[effect[best] > 0]
        sizes = effect[best]
        positions = torch.stack(unravelled(best, shares.shape), -1)
        if renormalize:
            positions = torch.cat([positions, heavy.nonzero()])
        columns = intervals.positions(block.cols, device)
        starts = (block.items.start, block.heads.start, block.rows.start)
        where = positions[:, :3] + torch.tensor(starts, device=device)
        where = torch.cat([where, columns[positions[:, 3]].unsqueeze(-1)], -1)
        return sizes, where[: len(sizes)], where[len(sizes) :]

    sizes, links = mixing.value.new_zeros(0), torch.zeros(0, 4, dtype=torch.int64, device=device)
    dominant = [links]
    blocks = (block for span in ranges for block in scores.blocks(queries=slice(*span)))
    for _, (more, where, heavy) in each(strongest, blocks, device, False):
        sizes, links = torch.cat([sizes, more]), torch.cat([links, where])
        best = sizes.topk(min(count, len(sizes))).indices
        sizes, links = sizes[best], links[best]
        dominant.append(heavy)
    return torch.cat([links, *dominant])


def _ranges(positions: Tensor, size: int) -> intervals.Intervals:
    flags = torch.zeros(size, dtype=torch.bool)
    flags[positions] = True
    return intervals.runs(flags)


def _rows(
    seen: Recording,
    record: Record,
    label: tuple[str, int],
    strongest: tuple[Tensor, Tensor, Tensor],
) -> list[LinkRow]:
    links, weights, lost = (x.cpu() for x in strongest)
    tokens = [
        _tokens(seen, ids, links[:, [0, column]])
        for ids, column in ((record.query_ids, 2), (record.key_ids, 3))
    ]
    return [
        LinkRow(
            layer=label[1],
            head=head,
            name=record.name,
            stack=label[0],
            item=item,
            query=query,
            key=key,
            query_token=query_token,
            key_token=key_token,
            weight=weight,
            lost=size,
        )
        for (item, head, query, key), weight, size, query_token, key_token in zip(
            links.tolist(), weights.tolist(), lost.tolist(), *tokens, strict=True
        )
    ]


def _tokens(seen: Recording, ids: Tensor | None, positions: Tensor) -> list[str]:
    """The tokens at positions (links, 2), item and position."""
    if ids is None:
        return [""] * len(positions)
    flat = ids.reshape(-1, ids.shape[-1]).cpu()
    item = positions[:, 0] if len(flat) > 1 else torch.zeros_like(positions[:, 0])
    return seen.strings(flat[item, positions[:, 1]])
