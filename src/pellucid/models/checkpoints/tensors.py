"""The tensors of a checkpoint: safetensors, in one file or in several that an index names."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from torch.nn.modules import module

from pellucid.common import untrusted
from pellucid.common.files import reason_of
from pellucid.common.untrusted import json_in
from pellucid.common.wording import count, short
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


@contextmanager
def as_large_as_stored(stored: Tensors) -> Iterator[None]:
    """Refuse a model that gets far larger than its weights are, while it is being built.

    Raises:
        FileError: it has far more numbers, or tensors, than there are.
    """
    here = threading.get_ident()
    numbers = parts = 0

    def add(_: Any, name: str, made: Tensor | None) -> None:
        nonlocal numbers, parts
        if made is None or threading.get_ident() != here:  # another thread builds another model
            return
        numbers, parts = numbers + made.numel(), parts + 1
        most = untrusted.BUILT_TIMES * stored.numbers + untrusted.BUILT_FREE
        if numbers > most or parts > untrusted.BUILT_TIMES * len(stored) + untrusted.BUILT_PARTS:
            raise FileError(
                f"its config.json says sizes of a model with at least {numbers:,} numbers in "
                f"{parts:,} tensors, but its weights are {stored.numbers:,} in {len(stored):,}"
            )

    hooks = [
        module.register_module_parameter_registration_hook(add),
        module.register_module_buffer_registration_hook(add),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_fits(wrong: Sequence[str]) -> None:
    """Refuse weights of which something is wrong.

    Args:
        wrong: a line for each tensor that is missing, of another shape or left over.

    Raises:
        FileError: naming the first of them.
    """
    if wrong:
        do, most = "does" if len(wrong) == 1 else "do", untrusted.MOST_NAMED
        more = [f"and {len(wrong) - most:,} more"] if len(wrong) > most else []
        told = "; ".join([short(one, 200) for one in wrong[:most]] + more)
        raise FileError(f"{count(len(wrong), 'tensor')} {do} not fit: {told}")


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
