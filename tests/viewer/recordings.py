"""Small recordings to look at, each size another prime."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory

import torch

import pellucid
from pellucid import pretrained
from pellucid.attention import masks
from pellucid.lens.pieces import Pieces
from pellucid.lens.record import Record
from pellucid.lens.recording import Recording
from pellucid.lens.visibility import Visibility
from pellucid.models import Config, Encoder, EncoderDecoder
from pellucid.viewer.catalogue import Volume
from pellucid.viewer.generated import recorded_generation
from tests import writers

TOKENS, SOURCE, TARGET, LONG, NEW = 61, 23, 19, 1009, 17
HEADS, LAYERS = 3, 2
LARGEST = 32
"""No score of what is recorded here is larger, scaled."""
ROUNDING = 8 * 2**-23 * (1 + LARGEST)
"""By what share of it a weight in float32 may differ where it is found in two ways: what a score is
off by, its weight is off by as a share, and the last bits of a score are the processor's."""
WORDS = ("the", " king", " sent", " his", " servant", " to", " a", " city", ",", " and", "\n")


class Spelling:
    """As much of a tokenizer as a recording asks."""

    all_special_ids = ()

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        spelt = (self._words[number % len(self._words)] for number in ids)
        return [word.replace(" ", "Ġ").replace("\n", "Ċ") for word in spelt]


def decoder() -> Recording:
    """A decoder of random weights that reads words, line breaks and letters in several parts."""
    model = writers.writer()
    tokenizer = model.tokenizer.inner
    ids = torch.tensor(tokenizer.encode(writers.TEXT).ids[:TOKENS])[None]
    spelling = Spelling([tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())])
    with torch.no_grad(), pellucid.watch(model, tokenizer=spelling) as seen:
        model(ids)
    return seen


def encoder() -> Recording:
    """One in which each token sees all others."""
    torch.manual_seed(3)
    sizes = {"vocabulary": 101, "width": 30, "layers": LAYERS, "heads": HEADS, "hidden": 37}
    model = Encoder(Config(kind="encoder", **sizes)).eval()
    with torch.no_grad(), pellucid.watch(model, tokenizer=Spelling(WORDS)) as seen:
        model(torch.randint(101, (1, SOURCE)))
    return seen


def batch() -> Recording:
    """Two texts of one batch."""
    torch.manual_seed(7)
    sizes = {"vocabulary": 101, "width": 30, "layers": 1, "heads": HEADS, "hidden": 37}
    model = Encoder(Config(kind="encoder", **sizes)).eval()
    with torch.no_grad(), pellucid.watch(model, tokenizer=Spelling(WORDS)) as seen:
        model(torch.randint(101, (2, 11)))
    return seen


def both() -> Recording:
    """An encoder-decoder: attention within the source, within the target, and across."""
    torch.manual_seed(5)
    sizes = {"vocabulary": 101, "width": 30, "layers": LAYERS, "heads": HEADS, "hidden": 37}
    model = EncoderDecoder(Config(kind="encoder-decoder", **sizes)).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    ids = torch.randint(101, (1, SOURCE + TARGET))
    with torch.no_grad(), pellucid.watch(model, tokenizer=Spelling(WORDS)) as seen:
        model(ids[:, :SOURCE], ids[:, SOURCE:])
    return seen


def written() -> Volume:
    """What a decoder of random weights writes."""
    with TemporaryDirectory() as directory:
        writers.writer(seed=1).save(directory)  # which does not repeat itself
        return recorded_generation("Once upon a time", "", directory, None, NEW, lambda *_: None)


def translated() -> Volume:
    """A translation, of which the model says itself which head tells where words come from."""
    text, model = "The king sent his servant to the city.", str(pretrained.TRANSLATOR)
    return recorded_generation(text, text, model, None, 47, lambda *_: None)


def made(tokens: int = LONG, layers: int = LAYERS, heads: int = HEADS, dim: int = 7) -> Recording:
    """Causal attention over as many words as wished, without a model."""
    draw = torch.Generator().manual_seed(tokens)
    ids = torch.randint(len(WORDS), (1, tokens), generator=draw)

    def pieces() -> Pieces:
        return Pieces(torch.randn(1, heads, tokens, dim, generator=draw))

    records = [
        Record(
            name=f"layers.{layer}.attention",
            queries=pieces(),
            keys=pieces(),
            visibility=Visibility(masks.causal(), None, (tokens, tokens), torch.device("cpu")),
            query_tokens=Pieces(ids, -1),
            key_tokens=Pieces(ids, -1),
            latest_queries=tokens,
        )
        for layer in range(layers)
    ]
    return Recording("Model", records, tokenizer=Spelling(WORDS))


def recording(layers: int = 2, items: int = 2, heads: int = 3, tokens: int = 53) -> Recording:
    """Layers of torch, without a tokenizer."""
    model = torch.nn.ModuleList(
        torch.nn.TransformerEncoderLayer(12, heads, 17, batch_first=True) for _ in range(layers)
    ).eval()
    torch.manual_seed(0)
    with torch.no_grad(), pellucid.watch(model) as seen:
        x = torch.randn(items, tokens, 12)
        for layer in model:
            x = layer(x)
    return seen
