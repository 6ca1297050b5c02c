"""How fast the machine multiplies matrices, and how much of that training a model needs.

Tokens a second times operations a token, over the rate of plain matrix products, is the share of
the machine that a run makes use of: "model FLOPs utilisation" (Chowdhery et al. 2022, "PaLM",
appendix B), but of a rate that was measured rather than advertised.
"""

import ctypes
import math
import sys
from time import perf_counter

import torch
from torch import nn

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.block import Block, HeadAttention
from pellucid.models import Decoder, Encoder, EncoderDecoder
from pellucid.models.stacks import Stack, Transformer

FORTH_AND_BACK = 6
"""Operations of training, a parameter and a token: a product and a sum on the way forward, and
twice as many on the way back, for the gradients of what came in and of the parameter."""
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
LONG_ENOUGH = 0.01
"""Seconds that are timed at once: starting and waiting for a device then count for little."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """What it multiplies matrices in fastest, of what training may be done in: bfloat16 on a GPU
    that has it and on a CPU that has tiles for it (AMX), else float32.
    """
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Without tiles a CPU takes as long for bfloat16, or longer.
        has = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has else torch.float32


def keep_freed_memory() -> None:
    """Let what is freed stay with this process, where its allocator is glibc's: a step frees and
    takes the same hundreds of megabytes again, and fresh pages cost it time.
    """
    if (libc := _libc()) is not None:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Let it go all the same: between texts of many lengths it lies in pieces too small to be taken
    again, which add up to gigabytes over hundreds of steps.
    """
    if (libc := _libc()) is not None:
        libc.malloc_trim(0)


def _libc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
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
    """Floating-point operations a second of (rows, inner) @ (inner, columns), the best of many.

    With the threads and the precision that torch is set to. For a model of the same sizes, rows are
    the tokens of a forward pass, inner its width and columns its hidden width.

    Args:
        rows: at least 1, like the other two.
        inner: a row of the product costs 2 x inner x columns operations.
        columns: likewise.
        dtype: of both matrices.
        device: where they are multiplied.
        seconds: about how long to measure; at least two products are made.

    Raises:
        ArgumentError: a size below 1.
        TypeMismatchError: a dtype that is not a floating-point one.
    """
    for name, size in (("rows", rows), ("inner", inner), ("columns", columns)):
        if size < 1:
            raise ArgumentError(f"{name} must be at least 1, not {size}")
    if not dtype.is_floating_point:
        raise TypeMismatchError(f"dtype must be a floating-point one, not {dtype}")
    # Not zeros, which some devices multiply faster; and of its own seed, which training goes by.
    draw = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(shape, generator=draw).to(device, dtype)
        for shape in ((rows, inner), (inner, columns))
    )
    result = left @ right  # the first one wakes threads and picks a kernel
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
    """Floating-point operations that training a model takes, a token: forward and back.

    Of each matrix 6 a parameter (Kaplan et al. 2020, "Scaling Laws for Neural Language Models",
    section 2.1 and table 1). Tables of embeddings are read and not multiplied, so they count for
    nothing, but as the output they do, tied or not. Norms, biases and activations are left out.
    Of attention itself 12 x layers x width of all heads x tokens that are seen (Chowdhery et al.
    2022, "PaLM", appendix B); before a causal mask those are half the text, and fewer in a window.
    What checkpointing runs again is no part of it.

    Args:
        model: an encoder, a decoder or an encoder-decoder.
        context: tokens of a text; of an encoder-decoder, of a source. Where texts differ in length,
            the sum of the squared lengths over the sum of the lengths.
        target: tokens of a target, for an encoder-decoder. The answer is then a mean over the
            tokens of source and target together.
        predicted: share of the tokens (of the target's, where there is one) that logits are made
            of; unless given, all where a model has an output and none of an encoder's.

    Raises:
        ArgumentError: a number of tokens below 1, a share outside 0 to 1, a target for a model that
            has none or none for one that has.
        TypeMismatchError: another kind of model.
    """
    _check(model, context, target, predicted)
    config = model.config
    share = float(not isinstance(model, Encoder)) if predicted is None else predicted
    output = FORTH_AND_BACK * share * config.width * config.vocabulary
    if isinstance(model, Encoder):
        return _stack(model.encoder, context) + output
    if isinstance(model, Decoder):
        return _stack(model.decoder, context) + output
    assert isinstance(model, EncoderDecoder)
    assert target is not None
    # Keys and values of cross-attention are made of the source, once for each of its tokens.
    memory = FORTH_AND_BACK * sum(
        _matrices(part.key) + _matrices(part.value)
        for block in model.decoder.blocks
        if isinstance(block, Block) and isinstance(part := block.cross, HeadAttention)
    )
    of_source = _stack(model.encoder, context) + memory
    of_target = _stack(model.decoder, target) - memory + output
    of_target += _attention(model.decoder, context)
    return (context * of_source + target * of_target) / (context + target)


def _stack(stack: Stack, tokens: float) -> float:
    """Operations a token of all blocks, but for what cross-attention does with the memory."""
    config = stack.config
    seen = tokens
    if stack.causal:
        reach = tokens if config.window is None else min(tokens, config.window)
        # The first `reach` tokens see 1, 2, ... reach of them, and all others `reach`.
        seen = reach - reach * (reach - 1) / (2 * tokens)
    return FORTH_AND_BACK * _matrices(stack.blocks) + _attention(stack, seen)


def _attention(stack: Stack, seen: float) -> float:
    """Scores and weighted means: each 2 operations a number of a head and token that is seen."""
    config = stack.config
    return 2 * FORTH_AND_BACK * len(stack.blocks) * config.heads * config.dim * seen


def _matrices(module: nn.Module) -> int:
    """Parameters that multiply."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def _check(
    model: Transformer, context: float, target: float | None, predicted: float | None
) -> None:
    if not isinstance(model, Encoder | Decoder | EncoderDecoder):
        kinds = "an Encoder, a Decoder or an EncoderDecoder"
        raise TypeMismatchError(f"model must be {kinds}, not {type(model).__name__}")
    if (target is not None) != isinstance(model, EncoderDecoder):
        wanted = "must be given for" if target is None else "is nothing to"
        raise ArgumentError(f"target {wanted} an {model.kind}")
    for name, tokens in (("context", context), ("target", target)):
        if tokens is not None and not (math.isfinite(tokens) and tokens >= 1):
            raise ArgumentError(f"{name} must be at least 1 token, not {tokens}")
    if predicted is not None and not 0 <= predicted <= 1:
        raise ArgumentError(f"predicted must be a share from 0 to 1, not {predicted}")


def _wait(result: torch.Tensor) -> None:
    """Until the device is done; the CPU is when it returns."""
    if result.device.type != "cpu":
        torch.accelerator.synchronize(result.device)
