"""The architecture of a transformer, as choices that know no model family."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.layers.head_configs import ClassifierConfig, DenseConfig

Kind = Literal["encoder", "decoder", "encoder-decoder"]
Norm = Literal["layer", "rms"]
Activation = Literal["relu", "relu_squared", "gelu", "gelu_tanh", "quick_gelu", "silu"]
Position = Literal["sinusoidal", "learned", "rotary", "relative", "alibi", "none"]
HeadNorm = Literal["shared", "own", "joint"]
BranchNorms = Literal["before", "after", "both"]
Pairs = Literal["halves", "neighbours"]
Pooling = Literal["first", "last", "mean", "root_mean", "weighted_mean", "max"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shape of a model. The defaults are those of Vaswani et al. 2017, the base model.

    Raises:
        ArgumentError: sizes that do not fit together, or an unknown choice.
        TypeMismatchError: a value of another type than the field's.
    """

    kind: Kind
    vocabulary: int
    width: int = 512
    """d_model, the width of a token between the blocks."""
    layers: int = 6
    """Blocks of the encoder or of the decoder; of an encoder-decoder, of the encoder."""
    decoder_layers: int | None = None
    """Of an encoder-decoder; as many as `layers` unless given."""
    heads: int = 8
    kv_heads: int | None = None
    """Key and value heads, a divisor of `heads` (Ainslie et al. 2023, "GQA"); as many as heads
    unless given."""
    head_dim: int | None = None
    """width // heads unless given."""
    hidden: int = 2048
    """Width inside the feed-forward part."""
    norm: Norm = "layer"
    norm_eps: float = 1e-5
    norm_weight: bool = True
    """Whether norms have trained weights; without, they have no biases either (OLMo)."""
    norm_bias: bool = True
    """Whether layer norms have biases; RMS norms have none."""
    norm_offset: bool = False
    """Whether norms multiply by 1 + weight (Gemma)."""
    norm_first: bool = False
    """Norms before each part and one at the end (Xiong et al. 2020), or after each residual sum."""
    branch_norms: BranchNorms = "before"
    """With norm_first, what is normalised: the input of each part, its output before it is added
    (OLMo 2), or both (Gemma 2)."""
    first_norm: bool = True
    """With norm_first, whether the first block normalises the input of its attention, which an
    embedding_norm may do already (ModernBERT)."""
    parallel: bool = False
    """Whether attention and the feed-forward part read the same input (Wang and Komatsuzaki 2021,
    "GPT-J")."""
    shared_norm: bool = False
    """With parallel, whether one norm serves both."""
    residual_scale: float = 1.0
    """Multiplies the output of each part before it is added (Granite)."""
    embedding_norm: bool = False
    head_norm: bool = False
    """Whether queries and keys are normalised in each head (Qwen 3)."""
    head_norm_kind: HeadNorm = "shared"
    """Whether the heads share the weights of that norm (Qwen 3), have weights of their own without
    biases (StableLM), or are normalised as one vector (OLMo 2)."""
    activation: Activation = "relu"
    gated: bool = False
    """Whether the feed-forward part is multiplied by a gate: SwiGLU with "silu" (Shazeer 2020)."""
    feed_clamp: float | None = None
    """Bounds the gate from above, and what it multiplies on both sides (gpt-oss)."""
    up_offset: float = 0.0
    """Added to what the gate multiplies (1 in gpt-oss)."""
    experts: int = 0
    """Feed-forward parts of a block, of which each token uses a few (Shazeer et al. 2017); 0 = one
    part that all tokens use."""
    experts_used: int = 2
    """How many experts a token uses."""
    experts_normalised: bool = True
    """Whether their weights sum to 1."""
    expert_hidden: int | None = None
    """Width inside an expert; as `hidden` unless given."""
    shared_hidden: int = 0
    """Width inside a part that all tokens use besides their experts; 0 = none (Qwen2-MoE)."""
    dense_layers: tuple[int, ...] = ()
    """The layers without experts, from 0."""
    bias: bool = True
    """Of the linear layers, unless one of the next three is given."""
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    """Of the projection after attention."""
    hidden_bias: bool | None = None
    """Of the first layer of the feed-forward part, and its gate."""
    position: Position = "sinusoidal"
    positions: int | None = 512
    """The most tokens; None = no limit, where the scheme has none."""
    position_offset: int = 0
    """Rows of a learned table before that of the first token (2 in RoBERTa and BART), or the
    position of the first token in sines (2 in M2M-100)."""
    interleaved: bool = True
    """Sine and cosine alternate, as in the paper; or all sines come first (Marian)."""
    inclusive: bool = False
    """Whether the longest sine has a wavelength of 10,000 * 2 pi (M2M-100); in the paper's formula
    that would be the next."""
    rope_theta: float = 10_000.0
    rope_scaling: tuple[tuple[str, Any], ...] = ()
    """Scaling of rotary frequencies: pairs of name and value (see `layers.rotary`)."""
    rotary_dim: int | None = None
    """How many numbers of a head are rotated, the first ones; None = all."""
    rotary_pairs: Pairs = "halves"
    """Which numbers are rotated together: one of each half (GPT-NeoX), or neighbours (GPT-J)."""
    rotary_layers: tuple[int, ...] | None = None
    """The layers with rotary positions, from 0; None = all (SmolLM 3 has some without)."""
    relative_buckets: int = 32
    relative_distance: int = 128
    """Distances beyond it share a bucket (T5)."""
    relative_each: bool = False
    """Whether each block has a relative bias of its own (UMT5); otherwise all share one."""
    window: int | None = None
    """How many tokens a query sees, itself the last; None = all before it. In an encoder that is
    not causal, as many on either side, itself included."""
    window_layers: tuple[int, ...] | None = None
    """The layers with the window, from 0; None = all."""
    window_theta: float | None = None
    """rope_theta of these layers, whose frequencies are not scaled (Gemma 3); as in all layers
    unless given."""
    relative_bias: bool = False
    """Whether a trained bias of each distance is added to the scores as well (MPNet)."""
    types: int = 0
    """Segment types, with an embedding each (BERT)."""
    embedding_width: int | None = None
    """Of an encoder's embeddings, if a linear layer brings them to `width` (ALBERT, Electra)."""
    shared_blocks: bool = False
    """Whether all blocks have the same weights (Lan et al. 2020, "ALBERT")."""
    causal: bool = False
    """Whether a token of an encoder sees no later ones, as in a decoder."""
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    """1 / sqrt(head_dim) unless given."""
    score_softcap: float | None = None
    """Bounds scaled scores by cap * tanh(score / cap) (Gemma 2)."""
    sinks: bool = False
    """Whether each head has a trained logit that takes part in the softmax (gpt-oss)."""
    qkv_clip: float | None = None
    """Bounds queries, keys and values, after their norms (MPT, OLMo)."""
    tied: bool = True
    """Whether the output layer shares the token embedding."""
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    """Bounds logits as score_softcap does scores."""
    logit_bias: bool = False
    dropout: float = 0.0
    """Of the embeddings and of each part of a block, while training."""
    attention_dropout: float | None = None
    """Of attention weights, which no fused CPU kernel drops; as `dropout` unless given."""
    pooling: str = "mean"
    """How the tokens of a text become one vector (see `layers.pooling`); names joined by + stand
    for the vectors of each, one after the other."""
    dense: tuple[DenseConfig, ...] = ()
    """Linear layers of an encoder on the embedding of a text."""
    normalised: bool = False
    """Whether the embedding of a text has length 1."""
    truncated: int | None = None
    """How many numbers of an embedding are kept, the first ones (Kusupati et al. 2022)."""
    most_tokens: int | None = None
    """Of a text to embed, special tokens included; as `positions` unless given."""
    classifier: ClassifierConfig | None = None
    """Of an encoder that labels texts."""
    start: int | None = None
    """Id that a decoder or a target begins with."""
    stop: tuple[int, ...] = ()
    """Ids that end a text."""
    padding: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name), _CHOICES.get(field.name))
        if self.heads % self.key_heads:
            raise ArgumentError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.head_dim is None and self.width % self.heads:
            raise ArgumentError(
                f"width {self.width} does not divide into {self.heads} heads; give head_dim"
            )
        if self.position == "rotary" and self.rotated % 2:
            name = "head_dim" if self.rotary_dim is None else "rotary_dim"
            raise ArgumentError(
                f"rotary positions rotate pairs: {name} {self.rotated} must be even"
            )
        if self.rotated > self.dim:
            raise ArgumentError(f"rotary_dim {self.rotated} is above head_dim {self.dim}")
        if self.position == "sinusoidal" and self.width % 2:
            raise ArgumentError(f"sinusoidal positions need an even width, not {self.width}")
        if self.position == "learned" and self.positions is None:
            raise ArgumentError("learned positions need a number of positions")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ArgumentError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for part in self.poolings:
            if part not in get_args(Pooling):
                known = ", ".join(get_args(Pooling))
                raise ArgumentError(f"pooling must be of {known}, joined by +, not {part!r:.80}")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ArgumentError(f"{name} must be above 0, not {value}")
        self._check_parts()
        for name in ("start", "stop", "padding"):
            self._check_ids(name)
        if self.has_buckets:
            self._check_buckets()
        if self.kind != "encoder":
            self._check_no_encoder()

    def _check_parts(self) -> None:
        """Settings of a block that only have a meaning together with others."""
        if self.branch_norms != "before" and not self.norm_first:
            raise ArgumentError(f"branch_norms {self.branch_norms!r} needs norm_first")
        if self.parallel and (not self.norm_first or self.branch_norms == "after"):
            raise ArgumentError("parallel needs norm_first, with norms before each part")
        if not self.first_norm and (not self.norm_first or self.shared_blocks):
            raise ArgumentError("first_norm = False needs norm_first, and blocks of their own")
        if self.shared_norm and not self.parallel:
            raise ArgumentError("shared_norm needs parallel")
        if self.experts and self.experts_used > self.experts:
            raise ArgumentError(
                f"experts_used {self.experts_used} is above the number of experts, {self.experts}"
            )
        if not self.gated and (self.feed_clamp is not None or self.up_offset):
            raise ArgumentError("feed_clamp and up_offset need gated")
        most = max(self.layers, self.decoder_layers or 0)
        for name in _LAYERS:
            for layer in getattr(self, name) or ():
                if not 0 <= layer < most:
                    raise ArgumentError(f"{name} has layer {layer}, but there are 0 to {most - 1}")

    def _check_ids(self, name: str) -> None:
        value = getattr(self, name)
        for token in value if name == "stop" else () if value is None else (value,):
            if not 0 <= token < self.vocabulary:
                raise ArgumentError(
                    f"{name} {token} is not in the vocabulary, 0 to {self.vocabulary - 1}"
                )

    def _check_no_encoder(self) -> None:
        """Refuse what only an encoder can have."""
        for name in ("embedding_width", "causal", "classifier", "dense"):
            if getattr(self, name):
                raise ArgumentError(f"only an encoder has {name}, not a {self.kind}")

    def _check_buckets(self) -> None:
        """The first buckets are single distances, and the others grow from there."""
        both_ways = 1 if self.kind == "decoder" else 2  # an encoder also has keys that come later
        if self.relative_buckets < 2 * both_ways:
            raise ArgumentError(
                f"relative_buckets must be at least {2 * both_ways}, not {self.relative_buckets}"
            )
        single = self.relative_buckets // (4 if self.kind == "encoder" else 2)
        if self.relative_distance <= single:
            raise ArgumentError(
                f"relative_distance must be above {single}, since the first {single} of "
                f"{self.relative_buckets} relative_buckets are a distance each, "
                f"not {self.relative_distance}"
            )

    @property
    def has_buckets(self) -> bool:
        """Whether there is a trained bias of each distance."""
        return self.position == "relative" or self.relative_bias

    @property
    def embedding_numbers(self) -> int:
        """How many numbers the embedding of a text has."""
        pooled = len(self.poolings) * self.width
        width = self.dense[-1].width if self.dense else pooled
        return width if self.truncated is None else min(width, self.truncated)

    @property
    def poolings(self) -> list[str]:
        return self.pooling.split("+")

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def dim(self) -> int:
        """The width of a query, a key and a value in one head."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def rotated(self) -> int:
        """How many numbers of a query or key are rotated."""
        return self.dim if self.rotary_dim is None else self.rotary_dim

    def window_of(self, layer: int) -> int | None:
        """The window of a layer."""
        has_window = self.window_layers is None or layer in self.window_layers
        return self.window if has_window else None

    @property
    def longest(self) -> int | None:
        """Tokens after which a text is truncated; None = never."""
        return self.positions if self.most_tokens is None else self.most_tokens

    @property
    def weights_dropout(self) -> float:
        return self.dropout if self.attention_dropout is None else self.attention_dropout


_CHOICES = {
    "kind": get_args(Kind),
    "norm": get_args(Norm),
    "activation": get_args(Activation),
    "position": get_args(Position),
    "branch_norms": get_args(BranchNorms),
    "head_norm_kind": get_args(HeadNorm),
    "rotary_pairs": get_args(Pairs),
}
_ABOVE_ZERO = (
    "norm_eps",
    "rope_theta",
    "window_theta",
    "score_softcap",
    "logit_softcap",
    "qkv_clip",
    "feed_clamp",
)
_LAYERS = ("window_layers", "rotary_layers", "dense_layers")
_SIZES = {
    name
    for name, kind in Config.__annotations__.items()
    if kind in (int, int | None) and name not in ("start", "padding")
}
_MAY_BE_ZERO = {"experts", "shared_hidden", "types", "position_offset", "decoder_layers"}
_TYPES: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (int, "an int"),
    float: (int | float, "a number"),
    str: (str, "a str"),
}


def _check(name: str, value: Any, choices: tuple[str, ...] | None) -> None:
    if choices is not None and value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    kind = Config.__annotations__[name]
    for wanted, (types, word) in _TYPES.items():
        if kind == wanted or (kind == wanted | None and value is not None):
            is_flag = isinstance(value, bool) and wanted is not bool  # a bool is an int in Python
            if is_flag or not isinstance(value, types):
                raise TypeMismatchError(f"{name} must be {word}, not {value!r}")
            if wanted is float and not math.isfinite(value):
                raise ArgumentError(f"{name} must be finite, not {value}")
    if name == "classifier" and not isinstance(value, ClassifierConfig | None):
        raise TypeMismatchError(f"classifier must be a ClassifierConfig, not {value!r}")
    if name == "dense" and not (
        isinstance(value, tuple) and all(isinstance(layer, DenseConfig) for layer in value)
    ):
        raise TypeMismatchError(f"dense must be a tuple of DenseConfig, not {value!r:.80}")
    if (name == "stop" or (name in _LAYERS and value is not None)) and not (
        isinstance(value, tuple) and all(type(number) is int for number in value)
    ):
        what = "ids" if name == "stop" else "layers"
        raise TypeMismatchError(f"{name} must be a tuple of {what}, not {value!r}")
    if name == "rope_scaling" and not (isinstance(value, tuple) and all(map(_is_pair, value))):
        raise TypeMismatchError(f"rope_scaling must be pairs of name and value, not {value!r}")
    least = 0 if name in _MAY_BE_ZERO else 1
    if name in _SIZES and value is not None and value < least:
        raise ArgumentError(f"{name} must be at least {least}, not {value}")


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)
