"""The content of a GGUF file: metadata by key, and tensors in blocks of whole numbers.

The format is llama.cpp's (ggml/docs/gguf.md, versions 2 and 3, little-endian). The reader of the
package `gguf` trusts every count and offset in the file, and takes seconds for a vocabulary; here
nothing is allocated or read that the file does not have.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from pellucid.common.untrusted import guarded, regular
from pellucid.common.wording import short
from pellucid.errors import FileError, MissingExtraError
from pellucid.layers.packed import FORMATS, Packed

MAGIC = b"GGUF"
MOST_KEYS = 2**16
MOST_ITEMS = 2**22
"""Items of all arrays together; the largest vocabularies and their merges have a quarter."""
MOST_KEY = 2**12
"""Bytes of a key or of a tensor's name."""
MOST_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?"} | {
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
"""Types of metadata, as numpy names them."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file."""

    kind: int
    """The number of its format in ggml."""
    shape: tuple[int, ...]
    """(rows, cols), as in torch."""
    start: int
    """Where its bytes begin."""

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


class GgufFile:
    """A GGUF file; its tensors are read when they are accessed."""

    def __init__(self, path: Path) -> None:
        """Read the metadata, and what tensors there are.

        Raises:
            FileError: it is not a GGUF file that can be read, or is damaged.
        """
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Stored] = {}
        with guarded("it is damaged"), regular(path) as file:
            _Header(file, path.stat().st_size).read_into(self)

    def packed(self, name: str) -> Packed | None:
        """A tensor of whole numbers as it is stored; None if it is stored otherwise.

        Raises:
            FileError: it cannot be read.
        """
        stored = self.tensors[name]
        if stored.kind not in FORMATS or len(stored.shape) != 2:
            return None
        return self._blocks(name)

    def _blocks(self, name: str) -> Packed:
        stored = self.tensors[name]
        form = FORMATS[stored.kind]
        content = self._content(name, form.block, form.size)
        rows = math.prod(stored.shape[:-1])
        return form.read(torch.from_numpy(content.reshape(rows, -1, form.size)))

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32, or as it is stored if that is float.

        Raises:
            FileError: it cannot be read.
            MissingExtraError: it is in a format that needs the package `gguf`.
        """
        stored = self.tensors[name]
        floats = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
        if stored.kind in floats:
            dtype = floats[stored.kind]
            content = self._content(name, 1, dtype.itemsize)
            return torch.from_numpy(content).view(dtype).reshape(stored.shape)
        if stored.kind in FORMATS:
            return self._blocks(name).unpacked().reshape(stored.shape)
        return torch.from_numpy(self._unusual(name)).reshape(stored.shape)

    def _unusual(self, name: str) -> Any:
        """A tensor in a format that only `gguf` knows, as float32."""
        stored = self.tensors[name]
        try:
            import gguf
        except ImportError as error:
            raise MissingExtraError.of(
                f"its tensor {name} is in format {stored.kind} of ggml, which needs gguf", "gguf"
            ) from error
        with guarded(f"its tensor {name} is in format {stored.kind} of ggml, which is unknown"):
            kind = gguf.GGMLQuantizationType(stored.kind)
            block, size = gguf.GGML_QUANT_SIZES[kind]
            content = self._content(name, block, size).reshape(*stored.shape[:-1], -1)
            return np.ascontiguousarray(gguf.dequantize(content, kind))

    def _content(self, name: str, block: int, size: int) -> Any:
        """The bytes of a tensor whose blocks of numbers have `size` bytes."""
        stored = self.tensors[name]
        if stored.shape[-1] % block:
            raise FileError(f"its tensor {name} has rows of {stored.shape[-1]}, not in {block}s")
        length = stored.numbers // block * size
        if stored.start + length > self.path.stat().st_size:
            raise FileError(f"its tensor {name} is outside the file, which may be cut short")
        with guarded(f"its tensor {name} cannot be read"), regular(self.path) as file:
            file.seek(stored.start)
            content = np.fromfile(file, np.uint8, length)
            if len(content) < length:
                raise FileError("the file has become shorter")
        return content


class _Header:
    """Reads a file in order, no further than it goes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size
        self.items = MOST_ITEMS
        """How many more items arrays may have."""

    def read_into(self, whole: GgufFile) -> None:
        size = self.left
        if self.bytes(4) != MAGIC:
            raise FileError("it does not begin as GGUF files do")
        version = self.number("<I")
        if version not in (2, 3):
            reason = "big-endian" if version & 0xFFFF == 0 else f"of GGUF version {version}"
            raise FileError(f"it is {reason}; versions 2 and 3, little-endian, are read")
        tensors, keys = self.number("<Q"), self.number("<Q")
        for name, count in (("tensors", tensors), ("keys", keys)):
            if count > MOST_KEYS:
                raise FileError(f"it says that it has {count:,} {name}")
        for _ in range(keys):
            key = self.name()
            if key in whole.metadata:
                raise FileError(f"it has the key {key} twice")
            whole.metadata[key] = self.value(self.number("<I"))
        entries = [self.tensor() for _ in range(tensors)]
        alignment = whole.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 2**16:
            raise FileError(f"its alignment is {alignment!r:.40}")
        start = -(-(size - self.left) // alignment) * alignment
        for name, kind, shape, offset in entries:
            if name in whole.tensors:
                raise FileError(f"it has the tensor {name} twice")
            if start + offset > size:
                raise FileError(f"its tensor {name} is outside the file, which may be cut short")
            whole.tensors[name] = Stored(kind, shape, start + offset)

    def bytes(self, count: int) -> bytes:
        if count > self.left:
            raise FileError("it ends within its header; it may be cut short")
        self.left -= count
        content = self.file.read(count)
        if len(content) < count:
            raise FileError("it ends within its header; it may be cut short")
        return content

    def number(self, kind: str) -> int:
        number: int = struct.unpack(kind, self.bytes(struct.calcsize(kind)))[0]
        return number

    def text(self) -> str:
        # Some vocabularies have tokens that are not valid UTF-8.
        return self.bytes(self.number("<Q")).decode("utf-8", errors="replace")

    def name(self) -> str:
        count = self.number("<Q")
        if count > MOST_KEY:
            raise FileError(f"it has a name of {count:,} bytes")
        return self.bytes(count).decode("utf-8")

    def value(self, kind: int) -> Any:
        """A value of metadata: a str, a number, or a list or numpy array of them."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array()
        return self.numbers(kind, 1)[0].item()

    def array(self) -> Any:
        kind, count = self.number("<I"), self.number("<Q")
        self.items -= count
        if self.items < 0:
            raise FileError(f"it has arrays of more than {MOST_ITEMS:,} items")
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        return self.numbers(kind, count)

    def numbers(self, kind: int, count: int) -> Any:
        if kind not in _NUMBERS:
            raise FileError(f"it has metadata of type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self.bytes(count * dtype.itemsize), dtype)

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self.name()
        dimensions = self.number("<I")
        if not 0 < dimensions <= MOST_DIMENSIONS:
            raise FileError(f"its tensor {short(name, 80)} has {dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))[::-1]
        kind, offset = self.number("<I"), self.number("<Q")
        if not all(shape):
            raise FileError(f"its tensor {short(name, 80)} has a dimension of 0")
        if math.prod(shape) > 64 * 2**40:
            raise FileError(f"its tensor {short(name, 80)} has {math.prod(shape):,} numbers")
        return name, kind, shape, offset
