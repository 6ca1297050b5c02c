"""What the numbers say, in plain words: every sentence is made from the numbers of its step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.common.wording import count, listing, percent


@dataclass(frozen=True)
class Speaker:
    """The sentences of a walk, told from the place of one token."""

    tokens: tuple[str, ...]
    position: int
    source: tuple[str, ...] | None = None
    """The tokens attended to, in cross-attention."""

    @property
    def key_names(self) -> tuple[str, ...]:
        """The tokens attended to."""
        return self.tokens if self.source is None else self.source

    @property
    def own(self) -> int | None:
        """The speaking token among the keys; none of them in cross-attention."""
        return self.position if self.source is None else None

    @property
    def name(self) -> str:
        """The speaking token, quoted."""
        return self.quote(self.position)

    def quote(self, position: int) -> str:
        """A token in quotes, with its position where the word stands there more than once."""
        return _quote(self.tokens, position)

    def quote_key(self, position: int) -> str:
        """The same of a key."""
        return _quote(self.key_names, position)

    def vectors(self, role: str, numbers: Tensor) -> str:
        """About the (tokens, dim) queries, keys or values: what they do, and whose is longest."""
        does = {
            "query": "asks for something",
            "key": "says what it offers",
            "value": "carries what it hands on",
        }[role]
        lengths = numbers.norm(dim=-1)
        longest = int(lengths.argmax())
        whose = self.quote(longest) if role == "query" else self.quote_key(longest)
        return (
            f"Each token {does}, in {count(numbers.shape[-1], 'number')}; the longest {role} is "
            f"that of {whose}, of length {lengths[longest]:.2f}."
        )

    def score(self, scores: Tensor, visible: Tensor | None = None) -> str:
        """About the (queries, keys) raw scores; the best key is one that the query may see."""
        row = scores[self.position]
        among = ""
        if visible is not None and not visible[self.position].all():
            if not visible[self.position].any():
                return f"The query of {self.name} may see no key at all."
            row = row.masked_fill(~visible[self.position], -torch.inf)
            among = "Among the keys it may see, t"
        best = int(row.argmax())
        key = "its own key" if best == self.own else f"the key of {self.quote_key(best)}"
        return (
            f"{among or 'T'}he query of {self.name} fits {key} best: "
            f"their score is {row[best]:.2f}."
        )

    def scale(self, scores: Tensor, factor: float, key_dim: int) -> str:
        """About the step from raw to scaled scores."""
        row = scores[self.position]
        farthest = row[row.abs().argmax()].item()
        if factor == 1:
            return (
                f"Multiplied by 1, the scores stay as they are; that of {self.name} that is "
                f"farthest from 0 is {farthest:.2f}."
            )
        root = (
            f"Divided by √{key_dim} = {key_dim**0.5:.2f}, so that scores do not grow with how many "
            "numbers a vector has"
            if abs(factor * key_dim**0.5 - 1) < 1e-6
            else f"Multiplied by {factor:.4g}"
        )
        return (
            f"{root}: the score of {self.name} that is farthest from 0 goes from {farthest:.2f} "
            f"to {farthest * factor:.2f}."
        )

    def mask(self, visible: Tensor | None) -> str:
        """About the (tokens, tokens) mask, True = may be seen."""
        if visible is None or visible.all():
            keys = count(len(self.key_names), "key")
            return f"Nothing is hidden: each token sees all {keys}."
        hidden = f"{int((~visible).sum())} of the {count(visible.numel(), 'score')} become −∞"
        if (visible == visible.new_ones(visible.shape).tril()).all():
            return f"{hidden}, those right of the diagonal: no token sees what comes after it."
        return f"{hidden}: the model hides those keys."

    def softmax(self, weights: Tensor) -> str:
        """About the (tokens, tokens) weights: 'write' gives 36% ... to itself and 40% to 'a'."""
        row = weights[self.position].tolist()
        strongest = self._strongest(row)
        listed = (
            strongest if self.own is None else [self.own, *(i for i in strongest if i != self.own)]
        )
        shares = [
            f"{percent(row[i])} " + ("to itself" if i == self.own else f"to {self.quote_key(i)}")
            for i in listed
        ]
        # Said once, behind the first share.
        parts = [shares[0].replace("% ", "% of its attention ", 1), *shares[1:]]
        return f"{self.name} gives {listing(parts + _rest_phrase(row, listed, 'to'))}."

    def mix(self, weights: Tensor, context: Tensor) -> str:
        """About the (tokens, value_dim) context."""
        row = weights[self.position].tolist()
        listed = self._strongest(row)
        parts = [
            f"{percent(row[i])} " + ("its own" if i == self.own else f"that of {self.quote_key(i)}")
            for i in listed
        ]
        numbers = ", ".join(f"{number:.2f}" for number in context[self.position, :3].tolist())
        more = ", …" if context.shape[-1] > 3 else ""
        whole = listing(parts + _rest_phrase(row, listed, "those of"))
        return f"The context of {self.name} is a mix of values: {whole}: ({numbers}{more})."

    def _strongest(self, row: list[float]) -> list[int]:
        """The positions of the (at most three) largest weights worth a word, largest first."""
        order = sorted(range(len(row)), key=lambda i: -row[i])[:3]
        return [i for i in order if row[i] >= 0.05] or order[:1]


def _quote(tokens: tuple[str, ...], position: int) -> str:
    token = tokens[position]
    return f"'{token}' ({position})" if tokens.count(token) > 1 else f"'{token}'"


def _rest_phrase(row: list[float], listed: list[int], word: str) -> list[str]:
    """What the positions that are not listed have together, if it is worth a word."""
    rest = sum(weight for i, weight in enumerate(row) if i not in listed)
    return [f"{percent(rest)} {word} the rest"] if rest >= 0.01 else []
