"""Text to ids and back, with the tokenizers library of Hugging Face."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pellucid.common import untrusted
from pellucid.common.files import printable, write_whole
from pellucid.errors import FileError
from pellucid.text.languages import Languages
from pellucid.text.tokenizer_growth import Growth

FILE = "tokenizer.json"


class Tokenizer:
    """The tokenizer of a checkpoint."""

    inner: Any = None
    """A `tokenizers.Tokenizer`; None in subclasses that do without."""
    chat_template: str | None = None
    """The Jinja template that makes one text of a conversation, if the model was made for that."""
    other_templates: tuple[str, ...] = ()
    """The names of its templates for other purposes than a plain conversation."""
    languages: Languages | None = None
    """Those that the model translates between, if its tokens name some."""

    def __init__(self, inner: Any) -> None:
        """Wrap a `tokenizers.Tokenizer`.

        Raises:
            FileError: it makes too much of any text.
        """
        self.named_tokens: dict[str, str] = {}
        """Special tokens under the names that chat templates use, such as bos_token."""
        inner.no_padding()
        inner.no_truncation()  # texts are cut only on request
        self.inner = inner
        self.growth = Growth(inner)

    def lowercase(self) -> None:
        """Lowercase texts before all else.

        Raises:
            FileError: this kind of tokenizer cannot.
        """
        if self.inner is None:
            raise FileError("its tokenizer cannot lowercase texts, as its do_lower_case asks")
        from tokenizers import normalizers

        steps = [normalizers.Lowercase(), self.inner.normalizer]
        self.inner.normalizer = normalizers.Sequence([step for step in steps if step is not None])
        self.growth = Growth(self.inner)

    def save(self, directory: Path) -> None:
        """Write tokenizer.json, and the chat template if there is one."""
        write_whole(directory / FILE, self.inner.to_str(pretty=True))
        if self.chat_template is not None:
            write_whole(directory / "chat_template.jinja", self.chat_template)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Ids of each text, by default with the model's special tokens.

        Raises:
            FileError: the tokenizer cannot read a text, or makes too much of it.
        """
        self.growth.check(texts)
        with untrusted.guarded("the tokenizer cannot read this text"):
            encodings = self.inner.encode_batch_fast(list(texts), add_special_tokens=special)
            return [encoding.ids for encoding in encodings]

    def encode_cut(self, text: str, most: int) -> list[int]:
        """At most `most` ids of a text with special tokens; the end of the text is cut."""
        self.growth.check([text])
        with untrusted.guarded("the tokenizer cannot read this text"):
            encoding = self.inner.encode(text, add_special_tokens=False)
            encoding.truncate(most - self.marks)
            ids: list[int] = self.inner.post_process(encoding).ids
            return ids

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ids, by default without special tokens."""
        with untrusted.guarded("the tokenizer cannot decode these tokens"):
            text: str = self.inner.decode(list(ids), skip_special_tokens=not special)
            return text

    def token(self, number: int) -> str:
        """A token as in the vocabulary."""
        token: str | None = self.inner.id_to_token(number)
        return f"<{number}>" if token is None else token

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The start and end of each token of `encode` in the text; empty if unknown."""
        self.growth.check([text])
        with untrusted.guarded("the tokenizer cannot read this text"):
            offsets: list[tuple[int, int]] = self.inner.encode(text).offsets
            return offsets

    @property
    def marks(self) -> int:
        """How many special tokens `encode` adds to a text."""
        return int(self.inner.num_special_tokens_to_add(is_pair=False))

    @property
    def unknown(self) -> int | None:
        """The id of the token for what is not in the vocabulary; None if there is none."""
        model = self.inner.model
        token = getattr(model, "unk_token", None)
        number: int | None = (
            getattr(model, "unk_id", None) if token is None else self.inner.token_to_id(token)
        )
        return number

    @property
    def of_target(self) -> "Tokenizer":
        """The tokenizer of the target language; by default the same."""
        return self

    # The interface of transformers, which recordings use to spell tokens.

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The token of an id, or those of a list, without control characters."""
        if isinstance(ids, list):
            return [self.convert_ids_to_tokens(number) for number in ids]
        return printable(self.token(ids))

    @cached_property
    def all_special_ids(self) -> list[int]:
        """The ids of special tokens."""
        added = self.inner.get_added_tokens_decoder()
        return [number for number, token in added.items() if token.special]

    def __len__(self) -> int:
        return int(self.inner.get_vocab_size())
