"""Names in two places: who is given something, where one of two names is repeated."""

from itertools import groupby
from random import Random

import torch

from pellucid.errors import ArgumentError
from pellucid.lens.probes import phrases
from pellucid.lens.probes.experiments import Experiment, Trial
from pellucid.lens.probes.vocabulary import Vocabulary

TEMPLATES = (
    "When {0} and {1} came to the house, {2} gave the bread to",
    "After {0} and {1} had met at the gate, {2} gave the book to",
    "Then {0} and {1} went to the river, and {2} gave the water to",
    "While {0} and {1} worked in the field, {2} brought the fish to",
)
"""Each with two names and one that is to be the giver."""


def names(vocabulary: Vocabulary, texts: int, seed: int) -> Experiment:
    """The indirect object: "When Mary and John came to the house, John gave the bread to" Mary.

    name mover: from the last token to the name that is not repeated.
    S-inhibition: from there to the second occurrence of the name that is.

    In the control the giver is a third name, so that none is repeated. Either name comes first in
    half of the texts.

    Source: Wang et al. 2023, "Interpretability in the Wild: a Circuit for Indirect Object
    Identification in GPT-2 Small", sections 2 and 3.

    Args:
        vocabulary: with a tokenizer.
        texts: the number of pairs of names for each template.
        seed: of the choice of names.

    Raises:
        ArgumentError: fewer than three names are one token each.
    """
    known = vocabulary.single(phrases.NAMES)
    if len(known) < 3:
        raise ArgumentError(
            f"{len(known)} of {len(phrases.NAMES)} names are one token each; 3 needed"
        )
    random = Random(seed)
    made: list[tuple[list[int], list[int], list[int]]] = []
    for template in TEMPLATES:
        for number in range(2 * texts):
            if not number % 2:
                other, giver, third = random.sample(sorted(known), 3)
            pair = (other, giver) if number % 2 else (giver, other)
            ids, control = (
                [*vocabulary.start, *vocabulary.text(template.format(*pair, who))]
                for who in (giver, third)
            )
            where = [
                [place for place, token in enumerate(ids) if token == known[name]]
                for name in (other, giver)
            ]
            if list(map(len, where)) == [1, 2] and len(control) == len(ids):
                facts = [known[other], known[giver], where[0][0], where[1][1]]
                made.append((ids, control, facts))
    if not made:
        raise ArgumentError("the tokenizer does not keep names apart from what follows them")
    trials: list[Trial] = []
    controls: list[Trial] = []
    for _, group in groupby(
        sorted(made, key=lambda sample: len(sample[0])), lambda sample: len(sample[0])
    ):
        texts_of, controls_of, facts_of = zip(*group, strict=True)
        object_, subject, first, second = torch.tensor(facts_of).T
        item, end = torch.arange(len(object_)), torch.full_like(object_, len(texts_of[0]) - 1)
        links = {
            "name mover": torch.stack([item, end, first], -1),
            "S-inhibition": torch.stack([item, end, second], -1),
        }
        predicted = torch.stack([item, end, object_], -1)
        for some, part in ((texts_of, trials), (controls_of, controls)):
            part.append(
                Trial(ids=torch.tensor(some), links=links, predicted=predicted, rather_than=subject)
            )
    return Experiment(
        behaviour="logit of the name that is not repeated over the other's",
        trials=trials,
        controls=controls,
    )
