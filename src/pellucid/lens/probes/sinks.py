"""An ordinary text, and how much of the attention its first token takes."""

from random import Random

import torch

from pellucid.lens.probes import phrases
from pellucid.lens.probes.experiments import Experiment, Trial
from pellucid.lens.probes.repeated_tokens import following, links_of
from pellucid.lens.probes.vocabulary import Vocabulary


def first_token(vocabulary: Vocabulary, length: int, texts: int, seed: int) -> Experiment:
    """Sentences; or, without a tokenizer, random tokens.

    first token: from each other token to the first, an attention sink.

    There is no control, since every text has a first token.

    Source: Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks", section 3.

    Args:
        vocabulary: with a tokenizer or without.
        length: the most tokens of a text, marks included.
        texts: the number of texts.
        seed: of the random words.
    """
    if vocabulary.tokenizer is None:
        generator = torch.Generator().manual_seed(seed)
        plain = vocabulary.plain
        ids = plain[torch.randint(len(plain), (texts, length), generator=generator)]
    else:
        random = Random(seed)
        written = []
        for _ in range(texts):
            text = [*vocabulary.start, *vocabulary.text(phrases.sentence(random))]
            while len(text) < length:
                text += vocabulary.following(phrases.sentence(random))
            written.append(text[:length])
        ids = torch.tensor(written)
    positions = torch.arange(1, length)
    links = {"first token": links_of(texts, positions, torch.zeros_like(positions))}
    trial = Trial(ids=ids, links=links, predicted=following(ids, 1))
    return Experiment(
        behaviour="log-probability of the text, in nats per token",
        trials=[trial],
        in_every_text=frozenset({"first token"}),
    )
