"""Attention that is trained on: a translator by itself, guided, and focused.

    python recipes/guided_attention.py

A toy language is translated by a dictionary: adjectives go behind their nouns, a verb becomes two
words, and an article none. So it is known which source word each target word was made of. Three
models of the same start learn from the same pairs:

    plain      what comes next, and nothing else
    guided     and where one head of cross-attention shall look (Garg et al. 2019)
    focused    and to look at some two words at a time: an entropy of ln(2) in all these heads

Printed are, before and after, of pairs that they did not learn from: the loss; the entropy of the
layer that is guided; and the alignment error rate, of the guided head and of the best head of any
layer: 1 - (|A & S| + |A & P|) / (|A| + |S|), where all links are sure, S = P (Och and Ney 2003, "A
Systematic Comparison of Various Statistical Alignment Models"). A links each target word to the
source word that gets most of its attention.
"""

import math
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

import pellucid
from pellucid.models import Config, EncoderDecoder
from pellucid.training.attention_losses import end_to_end, entropy_loss, guided_loss
from pellucid.training.loop import optimiser
from pellucid.training.objectives import Part, Translation
from pellucid.training.sequences import Sequences
from pellucid.training.settings import Settings

END, ARTICLES, NOUNS, ADJECTIVES, VERBS = 0, 2, 20, 10, 10
WORDS = 1 + ARTICLES + NOUNS + ADJECTIVES + VERBS
VOCABULARY = WORDS + NOUNS + ADJECTIVES + 2 * VERBS
"""Source words, and then those of the target: one a noun or adjective, two a verb."""
PAIRS, HELD_OUT, STEPS, LAYERS, HEADS = 4000, 200, 400, 2, 4
CROSS = "decoder.blocks.0.cross"
GUIDED, FOCUS = 0, math.log(2)

Pair = tuple[list[int], list[int], list[tuple[int, int]]]
"""Source, target, and links of a target and a source position."""


def pair(generator: np.random.Generator) -> Pair:
    """A sentence of noun phrases with verbs between them, and its translation."""

    def one_of(first: int, count: int) -> int:
        return first + int(generator.integers(count))

    noun, adjective = 1 + ARTICLES, 1 + ARTICLES + NOUNS
    verb = adjective + ADJECTIVES
    source: list[int] = []
    target: list[int] = []
    links: list[tuple[int, int]] = []

    def say(word: int, at: int) -> None:
        links.append((len(target), at))
        target.append(word)

    for phrase in range(generator.integers(2, 5)):
        if phrase:
            source.append(one_of(verb, VERBS))
            second = WORDS + NOUNS + ADJECTIVES + 2 * (source[-1] - verb)
            say(second, len(source) - 1)
            say(second + 1, len(source) - 1)
        source.append(one_of(1, ARTICLES))
        adjectives = [one_of(adjective, ADJECTIVES) for _ in range(generator.integers(3))]
        source += [*adjectives, one_of(noun, NOUNS)]
        for at in range(len(source) - 1, len(source) - 2 - len(adjectives), -1):
            say(WORDS + source[at] - noun, at)
    return [*source, END], [*target, END], links


class Toy(Translation):
    """What every model learns: the next target word."""

    def __init__(self, directory: Path) -> None:
        """Write the pairs, which are the same each time, as are the model's first weights."""
        generator = np.random.default_rng(0)
        both = []
        self.alignments = []
        for name, count in (("learnt", PAIRS), ("held-out", HELD_OUT)):
            pairs = [pair(generator) for _ in range(count)]
            both.append(
                (
                    Sequences.build(
                        directory / name / "source", [x for x, _, _ in pairs], VOCABULARY
                    ),
                    Sequences.build(
                        directory / name / "target", [x for _, x, _ in pairs], VOCABULARY
                    ),
                )
            )
            self.alignments.append([torch.tensor(links) for _, _, links in pairs])
        torch.manual_seed(0)
        config = Config(
            kind="encoder-decoder",
            vocabulary=VOCABULARY,
            width=64,
            layers=LAYERS,
            heads=HEADS,
            hidden=128,
            norm_first=True,
            position="rotary",
            start=END,
            stop=(END,),
        )
        super().__init__(EncoderDecoder(config), both[0], both[1], batch_tokens=1024)

    def links(self, part: Part) -> Tensor:
        """The alignments of pairs that lie end to end, as `forward` reads them."""
        sources, targets = (texts.lengths[part].tolist() for texts in self.pairs)
        return end_to_end([self.alignments[0][number] for number in part], targets, sources)


class Guided(Toy):
    """And where one head shall look."""

    def forward(self, part: Part) -> Tensor:
        with pellucid.watch(self.model, layers=[CROSS]) as seen:
            loss = super().forward(part)
        guide = guided_loss(seen[CROSS], self.links(part), heads=GUIDED, reduction="sum")
        return loss + 0.5 * guide


class Focused(Toy):
    """And how widely to look."""

    def forward(self, part: Part) -> Tensor:
        with pellucid.watch(self.model, layers=[CROSS]) as seen:
            loss = super().forward(part)
        return loss + 0.5 * entropy_loss(seen[CROSS], target=FOCUS, reduction="sum")


def error_rates(made: Toy) -> tuple[Tensor, float]:
    """The alignment error rate of each head on held-out pairs, (layers, heads), and the mean
    entropy of the guided layer in nats.
    """
    found, words, entropy = torch.zeros(LAYERS, HEADS), 0, 0.0
    for number, links in enumerate(made.alignments[1]):
        source, target = (texts[number][None] for texts in made.held_out)
        read = torch.cat([torch.tensor([[END]]), target[:, :-1]], 1)
        with pellucid.watch(made.model, layers=["decoder.*.cross"]) as seen, torch.no_grad():
            made.model(source, read)
            # Row i writes word i; the last row, which ends the text, is linked to nothing.
            strongest = [record.weights.top(1).indices[0, :, :-1, 0] for record in seen.records]
            entropy += float(entropy_loss(seen[CROSS])) / HELD_OUT
        found += (torch.stack(strongest) == links[:, 1]).sum(-1)
        words += len(links)
    return 1 - 2 * found / (words + words), entropy  # as many in A as in S, one a target word


def trained(made: Toy) -> None:
    settings = Settings(steps=STEPS, learning_rate=6e-3)
    adam = optimiser(made, settings)
    made.train()
    for step in range(STEPS):
        part = made.batch(step)
        for group in adam.param_groups:
            group["lr"] = settings.rate(step)
        (made(part) / made.targets(part)).backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), settings.clip)
        adam.step()
        adam.zero_grad()
    made.eval()


def row(name: str, made: Toy) -> str:
    (errors, entropy), measures = error_rates(made.eval()), made.measure()
    return (
        f"{name:<16}{measures['loss']:>6.3f}{entropy:>9.2f}"
        f"{float(errors[0, GUIDED]):>12.1%}{float(errors.min()):>12.1%}"
    )


def main() -> None:
    print(f"{'':<16}{'loss':>6}{'entropy':>9}{f'AER head {GUIDED}':>12}{'best head':>12}")
    with tempfile.TemporaryDirectory() as directory:
        for name, kind in (("plain", Toy), ("guided", Guided), ("focused", Focused)):
            made = kind(Path(directory) / name)
            if kind is Toy:
                print(row("before", made))
            start = perf_counter()
            trained(made)
            print(row(name, made), f"  {perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
