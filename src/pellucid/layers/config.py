"""The architecture of a transformer, as choices that know no model family."""

from dataclasses import dataclass
from typing import Any, Literal

from pellucid.layers import config_checks
from pellucid.layers.head_configs import ClassifierConfig, DenseConfig

Kind = Literal["encoder", "decoder", "encoder-decoder"]
Norm = Literal["layer", "rms"]
Activation = Literal["relu", "relu_squared", "gelu", "gelu_tanh", "quick_gelu", "silu"]
Position = Literal["sinusoidal", "learned", "rotary", "relative", "alibi", "none"]
HeadNorm = Literal["shared", "own", "joint"]
BranchNorms = Literal["before", "after", "both"]
Pairs = Literal["halves", "neighbours"]


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
        config_checks.check(self)

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
