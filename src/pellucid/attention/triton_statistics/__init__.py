"""Statistics of all weights on a GPU, by kernels of our own in Triton.

Column sums are read key by key, all else query by query; a tile of scores or weights never leaves
the chip. Nothing is added by two programs in one place, so that the same call has the same digits.
It needs Triton, which comes with PyTorch for CUDA (`pip install 'pellucid[gpu]'` elsewhere);
`block_statistics.summarise_in_torch` is the same in torch.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pellucid.attention.backends.blockwise import finite
from pellucid.attention.intervals import Intervals, positions
from pellucid.attention.masks.row_ranges import RowRanges, row_ranges
from pellucid.attention.scores import Scores

LOG2_E = 1.4426950408889634
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_WIDTH = 256
"""Most dimensions per head."""
MOST_TOP = 64
"""Most of the strongest keys, which a program keeps in registers."""
LEAST_CELL = 16
"""Fewest queries or keys of a cell: the least that a product takes."""
MOST_TILES = 2**28
"""Most pairs of a tile of queries and one of keys in a plan, a byte each while it is made."""


class Tile(NamedTuple):
    """Rows and columns of a tile, and how a program of it runs."""

    resident: int
    """Keys of a program of column sums, queries of one of rows."""
    read: int
    """What it reads at a time, of the other side."""
    num_warps: int
    num_stages: int


def is_best(scores: Scores, top: int) -> bool:
    """Whether the kernels support these scores; their mask is looked at later."""
    query, key = scores.query, scores.key
    fits = query.is_cuda and query.dtype in DTYPES and scores.energy.is_dot_product
    fits = fits and query.shape[-1] <= MOST_WIDTH and top <= MOST_TOP and key.dtype == query.dtype
    fits = fits and 0 not in scores.shape and torch.cuda.get_device_capability(query.device) >= (8,)
    return fits and _kernels() is not None


@cache
def _kernels() -> ModuleType | None:
    """The kernels; None without Triton."""
    if find_spec("triton") is None:
        return None
    from pellucid.attention.triton_statistics import kernels

    return kernels


def statistics(
    scores: Scores,
    logsumexp: Tensor,
    want: frozenset[str],
    top: int = 0,
    queries: Intervals | None = None,
) -> dict[str, Tensor] | None:
    """As `block_statistics.statistics`, float32; None where a query sees several ranges of keys.

    Args:
        logsumexp: (batch, heads, queries), sinks included.
        queries: those that count, as ranges; all unless given.
    """
    rows, keys = scores.shape[2:]
    device = scores.query.device
    ranges = row_ranges(scores.mask, rows, keys, device)
    if ranges is None or len(ranges.begins) * rows * keys > MOST_TILES * 2**12:
        return None
    if queries is not None:
        counts = torch.zeros(rows, dtype=torch.int64, device=device)
        if queries:
            counts[positions(queries, device)] = 1
        ranges = RowRanges(ranges.begins * counts, ranges.ends * counts)
    shift = (finite(logsumexp.float()) * LOG2_E).contiguous()
    summary: dict[str, Tensor] = {}
    with _device_context(device):
        if "received" in want:
            summary["received"] = _received(scores, shift, ranges)
        if want - {"received"} or top:
            summary |= _of_rows(scores, shift, ranges, want, top)
    return summary


def pool(
    scores: Scores,
    logsumexp: Tensor,
    rows: int,
    cols: int,
    reduce: str,
    queries: slice,
    keys: slice,
) -> Tensor | None:
    """As `block_statistics.pool`; None where cells are small, or a query sees several ranges."""
    height, width = queries.stop - queries.start, keys.stop - keys.start
    if min(height // rows, width // cols) < LEAST_CELL:
        return None
    device = scores.query.device
    batch, heads, all_queries, all_keys = scores.shape
    ranges = row_ranges(scores.mask, all_queries, all_keys, device)
    if ranges is None:
        return None
    tile = tile_of(scores.query.shape[-1], scores.query.dtype, scores.bias is not None)
    begins, ends = (x.int().contiguous() for x in ranges)
    shift = (finite(logsumexp.float()) * LOG2_E).contiguous()
    out = shift.new_empty(batch, heads, rows, cols)
    tensors, strides = _operands(scores)
    sizes, constants = _options(scores, tile)
    kernels = _kernels()
    assert kernels is not None
    with _device_context(device):
        kernels.pooled[(rows * cols * batch * heads,)](
            *tensors,
            *(shift, begins, ends, out),
            *strides,
            _shared(begins),
            *sizes,
            *(queries.start, keys.start, height, width, rows, cols),
            ROWS=tile.read,
            COLS=tile.read,
            MEAN=reduce == "mean",
            **constants,
        )
    return out


def _device_context(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def tile_of(width: int, dtype: torch.dtype, has_bias: bool) -> Tile:
    """What fits in the registers and the shared memory of a multiprocessor.

    A table and no search: a search would time kernels, which takes a GPU and seconds.
    """
    size = width * dtype.itemsize
    if dtype == torch.float32:  # whose products are not made by the tensor cores
        return Tile(32, 32, 4, 2) if size <= 512 else Tile(32, 32, 4, 1)
    # The bias is read ahead too.
    return Tile(128, 64, 8, 2 if has_bias else 3) if size <= 256 else Tile(64, 32, 4, 2)


def plan_of(ranges: RowRanges, keys: int, rows: int, cols: int, by_keys: bool) -> Tensor:
    """The tiles that each program visits: (batch, programs, 4) int32.

    From the first to the last, and between them from `full_low` to `full_high` those of which every
    row sees every key; a row past the last and a key past the last are no reason to ask.

    Args:
        ranges: what each query sees.
        keys: how many there are.
        rows, cols: of a tile.
        by_keys: whether a program has a tile of keys, and visits tiles of queries.
    """
    begins, ends = ranges
    is_empty = begins >= ends
    first = _per_tile(begins.masked_fill(is_empty, keys), rows, keys).amin(-1)
    last = _per_tile(ends.masked_fill(is_empty, 0), rows, 0).amax(-1)
    inner_first = _per_tile(begins.masked_fill(is_empty, keys), rows, 0).amax(-1)
    inner_last = _per_tile(ends.masked_fill(is_empty, 0), rows, keys).amin(-1)
    if not by_keys:
        low, high = first // cols, -(-last // cols)
        high = high.maximum(low)
        full_low = (-(-inner_first // cols)).clamp(low, high)
        full_high = (inner_last // cols).clamp(low, high).maximum(full_low)
        return torch.stack([low, full_low, full_high, high], -1).int().contiguous()
    starts = torch.arange(0, keys, cols, device=begins.device)[:, None]
    stops = (starts + cols).clamp_max(keys)
    seen = (first[:, None] < stops) & (last[:, None] > starts)
    full = (inner_first[:, None] <= starts) & (inner_last[:, None] >= stops)
    low, high, _ = _hull(seen)
    full_low, full_high, is_whole = _hull(full)
    full_low = full_low.where(is_whole, high)
    full_high = full_high.where(is_whole, high)
    return torch.stack([low, full_low, full_high, high], -1).int().contiguous()


def _per_tile(values: Tensor, rows: int, fill: int) -> Tensor:
    """(batch, tiles, rows) of (batch, queries)."""
    missing = -values.shape[-1] % rows
    return pad(values, (0, missing), value=fill).reshape(len(values), -1, rows)


def _hull(flags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first True in the last dimension, the one after the last, and whether all between are."""
    count = flags.sum(-1)
    flags = flags.to(torch.int8)
    low = flags.argmax(-1) * (count > 0)
    high = (flags.shape[-1] - flags.flip(-1).argmax(-1)) * (count > 0)
    return low, high, (count > 0) & (high - low == count)


def _operands(scores: Scores) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[int, ...]]:
    """Query, key and bias, or anything in its place, and all their strides."""
    bias = scores.query if scores.bias is None else scores.bias
    tensors = scores.query, scores.key, bias
    return tensors, tuple(stride for x in tensors for stride in x.stride())


def _options(scores: Scores, tile: Tile) -> tuple[tuple[int, int, int, int, float, float], dict]:  # type: ignore[type-arg]
    """The sizes and factors of a call, and what its kernel is compiled for."""
    heads, queries, keys = scores.shape[1:]
    softcap = scores.softcap or 0.0
    scale = scores.scale if softcap else scores.scale * LOG2_E
    dim = scores.query.shape[-1]
    return (heads, scores.group, queries, keys, scale, softcap), {
        "DIM": dim,
        "WIDTH": max(16, 1 << (dim - 1).bit_length()),
        "BIAS": scores.bias is not None,
        "SOFTCAP": bool(softcap),
        "PRECISION": "ieee",
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


def _shared(tensor: Tensor) -> int:
    """The stride from item to item, 0 where all have the same."""
    return tensor.stride(0) if len(tensor) > 1 else 0


def _received(scores: Scores, shift: Tensor, ranges: RowRanges) -> Tensor:
    batch, heads, _, keys = scores.shape
    tile = tile_of(scores.query.shape[-1], scores.query.dtype, scores.bias is not None)
    begins, ends = (x.int().contiguous() for x in ranges)
    plan = plan_of(ranges, keys, tile.read, tile.resident, by_keys=True)
    out = shift.new_empty(batch, heads, keys)
    tensors, strides = _operands(scores)
    sizes, constants = _options(scores, tile)
    kernels = _kernels()
    assert kernels is not None
    kernels.received[(-(-keys // tile.resident) * batch * heads,)](
        *tensors,
        *(shift, begins, ends, plan, out),
        *strides,
        *(_shared(begins), _shared(plan)),
        *sizes,
        COLS=tile.resident,
        ROWS=tile.read,
        **constants,
    )
    return out


def _of_rows(
    scores: Scores, shift: Tensor, ranges: RowRanges, want: frozenset[str], top: int
) -> dict[str, Tensor]:
    batch, heads, rows, keys = scores.shape
    tile = tile_of(scores.query.shape[-1], scores.query.dtype, scores.bias is not None)
    begins, ends = (x.int().contiguous() for x in ranges)
    plan = plan_of(ranges, keys, tile.resident, tile.read, by_keys=False)
    offset = 0 if scores.mask is None or scores.mask.offset is None else scores.mask.offset
    offsets = torch.as_tensor(offset, dtype=torch.int64, device=shift.device).reshape(-1)
    slots = 1 << (top - 1).bit_length() if top else 1
    figures = {name: torch.empty_like(shift) for name in ("entropy", "distance", "peak")}
    best = shift.new_empty(batch, heads, rows, slots if top else 0)
    columns = torch.empty_like(best, dtype=torch.int32)
    tensors, strides = _operands(scores)
    sizes, constants = _options(scores, tile)
    kernels = _kernels()
    assert kernels is not None
    kernels.of_rows[(-(-rows // tile.resident) * batch * heads,)](
        *tensors,
        *(shift, begins, ends, plan, offsets),
        *figures.values(),
        *(best, columns),
        *strides,
        *(_shared(begins), _shared(plan), _shared(offsets)),
        *sizes,
        ROWS=tile.resident,
        COLS=tile.read,
        ENTROPY="entropy" in want,
        DISTANCE="distance" in want,
        PEAK="peak" in want,
        TOP=top,
        SLOTS=slots,
        **constants,
    )
    figures = {name: figure for name, figure in figures.items() if name in want}
    if top:
        best, order = best[..., :top].sort(-1, descending=True)
        values = torch.exp2(best - shift.unsqueeze(-1))
        indices = columns[..., :top].gather(-1, order).long()
        figures["values"] = values
        figures["indices"] = indices.masked_fill(values == 0, -1)
    return figures
