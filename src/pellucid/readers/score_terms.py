"""Why a head of a model looks from one token of a text to another."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pellucid.common.wording import count, listing, percent, short
from pellucid.errors import ArgumentError, OutOfRangeError, UnknownNameError
from pellucid.lens.layer_labels import label_layers
from pellucid.lens.record import Record
from pellucid.lens.tracing.residual_stream import residual_stream
from pellucid.lens.tracing.why import Why, why
from pellucid.lens.tracing.written import ATTENTION, BIAS, FEED, Source
from pellucid.models import Decoder, Encoder, EncoderDecoder
from pellucid.readers.forward_pass import Step
from pellucid.readers.outcomes import Inputs, open_answering
from pellucid.readers.tracing import inputs_with_answer, spelled

BIASES, REST = "biases", "rest"
"""The names of all biases together, and of what is left out of a table."""
ABOUT = (
    "Each number is what a part of the token that looks and a part of the token that is looked at "
    "give to the score together: token and position are what the embeddings wrote, 2.0 what head 0 "
    "of layer 2 wrote there, ff2 the feed-forward part of layer 2, biases all biases. Norms are "
    "frozen at the scale that they had, so that a number says what parts gave, and not what the "
    "score would be without them."
)
LETTERS = " The letters e, d and x stand for encoder, decoder and cross-attention."


@dataclass(frozen=True, kw_only=True)
class ScoreTerms:
    """A score of a head that read a text, as a sum of terms."""

    model: str
    head: str
    """Like "5.3", layer and head; after a letter if stacks share numbers."""
    why: Why
    tokens: list[str]
    """The text of each token that looks, with the space before it."""
    key_tokens: list[str]
    """Likewise of those that are looked at."""
    names: dict[Source, str]
    """A short name of each source: "2.2" of a head, "ff0" of a feed-forward part, or its kind."""
    rank: int
    """Of the key among all that the query sees: 1 if it looks there most."""
    seen: int
    """How many keys have any weight."""

    def headline(self) -> str:
        """What is explained."""
        why, less = self.why, ""
        if why.against is not None:
            less = f" rather than at {_quoted(self.key_tokens, why.against)}"
        return (
            f"{self.model}: why head {self.head} looks from {_quoted(self.tokens, why.query)} at "
            f"{_quoted(self.key_tokens, why.key)}{less}"
        )

    def summary(self) -> str:
        """The weight and the score."""
        why = self.why
        place = "most of all" if self.rank == 1 else f"number {self.rank} of {self.seen}"
        score = f"The score is {why.score:.3f}"
        if why.against is not None:
            side = "lower" if why.score < 0 else "higher"
            score = f"The score is {abs(why.score):.3f} {side} than there"
        return f"The weight is {percent(why.weight)}, {place}. {score}."

    def about(self) -> str:
        """What the numbers are."""
        has_letters = self.head[0].isalpha()
        return ABOUT + (LETTERS if has_letters else "")

    def table(self, rows: int, columns: int) -> tuple[list[str], list[str], torch.Tensor]:
        """The terms as a table that adds up to the score, those of biases together.

        Args:
            rows: the most sources of the query, by size; what others give is the last row.
            columns: the most sources of the key, likewise.

        Returns:
            The names of the sources of the query and of the key, and the terms, float64.
        """
        of_query = [self.names[source] for source in self.why.query_sources]
        of_key = [self.names[source] for source in self.why.key_sources]
        of_query, terms = _sums_by_name(of_query, self.why.terms)
        of_key, turned = _sums_by_name(of_key, terms.T)
        by_size = turned.T.abs().sum(1).argsort(descending=True, stable=True).tolist()
        of_query, terms = _cut([of_query[i] for i in by_size], turned.T[by_size], rows)
        by_size = turned.abs().sum(1).argsort(descending=True, stable=True).tolist()
        of_key, turned = _cut([of_key[i] for i in by_size], terms.T[by_size], columns)
        return of_query, of_key, turned.T

    def top(self, count: int) -> list[tuple[str, str, float]]:
        """The largest terms: the names of the sources of the query and the key, and the amount."""
        of_query, of_key, terms = self.table(len(self.names), len(self.names))
        order = terms.abs().flatten().argsort(descending=True, stable=True)[:count].tolist()
        width = len(of_key)
        return [(of_query[i // width], of_key[i % width], float(terms.flatten()[i])) for i in order]


def _quoted(tokens: Sequence[str], place: int) -> str:
    """A token beside its number."""
    return f"“{short(tokens[place], 24)}” {place}"


def _sums_by_name(names: list[str], terms: torch.Tensor) -> tuple[list[str], torch.Tensor]:
    """Rows of one name added up."""
    rows: dict[str, int] = {}
    at = torch.tensor([rows.setdefault(name, len(rows)) for name in names])
    whole = torch.zeros(len(rows), terms.shape[1], dtype=terms.dtype)
    return list(rows), whole.index_add(0, at, terms)


def _cut(names: list[str], terms: torch.Tensor, most: int) -> tuple[list[str], torch.Tensor]:
    """No more rows than these: what is past them as one."""
    if len(names) <= most:
        return names, terms
    rest = terms[most - 1 :].sum(0, keepdim=True)
    return [*names[: most - 1], REST], torch.cat([terms[: most - 1], rest])


def explain_score(
    text: str,
    *,
    head: str,
    query: str | None = None,
    key: str | None = None,
    against: str | None = None,
    target: str | None = None,
    model: str | None = None,
    max_tokens: int | None = None,
    step: Step,
) -> ScoreTerms:
    """Explain why a head looks from one token to another.

    Args:
        text: the input.
        head: like "5.3", layer and head, after a letter if stacks share numbers.
        query: the token that looks: its number, from the end if negative, or its text if that
            stands in one place; None is the last.
        key: the token that is looked at, likewise; None is the one that it looks at most.
        against: another key, whose score is subtracted.
        target: what the decoder of an encoder-decoder reads, instead of the model's own answer.
        model: as for `open_checkpoint`.
        max_tokens: cut longer texts to this length.
        step: called with the name of the step, its progress and its total.

    Raises:
        ArgumentError: a head or token that is not clear, or a model whose parts are not known.
        OutOfRangeError: there is no such position.
        UnknownNameError: there is no such head or token.
        FileError, MissingExtraError: the model cannot be opened.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ArgumentError(f"--max-tokens must be 1 or more, not {max_tokens}")
    match = re.fullmatch(r"([edx]?)(\d+)\.(\d+)", head.strip())
    if match is None:
        raise ArgumentError(f"--head must be a layer and a head, like 2.0, not '{short(head, 40)}'")
    step("opening the model", 0, 1)
    checkpoint = open_answering(model)
    inputs = inputs_with_answer(text, target, checkpoint, max_tokens)
    if isinstance(checkpoint.model, EncoderDecoder) and target is None:
        written = inputs["decoder_input_ids"]
        inputs["decoder_input_ids"] = written[:, :-1]  # the last token is read by nobody
    step(f"reading {count(inputs['input_ids'].shape[1], 'token')}", 0, 1)
    with residual_stream(checkpoint.model, tokenizer=checkpoint.tokenizer) as stream:
        _read(checkpoint.model, inputs)
    records = stream.seen.records
    if not records:
        raise ArgumentError(f"model {checkpoint.name} made no attention call that can be recorded")
    labels = ["".join(map(str, label)) for label in label_layers(records)]
    label, number = match[1] + match[2], int(match[3])
    heads = {name: record.shape[-3] for name, record in zip(labels, records, strict=True)}
    if number >= heads.get(label, 0):
        stacks: dict[str, list[str]] = {}
        for name in labels:
            stacks.setdefault(name.rstrip("0123456789"), []).append(name)
        ends = [
            (f"{group[0]}.0", f"{group[-1]}.{heads[group[-1]] - 1}") for group in stacks.values()
        ]
        there = [" to ".join(dict.fromkeys(pair)) for pair in ends]
        raise UnknownNameError(
            f"{checkpoint.name} has no head '{head.strip()}'; its heads are {listing(there)}"
        )
    record = records[labels.index(label)]
    target_side = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    of_encoder = label.startswith("e")
    tokens = spelled(checkpoint, inputs["input_ids" if of_encoder else target_side])
    reads_source = of_encoder or record.is_cross
    key_tokens = spelled(checkpoint, inputs["input_ids" if reads_source else target_side])
    row = position("--query", query, tokens)
    weights = record.weights[0, number, row].detach()
    looked_at = int(weights.argmax()) if key is None else position("--key", key, key_tokens)
    other = None if against is None else position("--against", against, key_tokens)
    if other == looked_at:
        raise ArgumentError(f"--against is the key itself, {looked_at}; name another token")
    sees_no_later = not record.is_cross and not weights[row + 1 :].any()
    for option, place in (("--key", looked_at), ("--against", other)):
        if place is not None and place > row and sees_no_later:
            raise ArgumentError(
                f"{option}: head {head.strip()} cannot look from token {row} to {place}, which "
                "comes later"
            )
    step("taking the score apart", 0, 1)
    explanation = why(stream, record.name, number, row, looked_at, against=other, each_head=True)
    return ScoreTerms(
        model=checkpoint.name,
        head=f"{label}.{number}",
        why=explanation,
        tokens=tokens,
        key_tokens=key_tokens,
        names=short_names(records, labels, {*explanation.query_sources, *explanation.key_sources}),
        rank=1 + int((weights > weights[looked_at]).sum()),
        seen=int((weights > 0).sum()),
    )


def position(option: str, wanted: str | None, tokens: Sequence[str]) -> int:
    """The position of a token that is asked for by its number or its text; None is the last.

    Raises:
        OutOfRangeError: there is no such position.
        UnknownNameError, ArgumentError: no token has this text, or several have.
    """
    size = len(tokens)
    if wanted is None:
        return size - 1
    if re.fullmatch(r"[+-]?\d+", wanted.strip()):
        place = int(wanted)
        if not -size <= place < size:
            raise OutOfRangeError(f"{option} must be from {-size} to {size - 1}, not {place}")
        return place % size
    matches = [place for place, token in enumerate(tokens) if token.strip() == wanted.strip()]
    if not matches:
        shown = ", ".join(f"{place} {token.strip()}" for place, token in enumerate(tokens))
        raise UnknownNameError(
            f"{option}: no token is '{short(wanted, 40)}'; the tokens are {short(shown, 200)}"
        )
    if len(matches) > 1:
        raise ArgumentError(
            f"{option}: tokens {listing(list(map(str, matches)))} are '{short(wanted, 40)}'; give "
            "one of these numbers"
        )
    return matches[0]


def short_names(
    records: Sequence[Record], labels: Sequence[str], sources: Iterable[Source]
) -> dict[Source, str]:
    """A short name of each source."""
    of_attention = {record.name: label for record, label in zip(records, labels, strict=True)}
    has_letters = any(label[:1].isalpha() for label in labels)

    def name(source: Source) -> str:
        if source.kind == BIAS:
            return BIASES
        if source.kind == ATTENTION:
            return f"{of_attention[source.name]}.{source.head}"
        side = ("e" if "encoder" in source.name.split(".") else "d") if has_letters else ""
        return f"{side}ff{source.layer}" if source.kind == FEED else source.kind.split()[0]

    return {source: name(source) for source in sources}


def _read(network: Any, inputs: Inputs) -> None:
    """Run a model, its logits left out where they can be."""
    if isinstance(network, Decoder):
        network.decoder(inputs["input_ids"])
    elif isinstance(network, EncoderDecoder):
        memory = network.encode(inputs["input_ids"])
        network.decoder(inputs["decoder_input_ids"], memory=memory)
    elif isinstance(network, Encoder):
        network(inputs["input_ids"])
    else:
        network(**inputs)
