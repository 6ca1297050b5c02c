"""Adapters of peft, merged on loading, give what peft gives."""

import json
import warnings

import peft
import pytest
import torch

import pellucid
from pellucid.errors import FileError
from pellucid.readers.opening import open_checkpoint
from tests.models.families import FAMILIES, build, exact, ours, read, theirs, written

CASES = {
    "llama": {"target_modules": ["q_proj", "down_proj", "embed_tokens"], "bias": "lora_only"},
    "llama, biases": {"target_modules": ["v_proj"], "bias": "all", "use_rslora": True},
    "gpt2": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    "gpt2, scores as they are": {
        "target_modules": ["c_fc"],
        "fan_in_fan_out": True,
        "use_dora": True,
    },
    "qwen3": {
        "target_modules": ["k_proj", "o_proj"],
        "use_dora": True,
        "modules_to_save": ["norm"],
    },
    "bert": {
        "target_modules": ["query", "dense"],
        "rank_pattern": {"layer.1.*query": 3},
        "alpha_pattern": {"layer.1.*query": 5},
    },
    "t5": {"target_modules": ["q", "wo"]},
    "bart": {"target_modules": ["q_proj", "fc1"]},
}


def adapted(name, directory, base, **options):
    """Write an adapter of a base model; gives the model as peft has it."""
    given = {"r": 4, "lora_alpha": 7, **CASES.get(name, {}), **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(build(name), peft.LoraConfig(**given)).eval()
        torch.manual_seed(43)
        for key, parameter in model.named_parameters():
            if "lora" in key or parameter.requires_grad:
                drawn_like = torch.randn_like(parameter) * 0.3
                parameter.data.add_(drawn_like.abs() if "magnitude" in key else drawn_like)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("name", CASES)
def test_merged_it_is_what_peft_computes(name, tmp_path):
    base = written(name, tmp_path / "base")
    model = adapted(name, tmp_path / "adapter", base)
    got = pellucid.load(tmp_path / "adapter", base=base)
    expected = theirs(name, model)
    size = expected.abs().max()
    assert (ours(name, got) - expected).abs().max() <= 1e-5 * size
    assert (ours(name, pellucid.load(base)) - expected).abs().max() > 1e-2 * size
    truth = theirs(name, exact(model))
    in_double = ours(name, pellucid.load(tmp_path / "adapter", base=base, dtype=torch.float64))
    assert (in_double - truth).abs().max() <= 1e-10 * size
    got.save(tmp_path / "merged")
    merged = theirs(name, read(name, tmp_path / "merged"))
    assert (merged - expected).abs().max() <= 1e-5 * size
    assert FAMILIES[name].config().vocab_size == got.config.vocabulary


TIED = {
    "embedding": ("llama, tied", {"target_modules": ["embed_tokens"]}),
    "embedding of GPT-2": ("gpt2", {"target_modules": ["wte"]}),
    "embedding, by DoRA": ("llama, tied", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "embedding, whole": ("llama, tied", {"modules_to_save": ["embed_tokens"]}),
    "head": ("llama, tied", {"target_modules": ["lm_head"]}),
    "head, whole": ("llama, tied", {"modules_to_save": ["lm_head"]}),
    "head of T5": ("t5", {"target_modules": ["lm_head"], "fan_in_fan_out": False}),
    "both, each its own": ("llama, tied", {"target_modules": ["embed_tokens", "lm_head"]}),
    "both, kept tied": (
        "llama, tied",
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    ),
}
"""What an adapter may change of a model whose head is its embedding."""


@pytest.mark.parametrize("case", TIED)
def test_of_a_tied_model_only_what_an_adapter_names_changes(case, tmp_path):
    name, options = TIED[case]
    base = written(name, tmp_path / "base")
    given = {"fan_in_fan_out": False, "target_modules": ["q_proj"], **options}
    model = adapted(name, tmp_path / "adapter", base, **given)
    got = pellucid.load(tmp_path / "adapter", base=base)
    expected, before = theirs(name, model), ours(name, pellucid.load(base))
    size = expected.abs().max()
    assert (ours(name, got) - expected).abs().max() <= 1e-5 * size
    assert (before - expected).abs().max() > 1e-2 * size
    got.save(tmp_path / "merged")
    merged = theirs(name, read(name, tmp_path / "merged"))
    assert (merged - expected).abs().max() <= 1e-5 * size


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t5", {"target_modules": ["shared"]}),
        ("bart", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    ],
)
def test_an_embedding_that_encoder_and_decoder_share_is_refused(name, options, tmp_path):
    base = written(name, tmp_path / "base")
    adapted(name, tmp_path / "adapter", base, **options)
    with pytest.raises(FileError, match="which the base model's encoder and decoder share; merge"):
        pellucid.load(tmp_path / "adapter", base=base)


def test_a_base_inside_the_adapter_s_directory(tmp_path):
    written("bert", tmp_path / "base")
    model = adapted("bert", tmp_path, "base")
    torch.testing.assert_close(
        ours("bert", pellucid.load(tmp_path)), theirs("bert", model), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"peft_type": "IA3"}, "has peft_type 'IA3'; only 'LORA' can be merged"),
        (
            {"use_qalora": True},
            r"sets use_qalora, which is not supported; merge it with peft: model",
        ),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', which changes the base model"),
        ({"alpha_pattern": {"(a*)*b": 3}}, "alpha_pattern of another form"),
        ({"task_type": "SEQ_CLS"}, r"of a classifier \(SEQ_CLS\), but the base model's config"),
        ({"lora_alpha": "much"}, "a value that does not fit"),
        ({"base_model_name_or_path": None}, "has no base_model_name_or_path"),
        (
            {"base_model_name_or_path": "a/b"},
            r"names the base model 'a/b', which is not in its directory; .* --model ADAPTER\+BASE",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused(changes, told, tmp_path):
    adapted("bert", tmp_path / "adapter", written("bert", tmp_path / "base"))
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    named = None if "base_model_name_or_path" in changes else tmp_path / "base"
    with pytest.raises(FileError, match=told):
        pellucid.load(tmp_path / "adapter", base=named)


def test_a_stranger_s_adapter_names_no_file_outside_it(tmp_path):
    base = written("bert", tmp_path / "base")
    for said in (base, "../base"):
        adapted("bert", tmp_path / "adapter", said)
        with pytest.raises(FileError, match="which is not in its directory; if that is the model"):
            pellucid.load(tmp_path / "adapter")
    (tmp_path / "adapter" / "inner").symlink_to(base)
    with pytest.raises(FileError, match="link"):
        pellucid.load(tmp_path / "adapter", base=base)
    (tmp_path / "adapter" / "inner").unlink()
    one, other = (
        pellucid.load(f"{tmp_path / 'adapter'}+{base}"),
        pellucid.load(tmp_path / "adapter", base=base),
    )
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    with pytest.raises(FileError, match="it has no adapter that could change a base model"):
        pellucid.load(base, base=base)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    adapted("bert", tmp_path / "adapter", written("roberta", tmp_path / "base"))
    other = written("gpt2", tmp_path / "other")
    with pytest.raises(FileError, match=r"its adapter changes encoder\.layer\.0.*does not store"):
        pellucid.load(tmp_path / "adapter", base=other)


def test_an_adapter_that_is_pickled_is_refused(tmp_path):
    adapted("bert", tmp_path / "adapter", written("bert", tmp_path / "base"))
    (tmp_path / "adapter/adapter_model.safetensors").rename(tmp_path / "adapter/adapter_model.bin")
    with pytest.raises(FileError, match=r"pickled \(adapter_model\.bin\).*peft: model\.merge"):
        pellucid.load(tmp_path / "adapter", base=tmp_path / "base")


def test_a_directory_with_a_model_and_an_adapter_asks_which_is_meant(tmp_path):
    base = written("bert", tmp_path / "base")
    model = adapted("bert", tmp_path / "base", base)
    for open_it in (pellucid.load, open_checkpoint):
        with pytest.raises(FileError, match=r"both a model .*: --model DIRECTORY\+DIRECTORY"):
            open_it(str(base))
    both = pellucid.load(base, base=base)
    torch.testing.assert_close(ours("bert", both), theirs("bert", model), rtol=1e-5, atol=1e-5)
    named = pellucid.load(f"{base}+{base}")
    assert all(map(torch.equal, named.state_dict().values(), both.state_dict().values()))
    (base / "config.json").unlink()
    (base / "model.gguf").touch()
    for open_it in (pellucid.load, open_checkpoint):
        with pytest.raises(FileError, match=r"both a \.gguf file and an adapter .*: model\.gguf$"):
            open_it(str(base))
