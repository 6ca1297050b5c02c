"""A recording: a mapping from module names to attention weights, which can be saved and shown."""

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pellucid.attention import AttentionWeights
from pellucid.attention.display import Displayed
from pellucid.errors import TypeMismatchError, UnknownNameError, warn_deprecated
from pellucid.lens import store
from pellucid.lens.from_attentions import Tokens, from_attentions
from pellucid.lens.layer_selection import Layers, select_records
from pellucid.lens.record import Proof, Record
from pellucid.lens.recording_summary import summary
from pellucid.lens.spelling import special_ids_of

MOST_NAMES = 5
HEADS = "pellucid.lens.head_measures"
SERVER, FILE = "pellucid.viewer.serve", "pellucid.viewer.html_export"
"""Modules that import this one, and are loaded when a method needs them."""


def as_recording(seen: "Recording | Record | Iterable[Record]") -> "Recording":
    """The recording itself, or a recording of a record or several.

    Raises:
        TypeMismatchError: seen is of another type.
    """
    if isinstance(seen, Recording):
        return seen
    records = [seen] if isinstance(seen, Record) else None
    if records is None and isinstance(seen, Iterable) and not isinstance(seen, str | Tensor):
        records = list(seen)
    if records is None or not all(isinstance(record, Record) for record in records):
        raise TypeMismatchError(
            f"seen must be a Recording, as pellucid.watch returns, or its records, got "
            f"{type(seen).__name__}"
        )
    return Recording("records", records)


class RecordedName(str):
    """A module's name, as iterating over a recording returns it.

    For one version it also has the attributes of the module's latest record, since iterating over a
    recording returned records before it was a mapping.
    """

    record: Record

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "record" or attribute.startswith("__"):  # while it is being copied
            raise AttributeError(attribute)
        value = getattr(self.record, attribute)
        warn_deprecated(
            "iterating over a recording for its records",
            "recording.records (iterating returns the modules' names)",
        )
        return value


class Recording(Displayed, Mapping[str, AttentionWeights]):
    """A mapping from module names to the weights of each module's latest call, in call order.

    The steps of a generation are one call. `records` has all calls, of all streams.
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
        alignment_heads: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Use `watch`, `load` or `from_attentions` to make a recording.

        Args:
            model: the class name of the model that was watched.
            records: in call order.
            tokenizer: a Hugging Face tokenizer, to convert ids to tokens.
            unseen, in_pieces, special_ids, placeholder_ids: as the properties.
            vocabulary: the known tokens by id.
            alignment_heads: as the attribute.
        """
        self.model = model
        """The class name of the model that was watched."""
        self._records = list(records)
        self._unseen = {} if unseen is None else unseen
        self._in_pieces = {} if in_pieces is None else in_pieces
        self._vocabulary = {} if vocabulary is None else vocabulary
        self._special = frozenset(special_ids)
        self._placeholders = frozenset(placeholder_ids)
        self._tokenizer = tokenizer
        self.alignment_heads = list(alignment_heads)
        """The module and the number of each head that the model names for word alignment."""

    __eq__, __hash__ = object.__eq__, object.__hash__  # Mapping's would compare all weights

    def __len__(self) -> int:
        """The number of modules; the number of calls is `len(seen.records)`."""
        return len(self.latest())

    def __iter__(self) -> Iterator[str]:
        """The module names, in the order of their first calls."""
        for record in self.latest():
            name = RecordedName(record.name)
            name.record = record
            yield name

    def __contains__(self, name: object) -> bool:
        """Whether a module of this name was recorded."""
        return any(record.name == name for record in self.latest())

    @property
    def records(self) -> list[Record]:
        """The records of all calls, in call order; one for each module and generation."""
        return list(self._all())

    def _all(self) -> list[Record]:
        """The records; an open watch proves pending steps first."""
        return self._records

    def __getitem__(self, name: str) -> AttentionWeights:
        """The weights of a module's latest call in stream 0.

        Raises:
            UnknownNameError: no such module was recorded; the message lists similar names.
        """
        return self.record(name).weights

    def record(self, name: str, stream: int = 0) -> Record:
        """The record of a module's latest call.

        Args:
            name: the module's name.
            stream: which of several texts that take turns in a generation, each with its own
                cache: 0 is the prompt, others belong to guidance or a draft.

        Raises:
            UnknownNameError: no such module or stream was recorded; the message lists similar
                names.
            TypeMismatchError: name is not a str.
        """
        if not isinstance(name, str):
            raise TypeMismatchError(f"the name of a module must be a str, got {name!r}")
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
        """The latest record of each module in stream 0, in call order."""
        return list({record.name: record for record in self._all() if not record.stream}.values())

    @property
    def proof(self) -> dict[str, Proof]:
        """Evidence that each module's records are what the model used.

        For all calls of a module together: the number of rows that were recomputed from the
        records, the largest difference, and what rounding allows there.
        """
        proofs: dict[str, Proof] = {}
        for record in self._all():
            if record.proof is not None:
                proof = proofs.get(record.name)
                proofs[record.name] = record.proof if proof is None else proof.joined(record.proof)
        return proofs

    def of_layers(self, layers: Layers) -> "Recording":
        """A recording of some layers only.

        Args:
            layers: layer numbers (the first number in a module's name; negative numbers count from
                the last layer), module names, or patterns of names such as "decoder.*".

        Raises:
            UnknownNameError: an entry matches no record.
            TypeMismatchError: an entry is neither an int nor a str.
        """
        return self._with(select_records(self._all(), layers))

    def _with(self, records: list[Record]) -> "Recording":
        """A recording with other records and all else the same."""
        return Recording(
            self.model,
            records,
            tokenizer=self._tokenizer,
            unseen=self.unseen,
            in_pieces=self.in_pieces,
            vocabulary=self._vocabulary,
            special_ids=self._special,
            placeholder_ids=self._placeholders,
            alignment_heads=self.alignment_heads,
        )

    @property
    def unseen(self) -> dict[str, str]:
        """Modules that look like attention and were not recorded, each with the reason."""
        return self._unseen

    @property
    def in_pieces(self) -> dict[str, str]:
        """Modules whose generation is split into several records, each with the reason."""
        return self._in_pieces

    @property
    def names(self) -> list[str]:
        """The names of the recorded modules, in the order of their first calls."""
        return list(dict.fromkeys(record.name for record in self._all()))

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens, such as [CLS] or a language code, if a tokenizer is known."""
        return self._special | special_ids_of(self._tokenizer)

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """Ids that stand for images or audio, and whose embeddings are replaced."""
        return self._placeholders

    def strings(self, ids: Tensor) -> list[str]:
        """The tokens of ids, (n,); the ids as text if no tokenizer is known."""
        numbers = ids.tolist()
        new = sorted(set(numbers) - self._vocabulary.keys())
        if new and self._tokenizer is not None:
            for number, name in zip(new, self._tokenizer.convert_ids_to_tokens(new), strict=True):
                self._vocabulary[number] = str(number) if name is None else name
        return [self._vocabulary.get(number, str(number)) for number in numbers]

    def to(self, device: torch.device | str) -> "Recording":
        """A copy of the recording on another device."""
        return self._with([record.to(device) for record in self._all()])

    def to_pandas(self) -> Any:
        """The table of `pellucid.lens.heads` as a pandas DataFrame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return self._heads().to_pandas()

    def to_arrow(self) -> Any:
        """The table of `pellucid.lens.heads` as a pyarrow Table, with null for unknown values.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        return self._heads().to_arrow()

    def _heads(self) -> Any:
        return import_module(HEADS).heads(self)

    def view(self, *, host: str = "127.0.0.1", port: int = 0, browser: bool = True) -> Any:
        """Serve the viewer in the background and open it in the browser.

        Args:
            host: the address to listen on; other machines need the token in the URL.
            port: the port to listen on; 0 = a free one near 7227.
            browser: whether to open a browser.

        Returns:
            The server, with its `address` and `close()`; also a context manager.

        Raises:
            ArgumentError: the recording is empty, or host or port is invalid.
            FileError: the address cannot be listened on.
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
        """Write an HTML page that shows the recording offline.

        Args:
            path: the .html file.
            title: the page's title; the model's class name if None.
            heads: the heads of each layer that the page contains; all if None.
            limit: the most bytes of numbers before compression; 64 MiB if None.
            overwrite: whether an existing page may be replaced.

        Raises:
            ArgumentError: the recording is empty, or path has another suffix.
            ExistsError: the file exists and `overwrite` is False, or it is not such a page.
            FileError: the file cannot be written.
            OutOfRangeError: there is no such head.
            TooLargeError: the numbers would exceed `limit`; the message says by how much.
        """
        import_module(FILE).export(
            self, path, title=title, heads=heads, limit=limit, overwrite=overwrite
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the recording, tokens included, to a safetensors file of O(n) size.

        Args:
            path: the .safetensors file.
            overwrite: whether an existing recording may be replaced.

        Raises:
            ArgumentError: path has another suffix.
            ExistsError: the file exists and `overwrite` is False, or it is not a recording.
            FileError: the file cannot be written; an existing file stays as it is.
        """
        store.save(self, path, overwrite=overwrite)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Recording":
        """Read a recording that `save` has written; the model is not needed.

        Raises:
            FileError: the file does not exist, is truncated or damaged, has another version, or is
                not a recording.
        """
        return store.load(path, Recording)

    @staticmethod
    def from_attentions(
        attentions: Any,
        *,
        tokens: Tokens | None = None,
        source_tokens: Tokens | None = None,
        tokenizer: Any = None,
        model: str = "weights from elsewhere",
    ) -> "Recording":
        """A recording of existing weights.

        Args:
            attentions: the output of a transformers model that was run with
                `output_attentions=True` (or of `generate` with `return_dict_in_generate=True`); a
                list of arrays, one per layer; or a dict of arrays by name. An array is (batch,
                heads, queries, keys) or (heads, queries, keys); torch, NumPy, or what NumPy reads.
            tokens: the tokens as str, (length,) or (batch, length), or as ids; for an
                encoder-decoder, those of the decoder.
            source_tokens: the tokens of the encoder.
            tokenizer: a Hugging Face tokenizer, to convert ids to tokens.
            model: the name of the recording.

        Raises:
            ShapeError: an array has the wrong number of dimensions, or tokens do not fit it.
            TypeMismatchError: attentions are not float arrays, or tokens are neither str nor ids.
            ArgumentError: there are no weights, or weights are negative, infinite or NaN.
        """
        records, vocabulary = from_attentions(
            attentions, tokens=tokens, source_tokens=source_tokens
        )
        return Recording(model, records, tokenizer=tokenizer, vocabulary=vocabulary)

    def __repr__(self) -> str:
        return summary(
            self.model,
            self.records,
            list(self.proof.values()),
            self.bytes_held(),
            self.in_pieces,
            self.unseen,
        )

    def bytes_held(self) -> int:
        """The bytes of memory that the recording keeps alive; shared memory counts once."""
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
