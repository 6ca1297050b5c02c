"""The labels of a text, from the encodings of its tokens.

    scores = output(norm(activation(hidden(pooled))))

as in BERT (Devlin et al. 2019, section 4.1), where the first token stands for the text. The
hidden layer and the norm are there if the config says so.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.layers.block import ACTIVATIONS
from pellucid.layers.config import Config
from pellucid.layers.norms import norm
from pellucid.layers.pooling import pooled

HEAD_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **ACTIVATIONS,
    "tanh": torch.tanh,
    "none": lambda x: x,
}


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
