"""Recordings as files: safetensors, with everything that is no tensor in the header as JSON.

A file grows with n: queries and keys, the rules of the masks, token ids, and the tokens as the
tokenizer wrote them. Nothing is ever unpickled.
"""

import json
import os
from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pellucid.attention.masks import (
    And,
    Band,
    Below,
    Dense,
    Documents,
    Mask,
    Not,
    Or,
    Present,
    Rows,
)
from pellucid.common.files import written_whole
from pellucid.errors import FileError
from pellucid.lens.recognise import Recognised
from pellucid.lens.record import Pieces, Proof, Record
from pellucid.lens.visibility import Visibility

if TYPE_CHECKING:
    from pellucid.lens.recording import Recording

FORMAT = "pellucid recording"
VERSION = 2
HEADER = "pellucid"
RULES: dict[str, type[Mask]] = {
    rule.__name__: rule for rule in (And, Band, Below, Dense, Documents, Not, Or, Present, Rows)
}
TENSORS = {
    "queries": -2,
    "keys": -2,
    "logsumexps": -1,
    "values": -2,
    "contexts": -2,
    "query_tokens": -1,
    "key_tokens": -1,
}
"""What a record holds in pieces, and the axis along which each grows."""


class _Shelf:
    """Tensors by name, those that several records share once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._memories: set[int] = set()
        self._alive: list[Tensor] = []

    def put(self, tensor: Tensor | None) -> str | None:
        if tensor is None:
            return None
        what = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        name = self._names.get(what)
        if name is None:
            name = self._names[what] = str(len(self.tensors))
            self._alive.append(tensor)
            whole = tensor.detach().contiguous()
            memory = whole.untyped_storage()
            # A part of something larger would be written with all of it, and what overlaps not at
            # all.
            part = memory.nbytes() != whole.numel() * whole.itemsize
            whole = whole.clone() if part or memory.data_ptr() in self._memories else whole
            self._memories.add(whole.untyped_storage().data_ptr())
            self.tensors[name] = whole
        return name


def save(recording: "Recording", path: str | os.PathLike[str]) -> None:
    """Write a recording; a reader sees the old file or the new, never half of one.

    Raises:
        FileError: the file cannot be written there.
    """
    shelf = _Shelf()
    records = [_described(record, shelf) for record in recording.records]
    ids = {
        number
        for record in recording.records
        for tokens in (record.query_ids, record.key_ids)
        if tokens is not None
        for number in tokens.unique().tolist()
    }
    known = sorted(ids)
    strings = recording.strings(torch.tensor(known, dtype=torch.int64))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": recording.model,
        "unseen": recording.unseen,
        "in_pieces": recording.in_pieces,
        "vocabulary": {n: text for n, text in zip(known, strings, strict=True) if text != str(n)},
        "special": sorted(recording.special_ids),
        "placeholders": sorted(recording.placeholder_ids),
        "records": records,
    }
    with written_whole(path) as aside:
        try:
            save_file(shelf.tensors, aside, metadata={HEADER: json.dumps(header)})
        except SafetensorError as error:  # as of a full disk
            raise FileError(f"cannot write '{path}': safetensors says: {error}") from error


def load(path: str | os.PathLike[str], make: Callable[..., "Recording"]) -> "Recording":
    """Read what `save` wrote.

    Raises:
        FileError: there is no such file, it is cut off, of another version, or not a recording.
    """
    if not os.path.exists(path):
        raise FileError(f"there is no file '{path}'")
    if not os.path.isfile(path):
        what = "a directory" if os.path.isdir(path) else "no regular file"
        raise FileError(f"cannot read '{path}': it is {what}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise FileError(
            f"'{path}' is no recording, or was cut off: safetensors says: {error}"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise FileError(f"'{path}' is a safetensors file, but not a recording of Pellucid")
    if header.get("version") not in (1, VERSION):
        raise FileError(
            f"'{path}' is a recording of version {header.get('version')!r}; this Pellucid reads "
            f"version {VERSION}"
        )
    try:
        records = [_restored(one, tensors) for one in header["records"]]
        for record in records:
            _try(record)
        pieces = header.get("in_pieces", {})
        recording = make(
            _text(header["model"]),
            records,
            unseen={_text(k): _text(v) for k, v in header["unseen"].items()},
            in_pieces={_text(k): _text(v) for k, v in pieces.items()},
            vocabulary={int(n): _text(name) for n, name in header["vocabulary"].items()},
            special_ids=map(int, header["special"]),
            placeholder_ids=map(int, header.get("placeholders", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise FileError(f"'{path}' is a recording that contradicts itself: {error!r}") from error
    return recording


def _described(record: Record, shelf: _Shelf) -> dict[str, Any]:
    if record.kept != "weights" and record.logsumexps is None:
        with torch.no_grad():  # found once and for all, so that the file answers as the record
            record.logsumexps = Pieces(record.weights.logsumexp, -1)
    pieces = {name: getattr(record, name) for name in TENSORS}
    tensors = {name: some.tensor for name, some in pieces.items() if some is not None}
    return {
        "name": record.name,
        "kept": record.kept,
        "stream": record.stream,
        "proof": None if record.proof is None else astuple(record.proof),
        "tensors": {name: shelf.put(tensor) for name, tensor in tensors.items()},
        "mask": _rule(record.mask, shelf),
        "uniform": shelf.put(record.visibility.uniform_rows(record.queries.length)),
        "bias": shelf.put(record.bias),
        "sinks": shelf.put(record.sinks),
        "output_weight": shelf.put(record.output_weight),
        "scale": record.scale,
        "softcap": record.softcap,
        "is_cross": record.is_cross,
        "latest_queries": record.latest_queries,
    }


def _restored(told: dict[str, Any], tensors: dict[str, Tensor]) -> Record:
    def tensor(name: str | None) -> Tensor | None:
        return None if name is None else tensors[name]

    held: dict[str, Any] = {
        name: Pieces(tensors[at], TENSORS[name]) for name, at in told["tensors"].items()
    }
    queries, keys = held["queries"], held["keys"]
    found = Recognised(_mask(told["mask"], tensors), None, tensor(told["uniform"]))
    bias, output_weight = tensor(told["bias"]), tensor(told["output_weight"])
    kept = told.get("kept", "query and key")
    if kept not in ("query and key", "weights"):
        raise ValueError(f"keeps {kept!r}")
    device = queries.tensor.device
    return Record(
        name=_text(told["name"]),
        **held,
        visibility=Visibility.of(found, queries.length, keys.length, device),
        kept=kept,
        stream=int(told.get("stream", 0)),
        proof=None if told.get("proof") is None else Proof(*told["proof"]),
        biases=[] if bias is None else [Pieces(bias)],
        sinks=tensor(told["sinks"]),
        output_weights=None if output_weight is None else Pieces(output_weight),
        scale=told["scale"],
        softcap=told["softcap"],
        is_cross=bool(told["is_cross"]),
        latest_queries=int(told["latest_queries"]),
    )


def _try(record: Record) -> None:
    """Raise where the parts of a record do not fit each other."""
    first = (0,) * (len(record.shape) - 2)
    record.weights[(*first, slice(1), slice(1))]
    if not 1 <= record.latest_queries <= record.queries.length:
        raise ValueError(f"the latest {record.latest_queries} of {record.queries.length} queries")
    sizes = {"query_tokens": record.queries.length, "key_tokens": record.keys.length}
    for name, length in sizes.items():
        tokens: Pieces | None = getattr(record, name)
        if tokens is not None and tokens.tensor.dtype != torch.int64:
            raise TypeError(f"{name} of type {tokens.tensor.dtype}")
        if tokens is not None and tokens.length > length:
            raise ValueError(f"{tokens.length} {name} for {length} positions")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _rule(rule: Mask | None, shelf: _Shelf) -> Any:
    """A rule as JSON: its kind, and its parts."""
    if rule is None:
        return None
    parts: dict[str, Any] = {}
    for name, value in vars(rule).items():
        if isinstance(value, Mask):
            parts[name] = {"rule": _rule(value, shelf)}
        elif isinstance(value, Tensor):
            parts[name] = {"tensor": shelf.put(value)}
        else:
            parts[name] = value
    return {"kind": type(rule).__name__, **parts}


def _mask(told: Any, tensors: dict[str, Tensor]) -> Mask | None:
    if told is None:
        return None
    parts = {}
    for name, value in told.items():
        if name == "kind":
            continue
        if isinstance(value, dict):
            value = tensors[value["tensor"]] if "tensor" in value else _mask(value["rule"], tensors)
        parts[name] = value
    return RULES[told["kind"]](**parts)
