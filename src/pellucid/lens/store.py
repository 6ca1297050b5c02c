"""Recordings as safetensors files; all that is not a tensor is JSON in the header.

A file is O(n): queries and keys, masks as rules, token ids, and the tokens that they stand for.
Nothing is unpickled.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pellucid.common import untrusted
from pellucid.common.files import check_writable, reason_of, written_whole
from pellucid.errors import FileError
from pellucid.lens.mask_inference import InferredMask
from pellucid.lens.mask_json import mask_from_json, mask_to_json
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Proof, Record
from pellucid.lens.visibility import Visibility

Result = TypeVar("Result")

FORMAT = "pellucid recording"
VERSION = 2
HEADER = "pellucid"
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
"""The fields of a record that are `Pieces`, and the axis along which each grows."""


class _Tensors:
    """The tensors of a file by name; a tensor that several records share is stored once."""

    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._memories: set[int] = set()
        self._alive: list[Tensor] = []

    def put(self, tensor: Tensor | None) -> str | None:
        if tensor is None:
            return None
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        name = self._names.get(identity)
        if name is None:
            name = self._names[identity] = str(len(self.by_name))
            self._alive.append(tensor)
            whole = tensor.detach().contiguous()
            memory = whole.untyped_storage()
            # safetensors writes a view with all of its memory, and refuses tensors that overlap.
            is_view = memory.nbytes() != whole.numel() * whole.itemsize
            whole = whole.clone() if is_view or memory.data_ptr() in self._memories else whole
            self._memories.add(whole.untyped_storage().data_ptr())
            self.by_name[name] = whole
        return name


class Storable(Protocol):
    """What a file stores of a recording."""

    model: str
    alignment_heads: list[tuple[str, int]]

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
    """Write a recording atomically.

    Raises:
        ExistsError: the file exists and `overwrite` is False, or it is not a recording.
        FileError: the file cannot be written, or could not be read back, with more than
            `MOST_RECORDS` records or a mask of more than `MOST_RULES` rules.
    """
    check_writable(path, "recording", overwrite=overwrite)
    if len(recording.records) > untrusted.MOST_RECORDS:
        raise FileError(f"cannot write '{path}': {_too_many(len(recording.records))}")
    tensors = _Tensors()
    records = [_to_json(record, tensors) for record in recording.records]
    ids = {
        number
        for record in recording.records
        for tokens in (record.query_ids, record.key_ids)
        if tokens is not None
        for number in tokens.unique().tolist()
    }
    vocabulary = recording.strings(torch.tensor(sorted(ids), dtype=torch.int64))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": recording.model,
        "unseen": recording.unseen,
        "in_pieces": recording.in_pieces,
        "vocabulary": {
            n: text for n, text in zip(sorted(ids), vocabulary, strict=True) if text != str(n)
        },
        "special": sorted(recording.special_ids),
        "placeholders": sorted(recording.placeholder_ids),
        "alignment_heads": recording.alignment_heads,
        "records": records,
    }
    with written_whole(path, "recording", overwrite=overwrite) as aside:
        try:
            save_file(tensors.by_name, aside, metadata={HEADER: json.dumps(header)})
        except SafetensorError as error:  # such as a full disk
            raise FileError(f"cannot write '{path}': safetensors says: {error}") from error


def load(path: str | os.PathLike[str], make: Callable[..., Result]) -> Result:
    """Read what `save` has written; `make` makes a recording of its parts.

    Raises:
        FileError: the file does not exist, is truncated or damaged, has another version, or is not
            a recording.
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
    except Exception as error:  # a stranger's header may be anything
        raise FileError(
            f"'{path}' is not a recording, or is truncated: safetensors says: {error}"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise FileError(f"'{path}' is a safetensors file, but not a recording of Pellucid")
    if header.get("version") not in (1, VERSION):
        raise FileError(
            f"'{path}' is a recording of version {header.get('version')!r}; this Pellucid reads "
            f"version {VERSION}"
        )
    with untrusted.guarded(f"'{path}' is a recording that contradicts itself"):
        entries = header["records"]
        if len(entries) > untrusted.MOST_RECORDS:
            raise ValueError(_too_many(len(entries)))
        records = [_from_json(entry, tensors) for entry in entries]
        for record in records:
            _check_fit(record)
        names = untrusted.texts(header["vocabulary"], "vocabulary")
        recording = make(
            untrusted.text(header["model"], "model"),
            records,
            unseen=untrusted.texts(header["unseen"], "unseen"),
            in_pieces=untrusted.texts(header.get("in_pieces", {}), "in_pieces"),
            vocabulary=dict(zip(_ids(map(int, names)), names.values(), strict=True)),
            special_ids=_ids(header["special"]),
            placeholder_ids=_ids(header.get("placeholders", ())),
            alignment_heads=[  # which older files do not name
                (untrusted.text(name, "name"), untrusted.whole(head, "head"))
                for name, head in header.get("alignment_heads", ())
            ],
        )
    return recording


def _ids(numbers: Iterable[Any]) -> Iterator[int]:
    return (untrusted.whole(number, "an id", least=-(2**62)) for number in numbers)


def _too_many(records: int) -> str:
    return f"{records:,} records, more than the limit of {untrusted.MOST_RECORDS:,}"


def _to_json(record: Record, tensors: _Tensors) -> dict[str, Any]:
    if record.kept != "weights" and record.logsumexps is None:
        with torch.no_grad():  # stored, so that the file gives the same weights as the record
            record.logsumexps = Pieces(record.weights.logsumexp, -1)
    pieces = {name: getattr(record, name) for name in TENSORS}
    return {
        "name": record.name,
        "kept": record.kept,
        "stream": record.stream,
        "proof": None if record.proof is None else astuple(record.proof),
        "tensors": {name: tensors.put(x.tensor) for name, x in pieces.items() if x is not None},
        "mask": mask_to_json(record.mask, tensors.put),
        "uniform": tensors.put(record.visibility.uniform_rows(record.queries.length)),
        "bias": tensors.put(record.bias),
        "sinks": tensors.put(record.sinks),
        "output_weight": tensors.put(record.output_weight),
        "scale": record.scale,
        "softcap": record.softcap,
        "is_cross": record.is_cross,
        "has_edited_outputs": record.has_edited_outputs,
        "latest_queries": record.latest_queries,
    }


def _from_json(entry: dict[str, Any], tensors: dict[str, Tensor]) -> Record:
    def tensor(name: str) -> Tensor | None:
        return None if entry[name] is None else tensors[entry[name]]

    pieces: dict[str, Any] = {
        name: Pieces(tensors[key], TENSORS[name]) for name, key in entry["tensors"].items()
    }
    queries, keys = pieces["queries"], pieces["keys"]
    _check_types({name: x.tensor for name, x in pieces.items()})
    uniform = tensor("uniform")
    if uniform is not None and uniform.dtype != torch.bool:
        raise TypeError(f"uniform rows of type {uniform.dtype}")
    rule = InferredMask(mask_from_json(entry["mask"], tensors), None, uniform)
    bias, sinks, output_weight = (tensor(name) for name in ("bias", "sinks", "output_weight"))
    optional = {"bias": bias, "sinks": sinks, "output_weight": output_weight}
    _check_types({name: x for name, x in optional.items() if x is not None})
    kept = entry.get("kept", "query and key")
    if kept not in ("query and key", "weights"):
        raise ValueError(f"keeps {kept!r}")
    device = queries.tensor.device
    softcap, scale = entry["softcap"], entry["scale"]
    return Record(
        name=untrusted.text(entry["name"], "name"),
        **pieces,
        visibility=Visibility.of(rule, queries.length, keys.length, device),
        kept=kept,
        stream=untrusted.whole(entry.get("stream", 0), "stream"),
        proof=None if entry.get("proof") is None else _proof(*entry["proof"]),
        biases=[] if bias is None else [Pieces(bias)],
        sinks=sinks,
        output_weights=None if output_weight is None else Pieces(output_weight),
        scale=None if scale is None else untrusted.finite(scale, "scale"),
        softcap=None if softcap is None else untrusted.finite(softcap, "softcap"),
        is_cross=untrusted.flag(entry["is_cross"], "is_cross"),
        has_edited_outputs=untrusted.flag(
            entry.get("has_edited_outputs", False), "has_edited_outputs"
        ),
        latest_queries=untrusted.whole(entry["latest_queries"], "latest_queries"),
    )


def _proof(rows: Any, of: Any, error: Any, allowed: Any, reason: Any) -> Proof:
    """The proof with these fields; its errors may be NaN, as a model's weights may."""

    def number(value: Any) -> float:
        return value if value != value else untrusted.finite(value, "a proof")

    return Proof(
        untrusted.whole(rows, "rows of a proof"),
        untrusted.whole(of, "rows of a proof"),
        number(error),
        number(allowed),
        untrusted.text(reason, "reason"),
    )


def _check_types(tensors: dict[str, Tensor]) -> None:
    """Check that ids are int64 and all else is float; keys of recorded weights may be int64."""
    for name, tensor in tensors.items():
        if name.endswith("_tokens"):
            fits = tensor.dtype == torch.int64
        else:
            fits = tensor.is_floating_point() or (name == "keys" and tensor.dtype == torch.int64)
        if not fits:
            raise TypeError(f"{name} of type {tensor.dtype}")


def _check_fit(record: Record) -> None:
    """Raise an error if the parts of a record do not fit each other."""
    first = (0,) * (len(record.shape) - 2)
    record.weights[(*first, slice(1), slice(1))]
    if not 1 <= record.latest_queries <= record.queries.length:
        raise ValueError(f"the latest {record.latest_queries} of {record.queries.length} queries")
    sizes = {"query_tokens": record.queries.length, "key_tokens": record.keys.length}
    for name, length in sizes.items():
        tokens: Pieces | None = getattr(record, name)
        if tokens is not None and tokens.length > length:
            raise ValueError(f"{tokens.length} {name} for {length} positions")
