"""Models read from the checkpoints of others, and written for them.

One file a family says what its config means and what its tensors are called; see
docs/add-a-family.md. Only safetensors are read, and no code that a checkpoint brings is run.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.common.files import written_whole
from pellucid.common.wording import count
from pellucid.errors import FileError, MissingExtraError, PellucidError
from pellucid.layers.config import Config
from pellucid.models.checkpoints import bert
from pellucid.models.checkpoints.family import Family, of_theirs, places
from pellucid.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pellucid.models.stacks import Decoder, Encoder, EncoderDecoder, Transformer

FAMILIES = (bert.FAMILY,)
OWN = "pellucid"
"""The model_type of a shape that is no known family's."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ANY_NAMES = Family(types=(OWN,), read=lambda _: _own(_), write=lambda _: None, names={})


def load(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> "Encoder | Decoder | EncoderDecoder":
    """A model with its weights, in eval mode, from a directory or the Hugging Face hub.

    Args:
        path: a directory with config.json and safetensors, or a name on the hub.
        dtype: of the parameters.
        device: where they live.

    Raises:
        FileError: there is no such model, it is of no known family, its weights are pickled, or
            tensors are missing, too many, or of another shape than the config says; all are named.
        MissingExtraError: safetensors is not installed.
    """
    from pellucid.models.checkpoints.source import directory_of
    from pellucid.models.stacks import KINDS

    directory = directory_of(path)
    try:
        config, family = read_config(directory)
        with torch.device("meta"):  # no memory and no random numbers for what is read
            model = KINDS[config.kind](config)
        state = _ours(directory, family, model, dtype)
        model.tokenizer = Tokenizer.load(directory)
    except PellucidError as error:
        raise FileError(f"model '{path}' cannot be loaded: {error}") from error
    model.load_state_dict(state, strict=False, assign=True)
    model.share()
    return model.to(device).eval()


def read_config(directory: Path) -> tuple[Config, Family]:
    """What config.json says.

    Raises:
        FileError: it is not there, no JSON, of no known family, or says what a `Config` cannot.
    """
    said = _json(directory / "config.json")
    kind = said.get("model_type")
    if kind == OWN:
        return _own(said), ANY_NAMES
    for family in FAMILIES:
        if kind in family.types:
            try:
                return family.read(said), family
            except KeyError as error:
                raise FileError(f"its config.json has no {error}") from error
    known = ", ".join(name for family in FAMILIES for name in family.types)
    raise FileError(f"its config.json has model_type {kind!r}; known families are {known}")


def save(model: "Transformer", directory: Path) -> None:
    """See `Transformer.save`."""
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingExtraError("saving needs safetensors: pip install 'pellucid[hf]'") from error
    described = {"model_type": OWN, **_said(model.config)}
    family = ANY_NAMES
    for one in FAMILIES:
        written = one.write(model.config)
        if written is not None:
            described, family = written | {"pellucid": _said(model.config)}, one
            break
    own = {name: value.detach() for name, value in model.named_parameters()}
    theirs = {}
    for place in places(family, model):
        parts = [own[name] for name in place.ours]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        whole = whole.T if place.is_transposed else whole
        theirs[place.theirs] = whole.contiguous().cpu()
    described["dtype"] = str(next(iter(theirs.values())).dtype).removeprefix("torch.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write '{directory}': {error.strerror or error}") from error
    with written_whole(directory / WEIGHTS) as aside:
        save_file(theirs, aside, metadata={"format": "pt"})
    with written_whole(directory / "config.json") as aside:
        aside.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    if model.tokenizer is not None:
        model.tokenizer.save(directory)


def _own(said: Mapping[str, Any]) -> Config:
    names = Config.__annotations__
    given = {name: value for name, value in said.items() if name in names}
    for name in ("stop", "rope_scaling"):
        if name in given:
            given[name] = tuple(tuple(x) if isinstance(x, list) else x for x in given[name])
    return Config(**given)


def _said(config: Config) -> dict[str, Any]:
    return asdict(config)


def _ours(
    directory: Path, family: Family, model: "Transformer", dtype: torch.dtype
) -> dict[str, Tensor]:
    """The parameters of the model, read from the tensors of a checkpoint."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("loading needs safetensors: pip install 'pellucid[hf]'") from error
    own = dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    wrong: list[str] = []
    files = _files(directory)
    used: set[str] = set()
    found: dict[str, Path] = {}
    try:
        for file in files:
            with safe_open(file, framework="pt") as opened:
                found |= dict.fromkeys(opened.keys(), file)
        wanted = list(places(family, model))
        has_prefix = any(name.startswith(family.prefix) for name in found)
        for place in wanted:
            name = place.theirs if has_prefix else place.theirs.removeprefix(family.prefix)
            if name not in found and family.prefix + name in found:
                name = family.prefix + name
            if name not in found:
                wrong.append(f"{name} is missing")
                continue
            used.add(name)
            with safe_open(found[name], framework="pt") as opened:
                tensor = opened.get_tensor(name)
            shapes = [tuple(own[one].shape) for one in place.ours]
            rows = sum(shape[0] for shape in shapes)
            needed = (rows, *shapes[0][1:])
            given = tuple(tensor.T.shape if place.is_transposed else tensor.shape)
            if tuple(x for x in given if x != 1) != tuple(x for x in needed if x != 1):
                wrong.append(f"{name} is {tuple(tensor.shape)}, not {needed}")
                continue
            for one, part in zip(place.ours, of_theirs(tensor, place, shapes), strict=True):
                state[one] = part.to(dtype).contiguous()
    except SafetensorError as error:
        raise FileError(f"its weights are damaged: {error}") from error
    ignored = re.compile(family.ignored)
    extra = [name for name in found.keys() - used if not ignored.search(name)]
    wrong += [f"{name} belongs to no part of it" for name in sorted(extra)]
    if wrong:
        raise FileError(f"{count(len(wrong), 'tensor')} do not fit: {'; '.join(wrong)}")
    return state


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
        files = [directory / str(name) for name in names]
    else:
        files = [directory / WEIGHTS]
    for file in files:
        if file.resolve().parent != directory.resolve() and not file.is_symlink():
            raise FileError(f"its index names a file elsewhere, {file.name}")
        if not file.is_file():
            pickled = sorted(x.name for x in directory.glob("*.bin"))
            if pickled:
                raise FileError(
                    f"its weights are pickled ({pickled[0]}), which can run code; if you trust "
                    "them, convert them with transformers: "
                    "AutoModel.from_pretrained(DIRECTORY).save_pretrained(NEW_DIRECTORY)"
                )
            raise FileError(f"it has no {file.name}")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"it has no {path.name}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileError(f"its {path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise FileError(f"its {path.name} is no JSON object")
    return found
