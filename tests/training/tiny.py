"""Small models and texts to train on."""

import numpy as np
import pytest
import torch

from pellucid.models import Config, Decoder, Encoder, EncoderDecoder
from pellucid.training import loop
from pellucid.training.objectives import (
    Classification,
    Contrastive,
    Masked,
    NextToken,
    Translation,
)
from pellucid.training.report import Report
from pellucid.training.sequences import Sequences
from pellucid.training.settings import Settings

VOCABULARY, WIDTH, CONTEXT, END, MASK = 37, 24, 13, 0, 1


def some_texts(directory, count=17, seed=0, longest=11, ends=True):
    """Texts of several lengths that end (or begin) in the mark."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, longest, count)
    texts = [generator.integers(2, VOCABULARY, length).tolist() for length in lengths]
    marked = [[*text, END] if ends else [END, *text] for text in texts]
    return Sequences.build(directory, marked, VOCABULARY, size=sum(3 * len(one) for one in texts))


def config(kind, **options):
    plain = {
        "vocabulary": VOCABULARY,
        "width": WIDTH,
        "layers": 2,
        "heads": 3,
        "hidden": 29,
        "norm_first": True,
        "position": "rotary",
        "positions": CONTEXT,
        "start": END,
        "stop": (END,),
    }
    return Config(kind=kind, **(plain | options))


def objective(kind, directory, batch_tokens=53, seed=0, **options):
    """Of each kind, with a model whose random start is that of its seed."""
    torch.manual_seed(seed)
    rest = {"batch_tokens": batch_tokens}
    if kind == "decoder":
        texts = some_texts(directory / "a", ends=False)
        return NextToken(Decoder(config("decoder", **options)), texts, texts, **rest)
    if kind in ("translator", "guided"):
        pairs = some_texts(directory / "a"), some_texts(directory / "b", seed=1)
        if kind == "guided":  # each word to the first two, in turns
            rest |= {"links": np.arange(len(pairs[1].ids)) % 2, "guidance": 0.3}
        return Translation(
            EncoderDecoder(config("encoder-decoder", **options)), pairs, pairs, **rest
        )
    model = Encoder(config("encoder", **options))
    texts = some_texts(directory / "a")
    if kind == "masked":
        return Masked(model, texts, texts, mask=MASK, **rest)
    if kind == "contrastive":
        pairs = texts, some_texts(directory / "b", seed=1)
        return Contrastive(model, pairs, pairs, **rest)
    labels = np.arange(len(texts)) % 3
    names = ("a", "b", "c")
    return Classification(model, texts, labels, (texts, labels), names, **rest)


KINDS = ("decoder", "translator", "masked", "contrastive", "classifier", "guided")


def kinds(*fast):
    """All kinds, as parameters; what is not among the fast ones is left to `make slow`."""
    assert set(fast) <= set(KINDS)
    return [one if one in fast else pytest.param(one, marks=pytest.mark.slow) for one in KINDS]


STEPS = 6


def trainer(kind, directory, *, model=None, **changes):
    wanted = {"steps": STEPS, "batch_tokens": 53, "part_tokens": 31, "evaluate_every": 3}
    wanted |= {"save_every": 4, "seed": 11, "average": 0.9, "precision": "float32"}
    settings = Settings(**(wanted | changes))
    (directory / "training").mkdir(parents=True, exist_ok=True)
    report = Report(directory / "training", settings.steps, settings.batch_tokens)
    made = objective(kind, directory / "data", **({"dropout": 0.1, "layers": 1} | (model or {})))
    return loop.Trainer(made, settings, directory / "training", report)


def weights(one):
    return {name: tensor.detach().clone() for name, tensor in one.objective.state_dict().items()}
