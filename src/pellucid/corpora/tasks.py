"""What is done with the texts of a part. Each task opens its model once in each worker."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch

from pellucid import pretrained
from pellucid.layers.bfloat16 import Precision
from pellucid.lens import watch
from pellucid.lens.head_measures import heads
from pellucid.lens.head_table import COLUMNS, HeadRow
from pellucid.readers.forward_pass import inputs_of
from pellucid.readers.opening import open_checkpoint
from pellucid.tasks import open_encoder, open_translator
from pellucid.tasks.classify import Head, OwnClassifier, check_head, columns_of
from pellucid.tasks.embedding import PROBE, digits_lost, embed, predict
from pellucid.tasks.line_parts import Protection
from pellucid.tasks.translation import translate

Columns = dict[str, Any]
"""Lists or arrays of the same length, by name."""
Work = Callable[[Sequence[str], Sequence[str]], Columns]
"""Columns for texts and what messages call each of them: a row for each text, or `TEXT` says which
text a row belongs to."""
TEXT = "text_number"


_ARROW: dict[Any, str] = {int: "int64", str: "string", float: "float64"}
HEAD_TYPES = {"tokens": "int64"} | {field.name: _ARROW[field.type] for field in fields(HeadRow)}


class Task(ABC):
    """A task with its options; two of the same options do the same work."""

    name: ClassVar[str]
    size: ClassVar[int] = 1000
    """Texts of a part by default: some seconds of work, and some megabytes of output."""
    types: ClassVar[Mapping[str, str]] = {"text": "string"}
    """Arrow's names of the types of columns that may have no values."""

    @abstractmethod
    def open(self) -> Work:
        """Open the model.

        Raises:
            PellucidError: it cannot be opened, or not for this task.
        """

    def options(self) -> dict[str, Any]:
        """What the output depends on, for JSON."""
        return {name: _plain(value) for name, value in asdict(self).items()}  # type: ignore[call-overload]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True, kw_only=True)
class Embed(Task):
    """The embedding of each text (`pellucid.tasks.embed`)."""

    name = "embed"
    model: str | None = None
    prompt: str | None = None
    truncate_dim: int | None = None
    precision: Precision = "float32"
    strict: bool = False

    def open(self) -> Work:
        encoder = open_encoder(self.model)

        options: dict[str, Any] = {"prompt": self.prompt, "truncate_dim": self.truncate_dim}
        is_told = self.precision == "float32"

        def work(texts: Sequence[str], names: Sequence[str]) -> Columns:
            nonlocal is_told
            precision, strict = self.precision, self.strict
            embeddings = embed(
                encoder, texts, strict=strict, names=names, precision=precision, **options
            )
            if not is_told:
                warnings.warn(str(digits_lost(encoder, texts, embeddings, **options)), stacklevel=2)
                is_told = True
            return {"text": texts, "embedding": embeddings.numpy()}

        return work


@dataclass(frozen=True, kw_only=True)
class Classify(Task):
    """The label, labels or number of each text (`pellucid.tasks.classify`)."""

    name = "classify"
    types = {"text": "string", "label": "string", "labels": "string"}  # noqa: RUF012
    head: Path | None = None
    """A head that was saved; None for a model with a classifier of its own."""
    model: str | None = None
    """By default that of the head."""
    strict: bool = False

    def open(self) -> Work:
        head = None if self.head is None else Head.load(self.head)
        model = head.model if head is not None and self.model is None else self.model
        encoder = open_encoder(model)
        if head is not None:
            check_head(head, embed(encoder, [PROBE])[0], model)

        def work(texts: Sequence[str], names: Sequence[str]) -> Columns:
            if head is None:
                predicted = predict(encoder, texts, strict=self.strict, names=names)
                return {"text": texts, **columns_of(OwnClassifier.of(encoder), predicted)}
            vectors = embed(encoder, texts, strict=self.strict, names=names)
            return {"text": texts, **columns_of(head, head.predictions(vectors))}

        return work


@dataclass(frozen=True, kw_only=True)
class Translate(Task):
    """The translation of each text (`pellucid.tasks.translate`)."""

    name = "translate"
    size = 200
    types = {"source": "string", "text": "string", "score": "float64"}  # noqa: RUF012
    model: str = str(pretrained.TRANSLATOR)
    source: str | None = None
    target: str | None = None
    """Languages, of a model with several."""
    whole: bool = False
    """Whether texts are left whole."""
    protect: Protection = "changed"
    """What is kept as it is."""
    beams: int | None = None
    length_penalty: float | None = None
    max_tokens: int | None = None
    strict: bool = False

    def open(self) -> Work:
        model = open_translator(self.model)
        options = {name: value for name, value in asdict(self).items() if name != "model"}

        def work(texts: Sequence[str], names: Sequence[str]) -> Columns:
            translations = translate(model, texts, names=names, **options)
            return {
                "source": texts,
                "text": [translation.text for translation in translations],
                "score": [translation.score for translation in translations],
            }

        return work


@dataclass(frozen=True, kw_only=True)
class MeasureHeads(Task):
    """The measurements of every head on each text, a row per head (`pellucid.lens.heads`)."""

    name = "heads"
    size = 50
    types = HEAD_TYPES
    model: str | None = None
    max_tokens: int | None = None
    """Longer texts are cut to this many tokens; without it they are set aside."""

    def open(self) -> Work:
        checkpoint = open_checkpoint(self.model)

        def work(texts: Sequence[str], names: Sequence[str]) -> Columns:
            rows, numbers, tokens = [], [], []
            for number, text in enumerate(texts):
                inputs = inputs_of(text, None, checkpoint, self.max_tokens)
                with (
                    torch.no_grad(),
                    watch(checkpoint.model, tokenizer=checkpoint.tokenizer) as seen,
                ):
                    checkpoint.run(**inputs)
                own = heads(seen).to_dicts()
                rows += own
                numbers += [number] * len(own)
                tokens += [inputs["input_ids"].shape[1]] * len(own)
            columns = {name: [row[name] for row in rows] for name in COLUMNS}
            return {TEXT: numbers, "tokens": tokens, **columns}

        return work
