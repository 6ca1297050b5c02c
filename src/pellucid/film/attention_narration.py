"""What is said of one query: from its tokens to what it takes along."""

import math
from collections.abc import Iterable, Sequence

from pellucid.common.wording import listing
from pellucid.film.numbers import DECIMALS, Figures, Number
from pellucid.film.phrases import phrase, quoted, shown_part, spoken
from pellucid.film.script import Line, Scene
from pellucid.film.token_text import clean, glued, is_word
from pellucid.lessons.walk import Walk

MOST_KEYS = 7
"""Keys that are shown; the others are counted as one."""
MOST_CELLS = 12
"""Numbers of a vector that are drawn; more would be too small to see."""
WRITTEN_CELLS = 3
"""A vector of so many numbers is written out."""
MOST_DECIMALS = 4
"""Of a product that would not come out with fewer."""


class RowNarration:
    """What there is to say of one row."""

    def __init__(self, walk: Walk, figures: Figures, row: int, finds: Sequence[int]) -> None:
        weights = figures.matrices["weights"]
        self.walk, self.figures, self.row, self.finds = walk, figures, row, tuple(finds)
        self.tokens, self.sources = walk.tokens, weights.column_labels
        self.is_cross = self.tokens != self.sources
        self.weights = weights.values[row]
        self.masked = figures.matrices["masked"].values[row]
        self.word = quoted(self.tokens, row)
        self.order = sorted(range(len(self.sources)), key=lambda key: -self.weights[key])
        self.size = len(figures.matrices["Q"].values[0])
        self.is_causal = "causal" in walk.facts and any(
            score == -math.inf for score in figures.matrices["masked"].values[0][1:]
        )
        ids = figures.matrices.get("token")
        self.has_ids = ids is not None and ids.kind == "count" and not self.is_cross
        self.keys = self._keys()
        hidden = f"columns(weights) - {len(self.keys)}"
        self.rest = figures.number(hidden, "count") if len(self.keys) < len(self.sources) else None

    def _keys(self) -> tuple[int, ...]:
        """Those that are shown: what is looked for, itself, one that is hidden, the strongest."""
        if len(self.sources) <= MOST_KEYS:
            return tuple(range(len(self.sources)))
        hidden = [key for key, score in enumerate(self.masked) if score == -math.inf]
        wanted = [*self.finds, *([] if self.is_cross else [self.row]), *hidden[:1], *self.order]
        return tuple(sorted(list(dict.fromkeys(wanted))[: MOST_KEYS - 1]))

    def _number(self, of: str, kind: str = "number", decimals: int = DECIMALS) -> Number:
        return self.figures.number(of, kind, decimals)  # type: ignore[arg-type]

    def _entry(self, name: str, key: int) -> Number:
        return self.figures.row(name, self.row, (key,))[0]

    def _vector(self, name: str, row: int) -> tuple[Number, ...]:
        columns = len(self.figures.matrices[name].values[row])
        return self.figures.row(name, row, range(min(columns, MOST_CELLS)))

    def _key_name(self, key: int) -> str:
        return "itself" if key == self.row and not self.is_cross else quoted(self.sources, key)

    def _scene(
        self,
        name: str,
        title: str,
        lines: Iterable[Line | None],
        numbers: dict[str, tuple[Number, ...]],
        formula: str = "",
    ) -> Scene:
        return Scene(
            name=name,
            title=title,
            formula=formula,
            lines=tuple(line for line in lines if line is not None),
            query=self.row,
            keys=self.keys,
            labels=tuple(clean(self.sources[key]) for key in self.keys),
            rest=self.rest,
            text=shown_part(len(numbers.get("Q", ())), self.size),
            numbers=numbers,
        )

    def beginning(self) -> list[Scene]:
        """Title, tokens, vectors, projections."""
        return [self.title(), self._cut(), self._vectors(), self._projections()]

    def title(self) -> Scene:
        if self.finds:
            whom = phrase(self.sources, self.finds, glued(self.walk.title, self.sources))
            line = spoken("word", "Let us see how {word} finds {whom}.", word=self.word, whom=whom)
        elif any(step.name.startswith("next") for step in self.walk.steps):
            line = spoken(
                "word", "What comes next? The model looks back from {word}.", word=self.word
            )
        elif self.is_cross:
            line = spoken("word", "Which words does {word} come from?", word=self.word)
        else:
            line = spoken("word", "What does {word} look at in this sentence?", word=self.word)
        every = tuple(range(len(self.sources)))
        return self._scene(
            "title", "", [line], {"weights": self.figures.row("weights", self.row, every)}
        )

    def _cut(self) -> Scene:
        count = self._number("columns(weights)" if self.is_cross else "tokens", "count")
        lines = [spoken("split", "The sentence is cut into {n} tokens.", 2, n=count)]
        if self.is_cross:
            written = self._number("rows(weights)", "count")
            lines.append(spoken("target", "The translation has {n} tokens.", 2, n=written))
        numbers = {}
        if self.has_ids:
            numbers["ids"] = tuple(self._number(f"token[{key}, 0]", "count") for key in self.keys)
            own = self._number(f"token[{self.row}, 0]", "count")
            lines.append(
                spoken(
                    "ids",
                    "In the model's vocabulary, {word} is number {n}.",
                    2,
                    word=self.word,
                    n=own,
                )
            )
        return self._scene("tokens", "Tokens", lines, numbers)

    def _vectors(self) -> Scene:
        numbers = {}
        lines = [spoken("vector", "Each token becomes a vector: a list of numbers.")]
        if "X" in self.figures and not self.is_cross:  # else it is the X of the queries
            for place, key in enumerate(self.keys):
                numbers[f"X.{place}"] = self._vector("X", key)
            own = self._vector("X", self.row)
            if len(own) <= WRITTEN_CELLS:
                parts = {f"n{place}": number for place, number in enumerate(own)}
                phrases = listing([f"{{{name}}}" for name in parts])
                lines.append(
                    spoken("own", f"Here, {{word}} is {phrases}.", 2, word=self.word, **parts)
                )
        return self._scene("vectors", "Vectors", lines, numbers)

    def _projections(self) -> Scene:
        asks = "The query comes from the translation: it says what {word} looks for."
        lines = [
            spoken("three", "Three learned matrices turn each vector into three others.", 2),
            spoken(
                "query",
                asks if self.is_cross else "The query says what {word} looks for.",
                word=self.word,
            ),
            spoken("key", "The keys say what each token offers."),
            spoken("value", "And the values are what each token hands on."),
            spoken(
                "size", "Each of them has {n} numbers.", 3, n=self._number("columns(Q)", "count")
            ),
        ]
        return self._scene("projections", "Query, key, value", lines, self._vectors_of("QKV"))

    def _vectors_of(self, names: str) -> dict[str, tuple[Number, ...]]:
        """The row's query and the shown keys and values, as far as they are asked for."""
        vectors = {"Q": self._vector("Q", self.row)} if "Q" in names else {}
        for name in ("K", "V"):
            for place, key in enumerate(self.keys if name in names else ()):
                vectors[f"{name}.{place}"] = self._vector(name, key)
        return vectors

    def _column(self, name: str) -> tuple[Number, ...]:
        return self.figures.row(name, self.row, self.keys)

    def attention(self) -> list[Scene]:
        """From scores to what is taken along."""
        scenes = [self._scores(), self._scale()]
        if "capped" in self.figures:
            line = spoken("cap", "A cap keeps every score within bounds.")
            scenes.append(self._scene("cap", "Cap", [line], {"capped": self._column("capped")}))
        return [*scenes, self._mask(), self._softmax(), self._mix()]

    def _scores(self) -> Scene:
        visible = [key for key in self.order if self.masked[key] > -math.inf]
        example = next((key for key in visible if key in self.finds), visible[0])
        product = self._product(example) if self.size <= WRITTEN_CELLS else None
        numbers = {"scores": self._column("scores"), "one": (self._entry("scores", example),)}
        whom = "its own key" if self._key_name(example) == "itself" else "the key of {key}"
        return self._scene(
            "score",
            "Scores",
            [
                spoken(
                    "compare",
                    "Query and key are multiplied, number by number, and the products are added.",
                ),
                product,
                spoken(
                    "one",
                    f"With {whom}, that comes to {{n}}.",
                    key=self._key_name(example),
                    n=numbers["one"][0],
                ),
                spoken("all", "In this way, each key gets its score."),
            ],
            numbers,
            "score = query · key",
        )

    def _product(self, key: int) -> Line:
        """A dot product worked out, with as few decimals as let it come out as it is said."""
        score = f"scores[{self.row}, {key}]"
        pairs = [(f"Q[{self.row}, {at}]", f"K[{key}, {at}]") for at in range(self.size)]
        for decimals in range(DECIMALS, MOST_DECIMALS + 1):
            rounded = sum(
                round(self.figures.value(q), decimals) * round(self.figures.value(k), decimals)
                for q, k in pairs
            )
            if round(rounded, decimals) == round(self.figures.value(score), decimals):
                break
        parts: dict[str, Number | str] = {"sum": self._number(score, decimals=decimals)}
        for at, (q, k) in enumerate(pairs):
            parts |= {f"q{at}": self._number(q, decimals=decimals)}
            parts |= {f"k{at}": self._number(k, decimals=decimals)}
        sums = ", plus ".join(f"{{q{at}}} times {{k{at}}}" for at in range(self.size))
        return spoken("product", f"{sums}, is {{sum}}.", 2, **parts)

    def _scale(self) -> Scene:
        usual = any("√" in step.formula for step in self.walk.steps if step.name == "scale")
        if usual:
            line = spoken(
                "divide",
                "Each score is divided by the square root of {d}, which is {root}.",
                d=self._number("columns(Q)", "count"),
                root=self._number("sqrt(columns(Q))"),
            )
        else:
            line = spoken("divide", "The model multiplies each score by a scale of its own.")
        why = spoken("why", "That keeps scores moderate, however many numbers a vector has.", 2)
        return self._scene(
            "scale",
            "Scale",
            [line, why if usual else None],
            {"scaled": self._column("scaled")},
            "score / √d" if usual else "score · scale",
        )

    def _mask(self) -> Scene:
        hidden = self._number("hidden(masked)", "count")
        numbers = {"masked": self._column("masked")}
        mine = [key for key in self.keys if self.masked[key] == -math.inf]
        lines = []
        if hidden.value:
            every = self._number("rows(masked) * columns(masked)", "count")
            what = "what comes later" if self.is_causal else "some of the keys"
            text = f"A mask hides {what}: {{n}} of the {{all}} scores become minus infinity."
            lines.append(spoken("hide", text, n=hidden, all=every))
            if mine:
                lines.append(
                    spoken(
                        "own",
                        "{word} cannot see {key}.",
                        2,
                        word=self.word,
                        key=quoted(self.sources, mine[0]),
                    )
                )
            else:
                lines.append(
                    spoken("own", "{word} can see all that is shown here.", 2, word=self.word)
                )
            if not self.is_cross:
                for place, key in enumerate(self.keys):
                    numbers[f"grid.{place}"] = self.figures.row("masked", key, self.keys)
                    numbers[f"before.{place}"] = self.figures.row("scaled", key, self.keys)
        else:
            seen = "the whole source" if self.is_cross else "all the others"
            lines.append(spoken("hide", f"There is no mask here: every token sees {seen}.", 2))
        return self._scene("mask", "Mask", lines, numbers, "hidden scores become −∞")

    def _shares(self) -> list[int]:
        """The keys whose shares are said, the strongest first."""
        strong = [key for key in self.order[:3] if self.weights[key] >= 0.05] or self.order[:1]
        return list(dict.fromkeys([*strong[:2], *self.finds[:2], *strong[2:]]))[:3]

    def _softmax(self, name: str = "softmax", brief: bool = False) -> Scene:
        parts: dict[str, Number | str] = {"word": self.word}
        phrases = []
        for place, key in enumerate(self._shares()):
            parts |= {f"p{place}": self._entry("weights", key), f"k{place}": self._key_name(key)}
            phrases.append(
                f"{{p{place}}} {'of its attention ' if place == 0 else ''}to {{k{place}}}"
            )
        lines = [
            None
            if brief
            else spoken(
                "softmax",
                "The softmax turns scores into shares, which add up to {all}.",
                all=self._number("1", "percent"),
            ),
            spoken("share", f"{{word}} gives {listing(phrases)}.", **parts),
        ]
        return self._scene(
            name, "Softmax", lines, self._with_rest(), "share = exp(score) / sum of all exp(score)"
        )

    def _with_rest(self) -> dict[str, tuple[Number, ...]]:
        numbers = {"weights": self._column("weights")}
        if self.rest:
            of = f"rest(weights, {self.row}, {list(self.keys)})"
            numbers["rest"] = (self._number(of, "percent"),)
        return numbers

    def _mix(self, brief: bool = False) -> Scene:
        context = self._vector("context", self.row)
        parts = {f"n{place}": number for place, number in enumerate(context[:2])}
        whole = len(self.figures.matrices["context"].values[0]) <= 2
        phrases = " and ".join(f"{{{name}}}" for name in parts)
        lines = [
            None if brief else spoken("take", "Now each value is taken by its share.", 2),
            spoken("sum", "Added up, they are what {word} takes along.", word=self.word),
            spoken(
                "numbers",
                f"{'It is' if whole else 'It begins with'} {phrases}.",
                2 if not brief else 3,
                **parts,
            ),
        ]
        numbers = self._with_rest() | self._vectors_of("V") | {"context": context}
        return self._scene("mix", "Values, mixed", lines, numbers, "result = sum of share · value")

    def again(self, title: str = "Another query") -> list[Scene]:
        """The same, more briefly, for who has seen it once."""
        numbers = {"masked": self._column("masked")} | self._vectors_of("QKV")
        lines = [
            spoken("asks", "The query of {word} meets every key.", word=self.word),
            spoken("scores", "Each key gets a score."),
        ]
        ask = self._scene("again", title, lines, numbers, "score = query · key / √d")
        return [ask, self._softmax(brief=True), self._mix(brief=True)]

    def end(self) -> Scene:
        """What came of it: the word that has most part in it, if there is one."""
        others = [key for key in self.order if key != self.row or self.is_cross]
        words = [key for key in others if is_word(self.sources[key])]
        best = next(iter([*words, *others, *self.order]))
        text = "That is attention: {n} of what {word} takes along comes from {key}."
        share, key = self._entry("weights", best), quoted(self.sources, best)
        lines = [
            spoken("end", text, word=self.word, key=key, n=share),
            spoken("every", "Every token does this at once, in every head of every layer.", 2),
        ]
        every = tuple(range(len(self.sources)))
        numbers = {"weights": self.figures.row("weights", self.row, every)}
        return self._scene("end", "", lines, numbers)
