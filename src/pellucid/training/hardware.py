"""The machine: its matrix-product rate, the operations that training takes, and its memory.

Tokens per second times operations per token, divided by the rate of matrix products, is the "model
FLOPs utilisation" (Chowdhery et al. 2022, "PaLM", appendix B), here of a measured peak rather than
an advertised one.
"""

import ctypes
import math
import sys
from time import perf_counter

import torch
from torch import nn

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.block import Block, HeadAttention
from pellucid.layers.feed_forward import Experts, StackedLinear
from pellucid.models import Decoder, Encoder, EncoderDecoder
from pellucid.models.architectures import Transformer
from pellucid.models.stack import Stack

TRAINING_OPERATIONS = 6
"""Operations per parameter and token: a multiplication and an addition in the forward pass, and
twice as many in the backward pass, for the gradients of the input and the parameter."""
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
LONG_ENOUGH = 0.01
"""Seconds timed at once, so that launching and synchronising are negligible."""


def keep_freed_memory() -> None:
    """Keep freed memory in this process, with glibc's allocator: each step frees and allocates the
    same hundreds of megabytes, and fresh pages cost time.
    """
    if (libc := _libc()) is not None:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Return freed memory to the system: with texts of many lengths it fragments, and would grow
    by gigabytes over hundreds of steps.
    """
    if (libc := _libc()) is not None:
        libc.malloc_trim(0)


def _libc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") else None


def matrix_rate(
    rows: int,
    inner: int,
    columns: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seconds: float = 0.3,
) -> float:
    """The best rate of (rows, inner) @ (inner, columns), in floating-point operations per second.

    It uses torch's current threads and precision. For a model, rows are the tokens of a forward
    pass, inner is its width and columns its hidden width.

    Args:
        rows: at least 1, like inner and columns.
        inner: the shared dimension.
        columns: of the product.
        dtype: of both matrices.
        device: of both matrices.
        seconds: approximate time to measure; at least two products are timed.

    Raises:
        ArgumentError: a size is below 1.
        TypeMismatchError: dtype is not a floating-point dtype.
    """
    for name, size in (("rows", rows), ("inner", inner), ("columns", columns)):
        if size < 1:
            raise ArgumentError(f"{name} must be at least 1, not {size}")
    if not dtype.is_floating_point:
        raise TypeMismatchError(f"dtype must be a floating-point dtype, not {dtype}")
    # Not zeros, which some devices multiply faster; its own generator leaves torch's seed alone.
    draw = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(shape, generator=draw).to(device, dtype)
        for shape in ((rows, inner), (inner, columns))
    )
    result = left @ right  # warm up: threads start, and a kernel is chosen
    times, best = 1, 0.0
    end = perf_counter() + seconds
    with torch.no_grad():
        while not best or perf_counter() < end:
            _wait(result)
            begun = perf_counter()
            for _ in range(times):
                torch.mm(left, right, out=result)
            _wait(result)
            taken = max(perf_counter() - begun, 1e-9)
            best = max(best, 2.0 * rows * inner * columns * times / taken)
            if taken < LONG_ENOUGH:
                times *= 2
    return best


def operations(
    model: Transformer,
    context: float,
    target: float | None = None,
    *,
    predicted: float | None = None,
) -> float:
    """Floating-point operations per token of training a model: forward and backward pass.

    Matrices take 6 per parameter (Kaplan et al. 2020, "Scaling Laws for Neural Language Models",
    section 2.1 and table 1). Embedding tables are looked up, so they count only as the output
    projection, tied or not. Attention takes 12 x layers x width of all heads x visible tokens
    (Chowdhery et al. 2022, "PaLM", appendix B); with a causal mask half the text is visible, and
    less with a window. Norms, biases, activations and recomputation are not counted.

    `torch.utils.flop_counter` cannot replace this: it needs a pass, and counts masked keys too.

    Args:
        model: an encoder, a decoder or an encoder-decoder.
        context: tokens of a text, or of the source of an encoder-decoder. If texts differ in
            length, the sum of the squared lengths divided by the sum of the lengths.
        target: tokens of the target of an encoder-decoder. The result is then a mean over the
            tokens of source and target together.
        predicted: the share of tokens (of the target, if there is one) whose logits are computed;
            by default all, but none of an encoder's.

    Raises:
        ArgumentError: a number of tokens is below 1, a share is outside 0 to 1, or target is given
            for a model other than an encoder-decoder or missing for one.
        TypeMismatchError: the model is of another kind.
    """
    _check(model, context, target, predicted)
    config = model.config
    share = float(not isinstance(model, Encoder)) if predicted is None else predicted
    output = TRAINING_OPERATIONS * share * config.width * config.vocabulary
    if isinstance(model, Encoder):
        return _stack(model.encoder, context) + output
    if isinstance(model, Decoder):
        return _stack(model.decoder, context) + output
    assert isinstance(model, EncoderDecoder)
    assert target is not None
    # Keys and values of cross-attention are computed once per source token.
    memory = TRAINING_OPERATIONS * sum(
        _matrices(part.key) + _matrices(part.value)
        for block in model.decoder.blocks
        if isinstance(block, Block) and isinstance(part := block.cross, HeadAttention)
    )
    of_source = _stack(model.encoder, context) + memory
    of_target = _stack(model.decoder, target) - memory + output
    of_target += _attention(model.decoder, context)
    return (context * of_source + target * of_target) / (context + target)


def _stack(stack: Stack, tokens: float) -> float:
    """Operations per token of all blocks, without the scores and values of cross-attention."""
    seen = tokens
    if stack.causal:
        layers = range(len(stack.blocks))
        windows = [stack.config.window_of(layer) for layer in layers]
        seen = sum(_mean_visible(tokens, window) for window in windows) / len(windows)
    return TRAINING_OPERATIONS * _matrices(stack.blocks) + _attention(stack, seen)


def _mean_visible(tokens: float, window: int | None) -> float:
    """How many tokens each of a text sees under a causal mask, on average."""
    reach = tokens if window is None else min(tokens, window)
    # The first `reach` tokens attend to 1, 2, ... reach tokens, and all others to `reach`.
    return reach - reach * (reach - 1) / (2 * tokens)


def _attention(stack: Stack, seen: float) -> float:
    """Operations per token of scores and weighted sums, over `seen` visible tokens."""
    config = stack.config
    return 2 * TRAINING_OPERATIONS * len(stack.blocks) * config.heads * config.dim * seen


def _matrices(module: nn.Module) -> int:
    """The parameters of all matrices, of experts those that one token uses."""
    parts = list(module.modules())
    of_all = sum(part.weight.numel() for part in parts if isinstance(part, nn.Linear))
    return of_all + sum(
        part.used * stack.weight[0].numel()
        for part in parts
        if isinstance(part, Experts)
        for stack in part.children()
        if isinstance(stack, StackedLinear)
    )


def _check(
    model: Transformer, context: float, target: float | None, predicted: float | None
) -> None:
    if not isinstance(model, Encoder | Decoder | EncoderDecoder):
        kinds = "an Encoder, a Decoder or an EncoderDecoder"
        raise TypeMismatchError(f"model must be {kinds}, not {type(model).__name__}")
    if (target is not None) != isinstance(model, EncoderDecoder):
        verb = "must be given for" if target is None else "does not apply to"
        raise ArgumentError(f"target {verb} an {model.kind}")
    for name, tokens in (("context", context), ("target", target)):
        if tokens is not None and not (math.isfinite(tokens) and tokens >= 1):
            raise ArgumentError(f"{name} must be at least 1 token, not {tokens}")
    if predicted is not None and not 0 <= predicted <= 1:
        raise ArgumentError(f"predicted must be a share from 0 to 1, not {predicted}")


def _wait(result: torch.Tensor) -> None:
    """Synchronise the device; CPU operations are synchronous."""
    if result.device.type != "cpu":
        torch.accelerator.synchronize(result.device)
