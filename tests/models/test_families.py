"""Models that transformers wrote are read with the same results, and the other way round."""

import dataclasses
import json
from functools import cache, cached_property

import hypothesis
import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
import transformers
from torch import nn
from transformers.models.t5.modeling_t5 import T5Attention

import pellucid
from pellucid.layers.positions import RelativeBias
from pellucid.models import Config, Encoder
from pellucid.models.architectures import KINDS
from pellucid.models.checkpoints import FAMILIES as CHECKPOINTS
from pellucid.models.checkpoints import t5
from tests.fuzzing import few_or_many
from tests.models.families import (
    FAMILIES,
    NAMES,
    SOURCE,
    STRETCHED,
    TARGET,
    WINDOW,
    build,
    exact,
    ids,
    ours,
    read,
    theirs,
    written,
)

EPS = torch.finfo(torch.float32).eps
SAME = {"mt5": "t5", "plbart": "bart", "mvp": "bart"}
"""Families whose shapes another has, which is written."""
PAIRS = [name for name in NAMES if FAMILIES[name].kind == "encoder-decoder"]


pytestmark = pytest.mark.usefixtures("quiet_transformers")


def parameters_of(model):
    return dict(model.named_parameters())


def placed(model):
    """The model, its parameters in memory of their own.

    The last bits of a product may depend on where its factors begin, and what was read from a file
    begins wherever the file has it.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def assert_same(name, one, other):
    mine, others = parameters_of(one), parameters_of(other)
    assert mine.keys() == others.keys()
    assert [part for part in mine if not torch.equal(mine[part], others[part])] == []
    assert one.config == other.config
    assert torch.equal(ours(name, placed(one)), ours(name, placed(other)))


# Reading


class Checkpoint:
    """What transformers wrote, read here and there."""

    def __init__(self, name, directory):
        self.name, self.directory = name, written(name, directory)

    @cached_property
    def model(self):
        return pellucid.load(self.directory)

    @cached_property
    def expected(self):
        return self._results[0]

    @cached_property
    def truth(self):
        return self._results[1]

    @cached_property
    def _results(self):
        """What transformers makes of it, in float32 and in float64."""
        model = placed(read(self.name, self.directory))
        return theirs(self.name, model), theirs(self.name, exact(model))


@pytest.fixture(scope="module", params=NAMES)
def family_checkpoint(request, tmp_path_factory):
    """Of each family in turn: all tests of one follow each other, and change nothing of it."""
    return Checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"))


def test_what_transformers_wrote_gives_the_same_here(family_checkpoint):
    """Our error may not be more than twice theirs and a rounding; the truth is float64."""
    name = family_checkpoint.name
    expected, truth = family_checkpoint.expected, family_checkpoint.truth
    got = ours(name, family_checkpoint.model)
    size = truth.abs().max()
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() <= 1e-5 * size
    allowed = 2 * (expected - truth).abs().max() + 8 * EPS * size
    assert (got - truth).abs().max() <= allowed
    exact_size = (1e-10 if FAMILIES[name].is_exact else 1e-5) * size
    double = pellucid.load(family_checkpoint.directory, dtype=torch.float64)
    assert (ours(name, double) - truth).abs().max() <= exact_size


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t5", {"dense_act_fn": "silu"}),
        ("t5, gated", {"feed_forward_proj": "relu", "is_gated_act": True, "dense_act_fn": "silu"}),
        ("umt5", {"dense_act_fn": "relu"}),
    ],
)
def test_what_a_t5_derives_from_its_projection_may_be_said_as_well(name, said, tmp_path):
    file = written(name, tmp_path) / "config.json"
    before = theirs(name, read(name, tmp_path))
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))
    expected = theirs(name, read(name, tmp_path))
    size = expected.abs().max()
    assert (before - expected).abs().max() > 1e-3 * size
    assert (ours(name, pellucid.load(tmp_path)) - expected).abs().max() <= 1e-5 * size


def test_what_is_saved_is_the_same_here_and_there(family_checkpoint, tmp_path):
    name, model = family_checkpoint.name, family_checkpoint.model
    model.save(tmp_path)
    assert_same(name, model, pellucid.load(tmp_path))
    kind = FAMILIES[name].maker
    again, found = kind.from_pretrained(
        tmp_path, output_loading_info=True, **FAMILIES[name].options
    )
    missing = {
        part
        for part in found["missing_keys"]
        # Sines, which transformers works out.
        if not part.startswith("pooler.") and "embed_positions" not in part
    }
    assert (missing, found["unexpected_keys"], found["mismatched_keys"]) == (set(), set(), set())
    results = theirs(name, placed(again.eval())), family_checkpoint.expected
    # Another class multiplies in another order, as that of MVP than that of BART.
    if FAMILIES[name].is_exact and not FAMILIES[name].written_as:
        assert torch.equal(*results)
    else:
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
    own = {**json.loads((tmp_path / "config.json").read_text())}
    family = name.split(",")[0]
    assert own["model_type"] == (FAMILIES[name].written_as or SAME.get(family, family))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "bart", "m2m_100", "umt5"])
def test_a_checkpoint_in_pieces(name, tmp_path):
    whole = pellucid.load(written(name, tmp_path / "whole"))
    pieces = written(name, tmp_path / "pieces", max_shard_size="20KB")
    assert len(list(pieces.glob("*.safetensors"))) > 2
    assert_same(name, whole, pellucid.load(pieces))


@pytest.mark.parametrize(
    "family_checkpoint",
    [name for name in NAMES if FAMILIES[name].base and name != "gpt2, scores as they are"],
    indirect=True,
)
def test_with_and_without_a_head(family_checkpoint, tmp_path):
    """The same model under the names of a checkpoint with a head, and of one without."""
    name = family_checkpoint.name
    family, config = FAMILIES[name], FAMILIES[name].config()
    if family.kind == "encoder":
        without = family_checkpoint.model
        whole = transformers.AutoModelForMaskedLM.from_config(config)
        getattr(whole, family.base).load_state_dict(build(name).state_dict(), strict=False)
        whole.save_pretrained(tmp_path)
        model = pellucid.load(tmp_path)
    else:
        getattr(build(name), family.base).save_pretrained(tmp_path)
        if family.kind == "decoder" and not config.tie_word_embeddings:
            with pytest.raises(OSError, match=r"fit: (lm_head|embed_out)\.\w+ is missing"):
                pellucid.load(tmp_path)
            return
        model, without = family_checkpoint.model, pellucid.load(tmp_path)
    if family.kind == "encoder-decoder":  # the bias of the logits belongs to the head
        assert without.bias is None
        model = pellucid.load(family_checkpoint.directory)
        model.bias = None
    assert torch.equal(ours(name, placed(model)), ours(name, placed(without)))


def test_a_head_of_its_own_is_used_whatever_the_config_says(tmp_path):
    model = build("gpt2")
    written("gpt2", tmp_path)
    tensors = model.state_dict()
    del tensors["lm_head.weight"]
    safetensors.torch.save_file(
        {**tensors, "lm_head.weight": torch.eye(101, 33)}, tmp_path / "model.safetensors"
    )
    got = pellucid.load(tmp_path)
    assert not got.config.tied
    expected = theirs("gpt2", read("gpt2", tmp_path))
    torch.testing.assert_close(ours("gpt2", got), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "t5", "bart"])
def test_copies_are_copies(name, tmp_path):
    """Some checkpoints have the embedding under each of its names, or under another than ours."""
    whole = pellucid.load(written(name, tmp_path))
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    shared = {"gpt2": "transformer.wte", "t5": "shared", "bart": "model.shared"}[name] + ".weight"
    table = tensors[shared]
    others = {
        "gpt2": ["lm_head"],
        "t5": ["encoder.embed_tokens", "decoder.embed_tokens", "lm_head"],
        "bart": ["model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"],
    }[name]
    copies = {f"{one}.weight": table.clone() for one in others}
    safetensors.torch.save_file(tensors | copies, tmp_path / "model.safetensors")
    assert_same(name, whole, pellucid.load(tmp_path))
    del tensors[shared]
    safetensors.torch.save_file(tensors | copies, tmp_path / "model.safetensors")
    assert_same(name, whole, pellucid.load(tmp_path))
    if name != "gpt2":
        wrong = copies | {others[1] + ".weight": table + 1, shared: table}
        safetensors.torch.save_file(tensors | wrong, tmp_path / "model.safetensors")
        with pytest.raises(OSError, match=rf"{others[1]}\.weight differs from {shared}"):
            pellucid.load(tmp_path)


def test_old_masks_of_gpt2_are_left_out(tmp_path):
    whole = pellucid.load(written("gpt2", tmp_path))
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 53, 53) for layer in range(2)}
    safetensors.torch.save_file(tensors | masks, tmp_path / "model.safetensors")
    assert_same("gpt2", whole, pellucid.load(tmp_path))


# What configs say


def change(directory, **values):
    path = directory / "config.json"
    said = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in said.items() if value != "gone"}))


@pytest.mark.parametrize("name", ["llama", "llama, linear", "llama, stretched"])
def test_rotary_positions_as_older_configs_say_them(name, tmp_path):
    model = pellucid.load(written(name, tmp_path))
    rope = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    theta = rope.pop("rope_theta")
    if rope["rope_type"] == "linear":  # older still
        rope = {"type": "linear", "factor": rope["factor"]}
    scaling = None if name == "llama" else rope
    change(tmp_path, rope_parameters="gone", rope_theta=theta, rope_scaling=scaling)
    assert_same(name, model, pellucid.load(tmp_path))


def test_a_window_hides_what_is_further_away(tmp_path):
    model = pellucid.load(written("mistral", tmp_path))
    assert model.config.window == WINDOW
    changed = ids()
    changed[:, 0] = 4 + (changed[:, 0] - 3) % 97
    with torch.no_grad():
        before, after = model(ids()), model(changed)
    reach = model.config.layers * (WINDOW - 1)  # each layer sees so many tokens further
    assert torch.equal(before[:, reach + 1 :], after[:, reach + 1 :])
    assert not torch.equal(before[:, reach], after[:, reach])


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
        ("marian", {"decoder_vocab_size": 17}, "decoder_vocab_size = 17; only 101 is supported"),
        ("marian", {"normalize_before": True}, "normalize_before = True"),
        ("bart", {"decoder_ffn_dim": 41}, "decoder_ffn_dim = 41; only 37 is supported"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"activation_function": "tanh"}, "its activation is 'tanh'; known are relu, "),
        ("bert", {"is_decoder": True}, "is_decoder = True"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "mrope", "factor": 2.0}},
            "rotary scaling must be default, linear, dynamic, yarn, longrope, llama3, not 'mrope'",
        ),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "needs a number factor, not None"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 0}},
            "rotary scaling's factor must be above 0, not 0",
        ),
        (
            "llama",
            {"rope_parameters": {**STRETCHED, "factor": -8.0}},
            "rotary scaling's factor must be above 0, not -8.0",
        ),
        (
            "llama",
            {"rope_parameters": {**STRETCHED, "high_freq_factor": 1.0}},
            "high_freq_factor 1.0 must be above its low_freq_factor 1.0",
        ),
        ("llama", {"rope_parameters": {"rope_theta": 0}}, "rope_theta must be above 0, not 0.0"),
        ("t5", {"relative_attention_max_distance": 5}, "distance must be above 5, since the first"),
        ("t5", {"relative_attention_num_buckets": 3}, "relative_buckets must be at least 4, not 3"),
        (
            "t5",
            {"relative_attention_num_buckets": 10**20, "relative_attention_max_distance": 10**21},
            "its config.json has a value that does not fit: ",
        ),
        ("llama", {"head_dim": 2 * 10**12}, "its config.json describes a model with at least"),
        ("llama", {"quantization_config": {"bits": 4}}, "its weights are quantised"),
    ],
)
def test_what_a_family_can_be_and_ours_cannot_is_refused(name, values, reason, tmp_path):
    written(name, tmp_path)
    change(tmp_path, **values)
    with pytest.raises(OSError, match="cannot be opened") as caught:
        pellucid.load(tmp_path)
    assert reason in str(caught.value)


def test_mistral_whose_layers_see_all_has_no_window(tmp_path):
    written("mistral", tmp_path)
    change(tmp_path, layer_types=["full_attention"] * 2)
    assert pellucid.load(tmp_path).config.window is None


def test_ids_that_the_settings_of_generation_say_go_before(tmp_path):
    written("llama", tmp_path)
    settings = {"eos_token_id": [5, 7], "bos_token_id": 11}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    change(tmp_path, eos_token_id="gone")
    config = pellucid.load(tmp_path).config
    assert (config.stop, config.start, config.padding) == ((5, 7), 11, 0)


@pytest.mark.parametrize("name", PAIRS)
def test_where_a_target_begins_and_ends(name, tmp_path):
    config = pellucid.load(written(name, tmp_path)).config
    start = 0 if "t5" in name else 3
    assert (config.start, config.stop, config.padding) == (start, (2,), 0)


@pytest.mark.parametrize(("buckets", "distance"), [(10, 7), (10, 10), (6, 4), (7, 5)])
@pytest.mark.parametrize("causal", [False, True])
def test_few_distances_share_buckets_as_in_transformers(buckets, distance, causal):
    apart = torch.arange(-23, 24)
    expected = T5Attention._relative_position_bucket(apart, not causal, buckets, distance)
    assert torch.equal(RelativeBias(3, buckets, distance, causal)._bucket(apart), expected)


@pytest.mark.parametrize(("tied", "scale"), [(True, 33**-0.5), (False, 1.0)])
def test_an_untied_umt5_is_not_scaled(tied, scale):
    """As it was trained; transformers has scaled its logits since version 5."""
    said = FAMILIES["umt5"].config().to_dict() | {"tie_word_embeddings": tied}
    assert t5.read(said).logit_scale == scale


# Writing


def test_our_own_fields_come_back_with_a_family_s_config(tmp_path):
    model = Encoder(
        Config(
            kind="encoder",
            vocabulary=31,
            width=12,
            layers=1,
            heads=2,
            hidden=14,
            embedding_norm=True,
            position="learned",
            positions=17,
            types=2,
            dropout=0.25,
        )
    )
    model.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    assert pellucid.load(tmp_path).config == model.config
    # Once somebody has changed theirs, theirs counts.
    change(tmp_path, layer_norm_eps=0.5)
    again = pellucid.load(tmp_path).config
    assert (again.norm_eps, again.dropout) == (0.5, 0.0)


SMALL = {"vocabulary": 31, "width": 12, "heads": 3}
SHAPES = {
    "alibi": Config(kind="decoder", **SMALL, position="alibi"),
    "the paper's": Config(kind="encoder-decoder", **SMALL),
    "no positions": Config(kind="encoder", **SMALL, position="none"),
    "gpt2 with a window": Config(
        kind="decoder",
        **SMALL,
        norm_first=True,
        position="learned",
        window=3,
    ),
    "gpt2 with gates": Config(
        kind="decoder",
        **SMALL,
        norm_first=True,
        position="learned",
        gated=True,
    ),
    "llama with a scale": Config(
        kind="decoder",
        **SMALL,
        kv_heads=1,
        norm="rms",
        norm_first=True,
        gated=True,
        position="rotary",
        rope_scaling=(("rope_type", "linear"), ("factor", 2.0)),
        logit_scale=0.5,
        embedding_norm=True,
    ),
    "an encoder with the parts of llama": Config(
        kind="encoder",
        **SMALL,
        norm="rms",
        norm_first=True,
        gated=True,
        bias=False,
        activation="silu",
        position="rotary",
        head_norm=True,
    ),
    "t5, scaled otherwise": Config(
        kind="encoder-decoder",
        **SMALL,
        norm="rms",
        norm_first=True,
        bias=False,
        position="relative",
        attention_scale=1.0,
        logit_scale=0.5,
        stop=(2, 5),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_no_family_has_comes_back_as_it_was(name, tmp_path):
    config = SHAPES[name]
    torch.manual_seed(5)
    model = KINDS[config.kind](config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "pellucid"
    again = pellucid.load(tmp_path)
    assert again.config == config
    inputs = [ids(7) % 31, ids(5) % 31][: 1 + (config.kind == "encoder-decoder")]
    with torch.no_grad():
        assert torch.equal(placed(model)(*inputs), placed(again)(*inputs))
    mine, others = parameters_of(model), parameters_of(again)
    assert [part for part in mine if not torch.equal(mine[part], others[part])] == []


def test_an_encoder_that_was_saved_under_the_name_of_a_decoder_still_loads(tmp_path):
    model = Encoder(SHAPES["an encoder with the parts of llama"])
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    former = {"model_type": "llama", "pellucid": config}
    (tmp_path / "config.json").write_text(json.dumps(former))
    assert pellucid.load(tmp_path).config == model.config


# Watching


def test_every_attention_is_watched(family_checkpoint):
    name, model = family_checkpoint.name, family_checkpoint.model
    plain = ours(name, model)
    output, seen = ours(name, model, watch=True)
    with pellucid.watch(model) as also:
        ours(name, model)
    wanted = [f"{FAMILIES[name].kind}.blocks.{layer}.attention" for layer in range(2)]
    if FAMILIES[name].kind == "encoder-decoder":
        wanted = [f"encoder.blocks.{layer}.attention" for layer in range(2)]
        for layer in range(3):
            wanted += [f"decoder.blocks.{layer}.{part}" for part in ("attention", "cross")]
    assert seen.names == also.names == wanted
    assert not seen.unseen
    torch.testing.assert_close(output, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("bert", "llama", "mistral", "t5", "marian"),
        *("gemma2", "gemma3_text", "gpt_oss", "bloom", "mpt", "cohere2", "smollm3", "gptj"),
        *("gpt_neo", "phi3", "olmo2", "stablelm", "falcon, new", "llama, yarn", "mixtral"),
    ],
)
def test_the_weights_are_those_of_transformers(name, tmp_path):
    written(name, tmp_path)
    model = read(name, tmp_path, attn_implementation="eager")
    given = {"input_ids": ids()}
    if FAMILIES[name].kind == "encoder-decoder":
        given["decoder_input_ids"] = ids(TARGET)
    with torch.no_grad():
        found = model(**given, output_attentions=True)
    _, seen = ours(name, pellucid.load(tmp_path), watch=True)
    if FAMILIES[name].kind == "encoder-decoder":
        expected = {
            "encoder.blocks.{}.attention": found.encoder_attentions,
            "decoder.blocks.{}.attention": found.decoder_attentions,
            "decoder.blocks.{}.cross": found.cross_attentions,
        }
    else:
        expected = {FAMILIES[name].kind + ".blocks.{}.attention": found.attentions}
    for place, layers in expected.items():
        for layer, weights in enumerate(layers):
            got = seen[place.format(layer)].dense()
            assert got.shape[-1] in (SOURCE, TARGET)
            torch.testing.assert_close(got, weights, rtol=1e-4, atol=2e-6)


def test_nothing_of_theirs_is_left_in_ours(tmp_path):
    model = pellucid.load(written("bert", tmp_path))
    assert all(type(part).__module__.startswith(("pellucid", "torch")) for part in model.modules())
    assert not any(isinstance(value, nn.Buffer) for value in model.buffers())


# What each family claims

VALUES = {
    "layers": [1, 3],
    "decoder_layers": [None, 2, 5],
    "kv_heads": [None, 1],
    "head_dim": [None, 2, 8],
    "norm": ["layer", "rms"],
    "norm_eps": [1e-5, 1e-12],
    "norm_weight": [False, True],
    "norm_bias": [False, True],
    "norm_offset": [False, True],
    "norm_first": [False, True],
    "branch_norms": ["before", "after", "both"],
    "parallel": [False, True],
    "shared_norm": [False, True],
    "residual_scale": [1.0, 0.7],
    "embedding_norm": [False, True],
    "head_norm": [False, True],
    "head_norm_kind": ["shared", "own", "joint"],
    "activation": ["relu", "relu_squared", "gelu", "gelu_tanh", "quick_gelu", "silu"],
    "gated": [False, True],
    "feed_clamp": [None, 7.0],
    "up_offset": [0.0, 1.0],
    "experts": [0, 4],
    "experts_used": [1, 3],
    "experts_normalised": [False, True],
    "expert_hidden": [None, 13],
    "shared_hidden": [0, 11],
    "dense_layers": [(), (0,)],
    "bias": [False, True],
    "qkv_bias": [None, False, True],
    "output_bias": [None, False, True],
    "position": ["sinusoidal", "learned", "rotary", "relative", "alibi", "none"],
    "positions": [53, 61],
    "position_offset": [0, 1, 2],
    "interleaved": [False, True],
    "inclusive": [False, True],
    "rope_theta": [1e4, 5e5],
    "rope_scaling": [(), (("rope_type", "linear"), ("factor", 2.0))],
    "rotary_dim": [None, 2, 4],
    "rotary_pairs": ["halves", "neighbours"],
    "rotary_layers": [None, (), (0,)],
    "relative_buckets": [8, 32],
    "relative_distance": [128, 64],
    "relative_each": [False, True],
    "window": [None, 5],
    "relative_bias": [False, True],
    "first_norm": [True, False],
    "hidden_bias": [None, False, True],
    "window_layers": [None, (0,)],
    "window_theta": [None, 100.0],
    "score_softcap": [None, 3.0],
    "sinks": [False, True],
    "qkv_clip": [None, 8.0],
    "types": [0, 2],
    "embedding_width": [None, 22],
    "shared_blocks": [False, True],
    "causal": [False, True],
    "embedding_scale": [1.0, 0.5, 8.0],
    "attention_scale": [None, 1.0, 0.3],
    "tied": [False, True],
    "logit_scale": [1.0, 0.125],
    "logit_softcap": [None, 3.0],
    "logit_bias": [False, True],
    "padding": [None, 0, 1],
    "stop": [(), (2,), (2, 5)],
    "start": [None, 3],
}
NOT_SAID = {"dropout", "pooling", "normalised", "most_tokens", "start", "stop", "padding"}


@cache
def shape_of(name):
    """A family's config as ours."""
    config = FAMILIES[name].config()
    base = next(one for one in CHECKPOINTS if config.model_type in one.types)
    return base.read(config.to_dict())


@st.composite
def configs(draw):
    """A family's shape, and up to three fields of it changed."""
    config = shape_of(draw(st.sampled_from(NAMES)))
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3))
    changed = {name: draw(st.sampled_from(VALUES[name])) for name in names}
    try:
        return dataclasses.replace(config, **changed)
    except pellucid.PellucidError:
        return config


@pytest.mark.parametrize("name", NAMES)
def test_a_family_of_one_kind_claims_no_other(name):
    said = shape_of(name)
    for kind in {"encoder", "decoder", "encoder-decoder"} - {said.kind}:
        try:
            other = dataclasses.replace(said, kind=kind)
        except pellucid.PellucidError:  # of no such kind
            continue
        for one in CHECKPOINTS:
            written_as = one.write(other)
            assert written_as is None or one.read(written_as).kind == kind


@few_or_many(50, 200)
def test_what_a_family_claims_it_can_say(examples):
    """What a family writes of a shape it reads as the same shape."""

    @examples
    @hypothesis.given(configs())
    def holds(config):
        check_claims(config)

    holds()


def check_claims(config):
    claims = [(one, one.write(config)) for one in CHECKPOINTS]
    claims = [(one, said) for one, said in claims if said is not None]
    expected = shapes(config) if claims else {}
    for one, said in claims:
        assert said["model_type"] in one.types
        again = one.read(json.loads(json.dumps(said)))
        unsaid = NOT_SAID | {"logit_bias"}  # which is as the tensors say
        unsaid |= {"positions"} if config.position == "relative" else set()
        unsaid |= {
            "kv_heads",
            "head_dim",
            "qkv_bias",
            "output_bias",
            "hidden_bias",
            "decoder_layers",
        }
        for field in dataclasses.fields(Config):
            if field.name not in unsaid and field.name not in unused(config):
                assert getattr(again, field.name) == getattr(config, field.name), field.name
        assert again == config or shapes(again) == expected
        assert scale(again) == scale(config)


def scale(config):
    return config.dim**-0.5 if config.attention_scale is None else config.attention_scale


def unused(config):
    """Fields that make no difference to this config."""
    found = set()
    for position, names in {
        "sinusoidal": ["interleaved", "inclusive"],
        "rotary": [
            *("rope_theta", "rope_scaling", "rotary_dim", "rotary_pairs", "rotary_layers"),
            "window_theta",
        ],
    }.items():
        found |= set(names) if config.position != position else set()
    if config.position not in ("sinusoidal", "learned"):
        found.add("position_offset")
    found |= (
        set() if config.has_buckets else {"relative_buckets", "relative_distance", "relative_each"}
    )
    if config.kind == "encoder":
        found |= {"tied", "logit_scale", "logit_softcap"}
    every = tuple(range(config.layers))
    found |= {name for name in ("window_layers", "rotary_layers") if getattr(config, name) == every}
    if config.window is None:
        found |= {"window_layers", "window_theta"}
    if config.window_theta in (None, config.rope_theta) and not config.rope_scaling:
        found.add("window_theta")
    if not config.experts:
        found |= {"experts_used", "experts_normalised", "expert_hidden", "shared_hidden"}
        found.add("dense_layers")
    if config.expert_hidden in (None, config.hidden):
        found.add("expert_hidden")  # as the shapes show
    if not config.head_norm:
        found.add("head_norm_kind")
    if not config.norm_weight:
        found |= {"norm_bias", "norm_offset"}
    if config.norm == "rms":
        found.add("norm_bias")
    if config.rotary_dim == config.dim:
        found.add("rotary_dim")
    found.add("attention_scale")  # see `scale`
    return found


def shapes(config):
    """Names and shapes of all parameters, but that of the logits' bias."""
    config = dataclasses.replace(config, logit_bias=False)
    with torch.device("meta"):
        model = KINDS[config.kind](config)
    return {name: tuple(value.shape) for name, value in model.named_parameters()}
