"""What the tests of attention share: inputs of every kind, masks by definition, error budgets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from pellucid import masks
from pellucid.attention.masks import Rows
from pellucid.attention.reference import Stages, stages

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Whether query i of item b sees key j, as the documentation says it; of all of them at once."""


def by_rule(rule: Rule, batch: int, queries: int, keys: int) -> Tensor:
    """(batch, 1, queries, keys) bool, from the definition."""
    b, i, j = torch.meshgrid(*(torch.arange(n) for n in (batch, queries, keys)), indexing="ij")
    return rule(b, i, j).reshape(batch, 1, queries, keys)


@st.composite
def mask_rules(
    draw: Any, batch_shape: tuple[int, ...], queries: int, keys: int, depth: int = 2
) -> tuple[Any, Rule]:
    """A mask and its definition, the latter written without the former."""
    kinds = ["causal", "window", "padding", "flags", "rows", "prefix", "documents", "dense"]
    kind = draw(st.sampled_from(kinds + (["and", "or", "not"] if depth else [])))
    batch = torch.Size(batch_shape).numel()
    per_item = bool(batch_shape) and draw(st.booleans())

    def numbers(low: int, high: int) -> tuple[Any, Tensor]:
        if per_item:
            values = draw(st.lists(st.integers(low, high), min_size=batch, max_size=batch))
            return torch.tensor(values), torch.tensor(values)
        value = draw(st.integers(low, high))
        return value, torch.full((batch,), value)

    if kind == "causal":
        given, o = numbers(-queries, keys)
        return masks.causal(given), lambda b, i, j: j <= i + o[b]
    if kind == "window":
        given, o = numbers(-queries, keys)
        left = draw(st.none() | st.integers(0, keys))
        right = draw(st.none() | st.integers(0, keys))
        low = -torch.inf if left is None else -left
        high = torch.inf if right is None else right
        return (
            masks.window(left, right, given),
            lambda b, i, j: (i + o[b] + low <= j) & (j <= i + o[b] + high),
        )
    if kind in ("padding", "prefix"):
        given, n = numbers(0, keys)
        return getattr(masks, kind)(given), lambda b, i, j: j < n[b]
    if kind in ("flags", "rows"):
        size = keys if kind == "flags" else queries
        flags = draw(key_flags(batch if per_item else 1, size))
        given = flags if per_item else flags[0]
        flags = flags.expand(batch, -1)
        if kind == "rows":
            return Rows(given), lambda b, i, j: flags[b, i]
        return masks.padding(given), lambda b, i, j: flags[b, j]
    if kind == "documents":
        seed = draw(st.integers(0, 2**16))
        shape = (batch if per_item else 1, queries + keys)
        ids = torch.randint(3, shape, generator=torch.Generator().manual_seed(seed))
        row, col = ids[:, :queries], ids[:, queries:]
        if draw(st.booleans()):
            row, col = row.sort().values, col.sort().values
        outer = batch_shape if per_item else ()
        if not per_item:
            row, col = row.expand(batch, -1), col.expand(batch, -1)
        given = (x[: None if per_item else 1].reshape(*outer, -1) for x in (row, col))
        return masks.documents(*given), lambda b, i, j: row[b, i] == col[b, j]
    if kind == "dense":
        shape = (batch if per_item else 1, queries, keys)
        seed = draw(st.integers(0, 2**16))
        share = draw(st.sampled_from([0.1, 0.5, 0.9]))
        visible = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
        shape = (*batch_shape, 1, queries, keys) if per_item else (queries, keys)
        return masks.dense(visible.reshape(shape)), lambda b, i, j: visible[
            b if per_item else 0, i, j
        ]
    left_mask, left_rule = draw(mask_rules(batch_shape, queries, keys, depth - 1))
    if kind == "not":
        return ~left_mask, lambda b, i, j: ~left_rule(b, i, j)
    right_mask, right_rule = draw(mask_rules(batch_shape, queries, keys, depth - 1))
    if kind == "and":
        return left_mask & right_mask, lambda b, i, j: left_rule(b, i, j) & right_rule(b, i, j)
    return left_mask | right_mask, lambda b, i, j: left_rule(b, i, j) | right_rule(b, i, j)


@st.composite
def key_flags(draw: Any, batch: int, size: int) -> Tensor:
    """(batch, size) bool: padding on the left, on the right, or holes anywhere."""
    side = draw(st.sampled_from(["left", "right", "holes"]))
    if side == "holes":
        seed = draw(st.integers(0, 2**16))
        return torch.rand(batch, size, generator=torch.Generator().manual_seed(seed)) < 0.7
    counts = draw(st.lists(st.integers(0, size), min_size=batch, max_size=batch))
    real = torch.arange(size) < torch.tensor(counts)[:, None]
    return real.flip(-1) if side == "left" else real


@dataclass(repr=False)
class Case:
    """One call of attention, and what it means in float64."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any = None
    visible: Tensor | None = None
    """The mask by its definition, broadcasting to (..., heads, queries, keys)."""
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = [tuple(x.shape) for x in (self.query, self.key, self.value)]
        return f"Case({shapes}, {self.query.dtype}, {self.mask}, {self.options})"

    def reference(self, dtype: torch.dtype = torch.float64) -> Stages:
        options = {
            name: option.to(dtype) if isinstance(option, Tensor) else option
            for name, option in self.options.items()
        }
        q, k, v = (x.detach().to(dtype) for x in (self.query, self.key, self.value))
        return stages(q, k, v, self.visible, **options)


def random(
    *shape: int, seed: int, dtype: torch.dtype = torch.float32, layout: str = "plain"
) -> Tensor:
    """Normal numbers in one of the memory layouts that callers have."""
    generator = torch.Generator().manual_seed(seed)
    if layout == "heads_last":  # (batch, n, heads, dim) seen as (batch, heads, n, dim)
        order = (*shape[:-3], shape[-2], shape[-3], shape[-1])
        return torch.randn(order, generator=generator).to(dtype).transpose(-3, -2)
    if layout == "dim_strided":
        return torch.randn((*shape[:-1], 2 * shape[-1]), generator=generator).to(dtype)[..., ::2]
    if layout == "expanded":
        return torch.randn((1, *shape[-2:]), generator=generator).to(dtype).expand(shape)
    return torch.randn(shape, generator=generator).to(dtype)


@st.composite
def cases(
    draw: Any,
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
    fused: bool = False,
    queries_and_keys: tuple[tuple[int, ...], tuple[int, ...]] = ((1, 5, 37), (1, 7, 41)),
) -> Case:
    """Any call; with fused, only what the fused kernels can do."""
    batch_shape = draw(st.sampled_from([(), (1,), (2,), (2, 3)]))
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    heads = kv_heads * draw(st.sampled_from([1, 2]))
    queries, keys = (draw(st.sampled_from(sizes)) for sizes in queries_and_keys)
    key_dim, value_dim = draw(st.sampled_from([3, 11])), draw(st.sampled_from([2, 11, 13]))
    dtype = draw(st.sampled_from(dtypes))
    layouts = st.sampled_from(["plain", "heads_last", "dim_strided", "expanded"])
    seed = draw(st.integers(0, 2**16))
    sizes = ((heads, queries, key_dim), (kv_heads, keys, key_dim), (kv_heads, keys, value_dim))
    q, k, v = (
        random(*batch_shape, *size, seed=seed + i, dtype=dtype, layout=draw(layouts))
        for i, size in enumerate(sizes)
    )
    case = Case(q, k, v)
    if draw(st.integers(0, 3)):
        case.mask, rule = draw(mask_rules(batch_shape, queries, keys))
        batch = torch.Size(batch_shape).numel()
        case.visible = by_rule(rule, batch, queries, keys).reshape(*batch_shape, 1, queries, keys)
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(keys,), (heads, queries, keys), (queries, 1)]))
        case.options["bias"] = random(*shape, seed=seed + 7, dtype=dtype)
    if draw(st.booleans()):
        case.options["scale"] = draw(st.sampled_from([0.25, 1.0, 3.0]))
    if draw(st.booleans()):
        case.options["sinks"] = random(heads, seed=seed + 8, dtype=dtype)
    if not fused and draw(st.booleans()):
        case.options["softcap"] = 2.0
    return case


def assert_within_budget(
    fast: Tensor, plain: Tensor, exact: Tensor, rounding: float, scores: Tensor | None = None
) -> None:
    """The fast path may err no more than plain low-precision code, plus a few roundings.

    An error in a score is a relative error of its weight, so scores, if given, widen the roundings
    by the largest of them. rounding is the relative error of one operation.
    """
    assert fast.shape == exact.shape
    if not exact.numel():
        return
    error = (fast.detach().double() - exact).abs().max()
    plain_error = (plain.detach().double() - exact).abs().max()
    largest = max(1.0, float(exact.abs().max()))
    if scores is not None:
        largest *= (
            1 + float(scores[scores.isfinite()].abs().amax()) if scores.isfinite().any() else 1
        )
    budget = 2 * plain_error + 8 * rounding * largest
    assert error <= budget, f"error {error:.1e} over a budget of {budget:.1e}"


@st.composite
def indices(draw: Any, shape: torch.Size) -> list[Any]:
    index: list[Any] = []
    picked = draw(st.sampled_from([(1,), (3,), (2, 1), (2, 3), ()]))
    for size in shape:
        kind = draw(st.sampled_from(["int", "slice", "slice", "all", "tensor"]))
        if kind == "int":
            index.append(draw(st.integers(-size, size - 1)))
        elif kind == "slice":
            index.append(
                slice(
                    draw(st.none() | st.integers(-size, size)),
                    None,
                    draw(st.sampled_from([None, 1, 2])),
                )
            )
        elif kind == "all":
            index.append(slice(None))
        else:
            seed = draw(st.integers(0, 99))
            generator = torch.Generator().manual_seed(seed)
            index.append(torch.randint(-size, size, picked, generator=generator))
        if draw(st.integers(0, 5)) == 0:
            index.append(None)
    cut = draw(st.integers(0, len(index)))
    if draw(st.booleans()) and sum(part is not None for part in index[:cut]) < len(shape):
        index = [*index[:cut], ...]
    return index
