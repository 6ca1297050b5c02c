"""The examples of the Lesson view that a trained model works out, each for any text."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pellucid.lessons.context import BANKS, VERDICT
from pellucid.lessons.examples import walk_example
from pellucid.lessons.next_token import PROMPT
from pellucid.lessons.walk import to_json

MOST_TEXT = 2000
"""Letters of a text."""
MOST_QUERY = 100
"""Letters of a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What the page asks for."""

    title: str
    text: str
    """What is read unless another text is given."""
    asks: str
    """What the field of the text is called."""
    query: str | None = None
    """The word that is compared unless another is given; None where no word is asked for."""


EXAMPLES = {
    "context": Example(
        title="a word in its context",
        text="\n".join(BANKS),
        asks="Sentences, one a line",
        query="bank",
    ),
    "verdict": Example(title="was a film liked?", text=VERDICT, asks="What somebody wrote of it"),
    "next": Example(title="what comes next?", text=PROMPT, asks="The beginning of a text"),
}


@lru_cache(maxsize=32)
def walk(name: str, text: str = "", query: str = "") -> dict[str, Any]:
    """The walk of one of `EXAMPLES`, with the fields of `Walk`.

    Args:
        name: which.
        text: the example's own if blank; of context, a sentence a line.
        query: of context, the word that is compared; of next, the token to go on with.

    Raises:
        PellucidError: as `walk_example`.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    texts = lines if name == "context" else [" ".join(lines)] if lines else []
    made = walk_example(name, text=texts or None, query=query.strip() or None)
    read: dict[str, Any] = json.loads(to_json(made))
    return read
