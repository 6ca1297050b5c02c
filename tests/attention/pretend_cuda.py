"""CPU tensors that say they are on CUDA, and PyTorch's private CUDA operators written out for them.

What Pellucid does on a GPU runs with numbers in it where there is none: the branches, the
arguments and shapes of the operators, and what comes of them. An operator here does what the real
one says of itself, down to the differences between the kernels; whether the real one takes the same
arguments and gives the same shapes, its own rules for tensors without numbers say at each call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
OPERATORS = {
    f"_scaled_dot_product_{kernel}_attention{direction}"
    for kernel in ("flash", "efficient", "cudnn")
    for direction in ("", "_backward")
}


class OnCuda(Tensor):
    """A CPU tensor that says it is on CUDA."""

    is_strict = True
    """Whether one does not mix with those on the CPU; autograd forgets what it is."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if function == Tensor.device.__get__:
            return CUDA
        if function == Tensor.is_cuda.__get__:
            return True
        if getattr(function, "_schema", None) is not None or name in OPERATORS:
            name = str(function).rpartition("aten.")[2].removesuffix(".default")
            if name in OPERATORS:
                return _operate(function, name, args, kwargs)
        if name in ("cpu", "numpy", "tolist") or (name == "to" and _asks_for_cpu(args, kwargs)):
            return function(args[0].as_subclass(Tensor), *args[1:], **kwargs)
        if cls.is_strict:
            _check_devices(function, args, kwargs)
        args, kwargs = _on_cpu((args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **kwargs)
        return result if isinstance(result, torch.Size) else tree_map(_moved, result)


class Pretence(TorchFunctionMode):
    """Tensors that are asked for on CUDA are made there, so to say."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        """The operators that ran, in order."""
        self.preferred = 1
        """Which fused kernel PyTorch would take: 1 flash, 2 efficient, 3 cuDNN."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.autograd.grad:  # in which the pretence goes on
            outputs = tuple(x.as_subclass(Tensor) for x in args[0])
            ones = tuple(map(torch.ones_like, outputs))
            engine = torch.autograd.Variable._execution_engine
            with self:
                return engine.run_backward(outputs, ones, False, False, tuple(args[1]), True, False)
        if function is torch._fused_sdp_choice:
            assert {"scale", "enable_gqa"} == set(kwargs)
            assert len(args) == 6
            return self.preferred
        name = str(function).rpartition("aten.")[2].removesuffix(".default")
        if name in OPERATORS:
            self.calls.append(name)
        if not any(_is_cuda(x) for x in (*args, *kwargs.values())):
            return function(*args, **kwargs)
        result = function(*(_on_cpu(args)), **_on_cpu(kwargs))
        return _moved(result)


@contextmanager
def cuda(capability: tuple[int, int], patch: Any) -> Iterator[Pretence]:
    """A GPU of that capability."""
    patch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    with Pretence() as pretence:
        yield pretence


def on_cuda(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(OnCuda)


def _moved(x: Any) -> Any:
    if not isinstance(x, Tensor) or isinstance(x, OnCuda):
        return x
    if x.requires_grad or x._is_view():
        return x.as_subclass(OnCuda)
    return Tensor._make_subclass(OnCuda, x)  # no view, which autograd would lose sight of


def _asks_for_cpu(args: Any, kwargs: Any) -> bool:
    return any(torch.device("cpu") == x or x == "cpu" for x in (*args[1:], *kwargs.values()))


def _on_cpu(tree: Any) -> Any:
    """The same arguments, with the CPU in place of CUDA."""
    return tree_map(lambda x: torch.device("cpu") if _is_cuda(x) else x, tree)


def _is_cuda(x: Any) -> bool:
    return isinstance(x, torch.device) and x.type == "cuda"


def _check_devices(function: Any, args: Any, kwargs: Any) -> None:
    """Refuse what PyTorch refuses: tensors of two devices, but for single numbers and indices."""
    if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnCuda):
        args = (args[0], *args[2:])  # an index may be on the CPU
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    on_cuda = any(isinstance(x, OnCuda) for x in tensors)
    if on_cuda and function not in (Tensor.copy_, Tensor.backward):
        assert all(isinstance(x, OnCuda) or x.ndim == 0 for x in tensors), function


def _operate(function: Any, name: str, args: Any, kwargs: Any) -> Any:
    """The operator, once the real one's rules have taken the same arguments without numbers."""
    plain = [x.as_subclass(Tensor) if isinstance(x, Tensor) else x for x in args]
    bare = [x.detach().to("meta") if isinstance(x, Tensor) else x for x in plain]
    wanted = function(*bare, **kwargs)
    names = [one.name for one in getattr(torch.ops.aten, name).default._schema.arguments]
    given = dict(zip(names, plain, strict=False)) | kwargs
    result = _backward(name, given) if "backward" in name else _forward(name, given)
    for found, bound in zip(result, wanted, strict=False):
        assert (found.shape, found.dtype) == (bound.shape, bound.dtype), name
    return tuple(x.as_subclass(OnCuda) for x in result)


def _check(name: str, given: Any) -> None:
    """What the kernel refuses."""
    query, key, value = (given[n] for n in ("query", "key", "value"))
    assert query.shape[-1] == key.shape[-1] == value.shape[-1]
    assert query.shape[-1] % 8 == 0
    assert all(x.stride(-1) == 1 for x in (query, key, value))
    assert given["dropout_p"] == 0.0
    if "efficient" in name:
        assert query.shape[1] == key.shape[1]
        bias = given["attn_bias"]
        assert bias is None or all(s % 8 == 0 for s in bias.stride()[:-1])
    else:
        assert query.dtype in (torch.bfloat16, torch.float16)
    if given.get("attn_bias") is not None:
        shape = (*query.shape[:3], key.shape[2])
        assert given["attn_bias"].shape == shape
        assert given["attn_bias"].dtype == query.dtype


def _scores(name: str, given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the kernel, and key and value for each query head, in float32."""
    _check(name, given)
    query, key, value = (given[n].float() for n in ("query", "key", "value"))
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    scores = query @ key.mT * given["scale"]
    if given.get("attn_bias") is not None:
        scores = scores + given["attn_bias"]
    if given["is_causal"]:
        # Flash aligns the last query with the last key, the others the first with the first.
        rows, cols = scores.shape[-2:]
        hidden = torch.ones(rows, cols, dtype=torch.bool).triu(
            1 + (cols - rows if "flash" in name else 0)
        )
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores, key, value


def _forward(name: str, given: Any) -> tuple[Tensor, Tensor]:
    scores, _, value = _scores(name, given)
    logsumexp = scores.logsumexp(-1)
    out = (torch.exp(scores - logsumexp[..., None]) @ value).to(given["query"].dtype)
    if "efficient" in name:
        assert given["compute_log_sumexp"] is True
        logsumexp = pad(logsumexp, (0, -logsumexp.shape[-1] % 32), value=torch.inf)
    if "cudnn" in name:
        assert given["compute_log_sumexp"] is True
        logsumexp = logsumexp[..., None]
    return out, logsumexp


def _backward(name: str, given: Any) -> tuple[Tensor, ...]:
    scores, key, value = _scores(name, given)
    grad = given.get("grad_out", given.get("grad_out_")).float()
    logsumexp = given["logsumexp"]
    if "cudnn" in name:
        logsumexp = logsumexp.squeeze(-1)
    if "efficient" in name:
        assert logsumexp.shape[-1] % 32 == 0
        assert given["grad_input_mask"] == [True, True, True, False]
        logsumexp = logsumexp[..., : scores.shape[-2]]
    if "efficient" not in name:
        assert (given["max_q"], given["max_k"]) == scores.shape[-2:]
    weights = torch.exp(scores - logsumexp[..., None])
    delta = (grad * given["out"].float()).sum(-1, keepdim=True)
    of_scores = weights * (grad @ value.mT - delta) * given["scale"]
    of_query = of_scores @ key
    of_key, of_value = of_scores.mT @ given["query"].float(), weights.mT @ grad
    kv_heads = given["key"].shape[1]
    of_key, of_value = (x.unflatten(1, (kv_heads, -1)).sum(2) for x in (of_key, of_value))
    return tuple(x.to(given["query"].dtype) for x in (of_query, of_key, of_value))


def model_on_cuda(model: torch.nn.Module) -> torch.nn.Module:
    """The model, its weights and buffers moved, so to say; it learns no more."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                moved = torch.nn.Parameter(on_cuda(weight.detach()), requires_grad=False)
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else on_cuda(buffer)
    return model
