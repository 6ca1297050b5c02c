"""Small configurations of large models: a few layers, a few heads, a small vocabulary.

What is small enough stays as it is. Configurations name their sizes in many ways, and rules on
these names are all there is to go by; `overrides` has what no rule finds out.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

WIDTH, HEADS, HEAD_DIM, VOCABULARY = 64, 4, 16, 128
FIRST_FREE_ID = 10
"""Ids below are for the beginning, the end and padding; text begins at half the vocabulary."""
LAYERS_AT_MOST = 4
"""Layers of a model in which several kinds take turns; others have two."""

Number = int | float
Rule = Callable[[Number], Number]


def at_most(limit: int) -> Rule:
    return lambda value: limit if value > limit else value


def always(new: int) -> Rule:
    return lambda value: new


def nothing(value: Number) -> Number:
    return value


DEPTH = re.compile(r"(^|_)(n_)?layers?$|(^|_)depth$|^num_blocks$|_blocks$|^encoder_depths$")
PER_LAYER = re.compile(r"(^|_)(num_hidden_layers|n_layers?|num_layers|depth|num_blocks)$")
"""The number of layers that lists with an entry a layer go by."""

LISTED = re.compile(r"layer|block|type|pattern|rope|sparse|interval|window|hybrid")
"""What the names of such lists have in common."""

SHALLOW: tuple[tuple[re.Pattern[str], Rule], ...] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (r"^vision_feature_layer|^num_encoder_blocks$", nothing),
        (r"^(first_k_dense_replace|num_dense_layers)$", at_most(1)),
        (r"^num_kv_shared_layers$", at_most(0)),
        (r"vocab_size\w*$", at_most(VOCABULARY)),
        (r"^(num|n)_?(local_|routed_|moe_)*experts$|^moe_num_experts$", at_most(4)),
        (r"^(num_experts_per_tok|moe_k|moe_topk|num_selected_experts|top_k_experts)$", at_most(2)),
        (r"^(n_group|topk_group|num_expert_groups)$", at_most(1)),
        (r"^(sliding_window|attention_window)$", at_most(6)),
        (r"^(attention_chunk_size)$", at_most(8)),
        (r"^index_topk$", at_most(5)),
        (r"^(num_queries|num_object_queries)$", at_most(8)),
        (r"^image_size$", at_most(64)),
        (r"^num_denoising$", at_most(0)),
        (DEPTH.pattern, at_most(2)),
    )
)
"""Rules that make a model shallow and leave its widths: the second try where the first fails."""

NARROW: tuple[tuple[re.Pattern[str], Rule], ...] = (
    *SHALLOW,
    *(
        (re.compile(pattern), rule)
        for pattern, rule in (
            (r"(rank)$", at_most(HEAD_DIM)),
            (r"^(qk_nope_head_dim|qk_rope_head_dim)$", at_most(HEAD_DIM // 2)),
            (r"(head_dim|d_kv|d_head|dim_head|kv_channels|head_size|rotary_dim)$", at_most(16)),
            (r"head_dim$", at_most(HEAD_DIM)),
            (r"(^|_)n_?heads?$|num_heads$|attention_heads$|_heads$", at_most(HEADS)),
            (r"^patch_size$", lambda value: 16 if value >= 8 else value),
            (r"^(num_query_tokens|num_latents|resampler_n_latents|n_latents)$", at_most(6)),
            (r"^(max_source_positions)$", at_most(50)),
            (r"^image_seq_length$", at_most(16)),
            (r"^mm_tokens_per_image$", at_most(4)),
            (r"(intermediate_size|ffn_dim|d_ff|n_inner|mlp_dim|d_inner|feedforward)$", at_most(96)),
            (r"(dim_feedforward|ffn_hidden_size|ffn_size|mlp_hidden_size)$", at_most(96)),
            (r"^patch_embed_hidden_size$", nothing),
            (r"^(patch|window|kernel|image|chunk|crop|input|codebook|downscale)_size$", nothing),
            (r"kernel_size|(query_pre_attn_scalar|num_attention_channels)$", nothing),
            (
                r"(hidden_size|d_model|n_embd|embed_dim|hidden_dim|emb_dim|embd_dim)\w*$",
                at_most(64),
            ),
            (r"(_dim|_size|_width|_channels|_units|^dim|^channels|^width)$", at_most(WIDTH)),
        )
    ),
)
"""Rules that make it narrow as well; the first that knows a name decides."""

TOKEN = re.compile(
    r"(token|_image|_audio|_video|eo[iav]|bo[iav])\w*_(id|index)$|^\w*_token(_id|_index)?$"
)
KNOWN_IDS = {"pad": 0, "bos": 1, "eos": 2, "decoder_start": 1, "sep": 2, "cls": 1}


class Shrinker:
    """Shrinks one configuration and those inside it, which share their token ids."""

    def __init__(self, rules: tuple[tuple[re.Pattern[str], Rule], ...]) -> None:
        self._rules = rules
        self._ids: dict[str, int] = {}

    def changes(self, config: Any) -> dict[str, Any]:
        """What to give the configuration's class to get a small one."""
        layers = self._layers(config)
        found: dict[str, Any] = {}
        for field in dataclasses.fields(config):
            if field.name in vars(config) and not field.name.startswith("_"):
                value = vars(config)[field.name]
                new = self._new(config, field.name, value, layers)
                if new is not value:
                    found[field.name] = new
        for name in getattr(type(config), "sub_configs", {}):
            inner = getattr(config, name, None)
            if name == "backbone_config" and inner is not None and "timm" in inner.model_type:
                inner = config.sub_configs_defaults[name].default_config
            if inner is not None:
                found[name] = self._whole(inner)
        return found

    def _whole(self, config: Any) -> dict[str, Any]:
        """A configuration inside another: all of it, since the outer one has its own defaults."""
        inside = getattr(type(config), "sub_configs", {})
        fields = {field.name for field in dataclasses.fields(config)} - {"id2label", "label2id"}
        stated = {
            name: value
            for name, value in vars(config).items()
            if name in fields - inside.keys() and not name.startswith("_")
        }
        small = stated | self.changes(config) | {"model_type": config.model_type}
        if _outlets(config):
            _, kept = self._layers(config)
            is_cut = len(config.stage_names) - 1 > len(kept) and _stages_are_layers(config)
            least = len(kept) + 1 - _outlets(config)
            small["out_indices"] = (
                list(range(least, len(kept) + 1)) if is_cut else list(config.out_indices)
            )
        return small

    def _layers(self, config: Any) -> tuple[int, list[int]]:
        """How many layers there are, and which to keep: two of a kind, or each kind once."""
        fields = vars(config)
        count = next(
            (
                value
                for name, value in fields.items()
                if PER_LAYER.search(name) and type(value) is int and not name.startswith("decoder")
            ),
            0,
        )
        kinds = [
            value
            for name, value in fields.items()
            if re.search(r"layer_types|layers_block_type|block_types|hybrid_override", name)
            and isinstance(value, list | tuple | str)
            and len(value) == count
        ]
        if not kinds or count <= 2:
            outlets = _outlets(config) if _stages_are_layers(config) else 0
            return count, list(range(min(count, max(2, outlets))))
        rows = list(zip(*kinds, strict=True))
        firsts = sorted({row: index for index, row in reversed(list(enumerate(rows)))}.values())
        kept = firsts[:LAYERS_AT_MOST]
        return count, kept if len(kept) > 1 else [0, 1]

    def _new(self, config: Any, name: str, value: Any, layers: tuple[int, list[int]]) -> Any:
        count, kept = layers
        is_open = value is None and name in ("image_token_id", "image_token_index")
        if is_open or (type(value) is int and TOKEN.search(name)):
            return self._token(name)
        if name == "eos_token_id" and isinstance(value, list):
            return KNOWN_IDS["eos"]
        if (
            isinstance(value, list | tuple | str)
            and len(value) == count > 2
            and LISTED.search(name)
        ):
            if isinstance(value, str):
                return "".join(value[index] for index in kept) if "pattern" in name else value
            return type(value)(value[index] for index in kept)
        if type(value) is int and PER_LAYER.search(name) and value == count:
            return min(value, len(kept))
        if isinstance(value, dict) and "rope" in name and self._rules is NARROW:
            splits = "mrope_section" in getattr(config, "ignore_keys_at_rope_validation", ())
            return _rope({"mrope_section": [1, 1, 1]} | value if splits else value)
        if isinstance(value, list | tuple) and value and all(type(x) is int for x in value):
            return self._list(config, name, value)
        if type(value) is not int or value < 0:
            return value
        return self._number(config, name, value)

    def _number(self, config: Any, name: str, value: int) -> Any:
        if self._rules is NARROW and re.search(r"(key_value_heads|kv_heads|n_head_kv)$", name):
            heads = getattr(config, "num_attention_heads", None)
            full = value == heads
            return min(value, HEADS if full else 2)
        if name in ("embed_dim", "hidden_size") and _has_stages(config):
            return value
        for pattern, rule in self._rules:
            if pattern.search(name):
                return rule(value)
        return value

    def _list(self, config: Any, name: str, value: list[int] | tuple[int, ...]) -> Any:
        if name in ("depths", "encoder_depths", "num_blocks", "layers", "depth"):
            return type(value)(min(x, 2) for x in value)
        if re.search(
            r"att\w*_(indexes|indices)$|att_block_indexes$|deepstack_visual_indexes", name
        ):
            return type(value)([1])  # the second of two layers
        if name == "image_size":
            return type(value)(self._number(config, name, x) for x in value)
        if self._rules is NARROW:
            if name == "patch_size":
                return type(value)(self._number(config, name, x) for x in value)
            if name == "conv_dim":
                return type(value)(min(x, 32) for x in value)
        return value

    def _token(self, name: str) -> int:
        stem = re.sub(r"_(token_)?(id|index)$", "", name)
        if stem in KNOWN_IDS:
            return KNOWN_IDS[stem]
        return self._ids.setdefault(stem, FIRST_FREE_ID + len(self._ids))


def _has_stages(config: Any) -> bool:
    """Whether a model has stages with heads of their own, which go with the first one's width."""
    names = ("num_heads", "num_attention_heads")
    return any(isinstance(vars(config).get(name), list | tuple) for name in names)


def _outlets(config: Any) -> int:
    """How many stages of a backbone are read by what comes after it."""
    return len(config.out_indices or ()) if getattr(config, "stage_names", None) else 0


def _stages_are_layers(config: Any) -> bool:
    """Whether a backbone's stages are its layers, as those of a ViT are."""
    return bool(getattr(config, "stage_names", None)) and not hasattr(config, "depths")


def _rope(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary embeddings split each head among axes: the parts must sum to half of it."""
    new = {name: _rope(value) if isinstance(value, dict) else value for name, value in rope.items()}
    if isinstance(rope.get("mrope_section"), list):
        half = int(HEAD_DIM * rope.get("partial_rotary_factor", 1.0)) // 2
        parts = len(rope["mrope_section"])
        new["mrope_section"] = [half // parts + (at >= parts - half % parts) for at in range(parts)]
    return new


def shrunk(config: Any, narrow: bool, overrides: dict[str, Any]) -> Any:
    """A small configuration of the same class; `overrides` are merged into what rules make."""
    changes = Shrinker(NARROW if narrow else SHALLOW).changes(config)
    return type(config)(**_merged(changes, overrides))


def _merged(changes: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(changes)
    for name, value in overrides.items():
        inner = merged.get(name)
        merged[name] = (
            _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return merged
