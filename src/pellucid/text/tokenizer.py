"""Text to ids and back, by Hugging Face's tokenizers, for which nearly all models have files."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import printable, write_whole

FILE = "tokenizer.json"


class Tokenizer:
    """What a checkpoint's tokenizer files say."""

    inner: Any = None
    """A `tokenizers.Tokenizer`, where there is one."""

    def __init__(self, inner: Any) -> None:
        """Wrap a `tokenizers.Tokenizer`."""
        inner.no_padding()
        inner.no_truncation()  # a text is cut where somebody says so, and not in silence
        self.inner = inner

    def save(self, directory: Path) -> None:
        """Write tokenizer.json."""
        write_whole(directory / FILE, self.inner.to_str(pretty=True))

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Ids of each text, with the model's own marks around it unless told otherwise."""
        with untrusted.guarded("the tokenizer cannot read this text"):
            found = self.inner.encode_batch_fast(list(texts), add_special_tokens=special)
            return [one.ids for one in found]

    def encode_cut(self, text: str, most: int) -> list[int]:
        """Ids of a text with the model's own marks, its end cut off so that there are `most`."""
        with untrusted.guarded("the tokenizer cannot read this text"):
            found = self.inner.encode(text, add_special_tokens=False)
            found.truncate(most - self.inner.num_special_tokens_to_add(is_pair=False))
            ids: list[int] = self.inner.post_process(found).ids
            return ids

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ids, without the model's own marks unless asked."""
        with untrusted.guarded("the tokenizer cannot write these tokens"):
            text: str = self.inner.decode(list(ids), skip_special_tokens=not special)
            return text

    def token(self, number: int) -> str:
        """A token as the vocabulary spells it."""
        found: str | None = self.inner.id_to_token(number)
        return f"<{number}>" if found is None else found

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token of `encode` begins and ends; nothing if it does not say."""
        with untrusted.guarded("the tokenizer cannot read this text"):
            places: list[tuple[int, int]] = self.inner.encode(text).offsets
            return places

    @property
    def marks(self) -> int:
        """How many tokens of the model's own `encode` puts around a text."""
        return int(self.inner.num_special_tokens_to_add(is_pair=False))

    @property
    def of_target(self) -> "Tokenizer":
        """What reads texts of the language that is written; mostly the same."""
        return self

    # As those of transformers are asked, so that a recording can spell what was seen.

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """A token for an id, or a list of them for a list, without control characters."""
        if isinstance(ids, list):
            return [self.convert_ids_to_tokens(number) for number in ids]
        return printable(self.token(ids))

    @cached_property
    def all_special_ids(self) -> list[int]:
        """The ids of the model's own marks."""
        added = self.inner.get_added_tokens_decoder()
        return [number for number, token in added.items() if token.special]

    def __len__(self) -> int:
        return int(self.inner.get_vocab_size())
