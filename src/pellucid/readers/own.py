"""Models of `pellucid.models` and their tokenizers, with the interface of transformers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pellucid import pretrained
from pellucid.common.files import printable
from pellucid.errors import ArgumentError
from pellucid.models import EncoderDecoder, load
from pellucid.models.input_ids import check_ids
from pellucid.readers.checkpoint import Checkpoint
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class OwnCheckpoint(Checkpoint):
    """A trained model of `pellucid.models`."""

    @property
    def is_both(self) -> bool:
        return isinstance(self.model, EncoderDecoder)

    @property
    def starts_target(self) -> int | None:
        start: int | None = self.model.config.start
        return start if self.is_both else None

    def run(self, **inputs: torch.Tensor) -> Any:
        ids = [inputs[name] for name in ("input_ids", "decoder_input_ids") if name in inputs]
        for side in ids:
            check_ids("ids", side, self.model.config)  # an encoder alone does not check them
        with torch.no_grad():
            return self.model(*ids)


def open_own(model: str, directory: Path, *, whole: bool) -> OwnCheckpoint:
    """Open a model of a family that `pellucid.load` knows, without transformers.

    Args:
        model: its name, as the user gave it.
        directory: of the model.
        whole: open an encoder-decoder whole, not only its encoder.

    Raises:
        FileError, MissingExtraError: as `pellucid.load`.
        ArgumentError: it has no tokenizer.
    """
    loaded = load(model)
    if loaded.tokenizer is None:
        raise ArgumentError(f"model '{model}' has no tokenizer")
    name = printable(Path(model).name or model)
    if directory in pretrained.OURS.values():
        name = f"Pellucid's {directory.name}"
    network: torch.nn.Module = loaded
    if isinstance(loaded, EncoderDecoder) and not whole:
        network = loaded.encoder
        name += " (its encoder)"
    tokenizer = OwnTokenizer(loaded.tokenizer)
    return OwnCheckpoint(name, network, tokenizer, loaded.config.positions)


class OwnTokenizer:
    """A tokenizer with the part of the interface of transformers that Pellucid uses."""

    def __init__(self, own: Tokenizer) -> None:
        self.own = own
        self.is_fast = own.inner is not None
        """Whether it gives the offsets of tokens in the text."""
        self.all_special_ids = own.all_special_ids
        self.convert_ids_to_tokens = own.convert_ids_to_tokens

    def __call__(
        self,
        text: str | None = None,
        *,
        text_target: str | None = None,
        truncation: bool,
        max_length: int | None = None,
        **_: Any,
    ) -> dict[str, list[Any]]:
        reader = self.own if text_target is None else self.own.of_target
        content = text if text_target is None else text_target
        assert content is not None
        if truncation and max_length is not None:
            return {"input_ids": reader.encode_cut(content, max_length)}
        [ids] = reader.encode([content])
        return {"input_ids": ids, "offset_mapping": reader.offsets(content)}

    def num_special_tokens_to_add(self) -> int:
        return self.own.marks

    def get_special_tokens_mask(self, ids: Iterable[int], **_: Any) -> list[int]:
        return [int(number in self.all_special_ids) for number in ids]

    def decode(self, ids: list[int]) -> str:
        return printable(self.own.decode(ids, special=True))
