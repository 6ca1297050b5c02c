"""Loading a model: its config, weights, tokenizer and generation settings."""

import re
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pellucid.common import untrusted
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers import packed_linear
from pellucid.layers.config import Config
from pellucid.layers.packed import Packed
from pellucid.layers.packed_linear import is_packable
from pellucid.models.architectures import KINDS, Decoder, Encoder, EncoderDecoder
from pellucid.models.checkpoints import (
    UNFIT,
    generation,
    gguf,
    lora,
    pooling,
    read_config,
    understood,
)
from pellucid.models.checkpoints.family import Family, Names, Place, names_of, of_theirs, places
from pellucid.models.checkpoints.gguf_file import GgufFile
from pellucid.models.checkpoints.source import GGUF, directory_of, opening, with_base
from pellucid.models.checkpoints.weight_files import Stored, Tensors, as_large_as_stored, check_fits
from pellucid.text import gguf_vocabularies
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_files import load_tokenizer, tokenizer_file

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def load(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    packed: bool = False,
    base: str | Path | None = None,
) -> Encoder | Decoder | EncoderDecoder:
    """Load a model in eval mode, from a directory or the Hugging Face hub.

    Args:
        path: a directory with config.json and safetensors, a GGUF file or a directory with one,
            the short name of a model ("decoder", "translator", "sentiment"; "minilm" and "smollm2"
            if they are installed), or a name on the hub.
        dtype: of the parameters, one of `DTYPES`.
        device: of the parameters.
        packed: keep the quantised weights of a GGUF file as they are stored, and round inputs as
            llama.cpp does: the memory of the file, and faster generation, but no training. It has
            no effect on other weights, and needs float32.
        base: the model that an adapter of peft changes, if it is not inside the adapter's
            directory; "ADAPTER+BASE" as the path says the same.

    Raises:
        TypeMismatchError: path, dtype or device has the wrong type.
        ArgumentError: the device does not exist, or packed weights are asked for in another dtype.
        FileError: the model does not exist, its family is unknown, its weights are pickled, or
            tensors are missing, unexpected or of another shape than the config says; the first of
            them are named.
        MissingExtraError: the hub, or the tokenizer, needs an extra that is not installed.
    """
    _check_target(dtype, device)
    if packed and dtype != torch.float32:
        raise ArgumentError(f"packed weights need dtype torch.float32, not {dtype}")
    directory = directory_of(path)
    named = with_base(path)[1] if base is None else base
    of_base = None if named is None else directory_of(named)
    with opening(path):
        if directory.suffix == GGUF:
            checkpoint = _in_gguf(directory)
        else:
            checkpoint = _in_directory(directory, of_base)
        family, stored = checkpoint.family, checkpoint.stored
        # On "meta", building the model needs no memory.
        with (
            untrusted.guarded(checkpoint.unfit),
            as_large_as_stored(stored),
            torch.device("meta"),
            _NoNumbers(),
        ):
            model = KINDS[checkpoint.config.kind](checkpoint.config)
        state, kept = _ours(stored, family, model, dtype, packed)
        model.tokenizer, model.generation = checkpoint.tokenizer, checkpoint.generation
        if isinstance(model, Encoder):
            model.prompts = checkpoint.prompts
    for name, matrix in kept.items():
        packed_linear.install(model, name, matrix)
    model.load_state_dict(state, strict=False, assign=True)
    model.share()
    return model.to(device).eval()


class _NoNumbers(TorchFunctionMode):
    """Modules are built without initial numbers: functions of torch.nn.init do nothing."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"]
        return func(*args, **given)


@dataclass(frozen=True)
class _Found:
    """What a checkpoint consists of, whatever kind of file it is."""

    config: Config
    family: Family
    stored: Stored
    tokenizer: Tokenizer | None
    generation: generation.Generation
    unfit: str
    """What an error about a value that does not fit begins with."""
    prompts: pooling.Prompts


def _in_directory(directory: Path, base: Path | None) -> _Found:
    untrusted.check_links(directory)
    adapter = directory if lora.is_adapter(directory, base) else None
    if adapter is None and base is not None:
        raise ArgumentError("it has no adapter that could change a base model")
    if adapter is not None:
        directory = lora.base_of(adapter) if base is None else base
        if directory.suffix == GGUF:
            raise ArgumentError("an adapter of a GGUF file is not supported")
        untrusted.check_links(directory)
    root = pooling.root(directory)
    if adapter is None and root != directory:
        lora.is_adapter(root, None)
    config, family = read_config(root, pooling.is_embedder(directory))
    tensors = Tensors(root, config.kind, family.renamed)
    family = _as_spelt(config, family, tensors)
    stored: Stored = tensors if adapter is None else lora.Adapted(tensors, adapter, family, config)
    config = pooling.read(directory, _as_stored(config, family, stored))
    for number, inner in enumerate(pooling.dense_directories(directory) if config.dense else []):
        tensors.add(inner, (("^linear\\.", f"dense.{number}."),))
    has_tokenizer = adapter is not None and tokenizer_file(adapter) is not None
    tokenizer = load_tokenizer(adapter if adapter is not None and has_tokenizer else root)
    settings = generation.read(root, config)
    if tokenizer is not None and pooling.is_lowercase(directory):
        tokenizer.lowercase()
    prompts = pooling.prompts(directory)
    return _Found(config, family, stored, tokenizer, settings, UNFIT, prompts)


def _in_gguf(path: Path) -> _Found:
    file = GgufFile(path)
    unfit = "its metadata have a value that does not fit"
    with untrusted.guarded(unfit):
        described = gguf.config_of(file)
        config, family = understood(described, {}, unfit)
        stored = gguf.GgufTensors(file, gguf.architecture_of(file), config)
        tokenizer = gguf_vocabularies.of_metadata(file.metadata)
        config = _as_stored(config, family, stored)
    settings, prompts = generation.Generation(), pooling.Prompts()
    return _Found(config, family, stored, tokenizer, settings, unfit, prompts)


def _check_target(dtype: Any, device: Any) -> None:
    """Check the arguments before anything is read or downloaded."""
    if dtype not in DTYPES:
        known = listing([str(supported) for supported in DTYPES])
        raise TypeMismatchError(f"dtype must be one of {known}, not {dtype!r}")
    if not isinstance(device, torch.device | str):
        raise TypeMismatchError(f"device must be a torch.device or its name, not {device!r}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that CUDA is compiled in
        reason = str(error).partition("\n")[0]
        raise ArgumentError(f"device '{device}' cannot be used here: {reason}") from error


def _as_spelt(config: Config, family: Family, stored: Stored) -> Family:
    """The family with those of its names that the tensors have."""

    def stored_names(names: Names) -> int:
        parts = [name.replace("{}", "0").replace("*", "0") for name in names.values()]
        ends = ("", ".weight")
        return sum(
            any(_stored_as(family.prefix + part + end, family, stored) for end in ends)
            for part in parts
        )

    best = max((names_of(family, config), *family.older), key=stored_names)
    return replace(family, names=best) if family.older else family


def _as_stored(config: Config, family: Family, stored: Stored) -> Config:
    """The config, corrected by the stored tensors.

    A head that differs from the embedding is untied, and a checkpoint without a head has no bias
    of the logits.
    """
    theirs = names_of(family, config)
    head, bias = theirs.get("head", "") + ".weight", theirs.get("bias", "")
    if config.tied and head in stored:
        for embedding, copies in family.copies.items():
            name = _any_name(embedding, family, stored)
            if head in copies and name and not torch.equal(stored[name], stored[head]):
                config = replace(config, tied=False)
    if config.logit_bias and bias and bias not in stored:
        config = replace(config, logit_bias=False)
    return config


def _ours(
    stored: Stored, family: Family, model: Any, dtype: torch.dtype, packed: bool
) -> tuple[dict[str, Tensor], dict[str, Packed]]:
    """The state dict of the model, read from the tensors of a checkpoint; and packed weights."""
    own = dict(model.named_parameters())
    expected = list(places(family, model))
    theirs = {place.theirs for place in expected}
    state: dict[str, Tensor] = {}
    kept: dict[str, Packed] = {}
    problems: list[str] = []
    used: set[str] = set()
    for place in expected:
        shapes = [tuple(own[parameter].shape) for parameter in place.ours]
        if "*" in place.theirs:
            names = _numbered(place.theirs, shapes[0][0], family, stored)
            missing = [name for name in names if name not in stored]
            problems += [f"{name} is missing" for name in missing]
            if missing:
                continue
            used.update(names)
            name, tensor = place.theirs, torch.stack([stored[name] for name in names])
        else:
            stored_name = _any_name(place.theirs, family, stored)
            if stored_name is None:
                problems.append(f"{place.theirs} is missing")
                continue
            used.add(stored_name)
            matrix = _packed(stored, stored_name, model, place) if packed else None
            if matrix is not None:
                kept |= matrix
                continue
            name, tensor = stored_name, stored[stored_name]
        for copy in family.copies.get(place.theirs, ()):
            other = None if copy in theirs else _stored_as(copy, family, stored)
            if other is not None and other not in used:
                used.add(other)
                if not torch.equal(tensor, stored[other]):
                    problems.append(f"{other} differs from {name}")
        reason = _misfit(tensor, place, shapes)
        if reason is not None:
            problems.append(f"{name} is {reason}")
            continue
        for parameter, part in zip(place.ours, of_theirs(tensor, place, shapes), strict=True):
            state[parameter] = part.to(dtype).contiguous()
    ignored = re.compile(family.ignored)
    extra = [name for name in stored if name not in used and not ignored.search(name)]
    problems += [f"{name} is unexpected" for name in sorted(extra)]
    check_fits(problems)
    return state, kept


def _packed(stored: Stored, name: str, model: Any, place: Place) -> dict[str, Packed] | None:
    """Our packed matrices in a tensor; None if it is not packed, or does not fit."""
    if not isinstance(stored, gguf.GgufTensors) or not is_packable(model, place.ours[0]):
        return None
    matrix = stored.packed(name)
    own = [model.get_parameter(parameter) for parameter in place.ours]
    ends = [0, *accumulate(len(parameter) for parameter in own)]
    if matrix is None or matrix.shape != (ends[-1], own[0].shape[-1]):
        return None
    parts = (matrix.rows(slice(low, high)) for low, high in pairwise(ends))
    return dict(zip(place.ours, parts, strict=True))


def _stored_as(theirs: str, family: Family, stored: Stored) -> str | None:
    """The stored name of a tensor, with or without the prefix of checkpoints with a head."""
    for name in (theirs, theirs.removeprefix(family.prefix)):
        if name in stored:
            return name
    return None


def _numbered(theirs: str, count: int, family: Family, stored: Stored) -> list[str]:
    """The stored names of the tensors of which one of ours is a stack."""
    names = (theirs.replace("*", str(number)) for number in range(count))
    return [_stored_as(name, family, stored) or name for name in names]


def _any_name(theirs: str, family: Family, stored: Stored) -> str | None:
    """The stored name of a tensor or of one of its copies."""
    aliases = (theirs, *family.copies.get(theirs, ()))
    names = (_stored_as(alias, family, stored) for alias in aliases)
    return next((name for name in names if name is not None), None)


def _misfit(tensor: Tensor, place: Place, shapes: list[tuple[int, ...]]) -> str | None:
    """How a tensor differs from what the model needs, if it does."""
    if not tensor.is_floating_point():
        return f"of {tensor.dtype}, not of floating-point numbers"
    needed = list(shapes[0])
    needed[place.axis] = sum(shape[place.axis] for shape in shapes)
    if place.is_transposed:
        needed[-2:] = needed[:-3:-1]
    if tuple(x for x in tensor.shape if x != 1) != tuple(x for x in needed if x != 1):
        return f"{tuple(tensor.shape)}, not {tuple(needed)}"
    return None
