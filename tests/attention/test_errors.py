"""Bad input: a clear error that names the argument, what was wanted and what came."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pellucid
from pellucid import PellucidError, energies
from pellucid.attention import attention_weights
from tests.attention.cases import random

Q, K, V = random(2, 6, 5, 11, seed=0), random(2, 3, 7, 11, seed=1), random(2, 3, 7, 13, seed=2)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"key": zeros(2, 3, 7, 5)}, ValueError, "query has key_dim 11 but key has 5"),
    ({"query": zeros(5, 11)}, ValueError, "query must be (..., heads, n, dim), got shape (5, 11)"),
    ({"key": zeros(7, 11)}, ValueError, "key must be (..., heads, n, dim), got shape (7, 11)"),
    (
        {"query": zeros(2, 4, 5, 11)},
        ValueError,
        "query has 4 heads, not a multiple of the 3 of key",
    ),
    (
        {"value": zeros(2, 3, 8, 13)},
        ValueError,
        "value must have the kv_heads and keys of key, (3, 7); got (3, 8)",
    ),
    (
        {"value": zeros(2, 2, 7, 13)},
        ValueError,
        "value must have the kv_heads and keys of key, (3, 7); got (2, 7)",
    ),
    (
        {"key": zeros(4, 3, 7, 11)},
        ValueError,
        "the batch shape of query (2,) does not broadcast with that of key (4,)",
    ),
    (
        {"value": zeros(4, 3, 7, 13)},
        ValueError,
        "value of shape (4, 3, 7, 13) does not fit the batch shape (2,)",
    ),
    ({"key": K.double()}, TypeError, "query is torch.float32 but key is torch.float64"),
    ({"value": V.half()}, TypeError, "query is torch.float32 but value is torch.float16"),
    (
        {"query": Q.long()},
        TypeError,
        "query must be float64, float32, bfloat16 or float16, got torch.int64",
    ),
    (
        {"query": Q.to(torch.complex64)},
        TypeError,
        "query must be float64, float32, bfloat16 or float16, got torch.complex64",
    ),
    ({"query": [[1.0]]}, TypeError, "query must be a tensor, got list"),
    ({"key": K.to("meta")}, TypeError, "query is on cpu but key is on meta"),
    ({"query": zeros(2, 6, 0, 11)}, ValueError, "query has no queries: its shape is (2, 6, 0, 11)"),
    ({"key": zeros(2, 3, 0, 11)}, ValueError, "key has no keys: its shape is (2, 3, 0, 11)"),
    ({"query": zeros(2, 0, 5, 11)}, ValueError, "query has no heads"),
    ({"value": zeros(2, 3, 7, 0)}, ValueError, "value has no dim"),
    (
        {"mask": torch.ones(5, 7)},
        TypeError,
        "mask must be a pellucid mask or a bool tensor (True = may be seen), got a torch.float",
    ),
    (
        {"mask": "causal"},
        TypeError,
        "mask must be a pellucid mask or a bool tensor (True = may be seen), got 'causal'",
    ),
    (
        {"bias": zeros(4, 7)},
        ValueError,
        "bias of shape (4, 7) does not broadcast to (..., heads, queries, keys) = (2, 6, 5, 7)",
    ),
    ({"bias": zeros(5, 7).long()}, TypeError, "bias must be float64"),
    ({"sinks": zeros(3)}, ValueError, "sinks must have shape (heads,) = (6,), got (3,)"),
    ({"softcap": "a"}, TypeError, "softcap must be a number, got 'a'"),
    ({"softcap": float("inf")}, ValueError, "softcap must be finite, got inf"),
    ({"scale": torch.tensor(2.0)}, TypeError, "scale must be a number, got tensor(2.)"),
    ({"scale": float("nan")}, ValueError, "scale must be finite, got nan"),
    ({"score": energies.DotProduct}, TypeError, "score must be a name, an energy or a function"),
    (
        {"score": energies.Bilinear(zeros(11, 11).double())},
        TypeError,
        "Bilinear has W in torch.float64",
    ),
    ({"softcap": 0.0}, ValueError, "softcap must be above 0, got 0.0"),
    ({"dropout": 1.0}, ValueError, "dropout must be in [0, 1), got 1.0"),
    ({"dropout": -0.1}, ValueError, "dropout must be in [0, 1), got -0.1"),
    (
        {"backend": "flash9"},
        ValueError,
        "backend must be one of auto, sdpa, blockwise, reference; got 'flash9'",
    ),
    (
        {"backend": "sdpa", "softcap": 2.0},
        ValueError,
        "'sdpa' cannot do this: no fused kernel in PyTorch has a softcap; blockwise, reference can",
    ),
    (
        {"backend": "sdpa", "dropout": 0.5},
        ValueError,
        "backend 'sdpa' cannot do this: the fused kernels do not tell",
    ),
    (
        {"backend": "sdpa", "score": lambda q, k: q @ k.mT},
        ValueError,
        "no fused kernel computes the energy",
    ),
    (
        {"score": "euclid"},
        ValueError,
        "score must be one of cosine, dot_product, scaled_dot_product, or an energy; got 'euclid'",
    ),
    ({"score": 3}, TypeError, "score must be a name, an energy or a function, got 3"),
    ({"score": lambda q, k: q}, ValueError, "score must return (..., rows, cols)"),
    (
        {"score": energies.Bilinear(zeros(5, 5))},
        ValueError,
        "Bilinear has W of shape (5, 5) but query has key_dim 11 and key has 11",
    ),
    (
        {"score": energies.Additive(zeros(11, 3), zeros(5, 3), zeros(3))},
        ValueError,
        "Additive needs W_key of shape (11, 3) = (dim, hidden), got (5, 3)",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), CALLS)
def test_bad_calls(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(PellucidError, match=re.escape(message)) as caught:
        pellucid.attention(**{"query": Q, "key": K, "value": V, **change})
    assert isinstance(caught.value, kind)


def test_a_bias_that_wants_a_gradient_is_no_job_for_the_fused_kernels() -> None:
    bias = zeros(5, 7).requires_grad_()
    with pytest.raises(PellucidError, match="the fused kernels give no gradient for bias"):
        pellucid.attention(Q, K, V, bias=bias, backend="sdpa")


WEIGHTS = attention_weights(Q, K)
QUESTIONS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: WEIGHTS[2], IndexError, "index 2 is out of range for axis 0 with size 2"),
    (lambda: WEIGHTS[..., -8], IndexError, "index -8 is out of range for axis 3 with size 7"),
    (
        lambda: WEIGHTS[..., torch.tensor([0, 9])],
        IndexError,
        "index 9 is out of range for axis 3 with size 7",
    ),
    (lambda: WEIGHTS[0, 0, 0, 0, 0], IndexError, "too many indices: 5 for shape (2, 6, 5, 7)"),
    (lambda: WEIGHTS[..., ...], TypeError, "only one ellipsis"),
    (lambda: WEIGHTS[..., ::-1], TypeError, "a slice needs a step above 0, got -1"),
    (
        lambda: WEIGHTS["a"],
        TypeError,
        "the index of axis 0 must be an int, a slice or integers, got 'a'",
    ),
    (
        lambda: WEIGHTS[1.5],
        TypeError,
        "the index of axis 0 must be an int, a slice or integers, got 1.5",
    ),
    (
        lambda: WEIGHTS[True],
        TypeError,
        "the index of axis 0 must be an int, a slice or integers, got True",
    ),
    (
        lambda: WEIGHTS[torch.tensor([0, 1]), torch.tensor([0, 1, 2])],
        IndexError,
        "the index tensors do not broadcast together: (2,), (3,)",
    ),
    (lambda: WEIGHTS.top(0), ValueError, "top must be from 1 to the number of keys, 7; got 0"),
    (lambda: WEIGHTS.top(8), ValueError, "top must be from 1 to the number of keys, 7; got 8"),
    (lambda: WEIGHTS.statistics(top=0), ValueError, "top must be from 1"),
    (lambda: WEIGHTS.pool(0, 3), ValueError, "rows and cols must be at least 1, got 0 and 3"),
    (lambda: WEIGHTS.pool(2, 2, "sum"), ValueError, "reduce must be 'mean' or 'max', got 'sum'"),
    (
        lambda: WEIGHTS.pool(2, 2, region=(slice(3, 3), slice(None))),
        ValueError,
        "queries of region must be a slice with step 1 that is not empty",
    ),
    (lambda: WEIGHTS.top(2.0), TypeError, "top must be an int, got 2.0"),  # type: ignore[arg-type]
    (lambda: WEIGHTS.top(True), TypeError, "top must be an int, got True"),
    (lambda: WEIGHTS.pool(2, 2, region=3), TypeError, "region must be two slices"),  # type: ignore[arg-type]
    (lambda: WEIGHTS @ torch.tensor(1.0), ValueError, "got a single number"),
    (lambda: WEIGHTS.received([5]), IndexError, "queries must be from -5 to 4, got [5]"),
    (
        lambda: WEIGHTS.received(torch.tensor([0.5])),
        TypeError,
        "queries must be an int, a slice or integers, got tensor([0.5000])",
    ),
    (
        lambda: WEIGHTS @ zeros(6, 2),
        ValueError,
        "weights @ x needs x with 7 rows, got x of shape (6, 2)",
    ),
    (
        lambda: WEIGHTS @ zeros(4, 7, 2),
        ValueError,
        "weights @ x needs x that broadcasts to (2, 6, 7, 2)",
    ),
    (
        lambda: WEIGHTS @ zeros(7, 2).long(),
        TypeError,
        "weights @ x needs a float x on cpu, got torch.int64",
    ),
    (lambda: zeros(2, 4) @ WEIGHTS, ValueError, "weights.T @ x needs x with 5 rows"),
]


@pytest.mark.parametrize(("ask", "kind", "message"), QUESTIONS)
def test_bad_questions(ask: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(PellucidError, match=re.escape(message)) as caught:
        ask()
    assert isinstance(caught.value, kind)


def test_numpy_does_not_unroll_the_matrix() -> None:
    with pytest.raises(TypeError, match="operand"):
        WEIGHTS @ zeros(7, 2).numpy()
    with pytest.raises(TypeError, match="operand"):
        zeros(2, 5).numpy() @ WEIGHTS


def test_products_with_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        WEIGHTS @ 3
    with pytest.raises(TypeError, match="unsupported operand"):
        3 @ WEIGHTS
