"""A recording: what many attentions saw, to be asked by name, printed and saved."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.display import Displayed
from pellucid.attention.limits import readable_bytes
from pellucid.errors import TypeMismatchError, UnknownNameError, warn_deprecated
from pellucid.lens import store
from pellucid.lens.from_attentions import from_attentions
from pellucid.lens.layer_selection import Layers, select_records
from pellucid.lens.record import Proof, Record
from pellucid.lens.visibility import bands

MOST_NAMES = 5
HEADS = "pellucid.lens.head_measures"
SERVER, FILE = "pellucid.viewer.serve", "pellucid.viewer.html_export"
"""What is above recordings in the map of the house, and loaded when somebody asks for it."""


def as_recording(seen: "Recording | Record | Iterable[Record]") -> "Recording":
    """A recording of what was given: itself, or of a record or several.

    Raises:
        TypeMismatchError: it is none of these.
    """
    if isinstance(seen, Recording):
        return seen
    records = [seen] if isinstance(seen, Record) else None
    if records is None and isinstance(seen, Iterable) and not isinstance(seen, str | Tensor):
        records = list(seen)
    if records is None or not all(isinstance(record, Record) for record in records):
        raise TypeMismatchError(
            f"seen must be a Recording, as pellucid.watch gives, or its records, got "
            f"{type(seen).__name__}"
        )
    return Recording("records", records)


class RecordedName(str):
    """A module's name, as a recording gives it.

    For one version it also answers as the record of its latest call, as iterating over a recording
    gave records before it was a mapping.
    """

    record: Record

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "record" or attribute.startswith("__"):  # of a copy that is being made
            raise AttributeError(attribute)
        found = getattr(self.record, attribute)
        warn_deprecated(
            "iterating over a recording for its records",
            "recording.records (iterating gives the modules' names)",
        )
        return found


class Recording(Displayed, Mapping[str, AttentionWeights]):
    """A mapping from modules' names to the weights of their latest calls (of a generation, of all
    its steps together), in the order of the first calls.

    `records` are all calls, those of other streams included.
    """

    def __init__(
        self,
        model: str,
        records: Iterable[Record] = (),
        *,
        tokenizer: Any = None,
        unseen: dict[str, str] | None = None,
        in_pieces: dict[str, str] | None = None,
        vocabulary: dict[int, str] | None = None,
        special_ids: Iterable[int] = (),
        placeholder_ids: Iterable[int] = (),
    ) -> None:
        """Made by `watch`, `load` and `from_attentions`.

        Args:
            model: the class of the model that was watched.
            records: in the order of the calls.
            tokenizer: of Hugging Face, to spell ids.
            unseen, in_pieces: names of modules, each with a reason.
            vocabulary: tokens by their ids, as far as they are known.
            special_ids, placeholder_ids: as the properties.
        """
        self.model = model
        """The class of the model that was watched."""
        self._records = list(records)
        self._unseen = {} if unseen is None else unseen
        self._in_pieces = {} if in_pieces is None else in_pieces
        self._vocabulary = {} if vocabulary is None else vocabulary
        self._special = frozenset(special_ids)
        self._placeholders = frozenset(placeholder_ids)
        self._tokenizer = tokenizer

    __eq__, __hash__ = object.__eq__, object.__hash__  # a mapping's would compare all weights

    def __len__(self) -> int:
        """How many modules there are; calls: `len(seen.records)`."""
        return len(self.latest())

    def __iter__(self) -> Iterator[str]:
        """The modules' names, in the order of their first calls."""
        for record in self.latest():
            name = RecordedName(record.name)
            name.record = record
            yield name

    def __contains__(self, name: object) -> bool:
        """Whether there are weights of that module."""
        return any(record.name == name for record in self.latest())

    @property
    def records(self) -> list[Record]:
        """The record of every call, in the order of the calls; of a generation, one a module."""
        return list(self._all())

    def _all(self) -> list[Record]:
        """The records; an open watch settles first what it has yet to prove."""
        return self._records

    def __getitem__(self, name: str) -> AttentionWeights:
        """The weights of a module's latest call, of the prompt's stream.

        Raises:
            UnknownNameError: nothing of that name was recorded; the message lists near names.
        """
        return self.record(name).weights

    def record(self, name: str, stream: int = 0) -> Record:
        """The record of a module's latest call.

        Args:
            name: of the module.
            stream: of several texts that take turns in a generation, each with a cache of its own,
                which one: 0 is the prompt, 1 what guidance or a draft compares it with.

        Raises:
            UnknownNameError: nothing of that name was recorded; the message lists near names.
            TypeMismatchError: name is no text.
        """
        if not isinstance(name, str):
            raise TypeMismatchError(f"a record is asked for by its module's name, got {name!r}")
        streams = set()
        for record in reversed(self._all()):
            if record.name == name:
                if record.stream == stream:
                    return record
                streams.add(record.stream)
        if streams:
            raise UnknownNameError(
                f"'{name}' has no stream {stream!r}; it has {', '.join(map(str, sorted(streams)))}"
            )
        raise UnknownNameError(
            f"no attention of a module '{name}' was recorded{self._why_not(name)}"
        )

    def latest(self) -> list[Record]:
        """The latest record of each module, of the prompt's stream, in the order of the calls."""
        return list({record.name: record for record in self._all() if not record.stream}.values())

    @property
    def proof(self) -> dict[str, Proof]:
        """How what was recorded of each module is known to be what the model used.

        Of all calls of a module together: rows that were computed again from the record, the
        largest difference, and what rounding may do there.
        """
        found: dict[str, Proof] = {}
        for record in self._all():
            if record.proof is not None:
                known = found.get(record.name)
                found[record.name] = record.proof if known is None else known.joined(record.proof)
        return found

    def of_layers(self, layers: Layers) -> "Recording":
        """What was recorded of some layers alone.

        Args:
            layers: layer numbers (the first number in a module's name, from the last one where
                negative), names of modules, or patterns of names such as "decoder.*".

        Raises:
            UnknownNameError: one of them asks for nothing that was recorded.
            TypeMismatchError: one of them is neither a number nor a name.
        """
        return self._with(select_records(self._all(), layers))

    def _with(self, records: list[Record]) -> "Recording":
        """The same of other records."""
        return Recording(
            self.model,
            records,
            tokenizer=self._tokenizer,
            unseen=self.unseen,
            in_pieces=self.in_pieces,
            vocabulary=self._vocabulary,
            special_ids=self._special,
            placeholder_ids=self._placeholders,
        )

    @property
    def unseen(self) -> dict[str, str]:
        """Modules that look like attention and made no recordable call, each with the reason."""
        return self._unseen

    @property
    def in_pieces(self) -> dict[str, str]:
        """Modules whose generation is more than one record, each with the reason."""
        return self._in_pieces

    @property
    def names(self) -> list[str]:
        """The modules of which something was recorded, in the order of their first calls."""
        return list(dict.fromkeys(record.name for record in self._all()))

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens ([CLS], a language's mark), as far as a tokenizer has said."""
        return self._special | frozenset(getattr(self._tokenizer, "all_special_ids", ()))

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """Ids that stand for pictures or sound: their embeddings are replaced, and differ."""
        return self._placeholders

    def strings(self, ids: Tensor) -> list[str]:
        """Token ids, (n,), as the tokenizer writes them; as numbers where no tokenizer is known."""
        numbers = ids.tolist()
        new = sorted(set(numbers) - self._vocabulary.keys())
        if new and self._tokenizer is not None:
            for number, name in zip(new, self._tokenizer.convert_ids_to_tokens(new), strict=True):
                self._vocabulary[number] = str(number) if name is None else name
        return [self._vocabulary.get(number, str(number)) for number in numbers]

    def to(self, device: torch.device | str) -> "Recording":
        """The same recording in the memory of another device, as a copy."""
        return self._with([record.to(device) for record in self._all()])

    def to_pandas(self) -> Any:
        """What each head does, as `pellucid.lens.heads` says it, as a pandas DataFrame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return self._heads().to_pandas()

    def to_arrow(self) -> Any:
        """As `to_pandas`, a table of pyarrow, null for what is not known.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        return self._heads().to_arrow()

    def _heads(self) -> Any:
        return import_module(HEADS).heads(self)

    def view(self, *, host: str = "127.0.0.1", port: int = 0, browser: bool = True) -> Any:
        """Show it in the browser, beside what the program goes on to do.

        Args:
            host: where to listen; other machines need the token in the address.
            port: a free one near 7227 if 0.
            browser: whether to open one.

        Returns:
            The page that is shown: its `address`, and `close()`, as the end of a `with` does.

        Raises:
            ArgumentError: it holds no attention, or host or port is none.
            FileError: nobody can listen there.
            MissingExtraError: the extra `view` is not installed.
        """
        return import_module(SERVER).show(self, host=host, port=port, browser=browser)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        heads: Iterable[int] | None = None,
        limit: int | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a page of its own, which shows it from disk, offline.

        Args:
            path: the file, .html.
            title: what it is called there; the model's class unless given.
            heads: those of each layer whose maps are in it; all unless given.
            limit: bytes of numbers that it may hold, before they are packed; 64 MiB unless given.
            overwrite: whether a file that is there may be replaced.

        Raises:
            ArgumentError: it holds no attention, or the file would be of another kind.
            ExistsError: there is a file of another kind, or one and not `overwrite`.
            FileError: it cannot be written there.
            OutOfRangeError: there is no such head.
            TooLargeError: it would hold more numbers than the limit, and how many.
        """
        import_module(FILE).export(
            self, path, title=title, heads=heads, limit=limit, overwrite=overwrite
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write all of it, tokens included, to a safetensors file that grows with n.

        Args:
            path: where to.
            overwrite: whether a recording that is there already is replaced.

        Raises:
            ArgumentError: the name ends as that of something else.
            ExistsError: there is a file that is no recording, or one and not `overwrite`.
            FileError: the file cannot be written there; what was there stays.
        """
        store.save(self, path, overwrite=overwrite)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Recording":
        """Read what `save` wrote; the model is not needed.

        Raises:
            FileError: no such file, or one that is cut off, of another version, or no recording.
        """
        return store.load(path, Recording)

    @staticmethod
    def from_attentions(
        attentions: Any,
        *,
        tokens: "Sequence[str] | Sequence[Sequence[str]] | Tensor | None" = None,
        source_tokens: "Sequence[str] | Sequence[Sequence[str]] | Tensor | None" = None,
        tokenizer: Any = None,
        model: str = "weights from elsewhere",
    ) -> "Recording":
        """A recording of weights that come from elsewhere, for all that recordings are good for.

        Args:
            attentions: the output of a model of transformers that was run with
                `output_attentions=True` (of `generate` too, with `return_dict_in_generate=True`);
                or a list of arrays, one a layer, or a dict of them by name. An array is (batch,
                heads, queries, keys) or (heads, queries, keys), of torch, NumPy or what NumPy
                reads.
            tokens: the tokens as texts, (length,) or (batch, length), or their ids; of an
                encoder-decoder, those of the decoder.
            source_tokens: those of the encoder.
            tokenizer: of Hugging Face, to spell ids.
            model: what the recording is called.

        Raises:
            ShapeError: an array of other dimensions, or tokens that do not fit it.
            TypeMismatchError: what is no array of floats, or tokens that are no texts.
            ArgumentError: no weights at all, or what is no weight: negative, infinite or NaN.
        """
        records, vocabulary = from_attentions(
            attentions, tokens=tokens, source_tokens=source_tokens, tokenizer=tokenizer
        )
        return Recording(model, records, tokenizer=tokenizer, vocabulary=vocabulary)

    def __repr__(self) -> str:
        count = len(self.records)
        title = f"{self.model}: {count} attention call{'' if count == 1 else 's'} recorded"
        missed = [f"in pieces: {name} ({reason})" for name, reason in self.in_pieces.items()]
        missed += [f"unseen: {name} ({reason})" for name, reason in self.unseen.items()]
        if not self._records:
            return "\n".join([title, *missed])
        head = ("name", "heads", "queries", "keys", "mask", "window")
        rows = [head, *map(_row, self._records)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        dense = sum(record.shape.numel() * 4 for record in self._records)
        held = self.bytes_held()
        proven = self._proven()
        footer = f"holds {readable_bytes(held)}"
        if dense > held:
            footer += f"; all weights as tensors would be {readable_bytes(dense)}"
        return "\n".join([title, *lines, *proven, footer, *missed])

    def _proven(self) -> list[str]:
        proofs = list(self.proof.values())
        if not proofs:
            return []
        whole = reduce(Proof.joined, proofs)
        unproven = sum(not proof.rows for proof in proofs)
        but = f"; {unproven} modules not proven" if unproven else ""
        return [f"proven: {whole}{but}"]

    def bytes_held(self) -> int:
        """Bytes of memory that the recording keeps alive, each piece of memory counted once."""
        storages = {}
        for record in self._records:
            for tensor in record.tensors():
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        return sum(storages.values())

    def _why_not(self, name: str) -> str:
        if name in self.unseen:
            return f": it {self.unseen[name]}"
        near = get_close_matches(name, self.names, MOST_NAMES, cutoff=0.3)
        if near:
            return f"; near: {', '.join(near)}"
        names = self.names
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return f"; recorded: {', '.join(names[:MOST_NAMES]) or 'none'}{more}"


def _row(record: Record) -> tuple[str, ...]:
    *_, heads, queries, keys = record.shape
    kv_heads = record.keys.outer[-1]
    mask = "none" if record.mask is None else str(record.mask)
    if record.kept == "weights":
        kv_heads, mask = heads, "in the weights"
        if record.sink_weights is not None:
            mask += ", without a sink"
    return (
        f"{record.name} (stream {record.stream})" if record.stream else record.name,
        str(heads) if heads == kv_heads else f"{heads}/{kv_heads}",
        str(queries),
        str(keys),
        f"{mask} + bias" if record.biases else mask,
        _window(record),
    )


def _window(record: Record) -> str:
    """Tokens that a sliding window shows each query, its own among them; - without a window."""
    for band in bands(record.mask):
        if band.left is not None:
            return str(band.left + 1 + (band.right or 0))
    return "-"
