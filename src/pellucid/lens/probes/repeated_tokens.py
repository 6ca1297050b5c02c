"""Random tokens that are repeated: nothing but the repetition tells what comes next."""

import torch
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.lens.probes.experiments import Experiment, Trial
from pellucid.lens.probes.vocabulary import Vocabulary


def repeated_tokens(vocabulary: Vocabulary, length: int, texts: int, seed: int) -> Experiment:
    """Half of the tokens are random and different, the other half are the same again.

    previous token: from each token to the one before.
    duplicates: from each token of the second half to the same one in the first.
    induction: from there to the token that followed it in the first.

    In the control the second half is made of other random tokens.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", section
    "Induction Heads"; Olsson et al. 2022, "In-context Learning and Induction Heads", appendix
    "Head Activation Evaluators".

    Args:
        vocabulary: the tokens are drawn from it, without special ones.
        length: the most tokens of a text, marks included.
        texts: the number of texts.
        seed: of the random tokens.

    Raises:
        ArgumentError: the vocabulary has fewer different tokens than a text needs.
    """
    start = vocabulary.start
    half = (length - len(start)) // 2
    plain = vocabulary.plain
    if half < 2 or len(plain) < 2 * half:
        raise ArgumentError(
            f"length must be {4 + len(start)} to {len(plain) + len(start)} for a vocabulary of "
            f"{len(plain):,} tokens, got {length}"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack(
        [plain[torch.randperm(len(plain), generator=generator)[: 2 * half]] for _ in range(texts)]
    )
    marks = torch.tensor(start, dtype=torch.int64).expand(texts, -1)
    first, other = drawn[:, :half], drawn[:, half:]
    second = len(start) + half
    place = torch.arange(half)
    everywhere = torch.arange(len(start) + 2, second + half)
    links = {
        "previous token": links_of(texts, everywhere, everywhere - 1),
        "duplicates": links_of(texts, second + place, second + place - half),
        "induction": links_of(texts, second + place[:-1], second + place[:-1] - half + 1),
    }
    trials = []
    for again in (first, other):
        ids = torch.cat([marks, first, again], 1)
        trials.append(Trial(ids=ids, links=links, predicted=following(ids, second)))
    return Experiment(
        behaviour="log-probability of the repeated tokens, in nats per token",
        trials=trials[:1],
        controls=trials[1:],
        in_every_text=frozenset({"previous token"}),
    )


def links_of(items: int, queries: Tensor, keys: Tensor) -> Tensor:
    """(items * queries, 3) int64: the same links in each item."""
    item = torch.arange(items).repeat_interleave(len(queries))
    return torch.stack([item, queries.repeat(items), keys.repeat(items)], -1)


def following(ids: Tensor, start: int) -> Tensor:
    """(predictions, 3) int64: each token after position `start`, and the position before it.

    Args:
        ids: (items, tokens) int64.
    """
    positions = torch.arange(start, ids.shape[1] - 1)
    links = links_of(len(ids), positions, positions + 1)
    item, query, position = links.unbind(-1)
    return torch.stack([item, query, ids[item, position]], -1)
