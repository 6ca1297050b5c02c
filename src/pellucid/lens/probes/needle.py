"""A needle in a haystack: one sentence that answers a question, somewhere in a long text."""

from random import Random

import torch

from pellucid.errors import ArgumentError
from pellucid.lens.probes import phrases
from pellucid.lens.probes.experiments import Experiment, Trial
from pellucid.lens.probes.vocabulary import Vocabulary


def needle(vocabulary: Vocabulary, length: int, texts: int, seed: int) -> Experiment:
    """Sentences, among them a needle; then a question, and the answer as the needle has it.

    retrieval: whether the key with the largest weight is the token of the needle that is written
    next. The answer is given to the model token by token, so that a model that would answer
    otherwise has a score too.

    In the control there is no needle, but as many tokens of other sentences.

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
        who, whose = random.choice(phrases.PEOPLE), random.choice(phrases.NAMES)
        lives = f"The {who} of {whose} lives by the"
        before, end = vocabulary.following(lives), vocabulary.following("and no one else.")
        answer = vocabulary.following(_answer(random))
        inserted = [*before, *answer, *end]
        question = vocabulary.following(
            f"Question: Where does the {who} of {whose} live? Answer: {lives}"
        )
        start = vocabulary.start
        room = length - sum(map(len, (start, inserted, question, answer)))
        if room < 0:
            raise ArgumentError(
                f"length must be {length - room} or more for the needle and its question, got "
                f"{length}"
            )
        hay = _hay(vocabulary, random, room)
        depth = round(len(hay) * (number + 0.5) / texts)
        first = [*start, *(token for sentence in hay[:depth] for token in sentence)]
        last = [*(token for sentence in hay[depth:] for token in sentence), *question, *answer[:-1]]
        place = len(first) + len(before)  # where the needle's answer begins
        written = (
            len(first) + len(inserted) + len(last) - len(answer)
        )  # the position before the answer
        links = torch.tensor([[0, written + i, place + i] for i in range(len(answer))])
        predicted = torch.tensor([[0, written + i, token] for i, token in enumerate(answer)])
        nothing = _others(vocabulary, random, len(inserted))
        for middle, made in ((inserted, trials), (nothing, controls)):
            ids = torch.tensor([[*first, *middle, *last]])
            made.append(Trial(ids=ids, links={"retrieval": links}, predicted=predicted))
    return Experiment(
        behaviour="log-probability of the needle's words, in nats per token",
        trials=trials,
        controls=controls,
    )


def _others(vocabulary: Vocabulary, random: Random, count: int) -> list[int]:
    """The first `count` tokens of other sentences."""
    ids: list[int] = []
    while len(ids) < count:
        ids += vocabulary.following(phrases.sentence(random))
    return ids[:count]


def _answer(random: Random) -> str:
    adjectives, places = random.sample(phrases.ADJECTIVES, 2), random.sample(phrases.PLACES, 2)
    return f"{adjectives[0]} {places[0]} near the {adjectives[1]} {places[1]}"


def _hay(vocabulary: Vocabulary, random: Random, room: int) -> list[list[int]]:
    """Sentences of `room` tokens at the most."""
    hay: list[list[int]] = []
    while True:
        sentence = vocabulary.following(phrases.sentence(random))
        if not 0 < len(sentence) <= room:
            return hay
        hay.append(sentence)
        room -= len(sentence)
