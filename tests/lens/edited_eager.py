"""What edits of attention must give: a model's own eager code in float64, its scores masked."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

EagerEdit = Callable[[str, Tensor, Tensor | None], tuple[Tensor | None, Tensor | None]]
"""From a module's name, its query (batch, heads, queries, dim) and a (batch, heads, queries, keys)
tensor of ones: what is added to its scores, and the factors of its heads' outputs, which broadcast
to (batch, heads, queries); None for nothing."""


@contextmanager
def eager_edits(model: nn.Module, edit: EagerEdit) -> Iterator[None]:
    """The `eager_attention_forward` of a model's file adds to its scores, and scales its heads."""
    names = {id(module): name for name, module in model.named_modules()}
    files = [sys.modules[name] for name in {type(part).__module__ for part in model.modules()}]
    files = [file for file in files if hasattr(file, "eager_attention_forward")]
    assert files, "the model's eager attention is not a function of its own"
    before = [file.eager_attention_forward for file in files]
    for file, original in zip(files, before, strict=True):
        file.eager_attention_forward = partial(_edited, original, names, edit)
    try:
        yield
    finally:
        for file, original in zip(files, before, strict=True):
            file.eager_attention_forward = original


def _edited(
    original: Callable[..., Any],
    names: dict[int, str],
    edit: EagerEdit,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *rest: Any,
    **options: Any,
) -> Any:
    ones = query.new_ones(*query.shape[:3], key.shape[2])
    added, factors = edit(names[id(module)], query, ones)
    if added is not None:
        attention_mask = added if attention_mask is None else attention_mask + added
    context, weights = original(module, query, key, value, attention_mask, *rest, **options)
    if factors is not None:  # (batch, queries, heads, dim)
        context = context * factors.transpose(1, 2).unsqueeze(-1)
    return context, weights


def in_float64(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}


def hidden(ones: Tensor, items: Any, heads: Any, rows: Any, cols: Any) -> Tensor:
    """What hides some links: -inf there, 0 elsewhere; each argument an index."""
    added = torch.zeros_like(ones)
    chosen = torch.zeros_like(ones, dtype=torch.bool)
    grid = torch.meshgrid(
        *(torch.arange(n)[i] for n, i in zip(ones.shape, (items, heads, rows, cols), strict=True)),
        indexing="ij",
    )
    chosen[grid] = True
    return added.masked_fill(chosen, -torch.inf)


def assert_close(ours: Tensor, truth: Tensor, rows: Tensor | None = None) -> None:
    """Within 1e-5 of the largest number."""
    size = truth.abs().max().clamp_min(1e-9)
    ours, truth = ours.double() / size, truth.double() / size
    if rows is not None:
        ours, truth = ours[rows], truth[rows]
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-5)
