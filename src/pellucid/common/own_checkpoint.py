"""Our own model and tokenizer where those of transformers are expected."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pellucid.common import untrusted
from pellucid.common.checkpoint import Checkpoint
from pellucid.common.files import printable
from pellucid.models import EncoderDecoder, load


@dataclass(frozen=True)
class OwnCheckpoint(Checkpoint):
    """A trained model of Pellucid's own making."""

    def run(self, **inputs: torch.Tensor) -> Any:
        given = [inputs[name] for name in ("input_ids", "decoder_input_ids") if name in inputs]
        with torch.no_grad():
            return self.model(*given)

    @property
    def starts_target(self) -> int | None:
        start: int | None = self.model.config.start
        return start if self.is_both else None

    @property
    def is_both(self) -> bool:
        return isinstance(self.model, EncoderDecoder)


def open_own(directory: Path) -> OwnCheckpoint:
    """A model with its tokenizer, and without transformers."""
    model: Any = load(directory)
    name = f"Pellucid's {directory.name}"
    return OwnCheckpoint(name, model, OwnTokenizer(model.tokenizer.inner), model.config.positions)


class OwnTokenizer:
    """As much of a tokenizer of transformers as is asked of one here."""

    is_fast = True

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        added = inner.get_added_tokens_decoder()
        self.all_special_ids = [number for number, token in added.items() if token.special]

    def __call__(
        self,
        text: str | None = None,
        *,
        text_target: str | None = None,
        truncation: bool,
        max_length: int | None = None,
        **_: Any,
    ) -> dict[str, list[Any]]:
        with untrusted.guarded("the tokenizer cannot read this text"):
            found = self.inner.encode(text if text_target is None else text_target)
        if truncation:
            found.truncate(max_length)
        return {"input_ids": found.ids, "offset_mapping": found.offsets}

    def num_special_tokens_to_add(self) -> int:
        return int(self.inner.num_special_tokens_to_add(is_pair=False))

    def get_special_tokens_mask(self, ids: Iterable[int], **_: Any) -> list[int]:
        return [int(number in self.all_special_ids) for number in ids]

    def decode(self, ids: list[int]) -> str:
        return printable(self.inner.decode(ids, skip_special_tokens=False))

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        if isinstance(ids, list):
            return [self.convert_ids_to_tokens(number) for number in ids]
        return printable(str(self.inner.id_to_token(ids)))
