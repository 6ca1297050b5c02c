"""Text to ids and back, by Hugging Face's tokenizers, for which nearly all models have files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import write_whole

FILE = "tokenizer.json"


class Tokenizer:
    """What a checkpoint's tokenizer files say."""

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

    def __len__(self) -> int:
        return int(self.inner.get_vocab_size())
