"""What is wrong with a checkpoint is said, and nothing is half written."""

import dataclasses
import errno
import json
import os
import re
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch

import pellucid
from pellucid.errors import ArgumentError, FileError, TypeMismatchError
from pellucid.models import Config, Decoder, Encoder
from pellucid.models.checkpoints import FAMILIES
from pellucid.models.checkpoints.family import Family
from pellucid.models.checkpoints.weight_files import Tensors, as_large_as_stored
from pellucid.readers import open_checkpoint

UNFIT = "its config.json has a value that does not fit: "
SHAPE = {
    "vocabulary": 31,
    "width": 12,
    "layers": 2,
    "heads": 3,
    "hidden": 14,
    "position": "learned",
    "positions": 17,
}
BERT = Config(kind="encoder", embedding_norm=True, types=2, **SHAPE)
GPT2 = Config(kind="decoder", norm_first=True, **SHAPE)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "model"
    Encoder(BERT).save(path)
    return path


def problem(directory):
    """The message of what is wrong; it names the directory."""
    with pytest.raises(FileError) as caught:
        pellucid.load(directory)
    message = str(caught.value)
    assert message.startswith(f"model '{directory}' ")
    assert "\n" not in message
    return message.removeprefix(f"model '{directory}' ").removeprefix("cannot be opened: ")


def change(directory, **values):
    path = directory / "config.json"
    said = {**json.loads(path.read_text()), **values}
    said.pop("pellucid", None)
    path.write_text(json.dumps({name: value for name, value in said.items() if value != "gone"}))


def tensors_of(directory):
    return safetensors.torch.load_file(directory / "model.safetensors")


def put(directory, tensors):
    safetensors.torch.save_file(tensors, directory / "model.safetensors")


# Tensors


def test_all_tensors_that_do_not_fit_are_named(directory):
    tensors = tensors_of(directory)
    del tensors["embeddings.word_embeddings.weight"], tensors["encoder.layer.1.output.dense.bias"]
    tensors["encoder.layer.0.intermediate.dense.weight"] = torch.zeros(14, 13)
    tensors["encoder.layer.2.output.dense.weight"] = torch.zeros(3)
    tensors["encoder.layer.0.output.dense.bias"] = torch.zeros(12, dtype=torch.int8)
    put(directory, tensors)
    assert problem(directory) == (
        "5 tensors do not fit: bert.embeddings.word_embeddings.weight is missing; "
        "encoder.layer.0.intermediate.dense.weight is (14, 13), not (14, 12); "
        "encoder.layer.0.output.dense.bias is of torch.int8, not of floating-point numbers; "
        "bert.encoder.layer.1.output.dense.bias is missing; "
        "encoder.layer.2.output.dense.weight is unexpected"
    )


def test_a_tensor_of_three_of_ours(tmp_path):
    Decoder(GPT2).save(tmp_path)
    tensors = tensors_of(tmp_path)
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (12, 36)
    tensors["transformer.h.0.attn.c_attn.weight"] = torch.zeros(36, 12)
    put(tmp_path, tensors)
    assert problem(tmp_path) == (
        "1 tensor does not fit: transformer.h.0.attn.c_attn.weight is (36, 12), not (12, 36)"
    )


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_off(directory, share):
    file = directory / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert problem(directory).startswith("its model.safetensors is damaged: ")


def test_no_weights(directory):
    (directory / "model.safetensors").unlink()
    assert problem(directory) == "it has no model.safetensors"


@pytest.mark.parametrize(("config", "kind"), [(BERT, "AutoModel"), (GPT2, "AutoModelForCausalLM")])
def test_pickled_weights_are_not_opened(config, kind, tmp_path):
    {"encoder": Encoder, "decoder": Decoder}[config.kind](config).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything at all")
    message = problem(tmp_path)
    assert "its weights are pickled (pytorch_model.bin), which can run code" in message
    assert f" {kind}.from_pretrained(DIRECTORY).save_pretrained(NEW_DIRECTORY)" in message


# An index of several files


def index(directory, names):
    (directory / "model.safetensors").rename(directory / "one.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def test_an_index_leads_to_the_tensors(directory):
    before = pellucid.load(directory)
    index(directory, dict.fromkeys(tensors_of(directory), "one.safetensors"))
    after = dict(pellucid.load(directory).named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.named_parameters())


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"a": "two.safetensors"}, "names two.safetensors, which does not exist"),
        (
            {"a": "../one.safetensors"},
            "names a file outside the directory: ../one.safetensors",
        ),
        ({"a": "/etc/passwd"}, "names a file outside the directory: /etc/passwd"),
        ({"a": ".."}, "names a file outside the directory: .."),
        ({}, "names no files"),
        (["one.safetensors"], "names no files"),
        ({"a": 7}, "names 7, which does not exist"),
    ],
)
def test_an_index_that_leads_nowhere(directory, names, reason):
    index(directory, names)
    assert problem(directory) == f"its model.safetensors.index.json {reason}"


def test_one_file_counts_before_the_index_of_others(directory):
    """As with transformers: a model that is saved over one in pieces is not mixed with it."""
    before = pellucid.load(directory)
    index(directory, dict.fromkeys(tensors_of(directory), "one.safetensors"))
    Encoder(BERT).save(directory, overwrite=True)
    after = pellucid.load(directory)
    assert not torch.equal(before.encoder.tokens.weight, after.encoder.tokens.weight)


# config.json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "it has no config.json"),
        ("{", "its config.json cannot be read: "),
        ("[" * 100_000, "its config.json cannot be read: "),
        ("[1, 2]", "its config.json is not a JSON object"),
        (b"\xff\xfe", "its config.json cannot be read: "),
    ],
)
def test_a_config_that_is_none(directory, text, reason):
    path = directory / "config.json"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert problem(directory).startswith(reason)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"vocab_size": "gone"}, "its config.json has no 'vocab_size'"),
        ({"hidden_size": 13}, UNFIT + "width 13 does not divide into 3 heads; give head_dim"),
        ({"num_hidden_layers": 0}, UNFIT + "layers must be at least 1, not 0"),
        ({"num_attention_heads": "three"}, UNFIT + "heads must be an int, not 'three'"),
        ({"layer_norm_eps": "little"}, UNFIT + "norm_eps must be a number, not 'little'"),
        ({"max_position_embeddings": None}, UNFIT),
        (
            {"num_hidden_layers": 10**9},
            "its config.json describes a model with at least ",
        ),
        (
            {"hidden_size": 3 * 10**12},
            "its config.json describes a model with at least 93,000,000,000,000 numbers in 1 ",
        ),
        ({"intermediate_size": 14.5}, UNFIT + "hidden must be an int, not 14.5"),
        ({"layer_norm_eps": 0}, UNFIT + "norm_eps must be above 0, not 0"),
        ({"layer_norm_eps": -1e-5}, UNFIT + "norm_eps must be above 0, not -1e-05"),
        ({"layer_norm_eps": float("nan")}, UNFIT + "norm_eps must be finite, not nan"),
        ({"pad_token_id": 31}, UNFIT + "padding 31 is not in the vocabulary, 0 to 30"),
        ({"hidden_act": "sine"}, "its activation is 'sine'; known are relu, gelu, "),
        ({"hidden_act": ["gelu"]}, UNFIT),
        (
            {"position_embedding_type": "relative_key"},
            "its config.json has position_embedding_type = 'relative_key'; only 'absolute' is ",
        ),
    ],
)
def test_a_config_with_values_that_do_not_fit(directory, values, reason):
    change(directory, **values)
    assert problem(directory).startswith(reason)


def test_what_another_thread_builds_counts_for_nobody_else(directory):
    def large():
        return torch.nn.Linear(2**14, 2**13, device="meta")

    with as_large_as_stored(Tensors(directory, "encoder")):
        with ThreadPoolExecutor(1) as other:
            assert other.submit(large).result().weight.numel() > 2**26
        with pytest.raises(FileError, match="a model with at least 134,217,728 numbers"):
            large()
    assert large().weight.is_meta


def test_a_mark_of_utf_8_before_a_config(directory):
    path = directory / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert pellucid.load(directory).config == BERT


@pytest.mark.parametrize("name", ["mamba", None, 7, ["bert"], "gone"])
def test_an_unknown_family(directory, name):
    change(directory, model_type=name)
    shown = None if name == "gone" else name
    known = ", ".join(name for family in FAMILIES for name in family.types)
    assert problem(directory) == (
        f"its config.json has model_type {shown!r}; known families are {known}"
    )


def test_the_page_lists_every_family():
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    table = page.partition("| models | `model_type` |")[2].partition("\n\n")[0]
    known = {name for family in FAMILIES for name in family.types}
    assert set(re.findall(r"`([\w-]+)`", table)) == known


@pytest.mark.parametrize(
    ("ids", "kept"), [(50_256, ()), ([3, 50_256], (3,)), ([50_256, 50_257], ())]
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_ids_outside_the_vocabulary_are_left_out_and_said(ids, kept, file, tmp_path):
    """As in many a small model with the config of GPT-2."""
    Decoder(GPT2).save(tmp_path)
    said = {"eos_token_id": ids, "bos_token_id": 50_256}
    change(tmp_path, **(said if file == "config.json" else {}))
    if file != "config.json":
        (tmp_path / file).write_text(json.dumps(said))
    with pytest.warns(UserWarning, match=r"the model's \w+ 50256.* is left out") as said:
        config = pellucid.load(tmp_path).config
    assert (config.start, config.stop) == (None, kept)
    assert len(said) == 2
    change(tmp_path, eos_token_id=-1, bos_token_id=-1)  # that there are none
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    assert pellucid.load(tmp_path).config.stop == ()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "bert."])
def test_names_that_depend_on_how_a_model_was_saved(prefix, directory):
    """By DataParallel, by torch.compile, from TensorFlow."""
    whole = pellucid.load(directory)
    ends = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    renamed = {}
    for name, tensor in tensors_of(directory).items():
        for new, old in ends:
            name = name.replace(new, old)
        renamed[prefix + name] = tensor
    put(directory, renamed)
    again = pellucid.load(directory)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))


def test_our_own_config_that_is_damaged(tmp_path):
    Decoder(Config(kind="decoder", vocabulary=31, width=12, heads=3, position="alibi")).save(
        tmp_path
    )
    change(tmp_path, position="anywhere")
    assert problem(tmp_path).startswith(UNFIT + "position must be one of sinusoidal, learned, ")
    change(tmp_path, position="alibi", stop=7)
    assert problem(tmp_path).startswith(UNFIT)


# Where a checkpoint is


def test_a_path_that_is_no_directory(directory):
    assert problem(directory / "nowhere") == "is not a directory"
    assert problem(directory / "config.json").startswith("is a file; give the model's directory")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, TypeMismatchError, "path must be a str or a Path, not None"),
        (5, TypeMismatchError, "path must be a str or a Path, not 5"),
        ("", FileError, "path is empty; give the model's directory or its hub name"),
        ("a" * 5000, FileError, "model 'a{79}…' cannot be opened: File name too long"),
    ],
)
def test_a_path_that_is_none(path, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        pellucid.load(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "banana"}, TypeMismatchError, "dtype must be one of torch.float32, .*'banana'"),
        ({"dtype": torch.int32}, TypeMismatchError, "dtype must be one of .*, not torch.int32"),
        ({"device": 5}, TypeMismatchError, "device must be a torch.device or its name, not 5"),
        ({"device": "banana"}, ArgumentError, "device 'banana' cannot be used here: Expected one"),
        ({"device": "cuda:77"}, ArgumentError, "device 'cuda:77' cannot be used here: "),
    ],
)
def test_a_target_that_is_none(directory, options, error, message):
    with pytest.raises(error, match=message):
        pellucid.load(directory, **options)


def test_a_hub_name_without_a_network(monkeypatch):
    def unreachable(name, **_):
        raise ConnectionError(f"no way to {name}. Please try again later")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    assert problem("someone/model") == (
        "is not a local directory, and the Hugging Face hub does not provide it: no way to "
        "someone/model"
    )


def test_a_hub_name_is_fetched(directory, monkeypatch):
    asked = []

    def fetched(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    model = pellucid.load("someone/model")
    assert model.config == BERT
    [(name, patterns)] = asked
    assert name == "someone/model"
    assert not any(Path("pytorch_model.bin").match(pattern) for pattern in patterns)
    assert not any(Path("modeling.py").match(pattern) for pattern in patterns)


def hub_cache(directory, path):
    """A directory as the hub's cache keeps it: each file is a link to where its bytes lie."""
    blobs = path / "models--a--b" / "blobs"
    snapshot = path / "models--a--b" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(one for one in directory.rglob("*") if one.is_file()):
        (blobs / str(number)).write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(directory)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def test_a_directory_of_the_hub_s_cache(directory, tmp_path):
    snapshot = hub_cache(directory, tmp_path)
    assert pellucid.load(snapshot).config == BERT
    (tmp_path / "linked").symlink_to(snapshot)  # the user may name it through a link
    assert pellucid.load(tmp_path / "linked").config == BERT


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "notes/secret"])
@pytest.mark.parametrize("is_of_hub", [True, False])
def test_a_link_that_leads_out_of_the_directory(directory, tmp_path, name, is_of_hub):
    if is_of_hub:
        directory = hub_cache(directory, tmp_path / "cache")
    outside, link = tmp_path / "outside", directory / name
    link.parent.mkdir(exist_ok=True)
    outside.write_bytes(link.read_bytes() if link.exists() else b"secret")
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    message = rf"cannot be opened: its {name} is a link to {outside}, outside the model's directory"
    with pytest.raises(FileError, match=message):
        pellucid.load(directory)
    with pytest.raises(FileError, match=message):
        open_checkpoint(directory)


def test_links_that_stay_inside_the_directory(directory):
    (directory / "files").mkdir()
    (directory / "config.json").rename(directory / "files" / "real.json")
    (directory / "config.json").symlink_to("files/real.json")
    assert pellucid.load(directory).config == BERT


def test_blobs_that_lead_out_of_the_hub_s_cache(directory, tmp_path):
    snapshot = hub_cache(directory, tmp_path)
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match=r"is a link to .*elsewhere"):
        pellucid.load(snapshot)


# Saving


def files(directory):
    return {one.name: one.read_bytes() for one in directory.iterdir() if one.is_file()}


def test_saving_where_a_file_is(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(FileError, match=r"cannot write '.*model': File exists"):
        Encoder(BERT).save(tmp_path / "model")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_saving_to_a_directory_that_may_not_be_written(directory, monkeypatch, code):
    def refused(*_, **__):
        raise OSError(code, os.strerror(code))

    before = files(directory)
    monkeypatch.setattr("pellucid.common.files.NamedTemporaryFile", refused)
    with pytest.raises(FileError, match=rf"cannot write '.*': {os.strerror(code)}"):
        Encoder(BERT).save(directory, overwrite=True)
    assert files(directory) == before


@pytest.mark.parametrize("room", [1, 200])
def test_saving_to_a_directory_that_is_full(directory, room):
    """What was there stays as it was, and nothing else is left."""
    before = files(directory)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = Encoder(BERT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(FileError, match="cannot write '") as caught:
            model.save(directory, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert files(directory) == before


def test_a_config_that_cannot_be_written_leaves_the_weights_too(directory, monkeypatch):
    before = files(directory)

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FileError, match="No space left on device"):
        Encoder(BERT).save(directory, overwrite=True)
    assert files(directory) == before


def test_a_model_is_saved_over_the_one_it_was_read_from(directory):
    model = pellucid.load(directory)
    with torch.no_grad():
        model.encoder.tokens.weight.add_(1)
    model.save(directory, overwrite=True)
    assert torch.equal(pellucid.load(directory).encoder.tokens.weight, model.encoder.tokens.weight)
    assert sorted(files(directory)) == [
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
    ]


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spiece.model"])
def test_a_tokenizer_of_another_model_is_neither_taken_nor_lost(directory, name):
    (directory / name).write_text("anything at all")
    before = files(directory)
    with pytest.raises(FileError) as caught:
        Encoder(BERT).save(directory, overwrite=True)
    assert str(caught.value) == (
        f"cannot write '{directory}': the model has no tokenizer, but the directory has one, "
        f"{name}; remove it, or write elsewhere"
    )
    assert files(directory) == before


def test_half_precision_is_kept(directory):
    model = pellucid.load(directory, dtype=torch.bfloat16)
    model.save(directory, overwrite=True)
    assert json.loads((directory / "config.json").read_text())["dtype"] == "bfloat16"
    assert {value.dtype for value in tensors_of(directory).values()} == {torch.bfloat16}


# docs/add-a-family.md


def test_the_page_shows_the_file_as_it_is():
    root = Path(__file__).parent.parent.parent
    page = (root / "docs/add-a-family.md").read_text(encoding="utf-8")
    file = (root / "src/pellucid/models/checkpoints/gpt2.py").read_text(encoding="utf-8")
    *shown, table = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    docstring, _, code = file.partition("\n\n")
    assert docstring.startswith('"""GPT-2')
    assert "".join(shown).replace("\n", "") == code.replace("\n", "")
    described = (root / "src/pellucid/models/checkpoints/experts.py").read_text(encoding="utf-8")
    assert table[table.index("MIXTRAL") :] in described
    fields = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert fields == {one.name for one in dataclasses.fields(Family)} - {
        "read",
        "write",
        "names",
        "outside",
    }
