"""The tensors of a checkpoint: safetensors, in one file or in several that an index names."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from pellucid.common import untrusted
from pellucid.common.files import reason_of
from pellucid.common.untrusted import json_in
from pellucid.errors import FileError
from pellucid.layers.config import Kind

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Tensors:
    """What a directory's files hold, by name; each is read when it is asked for."""

    def __init__(self, directory: Path, kind: Kind) -> None:
        """Read which there are.

        Args:
            directory: of the checkpoint.
            kind: of the model, which decides how pickled weights could be converted.

        Raises:
            FileError: there are no safetensors, or they are damaged.
        """
        self._files: dict[str, Path] = {}
        self.numbers = 0
        """In all of them together."""
        for file in _files(directory, kind):
            with _opened(file) as opened:
                names = list(opened.keys())
                self.numbers += sum(math.prod(opened.get_slice(one).get_shape()) for one in names)
                self._files |= dict.fromkeys(names, file)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __getitem__(self, name: str) -> Tensor:
        with _opened(self._files[name]) as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor


def _files(directory: Path, kind: Kind) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / INDEX).is_file():
        _refuse_pickles(directory, kind)
        raise FileError(f"it has no {WEIGHTS}")
    named = json_in(directory, INDEX).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise FileError(f"its {INDEX} names no files")
    files = sorted({str(name) for name in named.values()})
    for name in files:
        if not untrusted.inside(directory, name, INDEX).is_file():
            raise FileError(f"its {INDEX} names {name}, and there is no such file")
    return [directory / name for name in files]


_WHOLE = {
    "encoder": "AutoModel",
    "decoder": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}
"""Classes of transformers that read all the weights there are."""


def _refuse_pickles(directory: Path, kind: Kind) -> None:
    found = sorted(one.name for end in ("*.bin", "*.pt", "*.pth") for one in directory.glob(end))
    if found:
        raise FileError(
            f"its weights are pickled ({found[0]}), which can run code; if you trust them, convert "
            "them with transformers: "
            f"{_WHOLE[kind]}.from_pretrained(DIRECTORY).save_pretrained(NEW_DIRECTORY)"
        )


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    with untrusted.guarded(f"its {file.name} is damaged"):
        try:
            with safe_open(file, framework="pt") as opened:
                yield opened
        except OSError as error:
            raise FileError(f"its {file.name} cannot be read: {reason_of(error)}") from error
