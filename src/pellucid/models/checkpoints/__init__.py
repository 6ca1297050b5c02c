"""Models read from the checkpoints of others, and written for them.

One file a family says what its config means and what its tensors are called; see
docs/add-a-family.md. Only safetensors are read, and no code that a checkpoint brings is run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.untrusted import json_in
from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.models.checkpoints import bart, bert, generation, gpt2, llama, marian, t5
from pellucid.models.checkpoints.family import Family

FAMILIES = (
    bert.FAMILY,
    bert.ROBERTA_FAMILY,
    gpt2.FAMILY,
    llama.FAMILY,
    t5.FAMILY,
    bart.FAMILY,
    marian.FAMILY,
)
OWN = "pellucid"
"""The model_type of a shape that is no known family's; in those of others, the name of an entry
with our own config."""
IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
NO_ID = -1
"""What some say of an id that there is none of: the padding of the first Llama, say."""
UNFIT = "its config.json has a value that does not fit"
ANY_NAMES = Family(types=(OWN,), read=lambda said: _own(said), write=lambda _: None, names={})


def is_own(said: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a model that Pellucid has written."""
    return OWN in said or said.get("model_type") == OWN


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
    with untrusted.guarded(UNFIT):
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
    if theirs is None:  # as encoders were once written under the name of a family of decoders
        return own
    return own if theirs.items() <= said.items() else None


def _own(said: Mapping[str, Any]) -> Config:
    names = Config.__annotations__
    given = {name: value for name, value in said.items() if name in names}
    for name in ("stop", "rope_scaling"):
        if name in given:
            given[name] = tuple(tuple(x) if isinstance(x, list) else x for x in given[name])
    return Config(**given)
