"""Three transformers on one block: encoder-only, decoder-only, encoder-decoder.

    Encoder         ids -> a contextual embedding of each token
    Decoder         ids -> logits of the next token, at every position
    EncoderDecoder  source ids, target ids -> logits of the next target token

No code here depends on a family: all differences are in `Config`.
"""

from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from pellucid.attention import forking, masks
from pellucid.errors import ArgumentError
from pellucid.layers import int8
from pellucid.layers.cache import Cache
from pellucid.layers.config import Config, Kind
from pellucid.layers.feed_forward import StackedLinear
from pellucid.layers.fusible import is_plain
from pellucid.layers.matrix_vector import linear
from pellucid.layers.packed_linear import PackedEmbedding, PackedLinear
from pellucid.layers.text_heads import Classifier, dense_layers, embeddings
from pellucid.models.checkpoints import writing
from pellucid.models.checkpoints.generation import Generation
from pellucid.models.checkpoints.pooling import Prompts
from pellucid.models.input_ids import check_ids
from pellucid.models.stack import Stack
from pellucid.text.tokenizer import Tokenizer


class Transformer(nn.Module):
    """The base class of the three models."""

    kind: Kind

    def __init__(self, config: Config) -> None:
        """Build the model with random weights.

        Raises:
            ArgumentError: the config is that of another kind of model.
        """
        super().__init__()
        if config.kind != self.kind:
            raise ArgumentError(f"config is of an {config.kind}, not of an {self.kind}")
        self.config = config
        self.tokenizer: Tokenizer | None = None
        """The checkpoint's tokenizer, if it has one."""
        self.generation = Generation()
        """The checkpoint's generation settings."""

    def initialise(self) -> None:
        """Initialise the weights at random: normal with standard deviation 0.02, scaled down in
        residual projections (Radford et al. 2019, "GPT-2", section 2.3); biases 0, norms 1.
        """
        for name, module in self.named_modules():
            is_matrix = isinstance(module, nn.Linear | nn.Embedding | StackedLinear)
            if is_matrix and not module.weight.is_meta:
                is_last = name.endswith((".output", ".down", ".downs"))
                blocks = self.config.layers if is_last else 0.5
                nn.init.normal_(module.weight, std=0.02 / (2 * blocks) ** 0.5)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def share(self) -> None:
        """Tie the parameters that several modules share."""
        for part in self.modules():
            if isinstance(part, Stack):
                part.share()

    @property
    def device(self) -> torch.device:
        return _some_floats(self).device

    def to_int8(self) -> Self:
        """Quantise the weights to int8, in place: a quarter of the memory of float32, and faster
        decoding where memory bandwidth limits it. The model can then be neither trained nor saved.
        """
        int8.quantise(self)
        return self.eval()

    def save(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Write the model for `pellucid.load` and, if a family has its architecture, transformers.

        Args:
            directory: created if it does not exist.
            overwrite: whether to replace a model in the directory.

        Raises:
            ExistsError: the directory has a model, and overwrite is false.
            FileError: the directory cannot be written to, or has a tokenizer though the model has
                none.
            ArgumentError: the model is quantised to int8, or packed.
        """
        if any(isinstance(module, int8.Int8Linear) for module in self.modules()):
            raise ArgumentError("a model in int8 cannot be saved; save it before to_int8()")
        if any(isinstance(module, PackedLinear) for module in self.modules()):
            raise ArgumentError("a packed model cannot be saved; load it without packed=True")
        writing.save(self, Path(directory), overwrite)

    def __call__(self, *args: Any, watch: bool = False, **options: Any) -> Any:
        """As `forward`; with watch=True, also record all attention: (output, recording)."""
        forking.go_alone()
        if not watch:
            return super().__call__(*args, **options)
        from pellucid.lens import watch as watched

        with watched(self) as recording:
            output = super().__call__(*args, **options)
        return output, recording


class Encoder(Transformer):
    """A bidirectional encoder: contextual embeddings (Devlin et al. 2019, "BERT")."""

    kind = "encoder"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.encoder = Stack(config, causal=config.causal, layers=config.layers)
        self.dense = dense_layers(config)
        self.prompts = Prompts()
        """The checkpoint's prompts."""
        self.classifier = None if config.classifier is None else Classifier(config)
        self.initialise()

    def forward(
        self,
        ids: Tensor,
        mask: masks.Mask | Tensor | None = None,
        *,
        positions: Tensor | None = None,
        types: Tensor | None = None,
    ) -> Tensor:
        """Contextual embeddings, (batch, tokens, width).

        Args:
            ids: token ids, (batch, tokens).
            mask: `masks.padding(lengths)` for a padded batch, `masks.documents(...)` for packed
                texts, or a bool tensor that broadcasts to (batch, heads, tokens, tokens).
            positions: (batch or 1, tokens); they restart with each packed text.
            types: segment types, (batch, tokens), for models that have them.

        Raises:
            ShapeError, TypeMismatchError, OutOfRangeError: the ids have the wrong shape or dtype,
                or are not in the vocabulary.
        """
        check_ids("ids", ids, self.config)
        x: Tensor = self.encoder(ids, mask=mask, positions=positions, types=types)
        return x

    def embeddings(self, x: Tensor, lengths: Tensor, skipped: int = 0) -> Tensor:
        """Embeddings of texts, (texts, numbers), as the config describes them.

        Args:
            x: the contextual embeddings of texts one after the other, (tokens, width).
            lengths: of the texts in tokens, (texts,).
            skipped: tokens at the start of each text that are left out.
        """
        return embeddings(self.config, self.dense, x, lengths, skipped)

    def logits(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Scores of the labels, (texts, labels), before softmax or sigmoid.

        Args:
            x: the contextual embeddings of texts one after the other, (tokens, width).
            lengths: of the texts in tokens, (texts,).

        Raises:
            ArgumentError: the model has no classifier.
        """
        if self.classifier is None:
            raise ArgumentError("the model has no classifier")
        logits: Tensor = self.classifier(x, lengths)
        return logits


class _LanguageModel(Transformer):
    """A model with a language-modelling head."""

    head: nn.Linear | None
    bias: nn.Parameter | None
    decoder: Stack

    def _add_head(self, config: Config) -> None:
        self.head = None if config.tied else nn.Linear(config.width, config.vocabulary, False)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary)) if config.logit_bias else None

    def logits(self, x: Tensor) -> Tensor:
        """Logits, (..., vocabulary), of hidden states, (..., width)."""
        if self.config.logit_scale != 1:
            x = x * self.config.logit_scale
        head = self.decoder.tokens if self.head is None else self.head
        if self.head is not None and not is_plain(self.head):  # it has hooks, or is replaced
            logits: Tensor = self.head(x)
            logits = logits if self.bias is None else logits + self.bias
        elif isinstance(head, PackedEmbedding | PackedLinear):
            logits = head.times(x, self.bias)
        else:
            logits = linear(x, head.weight, self.bias, getattr(head, "scale", None))
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for `batch` texts of at most `capacity` tokens."""
        return Cache(self.config, batch, capacity, _some_floats(self.decoder))


class Decoder(_LanguageModel):
    """A causal language model: it predicts the next token (Radford et al. 2019, "GPT-2")."""

    kind = "decoder"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.decoder = Stack(config, causal=True, layers=config.layers)
        self._add_head(config)
        self.initialise()

    def forward(
        self,
        ids: Tensor,
        mask: masks.Mask | Tensor | None = None,
        *,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        lengths: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """Logits of each next token, (batch, tokens, vocabulary).

        Args:
            ids: token ids, (batch, tokens), padded on the right.
            mask: combined with the causal mask, such as documents; padding needs none.
            positions: (batch or 1, tokens); consecutive by default.
            cache: the KV cache of earlier tokens; these tokens are added to it.
            lengths: with a cache, the number of ids of each text without padding, (batch,).
            last: return the logits of each text's last token only, (batch, vocabulary).

        Raises:
            ShapeError, TypeMismatchError, OutOfRangeError: the ids have the wrong shape or dtype,
                or are not in the vocabulary.
        """
        check_ids("ids", ids, self.config)
        x = self.decoder(
            ids, mask=mask, positions=positions, cache=cache, lengths=lengths, last=last
        )
        return self.logits(x.squeeze(1) if last else x)


class EncoderDecoder(_LanguageModel):
    """A decoder with cross-attention to an encoder of the source (Vaswani et al. 2017)."""

    kind = "encoder-decoder"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        layers = config.layers if config.decoder_layers is None else config.decoder_layers
        self.encoder = Stack(config, causal=False, layers=config.layers)
        self.decoder = Stack(config, causal=True, layers=layers, cross=True)
        self.share()
        self._add_head(config)
        self.initialise()

    def share(self) -> None:
        super().share()
        self.decoder.tokens = self.encoder.tokens  # one vocabulary for both

    @property
    def alignment_heads(self) -> list[tuple[str, int]]:
        """The module and the number of each head that its generation config names for alignment."""
        named = self.generation.alignment_heads or ()
        return [(f"decoder.blocks.{layer}.cross", head) for layer, head in named]

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_mask: masks.Mask | Tensor | None = None,
        target_mask: masks.Mask | Tensor | None = None,
    ) -> Tensor:
        """Logits of each next target token, (batch, target tokens, vocabulary).

        Args:
            source: ids, (batch, source tokens).
            target: ids, (batch, target tokens), starting with `config.start`.
            source_mask: the mask of the source, such as `masks.padding(lengths)`.
            target_mask: the mask of the target; padding on the right needs none.

        Raises:
            ShapeError, TypeMismatchError, OutOfRangeError: the ids have the wrong shape or dtype,
                or are not in the vocabulary.
        """
        memory = self.encode(source, source_mask)
        return self.decode(target, memory, source_mask, target_mask)

    def encode(self, source: Tensor, mask: masks.Mask | Tensor | None = None) -> Tensor:
        """The encoder's output (the memory), (batch, source tokens, width)."""
        check_ids("source", source, self.config)
        x: Tensor = self.encoder(source, mask=mask)
        return x

    def decode(
        self,
        target: Tensor,
        memory: Tensor,
        source_mask: masks.Mask | Tensor | None = None,
        target_mask: masks.Mask | Tensor | None = None,
        *,
        cache: Cache | None = None,
        last: bool = False,
    ) -> Tensor:
        """Logits for target ids, as `forward`; with a cache, the ids continue those before."""
        check_ids("target", target, self.config)
        x = self.decoder(
            target,
            mask=target_mask,
            memory=memory,
            memory_mask=source_mask,
            cache=cache,
            last=last,
        )
        return self.logits(x.squeeze(1) if last else x)


KINDS: dict[Kind, type[Encoder | Decoder | EncoderDecoder]] = {
    model.kind: model for model in (Encoder, Decoder, EncoderDecoder)
}


def _some_floats(module: nn.Module) -> Tensor:
    """A parameter or, in int8, where all weights may be buffers, one of those."""
    tensors = chain(module.parameters(), module.buffers())
    return next(tensor for tensor in tensors if tensor.is_floating_point())
