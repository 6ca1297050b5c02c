"""Writing models for `pellucid.load`, and for transformers if it knows the architecture."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pellucid.common.files import reason_of, written_whole
from pellucid.errors import ExistsError, FileError
from pellucid.models.checkpoints import ANY_NAMES, OWN, described, generation, pooling
from pellucid.models.checkpoints.family import Family, Shaped, places, to_theirs
from pellucid.models.checkpoints.generation import Generation
from pellucid.models.checkpoints.pooling import Prompts
from pellucid.models.checkpoints.weight_files import WEIGHTS
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_files import tokenizer_file


class Saved(Shaped, Protocol):
    """A model with everything that is saved."""

    tokenizer: Tokenizer | None
    generation: Generation


def save(model: Saved, directory: Path, overwrite: bool = False) -> None:
    """See `Transformer.save`."""
    existing = next(
        (name for name in ("config.json", WEIGHTS) if (directory / name).exists()), None
    )
    if existing is not None and not overwrite:
        raise ExistsError(
            f"'{directory}' already has a {existing}; overwrite=True replaces the model there"
        )
    other = tokenizer_file(directory) if model.tokenizer is None else None
    if other is not None:  # it would be loaded as this model's
        raise FileError(
            f"cannot write '{directory}': the model has no tokenizer, but the directory has one, "
            f"{other}; remove it, or write elsewhere"
        )
    settings: dict[str, Any] = {"model_type": OWN, **asdict(model.config)}
    family = ANY_NAMES
    written = described(model.config)
    if written is not None:
        settings, family = written[0] | {OWN: asdict(model.config)}, written[1]
    theirs = _theirs(model, family)
    settings["dtype"] = str(next(iter(theirs.values())).dtype).removeprefix("torch.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Everything is written before the weights and the config are renamed into place.
        with (
            written_whole(directory / WEIGHTS) as weights,
            written_whole(directory / "config.json") as config,
        ):
            for number in range(len(model.config.dense)):
                _write_dense(directory / f"{number + 2}_Dense", number, theirs)
            save_file(theirs, weights, metadata={"format": "pt"})
            config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            if model.tokenizer is not None:
                model.tokenizer.save(directory)
            pooling.write(directory, model.config, getattr(model, "prompts", Prompts()))
            generation.write(directory, model.generation, model.config)
    except FileError:
        raise
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write '{directory}': {reason_of(error)}") from error


def _write_dense(directory: Path, number: int, theirs: dict[str, Tensor]) -> None:
    """Write the weights of a linear layer on embeddings, and take them out of the others."""
    own = f"dense.{number}."
    names = [name for name in theirs if name.startswith(own)]
    directory.mkdir(exist_ok=True)
    with written_whole(directory / WEIGHTS) as aside:
        tensors = {name.replace(own, "linear."): theirs.pop(name) for name in names}
        save_file(tensors, aside, metadata={"format": "pt"})


def _theirs(model: Shaped, family: Family) -> dict[str, Tensor]:
    """The tensors under the names of a family."""
    own = {name: value.detach() for name, value in model.named_parameters()}
    theirs: dict[str, Tensor] = {}
    for place in places(family, model):
        whole = to_theirs([own[name] for name in place.ours], place)
        whole = whole.unsqueeze(0) if place.theirs in family.rows else whole
        # An encoder without a classifier has no head, and so no prefix.
        is_bare = model.kind == "encoder" and model.config.classifier is None
        name = place.theirs.removeprefix(family.prefix if is_bare else "")
        if "*" in name:
            each = enumerate(whole.unbind())
            theirs |= {name.replace("*", str(i)): part.contiguous().cpu() for i, part in each}
        else:
            theirs[name] = whole.contiguous().cpu()
    if not model.config.tied:
        for name, copies in family.copies.items():
            theirs |= {copy: theirs[name].clone() for copy in copies if copy in family.untied}
    return theirs
