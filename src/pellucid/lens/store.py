"""Recordings as files: safetensors, with everything that is no tensor in the header as JSON.

A file grows with n: queries and keys, the rules of the masks, token ids, and the tokens as the
tokenizer wrote them. Nothing is ever unpickled.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, fields
from itertools import count
from typing import Any, Protocol, TypeVar

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
from pellucid.common import untrusted
from pellucid.common.files import check_writable, reason_of, written_whole
from pellucid.errors import FileError
from pellucid.lens.mask_inference import Recognised
from pellucid.lens.record import Pieces, Proof, Record
from pellucid.lens.visibility import Visibility

Made = TypeVar("Made")

FORMAT = "pellucid recording"
VERSION = 2
HEADER = "pellucid"
RULES: dict[str, type[Mask]] = {
    rule.__name__: rule for rule in (And, Band, Below, Dense, Documents, Not, Or, Present, Rows)
}
TENSORS = {
    "queries": -2,
    "keys": -2,
    "sink_weights": -1,
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


class Storable(Protocol):
    """What a file keeps of a recording."""

    model: str

    @property
    def records(self) -> list[Record]: ...
    @property
    def unseen(self) -> dict[str, str]: ...
    @property
    def in_pieces(self) -> dict[str, str]: ...
    @property
    def special_ids(self) -> frozenset[int]: ...
    @property
    def placeholder_ids(self) -> frozenset[int]: ...
    def strings(self, ids: Tensor) -> list[str]: ...


def save(recording: Storable, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a recording; a reader sees the old file or the new, never half of one.

    Raises:
        ExistsError: there is a file that is no recording, or one and not `overwrite`.
        FileError: the file cannot be written there, or could not be read back: it would have more
            than `MOST_RECORDS` records, or a mask of more than `MOST_RULES` rules.
    """
    check_writable(path, "recording", overwrite=overwrite)
    if len(recording.records) > untrusted.MOST_RECORDS:
        raise FileError(f"cannot write '{path}': {_too_many(len(recording.records))}")
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
    with written_whole(path, "recording", overwrite=overwrite) as aside:
        try:
            save_file(shelf.tensors, aside, metadata={HEADER: json.dumps(header)})
        except SafetensorError as error:  # as of a full disk
            raise FileError(f"cannot write '{path}': safetensors says: {error}") from error


def load(path: str | os.PathLike[str], make: Callable[..., Made]) -> Made:
    """Read what `save` wrote, by what makes a recording of its parts.

    Raises:
        FileError: there is no such file, it is cut off, of another version, or not a recording.
    """
    if not os.path.exists(path):
        raise FileError(f"there is no file '{path}'")
    if os.path.isdir(path):
        raise FileError(f"cannot read '{path}': it is a directory")
    untrusted.regular(path).close()
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise FileError(f"cannot read '{path}': {reason_of(error)}") from error
    except Exception as error:  # a header of a stranger's may be anything
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
    with untrusted.guarded(f"'{path}' is a recording that contradicts itself"):
        told = header["records"]
        if len(told) > untrusted.MOST_RECORDS:
            raise ValueError(_too_many(len(told)))
        records = [_restored(one, tensors) for one in told]
        for record in records:
            _try(record)
        names = untrusted.texts(header["vocabulary"], "vocabulary")
        recording = make(
            untrusted.text(header["model"], "model"),
            records,
            unseen=untrusted.texts(header["unseen"], "unseen"),
            in_pieces=untrusted.texts(header.get("in_pieces", {}), "in_pieces"),
            vocabulary=dict(zip(_ids(map(int, names)), names.values(), strict=True)),
            special_ids=_ids(header["special"]),
            placeholder_ids=_ids(header.get("placeholders", ())),
        )
    return recording


def _ids(numbers: Iterable[Any]) -> Iterator[int]:
    return (untrusted.whole(one, "an id", least=-(2**62)) for one in numbers)


def _too_many(records: int) -> str:
    return f"{records:,} records, and there may be {untrusted.MOST_RECORDS:,}"


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
    _check_types({name: pieces.tensor for name, pieces in held.items()})
    uniform = tensor(told["uniform"])
    if uniform is not None and uniform.dtype != torch.bool:
        raise TypeError(f"uniform rows of type {uniform.dtype}")
    found = Recognised(_mask(told["mask"], tensors, count(1)), None, uniform)
    extra = {name: tensor(told[name]) for name in ("bias", "sinks", "output_weight")}
    _check_types({name: one for name, one in extra.items() if one is not None})
    bias, output_weight = extra["bias"], extra["output_weight"]
    kept = told.get("kept", "query and key")
    if kept not in ("query and key", "weights"):
        raise ValueError(f"keeps {kept!r}")
    device = queries.tensor.device
    softcap, scale = told["softcap"], told["scale"]
    return Record(
        name=untrusted.text(told["name"], "name"),
        **held,
        visibility=Visibility.of(found, queries.length, keys.length, device),
        kept=kept,
        stream=untrusted.whole(told.get("stream", 0), "stream"),
        proof=None if told.get("proof") is None else _proof(*told["proof"]),
        biases=[] if bias is None else [Pieces(bias)],
        sinks=extra["sinks"],
        output_weights=None if output_weight is None else Pieces(output_weight),
        scale=None if scale is None else untrusted.finite(scale, "scale"),
        softcap=None if softcap is None else untrusted.finite(softcap, "softcap"),
        is_cross=untrusted.flag(told["is_cross"], "is_cross"),
        latest_queries=untrusted.whole(told["latest_queries"], "latest_queries"),
    )


def _proof(rows: Any, of: Any, error: Any, allowed: Any, reason: Any) -> Proof:
    """An error of a proof may be NaN, as that of a model whose weights are."""

    def number(one: Any) -> float:
        return one if one != one else untrusted.finite(one, "a proof")

    return Proof(
        untrusted.whole(rows, "rows of a proof"),
        untrusted.whole(of, "rows of a proof"),
        number(error),
        number(allowed),
        untrusted.text(reason, "reason"),
    )


def _check_types(tensors: dict[str, Tensor]) -> None:
    """Ids are int64, keys of weights that were kept are numbers, all else floats."""
    for name, tensor in tensors.items():
        if name.endswith("_tokens"):
            fits = tensor.dtype == torch.int64
        else:
            fits = tensor.is_floating_point() or (name == "keys" and tensor.dtype == torch.int64)
        if not fits:
            raise TypeError(f"{name} of type {tensor.dtype}")


def _try(record: Record) -> None:
    """Raise where the parts of a record do not fit each other."""
    first = (0,) * (len(record.shape) - 2)
    record.weights[(*first, slice(1), slice(1))]
    if not 1 <= record.latest_queries <= record.queries.length:
        raise ValueError(f"the latest {record.latest_queries} of {record.queries.length} queries")
    sizes = {"query_tokens": record.queries.length, "key_tokens": record.keys.length}
    for name, length in sizes.items():
        tokens: Pieces | None = getattr(record, name)
        if tokens is not None and tokens.length > length:
            raise ValueError(f"{tokens.length} {name} for {length} positions")


def _rule(rule: Mask | None, shelf: _Shelf, number: Iterator[int] | None = None) -> Any:
    """A rule as JSON: its kind, and its parts; `number` counts the rules of a mask."""
    if rule is None:
        return None
    number = number or count(1)
    if next(number) > untrusted.MOST_RULES:
        raise FileError(f"a mask of more than {untrusted.MOST_RULES} rules cannot be written")
    parts: dict[str, Any] = {}
    for name in (field.name for field in fields(rule)):  # type: ignore[arg-type]
        value = getattr(rule, name)
        if isinstance(value, Mask):
            parts[name] = {"rule": _rule(value, shelf, number)}
        elif isinstance(value, Tensor):
            parts[name] = {"tensor": shelf.put(value)}
        else:
            parts[name] = value
    return {"kind": type(rule).__name__, **parts}


def _mask(told: Any, tensors: dict[str, Tensor], number: Iterator[int]) -> Mask | None:
    """The mask that `_rule` has written."""
    if told is None:
        return None
    if next(number) > untrusted.MOST_RULES:
        raise ValueError(f"a mask of more than {untrusted.MOST_RULES} rules")
    parts = {}
    for name, value in told.items():
        if name == "kind":
            continue
        if isinstance(value, dict):
            part = value.get("rule")
            value = tensors[value["tensor"]] if part is None else _mask(part, tensors, number)
        elif value is not None and name != "name":
            value = untrusted.whole(value, name, least=-(2**48), most=2**48)
        parts[name] = value
    return _checked(RULES[told["kind"]](**parts))


def _checked(rule: Mask) -> Mask:
    """The rule, if its parts are such as those who make rules would take."""
    for name, part in vars(rule).items():
        if name == "name":
            untrusted.text(part, name)
        elif isinstance(part, Mask):
            continue
        elif isinstance(part, Tensor):
            is_bool = name in ("flags", "visible")
            is_whole = not (part.is_floating_point() or part.is_complex())
            fits = is_whole and is_bool == (part.dtype == torch.bool)
            if not fits or not part.ndim:
                raise TypeError(f"{name} of type {part.dtype} and shape {tuple(part.shape)}")
        elif part is None:
            if name not in ("left", "right", "flagged") or isinstance(rule, And | Or):
                raise TypeError(f"a {type(rule).__name__} has no {name}")
        elif name in ("left", "right", "limit", "flagged") and part < 0:
            raise ValueError(f"{name} is {part}")
    return rule
