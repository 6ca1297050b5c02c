"""Tiny random checkpoints of every family, and what transformers makes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tests.models.decoder_families import DECODERS
from tests.sizes import BATCH, GPT2, GROUPED, HEADS, LAYERS, SIZES, VOCABULARY, WINDOW

SOURCE, TARGET = 23, 11
QWEN2 = {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 2, **SIZES}
PAIR = {
    "vocab_size": VOCABULARY,
    "d_model": 34,
    "encoder_layers": LAYERS,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "max_position_embeddings": 53,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
EVEN = {"hidden_size": 30, "num_attention_heads": 3}
"""With heads that rotary positions can turn."""
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 33,
    "d_kv": 7,
    "d_ff": 37,
    "num_layers": LAYERS,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "pad_token_id": 0,
    "eos_token_id": 2,
    # Distances of which the buckets have more than one.
    "relative_attention_num_buckets": 10,
    "relative_attention_max_distance": 13,
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


@dataclass(frozen=True)
class Family:
    config: Callable[[], Any]
    kind: str = "decoder"
    base: str = "model"
    """What the model without a head is called in that with one."""
    has_own_head: bool = False
    eager: bool = False
    """Whether only the eager attention of transformers does all that the family has."""
    has_experts: bool = False
    written_as: str | None = None
    """The family that it is saved as; its own unless given, or another with the same shape."""
    is_exact: bool = True
    """Whether transformers computes in the dtype of the model, and with fused kernels."""

    @property
    def options(self) -> dict[str, Any]:
        """Of transformers' model."""
        options = {"attn_implementation": "eager"} if self.eager else {}
        if self.has_experts:  # whose fused kernel takes no such sizes
            options["experts_implementation"] = "eager"
        return options

    @property
    def maker(self) -> Any:
        return {
            "encoder": transformers.AutoModel,
            "decoder": transformers.AutoModelForCausalLM,
            "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
        }[self.kind]


def _pair(config: Callable[[], Any], **others: Any) -> Family:
    return Family(config, kind="encoder-decoder", **others)


def _only(sizes: dict[str, int], kept: str) -> dict[str, int]:
    """The sizes whose names begin with one of these words."""
    return {name: size for name, size in sizes.items() if name.startswith(tuple(kept.split()))}


_t = transformers
FAMILIES = {
    "bert": Family(lambda: _t.BertConfig(**HEADS, **SIZES), "encoder", "bert"),
    "roberta": Family(lambda: _t.RobertaConfig(**HEADS, **SIZES), "encoder", "roberta"),
    "roberta, xlm": Family(lambda: _t.XLMRobertaConfig(**HEADS, **SIZES), "encoder", "roberta"),
    "roberta, camembert": Family(
        lambda: _t.CamembertConfig(**HEADS, **SIZES), "encoder", "roberta"
    ),
    "roberta, data2vec": Family(
        lambda: _t.Data2VecTextConfig(**HEADS, **SIZES), "encoder", "data2vec_text"
    ),
    "bert, ernie": Family(lambda: _t.ErnieConfig(**HEADS, **SIZES), "encoder", "ernie"),
    "bert, splinter": Family(
        lambda: _t.SplinterConfig(**HEADS, **SIZES), "encoder", "", is_exact=False
    ),
    "bert, dpr": Family(lambda: _t.DPRConfig(**HEADS, **SIZES), "encoder", ""),
    "bert-generation": Family(
        lambda: _t.BertGenerationConfig(layer_norm_eps=1e-6, **HEADS, **SIZES), "encoder", ""
    ),
    "distilbert": Family(
        lambda: _t.DistilBertConfig(
            dim=33, n_heads=3, hidden_dim=37, n_layers=LAYERS, **_only(SIZES, "vocab max pad")
        ),
        "encoder",
        "distilbert",
    ),
    "mpnet": Family(
        lambda: _t.MPNetConfig(**{**HEADS, **SIZES, "pad_token_id": 1}),
        "encoder",
        "mpnet",
    ),
    "electra": Family(
        lambda: _t.ElectraConfig(embedding_size=22, **HEADS, **SIZES), "encoder", "electra"
    ),
    "bert, electra": Family(
        lambda: _t.ElectraConfig(embedding_size=33, **HEADS, **SIZES), "encoder", "electra"
    ),
    "albert": Family(
        lambda: _t.AlbertConfig(embedding_size=22, **HEADS, **SIZES), "encoder", "albert"
    ),
    "electra, rembert": Family(
        lambda: _t.RemBertConfig(
            input_embedding_size=22, output_embedding_size=23, **HEADS, **SIZES
        ),
        "encoder",
        "rembert",
        is_exact=False,
    ),
    "megatron-bert": Family(lambda: _t.MegatronBertConfig(**HEADS, **SIZES), "encoder", "bert"),
    "roberta-prelayernorm": Family(
        lambda: _t.RobertaPreLayerNormConfig(**HEADS, **SIZES), "encoder", "roberta_prelayernorm"
    ),
    "xlm-roberta-xl": Family(lambda: _t.XLMRobertaXLConfig(**HEADS, **SIZES), "encoder", "roberta"),
    "nomic_bert": Family(lambda: _t.NomicBertConfig(**EVEN, **SIZES), "encoder", "nomic_bert"),
    "gte": Family(lambda: _t.GteConfig(**EVEN, **SIZES), "encoder", "gte"),
    "jina_embeddings_v3": Family(
        lambda: _t.JinaEmbeddingsV3Config(**EVEN, **SIZES), "encoder", "roberta"
    ),
    "roformer": Family(
        lambda: _t.RoFormerConfig(embedding_size=22, **EVEN, **SIZES),
        "encoder",
        "roformer",
        is_exact=False,
    ),
    "modernbert": Family(
        lambda: _t.ModernBertConfig(
            local_attention=10, layer_types=["full_attention", "sliding_attention"], **EVEN, **SIZES
        ),
        "encoder",
        is_exact=False,
    ),
    "modernbert, biases": Family(
        lambda: _t.ModernBertConfig(
            norm_bias=True, attention_bias=True, mlp_bias=True, **EVEN, **SIZES
        ),
        "encoder",
        is_exact=False,
    ),
    "eurobert": Family(lambda: _t.EuroBertConfig(**GROUPED, **SIZES), "encoder"),
    "gemma3_text, both ways": Family(
        lambda: _t.Gemma3TextConfig(
            use_bidirectional_attention=True,
            sliding_window=10,
            layer_types=["sliding_attention", "full_attention"],
            **GROUPED,
            **SIZES,
        ),
        "encoder",
        base="",
    ),
    "gpt2": Family(
        lambda: _t.GPT2Config(n_inner=37, **GPT2),
        base="transformer",
    ),
    "gpt2, scores as they are": Family(
        lambda: _t.GPT2Config(scale_attn_weights=False, **{**GPT2, "eos_token_id": [2, 3]}),
        base="transformer",
    ),
    "llama": Family(lambda: _t.LlamaConfig(**GROUPED, **SIZES)),
    "llama, biases": Family(
        lambda: _t.LlamaConfig(attention_bias=True, mlp_bias=True, **HEADS, **SIZES, head_dim=14)
    ),
    "llama, tied": Family(lambda: _t.LlamaConfig(tie_word_embeddings=True, **GROUPED, **SIZES)),
    "llama, stretched": Family(
        lambda: _t.LlamaConfig(rope_parameters=dict(STRETCHED), **GROUPED, **SIZES)
    ),
    "llama, linear": Family(
        lambda: _t.LlamaConfig(
            rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 3.0},
            **GROUPED,
            **SIZES,
        )
    ),
    "mistral": Family(lambda: _t.MistralConfig(sliding_window=WINDOW, **GROUPED, **SIZES)),
    "mistral, no window": Family(
        lambda: _t.MistralConfig(sliding_window=None, **{**GROUPED, **SIZES, "hidden_size": 67})
    ),
    "qwen2": Family(lambda: _t.Qwen2Config(**QWEN2)),
    "qwen2, a window": Family(
        lambda: _t.Qwen2Config(
            use_sliding_window=True, sliding_window=WINDOW, max_window_layers=0, **QWEN2
        )
    ),
    "qwen3": Family(lambda: _t.Qwen3Config(**GROUPED, **SIZES)),
    "qwen3, tied": Family(
        lambda: _t.Qwen3Config(
            tie_word_embeddings=True, attention_bias=True, **{**GROUPED, **SIZES, "hidden_size": 67}
        )
    ),
    "marian": _pair(
        lambda: _t.MarianConfig(activation_function="swish", scale_embedding=True, **PAIR)
    ),
    "bart": _pair(lambda: _t.BartConfig(**PAIR)),
    "bart, a head of its own": _pair(lambda: _t.BartConfig(**PAIR), base="", has_own_head=True),
    "bart, scaled": _pair(lambda: _t.BartConfig(scale_embedding=True, **PAIR)),
    "plbart": _pair(lambda: _t.PLBartConfig(**PAIR)),
    "mvp": _pair(lambda: _t.MvpConfig(**PAIR), is_exact=False),
    "mbart": _pair(lambda: _t.MBartConfig(scale_embedding=True, **PAIR)),
    "mbart, a head of its own": _pair(lambda: _t.MBartConfig(**PAIR), base="", has_own_head=True),
    "blenderbot": _pair(lambda: _t.BlenderbotConfig(**PAIR)),
    "pegasus": _pair(lambda: _t.PegasusConfig(activation_function="relu", **PAIR)),
    "m2m_100": _pair(lambda: _t.M2M100Config(**PAIR)),
    "m2m_100, not scaled": _pair(lambda: _t.M2M100Config(scale_embedding=False, **PAIR)),
    "t5": _pair(lambda: _t.T5Config(**T5), base=""),
    "t5, gated": _pair(
        lambda: _t.T5Config(feed_forward_proj="gated-gelu", tie_word_embeddings=False, **T5),
        base="",
        has_own_head=True,
    ),
    "t5, a head of its own": _pair(lambda: _t.T5Config(**T5), base="", has_own_head=True),
    "umt5": _pair(lambda: _t.UMT5Config(**T5), base=""),
    "umt5, relu": _pair(lambda: _t.UMT5Config(feed_forward_proj="relu", **T5), base=""),
    "mt5": _pair(lambda: _t.MT5Config(**T5), base=""),
    "mt5, a head of its own": _pair(lambda: _t.MT5Config(**T5), base="", has_own_head=True),
    **{name: Family(**said) for name, said in DECODERS.items()},
}
NAMES = list(FAMILIES)


def build(name: str) -> Any:
    """transformers' model in eval mode, all of its numbers random and the same every time."""
    family = FAMILIES[name]
    torch.manual_seed(23)
    model = family.maker.from_config(family.config(), **family.options).eval()
    if family.has_own_head:  # which transformers 5 ties unless the two differ
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
    return drawn(model)


def drawn(model: Any) -> Any:
    """The model, its numbers drawn anew so that each of them makes a difference."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.requires_grad:  # sines and cosines
                continue
            noise = torch.randn(parameter.shape)
            if parameter.ndim > 1:
                parameter.copy_(noise * 1.2 / parameter.shape[-1] ** 0.5)
            else:
                parameter.copy_(0.3 * noise + parameter.nan_to_num())
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model


def written(name: str, directory: Path, **options: Any) -> Path:
    """A directory with the checkpoint, which is made once, whoever asks for it."""
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in _files(name, **options).items():
        (directory / file).write_bytes(content)
    torch.manual_seed(23)  # as after `build`
    return directory


@cache
def _files(name: str, **options: Any) -> dict[str, bytes]:
    with TemporaryDirectory() as directory:
        build(name).save_pretrained(directory, **options)
        return {file.name: file.read_bytes() for file in Path(directory).iterdir()}


def read(name: str, directory: Path, **options: Any) -> Any:
    """The checkpoint as transformers reads it."""
    family = FAMILIES[name]
    return family.maker.from_pretrained(directory, **{**family.options, **options}).eval()


def ids(length: int = SOURCE, batch: int = BATCH) -> Tensor:
    """Of words, none of which has a meaning of its own."""
    return torch.randint(4, VOCABULARY, (batch, length), generator=torch.manual_seed(length))


def theirs(name: str, model: Any) -> Tensor:
    """Hidden states or logits of transformers' model."""
    with torch.no_grad():
        if FAMILIES[name].kind == "encoder":
            found = model(ids(), output_hidden_states=True)
            last = getattr(found, "last_hidden_state", None)
            return found.hidden_states[-1] if last is None else last
        if FAMILIES[name].kind == "decoder":
            return model(ids()).logits
        return model(input_ids=ids(), decoder_input_ids=ids(TARGET)).logits


def ours(name: str, model: Any, **options: Any) -> Any:
    """The same of ours."""
    inputs = (ids(), ids(TARGET)) if FAMILIES[name].kind == "encoder-decoder" else (ids(),)
    with torch.no_grad():
        return model(*inputs, **options)


NORMS = ("RMSNorm", "T5LayerNorm", "OlmoLayerNorm", "CohereLayerNorm", "Cohere2LayerNorm")


def exact(model: nn.Module) -> nn.Module:
    """In float64 throughout: transformers counts root-mean-square norms, the wavelengths of M2M-100
    and the scale of Gemma's embedding in float32."""
    for part in model.modules():
        if hasattr(part, "scalar_embed_scale"):
            part.embed_scale = torch.tensor(part.scalar_embed_scale, dtype=torch.float64)
        if type(part).__name__ == "M2M100SinusoidalPositionalEmbedding":
            part.weights = _sines(*part.weights.shape)
        if type(part).__name__.endswith(
            ("RMSNorm", "T5LayerNorm", "OlmoLayerNorm", "CohereLayerNorm")
        ):
            part.forward = _norm_of(part)
    return model.double()


def _sines(rows: int, width: int) -> Tensor:
    frequencies = 10_000.0 ** -torch.linspace(0, 1, width // 2, dtype=torch.float64)
    angles = torch.arange(rows).double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1).float().double()  # as ours are rounded


def _norm_of(part: nn.Module) -> Callable[[Tensor], Tensor]:
    """The norm of a module of transformers, in the dtype of its input."""
    name, weight = type(part).__name__, getattr(part, "weight", None)
    if name.startswith("Gemma"):
        weight = 1 + weight.double()
    eps = getattr(part, "variance_epsilon", getattr(part, "eps", 1e-5))

    def forward(x: Tensor) -> Tensor:
        if name.endswith("RMSNorm") or name.endswith("T5LayerNorm"):
            return nn.functional.rms_norm(x, x.shape[-1:], weight, eps)
        normalised = nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
        return normalised if weight is None else normalised * weight

    return forward
