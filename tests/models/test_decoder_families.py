"""Decoders write what transformers writes, and read configs and checkpoints of every age."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch
import transformers

import pellucid
from pellucid.models.checkpoints import FAMILIES as CHECKPOINTS
from pellucid.models.checkpoints import llama
from pellucid.models.checkpoints.family import is_same
from tests.models.decoder_families import DECODERS, LONG, ORIGINAL, WIDE
from tests.models.families import FAMILIES, build, ids, ours, read, theirs, written

NEEDED = {  # by any model
    *("vocab_size", "hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "n_layers"),
    *("num_layers", "num_attention_heads", "n_head", "n_heads", "num_heads", "intermediate_size"),
    "ffn_dim",
}
NAMES, PROMPT, NEW = list(DECODERS), 11, 8
EXPERTS = [name for name in NAMES if FAMILIES[name].has_experts and name != "gpt_oss"]


pytestmark = pytest.mark.usefixtures("quiet_transformers")


def greedy(model, prompt):
    """The most probable continuation, and the logits of each of its tokens."""
    cache, text, made = model.cache(len(prompt), PROMPT + NEW), prompt, []
    with torch.no_grad():
        for _ in range(NEW):
            made.append(model(text[:, -1:] if made else text, cache=cache, last=True))
            text = torch.cat([text, made[-1].argmax(-1, keepdim=True)], 1)
    return text, torch.stack(made, 1)


# transformers keeps keys that were rotated for a shorter text, but in Phi 3.
KEEPS_SHORT = {"llama, longrope"}
# So do we, as transformers does, where each length has its own frequencies.
CHANGES = {"llama, dynamic"}


@pytest.mark.parametrize("name", NAMES)
def test_greedy_text_is_that_of_transformers_and_of_full_passes(name, tmp_path):
    model, prompt = pellucid.load(written(name, tmp_path)), ids(PROMPT)
    text, logits = greedy(model, prompt)
    if name not in KEEPS_SHORT:
        settings = transformers.GenerationConfig(
            max_new_tokens=NEW, do_sample=False, pad_token_id=0
        )
        peer = read(name, tmp_path)
        peer.generation_config = settings
        assert text.tolist() == peer.generate(prompt).tolist()
    if name not in CHANGES:
        with torch.no_grad():
            full = [model(text[:, :end])[:, -1] for end in range(PROMPT, PROMPT + NEW)]
        full = torch.stack(full, 1)
        assert (logits - full).abs().max() <= 1e-5 * full.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_is_missing_means_what_it_means_to_transformers(name):
    config = FAMILIES[name].config()
    family = next(one for one in CHECKPOINTS if config.model_type in one.types)
    said = json.loads(config.to_json_string(use_diff=False))
    tried = 0
    for key in said.keys() - {"model_type", *NEEDED}:
        left = {one: value for one, value in said.items() if one != key}
        try:
            meant = type(config).from_dict(json.loads(json.dumps(left)))
            expected = family.read(json.loads(meant.to_json_string(use_diff=False)))
        except (ValueError, TypeError, ZeroDivisionError, AttributeError, RuntimeError):
            continue  # its sizes do not fit those of a tiny model
        except Exception as error:
            if type(error).__name__.startswith("Strict"):
                continue
            raise
        got = family.read(json.loads(json.dumps(left)))
        assert is_same(got, expected), key
        assert marks_of(got) == marks_of(expected), key
        tried += 1
    assert tried > 5


def marks_of(config):
    return config.start, config.stop, config.padding


# Checkpoints of other ages


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_in_one_tensor(name, tmp_path):
    """As transformers 5 has them in memory, and writes them if asked to."""
    model = build(name)
    model.save_pretrained(tmp_path / "each")
    model.save_pretrained(tmp_path / "together", save_original_format=False)
    stored = safetensors.torch.load_file(tmp_path / "together/model.safetensors")
    assert any(part.endswith("experts.gate_up_proj") for part in stored)
    each, together = (pellucid.load(tmp_path / part) for part in ("each", "together"))
    assert torch.equal(ours(name, each), ours(name, together))


def test_old_masks_of_gpt_neox_are_left_out(tmp_path):
    whole = pellucid.load(written("gpt_neox", tmp_path))
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    for part in ("bias", "masked_bias", "rotary_emb.inv_freq"):
        tensors[f"gpt_neox.layers.0.attention.{part}"] = torch.ones(3)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(ours("gpt_neox", pellucid.load(tmp_path)), ours("gpt_neox", whole))


def changed(name, directory, **values):
    """The model, after a change of its config.json; None takes a key away."""
    file = directory / "config.json"
    said = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in said.items() if value != "gone"}))
    expected = theirs(name, read(name, directory))
    got = ours(name, pellucid.load(directory))
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    return pellucid.load(directory).config


def test_the_two_thetas_of_gemma_3_as_older_configs_say_them(tmp_path):
    written("gemma3_text", tmp_path)
    config = changed(
        "gemma3_text",
        tmp_path,
        rope_parameters="gone",
        layer_types="gone",
        sliding_window_pattern=2,
        rope_theta=1000.0,
        rope_local_base_freq=100.0,
        rope_scaling={"rope_type": "linear", "factor": 3.0},
    )
    assert (config.rope_theta, config.window_theta, config.window_layers) == (1000, 100, (0,))


def test_the_activation_of_old_gemmas(tmp_path):
    written("gemma", tmp_path)
    assert changed("gemma", tmp_path, hidden_act="gelu").activation == "gelu_tanh"


def test_longrope_as_phi_3_called_it_first(tmp_path):
    written("phi3, long", tmp_path)
    scaling = {"type": "yarn", "short_factor": LONG["short_factor"], "long_factor": [1.7] * 5}
    config = changed(
        "phi3, long", tmp_path, rope_parameters="gone", rope_theta=1000.0, rope_scaling=scaling
    )
    assert dict(config.rope_scaling)["rope_type"] == "longrope"
    said = json.loads((tmp_path / "config.json").read_text())
    said["rope_scaling"]["type"] = "su"  # which transformers 5 no longer reads
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert pellucid.load(tmp_path).config == config


def test_parts_of_heads_as_older_configs_say_them(tmp_path):
    written("stablelm", tmp_path)
    config = changed(
        "stablelm",
        tmp_path,
        rope_parameters="gone",
        partial_rotary_factor=0.6,
        rope_theta=1000.0,
        rope_scaling={"type": "dynamic", "factor": 2.0},
    )
    assert (config.rotary_dim, config.positions) == (6, 106)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("gemma2", {"layer_types": ["full_attention"]}, "1 layer_types for 2 layers"),
        ("gemma3_text", {"layer_types": ["chunked"] * 2}, "its layer_types are chunked, which are"),
        ("gemma2", {"use_bidirectional_attention": True}, "tokens see later ones"),
        ("falcon", {"alibi": True}, "alibi = True; only False is supported"),
        ("opt", {"word_embed_proj_dim": 11}, "embeddings are 11 wide and its blocks 33"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "qk_ln = True"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "post_layernorm = True"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "layers with a window stretch or rotate otherwise",
        ),
        (
            "phi3, long",
            {"rope_scaling": {**LONG, "short_factor": [1.0]}},
            "rotary scaling 'longrope' needs 5 numbers short_factor, all above 0",
        ),
        ("mixtral", {"num_experts_per_tok": 6}, "experts_used 6 is above the number of experts"),
        ("mixtral", {"num_local_experts": 4}, r"block_sparse_moe.gate.weight is (5, 66), not (4"),
    ],
)
def test_what_is_not_supported_is_refused(name, values, reason, tmp_path):
    written(name, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    with pytest.raises(OSError, match="cannot be opened") as caught:
        pellucid.load(tmp_path)
    assert reason in str(caught.value)


def test_texts_past_the_length_of_pretraining_are_computed_anew(tmp_path):
    """Whatever the pieces in which a cache gets them, and if they differ in length."""
    model = pellucid.load(written("llama, longrope", tmp_path))
    text = ids(23)
    with torch.no_grad():
        full = model(text)
        for sizes in ([15, 8], [16, 1, 6], [3, 20]):
            cache, parts = model.cache(2, 23), text.split(sizes, 1)
            last = [model(part, cache=cache) for part in parts][-1]
            assert (last - full[:, -sizes[-1] :]).abs().max() <= 1e-5 * full.abs().max()
        cache = model.cache(2, 23)
        model(text[:, :15], cache=cache, lengths=torch.tensor([15, 11]))
        model(torch.stack([text[0, 15:17], text[1, 11:13]]), cache=cache)
        last = model(torch.stack([text[0, 17:18], text[1, 13:14]]), cache=cache, last=True)
    assert (last[0] - model(text[:1, :18])[0, -1]).abs().max() <= 1e-5 * full.abs().max()
    assert cache.start.tolist() == [18, 14]
    assert WIDE["max_position_embeddings"] > 23 > LONG[ORIGINAL]


def test_positions_that_dynamic_scaling_does_not_give_are_not_written(tmp_path):
    config = pellucid.load(written("llama, dynamic", tmp_path)).config
    assert config.positions == 51
    assert llama.write(config) is not None
    assert llama.write(dataclasses.replace(config, positions=53)) is None
