"""Models read from the checkpoints of others, and written for them.

One file a family says what its config means and what its tensors are called; see
docs/add-a-family.md. Only safetensors are read, and no code that a checkpoint brings is run.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pellucid.common import untrusted
from pellucid.common.files import reason_of, written_whole
from pellucid.common.untrusted import json_in
from pellucid.common.wording import count, listing, short
from pellucid.errors import (
    ArgumentError,
    ExistsError,
    FileError,
    MissingExtraError,
    PellucidError,
    TypeMismatchError,
)
from pellucid.layers.config import Config
from pellucid.models.checkpoints import (
    bart,
    bert,
    generation,
    gpt2,
    llama,
    marian,
    pooling,
    t5,
)
from pellucid.models.checkpoints.family import Family, Place, names_of, of_theirs, places
from pellucid.models.checkpoints.tensors import WEIGHTS, Tensors
from pellucid.text.tokenizer_files import load_tokenizer, tokenizer_file

if TYPE_CHECKING:
    from pellucid.models.stacks import Decoder, Encoder, EncoderDecoder, Transformer

FAMILIES = (
    bert.FAMILY,
    bert.ROBERTA_FAMILY,
    gpt2.FAMILY,
    llama.FAMILY,
    t5.FAMILY,
    bart.FAMILY,
    marian.FAMILY,
)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OWN = "pellucid"
"""The model_type of a shape that is no known family's; in those of others, the name of an entry
with our own config."""
IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
SIZES = (
    *("vocabulary", "width", "layers", "decoder_layers", "heads", "head_dim", "hidden"),
    *("positions", "types"),
)
NO_ID = -1
"""What some say of an id that there is none of: the padding of the first Llama, say."""
ANY_NAMES = Family(types=(OWN,), read=lambda said: _own(said), write=lambda _: None, names={})


def load(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> "Encoder | Decoder | EncoderDecoder":
    """A model with its weights, in eval mode, from a directory or the Hugging Face hub.

    Args:
        path: a directory with config.json and safetensors, or a name on the hub.
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
    from pellucid.models.checkpoints.source import directory_of
    from pellucid.models.stacks import KINDS

    _check_target(dtype, device)
    directory = directory_of(path)
    try:
        config, family = read_config(directory)
        stored = Tensors(directory, config.kind)
        _check_size(config, stored)
        config = pooling.read(directory, _as_stored(config, family, stored))
        with torch.device("meta"):  # no memory and no random numbers for what is read
            model = KINDS[config.kind](config)
        state = _ours(stored, family, model, dtype)
        model.tokenizer = load_tokenizer(directory)
        model.generation = generation.read(directory, config)
    except MissingExtraError:
        raise
    except PellucidError as error:
        raise FileError(f"model '{path}' cannot be loaded: {error}") from error
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


def _check_size(config: Config, stored: Tensors) -> None:
    """Refuse a config of far more numbers than are stored, before any of it is built."""
    tables = config.vocabulary + config.types
    if config.position == "learned":
        tables += config.positions or 0
    blocks = config.layers
    if config.kind == "encoder-decoder":
        blocks += config.layers if config.decoder_layers is None else config.decoder_layers
    least = config.width * (tables + blocks * (config.hidden + config.heads * config.dim))
    if config.position == "relative":
        least += config.relative_buckets * config.heads
    if least > stored.numbers:
        names = (*SIZES, "relative_buckets") if config.position == "relative" else SIZES
        sizes = {name: getattr(config, name) for name in names}
        said = [f"{name} {size:,}" for name, size in sizes.items() if size]
        raise FileError(
            f"its config.json says {listing(said)}, which makes at least {least:,} numbers, but "
            f"its weights are {stored.numbers:,}"
        )


def read_config(directory: Path) -> tuple[Config, Family]:
    """What config.json says, and generation_config.json of ids that it does not.

    Raises:
        FileError: it is not there, no JSON, of no known family, or says what a `Config` cannot.
    """
    said = json_in(directory, "config.json")
    kind, quantised = said.get("model_type"), said.get("quantization_config")
    if quantised:
        raise FileError(
            "its weights are quantised, as its config.json says; the plain ones are needed"
        )
    families = {name: family for family in (*FAMILIES, ANY_NAMES) for name in family.types}
    if not isinstance(kind, str) or kind not in families:
        known = ", ".join(name for name in families if name != OWN)
        raise FileError(f"its config.json has model_type {kind!r}; known families are {known}")
    family = families[kind]
    with untrusted.guarded("its config.json has a value that does not fit"):
        try:
            return _own_of(said, family) or family.read(_with_ids(said, directory)), family
        except KeyError as error:
            raise FileError(f"its config.json has no {error}") from error


def _with_ids(said: dict[str, Any], directory: Path) -> dict[str, Any]:
    """With the ids that the settings of generation say, which go before, as in transformers."""
    file = directory / generation.FILE
    also = json_in(directory, file.name) if file.is_file() else {}
    found = said | {name: also[name] for name in IDS if also.get(name) is not None}
    return found | {name: None for name in IDS if found.get(name) == NO_ID}


def _own_of(said: Mapping[str, Any], family: Family) -> Config | None:
    """Our own config, kept beside theirs, unless theirs has been changed since."""
    if OWN not in said:
        return None
    own = _own(said[OWN])
    theirs = family.write(own)
    return own if theirs is not None and theirs.items() <= said.items() else None


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


def save(model: "Transformer", directory: Path, overwrite: bool = False) -> None:
    """See `Transformer.save`."""
    there = next((name for name in ("config.json", WEIGHTS) if (directory / name).exists()), None)
    if there is not None and not overwrite:
        raise ExistsError(
            f"'{directory}' has a {there} already; overwrite=True replaces the model that is there"
        )
    other = tokenizer_file(directory) if model.tokenizer is None else None
    if other is not None:  # it would be read back as this model's
        raise FileError(
            f"cannot write '{directory}': the model has no tokenizer, but the directory has one, "
            f"{other}; take it away, or write elsewhere"
        )
    described: dict[str, Any] = {"model_type": OWN, **asdict(model.config)}
    family = ANY_NAMES
    for one in FAMILIES:
        written = one.write(model.config)
        if written is not None:
            described, family = written | {OWN: asdict(model.config)}, one
            break
    theirs = _theirs(model, family)
    described["dtype"] = str(next(iter(theirs.values())).dtype).removeprefix("torch.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # All are written before the weights and the config take their places.
        with (
            written_whole(directory / WEIGHTS) as weights,
            written_whole(directory / "config.json") as config,
        ):
            save_file(theirs, weights, metadata={"format": "pt"})
            config.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
            if model.tokenizer is not None:
                model.tokenizer.save(directory)
            pooling.write(directory, model.config)
            generation.write(directory, model.generation, model.config)
    except FileError:
        raise
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error


def _theirs(model: "Transformer", family: Family) -> dict[str, Tensor]:
    """Tensors as the family has them."""
    own = {name: value.detach() for name, value in model.named_parameters()}
    theirs = {}
    for place in places(family, model):
        parts = [own[name] for name in place.ours]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        whole = whole.T if place.is_transposed else whole
        whole = whole.unsqueeze(0) if place.theirs in family.rows else whole
        # An encoder has no head, before which a prefix would stand.
        name = place.theirs.removeprefix(family.prefix if model.kind == "encoder" else "")
        theirs[name] = whole.contiguous().cpu()
    if not model.config.tied:
        for name, copies in family.copies.items():
            theirs |= {one: theirs[name].clone() for one in copies if one in family.untied}
    return theirs


def _own(said: Mapping[str, Any]) -> Config:
    names = Config.__annotations__
    given = {name: value for name, value in said.items() if name in names}
    for name in ("stop", "rope_scaling"):
        if name in given:
            given[name] = tuple(tuple(x) if isinstance(x, list) else x for x in given[name])
    return Config(**given)


def _ours(
    stored: Tensors, family: Family, model: "Transformer", dtype: torch.dtype
) -> dict[str, Tensor]:
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
    if wrong:
        do, most = "does" if len(wrong) == 1 else "do", untrusted.MOST_NAMED
        more = [f"and {len(wrong) - most:,} more"] if len(wrong) > most else []
        told = "; ".join([short(one, 200) for one in wrong[:most]] + more)
        raise FileError(f"{count(len(wrong), 'tensor')} {do} not fit: {told}")
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
