"""PyTorch's private kernels on CUDA take what we give them: no machine with one need be there.

Fake tensors on a fake device run each operator's own checks of its arguments and say the shapes,
dtypes and devices of what it returns; what is in the numbers, tests/attention/test_gpu.py sees.
"""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.attention.backends import fused_kernels
from pellucid.lens.interception.sdpa import KERNELS

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, KEY_DIM, VALUE_DIM = 2, 6, 3, 5, 7, 11, 13
FLASH = "_scaled_dot_product_flash_attention"
EFFICIENT = "_scaled_dot_product_efficient_attention"
CUDNN = "_scaled_dot_product_cudnn_attention"
OURS = {
    FLASH: "query key value dropout_p is_causal return_debug_mask *scale",
    f"{FLASH}_backward": "grad_out query key value out logsumexp cum_seq_q cum_seq_k max_q max_k "
    "dropout_p is_causal philox_seed philox_offset *scale",
    EFFICIENT: "query key value attn_bias compute_log_sumexp dropout_p is_causal *scale",
    f"{EFFICIENT}_backward": "grad_out_ query key value attn_bias out logsumexp philox_seed "
    "philox_offset dropout_p grad_input_mask is_causal *scale",
    CUDNN: "query key value attn_bias compute_log_sumexp dropout_p is_causal return_debug_mask "
    "*scale",
    f"{CUDNN}_backward": "grad_out query key value out logsumexp philox_seed philox_offset "
    "attn_bias cum_seq_q cum_seq_k max_q max_k dropout_p is_causal *scale",
    "_fused_sdp_choice": "query key value attn_mask dropout_p is_causal *scale *enable_gqa",
}
"""Arguments in the order in which we give them; those behind a star by name alone."""


@pytest.mark.parametrize(("name", "arguments"), OURS.items())
def test_the_arguments_stand_in_the_order_in_which_they_are_given(
    name: str, arguments: str
) -> None:
    schema = getattr(torch.ops.aten, name).default._schema
    found = [("*" if one.kwarg_only else "") + one.name for one in schema.arguments]
    assert found == arguments.split()


@pytest.mark.parametrize("name", KERNELS)
def test_what_is_watched_is_there_and_gives_the_context_first(name: str) -> None:
    schema = getattr(torch.ops.aten, name).default._schema
    assert [one.name for one in schema.arguments[:3]] == ["query", "key", "value"]
    assert str(schema.returns[0].type) == "Tensor"


class Called(TorchDispatchMode):
    """Which of the operators above are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._schema.name.removeprefix("aten::")
        if name in OURS:
            self.names.append(name)
        return operator(*args, **(kwargs or {}))


class Sliced(TorchFunctionMode):
    """tensor[..., a:b] by the operator: the brackets look for CUDA, where torch may have none."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.__getitem__:
            tensor, (dots, part) = args
            assert dots is ...
            return torch.ops.aten.slice(tensor, -1, part.start, part.stop)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    """A device of the kind that has FlashAttention, on which nothing is computed."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(fused_kernels, "CUDNN_SCORES", 0)
    with FakeTensorMode(), Sliced():
        yield


def given(dtype: torch.dtype, queries: int = QUERIES, keys: int = KEYS) -> list[Tensor]:
    sizes = (HEADS, queries, KEY_DIM), (KV_HEADS, keys, KEY_DIM), (KV_HEADS, keys, VALUE_DIM)
    return [torch.empty(BATCH, *size, dtype=dtype, device="cuda") for size in sizes]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("prefers_cudnn", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("fake")
def test_forward_and_backward_on_a_fake_device(
    monkeypatch, dtype, prefers_cudnn, square, causal, biased
) -> None:
    choice = 3 if prefers_cudnn else 1
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *args, **kwargs: choice)
    keys = QUERIES if square else KEYS
    query, key, value = given(dtype, keys=keys)
    bias = torch.zeros(1, HEADS, QUERIES, keys, dtype=dtype, device="cuda") if biased else None
    assert fused_kernels.refuse(query, value) is None
    with Called() as called:
        context, logsumexp, ran = fused_kernels.forward(query, key, value, causal, bias, 0.3)
        grads = fused_kernels.backward(
            torch.empty_like(context), query, key, value, context, logsumexp, causal, bias, 0.3
        )
    is_flash = dtype != torch.float32 and not biased and (square or not causal)
    kernel = FLASH if is_flash else EFFICIENT
    kernel = CUDNN if dtype != torch.float32 and prefers_cudnn else kernel
    assert kernel == f"_scaled_dot_product_{ran}_attention"
    assert called.names == [kernel, f"{kernel}_backward"]
    assert (context.shape, context.dtype) == ((BATCH, HEADS, QUERIES, VALUE_DIM), dtype)
    assert (logsumexp.shape, logsumexp.dtype) == ((BATCH, HEADS, QUERIES), torch.float32)
    for grad, of in zip(grads, (query, key, value), strict=True):
        assert (grad.shape, grad.dtype, grad.device) == (of.shape, dtype, of.device)
