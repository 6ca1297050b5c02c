"""Common words, and sentences made of them at random."""

from random import Random

ADJECTIVES = (
    "old", "young", "great", "small", "green", "white", "black", "dark", "cold", "good", "strong",
    "quiet",
)  # fmt: skip
PEOPLE = (
    "man", "woman", "king", "servant", "child", "father", "mother", "brother", "friend", "teacher",
)  # fmt: skip
THINGS = ("bread", "water", "fish", "gold", "stone", "book", "house", "gate", "field", "tree")
PLACES = (
    "city", "river", "mountain", "garden", "house", "temple", "field", "road", "sea", "hill",
)  # fmt: skip
VERBS = ("saw", "found", "took", "left", "kept", "made", "brought", "gave")
NAMES = (
    "Mary", "John", "James", "David", "Paul", "Peter", "Thomas", "Daniel", "Sarah", "Martha",
    "Simon", "Adam", "Joseph", "Samuel", "Anna", "Tom", "Jack", "Alice", "Robert", "William",
    "George", "Michael", "Mark", "Luke", "Andrew", "Stephen", "Rachel", "Ruth", "Elizabeth", "Jane",
    "Charles", "Henry", "Anne", "Emma", "Laura", "Kate",
)  # fmt: skip
"""First names, many of them one token in most vocabularies."""


def sentence(random: Random) -> str:
    """A sentence that says nothing that matters."""
    origin, destination = random.sample(PLACES, 2)
    return (
        f"The {random.choice(ADJECTIVES)} {random.choice(PEOPLE)} {random.choice(VERBS)} the "
        f"{random.choice(THINGS)} in the {origin} and went to the {destination}."
    )
