"""A needle in a haystack: one sentence that answers a question, somewhere in a long text."""

from random import Random

import torch

from pellucid.errors import ArgumentError
from pellucid.lens.probes import phrases
from pellucid.lens.probes.experiments import Experiment, Trial
from pellucid.lens.probes.vocabulary import Vocabulary

TRIES = 1000
"""How many answers are drawn to find one of as many tokens as another."""


def needle(vocabulary: Vocabulary, length: int, texts: int, seed: int) -> Experiment:
    """Sentences, among them a needle; then a question, and the answer as the needle has it.

    retrieval: whether the key with the largest weight is the token of the needle that is written
    next. The answer is given to the model token by token, so that a model that would answer
    otherwise has a score too.

    In the control the needle says something else, in as many tokens. Tokens that both have do not
    count.

    Source: Wu et al. 2024, "Retrieval Head Mechanistically Explains Long-Context Factuality",
    section 2.

    Args:
        vocabulary: with a tokenizer.
        length: the most tokens of a text, marks included.
        texts: the number of texts; the needle is at as many depths.
        seed: of the random words.

    Raises:
        ArgumentError: the needle and its question alone need more tokens.
    """
    random = Random(seed)
    trials: list[Trial] = []
    controls: list[Trial] = []
    for number in range(texts):
        found, other = _two_answers(vocabulary, random)
        who, what = random.choice(phrases.PEOPLE), random.choice(phrases.NAMES)
        before = vocabulary.following(f"The {who} of {what} lives by the")
        question = vocabulary.following(
            f"Question: Where does the {who} of {what} live? Answer: The {who} of {what} lives "
            "by the"
        )
        end = vocabulary.following("and no one else.")
        room = length - len(vocabulary.start) - sum(map(len, (before, found, end, question, found)))
        if room < 0:
            raise ArgumentError(
                f"length must be {length - room} or more for the needle and its question, got "
                f"{length}"
            )
        hay = _hay(vocabulary, random, room)
        depth = round(len(hay) * (number + 0.5) / texts)
        start = [*vocabulary.start, *(x for one in hay[:depth] for x in one), *before]
        rest = [*end, *(x for one in hay[depth:] for x in one), *question, *found[:-1]]
        written = len(start) + len(rest)  # the position before the answer
        places = [i for i, token in enumerate(found) if token != other[i]]
        links = torch.tensor([[0, written + i, len(start) + i] for i in places])
        predicted = torch.tensor([[0, written + i, found[i]] for i in places])
        for said, made in ((found, trials), (other, controls)):
            ids = torch.tensor([[*start, *said, *rest]])
            made.append(Trial(ids=ids, links={"retrieval": links}, predicted=predicted))
    return Experiment(
        behaviour="log-probability of the needle's words, in nats per token",
        trials=trials,
        controls=controls,
    )


def _two_answers(vocabulary: Vocabulary, random: Random) -> tuple[list[int], list[int]]:
    """The ids of two different answers of as many tokens."""
    found = vocabulary.following(_answer(random))
    for _ in range(TRIES):
        other = vocabulary.following(_answer(random))
        if len(other) == len(found) and other != found:
            return found, other
    raise ArgumentError("the tokenizer gives no two answers of as many tokens")


def _answer(random: Random) -> str:
    adjectives, places = random.sample(phrases.ADJECTIVES, 2), random.sample(phrases.PLACES, 2)
    return f"{adjectives[0]} {places[0]} near the {adjectives[1]} {places[1]}"


def _hay(vocabulary: Vocabulary, random: Random, room: int) -> list[list[int]]:
    """Sentences of `room` tokens at the most."""
    hay: list[list[int]] = []
    while True:
        one = vocabulary.following(phrases.sentence(random))
        if not 0 < len(one) <= room:
            return hay
        hay.append(one)
        room -= len(one)
