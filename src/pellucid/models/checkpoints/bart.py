"""BART (Lewis et al. 2020), PLBART and MVP, and what other families share with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pellucid.layers.config import Config
from pellucid.models.checkpoints.family import (
    TARGET_START,
    Family,
    activation,
    activation_name,
    expect,
    marks,
    shape_of,
    write_marks,
)


def _stack(stack: str) -> dict[str, str]:
    block, layer = stack + ".blocks.{}.", stack + ".layers.{}."
    names = {
        stack + ".positions": stack + ".embed_positions",
        stack + ".embedding_norm": stack + ".layernorm_embedding",
        block + "attention_norm": layer + "self_attn_layer_norm",
        block + "cross_norm": layer + "encoder_attn_layer_norm",
        block + "feed_forward.up": layer + "fc1",
        block + "feed_forward.down": layer + "fc2",
        block + "feed_forward_norm": layer + "final_layer_norm",
        stack + ".final_norm": stack + ".layer_norm",
    }
    for ours, theirs in (("attention", "self_attn"), ("cross", "encoder_attn")):
        for part in ("query", "key", "value"):
            names[f"{block}{ours}.{part}"] = f"{layer}{theirs}.{part[0]}_proj"
        names[f"{block}{ours}.output"] = f"{layer}{theirs}.out_proj"
    return names


NAMES = {
    "encoder.tokens": "shared",
    **_stack("encoder"),
    **_stack("decoder"),
    "head": "lm_head",
    "bias": "final_logits_bias",
}
SHARED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
DEFAULTS = {
    "activation_function": "gelu",
    "max_position_embeddings": 1024,
    "scale_embedding": False,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """BART, or a family that differs from it in a setting or two."""

    model_type: str
    architecture: str
    """The class of transformers for it."""
    shape: Mapping[str, Any]
    """What all its models have, as fields of `Config`."""
    expected: Mapping[str, Any]
    """What all its models have, as keys of config.json."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The values of missing keys of config.json, where they are not BART's."""
    ids: Mapping[str, int]
    """Special token ids of the family, where config.json has none."""
    counts_from_padding: bool = False
    """Whether the first position follows the id of padding, as in fairseq."""

    def read(self, config: Mapping[str, Any]) -> Config:
        norm_first = self.shape.get("norm_first", False)
        expect(config, normalize_before=norm_first, add_final_layer_norm=norm_first)
        expect(config, **self.expected)
        for size in ("attention_heads", "ffn_dim"):  # `Config` has one for both stacks
            expect(config, **{f"decoder_{size}": config[f"encoder_{size}"]})
        if config.get("decoder_vocab_size") is not None:  # one vocabulary for both
            expect(config, decoder_vocab_size=config["vocab_size"])
        config = {**DEFAULTS, **self.defaults, **config}
        shape = {"logit_bias": True, **self.shape}
        if self.counts_from_padding:
            shape["position_offset"] = config["pad_token_id"] + 1
        return Config(
            kind="encoder-decoder",
            vocabulary=config["vocab_size"],
            width=config["d_model"],
            layers=config["encoder_layers"],
            decoder_layers=config["decoder_layers"],
            heads=config["encoder_attention_heads"],
            hidden=config["encoder_ffn_dim"],
            activation=activation(config["activation_function"]),
            positions=config["max_position_embeddings"],
            embedding_scale=config["d_model"] ** 0.5 if config["scale_embedding"] else 1.0,
            tied=config["tie_word_embeddings"],
            **shape,
            **marks(config, TARGET_START, **self.ids),
        )

    def write(self, config: Config) -> dict[str, Any] | None:
        says = {"decoder_layers", "positions", "embedding_scale", "tied", "logit_bias"}
        if self.counts_from_padding:
            says.add("position_offset")
        if (
            not shape_of(
                config, " ".join(says - self.shape.keys()), kind="encoder-decoder", **self.shape
            )
            or config.embedding_scale not in (1.0, config.width**0.5)
            or config.norm_eps != 1e-5
            or config.positions is None  # transformers builds a table even of sines
            or (self.counts_from_padding and config.padding != config.position_offset - 1)
        ):
            return None
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            "vocab_size": config.vocabulary,
            "d_model": config.width,
            "encoder_layers": config.layers,
            "decoder_layers": config.decoder_layers or config.layers,
            "encoder_attention_heads": config.heads,
            "decoder_attention_heads": config.heads,
            "encoder_ffn_dim": config.hidden,
            "decoder_ffn_dim": config.hidden,
            "activation_function": activation_name(config.activation),
            "max_position_embeddings": config.positions,
            "scale_embedding": config.embedding_scale != 1.0,
            "tie_word_embeddings": config.tied,
            "is_encoder_decoder": True,
            **write_marks(config, TARGET_START),
            "dropout": config.dropout,
        }


LEARNED = {"embedding_norm": True, "position": "learned", "position_offset": 2}
BART = Variant(
    model_type="bart",
    architecture="BartForConditionalGeneration",
    shape=LEARNED,
    expected={"use_prompt": False},
    ids={"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
)
PLBART = replace(
    BART,
    defaults={"scale_embedding": True},
    ids={"pad_token_id": 1, "eos_token_id": 2},  # a target begins with its language
)
FAMILY = Family(
    types=("bart", "mvp"),
    read=BART.read,
    write=BART.write,
    names=NAMES,
    prefix="model.",
    copies={"model.shared.weight": (*SHARED, "lm_head.weight")},
    untied=SHARED,
    rows=("final_logits_bias",),
    ignored=r"^classification_head\.",
)
FAMILIES = (
    FAMILY,
    # A model of PLBART is written as BART's.
    replace(FAMILY, types=("plbart",), read=PLBART.read, write=lambda _: None),
)
