"""A model read from its directory: its shape, its weights, its tokenizer, its settings."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.common import untrusted
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.config import Config
from pellucid.models.checkpoints import UNFIT, generation, pooling, read_config
from pellucid.models.checkpoints.family import Family, Place, Shaped, names_of, of_theirs, places
from pellucid.models.checkpoints.source import directory_of, opening
from pellucid.models.checkpoints.tensors import Tensors, as_large_as_stored, check_fits
from pellucid.models.stacks import KINDS, Decoder, Encoder, EncoderDecoder
from pellucid.text.tokenizer_files import load_tokenizer

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def load(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Encoder | Decoder | EncoderDecoder:
    """A model with its weights, in eval mode, from a directory or the Hugging Face hub.

    Args:
        path: a directory with config.json and safetensors, a short name of a model that comes
            with Pellucid ("decoder", "translator", "sentiment", "minilm"), or a name on the hub.
        dtype: of the parameters, one of `DTYPES`.
        device: where they live.

    Raises:
        TypeMismatchError: path, dtype or device is none.
        ArgumentError: there is no such device here.
        FileError: there is no such model, it is of no known family, its weights are pickled, or
            tensors are missing, too many, or of another shape than the config says; the first of
            them are named.
        MissingExtraError: the hub, or the tokenizer, needs what is not installed.
    """
    _check_target(dtype, device)
    directory = directory_of(path)
    with opening(path):
        untrusted.check_links(directory)
        config, family = read_config(directory)
        stored = Tensors(directory, config.kind)
        config = pooling.read(directory, _as_stored(config, family, stored))
        # On "meta" what is read needs no memory and no random numbers.
        with untrusted.guarded(UNFIT), as_large_as_stored(stored), torch.device("meta"):
            model = KINDS[config.kind](config)
        state = _ours(stored, family, model, dtype)
        model.tokenizer = load_tokenizer(directory)
        model.generation = generation.read(directory, config)
    model.load_state_dict(state, strict=False, assign=True)
    model.share()
    return model.to(device).eval()


def _check_target(dtype: Any, device: Any) -> None:
    """Before anything is read or fetched."""
    if dtype not in DTYPES:
        known = listing([str(one) for one in DTYPES])
        raise TypeMismatchError(f"dtype must be one of {known}, not {dtype!r}")
    if not isinstance(device, torch.device | str):
        raise TypeMismatchError(f"device must be a torch.device or its name, not {device!r}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # without CUDA torch asserts that there is some
        reason = str(error).partition("\n")[0]
        raise ArgumentError(f"device '{device}' cannot be used here: {reason}") from error


def _as_stored(config: Config, family: Family, stored: Tensors) -> Config:
    """What the tensors say, and do so rather than config.json.

    A head that differs from the embedding is one of its own, and a checkpoint of the model without
    its head has no bias for it.
    """
    theirs = names_of(family, config)
    head, bias = theirs.get("head", "") + ".weight", theirs.get("bias", "")
    if config.tied and head in stored:
        for one, others in family.copies.items():
            name = _found(one, family, stored)
            if head in others and name and not torch.equal(stored[name], stored[head]):
                config = replace(config, tied=False)
    if config.logit_bias and bias and bias not in stored:
        config = replace(config, logit_bias=False)
    return config


def _ours(stored: Tensors, family: Family, model: Shaped, dtype: torch.dtype) -> dict[str, Tensor]:
    """The parameters of the model, read from the tensors of a checkpoint."""
    own = dict(model.named_parameters())
    wanted = list(places(family, model))
    theirs = {place.theirs for place in wanted}
    state: dict[str, Tensor] = {}
    wrong: list[str] = []
    used: set[str] = set()
    for place in wanted:
        name = _found(place.theirs, family, stored)
        if name is None:
            wrong.append(f"{place.theirs} is missing")
            continue
        used.add(name)
        tensor = stored[name]
        for copy in family.copies.get(place.theirs, ()):
            other = None if copy in theirs else _stored_as(copy, family, stored)
            if other is not None and other not in used:
                used.add(other)
                if not torch.equal(tensor, stored[other]):
                    wrong.append(f"{other} is not the same as {name}")
        shapes = [tuple(own[one].shape) for one in place.ours]
        reason = _misfit(tensor, place, shapes)
        if reason is not None:
            wrong.append(f"{name} is {reason}")
            continue
        for one, part in zip(place.ours, of_theirs(tensor, place, shapes), strict=True):
            state[one] = part.to(dtype).contiguous()
    ignored = re.compile(family.ignored)
    extra = [name for name in stored if name not in used and not ignored.search(name)]
    wrong += [f"{name} belongs to no part of it" for name in sorted(extra)]
    check_fits(wrong)
    return state


def _stored_as(theirs: str, family: Family, stored: Tensors) -> str | None:
    """The name, with or without what stands before it in checkpoints with a head."""
    for name in (theirs, theirs.removeprefix(family.prefix)):
        if name in stored:
            return name
    return None


def _found(theirs: str, family: Family, stored: Tensors) -> str | None:
    """The tensor or, where a checkpoint has left that out, a copy of it."""
    names = (_stored_as(one, family, stored) for one in (theirs, *family.copies.get(theirs, ())))
    return next((name for name in names if name is not None), None)


def _misfit(tensor: Tensor, place: Place, shapes: list[tuple[int, ...]]) -> str | None:
    """What it is instead of what is needed."""
    if not tensor.is_floating_point():
        return f"of {tensor.dtype}, no floating-point numbers"
    needed = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    if place.is_transposed:
        needed = needed[::-1]
    if tuple(x for x in tensor.shape if x != 1) != tuple(x for x in needed if x != 1):
        return f"{tuple(tensor.shape)}, not {needed}"
    return None
