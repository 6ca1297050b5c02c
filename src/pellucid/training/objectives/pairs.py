"""The objective of sentence embeddings: pairs of texts that belong together."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.models import Encoder
from pellucid.tasks import figures
from pellucid.training.batches import cut
from pellucid.training.objectives.base import Part, Progress
from pellucid.training.objectives.encoding import JUDGED_TOKENS, SHOWN, PackedTexts, prediction
from pellucid.training.sequences import Sequences

TEMPERATURE = 0.05
"""Of similarities (Gao et al. 2021, "SimCSE", section 3)."""
AMONG = 64
"""Candidates that a text of a sample is searched in."""

Keys = tuple[np.ndarray, np.ndarray]
"""A key for each first and each second text, which equal texts share."""


class Pairs:
    """Which texts belong together: those of a pair, and of any pair of equal texts."""

    def __init__(self, keys: Keys) -> None:
        numbered = [np.unique(side, return_inverse=True) for side in keys]
        self.first, self.second = (inverse.reshape(-1) for _, inverse in numbered)
        self.seconds = len(numbered[1][0])
        """The number of different second texts."""
        self.known = np.unique(self.first * self.seconds + self.second)

    def right(self, queries: Part, answers: Part) -> Tensor:
        """Whether the first texts of some pairs belong to the second texts of others, (queries,
        answers) bool.
        """
        codes = self.first[queries][:, None] * self.seconds + self.second[answers]
        return torch.from_numpy(np.isin(codes, self.known))


class Contrastive(PackedTexts):
    """Contrastive learning with in-batch negatives, in both directions (Gao et al. 2021, "SimCSE",
    equation 5; van den Oord et al. 2018).

    A text that belongs to another, by any pair of the data, is no negative of it; nor are two pairs
    with the same answer, or the same question, negatives of each other.
    """

    judged_by = "found_first"
    tie_broken_by = "loss"
    higher_is_better = True

    def __init__(
        self,
        model: Encoder,
        pairs: tuple[Sequences, Sequences],
        held_out: tuple[Sequences, Sequences],
        *,
        batch_tokens: int,
        seed: int = 0,
        keys: tuple[Keys, Keys] | None = None,
    ) -> None:
        """Train on pairs.

        Args:
            model: an encoder.
            pairs: their first and their second texts.
            held_out: pairs for evaluation.
            batch_tokens: of an update.
            seed: of the order.
            keys: of the texts of `pairs` and of `held_out`, which equal texts share; by default,
                texts of the same ids are equal.
        """
        lengths = pairs[0].lengths + pairs[1].lengths
        super().__init__(model, lengths, batch_tokens, seed, held_out[0])
        self.pairs, self.held_out = pairs, held_out
        own, judged = keys or (_keys(pairs), _keys(held_out))
        self.belong, self.judged = Pairs(own), Pairs(judged)
        # Among the candidates, every different text is there once.
        self.candidates: list[int] = np.unique(self.judged.second, return_index=True)[1].tolist()

    def forward(self, part: Part) -> Tensor:
        sides = [F.normalize(self.pooled(self.packed(texts, part)), dim=-1) for texts in self.pairs]
        # In float32, since the low temperature multiplies rounding errors by 20.
        with torch.autocast(sides[0].device.type, enabled=False):
            similar = sides[0].float() @ sides[1].float().T / TEMPERATURE
        own = torch.arange(len(similar), device=similar.device)
        first, second = self.belong.first[part], self.belong.second[part]
        # Either text of the one pair may belong to the other text of the other.
        right = self.belong.right(part, part)
        right |= right.T | torch.from_numpy(second[:, None] == second)
        right |= torch.from_numpy(first[:, None] == first)
        others = right.fill_diagonal_(False).to(similar.device)
        similar = similar.masked_fill(others, -torch.inf)
        both = F.cross_entropy(similar, own, reduction="sum") + F.cross_entropy(
            similar.T, own, reduction="sum"
        )
        return both / 2

    def measure(self, progress: Progress | None = None) -> dict[str, float]:
        """How often a right partner of a held-out text is the most similar of all different texts;
        the mean reciprocal rank of the best right one; and the mean of -log softmax(similarity /
        temperature) of all right ones together, in nats.
        """
        ranks, loss, _ = self._ranks(progress)
        return {
            "found_first": float((ranks == 1).float().mean()),
            "reciprocal_rank": float((1 / ranks).mean()),
            "loss": float(loss.mean()),
        }

    def examine(self, progress: Progress | None = None) -> dict[str, Any]:
        """The measures, with the interval of the first, what chance gives, and the number of
        different texts that each text is searched in.
        """
        ranks, loss, right = self._ranks(progress)
        is_first = (ranks == 1).cpu().numpy()
        return {
            "found_first": float(is_first.mean()),
            "interval": list(figures.share_interval(is_first, self.judged.first)),
            "chance": float(right.float().mean()),
            "reciprocal_rank": float((1 / ranks).mean()),
            "loss": float(loss.mean()),
            "pairs": len(is_first),
            "candidates": len(self.candidates),
        }

    def _ranks(self, progress: Progress | None) -> tuple[Tensor, Tensor, Tensor]:
        """The place of the best right partner of each first text and the loss, (texts,); and which
        candidates are right, (texts, candidates).
        """
        queries = range(len(self.held_out[0]))
        sides = [
            self._embedded(texts, part, progress)
            for texts, part in zip(self.held_out, (queries, self.candidates), strict=True)
        ]
        similar = (sides[0] @ sides[1].T).float()
        right = self.judged.right(queries, self.candidates).to(similar.device)
        best = similar.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        # The place counts all wrong ones that are not less similar, so ties and NaN rank last.
        ranks = 1 + (~(similar < best) & ~right).sum(1)
        # In float64, since a loss near 0 still tells which weights are better.
        logits = similar.double() / TEMPERATURE
        among_right = logits.masked_fill(~right, -torch.inf)
        return ranks, logits.logsumexp(1) - among_right.logsumexp(1), right

    def sample(self) -> str:
        """The nearest candidates of the first held-out texts."""
        among = range(min(AMONG, len(self.held_out[1])))
        shown = among[:SHOWN]
        queries, others = (
            F.normalize(self.pooled(self.packed(texts, part)), dim=-1)
            for texts, part in zip(self.held_out, (shown, among), strict=True)
        )
        right = self.judged.right(shown, among)
        nearest = (queries @ others.T).argmax(-1).tolist()
        return "\n".join(
            prediction(
                self.text(self.held_out[1][match]),
                self.text(self.held_out[1][match if right[own, match] else own]),
                text,
            )
            for own, match in enumerate(nearest)
            if (text := self.text(self.held_out[0][own]))
        )

    def _embedded(self, texts: Sequences, part: Part, progress: Progress | None) -> Tensor:
        """The embeddings of some texts, (texts, width), of unit length."""
        numbers = np.array(part)
        embeddings, done = [], 0
        with torch.no_grad():
            for some in cut(numbers, texts.lengths, JUDGED_TOKENS):
                pooled = self.pooled(self.packed(texts, some.tolist()))
                embeddings.append(F.normalize(pooled, dim=-1))
                done += len(some)
                if progress is not None:
                    progress(done, len(numbers))
        return torch.cat(embeddings)


def _keys(sides: tuple[Sequences, Sequences]) -> Keys:
    """The number of the ids of each text."""
    numbers: dict[bytes, int] = {}
    keys = []
    for texts in sides:
        starts = texts.ends - texts.lengths
        spans = zip(starts.tolist(), texts.ends.tolist(), strict=True)
        ids = (texts.ids[start:end].tobytes() for start, end in spans)
        keys.append(np.array([numbers.setdefault(text_ids, len(numbers)) for text_ids in ids]))
    return keys[0], keys[1]
