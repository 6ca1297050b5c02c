"""Ten stations from a soft database to a translation: an idea, a guess, a change and a check each.

Every number in a question or an answer is computed from the lesson that the station shows.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches

import torch

from pellucid.common import files
from pellucid.common.wording import percent
from pellucid.errors import UnknownNameError
from pellucid.lessons.examples import example_lesson
from pellucid.lessons.lesson import Lesson, random_lesson
from pellucid.lessons.lookup import lookup_lesson, walk_lookup
from pellucid.lessons.model import walk_model
from pellucid.lessons.next_token import PROMPT, walk_next_token
from pellucid.lessons.scaling import measure_scaling
from pellucid.lessons.steps import attend, project, scale_of, walk_lesson
from pellucid.lessons.walk import Walk

VASWANI = "Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An answer to choose."""

    text: str
    is_right: bool = False
    why: str
    """What makes it right or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with several answers, one of which is right."""

    text: str
    choices: tuple[Choice, ...]

    @property
    def right(self) -> int:
        """The number of the right answer."""
        return next(i for i, choice in enumerate(self.choices) if choice.is_right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing to change, and what follows."""

    text: str
    walk: Walk
    step: str = "softmax"
    """The step in which the change shows."""
    lesson: Lesson | None = None
    """The changed lesson; None where a trained model's numbers are shown."""
    call: str = ""
    """The Python that computes the walk where there is no lesson."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One stop on the way."""

    name: str
    title: str
    idea: str
    predict: Question
    """To be guessed before the numbers are seen."""
    walk: Walk
    step: str
    """The step of the walk that has the answer."""
    lesson: Lesson | None = None
    """What the walk was computed from, to be changed; None where a trained model's is shown."""
    call: str = ""
    """The Python that computes the walk where there is no lesson."""
    change: Change
    own: str
    """A command for one's own sentence."""
    check: Question
    source: str


def station(name: str) -> Station:
    """One station, by its name or its number from 1.

    Raises:
        UnknownNameError: there is no such station.
    """
    names = list(STATIONS)
    if name.isdecimal() and 1 <= int(name) <= len(names):
        name = names[int(name) - 1]
    name = name.casefold()
    if name not in STATIONS:
        near = get_close_matches(name, names, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}, or 1 to 10"
        raise UnknownNameError(f"no station '{name}'; {meant}")
    stop, number = STATIONS[name][1](), names.index(name)
    # The right answer is not always at the same place.
    return replace(
        stop, predict=_rotated(stop.predict, number), check=_rotated(stop.check, number // 2)
    )


def _rotated(question: Question, by: int) -> Question:
    by %= len(question.choices)
    return replace(question, choices=(*question.choices[by:], *question.choices[:by]))


def to_json(stop: Station) -> str:
    """Everything of a station as JSON."""
    return files.to_json(asdict(stop), indent=1)


def _lookup() -> Station:
    lesson = lookup_lesson(["amber"])
    walk = walk_lookup("amber")
    answer = walk.steps[-1].matrices[1].values[-1][0]
    mean = sum(row[0] for row in lesson.value or ()) / len(lesson.keys)
    sharper = lesson.change(scale=100.0)
    return Station(
        name="lookup",
        title="A soft database",
        idea="A database compares your query with every key and returns the value of the one key "
        "that is equal. Attention makes the comparison soft: it measures how alike the query and "
        "each key are, and returns a mixture of all values, more of those whose keys are closer.",
        predict=Question(
            text="A table has the wavelengths of red, orange, yellow, green and blue. You look up "
            "'amber', which lies halfway between orange (610 nm) and yellow (580 nm). What does "
            "attention answer when it is very sharp?",
            choices=(
                Choice(
                    text="Nothing: the table has no amber.",
                    why="A database answers nothing. Attention needs no equal key.",
                ),
                Choice(
                    text=f"{answer:.0f} nm, halfway between orange and yellow.",
                    is_right=True,
                    why="Both keys are equally close, so each gives half of its value.",
                ),
                Choice(
                    text=f"{mean:.0f} nm, the mean of the whole table.",
                    why="That is the answer at sharpness 0, where every row counts alike.",
                ),
            ),
        ),
        walk=walk,
        step="sharpen",
        lesson=lesson,
        change=Change(
            text="Multiply the scores by 100: nearly all weight goes to the nearest keys.",
            walk=walk_lesson(sharper),
            lesson=sharper,
        ),
        own='pellucid explain --example lookup --table "cat=1,dog=2,lorry=9" --query kitten',
        check=Question(
            text="Why does every row count alike at sharpness 0?",
            choices=(
                Choice(
                    text="All scores become 0, and e⁰ = 1 for each of them.",
                    is_right=True,
                    why="Equal exponentials are equal shares of their sum.",
                ),
                Choice(
                    text="The query becomes the mean of all keys.",
                    why="The query stays as it is; only the scores are multiplied.",
                ),
                Choice(
                    text="The softmax is left out.",
                    why="It is there, but it gets equal numbers.",
                ),
            ),
        ),
        source="Bahdanau et al. 2015, section 3.1, arXiv:1409.0473; " + VASWANI,
    )


def _projections() -> Station:
    lesson = example_lesson("poem")
    x = lesson.matrix("embeddings")[0]
    identity = lesson.change(W_query=torch.eye(2))
    return Station(
        name="projections",
        title="Query, key and value",
        idea="Each token starts as one vector, its embedding. Three trained matrices make three "
        "vectors of it: the query asks, the key offers, the value is what gets passed on.",
        predict=Question(
            text=f"'write' is the vector ({x[0]:.2f}, {x[1]:.2f}). How many vectors does "
            "attention make of it?",
            choices=(
                Choice(text="One.", why="Then a word could only ask for what it offers itself."),
                Choice(
                    text="Three, one for each matrix.",
                    is_right=True,
                    why="x · W_query, x · W_key and x · W_value, with different weights each.",
                ),
                Choice(
                    text="One for each other word.",
                    why="The vectors are made once; the words meet in the scores.",
                ),
            ),
        ),
        walk=walk_lesson(lesson),
        step="query",
        lesson=lesson,
        change=Change(
            text="Make W_query the identity (1, 0; 0, 1): the query of each word is then its "
            "embedding.",
            walk=walk_lesson(identity),
            step="query",
            lesson=identity,
        ),
        own='pellucid explain --words "your own words" --seed 1 --steps',
        check=Question(
            text="Where do the numbers of W_query, W_key and W_value come from?",
            choices=(
                Choice(
                    text="They start at random, and training changes them.",
                    is_right=True,
                    why="Here they are as random as before training: three torch.nn.Linear layers "
                    "with seed 42.",
                ),
                Choice(
                    text="They are computed from the sentence.",
                    why="The same matrices serve every sentence.",
                ),
                Choice(
                    text="A dictionary lists them.",
                    why="No one writes them down; training finds them.",
                ),
            ),
        ),
        source=VASWANI + ", section 3.2.2",
    )


def _scores() -> Station:
    lesson = example_lesson("poem")
    query, key, value = (part[0] for part in project(lesson))
    row = attend(lesson, query, key, value).scores[0].tolist()
    best = max(range(3), key=lambda i: row[i])
    doubled = lesson.change(W_key=lesson.matrix("W_key") * 2)
    words = lesson.tokens
    why = {
        i: f"q · k = {query[0, 0]:.4f} × {key[i, 0]:.4f} + {query[0, 1]:.4f} × {key[i, 1]:.4f} "
        f"= {row[i]:.4f}."
        for i in range(3)
    }
    return Station(
        name="scores",
        title="Scores: how well a query fits a key",
        idea="The score of a query and a key is their dot product: multiply number by number, and "
        "add. It is large when both point the same way, 0 when they are at right angles, and "
        "negative when they point apart.",
        predict=Question(
            text=f"The query of 'write' is ({query[0, 0]:.2f}, {query[0, 1]:.2f}). The keys are "
            + ", ".join(f"{words[i]} ({key[i, 0]:.2f}, {key[i, 1]:.2f})" for i in range(3))
            + ". Which key fits it best?",
            choices=tuple(
                Choice(text=f"That of '{words[i]}'.", is_right=i == best, why=why[i])
                for i in range(3)
            ),
        ),
        walk=walk_lesson(lesson),
        step="score",
        lesson=lesson,
        change=Change(
            text="Double W_key: every key doubles, and so does every score.",
            walk=walk_lesson(doubled),
            step="score",
            lesson=doubled,
        ),
        own='pellucid explain --words "your own words" --query words --steps',
        check=Question(
            text="A query and a key are at right angles. What is their score?",
            choices=(
                Choice(text="1", why="Two equal vectors of length 1 have the score 1."),
                Choice(text="0", is_right=True, why="The dot product of such vectors is 0."),
                Choice(
                    text="−∞", why="Only a mask gives −∞; a dot product of numbers is a number."
                ),
            ),
        ),
        source="Luong et al. 2015, section 3.1, arXiv:1508.04025; " + VASWANI + ", equation 1",
    )


def _scale() -> Station:
    lesson = random_lesson(
        "we divide by the square root", width=16, size=64, form="linear", positions=False, seed=2
    )
    # Queries and keys as the paper supposes: independent, with mean 0 and variance 1.
    generator = torch.Generator().manual_seed(5)
    n = len(lesson.tokens)
    vectors = {name: torch.randn(n, 64, generator=generator) for name in ("query", "key")}
    lesson = Lesson.of(
        tokens=lesson.tokens,
        title=lesson.title,
        about=("Queries and keys drawn from a standard normal, seed 5: 64 numbers each.",),
        value=torch.eye(n),
        **vectors,
    )
    unscaled = lesson.change(scale=1.0)
    (row,) = measure_scaling((64,)).rows
    largest = max(attend(unscaled, *(p[0] for p in project(unscaled))).weights[0].tolist())
    usual = max(attend(lesson, *(p[0] for p in project(lesson))).weights[0].tolist())
    return Station(
        name="scale",
        title="Why divide by √d_k",
        idea="A score adds up d_k products. If the numbers have variance 1, the variance of the "
        "score is d_k, and its standard deviation √d_k. Undivided, scores of long vectors are so "
        "far apart that the softmax gives everything to one key, and training gets hardly any "
        "gradient.",
        predict=Question(
            text="Queries and keys have 64 numbers of variance 1. How far do their scores spread: "
            "what is their standard deviation?",
            choices=(
                Choice(text="About 1.", why="That is what dividing by √64 makes of it."),
                Choice(
                    text="About 8.",
                    is_right=True,
                    why=f"√64 = 8; measured here: {math.sqrt(row.unscaled.variance):.1f}.",
                ),
                Choice(text="About 64.", why="64 is the variance. Its square root is 8."),
            ),
        ),
        walk=walk_lesson(lesson),
        step="scale",
        lesson=lesson,
        change=Change(
            text=f"Set the scale to 1: the largest weight of 'we' goes from {percent(usual)} to "
            f"{percent(largest)}.",
            walk=walk_lesson(unscaled),
            lesson=unscaled,
        ),
        own="pellucid scaling --train",
        check=Question(
            text="Two models are trained, one with undivided scores. Why does that one learn "
            "slowly?",
            choices=(
                Choice(
                    text="Its softmax is so peaky that hardly any gradient comes through.",
                    is_right=True,
                    why="Where one weight is near 1 and the rest near 0, small changes of a score "
                    "change nothing. `pellucid scaling --train` lets you watch it.",
                ),
                Choice(text="It has more to compute.", why="It has one division fewer."),
                Choice(
                    text="Its weights no longer sum to 1.",
                    why="The softmax makes them sum to 1 in either case.",
                ),
            ),
        ),
        source=VASWANI + ", section 3.2.1, footnote 4",
    )


def _softmax() -> Station:
    lesson = example_lesson("poem")
    found = attend(lesson, *(part[0] for part in project(lesson)))
    scaled, weights = found.scaled[0].tolist(), found.weights[0].tolist()
    cold = lesson.change(temperature=0.1)
    cold_weights = attend(cold, *(part[0] for part in project(cold))).weights[0].tolist()
    best = max(range(3), key=lambda i: weights[i])
    word = lesson.tokens[best]
    return Station(
        name="softmax",
        title="Softmax: scores become shares",
        idea="The softmax raises e to the power of each score, and divides by the sum of the row. "
        "Every share is positive, and together they are 100%. A difference between two scores is "
        "a ratio between their shares.",
        predict=Question(
            text="The scaled scores of 'write' are "
            + ", ".join(f"{one:.2f}" for one in scaled)
            + f". What share does the largest, '{word}', get?",
            choices=(
                Choice(text="100%", why="The largest score takes all only if it is far ahead."),
                Choice(
                    text=percent(weights[best]),
                    is_right=True,
                    why="The scores lie close together, so the shares do too.",
                ),
                Choice(text="0.05, its score", why="A score is no share: it may be negative."),
            ),
        ),
        walk=walk_lesson(lesson),
        step="softmax",
        lesson=lesson,
        change=Change(
            text=f"Set the temperature to 0.1: '{word}' goes from {percent(weights[best])} to "
            f"{percent(cold_weights[best])}.",
            walk=walk_lesson(cold),
            lesson=cold,
        ),
        own='pellucid explain --words "your own words" --temperature 0.2',
        check=Question(
            text="You add 5 to every score of a row. What happens to its weights?",
            choices=(
                Choice(text="They grow by 5.", why="They still have to sum to 1."),
                Choice(
                    text="They become more even.", why="That takes a division, not an addition."
                ),
                Choice(
                    text="Nothing.",
                    is_right=True,
                    why="Every exponential is multiplied by e⁵, and so is their sum.",
                ),
            ),
        ),
        source=VASWANI + ", equation 1",
    )


def _mask() -> Station:
    lesson = example_lesson("journey", causal=True).change(speaker=0)
    n = len(lesson.tokens)
    finite = torch.zeros(n, n) + torch.full((n, n), -2.0).triu(1)
    soft = lesson.change(mask=finite)
    return Station(
        name="mask",
        title="The mask: what may be seen",
        idea="A model that writes must not look at words it has not written yet. A causal mask "
        "adds −∞ to the scores of later tokens, and e to the power of −∞ is 0. Other masks hide "
        "padding, or everything outside a window.",
        predict=Question(
            text="Under a causal mask, how much of its attention does the first token, 'your', "
            "give to itself?",
            choices=(
                Choice(
                    text=f"About {percent(1 / n)}, one share of {n}.",
                    why="That would be so if it saw all tokens equally.",
                ),
                Choice(
                    text="100%",
                    is_right=True,
                    why="It is the first: there is no other token that it may see.",
                ),
                Choice(text="0%", why="A token may always see itself under a causal mask."),
            ),
        ),
        walk=walk_lesson(lesson),
        step="softmax",
        lesson=lesson,
        change=Change(
            text="Put −2 in place of −∞: later tokens are seen a little. Now it matters whether "
            "the mask is added before or after the scale: here it is added after; before, −2 would "
            f"count only −{2 * scale_of(lesson):.2f}.",
            walk=walk_lesson(soft),
            lesson=soft,
        ),
        own='pellucid explain "your own sentence" --causal --model minilm',
        check=Question(
            text="(QKᵀ + M)/√d and QKᵀ/√d + M: when do they give the same weights?",
            choices=(
                Choice(text="Always.", why="A finite M is divided in one and not in the other."),
                Choice(
                    text="When M holds nothing but 0 and −∞.",
                    is_right=True,
                    why="Dividing 0 or −∞ changes neither of them.",
                ),
                Choice(text="Never.", why="0/√d = 0, and −∞/√d = −∞."),
            ),
        ),
        source=VASWANI + ", section 3.2.3",
    )


def _heads() -> Station:
    lesson = random_lesson("the cat sat on it", width=6, size=2, heads=3, form="linear", seed=4)
    identity = lesson.change(W_output=torch.eye(6))
    return Station(
        name="heads",
        title="Several heads, and W_output",
        idea="One softmax gives one set of shares. Several heads, each with its own small "
        "queries, keys and values, look at several things at once. Their results stand side by "
        "side, and W_output mixes them.",
        predict=Question(
            text="Each of three heads gives 2 numbers per token. How many numbers does a token "
            "have after the heads are joined?",
            choices=(
                Choice(text="2", why="That would be so if the heads were added up."),
                Choice(text="6", is_right=True, why="They stand side by side: 3 × 2."),
                Choice(text="8", why="That would be 2³; heads are not multiplied."),
            ),
        ),
        walk=walk_lesson(lesson),
        step="concat",
        lesson=lesson,
        change=Change(
            text="Make W_output the identity: the output is then the heads side by side, unmixed.",
            walk=walk_lesson(identity),
            step="output",
            lesson=identity,
        ),
        own='pellucid explain "your own sentence" --layer 4 --head 2',
        check=Question(
            text="Do the heads of a layer share their weights?",
            choices=(
                Choice(
                    text="No: each head has its own scores and its own softmax.",
                    is_right=True,
                    why="That is why they can look at different words.",
                ),
                Choice(
                    text="Yes: one softmax serves all of them.",
                    why="Then there would be no use in having several.",
                ),
            ),
        ),
        source=VASWANI + ", section 3.2.2",
    )


def _positions() -> Station:
    drawn = random_lesson("dog bites man", width=4, size=3, seed=7)
    without = drawn.change(positions=None)
    turned = drawn.change(
        tokens=drawn.tokens[::-1], embeddings=drawn.matrix("embeddings").flip(0), speaker=2
    )
    return Station(
        name="positions",
        title="Embeddings and positions",
        idea="The input embedding of a token is the sum of two rows: one of the token table, which "
        "says which word it is, and one of the position table, which says where it stands. "
        "Attention itself does not know the order of its keys.",
        predict=Question(
            text="Without position embeddings, how does the context of 'dog' in 'dog bites man' "
            "differ from that of 'dog' in 'man bites dog'?",
            choices=(
                Choice(
                    text="Not at all.",
                    is_right=True,
                    why="The same keys get the same weights, in whatever order they stand.",
                ),
                Choice(
                    text="It is another, since the first word counts more.",
                    why="No word counts more for where it stands, unless positions say so.",
                ),
                Choice(text="It has the opposite sign.", why="Nothing in attention would turn it."),
            ),
        ),
        walk=walk_lesson(without),
        step="mix",
        lesson=without,
        change=Change(
            text="Add the position embeddings: now the context of 'dog' is "
            f"{_context(drawn, 0)} where it stands first, and {_context(turned, 2)} in "
            "'man bites dog', where it stands last.",
            walk=walk_lesson(drawn),
            step="mix",
            lesson=drawn,
        ),
        own='pellucid explain --words "man bites dog" --seed 7 --steps',
        check=Question(
            text="What is the input embedding of a token?",
            choices=(
                Choice(
                    text="Its token embedding plus its position embedding.",
                    is_right=True,
                    why="They have the same size, and are added number by number.",
                ),
                Choice(
                    text="Its token embedding, then its position in a further number.",
                    why="The position is a whole vector, and it is added.",
                ),
                Choice(text="Its query.", why="The query is made from the input embedding."),
            ),
        ),
        source=VASWANI + ", sections 3.4 and 3.5",
    )


def _context(lesson: Lesson, position: int) -> str:
    """What one token takes along, in brackets."""
    context = attend(lesson, *(part[0] for part in project(lesson))).context[position]
    return f"({', '.join(f'{number:.2f}' for number in context.tolist())})"


def _stacks() -> Station:
    sentence = "the servant of the king"
    decoder = walk_model(sentence, model="decoder")
    encoder = walk_model(sentence, model="sentiment")
    return Station(
        name="stacks",
        title="The three stacks",
        idea="An encoder reads a text in both directions, and gives each word a vector that knows "
        "its context. A decoder writes from left to right, so it sees only what came before. An "
        "encoder-decoder reads one text and writes another: its decoder also asks the encoder.",
        predict=Question(
            text=f"A decoder reads '{sentence}'. Which words can 'servant' attend to?",
            choices=(
                Choice(text="All five.", why="That is what an encoder does."),
                Choice(
                    text="'the' and itself, and the mark at the beginning.",
                    is_right=True,
                    why="A decoder's mask hides what comes later.",
                ),
                Choice(text="Only itself.", why="It may also see what came before."),
            ),
        ),
        walk=decoder,
        step="softmax",
        call=f"walk_model({sentence!r}, model='decoder')",
        change=Change(
            text="Give the same words to an encoder: nothing is hidden, and words look both ways.",
            walk=encoder,
            call=f"walk_model({sentence!r}, model='sentiment')",
        ),
        own='pellucid translate "the servant of the king" --align',
        check=Question(
            text="In the cross-attention of a translator from English to Spanish, where do the "
            "queries and keys come from?",
            choices=(
                Choice(
                    text="Queries from the Spanish so far, keys and values from the English.",
                    is_right=True,
                    why="The text that is being written asks the text that was read.",
                ),
                Choice(
                    text="Both from the English.", why="That is the encoder's own self-attention."
                ),
                Choice(
                    text="Queries from the English, keys from the Spanish.",
                    why="Then the text that was read would ask the one not written yet.",
                ),
            ),
        ),
        source=VASWANI + ", section 3.1; Devlin et al. 2019, arXiv:1810.04805",
    )


def _generation() -> Station:
    prompt = PROMPT
    walk = walk_next_token(prompt)
    shares = walk.heat[1].values[0]
    names = walk.tokens
    other = walk_next_token(prompt, pick=names[1])
    return Station(
        name="generation",
        title="Generation: the next token",
        idea="The last token's vector gives one number for every token of the vocabulary. A "
        "softmax makes probabilities of them. One token is picked and read in turn, and so the "
        "text grows.",
        predict=Question(
            text="The decoder in the package learnt the English of the Bible. It reads "
            f"'{prompt}'. What comes next, most likely?",
            choices=tuple(
                Choice(
                    text=f"'{names[i]}'",
                    is_right=i == 0,
                    why=f"Its probability is {percent(shares[i])}.",
                )
                for i in (3, 0, 1)
            ),
        ),
        walk=walk,
        step="next token",
        call=f"walk_next_token({prompt!r})",
        change=Change(
            text=f"Pick '{names[1]}' instead of '{names[0]}': how does the text go on?",
            walk=other,
            step="go on",
            call=f"walk_next_token({prompt!r}, pick={names[1]!r})",
        ),
        own='pellucid view "your own beginning" --new-tokens 20',
        check=Question(
            text="A decoder writes 10 tokens. How many times does it compute probabilities?",
            choices=(
                Choice(text="Once.", why="Each new token changes what comes next."),
                Choice(
                    text="Ten times, once for each token.",
                    is_right=True,
                    why="Each token is picked from the probabilities after all earlier ones.",
                ),
                Choice(
                    text="Once for each token of the vocabulary.",
                    why="One pass gives the probabilities of the whole vocabulary.",
                ),
            ),
        ),
        source="Radford et al. 2018, Improving Language Understanding by Generative Pre-Training",
    )


STATIONS: dict[str, tuple[str, Callable[[], Station]]] = {
    "lookup": ("A soft database", _lookup),
    "projections": ("Query, key and value", _projections),
    "scores": ("Scores: how well a query fits a key", _scores),
    "scale": ("Why divide by √d_k", _scale),
    "softmax": ("Softmax: scores become shares", _softmax),
    "mask": ("The mask: what may be seen", _mask),
    "heads": ("Several heads, and W_output", _heads),
    "positions": ("Embeddings and positions", _positions),
    "stacks": ("The three stacks", _stacks),
    "generation": ("Generation: the next token", _generation),
}
"""The title of each station, and what makes it, in the order of the path."""
