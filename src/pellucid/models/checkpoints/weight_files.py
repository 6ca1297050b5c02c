"""The tensors of a checkpoint: one safetensors file, or several with an index."""

import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from safetensors import safe_open
from torch import Tensor
from torch.nn.modules import module

from pellucid.common import untrusted
from pellucid.common.files import reason_of
from pellucid.common.untrusted import json_in
from pellucid.common.wording import count, short
from pellucid.errors import FileError
from pellucid.layers.config import Kind

RENAMED = (
    (r"^(module\.|_orig_mod\.)+", ""),  # of DataParallel, and of torch.compile
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # of BERT in TensorFlow
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
)
"""Parts of names that depend on how a checkpoint was saved, and what they are without that."""
ADAPTER = "adapter_model.safetensors"
MERGED = "model.merge_and_unload().save_pretrained(NEW_DIRECTORY)"
MOST_TOGETHER = 2**16
"""Numbers of tensors that are read of a file without opening it anew."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Stored(Protocol):
    """The tensors of a checkpoint, by name."""

    numbers: int

    def __contains__(self, name: str) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str) -> Tensor: ...


class Tensors:
    """The tensors in a directory, by name; each is read when it is accessed."""

    def __init__(
        self,
        directory: Path,
        kind: Kind | None,
        renamed: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Read the names and shapes.

        Args:
            directory: the checkpoint.
            kind: of the model, for advice on converting pickled weights; None for an adapter.
            renamed: regular expressions of parts of names, and what takes their place.

        Raises:
            FileError: there are no safetensors, or they are damaged.
        """
        self.numbers = 0
        """The number of elements of all tensors."""
        self._locations: dict[str, tuple[Path, str, int]] = {}
        """The file of each tensor, its name there, and how many numbers it has."""
        self._open: tuple[Path, Any] | None = None
        """The file that small tensors are read from, and it opened."""
        self._read_of_it = 0
        """Numbers read since."""
        if kind is None:
            files = _adapter_files(directory)
        else:
            files = _files(directory, _ADVICE.format(_WHOLE[kind]))
        self._read(files, renamed)

    def add(self, directory: Path, renamed: Iterable[tuple[str, str]]) -> None:
        """Add the tensors of a part of a model of sentence-transformers; as `__init__`."""
        self._read(_files(directory, _ADVICE_ON_PARTS), renamed)

    def _read(self, files: Iterable[Path], renamed: Iterable[tuple[str, str]]) -> None:
        rules = [(re.compile(part), other) for part, other in (*RENAMED, *renamed)]
        for file in files:
            with _guarded(file), safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  it is no mapping
                    own = name
                    for part, other in rules:
                        own = part.sub(other, own)
                    size = math.prod(opened.get_slice(name).get_shape())
                    self.numbers += size
                    self._locations[name if own in self._locations else own] = file, name, size

    def __contains__(self, name: str) -> bool:
        return name in self._locations

    def __len__(self) -> int:
        return len(self._locations)

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __getitem__(self, name: str) -> Tensor:
        file, stored, size = self._locations[name]
        with _guarded(file):
            tensor: Tensor = self._for(file, size).get_tensor(stored)
        return tensor

    def _for(self, file: Path, size: int) -> Any:
        """The file, opened to read a tensor with so many numbers.

        To open it costs more than to read a small tensor. But all that is read of one opening
        stays in memory as long as any of it is used, and a large tensor may be copied and left.
        """
        if size > MOST_TOGETHER:
            return safe_open(file, framework="pt")
        self._read_of_it += size
        if self._open is None or self._open[0] != file or self._read_of_it > MOST_TOGETHER:
            self._open, self._read_of_it = (file, safe_open(file, framework="pt")), size
        return self._open[1]


@contextmanager
def as_large_as_stored(stored: Stored) -> Iterator[None]:
    """Stop building a model that gets far larger than its stored weights.

    Raises:
        FileError: it has far more elements, or tensors, than the checkpoint.
    """
    here = threading.get_ident()
    numbers = parts = 0

    def add(_: Any, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers, parts
        if tensor is None or threading.get_ident() != here:  # another thread builds another model
            return
        numbers, parts = numbers + tensor.numel(), parts + 1
        most = untrusted.BUILT_TIMES * stored.numbers + untrusted.BUILT_FREE
        if numbers > most or parts > untrusted.BUILT_TIMES * len(stored) + untrusted.BUILT_PARTS:
            raise FileError(
                f"its config.json describes a model with at least {numbers:,} numbers in "
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


def check_fits(problems: Sequence[str]) -> None:
    """Refuse weights with problems.

    Args:
        problems: a line for each tensor that is missing, unexpected or of another shape.

    Raises:
        FileError: there are problems; the first of them are named.
    """
    if problems:
        do, most = "does" if len(problems) == 1 else "do", untrusted.MOST_NAMED
        more = [f"and {len(problems) - most:,} more"] if len(problems) > most else []
        named = "; ".join([short(problem, 200) for problem in problems[:most]] + more)
        raise FileError(f"{count(len(problems), 'tensor')} {do} not fit: {named}")


def _files(directory: Path, advice: str) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / INDEX).is_file():
        _refuse_pickles(directory, advice)
        raise FileError(f"it has no {WEIGHTS}")
    weight_map = json_in(directory, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileError(f"its {INDEX} names no files")
    files = sorted({str(name) for name in weight_map.values()})
    for name in files:
        if not untrusted.inside(directory, name, INDEX).is_file():
            raise FileError(f"its {INDEX} names {name}, which does not exist")
    return [directory / name for name in files]


def _adapter_files(directory: Path) -> list[Path]:
    if not (directory / ADAPTER).is_file():
        _refuse_pickles(directory, f"peft: {MERGED}")
        raise FileError(f"it has no {ADAPTER}")
    return [directory / ADAPTER]


_WHOLE = {
    "encoder": "AutoModel",
    "decoder": "AutoModelForCausalLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}
"""Classes of transformers that read all the weights."""
_ADVICE = "transformers: {}.from_pretrained(DIRECTORY).save_pretrained(NEW_DIRECTORY)"
_ADVICE_ON_PARTS = (
    "sentence-transformers: SentenceTransformer(DIRECTORY).save_pretrained(NEW_DIRECTORY)"
)


def _refuse_pickles(directory: Path, advice: str) -> None:
    files = sorted(file.name for end in ("*.bin", "*.pt", "*.pth") for file in directory.glob(end))
    if files:
        raise FileError(
            f"its weights are pickled ({files[0]}), which can run code; if you trust them, convert "
            f"them with {advice}"
        )


@contextmanager
def _guarded(file: Path) -> Iterator[None]:
    with untrusted.guarded(f"its {file.name} is damaged"):
        try:
            yield
        except OSError as error:
            raise FileError(f"its {file.name} cannot be read: {reason_of(error)}") from error
