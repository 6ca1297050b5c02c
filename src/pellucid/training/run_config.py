"""What a user asks of a run, checked before any text is read, and kept for --resume."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from pellucid.common.files import reason_of, write_whole
from pellucid.common.wording import listing
from pellucid.errors import ArgumentError, FileError, PellucidError
from pellucid.layers.config import Config, Kind
from pellucid.training.model_sizes import TIERS, shape
from pellucid.training.settings import Settings

What = Literal["decoder", "classifier", "translator", "encoder", "pairs"]
KIND: dict[str, Kind] = {
    "decoder": "decoder",
    "classifier": "encoder",
    "translator": "encoder-decoder",
    "encoder": "encoder",
    "pairs": "encoder",
}
_MODEL = {one.name for one in fields(Config)} - {"kind", "vocabulary", "start", "stop", "padding"}
_OPEN = {"dropout", "attention_dropout", "most_tokens"}
"""What may be said anew of a model to go on from."""
_SETTINGS = {one.name for one in fields(Settings)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a user asks for."""

    what: What
    files: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    """Files to be judged by; a share of the others unless given."""
    columns: tuple[str | int, ...] = ()
    """Names or numbers of the columns: a text's; or text and label; or source and target."""
    vocabulary: int | None = None
    base: Path | None = None
    """A model to go on from, its tokenizer with it."""
    head_only: bool = False
    """Whether only a classifier's head is trained, and not the model below it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Settings` and of the model's `Config`."""

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise ArgumentError(f"what must be one of {listing([*get_args(What)])}")
        if self.head_only and self.what != "classifier":
            raise ArgumentError("head_only is for a classifier, which alone has such a head")
        if self.base is not None and self.vocabulary is not None:
            raise ArgumentError(
                "vocabulary is that of the model to go on from; it cannot be chosen"
            )
        if self.what != "translator" and self.options.get("guidance"):
            raise ArgumentError("guidance is for a translator, whose heads look across")
        for name in self.options:
            if name not in _MODEL | _SETTINGS:
                near = get_close_matches(name, sorted(_MODEL | _SETTINGS), n=3)
                told = (
                    f"near it is {listing(near)}" if near else "docs/train.md says which there are"
                )
                raise ArgumentError(f"there is no option '{name}'; {told}")
            if self.base is not None and name in _MODEL - _OPEN:
                raise ArgumentError(f"{name} is that of the model to go on from")
        self._check_columns()
        self.settings(1)
        if self.base is None:
            self._check_shape()

    def _check_columns(self) -> None:
        read = 1 if self.what in ("decoder", "encoder") else 2
        if not self.columns or (len(set(self.columns)) == len(self.columns) == read):
            return
        wanted = "one column" if read == 1 else "two different columns"
        said = listing([f"'{one}'" for one in self.columns])
        raise ArgumentError(f"name {wanted}, not {said}")

    def _check_shape(self) -> None:
        """Refuse what fits no model, however much there will be to learn from."""
        errors: list[PellucidError] = []
        for tokens, *_ in TIERS:
            try:
                shape(KIND[self.what], tokens, 2**31, 0, self.of_model)
            except PellucidError as error:
                errors.append(error)
        if len(errors) == len(TIERS):
            raise errors[0]

    @property
    def of_model(self) -> dict[str, Any]:
        """The options that are of the model."""
        return {name: value for name, value in self.options.items() if name in _MODEL}

    def settings(self, steps: int) -> Settings:
        """Those of the loop, with so many steps unless the options say otherwise.

        Raises:
            ArgumentError, TypeMismatchError: an option that makes no sense.
        """
        wanted = {name: value for name, value in self.options.items() if name in _SETTINGS}
        return Settings(**{"steps": steps} | wanted)

    def save(self, path: Path) -> None:
        """Write it so that it can be read in any directory."""
        said = asdict(self)
        for name in ("files", "held_out"):
            said[name] = [os.path.realpath(one) for one in said[name]]
        if self.base is not None and self.base.exists():
            said["base"] = os.path.realpath(self.base)
        write_whole(path, json.dumps(said, indent=2, default=str) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Run":
        """What `save` wrote.

        Raises:
            FileError: it is not there, or damaged.
        """
        try:
            said = json.loads(path.read_text())
            for name in ("files", "held_out"):
                said[name] = tuple(map(Path, said[name]))
            said["columns"] = tuple(said["columns"])
            said["base"] = None if said["base"] is None else Path(said["base"])
            return cls(**said)
        except (OSError, ValueError, TypeError, KeyError) as error:
            told = f"cannot read '{path}': {reason_of(error)}"
            raise FileError(f"no run to go on with: {told}") from error


def options_of(path: Path) -> dict[str, Any]:
    """Those of a TOML file, by name; tables in it are for people, and may be called anything.

    Raises:
        FileError: it cannot be read, or is no TOML.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read '{path}': {reason_of(error)}") from error
    found: dict[str, Any] = {}
    for name, value in said.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found
