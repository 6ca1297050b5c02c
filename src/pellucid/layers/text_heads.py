"""The embedding and the labels of a text, from the encodings of its tokens.

    embedding = activation(dense(pooled)) / its length
    scores = output(norm(activation(hidden(pooled))))

The first as in sentence-transformers (Reimers and Gurevych 2019), the second as in BERT (Devlin et
al. 2019, section 4.1), where the first token stands for the text. Each part is there if the config
says so.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.layers.config import Config
from pellucid.layers.feed_forward import ACTIVATIONS
from pellucid.layers.norms import norm
from pellucid.layers.pooling import pooled

HEAD_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **ACTIVATIONS,
    "tanh": torch.tanh,
    "none": lambda x: x,
}


def dense_layers(config: Config) -> nn.ModuleList:
    """The linear layers on the embedding of a text."""
    layers, width = nn.ModuleList(), len(config.poolings) * config.width
    for shape in config.dense:
        layers.append(nn.Linear(width, shape.width, shape.bias))
        width = shape.width
    return layers


def embeddings(
    config: Config, dense: nn.ModuleList, x: Tensor, lengths: Tensor, skipped: int = 0
) -> Tensor:
    """Embeddings of texts, (texts, numbers).

    Args:
        config: of the encoder.
        dense: what `dense_layers` made of it.
        x: the encodings of texts one after the other, (tokens, width).
        lengths: of the texts, (texts,).
        skipped: tokens at the start of each text that are left out.
    """
    vectors = [pooled(x, lengths, how, skipped) for how in config.poolings]
    vector = vectors[0] if len(vectors) == 1 else torch.cat(vectors, -1)
    for layer, shape in zip(dense, config.dense, strict=True):
        vector = HEAD_ACTIVATIONS[shape.activation](layer(vector))
    if config.normalised:
        vector = F.normalize(vector, dim=-1)
    return vector if config.truncated is None else vector[:, : config.truncated]


class Classifier(nn.Module):
    """Scores the labels of texts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        shape = config.classifier
        assert shape is not None
        self.shape, width = shape, config.width
        self.hidden = nn.Linear(width, width, shape.hidden_bias) if shape.hidden else None
        self.norm = norm(config) if shape.norm else None
        self.output = nn.Linear(width, len(shape.labels), shape.bias)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Scores, (texts, labels).

        Args:
            x: the encodings of texts one after the other, (tokens, width).
            lengths: of the texts, (texts,).
        """
        if not self.shape.late:
            x = pooled(x, lengths, self.shape.pooling)
        if self.hidden is not None:
            x = HEAD_ACTIVATIONS[self.shape.activation](self.hidden(x))
        if self.norm is not None:
            x = self.norm(x)
        scores: Tensor = self.output(x)
        return pooled(scores, lengths, self.shape.pooling) if self.shape.late else scores
