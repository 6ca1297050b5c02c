"""Scores, weights and contexts of some rows, recomputed from what a record holds."""

import torch
from torch import Tensor

from pellucid.attention.masks import Extent, Mask
from pellucid.lens.record import Record


def lengths(record: Record, item: int, rows: Tensor) -> Tensor:
    """(heads, rows, 1): a bound of the scores, scale * |q| * max |k|."""
    query, key = record.queries.tensor[item][:, rows].float(), record.keys.tensor[item].float()
    longest = torch.linalg.vector_norm(key, dim=-1).amax(-1)
    longest = longest.repeat_interleave(len(query) // len(key))[:, None, None]
    length: Tensor = torch.linalg.vector_norm(query, dim=-1, keepdim=True) * longest
    return length * scale_of(record)


def scale_of(record: Record) -> float:
    scale = record.scale
    return float(record.queries.tensor.shape[-1] ** -0.5) if scale is None else scale


def scores_of(record: Record, item: int, rows: Tensor) -> Tensor:
    """(heads, rows, keys) in float32 or better, -inf where hidden."""
    query, key = record.queries.tensor[item][:, rows], record.keys.tensor[item]
    key = key.to(torch.promote_types(key.dtype, torch.float32))
    heads, count, dim = query.shape
    # Heads that share a key are rows of one product.
    query = query.to(key).reshape(len(key), -1, dim)
    scores = ((query * scale_of(record)) @ key.mT).view(heads, count, -1)
    if record.softcap is not None:
        scores = record.softcap * torch.tanh(scores / record.softcap)
    bias = record.bias
    if bias is not None:
        scores = scores + bias.expand(record.shape)[item][:, rows]
    uniform = record.visibility.uniform_rows(record.shape[-2])
    if uniform is not None:
        scores = scores.masked_fill(of_item(uniform, item)[rows].unsqueeze(-1), 0)
    mask = record.mask
    if mask is not None:
        scores = scores.masked_fill(~visible(mask, record, item, rows), -torch.inf)
    return scores


def weights_of(record: Record, scores: Tensor, item: int, rows: Tensor) -> Tensor:
    if record.logsumexps is not None:
        logsumexp = record.logsumexps.tensor[item][:, rows].to(scores)
        return torch.exp(scores - logsumexp.unsqueeze(-1))
    if record.sinks is None:
        hidden = (scores == -torch.inf).all(-1, keepdim=True)
        return scores.softmax(-1).masked_fill(hidden, 0)
    sinks = record.sinks[:, None, None].to(scores).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


def product(weights: Tensor, value: Tensor) -> Tensor:
    """(heads, rows, value_dim), of (heads, rows, keys) and (kv_heads, keys, value_dim)."""
    grouped = weights.reshape(len(value), -1, weights.shape[-1]) @ value
    return grouped.view(*weights.shape[:-1], -1)


def visible(mask: Mask, record: Record, item: int, rows: Tensor) -> Tensor:
    """(heads or 1, rows, keys) bool."""
    batch, heads, queries, keys = record.shape
    device = record.keys.tensor.device
    bound = mask.bind(Extent(torch.Size((batch,)), heads, queries, keys, device))
    head, col = (torch.arange(size, device=device) for size in (heads, keys))
    row = rows.to(device)
    number = torch.tensor(item, device=device)
    seen = bound.sees(number, head[:, None, None], row.unsqueeze(-1), col)
    return seen if seen.ndim > 1 else seen.unsqueeze(0)


def of_item(flags: Tensor, item: int) -> Tensor:
    """(queries,) bool, of (batch or 1, queries) flags."""
    return flags[item if len(flags) > 1 else 0]
