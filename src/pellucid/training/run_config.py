"""The configuration of a run, validated before any text is read and stored for --resume."""

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
from pellucid.layers.config import Config
from pellucid.layers.config import Kind as ModelKind
from pellucid.tasks.targets import Kind, kind_named
from pellucid.text.table_reading import PLAIN, Reading
from pellucid.training.model_sizes import TIERS, shape
from pellucid.training.settings import Settings

What = Literal["decoder", "classifier", "translator", "encoder", "pairs"]
KIND: dict[str, ModelKind] = {
    "decoder": "decoder",
    "classifier": "encoder",
    "translator": "encoder-decoder",
    "encoder": "encoder",
    "pairs": "encoder",
}
_MODEL = {item.name for item in fields(Config)} - {
    *("kind", "vocabulary", "start", "stop", "padding")
}
_ADJUSTABLE = {"dropout", "attention_dropout", "most_tokens"}
"""Options of a base model that may be changed."""
_SETTINGS = {item.name for item in fields(Settings)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """The configuration of a run."""

    what: What
    files: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    """Files for evaluation; by default, a share of the training data is held out."""
    columns: tuple[str | int, ...] = ()
    """Names or numbers of the columns: the text; or text and label; or source and target."""
    reading: Reading = PLAIN
    """How the files are written, where they do not say it themselves."""
    vocabulary: int | None = None
    base: Path | None = None
    """A model to fine-tune, with its tokenizer."""
    head_only: bool = False
    """Whether to train only the head of a classifier."""
    predict: Kind | None = None
    """What the labels of a classifier are; by default what they look like."""
    separator: str | None = None
    """What divides several labels."""
    balanced: bool = False
    """Whether each label of a classifier weighs the same."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Settings` and of the model's `Config`."""

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise ArgumentError(f"what must be one of {listing([*get_args(What)])}")
        if self.head_only and self.what != "classifier":
            raise ArgumentError("head_only applies to a classifier only")
        kind_named(self.predict)
        if self.what != "classifier" and (self.predict, self.separator) != (None, None):
            raise ArgumentError("predict and separator apply to a classifier only")
        if self.balanced and (self.what != "classifier" or self.predict == "number"):
            raise ArgumentError("balanced applies to the labels of a classifier only")
        if self.base is not None and self.vocabulary is not None:
            raise ArgumentError("vocabulary cannot be changed: the base model has its own")
        if self.what != "translator" and self.options.get("guidance"):
            raise ArgumentError("guidance applies to a translator only")
        for name in self.options:
            if name not in _MODEL | _SETTINGS:
                near = get_close_matches(name, sorted(_MODEL | _SETTINGS), n=3)
                advice = (
                    f"did you mean {listing(near)}?" if near else "docs/train.md lists all options"
                )
                raise ArgumentError(f"there is no option '{name}'; {advice}")
            if self.base is not None and name in _MODEL - _ADJUSTABLE:
                raise ArgumentError(f"{name} cannot be changed: the base model has its own")
        self._check_columns()
        self.settings(1)
        if self.base is None:
            self._check_shape()

    def _check_columns(self) -> None:
        read = 1 if self.what in ("decoder", "encoder") else 2
        if not self.columns or (len(set(self.columns)) == len(self.columns) == read):
            return
        expected = "one column" if read == 1 else "two different columns"
        given = listing([f"'{column}'" for column in self.columns])
        raise ArgumentError(f"name {expected}, not {given}")

    def _check_shape(self) -> None:
        """Refuse options that are invalid for any amount of data."""
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
        """The options of the model."""
        return {name: value for name, value in self.options.items() if name in _MODEL}

    def settings(self, steps: int) -> Settings:
        """The settings of the training loop, with a default number of steps.

        Raises:
            ArgumentError, TypeMismatchError: an option is invalid.
        """
        given = {name: value for name, value in self.options.items() if name in _SETTINGS}
        return Settings(**{"steps": steps} | given)

    def save(self, path: Path) -> None:
        """Write the configuration, with absolute paths."""
        values = asdict(self)
        for name in ("files", "held_out"):
            values[name] = [os.path.realpath(file) for file in values[name]]
        if self.base is not None and self.base.exists():
            values["base"] = os.path.realpath(self.base)
        write_whole(path, json.dumps(values, indent=2, default=str) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read what `save` wrote.

        Raises:
            FileError: the file is missing or damaged.
        """
        try:
            values = json.loads(path.read_text())
            for name in ("files", "held_out"):
                values[name] = tuple(map(Path, values[name]))
            values["columns"] = tuple(values["columns"])
            values["reading"] = Reading(**values.get("reading", {}))
            values["base"] = None if values["base"] is None else Path(values["base"])
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FileError(
                f"no run to resume: cannot read '{path}': {reason_of(error)}"
            ) from error


def options_of(path: Path) -> dict[str, Any]:
    """The options in a TOML file, by name; tables only group them, under any name.

    Raises:
        FileError: the file cannot be read or is not TOML.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read '{path}': {reason_of(error)}") from error
    options: dict[str, Any] = {}
    for name, value in tables.items():
        options |= value if isinstance(value, dict) else {name: value}
    return options
